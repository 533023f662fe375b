# SPDX-License-Identifier: Apache-2.0
"""Attention by blocks of queries and keys (Dao et al., 2022, FlashAttention), with a query in each lane.

A task takes a block of queries of one head: they are transposed once, and then both products are sums of a scalar of K
(or V), broadcast, times a vector over queries, so maxima and sums of softmax need no work across lanes. Scores of a
block of keys stay in the nearest cache; a later block with larger scores scales down what was summed before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    F32,
    Access,
    Address,
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
        # Two vectors use a broadcast twice, which is worth a tenth of missing queries.
        vectors = min((2, 1), key=lambda v: -(-s.m // (v * target.lanes)) * v * (1.0 if v == 2 else 1.1))
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
    """Emits the kernel. Only the products are unrolled over the vectors of queries; all else loops over them."""

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
        self.zero = constant(self.type, 0.0)
        self.low = constant(self.type, float("-inf"))
        self.has_tail = shape.m % self.block != 0

    def write(self) -> None:
        """One task a head and block of queries."""
        e, s = self.e, self.s
        blocks = -(-s.m // self.block)
        with e.launch(prod(s.outer.values()) * blocks) as body:
            align = e.target.vector_bytes
            self.queries = e.alloca(F32, s.k * self.block, align)
            self.scores = e.alloca(F32, self.keys * self.block, align)
            self.sums = e.alloca(F32, s.d * self.block, align)
            self.tops, self.totals, self.scales, self.shifts = (e.alloca(F32, self.block, align) for _ in range(4))
            with e.tasks(body.first, body.last) as task:
                *outer, block = e.unflatten(task, [*s.outer.values(), max(blocks, 1)])
                point = Point({**dict(zip(s.outer, outer, strict=True)), "m": e.mul(block, self.block)})
                self.task(body, point)

    # Scratch memory: rows of `block` floats, one a query.

    def read(self, scratch: Any, row: Int, v: Int) -> Any:
        return self.e.b.load(self._slot(scratch, row, v), typ=self.type, align=self.e.target.vector_bytes)

    def keep(self, value: Any, scratch: Any, row: Int, v: Int) -> None:
        self.e.b.store(value, self._slot(scratch, row, v), align=self.e.target.vector_bytes)

    def _slot(self, scratch: Any, row: Int, v: Int) -> Any:
        e = self.e
        return address(e, scratch, e.add(e.mul(row, self.block), e.mul(v, self.lanes)), ACC)

    def every(self) -> Any:
        """The loop over the block's vectors of queries."""
        return self.e.loop(0, self.vectors, name="vector", unroll=False)

    def queries_at(self, point: Point, v: Int) -> Point:
        """The point of vector v of the block, masked where queries may be missing."""
        e = self.e
        at = e.add(point.at["m"], e.mul(v, self.lanes))
        mask = e.first_lanes(e.sub(self.s.m, at), self.lanes) if self.has_tail else None
        return point.along("m", at, self.lanes, mask)

    def row_of(self, point: Point, v: Int, lane: int) -> Int:
        """The query of one lane; the last one there is in place of a missing one."""
        e = self.e
        at = e.add(point.at["m"], e.add(e.mul(v, self.lanes), lane))
        return e.minimum(at, self.s.m - 1) if self.has_tail else at

    def task(self, body: Body, point: Point) -> None:
        """All keys for one block of queries."""
        e, s = self.e, self.s
        self._load_queries(body.operands[0], point)
        with self.every() as v:
            with e.loop(0, s.d, name="d", unroll=False) as d:
                self.keep(self.zero, self.sums, d, v)
            self.keep(self.low, self.tops, 0, v)
            self.keep(self.zero, self.totals, 0, v)
        with e.loop(0, s.n, self.keys, name="keys", unroll=False) as start:
            self._keys(body, point, start, e.minimum(e.add(start, self.keys), s.n))
        self._results(body, point)

    def square(self, access: Access, point: Point, v: Int) -> list[Val]:
        """What lies at `lanes` queries × the next `lanes` elements from the point on, as vectors of queries."""
        e = self.e
        lines: list[Any] = []
        for lane in range(self.lanes):
            at = point.moved(m=self.row_of(point, v, lane))
            lines.append(load_raw(e, access.place(e, at), access.dtype, self.lanes))
        return [from_storage(e, x, access.dtype) for x in transpose(e, lines)]

    def _load_queries(self, q: Access, point: Point) -> None:
        """The block of queries transposed: [k][query]."""
        e, s = self.e, self.s
        whole = s.k - s.k % self.lanes if q.where.stride_along("k") == 1 else 0
        with self.every() as v:
            if whole:
                with e.loop(0, whole, self.lanes, name="k", unroll=False) as k:
                    for j, value in enumerate(self.square(q, point.moved(k=k), v)):
                        self.keep(cast(e, value, ACC).ir, self.queries, e.add(k, j), v)
            if whole < s.k:
                here = self.queries_at(point, v)
                with e.loop(whole, s.k, name="k", unroll=False) as k:
                    value = spread(e, cast(e, q.load(e, here.moved(k=k)), ACC), self.lanes)
                    self.keep(value.ir, self.queries, k, v)

    def product(
        self,
        rows: int,
        stop: Int,
        broadcast: Callable[[Int, int], Any],
        scratch: Any,
        first: Callable[[int, int], Any],
    ) -> list[list[Any]]:
        """first(r, v) + Σ_j broadcast(j, r) × row j of scratch memory over j < stop, for all r < rows and v at once."""
        e = self.e
        totals = [[e.var(first(r, v)) for v in range(self.vectors)] for r in range(rows)]
        with e.loop(0, stop, name="j", unroll=2) as j:
            own = [self.read(scratch, j, v) for v in range(self.vectors)]
            for r in range(rows):
                scalar = e.splat(broadcast(j, r), self.lanes)
                for v in range(self.vectors):
                    totals[r][v].set(e.fma(scalar, own[v], totals[r][v].get()))
        return [[t.get() for t in line] for line in totals]

    def _keys(self, body: Body, point: Point, start: Int, stop: Int) -> None:
        """One block of keys: products and scores, weights and their sums, and the channels' sums."""
        e, s = self.e, self.s
        rest = s.n % self.rows
        count = e.sub(stop, start)
        middle = e.add(start, e.mul(e.floordiv(count, self.rows, nonnegative=True), self.rows))
        with e.loop(start, middle, self.rows, name="n", unroll=False) as n:
            self._dots(body.operands[1], point, start, n, self.rows)
        if rest:
            with e.when(e.less(middle, stop)):
                self._dots(body.operands[1], point, start, middle, rest)
        with self.every() as v:
            best = e.var(self.read(self.tops, 0, v))
            self._scores(body, point, v, start, count, best)
            new = best.get()
            # A query that has seen no key yet keeps -inf, but is shifted by 0: -inf - -inf is not a number.
            shift = e.b.select(e.b.fcmp_ordered("==", new, self.low), self.zero, new)
            scale = exp_nonpositive(e, e.b.fsub(self.read(self.tops, 0, v), shift))
            self.keep(new, self.tops, 0, v)
            self.keep(scale, self.scales, 0, v)
            total = e.var(e.b.fmul(self.read(self.totals, 0, v), scale))
            with e.loop(0, count, name="n", unroll=4) as i:
                weight = exp_nonpositive(e, e.b.fsub(self.read(self.scores, i, v), shift))
                self.keep(weight, self.scores, i, v)
                total.set(e.b.fadd(total.get(), weight))
            self.keep(total.get(), self.totals, 0, v)
        whole = s.d - s.d % self.rows
        with e.loop(0, whole, self.rows, name="d", unroll=False) as d:
            self._channels(body.operands[2], point, start, count, d, self.rows)
        if whole < s.d:
            self._channels(body.operands[2], point, start, count, whole, s.d - whole)

    def _dots(self, k: Access, point: Point, start: Int, n: Int, rows: int) -> None:
        """The products of the queries with keys n .. n + rows - 1."""
        e = self.e

        def broadcast(j: Int, r: int) -> Any:
            return cast(e, k.load(e, point.moved(n=e.add(n, r), k=j)), ACC).ir

        dots = self.product(rows, self.s.k, broadcast, self.queries, lambda r, v: self.zero)
        for r in range(rows):
            for v in range(self.vectors):
                self.keep(dots[r][v], self.scores, e.sub(e.add(n, r), start), v)

    def _scores(self, body: Body, point: Point, v: Int, start: Int, count: Int, best: Var) -> None:
        """The products made scores, and their maxima. Operands that are contiguous along keys are read in squares."""
        e = self.e
        here = self.queries_at(point, v)
        extra = range(3, len(body.operands))
        turned = [i for i in extra if self._turns(body.operands[i].where)]

        def one(at: Point, i: Int, known: dict[int, Val]) -> None:
            values = load_all(e, body.operands, at, extra, known)
            dot = Val(ACC, self.read(self.scores, i, v))
            (score,) = emit_region(e, self.anchor.score, [dot, *values], indices(e, at))
            value = spread(e, score, self.lanes).ir
            self.keep(value, self.scores, i, v)
            old = best.get()
            best.set(e.b.select(e.b.fcmp_ordered(">", value, old), value, old))

        middle: Int = 0
        if turned:
            middle = e.mul(e.floordiv(count, self.lanes, nonnegative=True), self.lanes)
            with e.loop(0, middle, self.lanes, name="square", unroll=False) as i:
                at = point.moved(n=e.add(start, i))
                squares = {t: self.square(body.operands[t], at, v) for t in turned}
                for j in range(self.lanes):
                    key = e.add(i, j)
                    one(here.moved(n=e.add(start, key)), key, {t: values[j] for t, values in squares.items()})
        with e.loop(middle, count, name="n", unroll=False) as i:
            one(here.moved(n=e.add(start, i)), i, {})

    def _turns(self, where: Address) -> bool:
        """Whether an operand of the scores is contiguous along keys and strided along queries."""
        if where.is_guarded or where.indirect or where.stride_along("n") != 1 or where.dtype.kind == "bool":
            return False
        return where.stride_along("m") not in (0, 1, None)

    def _channels(self, values: Access, point: Point, start: Int, count: Int, d: Int, rows: int) -> None:
        """The weighted sums of channels d .. d + rows - 1 over a block of keys, added to those before."""
        e = self.e

        def broadcast(j: Int, r: int) -> Any:
            return cast(e, values.load(e, point.moved(n=e.add(start, j), d=e.add(d, r))), ACC).ir

        scales = [self.read(self.scales, 0, v) for v in range(self.vectors)]

        def first(r: int, v: int) -> Any:
            return e.b.fmul(self.read(self.sums, e.add(d, r), v), scales[v])

        made = self.product(rows, count, broadcast, self.scores, first)
        for r in range(rows):
            for v in range(self.vectors):
                self.keep(made[r][v], self.sums, e.add(d, r), v)

    def _results(self, body: Body, point: Point) -> None:
        """The block's results: transposed back where they are contiguous along channels."""
        e, s = self.e, self.s
        outs = body.results
        whole = s.d - s.d % self.lanes if all(out.where.stride_along("d") == 1 for out in outs) else 0
        with self.every() as v:
            total = self.read(self.totals, 0, v)
            inverse = e.b.fdiv(constant(self.type, 1.0), total)
            inverse = e.b.select(e.b.fcmp_ordered("==", total, self.zero), self.zero, inverse)
            here = self.queries_at(point, v)

            def values(d: Int, v: Int = v, here: Point = here, inverse: Any = inverse) -> list[Val]:
                mean = e.b.fmul(self.read(self.sums, d, v), inverse)
                made = emit_region(e, self.anchor.epilogue, [Val(ACC, mean)], indices(e, here.moved(d=d)))
                return [spread(e, each, self.lanes) for each in made]

            if whole:
                with e.loop(0, whole, self.lanes, name="d", unroll=False) as d:
                    columns = [values(e.add(d, j)) for j in range(self.lanes)]
                    for out, lines in zip(outs, zip(*columns, strict=True), strict=True):
                        for j, line in enumerate(transpose(e, [to_storage(e, each) for each in lines])):
                            row = e.add(point.at["m"], e.add(e.mul(v, self.lanes), j))
                            with e.when(e.less(row, s.m) if self.has_tail else True):
                                e.b.store(line, out.place(e, point.moved(m=row, d=d)), align=out.dtype.bytes)
            if whole < s.d:
                with e.loop(whole, s.d, name="d", unroll=False) as d:
                    for out, made in zip(outs, values(d), strict=True):
                        out.store(e, here.moved(d=d), made)
