# SPDX-License-Identifier: Apache-2.0
"""ONNX control flow as regions."""

from __future__ import annotations

import onnx

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import hosted, leaves, rebuilt, same_form
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.expr import Dim
from tcc.ir.types import BOOL, I64, TensorType, Type, joined_element, on_host


@onnx_op("If")
def conditional(n: Node) -> list[Value]:
    """A known condition imports its branch in place; otherwise both become regions."""
    condition = n.input(0)
    known = n.known(condition)
    if known is not None:
        if known.size != 1:
            raise InputError(f"its condition has {known.size} elements, and one is needed")
        return n.importer.subgraph(n.attr("then_branch" if bool(known.reshape(-1)[0]) else "else_branch"), {})
    blocks: list[Block] = []
    given: list[list[Value]] = []
    for name in ("then_branch", "else_branch"):
        blocks.append(Block())
        with n.builder.into(blocks[-1]):
            given.append(n.importer.subgraph(n.attr(name), {}))
    if len(given[0]) != len(given[1]):
        raise InputError(f"its branches give {len(given[0])} and {len(given[1])} values")
    # Sequences of one form in both branches stay resolved: each of their tensors is chosen alone.
    alike = [same_form(a, b) for a, b in zip(*given, strict=True)]
    regions: list[Region] = []
    for block, values in zip(blocks, given, strict=True):
        with n.builder.into(block):
            flat = [x for v, same in zip(values, alike, strict=True) for x in _given(n, v, same)]
        block.append(graph.Yield(flat))
        regions.append(Region(block))
    try:
        op = graph.If(condition, regions=regions, loc=n.builder.loc)
    except InputError as e:
        # Exporters guard squeezes so; with the dims bound the condition is known, and one branch remains.
        way_out = "; bind the dims that its condition depends on" if n.importer.names.used else ""
        raise InputError(f"{e}{way_out}") from e
    chosen: list[Value] = list(n.builder.block.append(op).results)
    return [rebuilt(v, chosen) if same else chosen.pop(0) for v, same in zip(given[0], alike, strict=True)]


def _given(n: Node, value: Value, resolved: bool) -> list[Value]:
    return leaves(value) if resolved else [hosted(n.importer, value)]


_UNROLL_TRIPS = 128
_UNROLL_NODES = 4096


@onnx_op("Loop")
def loop(n: Node) -> list[Value]:
    """A short loop of known length is unrolled; otherwise the body becomes a region, and carried values whose extents
    change in it get fresh symbols for those extents."""
    carried = [n.input(i) for i in range(2, len(n.values))]
    body = n.attr("body")
    if len(body.input) != len(carried) + 2:
        raise InputError(f"its body takes {len(body.input)} values and {len(carried) + 2} are given")
    unrolled = _unroll(n, body, carried)
    return _region(n, body, carried) if unrolled is None else unrolled


def _unroll(n: Node, body: onnx.GraphProto, carried: list[Value]) -> list[Value] | None:
    """The results of a loop whose every iteration is known to run; None if that cannot be told or it is long."""
    trip, going = n.known(n.optional(0)), n.optional(1)
    if trip is None:
        return None
    trips = max(0, int(trip.reshape(-1)[0]))
    if trips > _UNROLL_TRIPS or trips * len(body.node) > _UNROLL_NODES:
        return None
    mark = n.builder.block.last
    condition = going if going is not None else n.constant(True)
    scanned: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    for i in range(trips):
        known = n.known(condition)
        if known is None:
            _undo(n, mark)
            return None
        if not known.reshape(-1)[0]:
            break
        arguments = [n.constant(i, I64), condition, *carried]
        values = n.importer.subgraph(body, dict(zip((x.name for x in body.input), arguments, strict=True)))
        condition, carried = values[0], values[1 : 1 + len(carried)]
        for row, value in zip(scanned, values[1 + len(carried) :], strict=True):
            row.append(value)
    if any(not row for row in scanned):
        # Nothing ran, so the type of what would be stacked is not known: leave it to the region form.
        _undo(n, mark)
        return None
    return [*carried, *(stack(n, row) for row in scanned)]


def stack(n: Node, values: list[Value]) -> Value:
    """Values of one type along a new first dim."""
    rows = [n.reshape(v, (1, *n.shape(v))) for v in values]
    return rows[0] if len(rows) == 1 else n.op(graph.Concat, rows, axis=0)


def _undo(n: Node, mark: Op | None) -> None:
    """Erase what was appended to the block after `mark`."""
    block = n.builder.block
    while block.last is not None and block.last is not mark:
        block.last.erase()


