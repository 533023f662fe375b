# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that move elements: reshapes, slices, concatenation, padding, gathering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.activation import flattened
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.run_time import known_extents, shape_operand, slice_bounds
from tcc.compiler.frontend.symbolic import EXTENTS
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, Expr, ceildiv, floordiv, maximum, minimum, product
from tcc.ir.types import BOOL

_END = (1 << 31) - 1
"""From here on an end means "to the last element", whatever the extent."""


@onnx_op("Reshape")
def reshape(n: Node) -> Value:
    """0 copies the extent at its place (unless allowzero), one -1 takes what is left."""
    x = n.input(0)
    shape = n.shape(x)
    if n.is_computed(1):
        return n.reshape(x, shape_operand(n, n.input(1), shape, n.flag("allowzero")))
    wanted = n.dims(1, "shape")
    out: list[Dim] = []
    for i, d in enumerate(wanted):
        if d == 0 and not n.flag("allowzero"):
            if i >= len(shape):
                raise InputError(f"its shape copies the extent of dim {i}, and x is {n.type(x)}")
            d = shape[i]
        out.append(d)
    holes = [i for i, d in enumerate(out) if d == -1]
    if len(holes) > 1 or any(isinstance(d, int) and d < -1 for d in out):
        raise InputError(f"its shape {[str(d) for d in wanted]} is not one that ONNX allows")
    if holes:
        total, rest = product(shape), product(d for d in out if d != -1)
        if rest == 0:
            raise InputError(f"its shape {[str(d) for d in wanted]} leaves the extent of -1 open")
        if isinstance(total, int) and isinstance(rest, int) and total % rest:
            raise InputError(f"x has {total} elements, which do not reshape to {[str(d) for d in wanted]}")
        out[holes[0]] = floordiv(total, rest)
    return n.op(graph.Reshape, x, shape=tuple(out)) if tuple(out) != shape else x


@onnx_op("Flatten")
def flatten(n: Node) -> Value:
    x = n.input(0)
    rank, axis = n.rank(x), n.attr("axis", 1)
    if not -rank <= axis <= rank:
        raise InputError(f"its axis {axis} is outside [{-rank}, {rank}] of a tensor of rank {rank}")
    return n.reshape(x, flattened(n.shape(x), axis + rank if axis < 0 else axis))


def _axes_operand(n: Node) -> list[int] | None:
    """Axes: an attribute before opset 13, an operand since."""
    if n.optional(1) is not None:
        return n.ints(1, "axes")
    return n.attr("axes", None)


@onnx_op("Squeeze")
def squeeze(n: Node) -> Value:
    x = n.input(0)
    shape, given = n.shape(x), _axes_operand(n)
    axes = n.axes(given, len(shape)) if given is not None else tuple(i for i, d in enumerate(shape) if d == 1)
    for a in axes:
        if isinstance(shape[a], int) and shape[a] != 1:
            raise InputError(f"its axis {a} has the extent {shape[a]}, and only extents of 1 are removed")
    return n.reshape(x, [d for i, d in enumerate(shape) if i not in axes])


@onnx_op("Unsqueeze")
def unsqueeze(n: Node) -> Value:
    x, given = n.input(0), _axes_operand(n)
    if given is None:
        raise InputError("its axes are missing")
    rest = iter(n.shape(x))
    rank = n.rank(x) + len(given)
    axes = n.axes(given, rank)
    return n.reshape(x, [1 if i in axes else next(rest) for i in range(rank)])


@onnx_op("Transpose")
def transpose(n: Node) -> Value:
    x = n.input(0)
    return n.transpose(x, n.attr("perm", list(reversed(range(n.rank(x))))))


@onnx_op("Expand")
def expand(n: Node) -> Value:
    """x broadcast with the given shape, both ways."""
    x, wanted = n.input(0), n.dims(1, "shape")
    return expand_to(n, x, wanted)


def expand_to(n: Node, x: Value, wanted: list[Dim]) -> Value:
    """x broadcast with a shape, both ways; itself if that changes nothing."""
    have = n.shape(x)
    rank = max(len(have), len(wanted))
    out: list[Dim] = []
    for h, w in zip([1] * (rank - len(have)) + list(have), [1] * (rank - len(wanted)) + list(wanted), strict=True):
        if isinstance(w, int) and w < 0:
            raise InputError(f"its shape has the negative extent {w}")
        if h != w and h != 1 and w != 1 and isinstance(h, int) and isinstance(w, int):
            raise InputError(f"x is {n.type(x)}, which does not broadcast to {[str(d) for d in wanted]}")
        out.append(w if h == 1 else h if w == 1 or isinstance(h, int) else w)
    return x if tuple(out) == have else n.op(graph.Expand, x, shape=tuple(out))


