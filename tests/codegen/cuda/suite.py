# SPDX-License-Identifier: Apache-2.0
"""The problems every CUDA template is checked on: odd shapes, tails, views, several operands, all kinds of maps."""

from __future__ import annotations

import zlib

import numpy as np

from tcc.ir.kernel import Func
from tcc.ir.types import BF16, BOOL, DTYPES, F16, F32, F64, I8, I16, I32, I64, STRING, U8, U32, DType
from tests.codegen.cuda import builders as b
from tests.codegen.cuda import region_builders as r
from tests.codegen.cuda.problems import random_array

FLOATS = (F32, F64, F16, BF16)
WORDS = tuple(r.UNARY)


def problems() -> dict[str, list[Func]]:
    """By kind."""
    return {
        "map": [
            b.pointwise((3, 5, 8, 24), F16),
            b.pointwise((3, 40, 33), F32, order=(0, 2, 1)),
            b.pointwise((2, 9, 10, 24), F16, order=(0, 3, 1, 2), broadcast=True),
            b.pointwise((37,), BF16),
            b.pointwise((5, 7, 12), F32, strided=True, broadcast=True),
            b.pointwise((33, 65), I32, order=(1, 0)),
            b.pointwise((7, 16), U8, out=F32),
            b.gather(50, 24, 11, F16),
            b.pad_and_resize(5, 4, 6, F32),
            b.pad_and_resize(5, 4, 8, I8),
        ],
        "reduce": [
            b.reduce((7, 33, 40), (2,), F16, mean=True),
            b.reduce((2, 49, 72), (1,), F16, mean=True),
            b.reduce((2, 72, 49), (2,), F32, combine="max"),
            b.reduce((3, 70), (0, 1), F32, square=True, both=True),
            b.reduce((1000,), (0,), I32),
            b.reduce((4, 6, 10, 8), (1, 3), F32, combine="min"),
            b.reduce((5, 6, 7), (0,), F64, combine="prod"),
            b.reduce((3, 9, 16), (1, 2), BF16, order=(1, 0, 2), mean=True),
            b.reduce((4, 0), (1,), F32),
        ],
        "pool": [
            b.pool(2, 9, 10, 24, 3, F16, stride=2, pad=1),
            b.pool(1, 7, 7, 12, 2, F32, combine="sum", stride=2),
            b.pool(1, 7, 8, 3, 3, F32, pad=1, layout="nchw"),
            b.pool(1, 6, 6, 5, 3, I32, pad=1),
        ],
        "matmul": [
            b.matmul((2,), 37, 24, 40, F16, bias=True, residual=True),
            b.matmul((2, 3), 17, 19, 23, F32, ta=True, tb=True, weights=False),
            b.matmul((), 3, 40, 64, F32, bias=True),
            b.matmul((3,), 9, 33, 17, F32, out="bnm", bias=True),
            b.matmul((2,), 20, 16, 32, F32, strided=True, residual=True, prologue=True),
            b.matmul((2,), 12, 16, 24, I32, weights=False, out="mbn"),
            b.matmul((), 5, 6, 70, F64),
            b.matmul((2,), 16, 24, 32, BF16, tb=True, activation="gelu"),
            b.matmul((), 1, 40, 96, F16, bias=True),
            b.matmul((), 1, 33, 64, F32, tb=True, bias=True),
            b.matmul((), 19, 21, 33, I8),
            b.scaled_sum(9, 20, 33, F32),
            b.scaled_sum(16, 32, 64, F16),
        ],
        "conv": [
            b.conv(2, 9, 8, 1, 16, 24, 3, F16, pad=1),
            b.conv(1, 11, 10, 1, 3, 8, 7, F32, stride=2, pad=3),
            b.conv(2, 7, 6, 2, 8, 12, 3, F32, pad=2, dilation=2, residual=True),
            b.conv(1, 9, 8, 1, 4, 10, 3, F32, layout="nchw", pad=1),
            b.conv(1, 8, 8, 4, 4, 4, 1, F16, channels=32, activation="silu"),
            b.conv(1, 1, 1, 1, 32, 24, 1, F32),
        ],
        "depthwise": [
            b.conv(2, 9, 10, 24, 1, 1, 3, F16, pad=1),
            b.conv(1, 11, 9, 16, 1, 1, 5, F32, stride=2, pad=2, activation="silu"),
            b.conv(1, 9, 9, 12, 1, 1, 3, F32, dilation=2, pad=2),
            b.conv(1, 8, 8, 10, 1, 1, 3, F32),
            b.conv(1, 7, 7, 32, 1, 1, 7, F16, pad=3, residual=True),
            b.conv(1, 7, 9, 6, 1, 1, 3, F32, layout="nchw", pad=1),
            b.conv(2, 1, 4, 9, 1, 1, 1, F32),
        ],
        "rows": [
            b.softmax(7, 33, F16),
            b.softmax(3, 10, F32, inner=12),
            b.softmax(5, 128, F32),
            b.softmax(2, 3000, F32),
            b.layernorm((3, 4), 96, F16),
            b.layernorm((7,), 50, F32, residual=True),
            b.layernorm((2,), 1024, BF16),
        ],
        "attention": [
            b.attention(2, 2, 17, 19, 16, F16),
            b.attention(1, 3, 33, 33, 32, F32, layout="qkv", mask="causal"),
            b.attention(2, 2, 49, 49, 32, F16, layout="qkv", mask="bias"),
            b.attention(1, 2, 5, 40, 64, F16, layout="bmhd", mask="key", value=24),
            b.attention(1, 1, 20, 20, 80, F32),
            b.attention(1, 2, 70, 70, 64, F16, layout="bmhd"),
            b.attention(1, 1, 9, 9, 64, BF16),
        ],
        "small": [
            b.matmul((), 0, 8, 16, F32),
            b.matmul((), 8, 0, 16, F32),
            b.matmul((), 8, 16, 0, F32, bias=True),
            b.matmul((0,), 8, 16, 16, F16, weights=False),
            b.matmul((), 1, 1, 1, F32),
            b.conv(0, 8, 8, 4, 1, 1, 3, F32, pad=1),
            b.conv(1, 1, 1, 1, 1, 1, 1, F32),
            b.pointwise((4, 0), F16, order=(1, 0)),
            b.pointwise((1, 1), F16),
            b.reduce((0, 5), (1,), F32),
            b.pool(0, 8, 8, 4, 3, F32),
            b.softmax(0, 8, F32),
            b.softmax(3, 0, F32),
            b.softmax(1, 1, F32),
            b.attention(1, 2, 0, 8, 16, F16),
            b.attention(1, 1, 1, 1, 8, F16),
        ],
        "ops": [
            *(r.unary_ops(SPECIALS, d, WORDS) for d in FLOATS),
            *(r.binary_ops(SPECIALS, d) for d in (*FLOATS, I8, I32, I64, U8, U32)),
            r.casts(SPECIALS, F32, [d for d in DTYPES if d is not STRING and (d.bits >= 16 or not d.is_float)]),
            r.casts(SPECIALS, F64, [F32, F16, I64, U8, I32]),
            r.casts(SPECIALS, I64, [F32, F64, I32, I16, I8, U8, BOOL]),
            *(r.casts(SPECIALS, d, [F32]) for d in DTYPES if d.bits <= 8),
            *(r.random_region_map(np.random.default_rng(k), 70, d) for k in range(3) for d in (F32, F16, I32, I16, U8)),
        ],
    }


