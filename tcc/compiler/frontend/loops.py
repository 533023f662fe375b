# SPDX-License-Identifier: Apache-2.0
"""A body that runs again and again: written out while importing where that is known and short, else a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.sequence import StaticOptional, hosted
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.expr import Dim, Sym, symbols
from tcc.ir.types import BOOL, I64, OptionalType, TensorType, Type, free_symbols, joined_element

Step = Callable[[Value, Value, Sequence[Value]], list[Value]]
"""(iteration, condition, carried) → (condition, carried…, scanned…), at the builder's place."""

FEW_NODES = 256
"""Loops that would become at most so many nodes are written out."""
MOST_NODES = 512
MOST_TRIPS = 128
"""What is written out where an iteration changes the extents of what the next one gets."""


def repeat(
    n: Node,
    trip: Value | None,
    condition: Value | None,
    carried: list[Value],
    step: Step,
    size: int,
    count: Dim | None = None,
) -> list[Value]:
    """The carried values after the last iteration, then the scanned values of all iterations along a new first dim.

    A loop that makes no trip gives what it got, and empty stacks. One of few nodes (`size` a trip) of which all is
    known is written out; else the body becomes a region, and where that would change the extents of carried values,
    still written out if it is not too long. Carried extents that data decide become symbols. `count`: the trips that it
    surely makes.
    """
    known = n.known(trip)
    trips = None if known is None else max(0, int(known.reshape(-1)[0]))
    begins = n.known(condition)
    if trips == 0 or (begins is not None and not begins.reshape(-1)[0]):
        return _nothing(n, carried, step)
    if trips is not None and trips * size <= FEW_NODES:
        written = _written_out(n, trips, condition, carried, step)
        if written is not None:
            return written
    mark = n.builder.block.last
    out, changes = _region(n, trip, trips if count is None else count, condition, carried, step)
    if changes and trips is not None and trips <= MOST_TRIPS and trips * size <= MOST_NODES:
        last = n.builder.block.last
        written = _written_out(n, trips, condition, carried, step)
        if written is not None:
            _erase(n.builder.block, mark, last)
            return written
    return out


def stack(n: Node, values: list[Value]) -> Value:
    """Values of one type along a new first dim."""
    rows = [n.reshape(v, (1, *n.shape(v))) for v in values]
    return rows[0] if len(rows) == 1 else n.op(graph.Concat, rows, axis=0)


def _nothing(n: Node, carried: list[Value], step: Step) -> list[Value]:
    """The results of a loop without an iteration; the body says only what would have been stacked."""
    block = Block([graph.dense((), I64), graph.dense((), BOOL)])
    with n.builder.into(block):
        values = step(block.args[0], block.args[1], carried)
        types = [n.type(v) for v in values[1 + len(carried) :]]
    drop(block)
    shapes = [(0, *(d if isinstance(d, int) else 0 for d in t.shape)) for t in types]
    return [*carried, *(n.constant(np.zeros(s, t.dtype.numpy)) for s, t in zip(shapes, types, strict=True))]


def _written_out(n: Node, trips: int, condition: Value | None, carried: list[Value], step: Step) -> list[Value] | None:
    """The results of a loop whose every iteration is known to run; None, and nothing emitted, if that is not so."""
    block, mark = n.builder.block, n.builder.block.last
    going = condition if condition is not None else n.constant(True)
    rows: list[list[Value]] = []
    for i in range(trips):
        known = n.known(going)
        if known is None:
            _erase(block, mark, block.last)
            return None
        if not known.reshape(-1)[0]:
            break
        values = step(n.constant(i, I64), going, carried)
        going, carried = values[0], values[1 : 1 + len(carried)]
        rows.append(values[1 + len(carried) :])
    return [*carried, *(stack(n, list(column)) for column in zip(*rows, strict=True))]


def _erase(block: Block, mark: Op | None, last: Op | None) -> None:
    """Erase the ops of a block after `mark` up to `last`."""
    while last is not None and last is not mark:
        before = last.prev_op
        last.erase()
        last = before


