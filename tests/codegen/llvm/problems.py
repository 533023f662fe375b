# SPDX-License-Identifier: Apache-2.0
"""Kernels that templates are tried on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.ir import arith, math
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Value
from tcc.ir.expr import Dim, Sym, maximum, minimum
from tcc.ir.kernel import Attention, Conv, Func, Map, MatMul, Pool, Reduce, Rows
from tcc.ir.kernel.build import RegionBuilder, cast_region, dense, dims, func, identity_map, scalar_region
from tcc.ir.types import BOOL, F32, I64, DType, ScalarType, TensorType

Body = Callable[[RegionBuilder, Sequence[Value]], Any]
Names = dict[str, int]


def const(b: RegionBuilder, value: float, dtype: DType = F32) -> Value:
    """A literal."""
    return b(arith.Constant(value=value, result_types=[ScalarType(dtype)]))


def bind(names: Names) -> tuple[tuple[str, int], ...]:
    return tuple(names.items())


def mapping(
    domain: Names,
    ins: Sequence[tuple[TensorType, IndexMap]],
    body: Body,
    outs: Sequence[tuple[TensorType, IndexMap]] | None = None,
) -> Func:
    """A map; without `outs` one dense f32 result over the domain."""
    d = Domain(bind(domain))
    results = outs or [(dense(tuple(domain.values()), F32), identity_map(d))]
    return func(
        "f",
        [t for t, _ in ins],
        lambda args: Map(
            args,
            domain=d,
            maps=tuple(m for _, m in ins),
            out_maps=tuple(m for _, m in results),
            regions=[scalar_region([t.dtype for t, _ in ins], body)],
            result_types=[t for t, _ in results],
        ),
    )


def reduction(
    parallel: Names,
    reduce: Names,
    ins: Sequence[tuple[TensorType, IndexMap]],
    combine: Sequence[str] = ("sum",),
    acc: DType = F32,
    body: Body | None = None,
    extra: Sequence[tuple[TensorType, IndexMap]] = (),
    epilogue: Body | None = None,
    outs: Sequence[tuple[TensorType, IndexMap]] | None = None,
    kind: type[Reduce] = Reduce,
) -> Func:
    """A reduction (or pool); without `body` the only input, without `epilogue` the accumulators cast to the results."""
    d = Domain(bind(parallel), bind(reduce))
    results = outs or [(dense(tuple(parallel.values()), F32), identity_map(d)) for _ in combine]
    finish = epilogue or (lambda b, a: [b.cast(x, t.dtype) for x, (t, _) in zip(a, results, strict=False)])
    return func(
        "f",
        [t for t, _ in (*ins, *extra)],
        lambda args: kind(
            args[: len(ins)],
            args[len(ins) :],
            domain=d,
            maps=tuple(m for _, m in (*ins, *extra)),
            out_maps=tuple(m for _, m in results),
            combine=tuple(combine),
            acc=acc,
            regions=[
                scalar_region([t.dtype for t, _ in ins], body or (lambda b, a: [b.cast(a[0], acc)] * len(combine))),
                scalar_region([*[acc] * len(combine), *(t.dtype for t, _ in extra)], finish),
            ],
            result_types=[t for t, _ in results],
        ),
    )


def pool(
    n: int, c: int, size: tuple[int, int], kernel: tuple[int, int], stride: int = 1, pad: int = 0, kind: str = "max",
    dtype: DType = F32, layout: str = "nhwc",
) -> Func:  # fmt: skip
    """Max or average pooling (padding not counted in the average's divisor: it is counted as the window's size)."""
    h, w = size
    kh, kw = kernel
    oh, ow = (h + 2 * pad - kh) // stride + 1, (w + 2 * pad - kw) // stride + 1
    sn, oy, ox, sc, ky, kx = dims("n", "oy", "ox", "c", "ky", "kx")
    fill = None if not pad else float("-inf") if kind == "max" else 0.0
    y, x = oy * stride + ky - pad, ox * stride + kx - pad
    nhwc = layout == "nhwc"
    source = IndexMap((sn, y, x, sc) if nhwc else (sn, sc, y, x), fill)
    target = IndexMap((sn, oy, ox, sc) if nhwc else (sn, sc, oy, ox))
    acc = F32
    epilogue = None
    if kind == "average":

        def epilogue(b: RegionBuilder, a: Sequence[Value]) -> Value:
            return b.cast(b(arith.Mul(a[0], const(b, 1.0 / (kh * kw)))), dtype)

    return reduction(
        {"n": n, "oy": oh, "ox": ow, "c": c} if nhwc else {"n": n, "c": c, "oy": oh, "ox": ow},
        {"ky": kh, "kx": kw},
        [(dense((n, h, w, c) if nhwc else (n, c, h, w), dtype), source)],
        ("max",) if kind == "max" else ("sum",),
        acc,
        epilogue=epilogue,
        outs=[(dense((n, oh, ow, c) if nhwc else (n, c, oh, ow), dtype), target)],
        kind=Pool,
    )


def softmax(shape: tuple[int, ...], axis: int = -1, dtype: DType = F32, strides: tuple[int, ...] | None = None) -> Func:
    """Softmax along an axis."""
    axis %= len(shape)
    names = [f"d{i}" for i in range(len(shape))]
    access = IndexMap(tuple(Sym(n) for n in names))

    def stage0(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b.cast(a[0], F32)

    def shifted(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b(math.Exp(b(arith.Sub(b.cast(a[0], F32), a[1]))))

    def last(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b.cast(b(arith.Div(shifted(b, a), a[2])), dtype)

    return rows(
        {n: s for i, (n, s) in enumerate(zip(names, shape, strict=True)) if i != axis},
        {names[axis]: shape[axis]},
        [(TensorType(shape, dtype, strides), access)],
        ("max", "sum"),
        [stage0, shifted, last],
        [(dense(shape, dtype), access)],
    )


def layernorm(outer: tuple[int, ...], inner: int, dtype: DType = F32, axis_last: bool = True) -> Func:
    """Layer normalization with scale and bias; the normalized axis last, or first."""
    names = [f"d{i}" for i in range(len(outer))]
    at = (*(Sym(n) for n in names), Sym("r")) if axis_last else (Sym("r"), *(Sym(n) for n in names))
    shape = (*outer, inner) if axis_last else (inner, *outer)
    access, vector = IndexMap(at), IndexMap((Sym("r"),))

    def value(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b.cast(a[0], F32)

    def centred(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b(arith.Sub(b.cast(a[0], F32), b(arith.Mul(a[3], const(b, 1.0 / inner)))))

    def square(b: RegionBuilder, a: Sequence[Value]) -> Value:
        c = centred(b, a)
        return b(arith.Mul(c, c))

    def last(b: RegionBuilder, a: Sequence[Value]) -> Value:
        variance = b(arith.Add(b(arith.Mul(a[4], const(b, 1.0 / inner))), const(b, 1e-5)))
        y = b(arith.Mul(centred(b, a), b(math.Rsqrt(variance))))
        y = b(arith.Add(b(arith.Mul(y, b.cast(a[1], F32))), b.cast(a[2], F32)))
        return b.cast(y, dtype)

    return rows(
        dict(zip(names, outer, strict=True)),
        {"r": inner},
        [(dense(shape, dtype), access), (dense((inner,), dtype), vector), (dense((inner,), dtype), vector)],
        ("sum", "sum"),
        [value, square, last],
        [(dense(shape, dtype), access)],
    )


def rows(
    parallel: Names,
    reduce: Names,
    ins: Sequence[tuple[TensorType, IndexMap]],
    combine: Sequence[str],
    stages: Sequence[Body],
    outs: Sequence[tuple[TensorType, IndexMap]],
    acc: DType = F32,
) -> Func:
    """Several reductions over a row, then a map."""
    d = Domain(bind(parallel), bind(reduce))
    return func(
        "f",
        [t for t, _ in ins],
        lambda args: Rows(
            args,
            domain=d,
            maps=tuple(m for _, m in ins),
            out_maps=tuple(m for _, m in outs),
            combine=tuple(combine),
            acc=acc,
            regions=[scalar_region([*(t.dtype for t, _ in ins), *[acc] * i], s) for i, s in enumerate(stages)],
            result_types=[t for t, _ in outs],
        ),
    )


def matmul(m: int, n: int, k: int, batch: int = 1, dtype: DType = F32, bias: bool = True) -> Func:
    """lhs (b, m, k) × rhs (b, k, n) + bias (n)."""
    b_, m_, n_, k_ = dims("b0", "m", "n", "k")
    d = Domain((("b0", batch), ("m", m), ("n", n)), (("k", k),))
    extra = [dense((n,), F32)] if bias else []

    def epilogue(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b.cast(b(arith.Add(a[0], a[1])) if bias else a[0], dtype)

    return func(
        "f",
        [dense((batch, m, k), dtype), dense((batch, k, n), dtype), *extra],
        lambda args: MatMul(
            [args[0]],
            [args[1]],
            args[2:],
            domain=d,
            maps=(IndexMap((b_, m_, k_)), IndexMap((b_, k_, n_)), *([IndexMap((n_,))] if bias else [])),
            out_maps=(IndexMap((b_, m_, n_)),),
            acc=F32,
            regions=[
                cast_region(dtype, F32),
                cast_region(dtype, F32),
                scalar_region([F32, *[F32] * len(extra)], epilogue),
            ],
            result_types=[dense((batch, m, n), dtype)],
        ),
    )


def conv(n: int, size: int, ci: int, co: int, kernel: int, groups: int = 1, stride: int = 1, pad: int = 0) -> Func:
    """NHWC convolution with bias and relu."""
    out = (size + 2 * pad - kernel) // stride + 1
    cg, og = ci // groups, co // groups
    n_, oy, ox, g, c_o, ky, kx, c_i = dims("n", "oy", "ox", "g", "co", "ky", "kx", "ci")
    d = Domain(
        (("n", n), ("oy", out), ("ox", out), ("g", groups), ("co", og)), (("ky", kernel), ("kx", kernel), ("ci", cg))
    )
    y, x = oy * stride + ky - pad, ox * stride + kx - pad
    return func(
        "f",
        [dense((n, size, size, ci), F32), dense((co, kernel, kernel, cg), F32), dense((co,), F32)],
        lambda args: Conv(
            [args[0]],
            [args[1]],
            [args[2]],
            domain=d,
            maps=(
                IndexMap((n_, y, x, g * cg + c_i), 0.0 if pad else None),
                IndexMap((g * og + c_o, ky, kx, c_i)),
                IndexMap((g * og + c_o,)),
            ),
            out_maps=(IndexMap((n_, oy, ox, g * og + c_o)),),
            acc=F32,
            regions=[
                cast_region(F32, F32),
                cast_region(F32, F32),
                scalar_region([F32, F32], lambda b, a: b(arith.Max(b(arith.Add(a[0], a[1])), const(b, 0.0)))),
            ],
            result_types=[dense((n, out, out, co), F32)],
        ),
        (False, True, True),
    )


def attention(
    batch: int, heads: int, m: int, n: int, depth: int, channels: int, layout: str = "bhmd", mask: str = "none",
    dtype: DType = F32,
) -> Func:  # fmt: skip
    """Attention. `layout`: bhmd, bmhd or packed (one (b, m, 3, h, d) tensor); `mask`: none, causal, additive, bool."""
    b_, h_, m_, d_, n_, k_ = dims("b", "h", "m", "d", "n", "k")
    domain = Domain((("b", batch), ("h", heads), ("m", m), ("d", channels)), (("n", n), ("k", depth)))

    def place(row: Dim, column: Dim, rows: int, width: int, part: int) -> tuple[TensorType, IndexMap]:
        if layout == "bhmd":
            return dense((batch, heads, rows, width), dtype), IndexMap((b_, h_, row, column))
        if layout == "bmhd":
            return dense((batch, rows, heads, width), dtype), IndexMap((b_, row, h_, column))
        return dense((batch, rows, 3, heads, width), dtype), IndexMap((b_, row, part, h_, column))

    ins = [place(m_, k_, m, depth, 0), place(n_, k_, n, depth, 1), place(n_, d_, n, channels, 2)]
    if mask == "additive":
        ins.append((dense((batch, 1, m, n), F32), IndexMap((b_, 0, m_, n_))))
    if mask == "bool":
        ins.append((dense((batch, n), BOOL), IndexMap((b_, n_))))
    scale = depth**-0.5

    def score(b: RegionBuilder, a: Sequence[Value]) -> Value:
        from tcc.ir.kernel import Index

        s = b(arith.Mul(a[0], const(b, scale)))
        low = const(b, float("-inf"))
        if mask == "additive":
            return b(arith.Add(s, a[1]))
        if mask == "bool":
            return b(arith.Select(a[1], s, low))
        if mask == "causal":
            row, column = (b(Index(dim=x, result_types=[ScalarType(I64)])) for x in ("m", "n"))
            return b(arith.Select(b(arith.Cmp(column, row, predicate="le")), s, low))
        return s

    out_type, out_map = place(m_, d_, m, channels, 0)
    if layout == "packed":
        out_type, out_map = dense((batch, m, heads, channels), dtype), IndexMap((b_, m_, h_, d_))
    shared = layout == "packed"
    types = [ins[0][0], *(t for t, _ in ins[3:])] if shared else [t for t, _ in ins]

    def build(args: Sequence[Value]) -> Attention:
        qkv = [args[0]] * 3 if shared else list(args[:3])
        return Attention(
            *qkv,
            args[1:] if shared else args[3:],
            domain=domain,
            maps=tuple(m for _, m in ins),
            out_maps=(out_map,),
            acc=F32,
            regions=[
                scalar_region([F32, *(t.dtype for t, _ in ins[3:])], score),
                cast_region(F32, dtype),
            ],
            result_types=[out_type],
        )

    return func("f", types, build)


def clipped(value: Dim, low: int, high: int) -> Dim:
    """value held between bounds, as an index expression."""
    return minimum(maximum(value, low), high)
