# SPDX-License-Identifier: Apache-2.0
"""Reductions whose bounds are data, with vectors along the innermost dim of the results.

The bounds are read once a point; vectors side by side keep their accumulators in registers over the whole part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    Var,
    cast,
    combine,
    emit_region,
    extents,
    identity,
    indices,
    invariant,
    literal,
    load_all,
    result_addresses,
    spread,
    vector_loop,
)
from tcc.codegen.llvm.templates.map import lanes_for
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, template
from tcc.ir.expr import ceildiv, product
from tcc.ir.kernel import Func, Ragged
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target
from tcc.ir.types import I64

PART = 16
"""How many elements a part is taken to have: only data say."""


@template
class RaggedVector(Template):
    """`chunk` points, without the vectors' dim, are a task; `unroll` vectors are accumulated side by side."""

    name = "llvm.ragged"
    kind = "cpu"
    matches = (Ragged,)
    space = Space(chunk=[1, 4, 16, 64, 256], unroll=[1, 2, 4, 8])

    def default(self, problem: Func, target: Target) -> Config | None:
        points, length = _size(problem)
        vectors = -(-length // lanes_for(problem, target))
        wanted = max(1, min(points / (4 * target.cores), 40_000 / (PART * max(vectors, 1))))
        return {
            "chunk": min(self.space.parameters["chunk"], key=lambda c: abs(np.log(c / wanted))),
            "unroll": next(u for u in (1, 2, 4, 8, 8) if u >= vectors or u == 8),
        }

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        points, length = _size(problem)
        vectors = -(-length // lanes_for(problem, target))
        passes = np.ceil(vectors / configs["unroll"])
        each = PART * (vectors + 3 * passes) / 3e9
        tasks = np.ceil(points / configs["chunk"])
        return target.launch_seconds + np.ceil(tasks / target.cores) * (configs["chunk"] * each + 3e-8)

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        e = KernelEmitter(problem, self.name, config, target)
        lanes = lanes_for(problem, target) if _dense(problem) else 1
        ragged(e, config["chunk"], lanes, config["unroll"])
        return e.emitted(instruction=f"{8 * target.vector_bytes}-bit vectors" if lanes > 1 else "scalar")


def _dense(problem: Func) -> bool:
    """Whether all results are contiguous along the last parallel dim."""
    inner = problem.anchor.domain.parallel_names[-1]
    return all(r.stride_along(inner) == 1 for r in result_addresses(problem))


def _size(problem: Func) -> tuple[int, int]:
    """(points without the innermost parallel dim, extent of that)."""
    size = extents(typical(problem))
    *outer, inner = problem.anchor.domain.parallel_names
    return prod(size[n] for n in outer), size[inner]


def ragged(e: KernelEmitter, chunk: int, lanes: int, unroll: int) -> None:
    """The launch, in tasks of `chunk` points."""
    domain = e.anchor.domain
    *outer, inner = domain.parallel_names
    total = product(domain.extent(n) for n in outer)
    with e.launch(ceildiv(total, chunk)) as body, e.tasks(body.first, body.last) as task:
        start = e.mul(task, chunk)
        stop = e.minimum(e.add(start, chunk), e.of(total))
        with e.points(start, stop, [e.of(domain.extent(n)) for n in outer], "point") as at:
            here = Point({**body.symbols, **dict(zip(outer, at, strict=True)), inner: 0})
            _Part(e, body, here).points(inner, lanes, unroll)


class _Part:
    """The part that belongs to the points along one dim. Bounds that vary along it are read at each."""

    def __init__(self, e: KernelEmitter, body: Body, here: Point) -> None:
        self.e = e
        self.body = body
        self.here = here
        anchor = e.anchor
        assert isinstance(anchor, Ragged)
        self.anchor = anchor

    def points(self, inner: str, lanes: int, unroll: int) -> None:
        """All points along the innermost parallel dim."""
        e, anchor = self.e, self.anchor
        if any(inner in anchor.maps[i].symbols for i in range(len(anchor.bounds))):
            lanes = unroll = 1
        bounds = self.bounds(self.here) if lanes > 1 else []

        def step(vectors: list[tuple[Int, int, Any]]) -> None:
            points = [self.here.along(inner, v, count, mask) for v, count, mask in vectors]
            self.reduce(points, bounds or self.bounds(points[0]))

        vector_loop(e, 0, e.of(anchor.domain.extent(inner)), lanes, unroll, step)

    def bounds(self, point: Point) -> list[tuple[Int, Int]]:
        """(begin, end) of each reduce dim, within the dim."""
        e, anchor = self.e, self.anchor
        read = load_all(e, self.body.operands, point, range(len(anchor.bounds)))
        ends = [cast(e, v, I64).ir for v in read]
        return [
            (e.maximum(ends[2 * i], 0), e.minimum(ends[2 * i + 1], e.of(anchor.domain.extent(n))))
            for i, n in enumerate(anchor.domain.reduce_names)
        ]

    def reduce(self, points: Sequence[Point], bounds: Sequence[tuple[Int, Int]]) -> None:
        """The results at some vectors of points that share their bounds."""
        e, anchor, acc = self.e, self.anchor, self.anchor.acc
        totals = [
            [e.var(spread(e, literal(acc, identity(c, acc)), p.lanes).ir) for c in anchor.combine] for p in points
        ]
        names = anchor.domain.reduce_names
        with self.loops(list(zip(names[:-1], bounds, strict=False)), {}) as at:
            known = [invariant(e, self.body.operands, p.moved(**at), names[-1], anchor.inside) for p in points]
            with e.loop(*bounds[-1], name=names[-1], unroll=False) as i:
                for p, own, fixed in zip(points, totals, known, strict=True):
                    self.accumulate(p.moved(**at, **{names[-1]: i}), own, fixed)
        for p, own in zip(points, totals, strict=True):
            extra = load_all(e, self.body.operands, p, anchor.after)
            args = [*(Val(acc, t.get()) for t in own), *extra]
            results = emit_region(e, anchor.epilogue, args, indices(e, p))
            for access, value in zip(self.body.results, results, strict=True):
                access.store(e, p, value)

    @contextmanager
    def loops(self, dims: Sequence[tuple[str, tuple[Int, Int]]], at: dict[str, Int]) -> Iterator[dict[str, Int]]:
        """Loops over the parts of some dims; gives the coordinates."""
        if not dims:
            yield at
            return
        (name, (begin, end)), *rest = dims
        with self.e.loop(begin, end, name=name, unroll=False) as i, self.loops(rest, {**at, name: i}) as inside:
            yield inside

    def accumulate(self, point: Point, totals: Sequence[Var], known: dict[int, Val]) -> None:
        """One element of the part, at a vector of points."""
        e, anchor, acc = self.e, self.anchor, self.anchor.acc
        scalars = load_all(e, self.body.operands, point, anchor.inside, known)
        values = emit_region(e, anchor.body, scalars, indices(e, point))
        for total, combiner, value in zip(totals, anchor.combine, values, strict=True):
            value = spread(e, cast(e, value, acc), point.lanes)
            total.set(combine(e, combiner, Val(acc, total.get()), value).ir)
