# SPDX-License-Identifier: Apache-2.0
"""Pooling with channels last: vectors lie along the channels, and the window is clipped where it meets padding.

Clipping replaces a test per element: the loop over window rows runs over those inside, and the window's columns are
unrolled wherever all of them are inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    Access,
    Body,
    Int,
    KernelEmitter,
    Nest,
    Point,
    Val,
    Var,
    arranged,
    by_stride,
    cast,
    combine,
    emit_region,
    identity,
    indices,
    literal,
    load_all,
    nest_of,
    operand_addresses,
    refuse_symbols,
    result_addresses,
    scalar_expr,
    spread,
    vector_loop,
)
from tcc.codegen.llvm.templates.map import lanes_for
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, template
from tcc.ir import arith
from tcc.ir.core import Value
from tcc.ir.expr import Dim, Sym, add, coefficient, mul, symbols
from tcc.ir.kernel import Func, Pool
from tcc.ir.targets import Target

GRAINS = [4096, 16384, 65536]


@dataclass(frozen=True)
class Clip:
    """A window dim's place along a padded axis: index = `rest` + step × dim, inside where 0 ≤ index < extent."""

    step: int
    rest: Dim
    extent: int


@dataclass(frozen=True)
class Plan:
    """The nest with unguarded addresses, the channels' dim, and how each window dim is clipped."""

    nest: Nest
    channels: str
    lanes: int
    clips: dict[str, Clip]


def make_plan(problem: Func, target: Target) -> Plan | str:
    """How a pooling is laid out in loops, or the sentence why it cannot be."""
    anchor = problem.anchor
    assert isinstance(anchor, Pool)
    regions = [anchor.body, anchor.epilogue]
    nest = nest_of(problem, regions, operand_addresses(problem), result_addresses(problem))
    nest = nest.reordered(by_stride(nest.parallel, nest.results))
    ins = nest.operands[: len(anchor.ins)]
    if any(a.zero or a.indirect for a in ins):
        return "llvm.pool reads its operands directly, without conditions or gathers"
    along = [n for n in nest.parallel if all(a.stride_along(n) == 1 for a in (*ins, *nest.results))]
    if not along:
        return "llvm.pool needs operands and results contiguous along one dim (channels last)"
    if not nest.reduce:
        return "llvm.pool needs a window of more than one element"
    clips: dict[str, Clip] = {}
    for a in ins:
        for index, extent in a.guards:
            inner = [n for n in nest.reduce if n in symbols(index)]
            if len(inner) != 1 or along[0] in symbols(index):
                return "llvm.pool takes padding along window dims only"
            step = coefficient(index, inner[0])
            if step is None or step <= 0:
                return "llvm.pool takes windows that slide by constant steps only"
            if not isinstance(extent, int):
                return f"llvm.pool takes inputs of known extents only, not {extent}"
            clip = Clip(step, add(index, mul(-step, Sym(inner[0]))), extent)
            if clips.setdefault(inner[0], clip) != clip:
                return "llvm.pool takes operands padded alike only"
    if clips and not _neutral(anchor):
        return "llvm.pool takes padding that does not change the result only"
    bare = tuple(replace(a, guards=(), fill=None) if i < len(ins) else a for i, a in enumerate(nest.operands))
    nest = arranged(replace(nest, operands=bare), along[0])
    return Plan(nest, along[0], min(lanes_for(problem, target), target.vector_bytes), clips)


def _neutral(anchor: Pool) -> bool:
    """Whether an element out of range adds what the combiner starts from: its fill is that, passed on by the body as
    it is or as another type."""
    for combiner, value in zip(anchor.combine, anchor.body.block.terminator.operands, strict=True):
        source: Value = value
        while isinstance(source.defining_op, arith.Cast):
            source = source.defining_op.a
        if source.defining_op is not None:
            return False
        at = anchor.body.block.args.index(source)  # pyright: ignore[reportArgumentType]
        fill = anchor.maps[at].fill
        if fill is None or float(fill) != float(identity(combiner, anchor.acc)):
            return False
    return True


