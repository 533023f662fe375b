# SPDX-License-Identifier: Apache-2.0
"""Short builders of problems of every anchor, as the lowering makes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir import arith
from tcc.ir import math as m
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Region, Value
from tcc.ir.expr import Sym
from tcc.ir.kernel import Attention, Conv, Func, Index, Map, MatMul, Pool, Reduce, Rows
from tcc.ir.kernel.build import RegionBuilder, cast_region, dense, dims, func, identity_region, scalar_region
from tcc.ir.types import BOOL, F32, F64, I32, I64, DType, ScalarType, TensorType


def constant(b: RegionBuilder, value: float, d: DType) -> Value:
    return b(arith.Constant(value=value, result_types=[ScalarType(d)]))


def acc_of(d: DType) -> DType:
    """The accumulator of an element type."""
    return F64 if d == F64 else F32 if d.is_float else I64 if d == I64 else I32


def epilogue(acc: DType, extra: Sequence[DType], out: DType, activation: str = "relu") -> Region:
    """acc + every extra, then an activation (floats), as `out`."""

    def body(b: RegionBuilder, a: Sequence[Value]) -> Value:
        v = a[0]
        for x in a[1:]:
            v = b(arith.Add(v, b.cast(x, acc)))
        if acc.is_float and activation == "relu":
            v = b(arith.Max(v, constant(b, 0.0, acc)))
        if acc.is_float and activation == "silu":
            v = b(arith.Mul(v, b(m.Sigmoid(v))))
        if acc.is_float and activation == "gelu":
            e = b(m.Erf(b(arith.Mul(v, constant(b, 0.7071067811865476, acc)))))
            half = b(arith.Mul(v, constant(b, 0.5, acc)))
            v = b(arith.Mul(half, b(arith.Add(e, constant(b, 1.0, acc)))))
        return b.cast(v, out)

    return scalar_region([acc, *extra], body)


def matmul(
    batch: Sequence[int], m_: int, n_: int, k_: int, d: DType, *, ta: bool = False, tb: bool = False,
    bias: bool = False, residual: bool = False, weights: bool = True, activation: str = "relu", out: str = "bmn",
    strided: bool = False, prologue: bool = False,
) -> Func:  # fmt: skip
    """A batched product. `weights`: rhs is a constant without batch dims. `out`: "bmn", or "mbn" (batch inside rows).
    `strided`: lhs is a slice of a buffer of twice the columns, the result of one with 8 more."""
    acc = acc_of(d)
    names = [f"b{i}" for i in range(len(batch))]
    bs, (ms, ns, ks) = dims(*names), dims("m", "n", "k")
    domain = Domain((*zip(names, batch, strict=True), ("m", m_), ("n", n_)), (("k", k_),))
    lhs_shape = (*batch, k_, m_) if ta else (*batch, m_, k_)
    lhs = dense(lhs_shape, d)
    if strided:
        steps = list(TensorType((*lhs_shape[:-1], 2 * lhs_shape[-1]), d).dense_strides())
        lhs = TensorType(lhs_shape, d, tuple(steps), 16)
    rb = () if weights else bs
    rhs_shape = (*(() if weights else batch), *((n_, k_) if tb else (k_, n_)))
    types, extra = [lhs, dense(rhs_shape, d)], []
    maps = [IndexMap((*bs, ks, ms) if ta else (*bs, ms, ks)), IndexMap((*rb, ns, ks) if tb else (*rb, ks, ns))]
    const = [False, weights]
    if bias:
        types.append(dense((n_,), d))
        maps.append(IndexMap((ns,)))
        const.append(True)
        extra.append(d)
    order = (*bs, ms, ns) if out == "bmn" else (ms, *bs, ns) if out == "mbn" else (*bs, ns, ms)
    shape = (*batch, m_, n_) if out == "bmn" else (m_, *batch, n_) if out == "mbn" else (*batch, n_, m_)
    result = dense(shape, d)
    if strided:
        steps = TensorType((*shape[:-1], shape[-1] + 8), d).dense_strides()
        result = TensorType(shape, d, steps, 16)
    if residual:
        types.append(dense(shape, d))
        maps.append(IndexMap(order))
        const.append(False)
        extra.append(d)
    body = scalar_region([d], lambda b, a: b(arith.Add(a[0], a[0]))) if prologue else identity_region(d)

    def build(a: Sequence[Value]) -> MatMul:
        return MatMul(
            [a[0]], [a[1]], list(a[2:]), acc=acc, domain=domain, maps=tuple(maps), out_maps=(IndexMap(order),),
            regions=[body, identity_region(d), epilogue(acc, extra, d, activation)], result_types=[result],
        )  # fmt: skip

    return func("matmul", types, build, const)


def scaled_sum(m_: int, n_: int, k_: int, d: DType) -> Func:
    """A product with a factor that is one number, which no operand holds."""
    ms, ns, ks = dims("m", "n", "k")
    domain = Domain((("m", m_), ("n", n_)), (("k", k_),))

    def build(a: Sequence[Value]) -> MatMul:
        return MatMul(
            list(a), [], [], acc=F32, domain=domain, maps=(IndexMap((ms, ks)),), out_maps=(IndexMap((ms, ns)),),
            regions=[identity_region(d), scalar_region([], lambda b, _: constant(b, 0.25, d)), cast_region(F32, d)],
            result_types=[dense((m_, n_), d)],
        )  # fmt: skip

    return func("matmul", [dense((m_, k_), d)], build)


def conv(
    n: int, h: int, w: int, groups: int, ci: int, co: int, kernel: int, d: DType, *, stride: int = 1, pad: int = 0,
    dilation: int = 1, layout: str = "nhwc", bias: bool = True, residual: bool = False, activation: str = "relu",
    channels: int | None = None,
) -> Func:  # fmt: skip
    """A convolution; `ci`, `co` are channels of one group. `channels`: the result is a slice of that many channels."""
    acc = acc_of(d)
    oh, ow = ((x + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for x in (h, w))
    ns, oy, ox, g, cos, ky, kx, cis = dims("n", "oy", "ox", "g", "co", "ky", "kx", "ci")
    domain = Domain(
        (("n", n), ("oy", oh), ("ox", ow), ("g", groups), ("co", co)), (("ky", kernel), ("kx", kernel), ("ci", ci))
    )
    iy, ix = oy * stride + ky * dilation - pad, ox * stride + kx * dilation - pad
    channel, out_channel = g * ci + cis, g * co + cos
    nhwc = layout == "nhwc"
    x_shape = (n, h, w, groups * ci) if nhwc else (n, groups * ci, h, w)
    y_shape = (n, oh, ow, groups * co) if nhwc else (n, groups * co, oh, ow)
    order = (ns, oy, ox, out_channel) if nhwc else (ns, out_channel, oy, ox)
    fill = (0.0 if d.is_float else 0) if pad else None
    maps = [IndexMap((ns, iy, ix, channel) if nhwc else (ns, channel, iy, ix), fill)]
    maps.append(IndexMap((out_channel, ky, kx, cis) if nhwc else (out_channel, cis, ky, kx)))
    types = [dense(x_shape, d)]
    types.append(dense((groups * co, kernel, kernel, ci) if nhwc else (groups * co, ci, kernel, kernel), d))
    extra, const = [], [False, True]
    if bias:
        types.append(dense((groups * co,), d))
        maps.append(IndexMap((out_channel,)))
        extra.append(d)
        const.append(True)
    if residual:
        types.append(dense(y_shape, d))
        maps.append(IndexMap(order))
        extra.append(d)
        const.append(False)
    result = dense(y_shape, d)
    if channels is not None:
        result = TensorType(y_shape, d, TensorType((*y_shape[:-1], channels), d).dense_strides(), 16)

    def build(a: Sequence[Value]) -> Conv:
        return Conv(
            [a[0]], [a[1]], list(a[2:]), acc=acc, domain=domain, maps=tuple(maps), out_maps=(IndexMap(order),),
            regions=[identity_region(d), identity_region(d), epilogue(acc, extra, d, activation)],
            result_types=[result],
        )  # fmt: skip

    return func("conv", types, build, const)


def reduce(
    shape: Sequence[int], axes: Sequence[int], d: DType, *, combine: str = "sum", mean: bool = False,
    square: bool = False, both: bool = False, order: Sequence[int] | None = None, out: DType | None = None,
) -> Func:  # fmt: skip
    """A reduction of axes; `both` yields sum and max. `order`: the memory order of the operand's dims."""
    acc = acc_of(d)
    out = out or d
    names = [f"d{i}" for i in range(len(shape))]
    keep = [i for i in range(len(shape)) if i not in axes]
    domain = Domain(tuple((names[i], shape[i]) for i in keep), tuple((names[i], shape[i]) for i in axes))
    syms = dims(*names)
    place = list(order or range(len(shape)))
    source = dense([shape[i] for i in place], d)
    combos = ("sum", "max") if both else (combine,)
    count = int(np.prod([shape[i] for i in axes])) if mean else 0

    def body(b: RegionBuilder, a: Sequence[Value]) -> list[Value]:
        v = b.cast(a[0], acc)
        return [b(arith.Mul(v, v)) if square else v, *([v] if both else [])]

    def finish(b: RegionBuilder, a: Sequence[Value]) -> list[Value]:
        v = a[0]
        if mean:
            v = b(arith.Mul(v, constant(b, 1.0 / count, acc)))
        return [b.cast(v, out), *(b.cast(x, out) for x in a[1:])]

    result = dense([shape[i] for i in keep], out)

    def build(a: Sequence[Value]) -> Reduce:
        return Reduce(
            [a[0]], [], combine=combos, acc=acc, domain=domain, maps=(IndexMap(tuple(syms[i] for i in place)),),
            out_maps=(IndexMap(tuple(syms[i] for i in keep)),) * len(combos),
            regions=[scalar_region([d], body), scalar_region([acc] * len(combos), finish)],
            result_types=[result] * len(combos),
        )  # fmt: skip

    return func("reduce", [source], build)