SPECIALS = 211


def special_values(rng: np.random.Generator, d: DType, second: bool = False) -> np.ndarray:
    """Zeros, infinities, NaN, extremes, ties and ordinary numbers of an element type."""
    if d.is_float and d.bits >= 16:
        edge = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 127.5, -128.5, 300.0, 1e-30]
        edge += [3e9, -3e9, 1e19, -1e19, 1e-3, -1e-3, 88.0, -88.0, 20.0, -20.0]
        values = np.concatenate([edge, rng.uniform(-3, 3, 100), rng.uniform(-80, 80, SPECIALS - 100 - len(edge))])
        with np.errstate(over="ignore"):
            return (np.roll(values, 7) if second else values).astype(d.numpy)
    if d.is_float:
        count = 1 << d.bits
        return np.resize(np.arange(count, dtype=np.uint8), SPECIALS).view(d.numpy)
    if d.kind == "bool":
        return rng.random(SPECIALS) < 0.5
    bits = d.bits
    low, high = (0, 2**bits - 1) if d.kind == "uint" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    edge = [0, 1, high, low, high - 1, low + 1, 2, 3, 5, 7, *([-1, -2, -7] if low < 0 else [])]
    if second:
        # Shift counts below zero mean nothing.
        return (
            rng.integers(0, 9, SPECIALS).astype(d.numpy)
            if low == 0
            else np.abs(rng.integers(0, 9, SPECIALS)).astype(d.numpy)
        )
    small = rng.integers(max(low, -100), min(high, 100), SPECIALS - len(edge))
    return np.concatenate([np.array(edge, dtype=object), small.astype(object)]).astype(d.numpy)


def arrays_of(problem: Func) -> list[np.ndarray]:
    """Inputs, the same every time."""
    rng = np.random.default_rng(zlib.crc32(repr([str(t) for t in problem.arg_types]).encode()))
    if problem.sym_name in ("unary", "binary", "casts"):
        return [special_values(rng, t.dtype, i == 1) for i, t in enumerate(problem.arg_types)]
    high = 11 if problem.sym_name == "gather" else None
    return [random_array(rng, t, high if t.dtype == I64 else None) for t in problem.arg_types]
