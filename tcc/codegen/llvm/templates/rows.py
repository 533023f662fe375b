# SPDX-License-Identifier: Apache-2.0
"""Softmax, normalizations and their kind: several reductions over a row, then a map over it, one row (or one vector of
rows) at a time, so that the row stays in the nearest cache.

A costly value that a stage reduces and a later stage needs again (softmax's exponential) is kept in a row of its own.
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
    emit_region,
    indices,
    load,
    load_all,
    load_masked,
    nest_of,
    operand_addresses,
    result_addresses,
    spread,
    store,
    store_masked,
    vector_dim,
    vector_loop,
)
from tcc.codegen.llvm.emit.values import compute_type
from tcc.codegen.llvm.templates.map import lanes_for
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, template
from tcc.ir.core import Region, Value
from tcc.ir.expr import Dim, ceildiv, maximum, mul, product
from tcc.ir.kernel import Func, Index, Rows
from tcc.ir.scalar import element
from tcc.ir.targets import Target
from tcc.ir.types import F32

GRAINS = [1024, 4096, 16384, 65536]
KEPT_BYTES = 64 << 10
"""The most stack that kept values may take."""


@dataclass(frozen=True)
class Plan:
    """The nest, the vectors' dim (innermost among its kind), the lanes, and what is kept: (stage whose yielded value it
    is, stage that uses it, the value there)."""

    nest: Nest
    dim: str | None
    lanes: int
    kept: tuple[tuple[int, int, Value], ...]

    @property
    def folds(self) -> bool:
        return self.dim in self.nest.reduce

    @property
    def rows(self) -> int:
        """How many rows there are, at the tuning point."""
        return prod(map(self.nest.size, self.nest.parallel))

    @property
    def length(self) -> int:
        """How long a row is, at the tuning point."""
        return prod(map(self.nest.size, self.nest.reduce))

    @property
    def keeps(self) -> bool:
        """Whether there is something to keep, and room for it."""
        known = all(isinstance(size, int) for size in self.nest.reduce.values())
        return bool(self.kept) and known and self.kept_bytes <= KEPT_BYTES

    @property
    def kept_bytes(self) -> int:
        each = self.length * (1 if self.folds else self.lanes)
        return 8 * each * len({stage for stage, _, _ in self.kept})


def make_plan(problem: Func, target: Target) -> Plan:
    """How rows are laid out in loops."""
    anchor = problem.anchor
    assert isinstance(anchor, Rows)
    nest = nest_of(problem, anchor.stages, operand_addresses(problem), result_addresses(problem))
    nest = nest.reordered(by_stride(nest.parallel, nest.results), by_stride(nest.reduce, nest.results))
    nest = collapse(nest)
    dim = vector_dim(nest, target.lanes)
    nest = arranged(nest, dim)
    lanes = 1 if dim is None else min(lanes_for(problem, target), target.lanes)
    return Plan(nest, dim, lanes, tuple(repeated(anchor)))


def repeated(anchor: Rows) -> list[tuple[int, int, Value]]:
    """Costly values that a stage yields and a later one computes again: (stage, later stage, the value there)."""
    found: list[tuple[int, int, Value]] = []
    for s, region in enumerate(anchor.stages[:-1]):
        (value,) = region.block.terminator.operands
        if not _costly(value):
            continue
        key = expression(value, region)
        for t in range(s + 1, len(anchor.stages)):
            later = anchor.stages[t]
            for op in later.block.ops:
                if op.results and expression(op.results[0], later) == key:
                    found.append((s, t, op.results[0]))
                    break
    return found


def _costly(value: Value) -> bool:
    op = value.defining_op
    if op is None:
        return False
    return (op.name.startswith("math.") and op.name != "math.abs") or any(_costly(v) for v in op.operands)


def expression(value: Value, region: Region) -> Any:
    """A value as a tree over the region's arguments: equal trees are equal values, across a kernel's stages too."""
    op = value.defining_op
    if op is None:
        return ("argument", region.block.args.index(value))  # pyright: ignore[reportArgumentType]
    if isinstance(op, Index):
        return ("index", op.dim)
    attributes = tuple(sorted((k, repr(v)) for k, v in op.attrs.items()))
    return (op.name, str(value.type), attributes, tuple(expression(v, region) for v in op.operands))


def _keeps(columns: Columns, problem: Func, target: Target) -> Any:
    plan = make_plan(problem, target)
    return ~columns["keep"].astype(bool) | plan.keeps


@template
class RowsVector(Template):
    """Rows in tasks of about `grain` elements, `unroll` vectors side by side; `keep`: hold on to repeated values."""

    name = "llvm.rows"
    kind = "cpu"
    matches = (Rows,)
    space = Space(grain=GRAINS, unroll=[1, 2, 4, 8], keep=[True, False])
    legal = (Constraint("keep", _keeps, f"nothing is computed twice, or a row of it has more than {KEPT_BYTES} bytes"),)

    def default(self, problem: Func, target: Target) -> Config | None:
        plan = make_plan(problem, target)
        work = plan.rows * plan.length
        wanted = work if work < 40_000 else work / (4 * target.cores)
        grain = min(GRAINS, key=lambda g: abs(np.log(g / max(1, wanted))))
        vectors = plan.length / plan.lanes if plan.folds else 4
        return {"grain": grain, "unroll": 4 if vectors >= 8 else 2 if vectors >= 3 else 1, "keep": plan.keeps}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        plan = make_plan(problem, target)
        work = max(1, plan.rows * plan.length)
        stages = len(problem.anchor.regions)
        units = plan.rows if plan.folds else np.ceil(plan.rows / plan.lanes)
        tasks = np.clip(work / configs["grain"], 1, max(units, 1))
        share = tasks / np.ceil(tasks / target.cores)
        vectors = np.maximum(1, plan.length / plan.lanes) if plan.folds else plan.length
        padded = np.ceil(vectors / configs["unroll"]) * configs["unroll"] / vectors
        each = stages * (1 + 1 / configs["unroll"]) + 8.0 * len(plan.kept) * np.where(configs["keep"], 1, 2)
        return target.launch_seconds + work / plan.lanes * each * padded**0.1 / 3e9 / share + tasks * 3e-8

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        plan = make_plan(problem, target)
        e = KernelEmitter(problem, self.name, config, target)
        _Writer(e, plan if config["keep"] else replace(plan, kept=()), config["unroll"]).write(config["grain"])
        how = "folded" if plan.folds else "a row each"
        return e.emitted(
            instruction=f"{8 * target.vector_bytes}-bit vectors",
            vectors=f"{plan.lanes} along {plan.dim or 'nothing'}, {how}",
            loops=f"{plan.nest.parallel} | {plan.nest.reduce}",
        )


def _single(count: Dim) -> bool:
    return isinstance(count, int) and count <= 1


class _Writer:
    """Emits the kernel of a plan."""

    def __init__(self, e: KernelEmitter, plan: Plan, unroll: int) -> None:
        self.e = e
        self.plan = plan
        self.unroll = unroll
        anchor = e.anchor
        assert isinstance(anchor, Rows)
        self.anchor = anchor
        self.saved: dict[int, Any] = {}

    def write(self, grain: int) -> None:
        """Tasks of whole rows."""
        e, plan = self.e, self.plan
        along = None if plan.folds else plan.dim
        names = [n for n in plan.nest.parallel if n != along]
        sizes = [plan.nest.parallel[n] for n in names]
        count = product(sizes)
        length = 1 if along is None else plan.nest.parallel[along]
        each = max(1, grain // max(1, plan.length))
        several = max(1, each // max(1, plan.nest.guess(length)))
        piece = -(-each // plan.lanes) * plan.lanes if along else 1
        if along and isinstance(length, int):
            piece = min(piece, -(-length // plan.lanes) * plan.lanes)
        pieces = ceildiv(length, piece)
        groups = ceildiv(count, several)
        with e.launch(mul(groups, pieces), plan.nest.operands, plan.nest.results) as body:
            for stage in sorted({s for s, _, _ in plan.kept}):
                self.saved[stage] = self._room(stage)
            with e.tasks(body.first, body.last) as task:
                group, column = e.unflatten(task, [e.of(maximum(groups, 1)), e.of(maximum(pieces, 1))])
                first = e.mul(group, several)
                last = count if _single(groups) else e.minimum(e.add(first, several), e.of(count))
                with e.points(first, last, [e.of(s) for s in sizes]) as at:
                    here = Point({**body.symbols, **dict(zip(names, at, strict=True))})
                    if along is None:
                        self.row(body, here)
                    else:
                        start = e.mul(column, piece)
                        stop = length if _single(pieces) else e.minimum(e.add(start, piece), e.of(length))
                        self.columns(body, here, along, start, stop)

    def columns(self, body: Body, here: Point, along: str, start: Int, stop: Int) -> None:
        """Rows that lie side by side, a vector of them at a time."""

        def step(vectors: list[tuple[Int, int, Any]]) -> None:
            for v, lanes, mask in vectors:
                self.row(body, here.along(along, v, lanes, mask))

        vector_loop(self.e, start, stop, self.plan.lanes, 1, step)

    def row(self, body: Body, point: Point) -> None:
        """One row (or vector of rows): every stage, then the results."""
        e, plan, anchor = self.e, self.plan, self.anchor
        done: list[Val] = []
        for s, (combiner, region) in enumerate(zip(anchor.combine, anchor.stages[:-1], strict=True)):
            reduction = self._reduction(body, (combiner,))

            def compute(p: Point, known: dict[int, Val], s: int = s, region: Region = region) -> list[Val]:
                values = self._region(body, region, s, p, known, done)
                if s in self.saved:
                    self._save(s, p, values[0])
                return values

            ((total,),) = reduction.run([point], compute)
            done.append(total)
        last = len(anchor.stages) - 1

        def write(p: Point, known: dict[int, Val]) -> None:
            values = self._region(body, anchor.stages[last], last, p, known, done)
            for access, value in zip(body.results, values, strict=True):
                access.store(e, p, value)

        names = list(plan.nest.reduce)
        if not names:
            write(point, {})
            return
        reduction = self._reduction(body, anchor.combine)
        with reduction.outer(point, None) as (inside, start, stop):
            known = reduction.known(inside)
            if not plan.folds:
                with e.loop(start, stop, name=names[-1]) as at:
                    write(inside.moved(**{names[-1]: at}), known)
            else:

                def step(vectors: list[tuple[Int, int, Any]]) -> None:
                    for v, lanes, mask in vectors:
                        write(inside.along(names[-1], v, lanes, mask), known)

                vector_loop(e, start, stop, plan.lanes, self.unroll, step)

    def _reduction(self, body: Body, combiners: Sequence[str]) -> Reduction:
        plan, which = self.plan, range(len(body.operands))
        return Reduction(
            self.e, plan.nest, plan.dim, plan.lanes, self.unroll, combiners, self.anchor.acc, body.operands, which
        )

    def _region(
        self, body: Body, region: Region, stage: int, p: Point, known: dict[int, Val], done: Sequence[Val]
    ) -> list[Val]:
        e, nest = self.e, self.plan.nest
        before = {value: self._saved(s, p) for s, t, value in self.plan.kept if t == stage}
        values = load_all(e, body.operands, p, None, known)
        at = indices(e, p, nest.index, nest.ranges)
        return emit_region(e, region, [*values, *done], at, before)

    # Kept values: [place in the row][lane].

    def _dtype(self, stage: int) -> Any:
        return element(self.anchor.stages[stage].block.terminator.operands[0])

    def _room(self, stage: int) -> Any:
        """Stack for a row of values; narrow floats are kept as f32, as they are held."""
        width = 1 if self.plan.folds else self.plan.lanes
        return self.e.alloca(compute_type(self._dtype(stage)), self.plan.length * width, align=64)

    def _place(self, stage: int, p: Point) -> Any:
        flat: Int = 0
        for name, size in self.plan.nest.reduce.items():
            flat = self.e.add(self.e.mul(flat, size), p.at[name])
        if not self.plan.folds:
            flat = self.e.mul(flat, self.plan.lanes)
        return address(self.e, self.saved[stage], flat, self._held(stage))

    def _held(self, stage: int) -> Any:
        dtype = self._dtype(stage)
        return F32 if dtype.is_float and dtype.bits < 32 else dtype

    def _save(self, stage: int, p: Point, value: Val) -> None:
        held = self._held(stage)
        value = spread(self.e, Val(held, value.ir), p.lanes)
        if p.mask is None or not self.plan.folds:
            store(self.e, value, self._place(stage, p))
        else:
            store_masked(self.e, value, self._place(stage, p), p.mask)

    def _saved(self, stage: int, p: Point) -> Val:
        held, place = self._held(stage), self._place(stage, p)
        if p.mask is None or not self.plan.folds:
            value = load(self.e, place, held, p.lanes)
        else:
            value = load_masked(self.e, place, held, p.lanes, p.mask)
        return Val(self._dtype(stage), value.ir)
