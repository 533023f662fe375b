# SPDX-License-Identifier: Apache-2.0
"""cuda.mma_gemm and cuda.mma_conv, emulated on the CPU, and compiled for every architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.cuda.emit import template_text
from tcc.codegen.cuda.templates import mma_conv, mma_gemm
from tcc.codegen.template import TEMPLATES, rows_of
from tcc.ir.kernel import Func
from tcc.ir.targets import target
from tcc.ir.types import BF16, F16, F32, F64, I32
from tests.codegen.cuda import emulator
from tests.codegen.cuda.builders import conv, matmul
from tests.codegen.cuda.problems import Checker, random_array

GEMM, CONV = TEMPLATES[mma_gemm.MmaGemm.name], TEMPLATES[mma_conv.MmaConv.name]
AMPERE, TURING = target("sm_86"), target("sm_75")
STAND_IN = Path(__file__).with_name("mma_emulator.h").read_text()
emulated = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


def run(emitted, buffers):
    source = emitted.source.replace(template_text("mma_ptx.cuh"), STAND_IN)
    assert source != emitted.source
    emulator.run(replace(emitted, source=source), buffers)


def tf32(f: Func) -> Func:
    f.anchor.attrs["allow"] = ("tf32",)
    return f


def template_of(problem: Func):
    return GEMM if problem.anchor.name == "kernel.matmul" else CONV


def arrays_of(problem: Func, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [random_array(rng, t) for t in problem.arg_types]


def check(problem: Func, configs, of=AMPERE, seed: int = 0):
    t = template_of(problem)
    assert t.accepts(problem, of) is None
    checker = Checker(problem, arrays_of(problem, seed))
    for config in configs:
        assert t.why_illegal(problem, config, of) is None
        ratio = checker.worst(t, config, of, run)
        assert ratio <= 1, config


def some(problem: Func, count: int, of=AMPERE, seed: int = 0):
    """Legal configs at random, the default first."""
    t = template_of(problem)
    columns, _ = t.legal_columns(problem, of)
    legal = rows_of(columns)
    rng = np.random.default_rng(seed)
    return [t.default(problem, of), *(legal[i] for i in rng.integers(0, len(legal), count))]


GEMMS = {
    "bert": lambda: matmul((), 40, 72, 96, F16, bias=True, residual=True, activation="gelu"),
    "attention scores": lambda: matmul((2, 3), 33, 40, 24, F16, tb=True, weights=False),
    "values, odd k": lambda: matmul((2,), 21, 24, 37, F16, weights=False),
    "both transposed": lambda: matmul((), 48, 40, 64, F16, ta=True, tb=True, weights=False),
    "lhs transposed": lambda: matmul((2,), 56, 64, 33, BF16, ta=True, weights=False),
    "rows inside": lambda: matmul((2,), 17, 32, 48, BF16, out="mbn", bias=True),
    "result transposed": lambda: matmul((2,), 24, 40, 32, F16, out="bnm", bias=True),
    "odd everything": lambda: matmul((), 19, 23, 29, F16, bias=True, residual=True),
    "k of four": lambda: matmul((), 20, 40, 44, F16, tb=True, weights=False),
    "k of two": lambda: matmul((), 20, 40, 46, F16, tb=True, weights=False),
    "strided": lambda: matmul((2,), 18, 40, 72, F16, strided=True, bias=True),
    "prologue": lambda: matmul((), 18, 40, 72, F16, prologue=True),
    "tf32": lambda: tf32(matmul((), 33, 40, 72, F32, bias=True)),
    "tf32, k of two": lambda: tf32(matmul((), 33, 41, 38, F32, bias=True, weights=False)),
    "tf32 transposed": lambda: tf32(matmul((2,), 24, 40, 36, F32, ta=True, weights=False)),
    "deep": lambda: matmul((), 20, 40, 264, F16, bias=True, residual=True),
    "one row": lambda: matmul((), 1, 64, 128, F16, bias=True),
}
CONVS = {
    "3x3": lambda: conv(1, 9, 7, 1, 16, 24, 3, F16, pad=1, residual=True),
    "stride 2": lambda: conv(2, 9, 8, 1, 8, 40, 3, F16, pad=1, stride=2),
    "1x1": lambda: conv(1, 6, 7, 1, 40, 32, 1, BF16),
    "1x1 stride 2": lambda: conv(1, 7, 7, 1, 24, 32, 1, F16, stride=2),
    "groups": lambda: conv(1, 6, 6, 2, 16, 16, 3, F16, pad=1),
    "dilated": lambda: conv(1, 9, 9, 1, 16, 16, 3, F16, pad=2, dilation=2),
    "stem": lambda: conv(1, 14, 13, 1, 3, 16, 7, F16, pad=3, stride=2),
    "odd channels": lambda: conv(1, 6, 5, 1, 12, 20, 3, F16, pad=1, bias=False),
    "nchw": lambda: conv(1, 6, 8, 1, 16, 24, 3, F16, pad=1, layout="nchw"),
    "tf32": lambda: tf32(conv(1, 6, 6, 1, 12, 20, 3, F32, pad=1)),
    "into a slice": lambda: conv(1, 6, 6, 1, 16, 24, 1, F16, channels=64),
}


@emulated
@pytest.mark.parametrize("name", GEMMS)
def test_gemm(name):
    problem = GEMMS[name]()
    check(problem, some(problem, 1, seed=len(name)))


@emulated
@pytest.mark.parametrize("name", CONVS)
def test_conv(name):
    problem = CONVS[name]()
    check(problem, some(problem, 1, seed=len(name)))


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", [*GEMMS, *(f"conv {n}" for n in CONVS)])
def test_many_configs(name):
    problem = CONVS[name.removeprefix("conv ")]() if name.startswith("conv ") else GEMMS[name]()
    check(problem, some(problem, 4, seed=2 + len(name)))


@emulated
@pytest.mark.parametrize("name", ["bert", "values, odd k", "both transposed"])
def test_copies_through_registers(name):
    problem = GEMMS[name]()
    check(problem, some(problem, 1, TURING), TURING)


@emulated
def test_split_sums():
    problem = matmul((2,), 20, 40, 520, F16, bias=True, residual=True)
    legal = rows_of(GEMM.legal_columns(problem, AMPERE)[0])
    wanted = [
        next(c for c in legal if c["split_k"] == split and c["slices"] == slices)
        for split, slices in ((2, 1), (4, 2), (1, 4))
    ]
    check(problem, wanted)


@emulated
def test_a_missing_wait_shows():
    problem = matmul((), 40, 72, 520, F16)
    legal = rows_of(GEMM.legal_columns(problem, AMPERE)[0])
    config = next(c for c in legal if c["stages"] == 3)

    def hasty(emitted, buffers):
        source = emitted.source.replace("arrived<STAGES - 2>", "arrived<STAGES - 1>")
        run(replace(emitted, source=source), buffers)

    checker = Checker(problem, arrays_of(problem))
    assert checker.worst(GEMM, config, AMPERE, run) <= 1
    assert checker.worst(GEMM, config, AMPERE, hasty) > 1


ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
COMPILED = {
    "bert": lambda: matmul((1,), 128, 768, 768, F16, bias=True, residual=True, activation="gelu"),
    "scores": lambda: matmul((1, 12), 128, 128, 64, F16, tb=True, weights=False),
    "tf32": lambda: tf32(matmul((), 197, 768, 768, F32, bias=True)),
    "3x3": lambda: conv(1, 14, 14, 1, 256, 256, 3, F16, pad=1, residual=True),
    "stem": lambda: conv(1, 112, 112, 1, 3, 64, 7, F16, pad=3, stride=2),
}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", COMPILED)
def test_compiles(name, arch):
    problem, of = COMPILED[name](), target(arch)
    t = template_of(problem)
    if t.accepts(problem, of) is not None:
        assert (name, arch) == ("tf32", "sm_75")
        return
    count = len(next(iter(t.legal_columns(problem, of)[0].values())))
    assert count >= 30
    emitted = t.emit(problem, some(problem, 0, of)[0], of)
    built = compile_cuda(emitted.source, arch)
    for row in built.resources.values():
        assert row.stack <= 64
    assert set(built.resources) == {launch.entry for launch in emitted.launches}
    assert all(launch.shared + 1024 <= of.shared_bytes for launch in emitted.launches)


def test_clusters_add_where_there_are_clusters():
    problem = matmul((), 128, 768, 3072, F16)
    for name, launches in (("sm_90", 1), ("sm_86", 2)):
        of = target(name)
        config = next(c for c in rows_of(GEMM.legal_columns(problem, of)[0]) if c["split_k"] == 4)
        emitted = GEMM.emit(problem, config, of)
        assert len(emitted.launches) == launches
        assert emitted.launches[0].cluster == ((4, 1, 1) if launches == 1 else None)
        assert len(emitted.workspaces) == launches - 1
        assert emitted.derived["split"] == ("cluster" if launches == 1 else "workspace")


def test_weights_without_whole_rows_are_packed():
    problem = conv(1, 14, 14, 1, 3, 16, 7, F16, pad=3, stride=2)
    (packing,) = CONV.pack(problem, {}, AMPERE)
    assert (packing.operand, packing.shape, packing.dtype) == (1, (16, 152), F16)
    assert GEMM.pack(matmul((), 8, 40, 64, F16), {}, AMPERE) == []
    (packing,) = GEMM.pack(matmul((), 8, 41, 64, F16), {}, AMPERE)
    assert packing.shape == (41, 64)
    assert GEMM.pack(matmul((), 8, 41, 64, F16, weights=False), {}, AMPERE) == []


def test_refusals_say_why():
    cases = [
        (matmul((), 8, 8, 8, F32), AMPERE, "its factors are f32, and tf32 is not allowed"),
        (tf32(matmul((), 8, 8, 8, F32)), TURING, "sm_75 has no tf32 tensor cores"),
        (matmul((), 8, 8, 8, BF16), TURING, "sm_75 has no bf16 tensor cores"),
        (matmul((), 8, 8, 8, I32), AMPERE, "it accumulates in i32, and tensor cores in f32"),
        (matmul((), 8, 8, 8, F64), AMPERE, "it accumulates in f64, and tensor cores in f32"),
        (conv(1, 8, 8, 16, 4, 4, 3, F16, pad=1), AMPERE,
         "its 16 groups have 4 input and 4 output channels: fewer than 16"),
    ]  # fmt: skip
    for problem, of, sentence in cases:
        assert template_of(problem).accepts(problem, of) == sentence


def test_emission_is_a_function_of_problem_and_config():
    problem = GEMMS["bert"]()
    config = GEMM.default(problem, AMPERE)
    assert config is not None
    assert GEMM.emit(problem, config, AMPERE) == GEMM.emit(problem, config, AMPERE)
    assert GEMM.why_illegal(problem, {**config, "warp_m": 64, "block_m": 32}, AMPERE) is not None
