# SPDX-License-Identifier: Apache-2.0
"""`llvm.naive` on every anchor and every form of index map."""

import numpy as np
import pytest

from tcc.ir import arith, math
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Sym, floordiv, mod
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, F16, F32, F64, I32, I64, TensorType
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import check, random

NAIVE = "llvm.naive"
i, j = Sym("i"), Sym("j")


def ints(func, rng):
    return [random(rng, t) for t in func.arg_types]


@pytest.mark.parametrize("dtype", [F32, F16, BF16, F64])
def test_broadcast_map(rng, dtype):
    f = problems.mapping(
        {"i": 5, "j": 7},
        [(dense((5, 7), dtype), IndexMap((i, j))), (dense((7,), dtype), IndexMap((j,)))],
        lambda b, a: b(math.Exp(b(arith.Mul(a[0], a[1])))),
        [(dense((5, 7), dtype), IndexMap((i, j)))],
    )
    check(f, ints(f, rng), NAIVE)


def test_padding_gather_reshape_and_two_results(rng):
    table = dense((9, 4), F32)
    index = dense((6,), I64)
    f = problems.mapping(
        {"i": 6, "j": 8},
        [
            (index, IndexMap((i,))),
            (table, IndexMap((Sym("$0"), floordiv(j, 2)))),
            (dense((5, 3), F32), IndexMap((i - 1, j - 2), 2.5, (mod(i + j, 3),))),
            (dense((48,), I32), IndexMap((i * 8 + j,))),
        ],
        lambda b, a: [b(arith.Add(a[1], a[2])), b(arith.Mul(a[3], a[3]))],
        [
            (TensorType((6, 8), F32, (20, 2), 4), IndexMap((i, j))),
            (dense((8, 2, 3), I32), IndexMap((j, floordiv(i, 3), mod(i, 3)))),
        ],
    )
    arrays = ints(f, rng)
    arrays[0] = rng.integers(0, 9, 6)
    check(f, arrays, NAIVE, {"chunk": 16})


@pytest.mark.parametrize("combiner", ["sum", "max", "min", "prod"])
def test_reduce(rng, combiner):
    f = problems.reduction({"i": 5}, {"j": 13}, [(dense((5, 13), F32), IndexMap((i, j)))], (combiner,))
    check(f, ints(f, rng), NAIVE)


def test_empty_reduction(rng):
    f = problems.reduction({"i": 5}, {"j": 0}, [(dense((5, 0), F32), IndexMap((i, j)))], ("max", "sum"))
    check(f, ints(f, rng), NAIVE)


def test_contractions(rng):
    for f in (
        problems.matmul(5, 6, 7, 2),
        problems.matmul(5, 6, 7, dtype=F16),
        problems.conv(1, 6, 4, 6, 3, 2, 2, 1),
    ):
        check(f, ints(f, rng), NAIVE)


def test_rows_and_pools(rng):
    for f in (
        problems.softmax((3, 9)),
        problems.softmax((3, 9, 2), 1),
        problems.layernorm((2, 3), 10),
        problems.pool(1, 3, (6, 7), (3, 3), 2, 1),
        problems.pool(1, 3, (6, 7), (2, 3), 1, 0, "average"),
    ):
        check(f, ints(f, rng), NAIVE)


@pytest.mark.parametrize("layout", ["bhmd", "bmhd", "packed"])
@pytest.mark.parametrize("mask", ["none", "causal", "additive", "bool"])
def test_attention(rng, layout, mask):
    f = problems.attention(1, 2, 5, 5 if layout == "packed" else 7, 8, 8, layout, mask)
    check(f, ints(f, rng), NAIVE)


def test_attention_rows_without_keys_give_zeros(rng):
    f = problems.attention(2, 1, 3, 4, 8, 8, "bhmd", "bool")
    arrays = ints(f, rng)
    arrays[3][...] = [[False] * 4, [True] * 4]
    check(f, arrays, NAIVE)


def test_nan_and_infinities_pass(rng):
    f = problems.mapping(
        {"i": 6},
        [(dense((6,), F32), IndexMap((i,)))],
        lambda b, a: b(arith.Max(a[0], problems.const(b, 0.0))),
    )
    check(f, [np.array([np.nan, np.inf, -np.inf, -0.0, 1, -1], np.float32)], NAIVE)
