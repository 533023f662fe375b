# SPDX-License-Identifier: Apache-2.0
"""Scalar regions as vectors and as scalars: every op of arith and math, every cast, on ordinary and on edge values."""

import ml_dtypes
import numpy as np
import pytest

from tcc.ir import arith, math
from tcc.ir.attributes import IndexMap
from tcc.ir.declare import OPS
from tcc.ir.expr import Sym
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, BOOL, DTYPES, F16, F32, F64, I4, I8, I16, I32, I64, STRING, U2, U4, U8, U32, U64
from tcc.reference.cast import cast as reference_cast
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import V2, V3, V4, check, run, widest

LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
i = Sym("i")
FUNCTIONS = sorted(n for n in OPS if n.startswith("math.") and n not in ("math.pow", "math.isnan", "math.isinf"))
EDGES = np.array(
    [0, -0.0, 1, -1, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 1.1754944e-38, 3.4e38, -3.4e38, 88.7]
    + [88.8, -87.3, -87.4, -103, -104, 89.3, 1e-8, -1e-8, 0.25, 2.0**-24, 4, 3.9999, 1 - 2.0**-24, 2.0**26, 2.0**27]
    + [1e10, 16777216],
    np.float32,
)  # fmt: skip


def unary(op, count, dtype=F32, out=None):
    out = out or dtype
    source, target = dense((count,), dtype), dense((count,), out)
    return problems.mapping(
        {"i": count}, [(source, IndexMap((i,)))], lambda b, a: b(op(a[0])), [(target, IndexMap((i,)))]
    )


