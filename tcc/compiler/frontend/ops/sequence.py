# SPDX-License-Identifier: Apache-2.0
"""ONNX sequences of known length, resolved while importing."""

from __future__ import annotations

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.movement import slice_op
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import StaticSequence, items_of
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import F32, I64


def _position(n: Node, index: int, length: int, what: str = "position") -> int:
    """A constant operand as an index in [0, length)."""
    at = n.ints(index, what)[0]
    if not -length <= at < length:
        raise InputError(f"its {what} {at} is outside a sequence of {length}")
    return at % length


@onnx_op("SequenceConstruct")
def sequence_construct(n: Node) -> Value:
    return StaticSequence(n.inputs)


@onnx_op("SequenceEmpty")
def sequence_empty(n: Node) -> Value:
    dtype = element_type(n.attr("dtype"), "its element") if n.has("dtype") else F32
    return StaticSequence((), graph.dense((), dtype))


@onnx_op("SequenceLength")
def sequence_length(n: Node) -> Value:
    return n.constant(len(items_of(n.input(0))), I64)


@onnx_op("SequenceAt")
def sequence_at(n: Node) -> Value:
    items = items_of(n.input(0))
    return items[_position(n, 1, len(items))]


@onnx_op("SequenceInsert")
def sequence_insert(n: Node) -> Value:
    items = list(items_of(n.input(0)))
    at = _position(n, 2, len(items) + 1) if n.optional(2) is not None else len(items)
    # A negative position counts from the end of the sequence before the insertion.
    if n.optional(2) is not None and n.ints(2, "position")[0] < 0:
        at = _position(n, 2, len(items))
    items.insert(at, n.input(1))
    return StaticSequence(items)


@onnx_op("SequenceErase")
def sequence_erase(n: Node) -> Value:
    items = list(items_of(n.input(0)))
    del items[_position(n, 1, len(items)) if n.optional(1) is not None else -1]
    return StaticSequence(items, n.input(0).type.element if not items else None)  # type: ignore[attr-defined]


@onnx_op("ConcatFromSequence")
def concat_from_sequence(n: Node) -> Value:
    """The items along an axis: an existing one, or with new_axis one of its own."""
    items = list(items_of(n.input(0)))
    if not items:
        raise InputError("its sequence is empty")
    fresh = n.flag("new_axis")
    rank = n.rank(items[0]) + int(fresh)
    axis = n.axis(n.attr("axis"), rank)
    if fresh:
        items = [n.reshape(v, (*n.shape(v)[:axis], 1, *n.shape(v)[axis:])) for v in items]
    return items[0] if len(items) == 1 else n.op(graph.Concat, items, axis=axis)


@onnx_op("SplitToSequence")
def split_to_sequence(n: Node) -> Value:
    """Pieces of the given lengths along an axis; of one each, without that dim unless keepdims, if none are given."""
    x = n.input(0)
    shape = n.shape(x)
    axis = n.axis(n.attr("axis", 0), len(shape))
    extent = shape[axis]
    split = n.optional(1)
    sizes: list[Dim]
    if split is not None and n.rank(split) > 0:
        sizes = n.dims(1, "split")
    elif not isinstance(extent, int):
        raise InputError(f"its axis has the free dim {extent}, which must be bound")
    else:
        step = n.ints(1, "split")[0] if split is not None else 1
        if step < 1:
            raise InputError(f"its split is {step}")
        sizes = [min(step, extent - at) for at in range(0, extent, step)]
    total: Dim = 0
    pieces: list[Value] = []
    for size in sizes:
        starts: list[Dim] = [total if i == axis else 0 for i in range(len(shape))]
        piece = slice_op(n, x, starts, [size if i == axis else d for i, d in enumerate(shape)], [1] * len(shape))
        if split is None and not n.flag("keepdims", True):
            piece = n.reshape(piece, [d for i, d in enumerate(shape) if i != axis])
        pieces.append(piece)
        total = total + size
    if isinstance(total, int) and isinstance(extent, int) and total != extent:
        raise InputError(f"its split {[str(s) for s in sizes]} does not cover {extent}")
    return StaticSequence(pieces, graph.dense(shape, n.dtype(x)))


@onnx_op("OptionalHasElement")
def optional_has_element(n: Node) -> Value:
    """Whether there is an operand at all: an optional that may be empty at run time is not imported."""
    return n.constant(n.optional(0) is not None)


@onnx_op("Optional", "OptionalGetElement")
def optional_element(n: Node) -> Value:
    """The value itself."""
    return n.input(0)
