# SPDX-License-Identifier: Apache-2.0
"""Attention by blocks of queries and keys (Dao et al., 2022, FlashAttention), with a query in each lane.

A task takes a block of queries of one head: they are transposed once, and then both products are sums of a scalar of K
(or V), broadcast, times a vector over queries, so maxima and sums of softmax need no work across lanes. Scores of a
block of keys stay in the nearest cache; a later block with larger scores scales down what was summed before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    F32,
    Access,
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    Var,
    address,
    cast,
    constant,
    emit_region,
    extents,
    indices,
    load_all,
    operand_addresses,
    refuse_symbols,
    spread,
    transpose,
    vector,
)
from tcc.codegen.llvm.emit.convert import to_storage
from tcc.codegen.llvm.emit.elementary import exp_nonpositive
from tcc.codegen.llvm.emit.memory import from_storage, load_raw
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, template
from tcc.ir.kernel import Attention, Func
from tcc.ir.targets import Target
from tcc.ir.types import F32 as ACC

VECTORS = [1, 2, 3]
ROWS = [4, 6, 8, 12, 16, 24]
KEYS = [48, 96, 192, 384, 768]


def _registers(columns: Columns, problem: Func, target: Target) -> Any:
    available = 32 if "avx512" in target.features else 16
    return columns["vectors"] * (columns["rows"] + 1) + 1 <= available


def _whole_rows(columns: Columns, problem: Func, target: Target) -> Any:
    return columns["keys"] % columns["rows"] == 0


@dataclass(frozen=True)
class Shape:
    """Extents: queries, keys, the depth of q·k, the channels of the result, and the batch dims."""

    m: int
    n: int
    k: int
    d: int
    outer: dict[str, int]


def shape_of(problem: Func) -> Shape:
    """The extents of an attention problem."""
    size = extents(problem)
    outer = {n: size[n] for n in problem.anchor.domain.parallel_names[:-2]}
    return Shape(size["m"], size["n"], size["k"], size["d"], outer)


@template
class AttentionBlocks(Template):
    """`vectors` vectors of queries a task, products in blocks of `rows` keys (or channels), softmax over `keys` keys at
    a time."""

    name = "llvm.attention"
    kind = "cpu"
    matches = (Attention,)
    space = Space(vectors=VECTORS, rows=ROWS, keys=KEYS)
    legal = (
        Constraint("registers", _registers, "the accumulators of a block do not fit in the vector registers"),
        Constraint("whole", _whole_rows, "a block of keys must be whole rows of accumulators"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        refused = refuse_symbols(problem)
        if refused:
            return refused
        anchor = problem.anchor
        assert isinstance(anchor, Attention)
        if anchor.acc != ACC:
            return f"llvm.attention accumulates in f32, not {anchor.acc}"
        q, k, v = operand_addresses(problem)[:3]
        for word, a, dims in (("q", q, "mk"), ("k", k, "nk"), ("v", v, "nd")):
            if a.is_guarded or a.indirect or any(a.stride_along(x) is None for x in dims):
                return f"llvm.attention reads {word} at constant strides, without conditions or gathers"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        s = shape_of(problem)
        vectors = min((1, 2), key=lambda v: (-(-s.m // (v * target.lanes)) * v, -v))
        wide = "avx512" in target.features
        rows = (8 if vectors == 2 else 16) if wide else (6 if vectors == 2 else 12)
        keys = 384 if s.n <= 384 else 192
        return {"vectors": vectors, "rows": rows, "keys": keys}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        s = shape_of(problem)
        block = configs["vectors"] * target.lanes
        blocks = np.ceil(s.m / block)
        tasks = prod(s.outer.values()) * blocks
        rows, vectors = configs["rows"], configs["vectors"]
        products = np.ceil(s.n / rows) * s.k + np.ceil(s.d / rows) * s.n
        fma = np.maximum(np.maximum(rows * vectors, rows + vectors), 9) / 2
        rescaled = np.ceil(s.n / configs["keys"]) * s.d * vectors * 2
        cycles = products * fma + s.n * vectors * 16 + rescaled + (s.k + s.d) * vectors * 8
        return target.launch_seconds + np.ceil(tasks / target.cores) * cycles / 3.5e9 + tasks * 5e-8

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        e = KernelEmitter(problem, self.name, config, target)
        writer = _Writer(e, shape_of(problem), config["vectors"], config["rows"], config["keys"])
        writer.write()
        return e.emitted(
            instruction="FMA" if "fma" in target.features else "multiply and add",
            block=f"{config['vectors'] * target.lanes} queries, {writer.keys} keys",
        )


class _Writer:
    """Emits the kernel."""

    def __init__(self, e: KernelEmitter, shape: Shape, vectors: int, rows: int, keys: int) -> None:
        self.e = e
        self.s = shape
        self.vectors = vectors
        self.rows = rows
        self.lanes = e.target.lanes
        self.block = vectors * self.lanes
        parts = max(1, -(-shape.n // keys))
        self.keys = -(-max(1, shape.n) // (parts * rows)) * rows  # blocks of keys of one length, but for the last
        anchor = e.anchor
        assert isinstance(anchor, Attention)
        self.anchor = anchor
        self.type = vector(F32, self.lanes)

    def write(self) -> None:
        """One task a head and block of queries."""
        e, s = self.e, self.s
        blocks = -(-s.m // self.block)
        with e.launch(prod(s.outer.values()) * blocks) as body:
            align = e.target.vector_bytes
            self.queries = e.alloca(F32, s.k * self.block, align)
            self.scores = e.alloca(F32, self.keys * self.block, align)
            self.sums = e.alloca(F32, s.d * self.block, align)
            with e.tasks(body.first, body.last) as task:
                *outer, block = e.unflatten(task, [*s.outer.values(), max(blocks, 1)])
                point = Point({**dict(zip(s.outer, outer, strict=True)), "m": e.mul(block, self.block)})
                self.task(body, point)

    def slot(self, scratch: Any, row: Int, v: int) -> Any:
        """Vector v of a row of scratch memory."""
        return address(self.e, scratch, self.e.add(self.e.mul(row, self.block), v * self.lanes), ACC)

    def read(self, scratch: Any, row: Int, v: int) -> Any:
        return self.e.b.load(self.slot(scratch, row, v), typ=self.type, align=self.e.target.vector_bytes)

    def keep(self, value: Any, scratch: Any, row: Int, v: int) -> None:
        self.e.b.store(value, self.slot(scratch, row, v), align=self.e.target.vector_bytes)

    def task(self, body: Body, point: Point) -> None:
        """All keys for one block of queries."""
        e, s = self.e, self.s
        whole: Any = True if s.m % self.block == 0 else e.less(e.add(point.at["m"], self.block - 1), s.m)
        self._load_queries(body.operands[0], point, whole)
        with e.loop(0, s.d, name="d", unroll=False) as d:
            for v in range(self.vectors):
                self.keep(constant(self.type, 0.0), self.sums, d, v)
        tops = [e.var(constant(self.type, float("-inf"))) for _ in range(self.vectors)]
        totals = [e.var(constant(self.type, 0.0)) for _ in range(self.vectors)]
        with e.loop(0, s.n, self.keys, name="keys", unroll=False) as start:
            stop = e.minimum(e.add(start, self.keys), s.n)
            self._keys(body, point, start, stop, tops, totals)
        inverse: list[Any] = []
        for total in totals:
            value = total.get()
            empty = e.b.fcmp_ordered("==", value, constant(self.type, 0.0))
            one = e.b.fdiv(constant(self.type, 1.0), value)
            inverse.append(e.b.select(empty, constant(self.type, 0.0), one))
        self._results(body, point, inverse, whole)

    def _query_points(self, point: Point, whole: bool) -> list[Point]:
        """The vectors of queries; unless the block is whole, with masks of those that exist."""
        e = self.e
        out: list[Point] = []
        for v in range(self.vectors):
            at = e.add(point.at["m"], v * self.lanes)
            mask = None if whole else e.first_lanes(e.sub(self.s.m, at), self.lanes)
            out.append(point.along("m", at, self.lanes, mask))
        return out

    def _load_queries(self, q: Access, point: Point, whole: Any) -> None:
        """The block of queries transposed: [k][query]."""
        e, s = self.e, self.s
        direct = q.where.stride_along("k") == 1 and s.k >= self.lanes
        tail = s.k - s.k % self.lanes if direct else 0

        def gathered(first: int, masked: bool) -> None:
            points = self._query_points(point, not masked)
            with e.loop(first, s.k, name="k", unroll=False) as k:
                for v, p in enumerate(points):
                    value = spread(e, cast(e, q.load(e, p.moved(k=k)), ACC), self.lanes)
                    self.keep(value.ir, self.queries, k, v)

        def squares() -> None:
            with e.loop(0, tail, self.lanes, name="k", unroll=False) as k:
                for v in range(self.vectors):
                    lines: list[Any] = []
                    for j in range(self.lanes):
                        at = point.moved(m=e.add(point.at["m"], v * self.lanes + j), k=k)
                        lines.append(load_raw(e, q.place(e, at), q.dtype, self.lanes))
                    for j, line in enumerate(transpose(e, lines)):
                        value = cast(e, from_storage(e, line, q.dtype), ACC)
                        self.keep(value.ir, self.queries, e.add(k, j), v)
            if tail < s.k:
                gathered(tail, False)

        if not direct:
            gathered(0, whole is not True)
        elif whole is True:
            squares()
        else:
            with e.either(whole) as (then, otherwise):
                with then:
                    squares()
                with otherwise:
                    gathered(0, True)

    def product(
        self,
        rows: int,
        start: Int,
        stop: Int,
        broadcast: Callable[[Int, int], Any],
        vectors: Callable[[Int, int], Any],
        first: Callable[[int, int], Any],
    ) -> list[list[Any]]:
        """Σ_j broadcast(j, r) × vectors(j, v) + first(r, v) for all r < rows and v, in registers."""
        e = self.e
        totals = [[e.var(first(r, v)) for v in range(self.vectors)] for r in range(rows)]
        with e.loop(start, stop, name="j", unroll=2) as j:
            own = [vectors(j, v) for v in range(self.vectors)]
            for r in range(rows):
                scalar = e.splat(broadcast(j, r), self.lanes)
                for v in range(self.vectors):
                    totals[r][v].set(e.fma(scalar, own[v], totals[r][v].get()))
        return [[t.get() for t in line] for line in totals]

    def _keys(
        self, body: Body, point: Point, start: Int, stop: Int, tops: Sequence[Var], totals: Sequence[Var]
    ) -> None:
        """One block of keys: scores and their maxima, weights and their sums, and the channels' sums."""
        e, s = self.e, self.s
        masked = bool(s.m % self.block) and len(self.anchor.extra) > 0
        points = self._query_points(point, not masked)
        best = [e.var(t.get()) for t in tops]
        rest = s.n % self.rows
        middle = e.add(start, e.mul(e.floordiv(e.sub(stop, start), self.rows, nonnegative=True), self.rows))
        with e.loop(start, middle, self.rows, name="n", unroll=False) as n:
            self._scores(body, points, start, n, self.rows, best)
        if rest:
            with e.when(e.less(middle, stop)):
                self._scores(body, points, start, middle, rest, best)
        scales: list[Any] = []
        shifts: list[Any] = []
        for top, b in zip(tops, best, strict=True):
            new = b.get()
            # A query that has seen no key yet keeps -inf, but is shifted by 0: -inf - -inf is not a number.
            none = e.b.fcmp_ordered("==", new, constant(self.type, float("-inf")))
            shift = e.b.select(none, constant(self.type, 0.0), new)
            scales.append(exp_nonpositive(e, e.b.fsub(top.get(), shift)))
            shifts.append(shift)
            top.set(new)
        sums = [e.var(constant(self.type, 0.0)) for _ in range(self.vectors)]
        with e.loop(0, e.sub(stop, start), name="n", unroll=2) as i:
            for v in range(self.vectors):
                weight = exp_nonpositive(e, e.b.fsub(self.read(self.scores, i, v), shifts[v]))
                self.keep(weight, self.scores, i, v)
                sums[v].set(e.b.fadd(sums[v].get(), weight))
        for v in range(self.vectors):
            totals[v].set(e.fma(totals[v].get(), scales[v], sums[v].get()))
        whole = s.d - s.d % self.rows
        with e.loop(0, whole, self.rows, name="d", unroll=False) as d:
            self._channels(body, point, start, stop, d, self.rows, scales)
        if whole < s.d:
            self._channels(body, point, start, stop, whole, s.d - whole, scales)

    def _scores(self, body: Body, points: Sequence[Point], start: Int, n: Int, rows: int, best: Sequence[Var]) -> None:
        """The scores of keys n .. n + rows - 1, kept, and their maxima."""
        e, s = self.e, self.s
        k = body.operands[1]
        here = Point(points[0].at)

        def broadcast(j: Int, r: int) -> Any:
            return cast(e, k.load(e, here.moved(n=e.add(n, r), k=j)), ACC).ir

        zero = constant(self.type, 0.0)
        dots = self.product(rows, 0, s.k, broadcast, lambda j, v: self.read(self.queries, j, v), lambda r, v: zero)
        for r in range(rows):
            row = e.add(n, r)
            for v, p in enumerate(points):
                at = p.moved(n=row)
                extra = load_all(e, body.operands, at, range(3, len(body.operands)))
                (score,) = emit_region(e, self.anchor.score, [Val(ACC, dots[r][v]), *extra], indices(e, at))
                value = spread(e, score, self.lanes).ir
                self.keep(value, self.scores, e.sub(row, start), v)
                old = best[v].get()
                best[v].set(e.b.select(e.b.fcmp_ordered(">", value, old), value, old))

    def _channels(
        self, body: Body, point: Point, start: Int, stop: Int, d: Int, rows: int, scales: Sequence[Any]
    ) -> None:
        """The weighted sums of channels d .. d + rows - 1 over a block of keys, added to those before."""
        e = self.e
        values = body.operands[2]

        def broadcast(j: Int, r: int) -> Any:
            return cast(e, values.load(e, point.moved(n=e.add(start, j), d=e.add(d, r))), ACC).ir

        made = self.product(
            rows,
            0,
            e.sub(stop, start),
            broadcast,
            lambda j, v: self.read(self.scores, j, v),
            lambda r, v: e.b.fmul(self.read(self.sums, e.add(d, r), v), scales[v]),
        )
        for r in range(rows):
            for v in range(self.vectors):
                self.keep(made[r][v], self.sums, e.add(d, r), v)

    def _results(self, body: Body, point: Point, inverse: Sequence[Any], whole: Any) -> None:
        """The block's results: transposed back where they are contiguous along channels."""
        e, s = self.e, self.s
        (out,) = body.results
        direct = out.where.stride_along("d") == 1 and s.d >= self.lanes
        tail = s.d - s.d % self.lanes if direct else 0

        def value(p: Point, d: Int, v: int) -> Val:
            mean = e.b.fmul(self.read(self.sums, d, v), inverse[v])
            (made,) = emit_region(e, self.anchor.epilogue, [Val(ACC, mean)], indices(e, p.moved(d=d)))
            return spread(e, made, self.lanes)

        def scattered(first: int, masked: bool) -> None:
            points = self._query_points(point, not masked)
            with e.loop(first, s.d, name="d", unroll=False) as d:
                for v, p in enumerate(points):
                    out.store(e, p.moved(d=d), value(p, d, v))

        def squares(masked: bool) -> None:
            points = self._query_points(point, True)
            with e.loop(0, tail, self.lanes, name="d", unroll=False) as d:
                for v, p in enumerate(points):
                    lines = [to_storage(e, value(p, e.add(d, j), v)) for j in range(self.lanes)]
                    for j, line in enumerate(transpose(e, lines)):
                        row = e.add(point.at["m"], v * self.lanes + j)
                        with e.when(e.less(row, s.m) if masked else True):
                            e.b.store(line, out.place(e, point.moved(m=row, d=d)), align=out.dtype.bytes)
            if tail < s.d:
                scattered(tail, masked)

        if not direct:
            scattered(0, whole is not True)
        elif whole is True:
            squares(False)
        else:
            with e.either(whole) as (then, otherwise):
                with then:
                    squares(False)
                with otherwise:
                    squares(True)
