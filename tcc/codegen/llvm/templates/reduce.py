# SPDX-License-Identifier: Apache-2.0
"""Reductions with several vector accumulators.

Vectors lie along the dim that the operands are contiguous in: a reduced one, whose lanes are combined at the end, or a
parallel one. A long reduction with few results is split over tasks; a second launch combines the parts in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    Body,
    Int,
    KernelEmitter,
    Nest,
    Point,
    Reduction,
    Val,
    address,
    arranged,
    by_stride,
    collapse,
    combine,
    emit_region,
    identity,
    indices,
    literal,
    load,
    load_all,
    load_masked,
    nest_of,
    operand_addresses,
    result_addresses,
    store,
    store_masked,
    vector_dim,
    vector_loop,
)
from tcc.codegen.llvm.templates.map import lanes_for
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, template
from tcc.ir.expr import Dim, ceildiv, maximum, mul, product
from tcc.ir.kernel import Func, Reduce
from tcc.ir.targets import Target

GRAINS = [4096, 16384, 65536, 262144]
SPLITS = [1, 2, 4, 8, 16, 32]
ELEMENTS_PER_SECOND = 4e9
"""What one core reads and adds where the data is near; for choices, not promises."""


@dataclass(frozen=True)
class Plan:
    """The nest, with the vectors' dim innermost among its kind, and the lanes of a vector."""

    nest: Nest
    dim: str | None
    lanes: int

    @property
    def folds(self) -> bool:
        return self.dim in self.nest.reduce

    @property
    def points(self) -> Any:
        """How many results there are."""
        return product(self.nest.parallel.values())

    @property
    def depth(self) -> int:
        """How many elements a result is made of, at the tuning point."""
        return prod(map(self.nest.size, self.nest.reduce))

    @property
    def longest(self) -> Any:
        """The extent of the outermost reduced dim, which parts divide."""
        return next(iter(self.nest.reduce.values()), 1)

    @property
    def divides(self) -> bool:
        """Whether there may be parts: their places are numbers."""
        return isinstance(self.longest, int) and isinstance(self.points, int)


def make_plan(problem: Func, target: Target) -> Plan:
    """How a reduction is laid out in loops."""
    anchor = problem.anchor
    assert isinstance(anchor, Reduce)
    regions = [anchor.body, anchor.epilogue]
    nest = nest_of(problem, regions, operand_addresses(problem), result_addresses(problem))
    inputs = nest.operands[: len(anchor.ins)]
    nest = nest.reordered(by_stride(nest.parallel, nest.results), by_stride(nest.reduce, inputs))
    nest = collapse(nest)
    dim = vector_dim(replace(nest, operands=nest.operands[: len(anchor.ins)]), target.lanes)
    nest = arranged(nest, dim)
    lanes = 1 if dim is None else min(lanes_for(problem, target), 64)
    return Plan(nest, dim, lanes)


def _few_parts(columns: Columns, problem: Func, target: Target) -> Any:
    plan = make_plan(problem, target)
    if not plan.divides:
        return columns["split"] == 1
    step = plan.lanes if plan.folds and len(plan.nest.reduce) == 1 else 1
    return (columns["split"] == 1) | (columns["split"] * step * 2 <= plan.longest)


@template
class ReduceVector(Template):
    """Vector accumulators, in tasks of about `grain` elements, with `unroll` vectors side by side."""

    name = "llvm.reduce"
    kind = "cpu"
    matches = (Reduce,)
    space = Space(grain=GRAINS, unroll=[1, 2, 4, 8], split=SPLITS)
    legal = (
        Constraint(
            "parts",
            _few_parts,
            "a part of a split reduction must be at least two steps of the outermost reduced dim long",
        ),
    )

    def default(self, problem: Func, target: Target) -> Config | None:
        plan = make_plan(problem, target)
        work = plan.nest.guess(plan.points) * plan.depth
        split = 1
        if plan.divides and work >= 1 << 17 and plan.points < (8 if plan.folds else 16 * plan.lanes) * target.cores:
            fitting = [s for s in SPLITS if _few_parts({"split": np.array([s])}, problem, target)[0]]
            split = min(fitting, key=lambda s: abs(s - 4 * target.cores))
        wanted = work if work < 100_000 else work / (4 * target.cores)
        grain = min(GRAINS, key=lambda g: abs(np.log(g / max(1, wanted))))
        return {"grain": grain, "unroll": 4, "split": split}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        plan = make_plan(problem, target)
        work = max(1, plan.points * plan.depth)
        units = plan.points if plan.folds else np.ceil(plan.points / (plan.lanes * configs["unroll"]))
        tasks = np.clip(work / configs["grain"], 1, np.maximum(units, 1)) * configs["split"]
        share = tasks / np.ceil(tasks / target.cores)
        stall = 1 + 3.0 / configs["unroll"] / (1 if plan.folds or plan.depth < 8 else 2)
        second = np.where(configs["split"] > 1, target.launch_seconds + plan.points * configs["split"] / 2e9, 0)
        return target.launch_seconds + work * stall / ELEMENTS_PER_SECOND / 4 / share + tasks * 3e-8 + second

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        plan = make_plan(problem, target)
        e = KernelEmitter(problem, self.name, config, target)
        writer = ReduceWriter(e, plan, config["unroll"])
        writer.write(config["grain"], config["split"])
        how = "folded at the end" if plan.folds else "a result each"
        return e.emitted(
            instruction=f"{8 * target.vector_bytes}-bit vectors",
            vectors=f"{plan.lanes} along {plan.dim or 'nothing'}, {how}",
            loops=f"{plan.nest.parallel} | {plan.nest.reduce}",
        )


