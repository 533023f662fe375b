# SPDX-License-Identifier: Apache-2.0
"""Groups without an anchor, and groups anchored at reductions, pools, LRN and row ops."""

from __future__ import annotations

import math as _m
from collections.abc import Callable, Sequence
from typing import cast

from tcc.ir import arith, math
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Region, Value
from tcc.ir.expr import Dim, Sym, add, floordiv, maximum, minimum, mul, product
from tcc.ir.graph import (
    AveragePool,
    GroupNorm,
    LayerNorm,
    LogSoftmax,
    Lrn,
    MaxPool,
    Reduce,
    RmsNorm,
    Softmax,
)
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.kernel import Map, Pool, Rows
from tcc.ir.kernel import Reduce as KernelReduce
from tcc.ir.scalar import element
from tcc.ir.types import DType, ScalarType
from tcc.passes.lower.group import Group, Made, accumulator, lowers
from tcc.passes.lower.indexing import Index, broadcast_index, reshape_index
from tcc.passes.lower.scalarize import Accesses, Scalarizer
from tcc.passes.lower.scalars import Scalars, compute_dtype


@lowers("")
def lower_map(group: Group) -> Made:
    """Outputs of one size over one domain: that of the first output; the others may be reshapes of it."""
    shape = tensor_type(group.outputs[0]).shape
    domain = Domain(tuple((f"d{i}", e) for i, e in enumerate(shape)))
    index: Index = tuple(0 if e == 1 else Sym(f"d{i}") for i, e in enumerate(shape))
    used = tuple((f"d{i}", e) for i, e in enumerate(shape) if e != 1)
    domain = Domain(used or (("d0", 1),))
    accesses = Accesses()
    s = Scalarizer(domain, group.outer, accesses)
    places = [reshape_index(index, shape, tensor_type(o).shape, s.ranges) for o in group.outputs]
    values = [s.value(o, place) for o, place in zip(group.outputs, places, strict=True)]
    body = s.region(values, group.output_dtypes)
    return group.finish(
        domain,
        [accesses],
        places,
        lambda fields, maps, out_maps, types: Map(
            *fields, domain=domain, maps=maps, out_maps=out_maps, regions=[body], result_types=types
        ),
    )


def _finish_reduce(
    group: Group, kind: type[KernelReduce], domain: Domain, accesses: Accesses, body: Region, combine: Sequence[str],
    acc: DType, result: Callable[[Scalarizer], Value], out: Value, index: Index,
) -> Made:  # fmt: skip
    extra = Accesses()
    s = Scalarizer(domain, group.outer, extra, [ScalarType(acc)] * len(combine))
    values, places = group.epilogue(s, [(out, result(s), index)])
    epilogue = s.region(values, group.output_dtypes)
    return group.finish(
        domain,
        [accesses, extra],
        places,
        lambda fields, maps, out_maps, types: kind(
            *fields, domain=domain, maps=maps, out_maps=out_maps, combine=tuple(combine), acc=acc,
            regions=[body, epilogue], result_types=types,
        ),
    )  # fmt: skip


@lowers("reduce")
def lower_reduce(group: Group) -> Made:
    op = cast(Reduce, group.anchor)
    x = tensor_type(op.x)
    kept = [i for i in range(x.rank) if i not in op.axes]
    index: Index = tuple(0 if d == 1 else Sym(f"d{i}") for i, d in enumerate(x.shape))
    parallel = tuple((f"d{i}", x.shape[i]) for i in kept if x.shape[i] != 1)
    reduced = tuple((f"d{i}", x.shape[i]) for i in op.axes if x.shape[i] != 1)
    domain = Domain(parallel or (("one", 1),), reduced or (("r", 1),))
    place = tuple(index[i] for i in kept)
    if op.keepdims:
        place = tuple(0 if i in op.axes else index[i] for i in range(x.rank))
    combine = {"mean": "sum"}.get(op.kind, op.kind)
    acc = accumulator(x.dtype) if combine in ("sum", "prod") or x.dtype.is_float else compute_dtype(x.dtype)
    accesses = Accesses()
    s = Scalarizer(domain, group.outer, accesses)
    body = s.region([s.value(op.x, index)], [acc])
    count = product(x.shape[i] for i in op.axes)

    def result(e: Scalarizer) -> Value:
        value = e.leading[0]
        if op.kind == "mean":
            value = e.s.div(value, e.s.count(count, value))
        return e.s.cast(value, compute_dtype(x.dtype))

    return _finish_reduce(group, KernelReduce, domain, accesses, body, [combine], acc, result, op.y, place)