@template
class PoolChannels(Template):
    """Rows of the result in tasks of about `grain` elements, `unroll` vectors of channels side by side."""

    name = "llvm.pool"
    kind = "cpu"
    matches = (Pool,)
    space = Space(grain=GRAINS, unroll=[1, 2, 4, 8], window=["unrolled", "looped"])

    def accepts(self, problem: Func, target: Target) -> str | None:
        refused = refuse_symbols(problem)
        if refused:
            return refused
        plan = make_plan(problem, target)
        return plan if isinstance(plan, str) else None

    def default(self, problem: Func, target: Target) -> Config | None:
        plan = make_plan(problem, target)
        assert isinstance(plan, Plan)
        points = prod(plan.nest.parallel.values())
        wanted = points if points * prod(plan.nest.reduce.values()) < 100_000 else points / (4 * target.cores)
        grain = min(GRAINS, key=lambda g: abs(np.log(g / max(1, wanted))))
        vectors = plan.nest.parallel[plan.channels] / plan.lanes
        return {"grain": grain, "unroll": 4 if vectors >= 4 else 2 if vectors >= 2 else 1, "window": "unrolled"}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        plan = make_plan(problem, target)
        assert isinstance(plan, Plan)
        points, window = prod(plan.nest.parallel.values()), prod(plan.nest.reduce.values())
        channels = plan.nest.parallel[plan.channels]
        tasks = np.clip(points / configs["grain"], 1, points / channels)
        share = tasks / np.ceil(tasks / target.cores)
        vectors = np.ceil(channels / plan.lanes)
        groups = np.ceil(vectors / configs["unroll"])
        each = np.where(configs["window"] == "unrolled", 0.6, 1.0)
        cycles = points / channels * (20 + groups * 4 + vectors * window * each)
        return target.launch_seconds + cycles / 3e9 / share + tasks * 3e-8

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        plan = make_plan(problem, target)
        assert isinstance(plan, Plan)
        e = KernelEmitter(problem, self.name, config, target)
        _Writer(e, plan, config["unroll"], config["window"] == "unrolled").write(config["grain"])
        return e.emitted(
            instruction=f"{8 * target.vector_bytes}-bit vectors",
            vectors=f"{plan.lanes} along {plan.channels}",
            loops=f"{plan.nest.parallel} | {plan.nest.reduce}",
        )