def samples(rng, count=20000):
    """Floats of every size, more of them of ordinary size, and the edges."""
    bits = rng.integers(0, 1 << 32, count // 4, dtype=np.uint32).view(np.float32)
    near = (rng.standard_normal(count // 2) * 4).astype(np.float32)
    unit = rng.uniform(-1.0001, 1.0001, count // 4).astype(np.float32)
    wide = (rng.standard_normal(count // 4) * 60).astype(np.float32)
    return np.concatenate([EDGES, bits, near, unit, wide])


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_reach_their_accuracy(rng, t, name):
    x = samples(rng)
    with np.errstate(all="ignore"):
        check(unary(OPS[name], len(x)), [x], "llvm.map", t=t)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_lane(rng, name):
    x = samples(rng, 2000)
    check(unary(OPS[name], len(x)), [x], "llvm.naive")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_f64(rng, name):
    x = np.concatenate([EDGES, rng.standard_normal(200)]).astype(np.float64)
    check(unary(OPS[name], len(x), F64), [x], "llvm.map")


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_power(rng, t):
    x, y = samples(rng, 8000), samples(rng, 8000)
    rng.shuffle(y[len(EDGES) :])
    grid = np.array(np.meshgrid(EDGES, np.append(EDGES, [2, 3, -2, -3, 2.5]))).reshape(2, -1).astype(np.float32)
    x, y = np.concatenate([x, grid[0]]), np.concatenate([y, grid[1]])
    type = dense((len(x),), F32)
    f = problems.mapping(
        {"i": len(x)}, [(type, IndexMap((i,))), (type, IndexMap((i,)))], lambda b, a: b(math.Pow(a[0], a[1]))
    )
    check(f, [x, y], "llvm.map", t=t)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0, 1.0, -1.0, 0.5, 0.0, 2.5, -0.5])
def test_power_of_a_literal(rng, exponent):
    x = samples(rng, 2000)
    if exponent == 0.5:
        x = x[x != -np.inf]  # numpy takes a square root there, whose -inf is NaN; C's pow gives +inf
    f = problems.mapping(
        {"i": len(x)},
        [(dense((len(x),), F32), IndexMap((i,)))],
        lambda b, a: b(math.Pow(a[0], problems.const(b, exponent))),
    )
    check(f, [x], "llvm.map")


def test_tests_of_floats(rng):
    for name in ("math.isnan", "math.isinf"):
        check(unary(OPS[name], len(EDGES), F32, BOOL), [EDGES], "llvm.map")


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [F32, F64, I8, I16, I32, I64, U8, U32, U64, I4, U4, U2], ids=str)
@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "div", "mod", "rem", "min", "max", "and", "or", "xor", "shl", "shr"]
)
def test_binary_arithmetic(rng, t, dtype, name):
    if dtype.is_float and name in ("and", "or", "xor", "shl", "shr"):
        pytest.skip("bitwise on floats is not defined")
    if dtype.is_float:
        x, y = np.meshgrid(EDGES, EDGES)
        if name in ("mod", "rem"):
            keep = np.isfinite(x) & np.isfinite(y) & (y != 0)
            x, y = x[keep], y[keep]
    else:
        low, high = (
            (0, (1 << dtype.bits) - 1)
            if dtype.kind == "uint"
            else (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1)
        )
        edge = [v for v in (low, low + 1, -2, -1, 0, 1, 2, 3, 5, 7, high - 1, high) if low <= v <= high]
        shifts = [v for v in (low, -1, 0, 1, 2, dtype.bits - 1, dtype.bits, high) if low <= v <= high]
        right = shifts if name in ("shl", "shr") else edge
        x, y = np.meshgrid(np.array(edge, object), np.array(right, object))
    x, y = (v.ravel().astype(dtype.numpy) for v in (x, y))
    type = dense((len(x),), dtype)
    f = problems.mapping(
        {"i": len(x)},
        [(type, IndexMap((i,))), (type, IndexMap((i,)))],
        lambda b, a: b(OPS[f"arith.{name}"](a[0], a[1])),
        [(type, IndexMap((i,)))],
    )
    if dtype.bits >= 8:
        check(f, [x, y], "llvm.map", t=t)
        return
    # numpy has no arithmetic in types of less than 8 bits: the oracle computes in 64 and keeps the low bits.
    wide = dense((len(x),), I64)
    exact = problems.mapping(
        {"i": len(x)},
        [(wide, IndexMap((i,))), (wide, IndexMap((i,)))],
        lambda b, a: b(OPS[f"arith.{name}"](a[0], a[1])),
        [(wide, IndexMap((i,)))],
    )
    (expected,) = run(exact, [x.astype(np.int64), y.astype(np.int64)], "llvm.naive")
    if name in ("shl", "shr"):
        far = (y.astype(np.int64) >= dtype.bits) | (y.astype(np.int64) < 0)
        sign = np.where((x.astype(np.int64) < 0) & (name == "shr"), -1, 0)
        expected = np.where(far, sign, expected)
    (got,) = run(f, [x, y], "llvm.map", t=t)
    assert np.array_equal(got.astype(np.int64), expected.astype(dtype.numpy).astype(np.int64))


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_comparisons_and_selection(rng, t):
    x, y = (v.ravel() for v in np.meshgrid(EDGES, EDGES))
    type = dense((len(x),), F32)
    bools = dense((len(x),), BOOL), IndexMap((i,))
    names = ["eq", "ne", "lt", "le", "gt", "ge"]
    f = problems.mapping(
        {"i": len(x)},
        [(type, IndexMap((i,))), (type, IndexMap((i,)))],
        lambda b, a: [
            *(b(arith.Cmp(a[0], a[1], predicate=p)) for p in names),
            b(arith.Select(b(arith.Cmp(a[0], a[1], predicate="lt")), a[1], a[0])),
            b(arith.Not(b(arith.Cmp(a[0], a[1], predicate="lt")))),
        ],
        [*[bools] * 6, (type, IndexMap((i,))), bools],
    )
    check(f, [x, y], "llvm.map", t=t)


def all_values(dtype, rng):
    """Many values of a type: all of them up to 16 bits."""
    if dtype.kind == "bool":
        return np.array([False, True])
    if dtype.bits <= 8:
        codes = np.arange(1 << dtype.bits, dtype=np.uint8)
        return codes.view(dtype.numpy) if dtype.bits == 8 else _small(codes, dtype)
    if dtype.bits == 16:
        return np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    if dtype.is_float:
        extra = np.array(
            [2.0**31, -(2.0**31), 2.0**32, 2.0**63, 2.0**64, 127.5, 255.9, 65503, 65520, 300, -300, 6.5], np.float32
        )
        return np.concatenate([samples(rng, 8000), extra, np.arange(-600, 600) / 4]).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    return np.concatenate([rng.integers(info.min, info.max, 500, dtype.numpy), np.arange(0, 70)]).astype(dtype.numpy)


def _small(codes, dtype):
    if dtype.is_float:
        return codes.view(dtype.numpy)
    return (codes.astype(np.int64) - (0 if dtype.kind == "uint" else 1 << (dtype.bits - 1))).astype(dtype.numpy)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("source", [d for d in DTYPES if d is not STRING], ids=str)
def test_casts_are_bit_exact(rng, t, source):
    targets = [d for d in DTYPES if d is not STRING]
    x = all_values(source, rng)
    f = problems.mapping(
        {"i": len(x)},
        [(dense((len(x),), source), IndexMap((i,)))],
        lambda b, a: [b.cast(a[0], d) for d in targets],
        [(dense((len(x),), d), IndexMap((i,))) for d in targets],
    )
    for got, to in zip(run(f, [x], "llvm.map", t=t), targets, strict=True):
        expected = expected_cast(x, source, to)
        mine, wanted = (v.astype(np.float64) if to.is_float else v.astype(object) for v in (got, expected))
        if source is F64 and to.is_float and to.bits < 32:
            # f64 goes through f32, so a tie of the narrow type may round the other way: by one place at most.
            near = (
                np.isclose(mine, wanted, rtol=2.0**-2, atol=1e-7)
                | (np.isnan(mine) & np.isnan(wanted))
                | (mine == wanted)
            )
            assert np.all(near), to
            continue
        same = (mine == wanted) | ((mine != mine) & (wanted != wanted))
        assert np.all(same), f"{source} to {to}: {x[~same][:5]} gave {got[~same][:5]}, not {expected[~same][:5]}"


def to_bits(dtype):
    """Mantissa bits of a narrow float."""
    return {"f16": 10, "bf16": 7, "f8e4m3fn": 3, "f8e4m3fnuz": 3, "f8e5m2": 2, "f8e5m2fnuz": 2}.get(dtype.name, 1)


def expected_cast(x, source, to):
    """The reference's cast, where it and `arith.cast` agree; the rest spelled out."""
    if to.is_int and to.bits < 8 and source.is_float:
        low = -(1 << (to.bits - 1)) if to.kind == "int" else 0
        high = (1 << (to.bits - (to.kind == "int"))) - 1
        wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
        return np.clip(np.trunc(wide), low, high).astype(np.int64).astype(to.numpy)
    with np.errstate(all="ignore"):
        if to.name == "f4e2m1":
            wide = np.clip(x.astype(np.float32), -6.0, 6.0)
            return np.where(np.isnan(wide), 0.0, wide).astype(to.numpy)
        if to.name == "f8e8m0":
            return reference_cast(x, to=to.numpy, round_mode="nearest")
        got = reference_cast(x, to=to.numpy)
        if to.name == "f8e5m2" and source.is_float:
            wide = x.astype(np.float32)
            return np.where(np.isinf(wide), wide, got.astype(np.float32)).astype(to.numpy)
        return got


def test_half_precision_results_are_rounded_once(rng):
    for d in (F16, BF16):
        x = (rng.standard_normal(4000) * 100).astype(np.float32)
        f = problems.mapping(
            {"i": len(x)},
            [(dense((len(x),), F32), IndexMap((i,)))],
            lambda b, a, d=d: b.cast(a[0], d),
            [(dense((len(x),), d), IndexMap((i,)))],
        )
        for t in LEVELS:
            (got,) = run(f, [x], "llvm.map", t=t)
            assert np.array_equal(got, x.astype(d.numpy))
    assert ml_dtypes.bfloat16 is not None