def pool(
    n: int, h: int, w: int, c: int, kernel: int, d: DType, *, stride: int = 1, pad: int = 0, combine: str = "max",
    layout: str = "nhwc",
) -> Func:  # fmt: skip
    """Max pooling, or average pooling that counts the padding."""
    acc = acc_of(d)
    oh, ow = ((x + 2 * pad - kernel) // stride + 1 for x in (h, w))
    ns, oy, ox, cs, ky, kx = dims("n", "oy", "ox", "c", "ky", "kx")
    domain = Domain((("n", n), ("oy", oh), ("ox", ow), ("c", c)), (("ky", kernel), ("kx", kernel)))
    iy, ix = oy * stride + ky - pad, ox * stride + kx - pad
    nhwc = layout == "nhwc"
    fill = None if not pad else 0.0 if combine == "sum" else float("-inf") if d.is_float else int(np.iinfo(d.numpy).min)

    def finish(b: RegionBuilder, a: Sequence[Value]) -> Value:
        v = a[0]
        return b.cast(b(arith.Mul(v, constant(b, 1.0 / kernel**2, acc))) if combine == "sum" else v, d)

    def build(a: Sequence[Value]) -> Pool:
        return Pool(
            [a[0]], [], combine=(combine,), acc=acc, domain=domain,
            maps=(IndexMap((ns, iy, ix, cs) if nhwc else (ns, cs, iy, ix), fill),),
            out_maps=(IndexMap((ns, oy, ox, cs) if nhwc else (ns, cs, oy, ox)),),
            regions=[cast_region(d, acc), scalar_region([acc], finish)],
            result_types=[dense((n, oh, ow, c) if nhwc else (n, c, oh, ow), d)],
        )  # fmt: skip

    return func("pool", [dense((n, h, w, c) if nhwc else (n, c, h, w), d)], build)


def softmax(outer: int, row: int, d: DType, *, inner: int = 1, scale: float = 1.0) -> Func:
    """Softmax over the middle of (outer, row, inner)."""
    o, r, i = dims("o", "r", "i")
    domain = Domain((("o", outer), ("i", inner)), (("r", row),))

    def value(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b(arith.Mul(b.cast(a[0], F32), constant(b, scale, F32)))

    def power(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b(m.Exp(b(arith.Sub(value(b, a), a[1]))))

    t = dense((outer, row, inner), d)

    def build(a: Sequence[Value]) -> Rows:
        return Rows(
            [a[0]], combine=("max", "sum"), acc=F32, domain=domain, maps=(IndexMap((o, r, i)),),
            out_maps=(IndexMap((o, r, i)),), result_types=[t],
            regions=[
                scalar_region([d], value), scalar_region([d, F32], power),
                scalar_region([d, F32, F32], lambda b, a: b.cast(b(arith.Div(power(b, a), a[2])), d)),
            ],
        )  # fmt: skip

    return func("softmax", [t], build)


def layernorm(rows: Sequence[int], width: int, d: DType, *, residual: bool = False) -> Func:
    """Layer normalisation of rows, scaled and shifted; with `residual` of x + y, which is a second result."""
    names = [f"d{i}" for i in range(len(rows))]
    syms, (r,) = dims(*names), dims("r")
    domain = Domain(tuple(zip(names, rows, strict=True)), (("r", width),))
    t = dense((*rows, width), d)
    full, row = IndexMap((*syms, r)), IndexMap((r,))
    types, maps = ([t, t] if residual else [t]), ([full, full] if residual else [full])
    types += [dense((width,), d)] * 2
    maps += [row, row]
    count = len(types)

    def x(b: RegionBuilder, a: Sequence[Value]) -> Value:
        v = b.cast(a[0], F32)
        return b(arith.Add(v, b.cast(a[1], F32))) if residual else v

    def mean(b: RegionBuilder, a: Sequence[Value]) -> Value:
        return b(arith.Mul(x(b, a), constant(b, 1.0 / width, F32)))

    def variance(b: RegionBuilder, a: Sequence[Value]) -> Value:
        v = b(arith.Sub(x(b, a), a[count]))
        return b(arith.Mul(b(arith.Mul(v, v)), constant(b, 1.0 / width, F32)))

    def last(b: RegionBuilder, a: Sequence[Value]) -> list[Value]:
        v = b(arith.Sub(x(b, a), a[count]))
        v = b(arith.Mul(v, b(m.Rsqrt(b(arith.Add(a[count + 1], constant(b, 1e-5, F32)))))))
        v = b(arith.Mul(v, b.cast(a[count - 2], F32)))
        v = b(arith.Add(v, b.cast(a[count - 1], F32)))
        return [b.cast(v, d), *([b.cast(x(b, a), d)] if residual else [])]

    kinds = [d] * count

    def build(a: Sequence[Value]) -> Rows:
        return Rows(
            list(a), combine=("sum", "sum"), acc=F32, domain=domain, maps=tuple(maps),
            out_maps=(full,) * (2 if residual else 1), result_types=[t] * (2 if residual else 1),
            regions=[
                scalar_region(kinds, mean), scalar_region([*kinds, F32], variance),
                scalar_region([*kinds, F32, F32], last),
            ],
        )  # fmt: skip

    return func("layernorm", types, build, [False] * (count - 2) + [True, True])


def attention(
    batch: int, heads: int, m_: int, n_: int, depth: int, d: DType, *, layout: str = "bhmd", mask: str = "none",
    value: int | None = None, window: bool = False,
) -> Func:  # fmt: skip
    """Attention. `layout`: "bhmd", "bmhd" or "qkv" (one tensor (b, m, 3, h, d)). `mask`: "none", "bias" (an operand
    (h, m, n)), "causal" (by coordinates) or "key" (an operand (b, n), true where a key counts)."""
    dv = value or depth
    b_, h_, ms, ds, ns, ks = dims("b", "h", "m", "d", "n", "k")
    domain = Domain((("b", batch), ("h", heads), ("m", m_), ("d", dv)), (("n", n_), ("k", depth)))
    acc = acc_of(d)
    if layout == "qkv":
        t = dense((batch, m_, 3, heads, depth), d)
        types = [t]
        maps = [IndexMap((b_, ms, 0, h_, ks)), IndexMap((b_, ns, 1, h_, ks)), IndexMap((b_, ns, 2, h_, ds))]
    elif layout == "bmhd":
        types = [dense((batch, m_, heads, depth), d), dense((batch, n_, heads, depth), d)]
        types.append(dense((batch, n_, heads, dv), d))
        maps = [IndexMap((b_, ms, h_, ks)), IndexMap((b_, ns, h_, ks)), IndexMap((b_, ns, h_, ds))]
    else:
        types = [dense((batch, heads, m_, depth), d), dense((batch, heads, n_, depth), d)]
        types.append(dense((batch, heads, n_, dv), d))
        maps = [IndexMap((b_, h_, ms, ks)), IndexMap((b_, h_, ns, ks)), IndexMap((b_, h_, ns, ds))]
    extra: list[DType] = []
    if mask == "bias":
        types.append(dense((heads, m_, n_), d))
        maps.append(IndexMap((h_, ms, ns)))
        extra = [d]
    if mask == "key":
        types.append(dense((batch, n_), BOOL))
        maps.append(IndexMap((b_, ns)))
        extra = [BOOL]

    def score(b: RegionBuilder, a: Sequence[Value]) -> Value:
        v = b(arith.Mul(a[0], constant(b, depth**-0.5, acc)))
        least = constant(b, float("-inf"), acc)
        if mask == "bias":
            v = b(arith.Add(v, b.cast(a[1], acc)))
        if mask == "key":
            v = b(arith.Select(a[1], v, least))
        if mask == "causal":
            keep = b(arith.Cmp(b(Index(dim="n")), b(Index(dim="m")), predicate="le"))
            v = b(arith.Select(keep, v, least))
        return v

    out = dense((batch, m_, heads, dv), d) if layout != "bhmd" else dense((batch, heads, m_, dv), d)
    out_map = IndexMap((b_, ms, h_, ds) if layout != "bhmd" else (b_, h_, ms, ds))

    def build(a: Sequence[Value]) -> Attention:
        q, k, v = (a[0],) * 3 if layout == "qkv" else a[:3]
        rest = list(a[1:]) if layout == "qkv" else list(a[3:])
        return Attention(
            q, k, v, rest, acc=acc, domain=domain, maps=tuple(maps), out_maps=(out_map,), result_types=[out],
            regions=[scalar_region([acc, *extra], score), scalar_region([acc], lambda b, a: b.cast(a[0], d))],
        )  # fmt: skip

    return func("attention", types, build)


def pointwise(
    shape: Sequence[int], d: DType, *, order: Sequence[int] | None = None, broadcast: bool = False,
    strided: bool = False, out: DType | None = None, activation: str = "silu",
) -> Func:  # fmt: skip
    """activation(x + y): x lies in memory in `order` of the result's dims, y is dense or broadcast (last dim only)."""
    out = out or d
    names = [f"d{i}" for i in range(len(shape))]
    syms = dims(*names)
    domain = Domain(tuple(zip(names, shape, strict=True)))
    place = list(order or range(len(shape)))
    types = [dense([shape[i] for i in place], d)]
    maps = [IndexMap(tuple(syms[i] for i in place))]
    types.append(dense(shape[-1:] if broadcast else shape, d))
    maps.append(IndexMap(syms[-1:] if broadcast else syms))
    result = dense(shape, out)
    if strided:
        result = TensorType(tuple(shape), out, TensorType((*shape[:-1], shape[-1] + 4), out).dense_strides(), 8)

    def body(b: RegionBuilder, a: Sequence[Value]) -> Value:
        v = b(arith.Add(*a))
        if d.is_float and activation == "silu":
            v = b(arith.Mul(v, b(m.Sigmoid(v))))
        return b.cast(v, out)

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=tuple(maps), out_maps=(IndexMap(syms),), result_types=[result],
            regions=[scalar_region([d, d], body)],
        )  # fmt: skip

    return func("map", types, build)


def gather(rows: int, width: int, count: int, d: DType) -> Func:
    """Embedding: table[ids[i], j]."""
    i, j = dims("i", "j")
    domain = Domain((("i", count), ("j", width)))

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=(IndexMap((Sym("$1"), j)), IndexMap((i,))),
            out_maps=(IndexMap((i, j)),), result_types=[dense((count, width), d)],
            regions=[scalar_region([d, I64], lambda b, a: a[0])],
        )  # fmt: skip

    return func("gather", [dense((rows, width), d), dense((count,), I64)], build, [True, False])


def pad_and_resize(h: int, w: int, c: int, d: DType) -> Func:
    """Nearest resize by 2 after padding by (1, 2) with 7, as floordiv maps with a fill; and a slice with a step."""
    y, x, cs = dims("y", "x", "c")
    domain = Domain((("y", 2 * h + 4), ("x", 2 * w + 2), ("c", c)))
    maps = (IndexMap((y // 2 - 1, x // 2 - 1, cs), 7), IndexMap((y // 3, x % 2, c - 1 - cs)))

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=maps, out_maps=(IndexMap((y, x, cs)),),
            result_types=[dense((2 * h + 4, 2 * w + 2, c), d)],
            regions=[scalar_region([d, d], lambda b, a: b(arith.Sub(a[0], a[1])))],
        )  # fmt: skip

    return func("resize", [dense((h, w, c), d), dense((h + 2, 2, c), d)], build)
