# SPDX-License-Identifier: Apache-2.0
"""Which ops give symbols their values, and which mention them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tcc.ir.core import Op, Value
from tcc.ir.expr import Expr, symbols
from tcc.ir.graph.base import GraphOp
from tcc.ir.graph.dims import Bind
from tcc.ir.types import Type, free_symbols

__all__ = ["given", "is_needed", "mentioned"]


def given(op: Op) -> frozenset[str]:
    """The symbols whose values an op gives: those of `graph.bind`, and those in the results of a host call, a branch or
    a loop that no operand has."""
    if isinstance(op, Bind):
        return frozenset(op.symbols)
    if not isinstance(op, GraphOp) or op.category not in ("control", "opaque"):
        return frozenset()
    found = frozenset(s for r in op.results for s in free_symbols(r.type))
    return found - {s for v in op.operands for s in free_symbols(v.type)} if found else found


def mentioned(op: Op) -> frozenset[str]:
    """The symbols in an op's attributes and results, not in its regions."""
    found = {s for r in op.results for s in free_symbols(r.type)}
    for value in op.attrs.values():
        _collect(value, found)
    return frozenset(found)


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, Expr):
        found |= symbols(value)
    elif isinstance(value, Type):
        found |= free_symbols(value)
    elif isinstance(value, tuple):
        for v in cast("tuple[Any, ...]", value):
            _collect(v, found)


def is_needed(op: Op, dead: Sequence[Value] | None = None) -> bool:
    """Whether an op still gives, by its results `dead` that nothing uses (None: all), a symbol that others mention."""
    own = given(op)
    if dead is not None:
        own &= {s for r in dead for s in free_symbols(r.type)}
        own -= {s for r in op.results if r not in dead for s in free_symbols(r.type)}
    if not own:
        return False
    root = op
    while root.parent_op is not None and not getattr(type(root), "isolated", False):
        root = root.parent_op
    inside = set(op.walk())
    return any(other not in inside and mentioned(other) & own for other in root.walk())
