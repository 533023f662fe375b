# SPDX-License-Identifier: Apache-2.0
"""Plain loops: any anchor, any index map, one point at a time. The template that always fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    Access,
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    Var,
    address,
    cast,
    combine,
    emit_region,
    extents,
    identity,
    indices,
    literal,
    load_all,
)
from tcc.codegen.llvm.emit.elementary import exp_nonpositive
from tcc.codegen.llvm.emit.trigonometry import by_lane
from tcc.codegen.llvm.templates.naive_irregular import scan_row, scatter, topk_row
from tcc.codegen.llvm.templates.ragged import ragged
from tcc.codegen.llvm.templates.recurrence import quantized
from tcc.codegen.llvm.templates.recurrence_quantized import QuantizedSteps
from tcc.codegen.llvm.templates.recurrence_write import Steps
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, template
from tcc.ir.expr import ceildiv, product
from tcc.ir.kernel import (
    Anchor,
    Attention,
    Contraction,
    Func,
    Map,
    Ragged,
    Recurrence,
    Reduce,
    Rows,
    Scan,
    Scatter,
    TopK,
)
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target
from tcc.ir.types import DType

POINTS_PER_SECOND = 1e9
"""Multiply-adds a plain loop does in a second."""


@template
class Naive(Template):
    """One parallel point after another; `chunk` points are a task."""

    name = "llvm.naive"
    kind = "cpu"
    matches = (Map, Reduce, Contraction, Rows, Attention, Recurrence, Scan, TopK, Scatter, Ragged)
    space = Space(chunk=[16, 64, 256, 1024, 4096])

    def accepts(self, problem: Func, target: Target) -> str | None:
        anchor = problem.anchor
        if isinstance(anchor, Recurrence) and not isinstance(anchor.domain.extent("h"), int):
            return "the number of units is an argument, and it takes a number only"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        points, work = _size(problem)
        each = max(1, work // max(1, points))
        wanted = max(20_000 // each, points // (64 * target.cores), 1)
        return {"chunk": min(self.space.parameters["chunk"], key=lambda c: abs(c - wanted))}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        points, work = _size(problem)
        tasks = np.ceil(points / configs["chunk"])
        rounds = np.ceil(tasks / target.cores)
        return target.launch_seconds + rounds * configs["chunk"] * (work / max(1, points)) / POINTS_PER_SECOND

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        e = KernelEmitter(problem, self.name, config, target)
        anchor = e.anchor
        if isinstance(anchor, Recurrence):
            return _recurrence(e)
        if isinstance(anchor, Scatter):
            scatter(e, config["chunk"])
            return e.emitted(instruction="scalar")
        if isinstance(anchor, Ragged):
            ragged(e, config["chunk"], lanes=1, unroll=1)
            return e.emitted(instruction="scalar")
        domain = anchor.domain
        names = list(domain.parallel_names)
        if isinstance(anchor, Attention) and isinstance(domain.extent("d"), int):
            names.remove("d")
        chunk = config["chunk"] if not isinstance(anchor, Rows | Attention | Scan | TopK) else 1
        total = product(domain.extent(n) for n in names)
        with e.launch(ceildiv(total, chunk)) as body:
            size = {n: e.of(domain.extent(n)) for n in domain.names}
            points = e.of(total)
            with e.tasks(body.first, body.last) as task:
                start = e.mul(task, chunk)
                stop = e.minimum(e.add(start, chunk), points)
                with e.points(start, stop, [size[n] for n in names], "point") as at:
                    point = Point({**body.symbols, **dict(zip(names, at, strict=True))})
                    _POINT[next(k for k in _POINT if isinstance(anchor, k))](e, body, point, size)
        return e.emitted(instruction="scalar")


def _size(problem: Func) -> tuple[int, int]:
    """(parallel points, points in all)."""
    problem = typical(problem)
    size = extents(problem)
    domain = problem.anchor.domain
    points = prod(size[n] for n in domain.parallel_names)
    return points, points * prod(size[n] for n in domain.reduce_names)


@contextmanager
def nest(e: KernelEmitter, names: Sequence[str], size: dict[str, Int], point: Point) -> Iterator[Point]:
    """Loops over whole dims, outermost first; gives the point inside."""
    if not names:
        yield point
        return
    with e.loop(0, size[names[0]], name=names[0]) as i, nest(e, names[1:], size, point.moved(**{names[0]: i})) as p:
        yield p


def _write(e: KernelEmitter, results: Sequence[Access], point: Point, values: Sequence[Val]) -> None:
    for access, value in zip(results, values, strict=True):
        access.store(e, point, value)


def accumulator(e: KernelEmitter, combiner: str, acc: DType) -> Var:
    """A variable that holds the combiner's identity."""
    return e.var(literal(acc, identity(combiner, acc)).ir)