@onnx_op("Slice")
def slices(n: Node) -> Value:
    """starts, ends, axes, steps: attributes before opset 10 (without steps), operands since; clamped like numpy."""
    x = n.input(0)
    rank = n.rank(x)
    if n.opset < 10:
        starts, ends, axes = n.attr("starts"), n.attr("ends"), n.attr("axes", None)
        steps = None
    else:
        axes = n.ints(3, "axes") if n.optional(3) is not None else None
        steps = n.ints(4, "steps") if n.optional(4) is not None else None
        if n.is_computed(1, 2):
            return _computed_slice(n, x, axes, steps)
        starts, ends = n.dims(1, "starts"), n.dims(2, "ends")
    axes = [n.axis(a, rank) for a in (range(len(starts)) if axes is None else axes)]
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) != len(axes):
        raise InputError(f"its starts, ends, axes and steps do not fit each other: {axes} of rank {rank}")
    first: list[Dim] = [0] * rank
    sizes: list[Dim] = list(n.shape(x))
    walk = [1] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        first[axis], sizes[axis] = clamped(n.shape(x)[axis], start, end, step)
        walk[axis] = step
    return slice_op(n, x, first, sizes, walk)


def _computed_slice(n: Node, x: Value, given: list[int] | None, steps: list[int] | None) -> Value:
    shape = n.shape(x)
    count = n.type(n.input(1)).size
    if not isinstance(count, int) or n.type(n.input(2)).size != count:
        raise InputError("its starts and ends do not fit each other")
    axes = [n.axis(a, len(shape)) for a in (range(count) if given is None else given)]
    walk = [1] * count if steps is None else steps
    if not len(axes) == len(walk) == count or len(set(axes)) != count or 0 in walk:
        raise InputError(f"its starts, ends, axes and steps do not fit each other: {axes} of rank {len(shape)}")
    first, sizes = slice_bounds(n, [shape[a] for a in axes], n.input(1), n.input(2), walk)

    def spread(values: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        by_axis = dict(zip(axes, values, strict=True))
        return [by_axis.get(i, d) for i, d in enumerate(others)]

    return slice_op(n, x, spread(first, [0] * len(shape)), spread(sizes, shape), spread(walk, [1] * len(shape)))


def clamped(extent: Dim, start: Dim, end: Dim, step: int) -> tuple[Dim, Dim]:
    """(first index, number of elements) of a numpy slice of a dim."""
    if step == 0:
        raise InputError("a step is 0")
    if isinstance(extent, int) and isinstance(start, int) and isinstance(end, int):
        picked = range(extent)[start:end:step]
        return (picked.start if len(picked) else 0), len(picked)
    low: Dim = -1 if step < 0 else 0
    at = _bound(extent, start, low, extent - 1 if step < 0 else extent)
    to = _bound(extent, end, low, extent - 1 if step < 0 else extent)
    if start == -1 and step > 0 and to == extent:
        # The last element: who takes it knows that there is one, and its extent stays a number.
        return at, 1
    size = ceildiv(to - at, step) if step > 0 else ceildiv(at - to, -step)
    if isinstance(size, int) and size <= 0:
        return 0, 0
    return at, maximum(size, 0, EXTENTS)


def _bound(extent: Dim, index: Dim, low: Dim, high: Dim) -> Dim:
    """index, which may count from the end, clamped to [low, high]; a free extent is taken to be large enough."""
    if isinstance(index, int):
        if index >= _END:
            return high
        if index <= -_END:
            return low
        if index < 0:
            return maximum(extent + index, low, EXTENTS)
        return minimum(index, high, EXTENTS)
    if index == extent:
        return high
    return index


def slice_op(n: Node, x: Value, starts: list[Dim], sizes: list[Dim], steps: list[int]) -> Value:
    """graph.slice; x itself if it takes everything."""
    if tuple(sizes) == n.shape(x) and all(s == 0 for s in starts) and all(s == 1 for s in steps):
        return x
    return n.op(graph.Slice, x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


@onnx_op("Split")
def split(n: Node) -> list[Value]:
    """Sizes: an attribute before opset 13, an operand since; or equal parts, the last one smaller since opset 18."""
    x = n.input(0)
    axis = n.axis(n.attr("axis", 0), n.rank(x))
    extent = n.shape(x)[axis]
    parts = len(n.proto.output)
    sizes: list[Dim]
    if n.optional(1) is not None:
        sizes = n.dims(1, "split")
    elif n.has("split"):
        sizes = list(n.attr("split"))
    else:
        count = n.attr("num_outputs", parts)
        if count != parts:
            raise InputError(f"its num_outputs is {count} and it has {parts} outputs")
        each = ceildiv(extent, parts)
        if isinstance(extent, int) and isinstance(each, int):
            if n.opset < 18 and extent % parts:
                raise InputError(f"its dim of {extent} does not split into {parts} equal parts")
            sizes = [max(0, min(each, extent - i * each)) for i in range(parts)]
        else:
            sizes = [each] * (parts - 1) + [extent - each * (parts - 1)]
    total: Dim = 0
    for s in sizes:
        total = total + s
    if len(sizes) != parts or (isinstance(total, int) and isinstance(extent, int) and total != extent):
        raise InputError(f"its split {[str(s) for s in sizes]} does not cover {extent} with {parts} outputs")
    out: list[Value] = []
    at: Dim = 0
    for size in sizes:
        starts: list[Dim] = [0] * n.rank(x)
        extents = list(n.shape(x))
        starts[axis], extents[axis] = at, size
        out.append(slice_op(n, x, starts, extents, [1] * n.rank(x)))
        at = at + size
    return out


@onnx_op("Concat")
def concat(n: Node) -> Value:
    values = n.inputs
    axis = n.axis(n.attr("axis"), n.rank(values[0]))
    return values[0] if len(values) == 1 else n.op(graph.Concat, values, axis=axis)


@onnx_op("Pad")
def pad(n: Node) -> Value:
    """pads and value: attributes before opset 11, operands since, with axes since 18."""
    x = n.input(0)
    rank = n.rank(x)
    mode = n.attr("mode", "constant")
    fill: Value | None = None
    value: Any = 0
    axes = list(range(rank))
    if n.opset < 11:
        pads, value = n.attr("pads"), n.attr("value", 0.0)
    else:
        pads = n.ints(1, "pads")
        fill = n.optional(2)
        if n.optional(3) is not None:
            axes = [n.axis(a, rank) for a in n.ints(3, "axes")]
    if len(pads) != 2 * len(axes):
        raise InputError(f"its pads {pads} do not fit {len(axes)} axes")
    known = n.known(fill)
    if known is not None:
        value, fill = known.reshape(-1)[0].item(), None
    before, after = [0] * rank, [0] * rank
    for i, a in enumerate(axes):
        before[a], after[a] = pads[i], pads[len(axes) + i]
    if not any(before) and not any(after):
        return x
    value = float(value) if n.dtype(x).is_float else int(value)
    if mode != "constant":
        known_extents(n, [d for i, d in enumerate(n.shape(x)) if before[i] or after[i]], "what it repeats")
    if mode == "constant" and fill is not None:
        fill = n.reshape(n.cast(fill, n.dtype(x)), ())
    else:
        fill = None
    return n.op(graph.Pad, x, fill, before=tuple(before), after=tuple(after), mode=mode, value=value)


@onnx_op("Tile")
def tile(n: Node) -> Value:
    x, repeats = n.input(0), n.ints(1, "repeats")
    if all(r == 1 for r in repeats):
        return x
    return n.op(graph.Tile, x, repeats=tuple(repeats))


@onnx_op("Gather")
def gather(n: Node) -> Value:
    x = n.input(0)
    return n.op(graph.Gather, x, n.input(1), axis=n.axis(n.attr("axis", 0), n.rank(x)))


@onnx_op("GatherElements")
def gather_elements(n: Node) -> Value:
    x = n.input(0)
    return n.op(graph.GatherElements, x, n.input(1), axis=n.axis(n.attr("axis", 0), n.rank(x)))


@onnx_op("GatherND")
def gather_nd(n: Node) -> Value:
    return n.op(graph.GatherNd, n.input(0), n.input(1), batch_dims=n.attr("batch_dims", 0))


@onnx_op("ScatterElements", "Scatter")
def scatter_elements(n: Node) -> Value:
    x = n.input(0)
    axis = n.axis(n.attr("axis", 0), n.rank(x))
    return n.op(graph.ScatterElements, x, n.input(1), n.input(2), axis=axis, reduction=n.attr("reduction", "none"))


@onnx_op("ScatterND")
def scatter_nd(n: Node) -> Value:
    return n.op(graph.ScatterNd, n.input(0), n.input(1), n.input(2), reduction=n.attr("reduction", "none"))


def _block(n: Node, x: Value) -> tuple[tuple[Dim, ...], int]:
    if n.rank(x) != 4:
        raise InputError(f"x is {n.type(x)}, and [n, c, h, w] is needed")
    size = n.attr("blocksize")
    if size < 1:
        raise InputError(f"its blocksize is {size}")
    return n.shape(x), size


@onnx_op("DepthToSpace")
def depth_to_space(n: Node) -> Value:
    x = n.input(0)
    (b, c, h, w), s = _block(n, x)
    if isinstance(c, int) and c % (s * s):
        raise InputError(f"its {c} channels do not divide by {s * s}")
    depth = floordiv(c, s * s)
    if n.attr("mode", "DCR") == "DCR":
        y = n.op(graph.Reshape, x, shape=(b, s, s, depth, h, w))
        y = n.transpose(y, (0, 3, 4, 1, 5, 2))
    else:
        y = n.op(graph.Reshape, x, shape=(b, depth, s, s, h, w))
        y = n.transpose(y, (0, 1, 4, 2, 5, 3))
    return n.op(graph.Reshape, y, shape=(b, depth, h * s, w * s))


@onnx_op("SpaceToDepth")
def space_to_depth(n: Node) -> Value:
    x = n.input(0)
    (b, c, h, w), s = _block(n, x)
    for d in (h, w):
        if isinstance(d, int) and d % s:
            raise InputError(f"its extent {d} does not divide by the blocksize {s}")
    rows, columns = floordiv(h, s), floordiv(w, s)
    y = n.op(graph.Reshape, x, shape=(b, c, rows, s, columns, s))
    y = n.transpose(y, (0, 3, 5, 1, 2, 4) if n.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4))
    return n.op(graph.Reshape, y, shape=(b, c * s * s, rows, columns))


@onnx_op("Trilu")
def trilu(n: Node) -> Value:
    x = n.input(0)
    k = n.ints(1, "k") if n.optional(1) is not None else [0]
    if len(k) != 1:
        raise InputError(f"its k has {len(k)} elements, and one is needed")
    return n.op(graph.Trilu, x, k=k[0], part="upper" if n.flag("upper", True) else "lower")


@onnx_op("CenterCropPad")
def center_crop_pad(n: Node) -> Value:
    """Each axis cropped around its centre, or padded with zeros; odd elements go to the end."""
    x, wanted = n.input(0), n.ints(1, "shape")
    rank = n.rank(x)
    axes = [n.axis(a, rank) for a in n.attr("axes", list(range(rank)))]
    if len(axes) != len(wanted):
        raise InputError(f"its shape {wanted} does not fit {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for a, target in zip(axes, wanted, strict=True):
        extent = n.shape(x)[a]
        if isinstance(extent, Expr):
            raise InputError(f"its axis {a} has the free dim {extent}, which must be bound")
        change = target - extent
        before[a] = change // 2 if change >= 0 else -(-change // 2)
        after[a] = change - before[a]
    if not any(before) and not any(after):
        return x
    value = 0.0 if n.dtype(x).is_float else 0
    return n.op(graph.Pad, x, before=tuple(before), after=tuple(after), value=value)


@onnx_op("NonZero")
def non_zero(n: Node) -> Value:
    """Known inputs fold; otherwise the host finds them, and their number is a symbol of its own."""
    import numpy as np

    from tcc.ir.types import I64

    x = n.input(0)
    known = n.known(x)
    if known is not None:
        return n.constant(
            np.stack(np.nonzero(np.atleast_1d(known)[()])).astype(np.int64)
            if known.ndim
            else np.zeros((0, int(bool(known))), np.int64)
        )
    count = n.importer.names.fresh(f"{n.loc}_count")
    return n.op(graph.Host, [x], function="non_zero", given=(1,), types=(graph.dense((n.rank(x), count), I64),))


@onnx_op("Compress")
def compress(n: Node) -> Value:
    """A known condition is a gather; otherwise the host does it, and the number of slices is a symbol of its own."""
    import numpy as np

    x = n.input(0)
    if n.has("axis"):
        axis = n.axis(n.attr("axis"), n.rank(x))
    else:
        x, axis = n.reshape(x, (product(n.shape(x)),)), 0
    condition = n.known(n.input(1))
    if condition is not None:
        return n.op(graph.Gather, x, n.constant(np.flatnonzero(condition).astype(np.int64)), axis=axis)
    if n.dtype(n.input(1)) != BOOL:
        raise InputError(f"its condition is {n.type(n.input(1))}, and bools are needed")
    shape = list(n.shape(x))
    shape[axis] = n.importer.names.fresh(f"{n.loc}_count")
    return n.op(
        graph.Host,
        [x, n.input(1)],
        function="compress",
        attributes={"axis": axis},
        given=(1, 1),
        types=(graph.dense(shape, n.dtype(x)),),
    )
