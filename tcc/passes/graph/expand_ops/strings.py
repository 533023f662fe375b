# SPDX-License-Identifier: Apache-2.0
"""Ops on strings, which kernels do not know: calls of the reference on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tcc.ir import graph
from tcc.ir.core import Op
from tcc.ir.expr import Dim, Expr
from tcc.ir.graph import Slice
from tcc.ir.graph.base import GraphOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import STRING, TensorType

Call = tuple[str, dict[str, Any]]


def _ends(op: Slice) -> tuple[Dim, ...]:
    """Where a slice stops, before the first element for one that walks down to it."""
    stops = [s + n * step for s, n, step in zip(op.starts, op.sizes, op.steps, strict=True)]
    return tuple(e if not isinstance(e, int) or e >= 0 else -(1 << 62) for e in stops)


_CALLS: dict[str, Callable[[Any], Call]] = {
    "graph.cast": lambda op: ("cast", {"to": op.to}),
    "graph.equal": lambda op: ("equal", {}),
    "graph.where": lambda op: ("where", {}),
    "graph.transpose": lambda op: ("transpose", {"perm": op.perm}),
    "graph.reshape": lambda op: ("reshape", {"shape": op.shape, "allowzero": 1}),
    "graph.expand": lambda op: ("expand", {"shape": op.shape}),
    "graph.tile": lambda op: ("tile", {"repeats": op.repeats}),
    "graph.concat": lambda op: ("concat", {"axis": op.axis}),
    "graph.slice": lambda op: ("slice", {"starts": op.starts, "ends": _ends(op), "steps": op.steps}),
    "graph.gather": lambda op: ("gather", {"axis": op.axis}),
    "graph.gather_elements": lambda op: ("gather_elements", {"axis": op.axis}),
    "graph.scatter_elements": lambda op: ("scatter_elements", {"axis": op.axis}),
    "graph.scatter_nd": lambda op: ("scatter_nd", {}),
    "graph.gather_nd": lambda op: ("gather_nd", {"batch_dims": op.batch_dims}),
}


def has_strings(op: Op) -> bool:
    """Whether an operand or result of a graph op (other than a call of the host) is a tensor of strings."""
    if op.regions or op.name in ("graph.host", "graph.constant", "graph.return", "graph.yield"):
        return False
    types = [v.type for v in (*op.operands, *op.results)]
    return any(isinstance(t, TensorType) and t.dtype is STRING for t in types)


def expand(op: GraphOp, rewriter: Rewriter) -> None:
    """The op as a call of the host; where the reference has no such call, a remark."""
    call = _CALLS.get(op.name)
    if call is None or any(_free(v) for v in op.attrs.values()):
        rewriter.remark(op, "expand", "kept", "it works on strings, and the host has no function for it")
        return
    function, attributes = call(op)
    types = tuple(r.type for r in op.results)
    made = graph.Host(
        list(op.operands), function=function, attributes=attributes, given=(1,) * len(op.operands), types=types,
        loc=op.loc,
    )  # fmt: skip
    rewriter.replace(op, made)


def _free(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(v, Expr) for v in value)  # pyright: ignore[reportUnknownVariableType]
