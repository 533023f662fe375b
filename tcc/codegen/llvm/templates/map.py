# SPDX-License-Identifier: Apache-2.0
"""Pointwise kernels with vectors along the innermost dim of the results.

Dims are merged first, so a pointwise kernel over dense tensors is one long loop. Operands that do not vary along the
vectors are read outside the inner loop. An operand that is contiguous along another dim than the results (a transpose)
is read in squares that are transposed in registers; whatever is neither goes through gathers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Val,
    by_stride,
    collapse,
    complexity,
    emit_region,
    indices,
    invariant,
    load_all,
    merge,
    nest_of,
    operand_addresses,
    result_addresses,
    transpose,
    vector_loop,
)
from tcc.codegen.llvm.emit.memory import from_storage, load_raw
from tcc.codegen.llvm.emit.values import compute_type
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, template
from tcc.ir.expr import Dim, ceildiv, maximum, mul, product
from tcc.ir.kernel import Func, Map
from tcc.ir.scalar import ScalarOp
from tcc.ir.targets import Target

GRAINS = [1024, 4096, 16384, 65536, 262144]
UNROLLS = [1, 2, 4, 8]


@dataclass(frozen=True)
class Plan:
    """The nest; `inner`, the vectors' dim; `across`, the dim along which the operands in `turned` are contiguous;
    `lanes` of a vector."""

    nest: Nest
    inner: str
    lanes: int
    across: str | None
    turned: tuple[int, ...]

    @property
    def outer(self) -> dict[str, Any]:
        """The dims outside a row of vectors."""
        return {n: size for n, size in self.nest.parallel.items() if n != self.inner}


def make_plan(problem: Func, target: Target) -> Plan:
    """How a map is laid out in loops."""
    anchor = problem.anchor
    assert isinstance(anchor, Map)
    nest = nest_of(problem, [anchor.body], operand_addresses(problem), result_addresses(problem))
    nest = collapse(nest.reordered(by_stride(nest.parallel, (*nest.results, *nest.operands))))
    lanes = lanes_for(problem, target)
    if not nest.parallel:
        return Plan(replace(nest, parallel={"": 1}), "", 1, None, ())
    nest = _widen(nest, lanes)
    inner = list(nest.parallel)[-1]
    across, turned = _turned(nest, inner, lanes)
    return Plan(nest, inner, lanes if nest.size(inner) > 1 else 1, across, turned)


def lanes_for(problem: Func, target: Target) -> int:
    """Elements of a vector: a register of the widest type that the kernel reads or writes (64-bit ones take two)."""
    anchor = problem.anchor
    used = {s for m in anchor.maps for s in m.symbols if s.startswith("$")}
    values = [v for i, v in enumerate(anchor.operands) if f"${i}" not in used] + list(anchor.results)
    widths = [_compute_bytes(v.type.dtype) for v in values]  # pyright: ignore[reportAttributeAccessIssue]
    widest = max(widths)
    return target.vector_bytes // (8 if min(widths) == 8 else min(widest, 4))


def _compute_bytes(dtype: Any) -> int:
    if dtype.bits in (16, 8) and dtype.is_float:
        return 4
    return max(1, getattr(compute_type(dtype), "width", dtype.bits) // 8)


def _widen(nest: Nest, lanes: int) -> Nest:
    """Merge short inner dims although operands then need gathers, where results stay contiguous."""
    while len(nest.parallel) > 1:
        outer, inner = list(nest.parallel)[-2:]
        if not isinstance(nest.parallel[inner], int) or 2 * nest.parallel[inner] > lanes:
            break
        other = merge(nest, outer, inner)
        if any(r.stride_along(inner) != 1 for r in other.results):
            break
        if any(a.guards or a.zero for a in nest.operands) and _extra(other, nest) > 4:
            break
        nest = other
    return nest


def _extra(new: Nest, old: Nest) -> int:
    return sum(
        complexity(x) - complexity(y)
        for a, b in zip(new.operands, old.operands, strict=True)
        for x, y in zip(a.expressions, b.expressions, strict=True)
    )


def _turned(nest: Nest, inner: str, lanes: int) -> tuple[str | None, tuple[int, ...]]:
    """(the dim, the operands) to transpose in registers, or (None, ())."""
    if lanes < 4 or nest.tuning or nest.parallel[inner] < lanes:
        return None, ()
    found: dict[str, list[int]] = {}
    for i, a in enumerate(nest.operands):
        step = a.stride_along(inner)
        if a.is_guarded or a.indirect or step is None or abs(step) <= 4:
            continue
        for n, size in nest.parallel.items():
            if n != inner and size >= lanes and a.stride_along(n) == 1:
                found.setdefault(n, []).append(i)
    if not found:
        return None, ()
    across = max(found, key=lambda n: len(found[n]))
    return across, tuple(found[across])


@template
class MapVector(Template):
    """Vectors along the results' innermost dim."""

    name = "llvm.map"
    kind = "cpu"
    matches = (Map,)

    def space_for(self, problem: Func, target: Target) -> Space:
        plan = make_plan(problem, target)
        squares = [True, False] if plan.turned else [False]
        return Space(grain=GRAINS, unroll=UNROLLS, squares=squares)

    def default(self, problem: Func, target: Target) -> Config | None:
        plan = make_plan(problem, target)
        points = prod(map(plan.nest.size, plan.nest.parallel))
        work = points * (1 + _operations(problem) / 8)
        wanted = points if work < 40_000 else max(4096, points / (4 * target.cores))
        grain = min(GRAINS, key=lambda g: abs(np.log(g / max(wanted, 1))))
        return {
            "grain": min(grain, 65536),
            "unroll": 4 if _operations(problem) <= 4 else 2,
            "squares": bool(plan.turned),
        }

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        plan = make_plan(problem, target)
        points = prod(plan.nest.parallel.values())
        moved = 0
        for value in {*problem.anchor.operands, *problem.anchor.results}:
            moved += int(value.type.nbytes)  # pyright: ignore[reportAttributeAccessIssue]
        tasks = np.maximum(1, np.ceil(points / configs["grain"]))
        share = np.minimum(tasks, target.cores) * tasks / (np.ceil(tasks / target.cores) * target.cores)
        gathers = sum(1 for i, a in enumerate(plan.nest.operands) if a.stride_along(plan.inner) not in (0, 1))
        per_point = _operations(problem) / 16 + np.where(configs["squares"], gathers / 4, gathers) + 1 / 8
        seconds = points * per_point * (1 + 0.05 / configs["unroll"]) / 3e9 + moved / (
            target.memory_rate / target.cores
        )
        return target.launch_seconds + seconds / np.maximum(share, 1) + tasks * 2e-8

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        plan = make_plan(problem, target)
        e = KernelEmitter(problem, self.name, config, target)
        emitter = _Rows(e, plan, config["unroll"])
        if config["squares"]:
            emitter.squares(config["grain"])
        else:
            emitter.rows(config["grain"])
        return e.emitted(
            instruction=f"{8 * target.vector_bytes}-bit vectors",
            vectors=f"{plan.lanes} along {plan.inner or 'nothing'}",
            loops=", ".join(f"{n}={size}" for n, size in plan.nest.parallel.items()),
        )


