# SPDX-License-Identifier: Apache-2.0
"""`llvm.rows`: softmax and normalizations along contiguous and along strided dims, every config."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, load_templates, rows_of
from tcc.ir import arith, math
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Sym
from tcc.ir.kernel import Index
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, BOOL, F16, F32, F64, I64, ScalarType, TensorType
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import V2, V3, V4, check, random, widest

ROWS = "llvm.rows"
LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
load_templates("cpu")


def values(func, rng):
    return [random(rng, t) for t in func.arg_types]


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7, 50), 1),
        ((3, 16), 1),
        ((2, 5, 129), 2),
        ((3, 21, 18), 1),
        ((33, 5), 0),
        ((6, 4), 1),
        ((1, 1000), 1),
        ((5, 1), 1),
    ],
    ids=str,
)
def test_softmax(rng, t, dtype, shape, axis):
    f = problems.softmax(shape, axis, dtype)
    check(f, values(f, rng), ROWS, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("last", [True, False])
def test_layernorm(rng, t, dtype, last):
    f = problems.layernorm((3, 7), 45, dtype, last)
    check(f, values(f, rng), ROWS, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_every_config_at_two_odd_shapes(rng, t):
    for f in (problems.softmax((5, 67)), problems.softmax((2, 9, 37), 1), problems.layernorm((19,), 35)):
        arrays = values(f, rng)
        columns, _ = TEMPLATES[ROWS].legal_columns(f, t)
        for config in rows_of(columns):
            check(f, arrays, ROWS, config, t)


def test_keeping_needs_something_to_keep():
    f = problems.layernorm((19,), 35)
    config = {"grain": 1024, "unroll": 1, "keep": True}
    assert "computed twice" in (TEMPLATES[ROWS].why_illegal(f, config, widest()) or "")
    long = problems.softmax((2, 1 << 20))
    assert TEMPLATES[ROWS].why_illegal(long, config, widest()) is not None
    assert TEMPLATES[ROWS].default(problems.softmax((8, 100)), widest())["keep"]


def test_groups_of_channels(rng):
    """Group normalization: a row is two dims that do not merge, with a scale along one of them."""
    n, g, c, s = (Sym(x) for x in "ngcs")
    shape = {"n": 2, "g": 3, "c": 4, "s": 37}
    count = shape["c"] * shape["s"]

    def centred(b, a):
        return b(arith.Sub(a[0], b(arith.Mul(a[2], problems.const(b, 1 / count)))))

    def square(b, a):
        x = centred(b, a)
        return b(arith.Mul(x, x))

    def last(b, a):
        scale = b(math.Rsqrt(b(arith.Add(b(arith.Mul(a[3], problems.const(b, 1 / count))), problems.const(b, 1e-5)))))
        return b(arith.Mul(b(arith.Mul(centred(b, a), scale)), a[1]))

    for nhwc in (False, True):
        access = IndexMap((n, s, g * 4 + c) if nhwc else (n, g * 4 + c, s))
        type = dense((2, 37, 12) if nhwc else (2, 12, 37), F32)
        f = problems.rows(
            {"n": 2, "g": 3},
            {"c": 4, "s": 37},
            [(type, access), (dense((12,), F32), IndexMap((g * 4 + c,)))],
            ("sum", "sum"),
            [lambda b, a: a[0], square, last],
            [(type, access)],
        )
        for t in LEVELS:
            check(f, values(f, rng), ROWS, t=t)


def test_masked_softmax_with_coordinates_into_a_larger_buffer(rng):
    i, j = Sym("i"), Sym("j")

    def score(b, a):
        row, column = (b(Index(dim=n, result_types=[ScalarType(I64)])) for n in "ij")
        seen = b(arith.And(b(arith.Cmp(column, row, predicate="le")), a[1]))
        return b(arith.Select(seen, b.cast(a[0], F32), problems.const(b, -1e9)))

    def weight(b, a):
        return b(math.Exp(b(arith.Sub(score(b, a), a[2]))))

    f = problems.rows(
        {"i": 13},
        {"j": 13},
        [
            (TensorType((13, 13), F16, (40, 2), 2), IndexMap((i, j))),
            (dense((13,), BOOL), IndexMap((j,))),
        ],
        ("max", "sum"),
        [score, weight, lambda b, a: b(arith.Div(weight(b, a), a[3]))],
        [(TensorType((13, 13), F32, (20, 1), 4), IndexMap((i, j)))],
    )
    for t in LEVELS:
        for keep in (True, False):
            check(f, values(f, rng), ROWS, {"grain": 1024, "unroll": 2, "keep": keep}, t)


def test_log_softmax_in_f64(rng):
    i, j = Sym("i"), Sym("j")

    def shifted(b, a):
        return b(arith.Sub(a[0], a[1]))

    f = problems.rows(
        {"i": 4},
        {"j": 21},
        [(dense((4, 21), F64), IndexMap((i, j)))],
        ("max", "sum"),
        [
            lambda b, a: a[0],
            lambda b, a: b(math.Exp(shifted(b, a))),
            lambda b, a: b(arith.Sub(shifted(b, a), b(math.Log(a[2])))),
        ],
        [(dense((4, 21), F64), IndexMap((i, j)))],
        F64,
    )
    check(f, values(f, rng), ROWS)


def test_infinities_in_a_row(rng):
    f = problems.softmax((4, 40))
    x = rng.standard_normal((4, 40)).astype(np.float32)
    x[0, :20] = -np.inf
    x[1, 3] = np.nan
    x[2] = -1e30
    for t in LEVELS:
        check(f, [x], ROWS, t=t)


def test_default_is_legal():
    for f in (problems.softmax((4, 40)), problems.softmax((1, 50257)), problems.layernorm((197,), 768)):
        for t in LEVELS:
            assert TEMPLATES[ROWS].why_illegal(f, TEMPLATES[ROWS].default(f, t), t) is None
            assert np.all(TEMPLATES[ROWS].cost(f, TEMPLATES[ROWS].legal_columns(f, t)[0], t) > 0)
