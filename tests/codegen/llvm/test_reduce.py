# SPDX-License-Identifier: Apache-2.0
"""`llvm.reduce`: vectors along reduced and along parallel dims, split reductions, every config."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, load_templates, rows_of
from tcc.ir import arith, math
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Sym
from tcc.ir.kernel import Index
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, BOOL, F16, F32, F64, I8, I32, I64, U8, ScalarType, TensorType
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import V2, V3, V4, check, random, run, widest

REDUCE = "llvm.reduce"
LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
h, i, j, k = (Sym(n) for n in "hijk")
load_templates("cpu")


def values(func, rng):
    return [random(rng, t) for t in func.arg_types]


def rows_sum(rows, depth, combine=("sum",), dtype=F32, acc=F32):
    return problems.reduction(
        {"i": rows}, {"j": depth}, [(dense((rows, depth), dtype), IndexMap((i, j)))], combine, acc,
        outs=[(dense((rows,), acc), IndexMap((i,)))] * len(combine),
    )  # fmt: skip


def columns_sum(depth, columns, combine=("sum",), dtype=F32, acc=F32):
    return problems.reduction(
        {"i": columns}, {"j": depth}, [(dense((depth, columns), dtype), IndexMap((j, i)))], combine, acc,
        outs=[(dense((columns,), acc), IndexMap((i,)))] * len(combine),
    )  # fmt: skip


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("combiner", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize("make", [rows_sum, columns_sum])
@pytest.mark.parametrize(
    ("dtype", "acc"), [(F32, F32), (F16, F32), (BF16, F32), (F64, F64), (I32, I32), (I64, I64), (I8, I32), (U8, I32)]
)
def test_types_and_combiners(rng, t, combiner, make, dtype, acc):
    f = make(19, 37, (combiner,), dtype, acc)
    check(f, values(f, rng), REDUCE, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("make", [rows_sum, columns_sum])
def test_every_config_at_two_odd_shapes(rng, t, make):
    for shape in ((3, 1037), (1033, 5)):
        f = make(*shape, ("sum", "max"))
        arrays = values(f, rng)
        columns, _ = TEMPLATES[REDUCE].legal_columns(f, t)
        for config in rows_of(columns):
            check(f, arrays, REDUCE, config, t)


def test_full_reduction_and_global_pool(rng):
    full = problems.reduction(
        {}, {"i": 37, "j": 41, "k": 3}, [(dense((37, 41, 3), F32), IndexMap((i, j, k)))], ("sum", "min")
    )
    pool = problems.reduction(
        {"h": 2, "k": 91}, {"i": 7, "j": 7}, [(dense((2, 7, 7, 91), F32), IndexMap((h, i, j, k)))]
    )
    for f in (full, pool):
        arrays = values(f, rng)
        columns, _ = TEMPLATES[REDUCE].legal_columns(f, widest())
        for config in rows_of(columns)[::7]:
            check(f, arrays, REDUCE, config)
        check(f, arrays, REDUCE)


def test_bodies_of_two_operands_and_epilogues_with_extras(rng):
    def body(b, a):
        at = b(Index(dim="j", result_types=[ScalarType(I64)]))
        weight = b.cast(b(arith.Mod(at, problems.const(b, 3, I64))), F32)
        return [b(arith.Mul(b(arith.Sub(a[0], a[1])), weight)), b(arith.Add(a[0], problems.const(b, 1.0)))]

    def epilogue(b, a):
        row = b.cast(b(Index(dim="i", result_types=[ScalarType(I64)])), F32)
        return [b(arith.Add(b(math.Tanh(a[0])), a[2])), b.cast(b(arith.Mul(a[1], row)), F16)]

    for order in ((i, j), (j, i)):
        sizes = {"i": 21, "j": 35}
        f = problems.reduction(
            {"i": 21},
            {"j": 35},
            [
                (dense(tuple(sizes[str(s)] for s in order), F32), IndexMap(order)),
                (dense((35,), F32), IndexMap((j,))),
            ],
            ("sum", "max"),
            body=body,
            extra=[(dense((21,), F32), IndexMap((i,)))],
            epilogue=epilogue,
            outs=[(TensorType((21,), F32, (3,), 4), IndexMap((i,))), (dense((21,), F16), IndexMap((i,)))],
        )
        arrays = values(f, rng)
        for split in (1, 2):
            for t in LEVELS:
                check(f, arrays, REDUCE, {"grain": 4096, "unroll": 2, "split": split if order[0] is j else 1}, t)


def test_padded_strided_and_gathered_operands(rng):
    f = problems.reduction(
        {"i": 6},
        {"j": 9, "k": 20},
        [
            (dense((6, 5, 41), F32), IndexMap((i, j - 2, k * 2), 1.5)),
            (dense((9,), I64), IndexMap((j,))),
            (dense((12, 20), F32), IndexMap((Sym("$1"), k))),
        ],
        body=lambda b, a: b(arith.Mul(a[0], a[2])),
    )
    arrays = values(f, rng)
    arrays[1] = rng.integers(0, 12, 9)
    for t in LEVELS:
        check(f, arrays, REDUCE, t=t)


def test_empty_and_single(rng):
    for f in (rows_sum(4, 0, ("sum", "max")), rows_sum(0, 4), rows_sum(1, 1), rows_sum(5, 1), columns_sum(1, 40)):
        check(f, values(f, rng), REDUCE)


def test_booleans(rng):
    f = problems.reduction(
        {"i": 5},
        {"j": 70},
        [(dense((5, 70), BOOL), IndexMap((i, j)))],
        ("max", "min"),
        I32,
        outs=[(dense((5,), BOOL), IndexMap((i,)))] * 2,
    )
    for t in LEVELS:
        check(f, values(f, rng), REDUCE, t=t)


def test_nan_is_kept_by_max(rng):
    f = rows_sum(4, 100, ("max", "min", "sum"))
    x = rng.standard_normal((4, 100)).astype(np.float32)
    x[0, 3] = x[1, 99] = x[2, 50] = np.nan
    for t in LEVELS:
        check(f, [x], REDUCE, t=t)


@pytest.mark.parametrize("shape", [(9, 9, 9), (2, 40, 33)], ids=str)
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1), (1, 2)], ids=str)
def test_axes(rng, shape, axes):
    names = "hij"
    f = problems.reduction(
        {n: s for a, (n, s) in enumerate(zip(names, shape, strict=True)) if a not in axes},
        {n: s for a, (n, s) in enumerate(zip(names, shape, strict=True)) if a in axes},
        [(dense(shape, F32), IndexMap((h, i, j)))],
    )
    for t in LEVELS:
        check(f, values(f, rng), REDUCE, t=t)


def test_the_number_of_workers_does_not_change_a_bit(rng):
    f = columns_sum(4000, 33)
    arrays = values(f, rng)
    config = {"grain": 4096, "unroll": 4, "split": 8}
    first = run(f, arrays, REDUCE, config, workers=1)[0]
    for workers in (2, 3, 7):
        assert np.array_equal(first, run(f, arrays, REDUCE, config, workers=workers)[0])


def test_default_is_legal():
    for f in (rows_sum(1, 1 << 20), columns_sum(1 << 14, 16), rows_sum(1000, 3), columns_sum(49, 960)):
        for t in LEVELS:
            assert TEMPLATES[REDUCE].why_illegal(f, TEMPLATES[REDUCE].default(f, t), t) is None
            assert np.all(TEMPLATES[REDUCE].cost(f, TEMPLATES[REDUCE].legal_columns(f, t)[0], t) > 0)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_equal_columns_have_equal_sums(rng, t):
    f = columns_sum(49, 1000)
    x = np.repeat(rng.standard_normal((49, 1), np.float32), 1000, 1)
    for config in rows_of(TEMPLATES[REDUCE].legal_columns(f, t)[0]):
        (y,) = run(f, [x], REDUCE, config, t)
        assert (y == y[0]).all(), config
