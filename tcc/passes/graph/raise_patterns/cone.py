# SPDX-License-Identifier: Apache-2.0
"""The ops between one tensor and another, as a function that can be run on samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tcc.ir.core import Op, Value
from tcc.ir.graph import Constant, Reduce, Reshape
from tcc.ir.graph.base import Array, GraphOp, tensor_type
from tcc.ir.graph.pointwise import Pointwise
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.common import arrays_by_field, content

Allowed = Callable[[Op], bool]
LARGEST = 24
"""Ops in a cone; longer spellings are not looked for."""


def elementwise(op: Op) -> bool:
    """Float pointwise ops whose constants are single numbers."""
    if not isinstance(op, Pointwise) or not all(tensor_type(v).dtype.is_float for v in op.results):
        return False
    return all(tensor_type(v).size == 1 for v in op.operands if isinstance(v.defining_op, Constant))


def rowwise(op: Op) -> bool:
    """Float pointwise ops, reductions, and reshapes."""
    if not isinstance(op, Pointwise | Reduce | Reshape):
        return False
    return all(tensor_type(v).dtype.is_float for v in op.results)


class Cone:
    """The ops that compute `root` from `x` and constants, in order."""

    def __init__(self, root: Value, x: Value, ops: list[GraphOp]) -> None:
        self.root = root
        self.x = x
        self.ops = ops

    @property
    def constants(self) -> list[Value]:
        """The constants that the ops read, each once."""
        found = dict.fromkeys(v for op in self.ops for v in op.operands if isinstance(v.defining_op, Constant))
        return list(found)

    def evaluate(self, x: Array) -> Array:
        """The root for a float64 sample of x."""
        values: dict[Value, Array] = {self.x: x}
        for v in self.constants:
            array = content(v)
            assert array is not None
            values[v] = array.astype(np.float64)
        with np.errstate(all="ignore"):
            for op in self.ops:
                arrays = arrays_by_field(op, [values[v] for v in op.operands])
                for r, a in zip(op.results, op.evaluate(*arrays), strict=True):
                    values[r] = np.asarray(a)
        return values[self.root]

    def other_user(self) -> Op | None:
        """An op outside that uses a value between x and the root; None if there is none."""
        inside = set(self.ops)
        for op in self.ops:
            for r in op.results:
                if r is not self.root:
                    for user in r.users:
                        if user not in inside:
                            return user
        return None

    def closed(self, rewriter: Rewriter, name: str) -> bool:
        """Whether nothing outside uses what lies between; else a remark says so."""
        user = self.other_user()
        if user is not None:
            root = self.root.owner
            assert isinstance(root, Op)
            rewriter.remark(root, "raise", f"not made {name}", f"a value inside is also used by {user.name}")
        return user is None


def cone(root: Value, x: Value, allowed: Allowed) -> Cone | None:
    """The cone between two values; None if `root` depends on another tensor, or through an op that is not allowed."""
    order: list[GraphOp] = []
    seen: set[Op] = set()

    def visit(v: Value) -> bool:
        if v is x:
            return True
        op = v.defining_op
        if op is None:
            return False
        if isinstance(op, Constant) or op in seen:
            return True
        if not isinstance(op, GraphOp) or not allowed(op) or len(seen) >= LARGEST:
            return False
        seen.add(op)
        if not all(visit(o) for o in op.operands):
            return False
        order.append(op)
        return True

    if root is x or not visit(root):
        return None
    return Cone(root, x, order)


def ends(op: Op, allowed: Allowed, steps: int) -> list[Value]:
    """Results of ops that follow `op` within so many steps, the farthest first."""
    level: list[Op] = [op]
    found: dict[Op, None] = {op: None}
    for _ in range(steps):
        level = [u for o in level for r in o.results for u in r.users if u.parent is op.parent and allowed(u)]
        for u in level:
            found.pop(u, None)
            found[u] = None
    return [r for o in reversed(found) for r in o.results]


def sources(op: Op, allowed: Allowed, steps: int) -> Iterator[Value]:
    """Tensors from which `op` may start: its operands and theirs, the nearest first."""
    seen: dict[Value, None] = {}
    level = [v for v in op.operands if not isinstance(v.defining_op, Constant)]
    for _ in range(steps):
        following: list[Value] = []
        for v in level:
            if v in seen:
                continue
            seen[v] = None
            yield v
            maker = v.defining_op
            if maker is not None and allowed(maker):
                following += [o for o in maker.operands if not isinstance(o.defining_op, Constant)]
        level = following