class _Writer:
    """Emits the kernel of a plan."""

    def __init__(self, e: KernelEmitter, plan: Plan, unroll: int, unrolled: bool) -> None:
        self.e = e
        self.plan = plan
        self.unroll = unroll
        self.unrolled = unrolled
        anchor = e.anchor
        assert isinstance(anchor, Pool)
        self.anchor = anchor
        self.count = len(anchor.ins)

    def write(self, grain: int) -> None:
        """Tasks of whole pixels (all channels of each)."""
        e, plan = self.e, self.plan
        names = [n for n in plan.nest.parallel if n != plan.channels]
        sizes = [plan.nest.parallel[n] for n in names]
        pixels, channels = prod(sizes), plan.nest.parallel[plan.channels]
        each = max(1, grain // max(1, channels))
        tasks = -(-pixels // each)
        with e.launch(tasks, plan.nest.operands, plan.nest.results) as body, e.tasks(body.first, body.last) as task:
            start = e.mul(task, each)
            stop = pixels if tasks <= 1 else e.minimum(e.add(start, each), pixels)
            with e.points(start, stop, sizes, "pixel") as at:
                here = Point(dict(zip(names, at, strict=True)))
                ranges = {n: self._range(n, here) for n in plan.nest.reduce}
                inner = list(plan.nest.reduce)[-1]
                first, last = ranges[inner]
                size = plan.nest.reduce[inner]
                whole = e.both(e.equal(first, 0), e.equal(last, size))
                if whole is True or not self.unrolled:
                    self._channels(body, here, ranges, whole is True)
                else:
                    with e.either(whole) as (then, otherwise):
                        with then:
                            self._channels(body, here, {**ranges, inner: (0, size)}, True)
                        with otherwise:
                            self._channels(body, here, ranges, False)

    def _range(self, name: str, here: Point) -> tuple[Int, Int]:
        """The part of a window dim that lies inside at a pixel."""
        e, size = self.e, self.plan.nest.reduce[name]
        clip = self.plan.clips.get(name)
        if clip is None:
            return 0, size
        rest = scalar_expr(e, clip.rest, here.at, self.plan.nest.ranges)
        first = e.maximum(0, e.floordiv(e.sub(clip.step - 1, rest), clip.step))
        last = e.minimum(size, e.floordiv(e.add(e.sub(clip.extent - 1, rest), clip.step), clip.step))
        return e.minimum(first, size), e.maximum(last, 0)

    def _channels(self, body: Body, here: Point, ranges: dict[str, tuple[Int, Int]], whole: bool) -> None:
        """All channels of a pixel."""
        e, plan = self.e, self.plan

        def step(vectors: list[tuple[Int, int, Any]]) -> None:
            points = [here.along(plan.channels, v, lanes, mask) for v, lanes, mask in vectors]
            totals = [self._totals(p.lanes) for p in points]
            self._window(body, points, totals, list(plan.nest.reduce), ranges, whole)
            for p, own in zip(points, totals, strict=True):
                self._finish(body, p, [Val(self.anchor.acc, t.get()) for t in own])

        vector_loop(e, 0, plan.nest.parallel[plan.channels], plan.lanes, self.unroll, step)

    def _totals(self, lanes: int) -> list[Var]:
        e, acc = self.e, self.anchor.acc
        return [e.var(e.splat(literal(acc, identity(c, acc)).ir, lanes)) for c in self.anchor.combine]

    def _window(
        self,
        body: Body,
        points: Sequence[Point],
        totals: Sequence[list[Var]],
        names: Sequence[str],
        ranges: dict[str, tuple[Int, Int]],
        whole: bool,
    ) -> None:
        """Loops over the window, the last dim unrolled if it is `whole` and short enough."""
        e = self.e
        if not names:
            for p, own in zip(points, totals, strict=True):
                self._update(body.operands, p, own)
            return
        first, last = ranges[names[0]]
        if len(names) == 1 and whole and self.unrolled and isinstance(last, int) and last <= 16:
            for k in range(last):
                self._window(body, [p.moved(**{names[0]: k}) for p in points], totals, [], ranges, whole)
            return
        with e.loop(first, last, name=names[0], unroll=False) as k:
            self._window(body, [p.moved(**{names[0]: k}) for p in points], totals, names[1:], ranges, whole)

    def _update(self, operands: Sequence[Access], p: Point, totals: Sequence[Var]) -> None:
        e, nest, acc = self.e, self.plan.nest, self.anchor.acc
        values = load_all(e, operands, p, range(self.count))
        made = emit_region(e, self.anchor.body, values, indices(e, p, nest.index, nest.ranges))
        for total, combiner, value in zip(totals, self.anchor.combine, made, strict=True):
            value = spread(e, cast(e, value, acc), p.lanes)
            total.set(combine(e, combiner, Val(acc, total.get()), value).ir)

    def _finish(self, body: Body, p: Point, totals: Sequence[Val]) -> None:
        e, nest = self.e, self.plan.nest
        extra = load_all(e, body.operands, p, range(self.count, len(body.operands)))
        values = emit_region(e, self.anchor.epilogue, [*totals, *extra], indices(e, p, nest.index, nest.ranges))
        for access, value in zip(body.results, values, strict=True):
            access.store(e, p, value)
