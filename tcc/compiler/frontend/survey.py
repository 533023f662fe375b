# SPDX-License-Identifier: Apache-2.0
"""Which operators of a model tcc cannot import: all of them at once, before anything is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from tcc.compiler.frontend.functions import Functions
from tcc.compiler.frontend.host import host_function
from tcc.compiler.frontend.model import domain_of, model_opsets, opsets_of
from tcc.compiler.frontend.problems import Unsupported
from tcc.compiler.frontend.registry import handlers
from tcc.errors import InputError

_LISTED = 40
MOST_CALLS = 60
"""Levels of functions that call functions."""
MOST_NODES = 1_000_000
"""Nodes of a model once its functions are put in place of their calls."""

Key = tuple[str, str, str]
"""Domain, name and overload of a function."""


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
    survey = Survey(functions)
    survey.nodes(model.graph.node, model_opsets(model), "")
    if survey.found:
        shown = "; ".join(map(str, survey.found[:_LISTED]))
        more = f"; and {len(survey.found) - _LISTED} more" if len(survey.found) > _LISTED else ""
        raise InputError(f"tcc has no import for {len(survey.found)} node(s) of the model: {shown}{more}")


def check_calls(model: onnx.ModelProto, functions: Functions) -> None:
    """InputError if the model's functions call each other in a circle or through too many levels, or stand for more
    nodes than can be imported: a call is imported as the function's body."""
    sizes: dict[Key, int] = {}
    opened: list[Key] = []

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (domain_of(node.domain), node.op_type, node.overload)
            total += function(key) if key in functions.local else 1
            total += sum(size(g.node) for g in subgraphs(node))
        return total

    def function(key: Key) -> int:
        if key in opened:
            chain = " → ".join(k[1] for k in (*opened, key))
            raise InputError(f"the model's functions call each other in a circle: {chain}")
        if len(opened) >= MOST_CALLS:
            raise InputError(f"the model's functions call each other through more than {MOST_CALLS} levels")
        if key not in sizes:
            opened.append(key)
            sizes[key] = size(functions.local[key].node)
            opened.pop()
        return sizes[key]

    if functions.local:
        total = size(model.graph.node)
        if total > MOST_NODES:
            raise InputError(f"the model's functions stand for {total} nodes, and tcc imports up to {MOST_NODES}")


class Survey:
    """Nodes that have neither a handler nor a body, at any depth; each function is looked at once."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.found: list[Unknown] = []
        self._seen: set[Key] = set()

    def nodes(self, nodes: Iterable[onnx.NodeProto], opsets: Mapping[str, int], prefix: str) -> None:
        for i, node in enumerate(nodes):
            self.node(node, prefix + node_name(node, i), opsets)

    def node(self, node: onnx.NodeProto, name: str, opsets: Mapping[str, int]) -> None:
        """Look at a node, the graphs in it and the functions it calls."""
        for g in subgraphs(node):
            self.nodes(g.node, opsets, f"{name}/")
        domain = domain_of(node.domain)
        key = (domain, node.op_type, node.overload)
        local = self.functions.local.get(key)
        opset = opsets.get(domain)
        if local is not None:
            if key not in self._seen:
                self._seen.add(key)
                self.nodes(local.node, {**opsets, **opsets_of(local.opset_import)}, f"{name}/")
            return
        if opset is not None and (domain, node.op_type) in handlers():
            return
        body = None if opset is None else self.functions.schema_function(node.op_type, domain, opset)
        if body is None and (opset is None or host_function(node.op_type, domain) is None):
            self.found.append(Unknown(name, node.op_type, domain, opset))


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


def in_order(
    nodes: Sequence[onnx.NodeProto], defined: set[str], what: str, report: Callable[[int, str], object] | None = None
) -> list[tuple[int, onnx.NodeProto]]:
    """(index in the file, node), producers before users, in the file's order where it can be kept.

    Unsupported if a value has two producers, none, or depends on itself; with `report`, that is told to it instead,
    once a node with its index, and the order goes on without.
    """

    def wrong(index: int, text: str) -> None:
        if report is None:
            raise Unsupported(text)
        report(index, text)

    producer: dict[str, int] = {}
    for i, n in enumerate(nodes):
        again = [o for o in n.output if o and (o in producer or o in defined)]
        if again:
            wrong(i, f'node "{node_name(n, i)}" produces "{again[0]}", which {what} already has')
        for o in n.output:
            if o and o not in defined:
                producer.setdefault(o, i)
    needs: list[list[str]] = []
    for i, n in enumerate(nodes):
        inputs = [x for x in n.input if x] + sorted({c for g in subgraphs(n) for c in captured(g)})
        absent = [x for x in inputs if x not in producer and x not in defined]
        if absent:
            wrong(i, f'node "{node_name(n, i)}" ({n.op_type}) reads "{absent[0]}", which nothing produces')
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
            first = state[i] == 0
            state[i] = 1
            waiting = [producer[x] for x in needs[i] if state[producer[x]] != 2]
            if any(state[w] == 1 for w in waiting) and first:
                wrong(i, f'node "{node_name(nodes[i], i)}" ({nodes[i].op_type}) depends on its own result')
            waiting = [w for w in waiting if state[w] == 0]
            if waiting:
                stack.append(waiting[0])
                continue
            state[i] = 2
            order.append((i, nodes[i]))
            stack.pop()
    return order
