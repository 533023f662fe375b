# SPDX-License-Identifier: Apache-2.0
"""Values that decide shapes and attributes and come from graph inputs: which inputs, and what they amount to.

An input is never folded into the graph. Where an operand must be known, the ops between it and the inputs are
evaluated on the side, on the contents the caller gave for those inputs alone; the graph still computes everything
else from the inputs of each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc.compiler.frontend.symbolic import is_symbolic
from tcc.ir import graph
from tcc.ir.core import BlockArgument, Op, OpResult, Value
from tcc.ir.types import TensorType

Array = np.ndarray[Any, Any]

LARGEST = 4096
"""Values of more elements than this are data: they decide no shape."""


class Deciding:
    """The arguments of the main function by name, the contents given for some of them, and those that were used."""

    def __init__(self, known: Mapping[Value, Array]) -> None:
        self._known = known
        self._names: dict[Value, str] = {}
        self._contents: dict[Value, Array] = {}
        self._done: dict[Value, Array | None] = {}
        self.used: dict[str, None] = {}
        """Inputs whose contents decided something."""

    def argument(self, value: Value, name: str, content: Array | None) -> None:
        """Tell of an input and of its content, if that is given."""
        self._names[value] = name
        if content is not None:
            self._contents[value] = content

    def inputs(self, value: Value) -> tuple[str, ...]:
        """The inputs that a value is computed from, where it is computed from small inputs and constants alone; empty
        if it is not."""
        found: dict[str, None] = {}
        return tuple(found) if self._trace(value, found, set()) else ()

    def content(self, value: Value) -> Array | None:
        """The content of a value that constants and the given contents of inputs decide; None otherwise."""
        array = self._known.get(value)
        if array is not None:
            return array
        names = self.inputs(value)
        given = {self._names[v] for v in self._contents}
        if not names or not given.issuperset(names):
            return None
        out = self._evaluate(value)
        if out is not None:
            self.used.update(dict.fromkeys(names))
        return out

    def _trace(self, value: Value, found: dict[str, None], seen: set[Value]) -> bool:
        """Collect the inputs behind a value; False if something else is behind it, or something large."""
        stack = [value]
        while stack:
            v = stack.pop()
            if v in seen or v in self._known:
                continue
            seen.add(v)
            size = v.type.size if isinstance(v.type, TensorType) else None
            if size is None or (isinstance(size, int) and size > LARGEST):
                return False
            if isinstance(v, BlockArgument):
                if v not in self._names:
                    return False
                found[self._names[v]] = None
            elif isinstance(v, OpResult) and _evaluable(v.op):
                stack += v.op.operands
            else:
                return False
        return True

    def _evaluate(self, value: Value) -> Array | None:
        stack = [value]
        while stack:
            v = stack[-1]
            if v in self._done:
                stack.pop()
                continue
            array = self._known.get(v, self._contents.get(v))
            if array is not None:
                self._done[v] = None if is_symbolic(array) else array
                continue
            assert isinstance(v, OpResult)
            waiting = [o for o in v.op.operands if o not in self._done]
            if waiting:
                stack += waiting
                continue
            self._run(v.op)
        return self._done[value]

    def _run(self, op: Op) -> None:
        from tcc.compiler.frontend.builder import by_field, compute

        arrays = [self._done[o] for o in op.operands]
        present = [a for a in arrays if a is not None]
        assert isinstance(op, graph.GraphOp)
        results = compute(op, by_field(op, present)) if len(present) == len(arrays) else [None] * len(op.results)
        self._done.update(zip(op.results, results, strict=True))


def _evaluable(op: Op) -> bool:
    return isinstance(op, graph.GraphOp) and op.pure and not op.regions