def _region(n: Node, body: onnx.GraphProto, carried: list[Value]) -> list[Value]:
    trip, condition = n.optional(0), n.optional(1)
    carried = [hosted(n.importer, v) for v in carried]
    types = [v.type if on_host(v.type) and not isinstance(v.type, TensorType) else n.type(v) for v in carried]
    for _ in range(4):
        block = Block([graph.dense((), I64), graph.dense((), BOOL), *types])
        with n.builder.into(block):
            arguments = dict(zip((i.name for i in body.input), block.args, strict=True))
            values = [hosted(n.importer, v) for v in n.importer.subgraph(body, arguments)]
        block.append(graph.Yield(values))
        after = [v.type for v in values[1 : 1 + len(carried)]]
        joined = [_joined(n, a, b) for a, b in zip(types, after, strict=True)]
        if joined == types:
            op = graph.Loop(trip, condition, carried, regions=[Region(block)], loc=n.builder.loc)
            return list(n.builder.block.append(op).results)
        types = joined
        _drop(block)
    raise InputError("the extents of its carried values do not settle")


def _joined(n: Node, before: Type, after: Type) -> Type:
    if not isinstance(before, TensorType) or not isinstance(after, TensorType):
        either = joined_element(before, after)
        if either is None:
            raise InputError(f"its body turns a carried {before} into {after}")
        return either
    if before.dtype != after.dtype or before.rank != after.rank:
        raise InputError(f"its body turns a carried {before} into {after}")
    # A symbol made for this loop already stands for "any extent".
    shape: list[Dim] = [
        a if a == b or str(a).startswith("loop_") else n.importer.names.fresh(f"loop_{n.loc}")
        for a, b in zip(before.shape, after.shape, strict=True)
    ]
    return graph.dense(shape, before.dtype)


def _drop(block: Block) -> None:
    for op in list(block.ops):
        for inner in op.walk():
            inner.drop_operands()


@onnx_op("Scan")
def scan(n: Node) -> list[Value]:
    """A loop over slices of the scanned inputs; states are carried, and the scanned outputs stacked. Opset 9 on."""
    if n.opset < 9:
        raise InputError("its opset is 8, where Scan has a batch dim; convert the model to opset 9 or later")
    body: onnx.GraphProto = n.attr("body")
    inputs = n.attr("num_scan_inputs")
    states = [n.input(i) for i in range(len(n.values) - inputs)]
    scanned = [n.input(i) for i in range(len(n.values) - inputs, len(n.values))]
    outputs = len(body.output) - len(states)
    axes = [n.axis(a, n.rank(x)) for a, x in zip(n.attr("scan_input_axes", [0] * inputs), scanned, strict=True)]
    backward = n.attr("scan_input_directions", [0] * inputs)
    extents = {str(n.shape(x)[a]): n.shape(x)[a] for a, x in zip(axes, scanned, strict=True)}
    trips = next(iter(extents.values()), None)
    if len(extents) != 1 or not isinstance(trips, int):
        raise InputError(f"its scanned inputs have the extents {', '.join(extents)}, and one known number is needed")
    if trips * len(body.node) > _UNROLL_NODES or trips == 0:
        raise InputError(f"it runs {trips} times, and tcc unrolls up to {_UNROLL_NODES} nodes")
    rows: list[list[Value]] = [[] for _ in range(outputs)]
    for i in range(trips):
        slices = [
            _at(n, x, a, trips - 1 - i if back else i) for x, a, back in zip(scanned, axes, backward, strict=True)
        ]
        arguments = dict(zip((x.name for x in body.input), [*states, *slices], strict=True))
        values = n.importer.subgraph(body, arguments)
        states = values[: len(states)]
        for row, value in zip(rows, values[len(states) :], strict=True):
            row.append(value)
    out_axes = n.attr("scan_output_axes", [0] * outputs)
    flipped = n.attr("scan_output_directions", [0] * outputs)
    stacked: list[Value] = []
    for row, axis, back in zip(rows, out_axes, flipped, strict=True):
        value = stack(n, row[::-1] if back else row)
        rank = n.rank(value)
        at = n.axis(axis, rank)
        perm = list(range(1, rank))
        perm.insert(at, 0)
        stacked.append(n.transpose(value, perm))
    return [*states, *stacked]


def _at(n: Node, x: Value, axis: int, index: int) -> Value:
    """x at an index of an axis, which goes."""
    shape = n.shape(x)
    starts = tuple(index if i == axis else 0 for i in range(len(shape)))
    sizes = tuple(1 if i == axis else d for i, d in enumerate(shape))
    row = n.op(graph.Slice, x, starts=starts, sizes=sizes, steps=(1,) * len(shape))
    return n.reshape(row, [d for i, d in enumerate(shape) if i != axis])