@lowers("max_pool", "average_pool")
def lower_pool(group: Group) -> Made:
    op = cast("MaxPool | AveragePool", group.anchor)
    x, y = tensor_type(op.x), tensor_type(op.y)
    spatial = list(range(2, x.rank)) if op.dims == "nchw" else list(range(1, x.rank - 1))
    channel = 1 if op.dims == "nchw" else x.rank - 1
    o = ["oz", "oy", "ox"][3 - len(spatial) :]
    k = ["kz", "ky", "kx"][3 - len(spatial) :]
    window = [(name, e) for name, e in zip(k, op.kernel, strict=True)]
    domain = Domain(
        (("n", y.shape[0]), *((n, y.shape[a]) for n, a in zip(o, spatial, strict=True)), ("c", y.shape[channel])),
        tuple(window),
    )
    at: list[Dim] = [
        add(add(mul(Sym(i), op.strides[d]), mul(Sym(j), op.dilations[d])), -op.pads[d])
        for d, (i, j) in enumerate(zip(o, k, strict=True))
    ]

    def place(space: Sequence[Dim]) -> Index:
        return (Sym("n"), Sym("c"), *space) if op.dims == "nchw" else (Sym("n"), *space, Sym("c"))

    is_max = isinstance(op, MaxPool)
    acc = compute_dtype(x.dtype) if is_max else accumulator(x.dtype)
    least: float | int = 0 if not is_max else -_m.inf if x.dtype.is_float else _lowest(x.dtype)
    accesses = Accesses()
    s = Scalarizer(domain, group.outer, accesses)
    if s.is_input(op.x):
        scalar = s.load(op.x, IndexMap(place(at), least))
    else:
        inside = s.inside(place(at), x.shape)
        scalar = s.value(op.x, place(at), guarded=True)
        scalar = scalar if inside is None else s.s.select(inside, scalar, s.s.like(least, scalar))
    body = s.region([scalar], [acc])

    def result(e: Scalarizer) -> Value:
        value = e.leading[0]
        if not is_max:
            value = e.s.div(value, _window_size(e, cast(AveragePool, op), x.shape, spatial, o, value))
        return e.s.cast(value, compute_dtype(x.dtype))

    where = place([Sym(i) for i in o])
    return _finish_reduce(group, Pool, domain, accesses, body, ["max" if is_max else "sum"], acc, result, op.y, where)


def _lowest(d: DType) -> int:
    return 0 if d.kind != "int" else -(1 << (d.bits - 1))


