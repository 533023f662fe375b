# SPDX-License-Identifier: Apache-2.0
"""Extents that the contents of tensors decide when the program runs: read from memory, symbols from there on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import BlockArgument, Value
from tcc.ir.expr import Dim, Expr, product, symbols
from tcc.ir.types import I64, TensorType, free_symbols

if TYPE_CHECKING:
    from tcc.compiler.frontend.node import Node

MOVES = (graph.Reshape, graph.Cast, graph.Slice, graph.Concat, graph.Gather, graph.Transpose, graph.Expand)


class ComputedOperand(InputError):
    """An operand must be known when compiling, and the graph computes it."""


def is_computed(n: Node, value: Value) -> bool:
    """Whether the graph computes a value; one that only moves elements of the graph's inputs is not, nor one that
    contents decide which the caller gave."""
    if n.builder.deciding.content(value) is not None:
        return False
    todo, seen = [value], set[Value]()
    while todo:
        v = todo.pop()
        if v in seen or v in n.builder.known:
            continue
        seen.add(v)
        op = v.defining_op
        if isinstance(v, BlockArgument) and v.owner is n.builder.top:
            continue
        if op is None or not isinstance(op, MOVES):
            return True
        todo += op.operands
    return False


def known_extents(n: Node, dims: Sequence[Dim], what: str) -> None:
    """ComputedOperand if an extent is one that data decide; those that free dims of the inputs decide may be bound."""
    inputs = {s for a in n.builder.top.args for s in free_symbols(a.type)}
    for d in dims:
        if symbols(d) - inputs:
            raise ComputedOperand(f"{what} has the extent {d}, which must be known when compiling")


def elements(n: Node, value: Value) -> list[Dim | None]:
    """The entries of a vector (or scalar) of integers, None where the graph computes one."""
    known = n.builder.known.get(value)
    if known is not None:
        return [v if isinstance(v, Expr) else int(v) for v in known.reshape(-1)]
    t = n.type(value)
    op = value.defining_op
    if isinstance(op, graph.Concat) and t.rank == 1:
        return [e for part in op.operands for e in elements(n, part)]
    inner = op.operands[0].type if isinstance(op, graph.Reshape | graph.Cast) else None
    if isinstance(inner, TensorType) and inner.dtype.is_int and t.dtype.is_int:
        return elements(n, op.operands[0])  # type: ignore[union-attr]
    if t.rank > 1 or not isinstance(t.size, int):
        raise InputError(f"a vector of a known number of integers is needed, not {t}")
    return [None] * t.size


def bind(n: Node, value: Value, what: str, known: Sequence[Dim | None] | None = None, least: int = 0) -> list[Dim]:
    """The entries of a vector of integers; those that are not `known` become symbols that are read here."""
    entries = elements(n, value) if known is None else list(known)
    places = [i for i, e in enumerate(entries) if e is None]
    if not places:
        return [e for e in entries if e is not None]
    key = (value, n.builder.block, tuple(places), least)
    if key not in n.builder.bound:
        names = [n.importer.names.fresh(f"{n.loc}_{what}_{i}") for i in places]
        flat = n.reshape(n.cast(value, I64), (len(entries),))
        n.ops(graph.Bind, flat, symbols=tuple(s.name for s in names), places=tuple(places), least=least)
        n.builder.bound[key] = names
    symbols = iter(n.builder.bound[key])
    return [next(symbols) if e is None else e for e in entries]


def shape_operand(n: Node, value: Value, shape: tuple[Dim, ...], zeros: bool) -> list[Dim]:
    """The shape that Reshape's operand means for a tensor of `shape`: 0 copies an extent (unless `zeros`), -1 takes
    what is left."""
    entries = elements(n, value)
    rank = len(entries)
    given = n.reshape(n.cast(value, I64), (rank,))
    minus = n.constant(-1, I64)
    if not zeros:
        have = vector(n, [*shape, *[0] * rank][:rank])
        given = n.op(graph.Where, n.op(graph.Equal, given, n.constant(0, I64)), have, given)
    hole = n.op(graph.Equal, given, minus)
    filled = n.op(graph.Where, hole, n.constant(1, I64), given)
    rest = n.op(graph.Reduce, filled, kind="prod", axes=(0,), keepdims=True)
    total = vector(n, [product(shape)])
    left = n.op(graph.Div, total, rest)
    wanted = n.op(graph.Where, hole, left, given)
    # Where the sizes differ there is no such shape, and -1 is refused when the program runs.
    size = n.op(graph.Reduce, wanted, kind="prod", axes=(0,), keepdims=True)
    wanted = n.op(graph.Where, n.op(graph.Equal, size, total), wanted, minus)
    copied = [shape[i] if e == 0 and not zeros and i < len(shape) else e for i, e in enumerate(entries)]
    return bind(n, wanted, "shape", [None if isinstance(e, int) and e < 0 else e for e in copied])


def vector(n: Node, dims: Sequence[Dim]) -> Value:
    """Extents as an i64 vector."""
    out = np.empty(len(dims), object)
    out[:] = list(dims)
    return n.builder.constant(out)


def slice_bounds(
    n: Node, extents: Sequence[Dim], starts: Value, ends: Value, steps: Sequence[int]
) -> tuple[list[Dim], list[Dim]]:
    """(first indices, numbers of elements) of a numpy slice of dims whose bounds the graph computes."""
    count = len(extents)
    have = vector(n, extents)
    zero = n.constant(0, I64)
    back = np.array([s < 0 for s in steps])
    low = n.constant(np.where(back, -1, 0), I64)
    high = n.op(graph.Add, have, low)
    walk = n.constant(np.array(steps), I64)

    def clamped(v: Value) -> Value:
        v = n.reshape(n.cast(v, I64), (count,))
        v = n.op(graph.Where, n.op(graph.Less, v, zero), n.op(graph.Add, v, have), v)
        return n.op(graph.Min, n.op(graph.Max, v, low), high)

    first, last = clamped(starts), clamped(ends)
    span = n.op(graph.Sub, last, first)
    reach = n.op(graph.Add, span, n.constant(np.array([s + (1 if s < 0 else -1) for s in steps]), I64))
    sizes = n.op(graph.Max, n.op(graph.Div, reach, walk), zero)
    # Nothing is read of a slice without elements, so where it starts does not matter; but it is not negative.
    return bind(n, n.op(graph.Max, first, zero), "start"), bind(n, sizes, "size")


def range_length(n: Node, start: Value, limit: Value, delta: Value) -> Dim:
    """How many numbers there are from start to limit by steps of delta (0-D tensors of one type)."""
    span = n.op(graph.Sub, limit, start)
    if n.dtype(start).is_float:
        steps = n.cast(n.op(graph.Ceil, n.op(graph.Div, span, delta)), I64)
    else:
        span, delta = n.cast(span, I64), n.cast(delta, I64)
        one, zero = n.constant(1, I64), n.constant(0, I64)
        less = n.op(graph.Where, n.op(graph.Less, delta, zero), one, n.constant(-1, I64))
        steps = n.op(graph.Div, n.op(graph.Add, n.op(graph.Add, span, delta), less), delta)
    (length,) = bind(n, n.op(graph.Max, n.reshape(steps, (1,)), n.constant(0, I64)), "length")
    return length
