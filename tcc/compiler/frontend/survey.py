# SPDX-License-Identifier: Apache-2.0
"""Which operators of a model tcc cannot import: all of them at once, before anything is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from tcc.compiler.frontend.functions import Functions
from tcc.compiler.frontend.host import host_function
from tcc.compiler.frontend.model import domain_of, opsets_of
from tcc.compiler.frontend.registry import handlers
from tcc.errors import InputError

_LISTED = 40


@dataclass(frozen=True)
class Unknown:
    """A node that cannot be imported."""

    node: str
    op: str
    domain: str
    opset: int | None

    def __str__(self) -> str:
        version = "not imported" if self.opset is None else f"opset {self.opset}"
        return f'"{self.node}": {self.op} of {self.domain or "ai.onnx"}, {version}'


def node_name(node: onnx.NodeProto, index: int) -> str:
    """The node's name, or OpType_index for one without."""
    return node.name or f"{node.op_type}_{index}"


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Graphs in the node's attributes."""
    return [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]


def check_operators(model: onnx.ModelProto, functions: Functions) -> None:
    """InputError that lists every node without a handler or function body."""
    survey = _Survey(functions)
    survey.nodes(model.graph.node, opsets_of(model.opset_import), "")
    if survey.found:
        shown = "; ".join(map(str, survey.found[:_LISTED]))
        more = f"; and {len(survey.found) - _LISTED} more" if len(survey.found) > _LISTED else ""
        raise InputError(f"tcc has no import for {len(survey.found)} node(s) of the model: {shown}{more}")


class _Survey:
    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.found: list[Unknown] = []
        self._good: set[tuple[str, str, str]] = set()
        self._open: list[tuple[str, str, str]] = []

    def nodes(self, nodes: Iterable[onnx.NodeProto], opsets: Mapping[str, int], prefix: str) -> None:
        for i, node in enumerate(nodes):
            name = prefix + node_name(node, i)
            for g in subgraphs(node):
                self.nodes(g.node, opsets, f"{name}/")
            self._node(node, name, opsets)

    def _node(self, node: onnx.NodeProto, name: str, opsets: Mapping[str, int]) -> None:
        domain = domain_of(node.domain)
        key = (domain, node.op_type, node.overload)
        local = self.functions.local.get(key)
        opset = opsets.get(domain)
        if local is not None:
            self._function(key, local, name, opsets)
            return
        if opset is not None and (domain, node.op_type) in handlers():
            return
        body = None if opset is None else self.functions.schema_function(node.op_type, domain, opset)
        if body is None and (opset is None or host_function(node.op_type, domain) is None):
            self.found.append(Unknown(name, node.op_type, domain, opset))

    def _function(
        self, key: tuple[str, str, str], function: onnx.FunctionProto, name: str, opsets: Mapping[str, int]
    ) -> None:
        if key in self._good:
            return
        if key in self._open:
            chain = " → ".join(k[1] for k in (*self._open, key))
            raise InputError(f"the model's functions call each other in a circle: {chain}")
        before = len(self.found)
        self._open.append(key)
        self.nodes(function.node, {**opsets, **opsets_of(function.opset_import)}, f"{name}/")
        self._open.pop()
        if len(self.found) == before:
            self._good.add(key)


def captured(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph, with the graphs inside it, takes from outside."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {s.values.name for s in graph.sparse_initializer}
    own |= {o for n in graph.node for o in n.output}
    wanted = {i for n in graph.node for i in n.input if i} | {o.name for o in graph.output if o.name}
    for n in graph.node:
        for g in subgraphs(n):
            wanted |= captured(g)
    return wanted - own


def in_order(nodes: Sequence[onnx.NodeProto], defined: set[str], what: str) -> list[tuple[int, onnx.NodeProto]]:
    """(index in the file, node), producers before users, in the file's order where it can be kept.

    InputError if a value has two producers, none, or depends on itself.
    """
    producer: dict[str, int] = {}
    for i, n in enumerate(nodes):
        for o in n.output:
            if o and (o in producer or o in defined):
                raise InputError(f'node "{node_name(n, i)}" produces "{o}", which {what} already has')
            if o:
                producer[o] = i
    needs: list[list[str]] = []
    for i, n in enumerate(nodes):
        inputs = [x for x in n.input if x] + sorted({c for g in subgraphs(n) for c in captured(g)})
        for x in inputs:
            if x not in producer and x not in defined:
                raise InputError(f'node "{node_name(n, i)}" ({n.op_type}) reads "{x}", which nothing produces')
        needs.append([x for x in inputs if x in producer])
    order: list[tuple[int, onnx.NodeProto]] = []
    state = [0] * len(nodes)
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            i = stack[-1]
            if state[i] == 2:
                stack.pop()
                continue
            state[i] = 1
            waiting = [producer[x] for x in needs[i] if state[producer[x]] != 2]
            if any(state[w] == 1 for w in waiting):
                raise InputError(f'node "{node_name(nodes[i], i)}" ({nodes[i].op_type}) depends on its own result')
            if waiting:
                stack.append(waiting[0])
                continue
            state[i] = 2
            order.append((i, nodes[i]))
            stack.pop()
    return order