def _operations(problem: Func) -> int:
    """A rough count of instructions a point needs."""
    heavy = {"math.exp": 15, "math.tanh": 25, "math.erf": 40, "math.sigmoid": 22, "math.log": 20, "math.pow": 60}
    body = problem.anchor.regions[0].block
    return sum(
        heavy.get(op.name, 20 if op.name.startswith("math.") else 1) for op in body.ops if isinstance(op, ScalarOp)
    )


class _Rows:
    """Emits the rows of a plan."""

    def __init__(self, e: KernelEmitter, plan: Plan, unroll: int) -> None:
        self.e = e
        self.plan = plan
        self.unroll = unroll
        anchor = e.anchor
        assert isinstance(anchor, Map)
        self.body = anchor.body

    def compute(self, body: Body, points: Sequence[Point], loaded: Sequence[list[Val]]) -> None:
        """Regions and stores of some points whose operands were read."""
        e, nest = self.e, self.plan.nest
        made = [
            emit_region(e, self.body, values, indices(e, p, nest.index, nest.ranges))
            for p, values in zip(points, loaded, strict=True)
        ]
        for p, values in zip(points, made, strict=True):
            for access, value in zip(body.results, values, strict=True):
                access.store(e, p, value)

    def row(self, body: Body, at: Mapping[str, Int], start: Int, stop: Int) -> None:
        """Points start .. stop - 1 along the inner dim."""
        e, inner = self.e, self.plan.inner
        here = Point({**body.symbols, **at})
        known = invariant(e, body.operands, here, inner)

        def step(vectors: list[tuple[Int, int, Any]]) -> None:
            points = [here.along(inner, v, lanes, mask) for v, lanes, mask in vectors]
            self.compute(body, points, [load_all(e, body.operands, p, None, known) for p in points])

        vector_loop(e, start, stop, self.plan.lanes, self.unroll, step)

    def rows(self, grain: int) -> None:
        """Tasks of about `grain` points: pieces of a row, or several rows."""
        e, plan = self.e, self.plan
        names, sizes = list(plan.outer), list(plan.outer.values())
        length, count = plan.nest.parallel[plan.inner], product(sizes)
        wide = plan.lanes * self.unroll
        if not isinstance(length, int) or length > grain or count == 1:
            piece = -(-grain // wide) * wide
            piece = min(piece, -(-length // wide) * wide) if isinstance(length, int) else piece
            pieces = ceildiv(length, piece) if length != 0 else 0
            with self._launch(mul(count, pieces)) as body, e.tasks(body.first, body.last) as task:
                row, part = e.unflatten(task, [e.of(maximum(count, 1)), e.of(maximum(pieces, 1))])
                start = e.mul(part, piece)
                one = isinstance(pieces, int) and pieces <= 1
                stop = length if one else e.minimum(e.add(start, piece), e.of(length))
                at = dict(zip(names, e.unflatten(row, [e.of(s) for s in sizes]), strict=True))
                self.row(body, at, start, stop)
            return
        each = max(1, grain // max(1, length))
        with self._launch(ceildiv(count, each)) as body, e.tasks(body.first, body.last) as task:
            start = e.mul(task, each)
            with e.points(start, e.minimum(e.add(start, each), e.of(count)), [e.of(s) for s in sizes]) as at:
                self.row(body, dict(zip(names, at, strict=True)), 0, length)

    def _launch(self, tasks: Dim) -> Any:
        return self.e.launch(tasks, self.plan.nest.operands, self.plan.nest.results)

    def squares(self, grain: int) -> None:
        """Tasks of panels: `lanes` points along `across`, and as many along the inner dim as `grain` allows."""
        e, plan = self.e, self.plan
        assert plan.across is not None
        lanes, across, inner = plan.lanes, plan.across, plan.inner
        names = [n for n in plan.outer if n != across]
        sizes = [plan.outer[n] for n in names]
        width, length = plan.outer[across], plan.nest.parallel[inner]
        panel = min(-(-max(lanes, grain // lanes) // lanes) * lanes, -(-length // lanes) * lanes)
        strips, panels = -(-width // lanes), -(-length // panel)
        with self._launch(prod(sizes) * strips * panels) as body, e.tasks(body.first, body.last) as task:
            *outer, panel_at, strip = e.unflatten(task, [*sizes, panels, strips])
            at = dict(zip(names, outer, strict=True))
            start = e.mul(panel_at, panel)
            stop = length if panels == 1 else e.minimum(e.add(start, panel), length)
            left = e.mul(strip, lanes)
            if width % lanes == 0:
                self._strip(body, at, left, start, stop)
            else:
                with e.either(e.less(e.add(left, lanes - 1), width)) as (then, otherwise):
                    with then:
                        self._strip(body, at, left, start, stop)
                    with otherwise, e.loop(left, width, name="across", unroll=False) as i:
                        self.row(body, {**at, across: i}, start, stop)

    def _strip(self, body: Body, at: Mapping[str, Int], left: Int, start: Int, stop: Int) -> None:
        """A strip of whole squares, and what is left of it row by row."""
        e, plan = self.e, self.plan
        lanes, across, inner = plan.lanes, plan.across, plan.inner
        assert across is not None
        middle = e.add(start, e.mul(e.floordiv(e.sub(stop, start), lanes, nonnegative=True), lanes))
        with e.loop(start, middle, lanes, name="square", unroll=False) as v:
            turned: dict[int, list[Val]] = {}
            for i in plan.turned:
                access = body.operands[i]
                lines = [
                    load_raw(e, access.place(e, Point({**at, across: left, inner: e.add(v, j)})), access.dtype, lanes)
                    for j in range(lanes)
                ]
                turned[i] = [from_storage(e, x, access.dtype) for x in transpose(e, lines)]
            for j in range(lanes):
                point = Point({**at, across: e.add(left, j)})
                known = {i: values[j] for i, values in turned.items()}
                known = {**invariant(e, body.operands, point, inner, None, known), **known}
                vector = point.along(inner, v, lanes)
                self.compute(body, [vector], [load_all(e, body.operands, vector, None, known)])
        if isinstance(middle, int) and isinstance(stop, int) and middle == stop:
            return
        with e.loop(left, e.add(left, lanes), name="across", unroll=False) as i:
            self.row(body, {**at, across: i}, middle, stop)