def accumulate(e: KernelEmitter, total: Var, combiner: str, acc: DType, value: Val) -> None:
    """Combine a value into the variable."""
    total.set(combine(e, combiner, Val(acc, total.get()), cast(e, value, acc)).ir)


def _map(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    anchor: Anchor = e.anchor
    assert isinstance(anchor, Map)
    values = emit_region(e, anchor.body, load_all(e, body.operands, point), indices(e, point))
    _write(e, body.results, point, values)


def _reduce(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    anchor = e.anchor
    assert isinstance(anchor, Reduce)
    totals = [accumulator(e, c, anchor.acc) for c in anchor.combine]
    count = len(anchor.ins)
    with nest(e, anchor.domain.reduce_names, size, point) as inner:
        values = emit_region(e, anchor.body, load_all(e, body.operands, inner, range(count)), indices(e, inner))
        for total, combiner, value in zip(totals, anchor.combine, values, strict=True):
            accumulate(e, total, combiner, anchor.acc, value)
    _finish(e, body, point, anchor, [Val(anchor.acc, t.get()) for t in totals], count)


def _finish(e: KernelEmitter, body: Body, point: Point, anchor: Any, totals: Sequence[Val], first_extra: int) -> None:
    extra = load_all(e, body.operands, point, range(first_extra, len(body.operands)))
    _write(e, body.results, point, emit_region(e, anchor.epilogue, [*totals, *extra], indices(e, point)))


def _contraction(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    anchor = e.anchor
    assert isinstance(anchor, Contraction)
    total = accumulator(e, "sum", anchor.acc)
    left, right = len(anchor.lhs), len(anchor.lhs) + len(anchor.rhs)
    with nest(e, anchor.domain.reduce_names, size, point) as inner:
        values = load_all(e, body.operands, inner, range(right))
        (a,) = emit_region(e, anchor.lhs_body, values[:left], indices(e, inner))
        (b,) = emit_region(e, anchor.rhs_body, values[left:], indices(e, inner))
        a, b = cast(e, a, anchor.acc), cast(e, b, anchor.acc)
        if anchor.acc.is_float:
            total.set(e.fma(a.ir, b.ir, total.get()))
        else:
            total.set(e.b.add(total.get(), e.b.mul(a.ir, b.ir)))
    _finish(e, body, point, anchor, [Val(anchor.acc, total.get())], right)


def _rows(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    anchor = e.anchor
    assert isinstance(anchor, Rows)
    done: list[Val] = []
    for combiner, region in zip(anchor.combine, anchor.stages[:-1], strict=True):
        total = accumulator(e, combiner, anchor.acc)
        with nest(e, anchor.domain.reduce_names, size, point) as inner:
            (value,) = emit_region(e, region, [*load_all(e, body.operands, inner), *done], indices(e, inner))
            accumulate(e, total, combiner, anchor.acc, value)
        done.append(Val(anchor.acc, total.get()))
    with nest(e, anchor.domain.reduce_names, size, point) as inner:
        values = emit_region(e, anchor.stages[-1], [*load_all(e, body.operands, inner), *done], indices(e, inner))
        _write(e, body.results, inner, values)


def _attention(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    """One query: the scores are computed once for the largest and again for the weights, so the memory needed does not
    grow with the number of keys. A number of channels that data decide makes a point of each channel."""
    anchor = e.anchor
    assert isinstance(anchor, Attention)
    acc = anchor.acc
    first = point.at.get("d", 0)
    channels = size["d"] if "d" not in point.at else e.add(first, 1)
    room = channels if isinstance(channels, int) else 1
    dot_point = point.moved(d=0)

    def score(key: Int) -> Val:
        total = accumulator(e, "sum", acc)
        at = dot_point.moved(n=key)
        with e.loop(0, size["k"], name="k") as k:
            q, kk = (cast(e, v, acc) for v in load_all(e, body.operands, at.moved(k=k), (0, 1)))
            total.set(e.fma(q.ir, kk.ir, total.get()))
        extra = load_all(e, body.operands, at.moved(k=0), range(3, len(body.operands)))
        return emit_region(e, anchor.score, [Val(acc, total.get()), *extra], indices(e, at))[0]

    top = accumulator(e, "max", acc)
    with e.loop(0, size["n"], name="n") as key:
        accumulate(e, top, "max", acc, score(key))
    # A row of -inf scores must not become NaN by -inf - -inf.
    best = top.get()
    none = e.b.fcmp_ordered("==", best, literal(acc, float("-inf")).ir)
    best = e.b.select(none, literal(acc, 0.0).ir, best)

    total = accumulator(e, "sum", acc)
    zero = literal(acc, 0.0).ir
    outs = e.alloca(zero.type, room)

    def out(d: Int) -> Any:
        return address(e, outs, e.sub(d, first), acc)

    with e.loop(first, channels, name="d") as d:
        e.b.store(zero, out(d))
    with e.loop(0, size["n"], name="n") as key:
        shifted = e.b.fsub(score(key).ir, best)
        weight = by_lane(e, "exp", shifted) if acc.bits == 64 else exp_nonpositive(e, shifted)
        total.set(e.b.fadd(total.get(), weight))
        with e.loop(first, channels, name="d") as d:
            v = cast(e, body.operands[2].load(e, point.moved(d=d, n=key, k=0)), acc)
            e.b.store(e.fma(weight, v.ir, e.b.load(out(d), typ=zero.type)), out(d))
    empty = e.b.fcmp_ordered("==", total.get(), zero)
    with e.loop(first, channels, name="d") as d:
        at = point.moved(d=d)
        mean = e.b.select(empty, zero, e.b.fdiv(e.b.load(out(d), typ=zero.type), total.get()))
        _write(e, body.results, at, emit_region(e, anchor.epilogue, [Val(acc, mean)], indices(e, at)))


def _recurrence(e: KernelEmitter) -> Emitted:
    """A task a sequence, a unit at a time; all sequences one task where they are quantized together."""
    if e.anchor.attrs["quantized"]:
        quantized(QuantizedSteps(e, lanes=1, vectors=1, rows=1, pairs=False), parts=1)
        return e.emitted(instruction="scalar")
    steps = Steps(e, lanes=1, vectors=1, rows=1)

    def weight(body: Body, block: Int, gate: int, k: Int, vector: int) -> Any:
        point = Point({**body.symbols, "g": gate, "h": block, "k": k})
        return cast(e, body.operands[-1].load(e, point), steps.acc).ir

    with e.launch(steps.groups) as body:
        steps.enter(body, None)
        with e.tasks(body.first, body.last) as task:
            steps.whole(body, weight, task)
    return e.emitted(instruction="scalar")


_POINT: dict[type[Anchor], Callable[[KernelEmitter, Body, Point, dict[str, Int]], None]] = {
    Map: _map,
    Reduce: _reduce,
    Contraction: _contraction,
    Rows: _rows,
    Attention: _attention,
    Scan: scan_row,
    TopK: topk_row,
}
