# SPDX-License-Identifier: Apache-2.0
"""The choice of layout as a minimum cut.

Ops are nodes; those on the source's side work on permuted tensors, those on the sink's side on plain ones. A tensor
that its maker gives in one form and a reader wants in the other costs its bytes, once a tensor and form (Bokhari, 1979,
assigns tasks to two processors in the same way).
"""

from __future__ import annotations

from typing import Any, cast

from tcc.ir.core import Block, Op, Value
from tcc.ir.graph import Constant, Gather, Pad, Reduce, Transpose
from tcc.ir.graph.base import GraphOp
from tcc.ir.types import TensorType
from tcc.passes.graph.assign_layout.rules import (
    is_source,
    permuted_operands,
    shuffle_of,
    to_first,
    to_last,
    twin_of,
)

PERMUTED, PLAIN = "permuted", "plain"
Name = Any


def cost_of(t: TensorType) -> int:
    """The bytes that a transpose between the forms moves; 0 where it is a reshape. Free dims count as 64."""
    real = [p for p in to_last(t.rank) if t.shape[p] != 1]
    if real == sorted(real):
        return 0
    bytes_ = t.dtype.bytes
    for d in t.shape:
        bytes_ *= d if isinstance(d, int) else 64
    return bytes_


class Labels:
    """Which ops of a block work on channels-last tensors, and what the transposes between cost.

    `shuffles` are the channel shuffles among them, by their last op; `inner` are the other ops of those.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.ops = list(block.ops)
        self.shuffles: dict[Op, tuple[Op, Op]] = {}
        self.inner: set[Op] = set()
        self.channels_last: set[Op] = set()
        self.cost = 0
        sources = [op for op in self.ops if is_source(op)]
        if not sources:
            return
        self.first = sources[0]
        for op in self.ops:
            found = shuffle_of(op)
            if found is not None and all(o.parent is block for o in found):
                self.shuffles[op] = found
                self.inner.update(found)
        self._solve(sources)

    def flexible(self, op: Op) -> bool:
        return op in self.shuffles or twin_of(op) is not None

    def reads(self, op: GraphOp) -> list[tuple[Value, Name]]:
        """(value, node that reads it) for the tensors that an op reads."""
        if op in self.shuffles:
            return [(self.shuffles[op][0].operands[0], op)]
        if is_source(op):
            return [(op.operands[0], op), *((v, PLAIN) for v in op.operands[1:])]
        if isinstance(op, Transpose):
            return [(op.x, (op, "in"))]
        if twin_of(op) is None:
            if isinstance(op, Reduce) and not op.keepdims and 1 in op.axes and 0 not in op.axes:
                return [(op.x, (op, "in"))]
            return [(v, PLAIN) for v in op.operands]
        mine = permuted_operands(op)
        rest = [op.indices] if isinstance(op, Gather) else [op.fill] if isinstance(op, Pad) and op.fill else []
        return [*((v, op) for v in mine), *((v, PLAIN) for v in rest)]

    def makes(self, op: Op) -> Name:
        """The node whose side says in which form an op gives its result."""
        if isinstance(op, Transpose) and op not in self.inner:
            return (op, "out")
        return op if self.flexible(op) or is_source(op) else PLAIN

    def _solve(self, sources: list[Op]) -> None:
        import networkx

        nx = cast(Any, networkx)
        g = nx.DiGraph()

        def edge(a: Name, b: Name, capacity: int | None) -> None:
            if a == b:
                return
            if capacity is None:
                g.add_edge(a, b)  # no capacity: infinite
            elif capacity > 0:
                known = g.get_edge_data(a, b)
                if known is None:
                    g.add_edge(a, b, capacity=capacity)
                elif "capacity" in known:
                    known["capacity"] += capacity

        g.add_nodes_from((PERMUTED, PLAIN))
        readers: dict[Value, list[Name]] = {}
        for op in self.ops:
            if op in self.inner:
                continue
            if is_source(op):
                edge(PERMUTED, op, None)
            self._transpose_edges(op, edge)
            if isinstance(op, GraphOp) and not op.regions:
                pairs = self.reads(op)
            else:
                pairs = [(v, PLAIN) for v in dict.fromkeys(v for i in op.walk() for v in i.operands)]
            for value, node in pairs:
                readers.setdefault(value, []).append(node)
        for value, nodes in readers.items():
            if not isinstance(value.type, TensorType) or isinstance(value.defining_op, Constant):
                continue
            cost = cost_of(value.type)
            maker = value.defining_op
            made = PLAIN if maker is None or maker.parent is not self.block else self.makes(maker)
            wants_last, wants_first = (value, "last"), (value, "first")
            for node in dict.fromkeys(nodes):
                if cost:
                    edge(node, wants_last, None)
                    edge(wants_first, node, None)
            edge(wants_last, made, cost)
            edge(made, wants_first, cost)
        cost, (last, _) = nx.minimum_cut(g, PERMUTED, PLAIN)
        self.cost = int(cost)
        self.channels_last = {op for op in self.ops if op in last and (self.flexible(op) or is_source(op))}

    def _transpose_edges(self, op: Op, edge: Any) -> None:
        """A transpose to the other form is nothing where its operand (or result) is in that form."""
        if not isinstance(op, Transpose) or op in self.inner:
            return
        rank = len(op.perm)
        t = op.x.type
        assert isinstance(t, TensorType)
        if rank > 2 and op.perm == to_last(rank):
            edge(PERMUTED, (op, "in"), cost_of(t))
            edge((op, "out"), PLAIN, None)
        elif rank > 2 and op.perm == to_first(rank):
            edge((op, "in"), PLAIN, None)
            y = op.y.type
            assert isinstance(y, TensorType)
            edge(PERMUTED, (op, "out"), cost_of(y))
