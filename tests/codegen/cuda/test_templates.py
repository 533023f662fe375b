# SPDX-License-Identifier: Apache-2.0
"""Every CUDA template on every kind of problem: run by emulation, compiled by NVRTC for every architecture."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.cuda.emit.dtypes import SMALL
from tcc.codegen.template import TEMPLATES, Config, Template, candidates, load_templates, rows_of
from tcc.ir.kernel import Func
from tcc.ir.targets import CUDA_TARGETS, target
from tcc.ir.types import dtype
from tcc.ir.verifier import verify
from tests.codegen.cuda import builders, emulator, region_builders
from tests.codegen.cuda.problems import Checker, buffer
from tests.codegen.cuda.suite import arrays_of, problems

SUITE = problems()
CASES = [(kind, i) for kind, listed in SUITE.items() for i in range(len(listed))]
OURS = (
    "cuda.attention", "cuda.attention_tensor", "cuda.depthwise", "cuda.map", "cuda.naive", "cuda.pool", "cuda.reduce",
    "cuda.rows", "cuda.simt_conv", "cuda.simt_gemm", "cuda.simt_gemv",
)  # fmt: skip
SM_80, SM_90 = target("sm_80"), target("sm_90")


def usable(problem: Func, sm: str = "sm_90") -> list[Template]:
    load_templates("cuda")
    return [t for t, why in candidates(problem, target(sm)) if why is None and t.name in OURS]


def configs(template: Template, problem: Func, sm: str, count: int) -> list[Config]:
    """The default and `count` others, the same every time."""
    listed = rows_of(template.legal_columns(problem, target(sm))[0])
    seed = zlib.crc32(f"{template.name} {problem.anchor.domain.text()}".encode())
    picked = np.random.default_rng(seed).permutation(len(listed))[:count]
    default = template.default(problem, target(sm))
    return [*([default] if default is not None else []), *(listed[int(i)] for i in picked)]


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize(("kind", "index"), CASES, ids=[f"{k}{i}" for k, i in CASES])
def test_kernels_compute_what_the_oracle_says(kind, index):
    problem = SUITE[kind][index]
    verify(problem)
    checker = Checker(problem, arrays_of(problem))
    found = usable(problem, "sm_80")
    assert any(t.name == "cuda.naive" for t in found)
    for template in found:
        for config in configs(template, problem, "sm_80", 1)[-1 if template.name == "cuda.naive" else 0 :]:
            assert template.why_illegal(problem, config, SM_80) is None
            worst = checker.worst(template, config, SM_80, emulator.run)
            assert worst <= 1, (template.name, config)


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("name", sorted(SMALL))
def test_small_floats_round_to_the_nearest_and_keep_to_their_range(name):
    small = dtype(name)
    codes = np.arange(1 << small.bits, dtype=np.uint8)
    grid = np.unique(codes.view(small.numpy).astype(np.float32))
    grid = grid[np.isfinite(grid)]
    middles = (grid[:-1] + grid[1:]) / 2
    inside = np.concatenate([grid, middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
    if name != "f4e2m1":
        inside = np.append(inside, np.nan)
    outside = np.array([grid[-1] * 4 if name != "f8e8m0" else 0], np.float32)
    if name == "f8e8m0":
        inside, outside = grid, outside[:0]
    values = np.concatenate([inside, outside]).astype(np.float32)
    problem = region_builders.casts(len(values), builders.F32, [small])
    buffers = [buffer(problem.arg_types[0], values), buffer(problem.result_types[0])]
    load_templates("cuda")
    emulator.run(TEMPLATES["cuda.naive"].emit(problem, {"threads": 64}, SM_90), buffers)
    got = buffers[1].view.astype(np.float32)
    expected = inside.astype(np.float32).astype(small.numpy).astype(np.float32)
    np.testing.assert_array_equal(got[: len(inside)], expected)
    np.testing.assert_array_equal(got[len(inside) :], np.full(len(outside), grid[-1]))


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("template", ["cuda.naive", "cuda.map"])
@pytest.mark.parametrize("name", ["f16", "bf16", "f8e4m3fn", "f8e5m2fnuz", "f4e2m1"])
def test_a_cast_rounds_what_is_computed_on(name, template):
    narrow = dtype(name)
    values = np.linspace(-5, 5, 97).astype(np.float32)
    problem = region_builders.casts(len(values), builders.F32, [narrow], back=True)
    buffers = [buffer(problem.arg_types[0], values), buffer(problem.result_types[0])]
    load_templates("cuda")
    made = TEMPLATES[template]
    emulator.run(made.emit(problem, made.default(problem, SM_90), SM_90), buffers)
    np.testing.assert_array_equal(buffers[1].view, values.astype(narrow.numpy).astype(np.float32))


@pytest.mark.parametrize(
    "sm", [sm if sm in ("sm_75", "sm_90") else pytest.param(sm, marks=pytest.mark.slow) for sm in sorted(CUDA_TARGETS)]
)
def test_sources_compile_for_every_architecture(sm):
    step = sorted(CUDA_TARGETS).index(sm)
    for kind, listed in SUITE.items():
        if kind == "small":
            continue
        problem = listed[step % len(listed)]
        for template in usable(problem, sm):
            if kind == "ops" and template.name == "cuda.naive":
                continue
            config = configs(template, problem, sm, 1)[-1]
            built = compile_cuda(template.emit(problem, config, target(sm)).source, sm, name=template.name)
            assert not built.warnings, (template.name, config, built.warnings)


@pytest.mark.parametrize("sm", sorted(CUDA_TARGETS))
def test_big_products_and_convolutions_have_at_least_thirty_configs(sm):
    load_templates("cuda")
    for problem, name in (
        (builders.matmul((1,), 128, 768, 768, builders.F32), "cuda.simt_gemm"),
        (builders.conv(1, 56, 56, 1, 64, 64, 3, builders.F32, pad=1), "cuda.simt_conv"),
    ):
        columns, dropped = TEMPLATES[name].legal_columns(problem, target(sm))
        assert len(columns["block_m"]) >= 30
        assert all(reason and count for reason, count in dropped)


def test_costs_are_finite_and_rank_the_default_first():
    for listed in SUITE.values():
        for problem in listed:
            for template in usable(problem):
                columns, _ = template.legal_columns(problem, SM_90)
                cost = template.cost(problem, columns, SM_90)
                assert np.all(np.isfinite(cost)) and np.all(cost > 0)
                rows = rows_of(columns)
                if template.name != "cuda.naive":
                    assert rows[int(np.argmin(cost))] == template.default(problem, SM_90)


def test_free_extents_are_refused_with_a_sentence():
    from tcc.ir.expr import Sym
    from tcc.ir.kernel.symbols import close

    problem = builders.pointwise((Sym("n"), 8), builders.F32)
    close(problem)
    said = {template.name: why for template, why in candidates(problem, SM_90)}
    assert said["cuda.naive"] is None
    assert said["cuda.map"] == "extents are arguments, and it takes numbers only"


def test_partial_sums_are_added_in_a_fixed_order():
    problem = builders.matmul((), 16, 16, 512, builders.F32)
    template = TEMPLATES["cuda.simt_gemm"]
    split = next(c for c in rows_of(template.legal_columns(problem, SM_90)[0]) if c["split_k"] == 8)
    emitted = template.emit(problem, split, SM_90)
    assert [launch.entry for launch in emitted.launches] == [emitted.launches[0].entry, emitted.launches[1].entry]
    assert "atomic" not in emitted.source
    assert emitted.launches[0].writes == emitted.launches[1].reads[-1:]
    assert int(emitted.workspaces[0].bytes) == 8 * 16 * 16 * 4
