# SPDX-License-Identifier: Apache-2.0
"""`llvm.pool`: windows, strides, dilation and padding with channels last; what it leaves to others."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, candidates, load_templates, rows_of
from tcc.ir import arith
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Sym
from tcc.ir.kernel import Index, Pool
from tcc.ir.kernel.build import dense, dims
from tcc.ir.types import BF16, F16, F32, I8, I32, I64, ScalarType, TensorType
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import V2, V3, V4, check, random, widest

POOL = "llvm.pool"
LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
load_templates("cpu")


def values(func, rng):
    return [random(rng, t) for t in func.arg_types]


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "pad"),
    [(37, (9, 11), (3, 3), 2, 1), (64, (8, 8), (2, 2), 2, 0), (3, (7, 6), (3, 2), 1, 1), (19, (5, 5), (5, 5), 1, 2)],
    ids=str,
)
def test_windows(rng, t, kind, dtype, channels, size, kernel, stride, pad):
    f = problems.pool(2, channels, size, kernel, stride, pad, kind, dtype)
    check(f, values(f, rng), POOL, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_every_config_at_two_odd_shapes(rng, t):
    for f in (problems.pool(1, 83, (7, 9), (3, 3), 2, 1), problems.pool(2, 17, (6, 5), (2, 3), 1, 0, "average")):
        arrays = values(f, rng)
        for config in rows_of(TEMPLATES[POOL].legal_columns(f, t)[0]):
            check(f, arrays, POOL, config, t)


def counted(n, h, w, c, k, s, p):
    """Average pooling that does not count padding, with a dilated window, into a slice of a larger buffer."""
    sn, oy, ox, sc, ky, kx = dims("n", "oy", "ox", "c", "ky", "kx")
    oh, ow = (h + 2 * p - 2 * (k - 1) - 1) // s + 1, (w + 2 * p - 2 * (k - 1) - 1) // s + 1

    strides = (oh * ow * (c + 5), ow * (c + 5), c + 5, 1)

    def inside(b, name, extent):
        def const(v):
            return problems.const(b, v, I64)

        o = b(Index(dim=name, result_types=[ScalarType(I64)]))
        total = None
        for j in range(k):
            at = b(arith.Add(b(arith.Mul(o, const(s))), const(2 * j - p)))
            good = b(
                arith.And(b(arith.Cmp(at, const(0), predicate="ge")), b(arith.Cmp(at, const(extent), predicate="lt")))
            )
            one = b.cast(good, F32)
            total = one if total is None else b(arith.Add(total, one))
        return total

    def epilogue(b, a):
        count = b(arith.Mul(inside(b, "oy", h), inside(b, "ox", w)))
        return b(arith.Add(b(arith.Div(a[0], count)), a[1]))

    return problems.reduction(
        {"n": n, "oy": oh, "ox": ow, "c": c},
        {"ky": k, "kx": k},
        [(dense((n, h, w, c), F32), IndexMap((sn, oy * s + ky * 2 - p, ox * s + kx * 2 - p, sc), 0.0))],
        extra=[(dense((c,), F32), IndexMap((sc,)))],
        epilogue=epilogue,
        outs=[(TensorType((n, oh, ow, c), F32, strides, 4), IndexMap((sn, oy, ox, sc)))],
        kind=Pool,
    )


def test_average_of_what_is_inside(rng):
    f = counted(2, 9, 8, 21, 3, 2, 2)
    for t in LEVELS:
        check(f, values(f, rng), POOL, t=t)


def test_max_of_integers(rng):
    sn, oy, ox, sc, ky, kx = dims("n", "oy", "ox", "c", "ky", "kx")
    f = problems.reduction(
        {"n": 1, "oy": 4, "ox": 5, "c": 70},
        {"ky": 2, "kx": 2},
        [(dense((1, 4, 5, 70), I8), IndexMap((sn, oy + ky - 1, ox + kx - 1, sc), -128))],
        ("max",),
        I32,
        outs=[(dense((1, 4, 5, 70), I8), IndexMap((sn, oy, ox, sc)))],
        kind=Pool,
    )
    # -128 is what i8 starts from, not i32: padding is then a value like others, and llvm.pool leaves it.
    assert "padding" in (TEMPLATES[POOL].accepts(f, widest()) or "")
    check(f, values(f, rng), "llvm.reduce")
    g = problems.reduction(
        {"n": 1, "oy": 3, "ox": 4, "c": 70},
        {"ky": 2, "kx": 2},
        [(dense((1, 4, 5, 70), I8), IndexMap((sn, oy + ky, ox + kx, sc)))],
        ("max",),
        I32,
        outs=[(dense((1, 3, 4, 70), I8), IndexMap((sn, oy, ox, sc)))],
        kind=Pool,
    )
    check(g, values(g, rng), POOL)


def test_channels_first_goes_to_others(rng):
    f = problems.pool(1, 5, (19, 40), (3, 3), 2, 1, layout="nchw")
    reasons = {t.name: why for t, why in candidates(f, widest())}
    assert "channels last" in (reasons[POOL] or "")
    assert reasons["llvm.reduce"] is None and reasons["llvm.naive"] is None
    for t in LEVELS:
        check(f, values(f, rng), "llvm.reduce", t=t)


def test_windows_that_lie_outside(rng):
    """Padding wider than the window: some windows see nothing, and give the combiner's identity."""
    sn, oy, sc, ky = Sym("n"), Sym("oy"), Sym("c"), Sym("ky")
    f = problems.reduction(
        {"n": 1, "oy": 9, "c": 20},
        {"ky": 2},
        [(dense((1, 3, 20), F32), IndexMap((sn, oy + ky - 3, sc), float("-inf")))],
        ("max",),
        kind=Pool,
    )
    for window in ("unrolled", "looped"):
        check(f, values(f, rng), POOL, {"grain": 4096, "unroll": 2, "window": window})


def test_default_is_legal():
    for f in (problems.pool(1, 64, (112, 112), (3, 3), 2, 1), counted(1, 9, 8, 3, 3, 2, 2)):
        for t in LEVELS:
            assert TEMPLATES[POOL].why_illegal(f, TEMPLATES[POOL].default(f, t), t) is None
            assert np.all(TEMPLATES[POOL].cost(f, TEMPLATES[POOL].legal_columns(f, t)[0], t) > 0)