class ReduceWriter:
    """Emits the launches of a reduction."""

    def __init__(self, e: KernelEmitter, plan: Plan, unroll: int) -> None:
        self.e = e
        self.plan = plan
        self.unroll = unroll
        anchor = e.anchor
        assert isinstance(anchor, Reduce)
        self.anchor = anchor
        self.count = len(anchor.ins)
        self.parts = 1
        self.chunk = plan.longest

    def write(self, grain: int, split: int) -> None:
        """One launch, or two for a split reduction."""
        e, plan = self.e, self.plan
        if split > 1:
            step = plan.lanes if plan.folds and len(plan.nest.reduce) == 1 else 1
            self.chunk = -(-plan.longest // (split * step)) * step
            self.parts = -(-plan.longest // self.chunk)
            nbytes = len(self.anchor.combine) * self.parts * plan.points * self.anchor.acc.bytes
            e.workspace(nbytes)
        each = max(1, grain // max(1, plan.depth // self.parts))
        (self._folded if plan.folds or plan.dim is None else self._lanewise)(each)
        if self.parts > 1:
            self._finish()

    def _launch(self, tasks: Dim) -> Any:
        e, nest = self.e, self.plan.nest
        if self.parts == 1:
            return e.launch(tasks, nest.operands, nest.results)
        return e.launch(tasks, nest.operands, nest.results, writes=(), scratch_written=(0,))

    def _reduction(self, body: Body) -> Reduction:
        plan, anchor = self.plan, self.anchor
        return Reduction(
            self.e,
            plan.nest,
            plan.dim,
            plan.lanes,
            self.unroll,
            anchor.combine,
            anchor.acc,
            body.operands,
            range(self.count),
        )

    def _compute(self, body: Body) -> Any:
        e, nest = self.e, self.plan.nest

        def compute(point: Point, known: dict[int, Val]) -> list[Val]:
            values = load_all(e, body.operands, point, range(self.count), known)
            return emit_region(e, self.anchor.body, values, indices(e, point, nest.index, nest.ranges))

        return compute

    def _part(self, part: Int) -> tuple[Int, Int] | None:
        if self.parts == 1:
            return None
        start = self.e.mul(part, self.chunk)
        return start, self.e.minimum(self.e.add(start, self.chunk), self.plan.longest)

    def _put(self, body: Body, point: Point, totals: Sequence[Val], flat: Int, part: Int) -> None:
        """The accumulated values of a point: into the results, or the workspace where there are parts."""
        e, acc = self.e, self.anchor.acc
        if self.parts == 1:
            self._results(body, point, totals)
            return
        for c, total in enumerate(totals):
            at = self._slot(flat, c, part)
            where = address(e, body.workspaces[0], at, acc)
            if point.mask is None:
                store(e, total, where)
            else:
                store_masked(e, total, where, point.mask)

    def _slot(self, flat: Int, combiner: int, part: Int) -> Int:
        e = self.e
        return e.add(e.mul(e.add(part, combiner * self.parts), self.plan.points), flat)

    def _results(self, body: Body, point: Point, totals: Sequence[Val]) -> None:
        e, nest = self.e, self.plan.nest
        extra = load_all(e, body.operands, point, range(self.count, len(body.operands)))
        values = emit_region(e, self.anchor.epilogue, [*totals, *extra], indices(e, point, nest.index, nest.ranges))
        for access, value in zip(body.results, values, strict=True):
            access.store(e, point, value)

    def _folded(self, each: int) -> None:
        """Tasks of `each` points, one after another."""
        e, plan = self.e, self.plan
        names, sizes = list(plan.nest.parallel), list(plan.nest.parallel.values())
        groups = ceildiv(plan.points, each)
        with self._launch(mul(groups, self.parts)) as body, e.tasks(body.first, body.last) as task:
            sizes = [e.of(s) for s in sizes]
            group, part = e.unflatten(task, [e.of(maximum(groups, 1)), self.parts])
            start = e.mul(group, each)
            one = isinstance(groups, int) and groups <= 1
            stop = plan.points if one else e.minimum(e.add(start, each), e.of(plan.points))
            with e.points(start, stop, sizes) as at:
                point = Point({**body.symbols, **dict(zip(names, at, strict=True))})
                (totals,) = self._reduction(body).run([point], self._compute(body), self._part(part))
                self._put(body, point, totals, flatten(e, at, sizes), part)

    def _lanewise(self, each: int) -> None:
        """Tasks of about `each` points: pieces of a row of vectors, or several rows."""
        e, plan = self.e, self.plan
        assert plan.dim is not None
        names = [n for n in plan.nest.parallel if n != plan.dim]
        sizes = [plan.nest.parallel[n] for n in names]
        length, rows = plan.nest.parallel[plan.dim], product(sizes)
        wide = plan.lanes * self.unroll
        piece = -(-each // wide) * wide
        piece = min(piece, -(-length // wide) * wide) if isinstance(length, int) else piece
        pieces = ceildiv(length, piece) if length != 0 else 0
        several = max(1, each // max(1, plan.nest.guess(length)))
        groups = ceildiv(rows, several)
        with self._launch(product((groups, pieces, self.parts))) as body, e.tasks(body.first, body.last) as task:
            sizes = [e.of(s) for s in sizes]
            group, column, part = e.unflatten(
                task, [e.of(maximum(groups, 1)), e.of(maximum(pieces, 1)), self.parts]
            )  # fmt: skip
            start = e.mul(column, piece)
            one = isinstance(pieces, int) and pieces <= 1
            stop = length if one else e.minimum(e.add(start, piece), e.of(length))
            first = e.mul(group, several)
            one = isinstance(groups, int) and groups <= 1
            last = rows if one else e.minimum(e.add(first, several), e.of(rows))
            with e.points(first, last, sizes) as at:
                here = Point({**body.symbols, **dict(zip(names, at, strict=True))})
                row = flatten(e, at, sizes)

                def step(vectors: list[tuple[Int, int, Any]], here: Point = here, row: Int = row) -> None:
                    points = [here.along(plan.dim or "", v, lanes, mask) for v, lanes, mask in vectors]
                    totals = self._reduction(body).run(points, self._compute(body), self._part(part))
                    for p, (v, _, _), own in zip(points, vectors, totals, strict=True):
                        self._put(body, p, own, e.add(e.mul(row, e.of(length)), v), part)

                vector_loop(e, start, stop, plan.lanes, self.unroll, step)

    def _finish(self) -> None:
        """The second launch: the parts of every point combined in order, and the epilogue."""
        e, plan, acc = self.e, self.plan, self.anchor.acc
        names, sizes = list(plan.nest.parallel), list(plan.nest.parallel.values())
        inner = names[-1] if names else ""
        length, rows = (sizes[-1] if sizes else 1), prod(sizes[:-1])
        lanes = plan.lanes if length > 1 else 1
        several = max(1, 4096 // length)
        nest = plan.nest
        groups = -(-rows // several)
        launch = e.launch(groups, nest.operands, nest.results, scratch_read=(0,))
        with launch as body, e.tasks(body.first, body.last) as task:
            first = e.mul(task, several)
            last = rows if groups <= 1 else e.minimum(e.add(first, several), rows)
            with e.points(first, last, sizes[:-1]) as at:
                here = Point(dict(zip(names[:-1], at, strict=True)))
                row = flatten(e, at, sizes[:-1])

                def one(v: Int, width: int, mask: Any, here: Point = here, row: Int = row) -> None:
                    totals: list[Val] = []
                    for c, combiner in enumerate(self.anchor.combine):
                        total = e.var(e.splat(literal(acc, identity(combiner, acc)).ir, width))
                        with e.loop(0, self.parts, name="part", unroll=False) as part:
                            slot = self._slot(e.add(e.mul(row, length), v), c, part)
                            where = address(e, body.workspaces[0], slot, acc)
                            value = (
                                load(e, where, acc, width) if mask is None else load_masked(e, where, acc, width, mask)
                            )
                            total.set(combine(e, combiner, Val(acc, total.get()), value).ir)
                        totals.append(Val(acc, total.get()))
                    self._results(body, here.along(inner, v, width, mask) if inner else here, totals)

                def step(vectors: list[tuple[Int, int, Any]]) -> None:
                    for v, width, mask in vectors:
                        one(v, width, mask)

                vector_loop(e, 0, length, lanes, 1, step)


def flatten(e: KernelEmitter, at: Sequence[Int], sizes: Sequence[Int]) -> Int:
    """The row-major index of a point."""
    flat: Int = 0
    for i, size in zip(at, sizes, strict=True):
        flat = e.add(e.mul(flat, size), i)
    return flat
