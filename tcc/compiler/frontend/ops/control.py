# SPDX-License-Identifier: Apache-2.0
"""ONNX If and Loop: resolved while importing where that is known and short, as regions otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tcc.compiler.frontend.loops import drop, repeat
from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import host_values, hosted, leaves, rebuilt, same_form
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Region, Value
from tcc.ir.expr import Dim
from tcc.ir.types import I64, TensorType, Type

BRANCHES = ("then_branch", "else_branch")


@onnx_op("If")
def conditional(n: Node) -> list[Value]:
    """A known condition imports its branch in place; otherwise both become regions."""
    condition = n.input(0)
    known = n.known(condition)
    if known is not None:
        return _taken(n, known)
    blocks: list[Block] = []
    tried: list[list[Value] | InputError] = []
    for name in BRANCHES:
        blocks.append(Block())
        with n.builder.into(blocks[-1]):
            tried.append(n.importer.attempt(n.attr(name)))
    if any(isinstance(t, InputError) for t in tried):
        decided = n.content(condition)
        if decided is not None:
            _forget(condition, blocks)
            return _taken(n, decided)
        _refuse(n, condition, blocks, tried)
    given = [t for t in tried if not isinstance(t, InputError)]
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
        decided = n.content(condition)
        if decided is not None:
            _forget(condition, blocks)
            return _taken(n, decided)
        # Exporters guard squeezes so; with the dims bound the condition is known, and one branch remains.
        way_out = "; bind the dims that its condition depends on" if n.importer.names.used else ""
        raise n.needed(condition, f"{e}{way_out}") from e
    chosen: list[Value] = list(n.builder.block.append(op).results)
    return [rebuilt(v, chosen) if same else chosen.pop(0) for v, same in zip(given[0], alike, strict=True)]


def _forget(condition: Value, blocks: Sequence[Block]) -> None:
    """Let go of branches, and of what a condition decides that is in no block."""
    for user in condition.users:
        if user.parent is None:
            user.drop_operands()
    for block in blocks:
        drop(block)


def _refuse(n: Node, condition: Value, blocks: list[Block], tried: list[list[Value] | InputError]) -> None:
    """In place of a branch that cannot be: an error for the call that takes it. Models hold branches for inputs of
    other shapes than those they are compiled for (Silero VAD: one for each sampling rate)."""
    failed = [i for i, t in enumerate(tried) if isinstance(t, InputError)]
    if len(failed) == len(tried):
        for name in BRANCHES:
            n.importer.subgraph(n.attr(name), {})  # fails as it did before
    at = failed[0]
    other = tried[1 - at]
    assert isinstance(other, list)
    drop(blocks[at])
    blocks[at] = Block()
    with n.builder.into(blocks[1 - at]):
        tried[1 - at] = other = [hosted(n.importer, v) for v in other]
    types = [_own_extents(n, v.type) for v in other]
    message = f"the branch cannot be computed for inputs of these shapes: {tried[at]}"
    with n.builder.into(blocks[at]):
        reason = "its shapes do not fit in this branch; a call that takes it is an error"
        tried[at] = list(host_values(n.importer, "refuse", [condition], types, reason, message=message))


def _own_extents(n: Node, t: Type) -> Type:
    if not isinstance(t, TensorType):
        return t
    return graph.dense([d if isinstance(d, int) else n.importer.names.fresh(n.loc) for d in t.shape], t.dtype)


def _given(n: Node, value: Value, resolved: bool) -> list[Value]:
    return leaves(value) if resolved else [hosted(n.importer, value)]


def _taken(n: Node, condition: Array) -> list[Value]:
    """The results of the branch that a condition takes, imported in place."""
    if condition.size != 1:
        raise InputError(f"its condition has {condition.size} elements, and one is needed")
    return n.importer.subgraph(n.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"), {})


@onnx_op("Loop")
def loop(n: Node) -> list[Value]:
    """The body again and again while the condition holds, at most the given number of times; see `loops.repeat`."""
    carried = [n.input(i) for i in range(2, len(n.values))]
    body: onnx.GraphProto = n.attr("body")
    if len(body.input) != len(carried) + 2:
        raise InputError(f"its body takes {len(body.input)} values and {len(carried) + 2} are given")
    if len(body.output) < len(carried) + 1:
        raise InputError(f"its body gives {len(body.output)} values, and it carries {len(carried)} and a condition")
    for i, what in ((0, "trip count"), (1, "condition")):
        v = n.optional(i)
        if v is not None and isinstance(n.type(v).size, int) and n.type(v).size != 1:
            raise InputError(f"its {what} has {n.type(v).size} elements, and one is needed")

    def step(iteration: Value, condition: Value, carried: Sequence[Value]) -> list[Value]:
        arguments = dict(zip((x.name for x in body.input), [iteration, condition, *carried], strict=True))
        return n.importer.subgraph(body, arguments)

    trip = n.optional(0)
    if trip is not None and n.dtype(trip) != I64:
        raise InputError(f"its trip count is {n.dtype(trip)}, and an i64 is needed")
    return repeat(n, trip, n.optional(1), carried, step, size_of(body))


def size_of(proto: onnx.GraphProto) -> int:
    """The nodes of a graph and of the graphs inside it."""
    inner = [a.g for node in proto.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return len(proto.node) + sum(map(size_of, inner))


@onnx_op("Scan")
def scan(n: Node) -> list[Value]:
    """A loop over slices of the scanned inputs; states are carried, and the scanned outputs stacked."""
    if n.opset < 9:
        return _batched(n)
    body: onnx.GraphProto = n.attr("body")
    count = n.attr("num_scan_inputs")
    inputs = [n.input(i) for i in range(len(n.values))]
    _check(n, body, len(inputs), count)
    states, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    outputs = len(body.output) - len(states)
    axes = [n.axis(a, n.rank(x)) for a, x in zip(n.attr("scan_input_axes", [0] * count), scanned, strict=True)]
    backward = n.attr("scan_input_directions", [0] * count)
    trips = _extent(n, scanned, axes)
    values = _scan(n, body, trips, states, scanned, axes, backward)
    out_axes = n.attr("scan_output_axes", [0] * outputs)
    flipped = n.attr("scan_output_directions", [0] * outputs)
    stacked = [
        _placed(n, flip(n, v) if back else v, axis)
        for v, axis, back in zip(values[len(states) :], out_axes, flipped, strict=True)
    ]
    return [*values[: len(states)], *stacked]


def _batched(n: Node) -> list[Value]:
    """Opset 8: states and scanned tensors begin with a batch dim, and the second dim is scanned. Every batch entry is
    scanned by itself; what lies beyond its sequence length is zero."""
    body: onnx.GraphProto = n.attr("body")
    count = n.attr("num_scan_inputs")
    inputs = [n.input(i) for i in range(1, len(n.values))]
    _check(n, body, len(inputs), count)
    states, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    backward = n.attr("directions", [0] * count)
    batch, trips = _extent(n, inputs, [0] * len(inputs)), _extent(n, scanned, [1] * count)
    lengths = n.optional(0)

    def entry(b: Value, condition: Value, carried: Sequence[Value]) -> list[Value]:
        of = [at(n, v, 0, b) for v in states]
        rows = [at(n, v, 0, b) for v in scanned]
        return [condition, *_scan(n, body, trips, of, rows, [0] * count, backward)]

    if lengths is not None:
        known = n.known(lengths)
        if known is None or any(int(v) != trips for v in known.reshape(-1)):
            raise InputError("its sequences have lengths of their own; convert the model to opset 9 or later")
    size = size_of(body) * (trips if isinstance(trips, int) else 1)
    return repeat(n, number(n, batch), None, [], entry, size, batch)


def _check(n: Node, body: onnx.GraphProto, given: int, count: int) -> None:
    if not 1 <= count <= given:
        raise InputError(f"it scans {count} of its {given} inputs, and at least one is needed")
    if len(body.input) != given:
        raise InputError(f"its body takes {len(body.input)} values and {given} are given")
    if len(body.output) < given - count:
        raise InputError(f"its body gives {len(body.output)} values for {given - count} states")


def _extent(n: Node, values: Sequence[Value], axes: Sequence[int]) -> Dim:
    """The extent that all values have at their axes; a number, where one of them is known."""
    if any(n.rank(x) <= a for x, a in zip(values, axes, strict=True)):
        raise InputError("one of its inputs has too few dims to be scanned")
    extents = list(dict.fromkeys(n.shape(x)[a] for x, a in zip(values, axes, strict=True)))
    known = [d for d in extents if isinstance(d, int)]
    if len(known) > 1:
        raise InputError(f"its scanned inputs have the extents {', '.join(map(str, extents))}, and one is needed")
    return (known or extents)[0]


def _scan(
    n: Node,
    body: onnx.GraphProto,
    trips: Dim,
    states: Sequence[Value],
    scanned: Sequence[Value],
    axes: Sequence[int],
    backward: Sequence[int],
) -> list[Value]:
    """States, then scanned values along a new first dim, after a body has seen every slice."""

    def step(iteration: Value, condition: Value, carried: Sequence[Value]) -> list[Value]:
        slices = [
            at(n, x, a, n.op(graph.Sub, number(n, trips - 1), iteration) if back else iteration)
            for x, a, back in zip(scanned, axes, backward, strict=True)
        ]
        arguments = dict(zip((x.name for x in body.input), [*carried, *slices], strict=True))
        return [condition, *n.importer.subgraph(body, arguments)]

    return repeat(n, number(n, trips), None, list(states), step, size_of(body), trips)


def number(n: Node, extent: Dim) -> Value:
    """An extent as an i64."""
    return n.constant(extent, I64) if isinstance(extent, int) else n.builder.constant(np.array(extent, object))


def at(n: Node, x: Value, axis: int, index: Value) -> Value:
    """x at an index of an axis, which goes."""
    known = n.known(index)
    if known is None:
        return n.op(graph.Gather, x, index, axis=axis)
    shape, start = n.shape(x), int(np.asarray(known).reshape(()))
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    sizes = tuple(1 if i == axis else d for i, d in enumerate(shape))
    row = n.op(graph.Slice, x, starts=starts, sizes=sizes, steps=(1,) * len(shape))
    return n.reshape(row, [d for i, d in enumerate(shape) if i != axis])


def flip(n: Node, x: Value) -> Value:
    """x backwards along its first dim."""
    shape = n.shape(x)
    if shape[0] == 0:
        return x
    starts = (shape[0] - 1, *(0 for _ in shape[1:]))
    return n.op(graph.Slice, x, starts=starts, sizes=tuple(shape), steps=(-1, *(1 for _ in shape[1:])))


def _placed(n: Node, value: Value, axis: int) -> Value:
    """A stacked value with its first dim at an axis."""
    rank = n.rank(value)
    perm = list(range(1, rank))
    perm.insert(n.axis(axis, rank), 0)
    return n.transpose(value, perm)
