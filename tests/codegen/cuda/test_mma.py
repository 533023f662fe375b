# SPDX-License-Identifier: Apache-2.0
"""cuda.mma_gemm and cuda.mma_conv, emulated on the CPU, and compiled for every architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcc.codegen.cuda.emit import template_text
from tcc.codegen.cuda.templates import mma_conv, mma_gemm
from tcc.codegen.template import TEMPLATES, rows_of
from tcc.ir.kernel import Func
from tcc.ir.targets import target
from tcc.ir.types import BF16, F16, F32
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
    check(problem, some(problem, 3, seed=len(name)))


@emulated
@pytest.mark.parametrize("name", CONVS)
def test_conv(name):
    problem = CONVS[name]()
    check(problem, some(problem, 2, seed=len(name)))
