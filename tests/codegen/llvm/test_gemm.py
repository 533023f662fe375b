# SPDX-License-Identifier: Apache-2.0
"""`llvm.gemm`: shapes, layouts, types, epilogues and configs against the oracle."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, load_templates
from tcc.ir import arith, math
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import floordiv, mod
from tcc.ir.kernel import Index
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, F16, F32, F64, I8, I32, I64, U8, ScalarType, TensorType
from tests.codegen.llvm import contractions as c
from tests.codegen.llvm.contractions import b0, b1, k, m, n
from tests.codegen.llvm.harness import V2, V3, V4, check, random, run, widest
from tests.codegen.llvm.problems import const

GEMM = "llvm.gemm"
runs = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]


def arrays(f, seed=0):
    rng = np.random.default_rng(seed)
    return [random(rng, t) for t in f.arg_types]


def plain(rows, columns, depth, dtype=F32, **more):
    return c.matmul(
        {"m": rows, "n": columns, "k": depth},
        (dense((rows, depth), dtype), IndexMap((m, k))),
        (dense((depth, columns), dtype), IndexMap((k, n))),
        **more,
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 100, 37), (37, 1, 5), (5, 16, 1), (33, 65, 19), (14, 47, 8)])
@pytest.mark.parametrize("constant", [True, False])
def test_shapes(shape, constant):
    f = plain(*shape, constant=constant)
    check(f, arrays(f), GEMM)


@pytest.mark.parametrize("t", runs, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(13, 37, 21), (9, 70, 6)])
def test_many_configs(shape, t):
    f = plain(*shape, extra=[(dense((shape[1],), F32), IndexMap((n,)))])
    data = arrays(f)
    for config in c.configs(f, GEMM, t, 25):
        check(f, data, GEMM, config, t)


def test_there_are_many_configs():
    load_templates("cpu")
    for f in (plain(128, 768, 768), plain(13, 37, 21)):
        columns, _ = TEMPLATES[GEMM].legal_columns(f, V4)
        assert len(columns["m_tile"]) >= 30


@pytest.mark.parametrize("dtype", [F16, BF16, F64])
def test_float_types(dtype):
    f = plain(9, 21, 13, dtype, acc=F64 if dtype is F64 else F32, out=(dense((9, 21), dtype), IndexMap((m, n))))
    for config in c.configs(f, GEMM, widest(), 3):
        check(f, arrays(f), GEMM, config)


@pytest.mark.parametrize("constant", [True, False])
def test_quantized(constant):
    """u8 × i8 sums with zero points, as ConvInteger and its like lower."""
    rows, columns, depth = 7, 19, 33
    f = c.matmul(
        {"m": rows, "n": columns, "k": depth},
        [(dense((rows, depth), U8), IndexMap((m, k))), (dense((), U8), IndexMap(()))],
        (dense((depth, columns), I8), IndexMap((k, n))),
        (dense((rows, columns), I32), IndexMap((m, n))),
        lhs_body=lambda b, a: b(arith.Sub(b.cast(a[0], I32), b.cast(a[1], I32))),
        acc=I32,
        constant=constant,
    )
    check(f, arrays(f), GEMM)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("shape", [(20, 40, 50), (3, 17, 16), (8, 33, 5)])
def test_transposed_factors(shape, constant):
    rows, columns, depth = shape
    f = c.matmul(
        {"m": rows, "n": columns, "k": depth},
        (dense((depth, rows), F32), IndexMap((k, m))),
        (dense((columns, depth), F32), IndexMap((n, k))),
        constant=constant,
    )
    for config in c.configs(f, GEMM, widest(), 4):
        check(f, arrays(f), GEMM, config)


@pytest.mark.parametrize("constant", [True, False])
def test_batches_heads_and_permuted_results(constant):
    """(b, m, h, k) × (h, k, n) → (m, b, h, n): batch dims on both sides, and one that only the left factor has."""
    b, h, rows, columns, depth = 2, 3, 5, 20, 7
    f = c.matmul(
        {"b0": b, "b1": h, "m": rows, "n": columns, "k": depth},
        (dense((b, rows, h, depth), F32), IndexMap((b0, m, b1, k))),
        (dense((h, depth, columns), F32), IndexMap((b1, k, n))),
        (dense((rows, b, h, columns), F32), IndexMap((m, b0, b1, n))),
        [(dense((b, 1, columns), F32), IndexMap((b0, 0, n)))],
        constant=constant,
    )
    for config in c.configs(f, GEMM, widest(), 5):
        check(f, arrays(f), GEMM, config)


def test_split_heads_and_results_along_the_rows():
    """n is (head, channel) in the result, and rows are its innermost dim."""
    f = c.matmul(
        {"m": 11, "n": 24, "k": 9},
        (dense((11, 9), F32), IndexMap((m, k))),
        (dense((9, 24), F32), IndexMap((k, n))),
        (dense((3, 8, 11), F32), IndexMap((floordiv(n, 8), mod(n, 8), m))),
    )
    check(f, arrays(f), GEMM)


def test_rows_made_of_two_dims_and_a_gather():
    """Rows (i, j) of a larger tensor, and rows picked by a table."""
    f = c.matmul(
        {"m": 12, "n": 18, "k": 6},
        (TensorType((3, 4, 6), F32, (100, 8, 1), 4), IndexMap((floordiv(m, 4), mod(m, 4), k))),
        (dense((6, 18), F32), IndexMap((k, n))),
        extra=[(dense((12,), I64), IndexMap((m,))), (dense((9, 18), F32), IndexMap((c.dims("$2")[0], n)))],
        epilogue=lambda b, a: b(arith.Add(a[0], a[2])),
    )
    data = arrays(f)
    data[2] = np.arange(12, dtype=np.int64) * 5 % 9
    check(f, data, GEMM)


def test_views():
    """Strided factors, and a result in a slice of a larger buffer."""
    f = c.matmul(
        {"m": 10, "n": 35, "k": 12},
        (TensorType((10, 12), F32, (40, 3), 4), IndexMap((m, k))),
        (TensorType((12, 35), F32, (70, 2), 4), IndexMap((k, n))),
        (TensorType((10, 35), F32, (61, 1), 8), IndexMap((m, n))),
        [
            (TensorType((10, 35), F32, (90, 2), 4), IndexMap((m, n))),
            (dense((), F32), IndexMap(())),
            (dense((10,), F32), IndexMap((m,))),
        ],
        constant=False,
    )
    for config in c.configs(f, GEMM, widest(), 5):
        check(f, arrays(f), GEMM, config)


def test_prologues():
    """Both factors computed on the way: x·scale(m, k) and |w|, with values out of range."""
    f = c.matmul(
        {"m": 9, "n": 20, "k": 11},
        [
            (dense((9, 10), F32), IndexMap((m, k - 1), 0.0)),
            (dense((9, 1), F32), IndexMap((m, 0))),
            (dense((11,), F32), IndexMap((k,))),
        ],
        [(dense((11, 20), F32), IndexMap((k, n))), (dense((20,), F32), IndexMap((n,)))],
        lhs_body=lambda b, a: b(arith.Mul(b(arith.Mul(a[0], a[1])), a[2])),
        rhs_body=lambda b, a: b(arith.Mul(b(math.Abs(a[0])), a[1])),
    )
    for config in c.configs(f, GEMM, widest(), 4):
        check(f, arrays(f), GEMM, config)


def test_two_results_and_the_row_index():
    def epilogue(b, a):
        row = b(Index(dim="m", result_types=[ScalarType(I64)]))
        column = b(Index(dim="n", result_types=[ScalarType(I64)]))
        kept = b(arith.Select(b(arith.Cmp(column, row, predicate="le")), a[0], const(b, 0.0)))
        return [kept, b.cast(b(arith.Mul(a[0], const(b, 3.0))), F16)]

    f = c.matmul(
        {"m": 15, "n": 35, "k": 5},
        (dense((15, 5), F32), IndexMap((m, k))),
        (dense((5, 35), F32), IndexMap((k, n))),
        [(dense((15, 35), F32), IndexMap((m, n))), (dense((35, 15), F16), IndexMap((n, m)))],
        epilogue=epilogue,
    )
    check(f, arrays(f), GEMM)


@pytest.mark.parametrize("seed", range(6))
def test_random_epilogues(seed):
    rng = np.random.default_rng(seed)
    rows, columns, depth = (int(x) for x in rng.integers(1, 60, 3))
    f = plain(
        rows,
        columns,
        depth,
        extra=[
            (dense((columns,), F32), IndexMap((n,))),
            (dense((rows, columns), F16), IndexMap((m, n))),
            (dense((rows, 1), F32), IndexMap((m, 0))),
        ],
        epilogue=c.random_body(seed),
    )
    for config in c.configs(f, GEMM, widest(), 3, seed):
        check(f, arrays(f, seed), GEMM, config)


def test_nan_and_infinity_pass_where_they_belong():
    f = plain(5, 20, 4, epilogue=lambda b, a: b(arith.Max(a[0], const(b, 0.0))))
    data = arrays(f)
    data[0][1, 2], data[0][3, 0] = np.nan, np.inf
    check(f, data, GEMM)


def test_order_of_sums_does_not_depend_on_the_workers():
    f = plain(37, 90, 300)
    data = arrays(f)
    (one,), (three,) = (run(f, data, GEMM, workers=w) for w in (1, 3))
    assert np.array_equal(one, three)


def test_refusals():
    load_templates("cpu")
    g = TEMPLATES[GEMM]
    assert "0" in (g.accepts(plain(3, 4, 0), V4) or "")
    assert "accumulates in" in (
        g.accepts(plain(3, 4, 5, I64, acc=I64, out=(dense((3, 4), I64), IndexMap((m, n)))), V4) or ""
    )