def _window_size(
    e: Scalarizer, op: AveragePool, shape: Sequence[Dim], spatial: Sequence[int], o: Sequence[str], like: Value
) -> Value:
    """How many elements a window averages: all, or those inside x (and its pads, where they count)."""
    total: Dim = 1
    rank = len(spatial)
    for d, axis in enumerate(spatial):
        kernel, step = op.kernel[d], op.dilations[d]
        first = add(mul(Sym(o[d]), op.strides[d]), -op.pads[d])
        extent = shape[axis]
        low: Dim = 0
        high: Dim = extent
        if op.count_include_pad:
            low, high = -op.pads[d], add(extent, op.pads[rank + d])
        if step == 1:
            end = minimum(add(first, kernel), high, e.ranges)
            total = mul(total, add(end, mul(maximum(first, low, e.ranges), -1)))
        else:
            # Places first + i·step with low ≤ place < high: two ceilings apart.
            end = minimum(kernel, -((first - high) // step), e.ranges)  # type: ignore[operator]
            begin = maximum(0, -((first - low) // step), e.ranges)  # type: ignore[operator]
            total = mul(total, add(end, mul(begin, -1)))
    if isinstance(total, int):
        return e.s.like(total, like)
    return e.s.cast(e.expr(total), element(like))


@lowers("lrn")
def lower_lrn(group: Group) -> Made:
    """A window over channels: Σ of squares, then the quotient as the epilogue (Krizhevsky et al., 2012, §3.3)."""
    op = cast(Lrn, group.anchor)
    x = tensor_type(op.x)
    axis = 1 if op.dims == "nchw" else x.rank - 1
    index = tuple(Sym(f"d{i}") for i in range(x.rank))
    domain = Domain(tuple((f"d{i}", e) for i, e in enumerate(x.shape)), (("j", op.size),))
    window = list[Dim](index)
    window[axis] = add(add(index[axis], Sym("j")), -((op.size - 1) // 2))
    acc = accumulator(x.dtype)
    accesses = Accesses()
    s = Scalarizer(domain, group.outer, accesses)
    if s.is_input(op.x):
        scalar = s.load(op.x, IndexMap(tuple(window), 0.0))
    else:
        inside = s.inside(window, x.shape)
        scalar = s.value(op.x, tuple(window), guarded=True)
        scalar = scalar if inside is None else s.s.select(inside, scalar, s.s.like(0, scalar))
    body = s.region([s.s.mul(scalar, scalar)], [acc])

    def result(e: Scalarizer) -> Value:
        value = e.leading[0]
        base = e.s.add(e.s.mul(value, e.s.like(op.alpha / op.size, value)), e.s.like(op.bias, value))
        me = e.s.cast(e.value(op.x, index), acc)
        scaled = e.s.div(me, e.s.fn(math.Pow, base, e.s.like(op.beta, base)))
        return e.s.cast(scaled, compute_dtype(x.dtype))

    return _finish_reduce(group, Pool, domain, accesses, body, ["sum"], acc, result, op.y, index)


Stage = Callable[[Scalars, Value, Sequence[Value]], Value]


def _lower_rows(
    group: Group, axes: Sequence[int], combine: Sequence[str], stages: Sequence[Stage],
    last: Callable[[Scalarizer, Value, Sequence[Value], Index], Value], split: tuple[int, int] | None = None,
) -> Made:  # fmt: skip
    """Rows along `axes` of the anchor's first operand: each stage makes a value from the element and the statistics
    so far; `last` makes the result. `split` (axis, groups): only the place within a group of that axis is in the row.
    """
    op = cast(GraphOp, group.anchor)
    x = tensor_type(op.operands[0])
    index: Index = tuple(0 if d == 1 else Sym(f"d{i}") for i, d in enumerate(x.shape))
    parallel = tuple((f"d{i}", d) for i, d in enumerate(x.shape) if i not in axes and d != 1)
    along = tuple((f"d{i}", d) for i, d in enumerate(x.shape) if i in axes and d != 1)
    if split is not None and split[1] > 1:
        axis, groups = split
        size = floordiv(x.shape[axis], groups)
        parallel = (*parallel, (f"d{axis}g", groups))
        along = tuple((n, size if n == f"d{axis}" else d) for n, d in along if n != f"d{axis}" or size != 1)
        place = 0 if size == 1 else Sym(f"d{axis}")
        index = tuple(add(mul(Sym(f"d{axis}g"), size), place) if i == axis else e for i, e in enumerate(index))
    domain = Domain(parallel or (("one", 1),), along or (("r", 1),))
    acc = accumulator(x.dtype)
    accesses = Accesses()

    def run(fixed: bool) -> tuple[list[Region], list[Index]]:
        regions: list[Region] = []
        for i, stage in enumerate(stages):
            s = _stage(domain, group, accesses, i, acc, fixed)
            element_value = s.s.cast(s.value(op.operands[0], index), acc)
            value = stage(s.s, element_value, _statistics(s, i, fixed))
            regions.append(s.region([value], [acc]))
        n = len(stages)
        s = _stage(domain, group, accesses, n, acc, fixed)
        me = s.s.cast(s.value(op.operands[0], index), acc)
        value = s.s.cast(last(s, me, _statistics(s, n, fixed), index), compute_dtype(x.dtype))
        values, places = group.epilogue(s, [(op.results[0], value, index)])
        regions.append(s.region(values, group.output_dtypes))
        return regions, places

    run(False)
    regions, places = run(True)
    return group.finish(
        domain,
        [accesses],
        places,
        lambda fields, maps, out_maps, types: Rows(
            *fields, domain=domain, maps=maps, out_maps=out_maps, combine=tuple(combine), acc=acc,
            regions=regions, result_types=types,
        ),
    )  # fmt: skip


def _stage(domain: Domain, group: Group, accesses: Accesses, count: int, acc: DType, fixed: bool) -> Scalarizer:
    """A scalarizer of a region of rows: operands first, then `count` statistics. The first run only finds operands,
    so there the statistics stand first."""
    if not fixed:
        return Scalarizer(domain, group.outer, accesses, [ScalarType(acc)] * count)
    s = Scalarizer(domain, group.outer, accesses, fixed=True)
    for _ in range(count):
        s.block.add_arg(ScalarType(acc))
    return s


def _statistics(s: Scalarizer, count: int, fixed: bool) -> Sequence[Value]:
    return s.block.args[-count:] if fixed and count else s.leading[:count]


@lowers("softmax", "log_softmax")
def lower_softmax(group: Group) -> Made:
    op = cast("Softmax | LogSoftmax", group.anchor)
    logarithm = isinstance(op, LogSoftmax)

    def shifted(s: Scalars, x: Value, stats: Sequence[Value]) -> Value:
        return s.sub(x, stats[0])

    def last(e: Scalarizer, x: Value, stats: Sequence[Value], index: Index) -> Value:
        d = shifted(e.s, x, stats)
        if logarithm:
            return e.s.sub(d, e.s.fn(math.Log, stats[1]))
        return e.s.div(e.s.fn(math.Exp, d), stats[1])

    return _lower_rows(
        group,
        [op.axis],
        ["max", "sum"],
        [lambda s, x, stats: x, lambda s, x, stats: s.fn(math.Exp, shifted(s, x, stats))],
        last,
    )


def _moments(count: Dim, epsilon: float) -> tuple[list[Stage], Callable[[Scalars, Value, Sequence[Value]], Value]]:
    def centred(s: Scalars, x: Value, stats: Sequence[Value]) -> Value:
        return s.sub(x, s.div(stats[0], s.count(count, x)))

    def square(s: Scalars, x: Value, stats: Sequence[Value]) -> Value:
        d = centred(s, x, stats)
        return s.mul(d, d)

    def normal(s: Scalars, x: Value, stats: Sequence[Value]) -> Value:
        variance = s.add(s.div(stats[1], s.count(count, x)), s.like(epsilon, x))
        return s.mul(centred(s, x, stats), s.fn(math.Rsqrt, variance))

    return [lambda s, x, stats: x, square], normal


def _affine(e: Scalarizer, value: Value, scale: Value | None, bias: Value | None, index: Index) -> Value:
    if scale is not None:
        factor = e.value(scale, broadcast_index(index, tensor_type(scale).shape, e.ranges))
        value = e.s.mul(value, e.s.cast(factor, element(value)))
    if bias is not None:
        addend = e.value(bias, broadcast_index(index, tensor_type(bias).shape, e.ranges))
        value = e.s.add(value, e.s.cast(addend, element(value)))
    return value


@lowers("layer_norm")
def lower_layer_norm(group: Group) -> Made:
    """Two passes over the row, so the variance does not cancel (Ba et al., 2016)."""
    op = cast(LayerNorm, group.anchor)
    x = tensor_type(op.x)
    axes = list(range(op.axis, x.rank))
    count = product(x.shape[i] for i in axes)
    stages, normal = _moments(count, op.epsilon)

    def last(e: Scalarizer, v: Value, stats: Sequence[Value], index: Index) -> Value:
        return _affine(e, normal(e.s, v, stats), op.scale, op.bias, index)

    return _lower_rows(group, axes, ["sum", "sum"], stages, last)


@lowers("rms_norm")
def lower_rms_norm(group: Group) -> Made:
    """Zhang & Sennrich, 2019."""
    op = cast(RmsNorm, group.anchor)
    x = tensor_type(op.x)
    axes = list(range(op.axis, x.rank))
    count = product(x.shape[i] for i in axes)

    def last(e: Scalarizer, v: Value, stats: Sequence[Value], index: Index) -> Value:
        mean = e.s.add(e.s.div(stats[0], e.s.count(count, v)), e.s.like(op.epsilon, v))
        return _affine(e, e.s.mul(v, e.s.fn(math.Rsqrt, mean)), op.scale, None, index)

    return _lower_rows(group, axes, ["sum"], [lambda s, v, stats: s.mul(v, v)], last)


@lowers("group_norm")
def lower_group_norm(group: Group) -> Made:
    """Wu & He, 2018. A row is one group: channel c is dim `d<axis>g` (which group) times its size plus `d<axis>`."""
    op = cast(GroupNorm, group.anchor)
    x = tensor_type(op.x)
    axis = 1 if op.dims == "nchw" else x.rank - 1
    axes = list(range(1, x.rank))
    count = floordiv(product(x.shape[i] for i in axes), op.groups)
    stages, normal = _moments(count, op.epsilon)

    def last(e: Scalarizer, v: Value, stats: Sequence[Value], index: Index) -> Value:
        value = normal(e.s, v, stats)
        for param, f in ((op.scale, arith.Mul), (op.bias, arith.Add)):
            if param is not None:
                value = e.s.fn(f, value, e.s.cast(e.value(param, (index[axis],)), element(value)))
        return value

    return _lower_rows(group, axes, ["sum", "sum"], stages, last, (axis, op.groups))