def _region(
    n: Node, trip: Value | None, trips: Dim | None, condition: Value | None, carried: list[Value], step: Step
) -> tuple[list[Value], bool]:
    """The results of a `graph.loop`, and whether its body changes the extents of what it carries."""
    carried = [hosted(n.importer, v) for v in carried]
    variables = _Variables(n, [v.type for v in carried])
    for _ in range(_ATTEMPTS):
        block = Block([graph.dense((), I64), graph.dense((), BOOL), *variables.types])
        # Where the body runs, the condition holds.
        n.builder.known[block.args[1]] = np.asarray(True)
        with n.builder.into(block):
            values = [hosted(n.importer, v) for v in step(block.args[0], block.args[1], block.args[2:])]
        if not variables.widen([v.type for v in values[1 : 1 + len(carried)]]):
            carried = [_optional(n, v, t) for v, t in zip(carried, variables.types, strict=True)]
            with n.builder.into(block):
                values[1 : 1 + len(carried)] = [
                    _optional(n, v, t) for v, t in zip(values[1:], variables.types, strict=False)
                ]
            block.append(graph.Yield(values))
            begins, goes_on = n.known(condition), n.known(values[0])
            surely = (condition is None or (begins is not None and bool(begins.all()))) and (
                goes_on is not None and bool(goes_on.all())
            )
            count: Dim = trips if surely and trips is not None else n.importer.names.fresh(f"trips_{n.loc}")
            outer = _outer_symbols(block)
            stacked = [_after(n, n.type(v), outer) for v in values[1 + len(carried) :]]
            results = [
                *(_after(n, t, outer) for t in variables.types),
                *(graph.dense((count, *t.shape), t.dtype) for t in stacked if isinstance(t, TensorType)),
            ]
            op = graph.Loop(
                trip, condition, carried, regions=[Region(block)], result_types=results, loc=n.builder.loc
            )  # fmt: skip
            return list(n.builder.block.append(op).results), bool(variables.made)
        drop(block)
    raise InputError("the extents of its carried values do not settle")


_ATTEMPTS = 8


def _optional(n: Node, v: Value, t: Type) -> Value:
    """A value as one of the type of a variable: where that is an optional, as an optional."""
    if isinstance(t, OptionalType) and not isinstance(v.type, OptionalType):
        return hosted(n.importer, StaticOptional(v))
    return v


class _Variables:
    """The types of carried values as the body gets them: an extent that an iteration changes is a symbol. Extents that
    are equal before the loop and change alike are one symbol, so the body may rely on that."""

    def __init__(self, n: Node, types: list[Type]) -> None:
        self.n = n
        self.before = types
        self.types = list(types)
        self.made: dict[str, Sym] = {}
        self.split: dict[tuple[int, int], tuple[Dim, ...]] = {}
        """Changing extents, by (value, dim) → what iterations made of them, as far as that told some apart."""

    def widen(self, after: list[Type]) -> bool:
        """Take in what an iteration gives; whether that changed the types."""
        changed = False
        for i, (before, t) in enumerate(zip(self.types, after, strict=True)):
            if isinstance(before, TensorType) and isinstance(t, TensorType):
                joined = before if (before.dtype, before.rank) == (t.dtype, t.rank) else None
            else:
                joined = joined_element(before, t)
            if joined is None:
                raise InputError(f"its body turns a carried {before} into {t}")
            changed = changed or joined != before
            self.types[i] = joined
        places = [(i, k) for i, t in enumerate(self.types) if isinstance(t, TensorType) for k in range(t.rank)]
        given = {(i, k): _extent(after[i], k) for i, k in places}
        changing = {p for p in places if _extent(self.types[p[0]], p[1]) != given[p]} | self.split.keys()
        if changing != self.split.keys():
            self.split = {p: self.split.get(p, ()) for p in sorted(changing)}
        elif self._consistent(given):
            return changed
        else:
            self.split = {p: (*old, given[p]) for p, old in self.split.items()}
        known: dict[tuple[Dim, tuple[Dim, ...]], Sym] = {}
        self.made = {}
        for (i, k), story in self.split.items():
            key = (_extent(self.before[i], k), story)
            if key not in known:
                known[key] = self.n.importer.names.fresh(f"loop_{self.n.loc}")
                self.made[known[key].name] = known[key]
            t = self.types[i]
            assert isinstance(t, TensorType)
            self.types[i] = graph.dense((*t.shape[:k], known[key], *t.shape[k + 1 :]), t.dtype)
        return True

    def _consistent(self, given: dict[tuple[int, int], Dim]) -> bool:
        """Whether all extents of one symbol become the same."""
        found: dict[Dim, Dim] = {}
        return all(found.setdefault(_extent(self.types[i], k), given[i, k]) == given[i, k] for i, k in self.split)


def _extent(t: Type, dim: int) -> Dim:
    assert isinstance(t, TensorType)
    return t.shape[dim]


def _outer_symbols(block: Block) -> set[str]:
    """The symbols in the types of what a body takes from outside."""
    inside = {r for op in block.ops for inner in op.walk() for r in inner.results}
    inside |= {a for op in block.ops for inner in op.walk() for region in inner.regions for a in region.block.args}
    captured = {v for op in block.ops for inner in op.walk() for v in inner.operands if v not in inside}
    return {s for v in captured - set(block.args) for s in free_symbols(v.type)}


def _after(n: Node, t: Type, outer: set[str]) -> Type:
    """A type of the body as it is after the last iteration: an extent that only the body knows is another symbol."""
    if not isinstance(t, TensorType):
        return t
    shape = [d if symbols(d) <= outer else n.importer.names.fresh(f"after_{n.loc}") for d in t.shape]
    return graph.dense(shape, t.dtype)


def drop(block: Block) -> None:
    """Let go of everything that the ops of a block that is thrown away use."""
    for op in list(block.ops):
        for inner in op.walk():
            inner.drop_operands()
