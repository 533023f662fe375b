# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that make tensors: constants, shapes, ranges, one-hot codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.run_time import range_length, vector
from tcc.compiler.frontend.symbolic import EXTENTS
from tcc.compiler.frontend.tensors import element_type, sparse_to_array, to_array
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import ceildiv, maximum
from tcc.ir.types import I64

_FILL_LIMIT = 1 << 31


@onnx_op("Constant")
def constant(n: Node) -> Value:
    """One of value, sparse_value, value_int(s), value_float(s), value_string(s)."""
    folder = n.importer.model.folder
    if n.has("value"):
        return n.builder.initialiser(to_array(n.attr("value"), folder, "its value"))
    if n.has("sparse_value"):
        return n.constant(sparse_to_array(n.attr("sparse_value"), folder))
    for name, dtype in (("int", np.int64), ("float", np.float32)):
        if n.has(f"value_{name}"):
            return n.constant(np.array(n.attr(f"value_{name}"), dtype))
        if n.has(f"value_{name}s"):
            return n.constant(np.array(n.attr(f"value_{name}s"), dtype))
    if n.has("value_string"):
        return n.constant(np.array(n.attr("value_string"), object))
    if n.has("value_strings"):
        return n.constant(np.array(n.attr("value_strings"), object))
    raise InputError("it has none of the value attributes")


@onnx_op("Shape")
def shape(n: Node) -> Value:
    """The extents start..end of x, known at once as numbers or expressions."""
    dims = n.shape(n.input(0))
    out = np.empty(len(dims), object)
    out[:] = dims
    end = n.attr("end", None)
    part = out[slice(n.attr("start", 0), end)]
    return n.builder.constant(part if part.size else np.zeros(0, np.int64))


@onnx_op("Size")
def size(n: Node) -> Value:
    out = np.empty((), object)
    out[()] = n.type(n.input(0)).size
    return n.builder.constant(out)


@onnx_op("ConstantOfShape")
def constant_of_shape(n: Node) -> Value:
    fill = (
        to_array(n.attr("value"), n.importer.model.folder, "its value") if n.has("value") else np.zeros(1, np.float32)
    )
    if fill.size != 1:
        raise InputError(f"its value has {fill.size} elements, and one is needed")
    dims = n.dims(0, "shape")
    if any(isinstance(d, int) and d < 0 for d in dims):
        raise InputError(f"its shape {[str(d) for d in dims]} has a negative extent")
    if all(isinstance(d, int) for d in dims):
        extents = tuple(int(str(d)) for d in dims)
        if int(np.prod(extents, dtype=object)) > _FILL_LIMIT:
            raise InputError(f"its shape {list(extents)} is too large for a constant")
        return n.constant(np.full(extents, fill.reshape(-1)[0], fill.dtype))
    return n.op(graph.Expand, n.constant(fill.reshape(())), shape=tuple(dims))


@onnx_op("Range")
def value_range(n: Node) -> Value:
    """Known bounds fold; otherwise the numbers are computed from their places, of which the bounds say how many."""
    from tcc import reference

    known = [n.known(n.input(i)) for i in range(3)]
    if all(k is not None for k in known):
        _count(n, known)
        return n.constant(reference.range(*(k.reshape(()) for k in known if k is not None)))
    dtype = n.dtype(n.input(0))
    counted = _count(n, [n.content(n.input(i)) for i in range(3)])
    if counted is not None:
        # Their values decide the length alone: the numbers are computed from the inputs of each call.
        first, step = (n.reshape(n.input(i), ()) for i in (0, 2))
        places = n.constant(np.arange(counted).astype(dtype.numpy))
        return n.op(graph.Add, n.op(graph.Mul, places, step), first)
    if n.is_computed(0, 1, 2) or not _counts_up(known[0], known[2], dtype.is_int):
        start, limit, delta = (n.reshape(n.input(i), ()) for i in range(3))
        places = n.cast(n.op(graph.Iota, size=(range_length(n, start, limit, delta),)), dtype)
        return n.op(graph.Add, n.op(graph.Mul, places, delta), start)
    start, limit, delta = (n.dims(i, what)[0] for i, what in enumerate(("start", "limit", "delta")))
    assert isinstance(delta, int)
    length = maximum(ceildiv(limit - start, delta), 0, EXTENTS)
    offsets = n.cast(n.op(graph.Iota, size=(length,)), dtype)
    offsets = offsets if delta == 1 else n.op(graph.Mul, offsets, n.constant(delta, dtype))
    first = n.cast(n.reshape(n.input(0), ()), dtype)
    return offsets if start == 0 else n.op(graph.Add, offsets, first)


def _counts_up(start: Array | None, delta: Array | None, whole: bool) -> bool:
    """Whether a range goes from whole number to whole number, or (`whole`) has no others, by a known positive step."""
    if delta is None or not delta.item() > 0:
        return False
    return whole or (start is not None and float(start.item()).is_integer() and float(delta.item()).is_integer())


def _count(n: Node, bounds: Sequence[Array | None]) -> int | None:
    """How many values a range has; None if a bound is not known."""
    found = [b for b in bounds if b is not None]
    if len(found) < len(bounds):
        return None
    if any(b.size != 1 for b in found):
        raise InputError("its start, limit and delta must be single numbers")
    start, limit, delta = (b.reshape(()).item() for b in found)
    if delta == 0:
        raise InputError("its step is 0")
    count = max(math.ceil((limit - start) / delta), 0) if np.isfinite([start, limit, delta]).all() else _FILL_LIMIT + 1
    if count > _FILL_LIMIT:
        raise InputError(f"its {limit - start:g} / {delta:g} values are too many")
    return count


@onnx_op("EyeLike")
def eye_like(n: Node) -> Value:
    x = n.input(0)
    if n.rank(x) != 2:
        raise InputError(f"x is {n.type(x)}, and a matrix is needed")
    dtype = element_type(n.attr("dtype"), "its result") if n.has("dtype") else n.dtype(x)
    rows, columns = (d if isinstance(d, int) else -1 for d in n.shape(x))
    if min(rows, columns) < 0:
        raise InputError(f"x is {n.type(x)}, and its free dims must be bound")
    return n.constant(np.eye(rows, columns, n.attr("k", 0)).astype(dtype.numpy))


@onnx_op("OneHot")
def one_hot(n: Node) -> Value:
    """values[1] where the new dim equals the index (negative ones count from the end), values[0] elsewhere."""
    indices, values = n.input(0), n.input(2)
    (depth,) = n.dims(1, "depth")
    rank = n.rank(indices)
    axis = n.axis(n.attr("axis", -1), rank + 1)
    at = n.cast(indices, I64)
    wrapped = n.op(graph.Where, n.op(graph.Less, at, n.constant(0, I64)), n.op(graph.Add, at, vector(n, [depth])), at)
    shape = n.shape(indices)
    column = n.reshape(wrapped, (*shape[:axis], 1, *shape[axis:]))
    counted = n.constant(np.arange(depth)) if isinstance(depth, int) else n.op(graph.Iota, size=(depth,))
    places = n.reshape(counted, (depth, *[1] * (rank - axis)))
    hit = n.op(graph.Equal, column, places)

    def part(i: int) -> Value:
        return n.reshape(n.op(graph.Slice, values, starts=(i,), sizes=(1,), steps=(1,)), ())

    return n.op(graph.Where, hit, part(1), part(0))
