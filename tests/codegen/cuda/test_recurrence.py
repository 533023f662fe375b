# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers on CUDA: run by emulation, compiled by NVRTC."""

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import TEMPLATES, candidates, load_templates, rows_of
from tcc.ir.targets import CUDA_TARGETS, target
from tcc.ir.verifier import verify
from tests.codegen.cuda import emulator
from tests.codegen.cuda.problems import Checker
from tests.codegen.recurrences import DYNAMIC, LAYERS, Layer, name_of

SM_80 = target("sm_80")
emulated = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
load_templates("cuda")


@emulated
@pytest.mark.parametrize("layer", [*LAYERS, *DYNAMIC], ids=name_of)
def test_kernels_compute_what_the_oracle_says(layer: Layer, rng: np.random.Generator) -> None:
    func = layer.func()
    verify(func)
    checker = Checker(func, layer.arrays(rng))
    for template, why in candidates(func, SM_80):
        if why is not None:
            continue
        config = template.default(func, SM_80)
        assert config is not None and template.why_illegal(func, config, SM_80) is None
        assert checker.worst(template, config, SM_80, emulator.run) <= 1, (template.name, config)


@emulated
@pytest.mark.parametrize("name", ["cuda.recurrence", "cuda.recurrence_grid"])
@pytest.mark.parametrize("index", [2, 7, -5], ids=lambda i: name_of(LAYERS[i]))
def test_configs(name: str, index: int, rng: np.random.Generator) -> None:
    func = LAYERS[index].func()
    checker = Checker(func, LAYERS[index].arrays(rng))
    listed = rows_of(TEMPLATES[name].legal_columns(func, SM_80)[0])
    for config in listed[:: max(1, len(listed) // 4)]:
        assert checker.worst(TEMPLATES[name], config, SM_80, emulator.run) <= 1, config


@emulated
@pytest.mark.parametrize("resident", [0, 1])
def test_blocks_that_meet_after_every_stage(resident: int, rng: np.random.Generator) -> None:
    func, template = LAYERS[7].func(), TEMPLATES["cuda.recurrence_grid"]
    checker = Checker(func, LAYERS[7].arrays(rng))
    config = {"units": 16, "warps": 4, "rows": 2, "groups": 2, "resident": resident}
    (launch,) = template.emit(func, config, SM_80).launches
    assert launch.cooperative and launch.grid == (3, 2, 1)
    assert checker.worst(template, config, SM_80, emulator.run) <= 1


@emulated
def test_states_that_do_not_fit_shared_memory(rng: np.random.Generator) -> None:
    layer = Layer("rnn", 2, 2, 4200)
    func, config = layer.func(), {"threads": 512, "rows": 1}
    assert TEMPLATES["cuda.recurrence"].emit(func, config, SM_80).workspaces
    assert Checker(func, layer.arrays(rng)).worst(TEMPLATES["cuda.recurrence"], config, SM_80, emulator.run) <= 1
    small = Layer("gru", 2, 3, 20).func()
    assert not TEMPLATES["cuda.recurrence"].emit(small, {"threads": 64, "rows": 2}, SM_80).workspaces


@pytest.mark.parametrize(
    "sm", [sm if sm in ("sm_75", "sm_90") else pytest.param(sm, marks=pytest.mark.slow) for sm in sorted(CUDA_TARGETS)]
)
def test_sources_compile_for_every_architecture(sm: str) -> None:
    for layer in (
        LAYERS[2],
        LAYERS[4],
        LAYERS[5],
        LAYERS[7],
        LAYERS[10],
        LAYERS[-5],
        LAYERS[-6],
        Layer("lstm", 2, 2, 1800),
    ):
        func = layer.func()
        for template, why in candidates(func, target(sm)):
            if why is None:
                config = template.default(func, target(sm))
                built = compile_cuda(template.emit(func, config, target(sm)).source, sm, name=template.name)
                assert not built.warnings, (template.name, built.warnings)
