# SPDX-License-Identifier: Apache-2.0
"""ONNX sequences: resolved while importing where length and positions are known, calls of the host elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from tcc.compiler.frontend.loops import drop, repeat
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.movement import slice_op
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import (
    REASONS,
    StaticSequence,
    element_type_of,
    fresh_item,
    host_value,
    hosted,
    items_of,
)
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Value
from tcc.ir.expr import Dim
from tcc.ir.types import ANY_EXTENT, F32, I64, ScalarType, SequenceType, TensorType, Type, as_element


def _position(n: Node, index: int, length: int, what: str = "position") -> int:
    """A constant operand as an index in [0, length)."""
    at = n.ints(index, what)[0]
    if not -length <= at < length:
        raise InputError(f"its {what} {at} is outside a sequence of {length}")
    return at % length


def _is_known(n: Node, index: int) -> bool:
    """Whether an operand is absent or known."""
    value = n.optional(index)
    return value is None or n.known(value) is not None


def _on_host(n: Node, function: str, result: Type, *operands: Value | None, **attributes: Any) -> Value:
    given = [None if v is None else hosted(n.importer, v) for v in operands]
    return host_value(n.importer, function, given, result, REASONS["sequence"], **attributes)


def _element(value: Value) -> Type:
    """The item type of a sequence."""
    assert isinstance(value.type, SequenceType)
    return value.type.element


@onnx_op("SequenceConstruct")
def sequence_construct(n: Node) -> Value:
    return StaticSequence(n.inputs)


@onnx_op("SequenceEmpty")
def sequence_empty(n: Node) -> Value:
    dtype = element_type(n.attr("dtype"), "its element") if n.has("dtype") else F32
    return StaticSequence((), ScalarType(dtype))


@onnx_op("SequenceLength")
def sequence_length(n: Node) -> Value:
    items = items_of(n.input(0))
    if items is not None:
        return n.constant(len(items), I64)
    return _on_host(n, "sequence_length", graph.dense((), I64), n.input(0))


@onnx_op("SequenceAt")
def sequence_at(n: Node) -> Value:
    """The item; at a position that data decide among items of one type, a gather from all of them."""
    sequence = n.input(0)
    items = items_of(sequence)
    if items is not None and _is_known(n, 1):
        return items[_position(n, 1, len(items))]
    if items and all(v.type == items[0].type and isinstance(v.type, TensorType) for v in items):
        rows = [n.reshape(v, (1, *n.shape(v))) for v in items]
        rows = rows if len(rows) == 1 else [n.op(graph.Concat, rows, axis=0)]
        return n.op(graph.Gather, rows[0], n.reshape(n.input(1), ()), axis=0)
    return _on_host(n, "sequence_at", fresh_item(n, _element(sequence)), sequence, n.input(1))


@onnx_op("SequenceInsert")
def sequence_insert(n: Node) -> Value:
    sequence, item = n.input(0), n.input(1)
    known = items_of(sequence)
    if known is None or not _is_known(n, 2):
        element = _element(sequence)
        if known != ():
            element = element_type_of([element, item.type])
        return _on_host(n, "sequence_insert", SequenceType(element), sequence, item, n.optional(2))
    items = list(known)
    at = _position(n, 2, len(items) + 1) if n.optional(2) is not None else len(items)
    # A negative position counts from the end of the sequence before the insertion.
    if n.optional(2) is not None and n.ints(2, "position")[0] < 0:
        at = _position(n, 2, len(items))
    items.insert(at, item)
    return StaticSequence(items)


@onnx_op("SequenceErase")
def sequence_erase(n: Node) -> Value:
    sequence = n.input(0)
    known = items_of(sequence)
    if known is None or not _is_known(n, 1):
        return _on_host(n, "sequence_erase", SequenceType(_element(sequence)), sequence, n.optional(1))
    items = list(known)
    if not items:
        raise InputError("its sequence is empty")
    del items[_position(n, 1, len(items)) if n.optional(1) is not None else -1]
    return StaticSequence(items, _element(sequence))


@onnx_op("ConcatFromSequence")
def concat_from_sequence(n: Node) -> Value:
    """The items along an axis: an existing one, or with new_axis one of its own."""
    known = items_of(n.input(0))
    fresh = n.flag("new_axis")
    if known is None:
        item = fresh_item(n, _element(n.input(0)))
        assert isinstance(item, TensorType)
        shape: list[Dim] = list(item.shape)
        axis = n.axis(n.attr("axis"), item.rank + int(fresh))
        joined: Dim = n.importer.names.fresh(f"{n.loc}_joined")
        shape[axis : axis if fresh else axis + 1] = [joined]
        result = graph.dense(shape, item.dtype)
        return _on_host(n, "concat_from_sequence", result, n.input(0), axis=axis, new_axis=int(fresh))
    items = list(known)
    if not items:
        raise InputError("its sequence is empty")
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
    keep = split is not None or n.flag("keepdims", True)
    piece_shape: list[Dim] = [ANY_EXTENT if i == axis else d for i, d in enumerate(shape) if keep or i != axis]
    sizes: list[Dim]
    if not _is_known(n, 1) or (not isinstance(extent, int) and (split is None or n.rank(split) == 0)):
        element = SequenceType(graph.dense(piece_shape, n.dtype(x)))
        return _on_host(n, "split_to_sequence", element, x, split, axis=axis, keepdims=int(keep))
    if split is not None and n.rank(split) > 0:
        sizes = n.dims(1, "split")
    else:
        assert isinstance(extent, int)
        step = n.ints(1, "split")[0] if split is not None else 1
        if step < 1:
            raise InputError(f"its split is {step}")
        sizes = [min(step, extent - at) for at in range(0, extent, step)]
    total: Dim = 0
    pieces: list[Value] = []
    for size in sizes:
        starts: list[Dim] = [total if i == axis else 0 for i in range(len(shape))]
        piece = slice_op(n, x, starts, [size if i == axis else d for i, d in enumerate(shape)], [1] * len(shape))
        if not keep:
            piece = n.reshape(piece, [d for i, d in enumerate(shape) if i != axis])
        pieces.append(piece)
        total = total + size
    if isinstance(total, int) and isinstance(extent, int) and total != extent:
        raise InputError(f"its split {[str(s) for s in sizes]} does not cover {extent}")
    return StaticSequence(pieces, graph.dense(piece_shape, n.dtype(x)))


@onnx_op("SequenceMap")
def sequence_map(n: Node) -> list[Value]:
    """The body on every item: item by item where their number is known, else a loop on the host over compiled parts."""
    body: onnx.GraphProto = n.attr("body")
    names = [x.name for x in body.input]
    if len(names) != len(n.values):
        raise InputError(f"its body takes {len(names)} values and {len(n.values)} are given")
    walked = [isinstance(v.type, SequenceType) for v in n.inputs]
    lists = [items_of(v) for v, each in zip(n.inputs, walked, strict=True) if each]
    if not walked[0]:
        raise InputError(f"its first input is {n.input(0).type}, and a sequence is needed")
    if all(items is not None for items in lists):
        lengths = {len(items) for items in lists if items is not None}
        if len(lengths) != 1:
            raise InputError(f"its sequences have the lengths {', '.join(map(str, sorted(lengths)))}")
        rows: list[list[Value]] = []
        for i in range(lengths.pop()):
            column = iter(lists)
            arguments = [(next(column) or ())[i] if each else v for v, each in zip(n.inputs, walked, strict=True)]
            rows.append(n.importer.subgraph(body, dict(zip(names, arguments, strict=True))))
        return [StaticSequence([row[k] for row in rows]) for k in range(len(body.output))]
    given = [hosted(n.importer, v) for v in n.inputs]

    def mapped(i: Value) -> list[Value]:
        arguments = [
            _on_host(n, "sequence_at", fresh_item(n, _element(v)), v, i) if each else v
            for v, each in zip(given, walked, strict=True)
        ]
        return n.importer.subgraph(body, dict(zip(names, arguments, strict=True)))

    probe = Block()
    with n.builder.into(probe):
        types = [SequenceType(as_element(v.type)) for v in mapped(n.constant(0, I64))]
    drop(probe)

    def step(i: Value, going: Value, carried: Sequence[Value]) -> list[Value]:
        return [going, *(_on_host(n, "sequence_insert", c.type, c, v) for c, v in zip(carried, mapped(i), strict=True))]

    length = _on_host(n, "sequence_length", graph.dense((), I64), given[0])
    empty = [_on_host(n, "sequence_empty", t) for t in types]
    return repeat(n, length, None, empty, step, len(body.node))
