# SPDX-License-Identifier: Apache-2.0
"""Reductions as vectors: along a contiguous dim that is reduced (lanes are combined at the end), or with each lane a
point of its own along a parallel dim.

Several accumulators run side by side, as one alone would wait for its own last addition; the order of combination
follows from the extents and the config only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from tcc.codegen.llvm.emit.access import Access, Address, Point, load_all
from tcc.codegen.llvm.emit.builder import Emitter, Var
from tcc.codegen.llvm.emit.convert import cast, literal, spread
from tcc.codegen.llvm.emit.kernel import KernelEmitter
from tcc.codegen.llvm.emit.nest import Nest
from tcc.codegen.llvm.emit.region import combine, identity
from tcc.codegen.llvm.emit.values import Int, Val
from tcc.codegen.llvm.emit.vectors import vector_loop
from tcc.ir.types import DType

Known = dict[int, Val]
Compute = Callable[[Point, Known], "Sequence[Val]"]
"""(a point, what is known of the operands) → one value per combiner."""


def vector_dim(nest: Nest, lanes: int, kinds: Sequence[str] = ("reduce", "parallel")) -> str | None:
    """The dim to lay vectors along: the one that most of what is read and written is contiguous in; long ones before
    short ones, then parallel ones. None if there is no dim."""
    names = (*nest.parallel, *nest.reduce)

    def weight(a: Address) -> float:
        return float(prod(nest.size(n) for n in names if n in a.symbols))

    whole = max([1.0, *(weight(a) for a in nest.addresses)])
    best: tuple[tuple[float, ...], str] | None = None
    for kind in kinds:
        for name in getattr(nest, kind):
            size = nest.size(name)
            score = 0.0
            for a in nest.operands:
                step = a.stride_along(name)
                good = 3.0 if step == 1 else 1.0 if step == 0 else 0.5 if step is not None and abs(step) <= 4 else 0.0
                score += good * weight(a) / whole
            for r in nest.results:
                score += (1.0 if r.stride_along(name) == 1 else 0.0) * weight(r) / whole
            key = (min(size, lanes) / lanes * score, score, float(kind == "parallel"))
            if best is None or key > best[0]:
                best = key, name
    return None if best is None else best[1]


def arranged(nest: Nest, dim: str | None) -> Nest:
    """The nest with `dim` innermost among its kind."""
    parallel = sorted(nest.parallel, key=lambda n: n == dim)
    reduce = sorted(nest.reduce, key=lambda n: n == dim)
    return nest.reordered(parallel, reduce)


@dataclass
class Reduction:
    """How values are accumulated: over `nest.reduce`, with `lanes` lanes along `dim` (reduced or parallel), in type
    `acc`, `unroll` vectors side by side. `operands`: those to read outside the innermost loop if they do not vary in
    it, by index."""

    e: KernelEmitter
    nest: Nest
    dim: str | None
    lanes: int
    unroll: int
    combiners: Sequence[str]
    acc: DType
    operands: Sequence[Access]
    which: Sequence[int]

    @property
    def folds(self) -> bool:
        """Whether the lanes are combined in the end."""
        return self.dim in self.nest.reduce

    def run(self, points: Sequence[Point], compute: Compute, part: tuple[Int, Int] | None = None) -> list[list[Val]]:
        """The accumulated values of some parallel points (vectors of points, unless lanes fold), one per combiner.
        `part`: the range of the outermost reduced dim, if not all of it."""
        names = list(self.nest.reduce)
        width = 1 if self.folds else points[0].lanes
        if not names:
            out: list[list[Val]] = []
            for p in points:
                values = compute(p, {})
                first = [self._identity(c, width) for c in self.combiners]
                out.append([self._combine(c, a, v) for c, a, v in zip(self.combiners, first, values, strict=True)])
            return out
        if self.folds:
            (point,) = points
            return [self._fold(point, compute, part)]
        return self._lanewise(points, compute, part)

    def _identity(self, combiner: str, lanes: int) -> Val:
        return spread(self.e, literal(self.acc, identity(combiner, self.acc)), lanes)

    def _combine(self, combiner: str, a: Val, b: Val) -> Val:
        return combine(self.e, combiner, a, cast(self.e, b, self.acc))

    def _variables(self, lanes: int) -> list[Var]:
        return [self.e.var(self._identity(c, lanes).ir) for c in self.combiners]

    def _update(self, totals: Sequence[Var], values: Sequence[Val], lanes: int, mask: Any) -> None:
        e = self.e
        for total, combiner, value in zip(totals, self.combiners, values, strict=True):
            value = spread(e, cast(e, value, self.acc), lanes)
            if mask is not None:
                value = Val(self.acc, e.select(mask, value.ir, self._identity(combiner, lanes).ir))
            total.set(combine(e, combiner, Val(self.acc, total.get()), value).ir)

    @contextmanager
    def outer(self, point: Point, part: tuple[Int, Int] | None) -> Iterator[tuple[Point, Int, Int]]:
        """Loops over all reduced dims but the innermost; gives the point and the innermost dim's range."""
        names = list(self.nest.reduce)
        with self._loops(names[:-1], point, part) as inside:
            if len(names) == 1 and part is not None:
                yield inside, *part
            else:
                yield inside, 0, self.e.of(self.nest.reduce[names[-1]])

    @contextmanager
    def _loops(self, names: Sequence[str], point: Point, part: tuple[Int, Int] | None) -> Iterator[Point]:
        if not names:
            yield point
            return
        start, stop = (0, self.e.of(self.nest.reduce[names[0]])) if part is None else part
        with (
            self.e.loop(start, stop, name=names[0], unroll=False) as i,
            self._loops(names[1:], point.moved(**{names[0]: i}), None) as inside,
        ):
            yield inside

    def known(self, point: Point) -> Known:
        """What operands read that do not vary along the innermost reduced dim (nor, if it is parallel, across lanes:
        those come as vectors)."""
        return invariant(self.e, self.operands, point, list(self.nest.reduce)[-1], self.which)

    def _fold(self, point: Point, compute: Compute, part: tuple[Int, Int] | None) -> list[Val]:
        e, dim = self.e, list(self.nest.reduce)[-1]
        vectors = [self._variables(self.lanes) for _ in range(self.unroll)]
        single = self._variables(1)
        used_single = False
        with self.outer(point, part) as (inside, start, stop):
            known = self.known(inside)

            def step(some: list[tuple[Int, int, Any]]) -> None:
                nonlocal used_single
                for u, (at, lanes, mask) in enumerate(some):
                    values = compute(inside.along(dim, at, lanes, mask), known)
                    scalar = lanes == 1 and self.lanes > 1
                    used_single |= scalar
                    self._update(single if scalar else vectors[u], values, lanes, mask)

            vector_loop(e, start, stop, self.lanes, self.unroll, step)
        out: list[Val] = []
        for c, combiner in enumerate(self.combiners):
            parts = [Val(self.acc, v[c].get()) for v in vectors]
            total = self._tree(combiner, parts)
            total = Val(self.acc, e.fold(total.ir, self._pair(combiner)))
            out.append(combine(e, combiner, total, Val(self.acc, single[c].get())) if used_single else total)
        return out

    def _pair(self, combiner: str) -> Callable[[Any, Any], Any]:
        return lambda a, b: combine(self.e, combiner, Val(self.acc, a), Val(self.acc, b)).ir

    def _tree(self, combiner: str, parts: list[Val]) -> Val:
        while len(parts) > 1:
            half = len(parts) // 2
            pairs = zip(parts[:half], parts[half : 2 * half], strict=True)
            parts = [combine(self.e, combiner, a, b) for a, b in pairs] + parts[2 * half :]
        return parts[0]

    def _ways(self) -> int:
        """How many sums of each point are kept side by side. The same for all points, in the tail of a row too: equal
        numbers must give equal sums wherever they lie."""
        length = self.nest.parallel.get(self.dim or "", 1)
        vectors = -(-length // self.lanes) if isinstance(length, int) else self.unroll
        return max(1, self.unroll // max(1, min(vectors, self.unroll)))

    def _lanewise(self, points: Sequence[Point], compute: Compute, part: tuple[Int, Int] | None) -> list[list[Val]]:
        e, dim = self.e, list(self.nest.reduce)[-1]
        ways = self._ways()
        totals = [[self._variables(p.lanes) for _ in range(ways)] for p in points]
        with self.outer(points[0], part) as (inside, start, stop):
            moved = {n: inside.at[n] for n in list(self.nest.reduce)[:-1]}
            known = [self.known(p.moved(**moved)) for p in points]
            middle = e.add(start, e.mul(e.floordiv(e.sub(stop, start), ways, nonnegative=True), ways))
            for first, last, count in ((start, middle, ways), (middle, stop, 1)):
                if ways == 1 and count == 1 and first is not start:
                    continue
                if isinstance(first, int) and isinstance(last, int) and first >= last:
                    continue
                with e.loop(first, last, count, name=dim, unroll=False if count > 1 or len(points) > 2 else None) as at:
                    for w in range(count):
                        for p, own, here in zip(points, totals, known, strict=True):
                            values = compute(p.moved(**moved, **{dim: e.add(at, w)}), here)
                            self._update(own[w], values, p.lanes, None)
        return [
            [self._tree(c, [Val(self.acc, way[i].get()) for way in own]) for i, c in enumerate(self.combiners)]
            for own in totals
        ]


def invariant(
    e: Emitter,
    operands: Sequence[Access],
    point: Point,
    inner: str,
    which: Sequence[int] | None = None,
    known: Known | None = None,
) -> Known:
    """What the operands (those of `which`) that do not vary along `inner` read at the point, by index."""
    wanted = set(range(len(operands)) if which is None else which) - set(known or {})
    fixed: set[int] = set()
    changed = True
    while changed:
        changed = False
        for i in sorted(wanted - fixed):
            where = operands[i].where
            if inner not in where.symbols and {int(s[1:]) for s in where.indirect} <= fixed | set(known or {}):
                fixed.add(i)
                changed = True
    order = sorted(fixed)
    return dict(zip(order, load_all(e, operands, point, order, known), strict=True))
