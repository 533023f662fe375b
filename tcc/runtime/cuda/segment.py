# SPDX-License-Identifier: Apache-2.0
"""A segment of a schedule as a CUDA graph: built for one set of symbol values, rebound when a pointer changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tcc.runtime.cuda import order
from tcc.runtime.cuda.graph import Graph
from tcc.runtime.cuda.launch import Node, rebind, resolve
from tcc.runtime.expr import symbols_of

if TYPE_CHECKING:
    from tcc.runtime.cuda.executor import CudaContext

Op = Mapping[str, Any]


class Segment:
    """One instantiated graph of a context."""

    def __init__(self, op: Op, context: CudaContext) -> None:
        buffers = context.data.buffers
        self._ops: list[Op] = op["body"]
        self._graph = Graph(context.gpu)
        self._nodes: list[Node | None] = []
        self._users: dict[order.Slot, list[tuple[int, list[int]]]] = {}
        self._after = ordering(self._ops, context)
        for index, (item, after) in enumerate(zip(self._ops, self._after, strict=True)):
            node = resolve(item, context, context.kernels)
            self._graph.add(node, after)
            self._nodes.append(node)
            for slot, parameters in order.slots_of(item, buffers).items():
                self._users.setdefault(slot, []).append((index, parameters))
        self._graph.instantiate()
        self._graph.upload(context.stream)
        self._slots = sorted(slot for slot in self._users if slot not in (order.ARENA, order.WEIGHT))
        self._bound = [context.address(slot) for slot in self._slots]

    def launch(self, context: CudaContext) -> None:
        """Launches the graph with the pointers the context has now."""
        bound = [context.address(slot) for slot in self._slots]
        if bound != self._bound:
            changed: set[int] = set()
            for slot, old, new in zip(self._slots, self._bound, bound, strict=True):
                if old != new:
                    for index, parameters in self._users[slot]:
                        rebind(self._nodes[index], self._ops[index], parameters, context)
                        changed.add(index)
            for index in changed:
                self._graph.update(index, self._nodes[index])
            self._bound = bound
        self._graph.launch(context.stream)

    def retarget(self, context: CudaContext) -> bool:
        """Makes it the graph for the symbols' values and the pointers of now; False, and nothing changed, where that
        has another form: other dependences, or ops with work where there was none."""
        if ordering(self._ops, context) != self._after:
            return False
        nodes = [resolve(item, context, context.kernels) for item in self._ops]
        if [type(n) for n in nodes] != [type(n) for n in self._nodes]:
            return False
        for index, node in enumerate(nodes):
            self._graph.update(index, node)
        self._nodes = nodes
        self._bound = [context.address(slot) for slot in self._slots]
        return True

    def close(self) -> None:
        """Destroys the graph."""
        self._graph.close()


def ordering(ops: Sequence[Op], context: CudaContext) -> list[list[int]]:
    """What each op waits for. `TCC_CUDA_SERIAL=1` runs them one after another, to see what overlap is worth."""
    if os.environ.get("TCC_CUDA_SERIAL") == "1":
        return [[index - 1] if index else [] for index in range(len(ops))]
    return order.predecessors(ops, context.data.buffers, context.symbols)


def symbols_in(op: Op, buffers: Sequence[Op]) -> tuple[str, ...]:
    """The symbols that a segment's launches, extents and addresses depend on, sorted."""
    names: set[str] = set()

    def buffer(index: int) -> None:
        entry = buffers[index]
        for key in ("bytes", "offset"):
            names.update(symbols_of(entry.get(key, 0)))
        if entry["space"] == "view":
            buffer(entry["of"])

    def place(spec: Op) -> None:
        names.update(symbols_of(spec.get("offset", 0)))
        buffer(spec["buffer"])

    def exprs(item: Op) -> Iterator[Any]:
        yield item.get("bytes", 0)
        yield item.get("shared", 0)
        for key in ("grid", "block", "cluster"):
            yield from item.get(key) or ()

    for item in op["body"]:
        for expr in exprs(item):
            names.update(symbols_of(expr))
        for index in (*item.get("reads", ()), *item.get("writes", ())):
            buffer(index)
        for key in ("src", "dst"):
            if key in item:
                place(item[key])
        for param in item.get("params", ()):
            if "buffer" in param:
                place(param)
            elif "tensor_map" in param:
                place(param["tensor_map"])
                for key in ("dims", "strides"):
                    for expr in param["tensor_map"][key]:
                        names.update(symbols_of(expr))
            elif param["dtype"][0] in "iu":
                names.update(symbols_of(param["scalar"]))
    return tuple(sorted(names))
