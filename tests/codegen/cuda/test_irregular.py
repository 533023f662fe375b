# SPDX-License-Identifier: Apache-2.0
"""Scans, top-k and scatters on CUDA: every template emulated against the oracle, and compiled by NVRTC."""

import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import candidates, load_templates, rows_of
from tcc.ir.targets import target
from tcc.ir.verifier import verify
from tests.codegen import irregular
from tests.codegen.cuda import emulator
from tests.codegen.cuda.problems import Checker

CASES = {c.name: c for c in irregular.cases()}
SM_80 = target("sm_80")


def usable(case, sm="sm_80"):
    load_templates("cuda")
    return [t for t, why in candidates(case.problem, target(sm)) if why is None]


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("name", CASES)
def test_kernels_compute_what_the_oracle_says(name):
    case = CASES[name]
    verify(case.problem)
    checker = Checker(case.problem, case.arrays)
    found = usable(case)
    assert any(t.name == "cuda.naive" for t in found)
    for t in found:
        config = t.default(case.problem, SM_80)
        assert config is not None
        assert t.why_illegal(case.problem, config, SM_80) is None
        assert checker.worst(t, config, SM_80, emulator.run) <= 1, (t.name, config)


ODD = ("cumsum_f32_5x7x9_1_reverse", "cumsum_f16_2x130_1_exclusive_reverse", "topk5_f32_3x40_1", "topk7_f64_2x100_1",
       "nd2_none_f32_6x5", "regions_sum_f32_2x7x9x37_5_2", "nd1_max_bf16_8x33")  # fmt: skip


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("name", ODD)
def test_all_configs(name):
    case = CASES[name]
    checker = Checker(case.problem, case.arrays)
    for t in usable(case):
        for config in rows_of(t.legal_columns(case.problem, SM_80)[0]):
            assert checker.worst(t, config, SM_80, emulator.run) <= 1, (t.name, config)


@pytest.mark.parametrize("sm", ["sm_75", "sm_86", "sm_90", "sm_120"])
def test_sources_compile(sm):
    for name in ODD[::2] if sm != "sm_90" else ODD:
        case = CASES[name]
        for t in usable(case, sm):
            config = t.default(case.problem, target(sm))
            assert config is not None
            built = compile_cuda(t.emit(case.problem, config, target(sm)).source, sm, name=t.name)
            assert not built.warnings, (t.name, config, built.warnings)
