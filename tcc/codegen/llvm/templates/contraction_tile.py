# SPDX-License-Identifier: Apache-2.0
"""The register tile of a contraction: m rows × v vectors of columns, summed over the whole depth, then the epilogue.

For one step of the depth: v vectors of the panel are read, and of each row one element, which is spread over a vector
and multiplied into v accumulators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tcc.codegen.llvm.emit import (
    I8,
    I32,
    I64,
    Access,
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    Var,
    cast,
    constant,
    emit_region,
    indices,
    load_all,
    scalar_expr,
    vector,
)
from tcc.codegen.llvm.emit.memory import address, load, load_raw, store
from tcc.codegen.llvm.emit.values import VOID, compute_type
from tcc.codegen.llvm.templates.contraction_plan import ROW, Left, Plan
from tcc.ir.expr import Ranges, split, symbols
from tcc.ir.scalar import ScalarOp

UNROLL = 4
LINE = 64
_INLINE = 400
"""Region ops that a tile's epilogue may unroll to; beyond, it goes through memory in a loop over the rows."""


@dataclass(frozen=True)
class Ahead:
    """Memory to bring into the second-level cache while a tile is computed: `bytes_a_step` for a step of the depth."""

    pointer: Any
    bytes_a_step: int


@dataclass
class Tile:
    """Emits tiles of one contraction inside a kernel function.

    `left`: the address of the left factor's buffer; `fill`: a row of the fill value (None where nothing is out of
    range). `panel`: gives the address of element (depth 0, column 0) of the panel at hand, `pitch` the elements from
    one depth to the next there.
    """

    e: KernelEmitter
    plan: Plan
    how: Left
    body: Body
    left: Any
    fill: Any
    pitch: int

    def __post_init__(self) -> None:
        plan = self.plan
        self.results = [Access(r.pointer, plan.flattened(r.where)) for r in self.body.results]
        self.operands = list(self.body.operands)
        for i in plan.extra:
            self.operands[i] = Access(self.operands[i].pointer, plan.flattened(self.operands[i].where))
        self.ranges: Ranges = plan.ranges
        used = {s for a in (*self.results, *(self.operands[i] for i in plan.extra)) for s in a.where.symbols}
        used |= {s for x in plan.nest.index.values() for s in symbols(x)}
        self.after = [n for n in plan.rows if n in used]
        self.before = [] if self.how.uniform is not None else list(plan.rows)
        block = plan.anchor.epilogue.block
        self.operations = sum(_weight(op.name) for op in block.ops if isinstance(op, ScalarOp))

    # Rows.

    def coordinates(self, row: Int, count: int) -> list[dict[str, Int]]:
        """The rows' dims of `count` rows from `row` on, found by carrying from one to the next."""
        e, plan = self.e, self.plan
        wanted = set(self.after) | set(self.before)
        out: list[dict[str, Int]] = []
        if not wanted:
            return [{ROW: e.add(row, i)} for i in range(count)]
        names, sizes = list(plan.rows), list(plan.rows.values())
        at = dict(zip(names, e.unflatten(row, sizes), strict=True))
        for i in range(count):
            out.append({ROW: e.add(row, i), **at})
            if i + 1 < count:
                at = self._next(at)
        return out

    def _next(self, at: Mapping[str, Int]) -> dict[str, Int]:
        """The row after one."""
        e, new = self.e, dict(at)
        first, *others = self.plan.rows
        carry: Int = 1
        for name in reversed(others):
            more = e.add(new[name], carry)
            wraps = e.equal(more, self.plan.rows[name])
            if isinstance(wraps, bool):
                new[name], carry = (0, 1) if wraps else (more, 0)
            else:
                new[name], carry = e.b.select(wraps, I64(0), more), e.b.zext(wraps, I64)
        new[first] = e.add(new[first], carry)
        return new

    # The sum.

    def run(
        self, row: Int, count: int, batch: Mapping[str, Int], column: Int, panel: Any, vectors: int, mask: Any,
        ahead: Ahead | None = None, near: bool = False,
    ) -> None:  # fmt: skip
        """One tile: `count` rows from `row`, `vectors` vectors of columns from `column`; `mask`: the lanes of the last
        vector that exist (None: all). `ahead`: what to prefetch meanwhile. `near`: also prefetch the next tile's rows
        and what the epilogue will touch."""
        e, plan, how = self.e, self.plan, self.how
        lanes = plan.lanes
        zero = constant(vector(compute_type(plan.acc), lanes), 0)
        sums = [[e.var(zero) for _ in range(vectors)] for _ in range(count)]
        where = self.coordinates(row, count)
        rows = self._row_parts(batch, where)
        if near:
            self._fetch_epilogue(where, batch, column, vectors)
        with self._taps(list(how.taps.items()), {}) as taps:
            number = self._flat(taps, how.taps)
            base = address(e, panel, e.mul(number, how.run * self.pitch), plan.packed)
            pointers = self._pointers(rows, taps, count)
            for start, stop, step in _steps(how.run, UNROLL):
                with e.loop(start, stop, step, name="k", unroll=False) as k:
                    if ahead is not None:
                        self._fetch(ahead, e.add(e.mul(number, how.run), k), step)
                    if near and how.uniform is not None and step == UNROLL:
                        self._fetch_rows(pointers[0], k, count)
                    for i in range(step):
                        self._step(sums, pointers, base, e.add(k, i))
        self.finish([[s.get() for s in line] for line in sums], where, row, batch, column, mask)

    def _step(self, sums: Sequence[Sequence[Var]], pointers: Sequence[Any], base: Any, k: Int) -> None:
        e, plan = self.e, self.plan
        lanes, stored = plan.lanes, plan.packed
        right = [
            cast(
                e, load(e, address(e, base, e.add(e.mul(k, self.pitch), j * lanes), stored), stored, lanes), plan.acc
            ).ir
            for j in range(len(sums[0]))
        ]
        for line, pointer in zip(sums, pointers, strict=True):
            x = load_raw(e, address(e, pointer, e.mul(k, self.how.step), plan.acc), plan.acc)
            x = e.splat(x, lanes)
            for total, y in zip(line, right, strict=True):
                if plan.acc.is_float:
                    total.set(e.fma(x, y, total.get()))
                else:
                    total.set(e.b.add(total.get(), e.b.mul(x, y)))

    def _fetch(self, ahead: Ahead, done: Int, step: int) -> None:
        """Prefetch what goes with `step` steps of the depth, of which `done` are done."""
        e = self.e
        lines = -(-ahead.bytes_a_step * step // LINE)
        first = e.mul(done, ahead.bytes_a_step)
        for i in range(lines):
            at = e.b.gep(ahead.pointer, [e.i64(e.add(first, i * LINE))], source_etype=I8)
            self._prefetch(at, 2)

    def _prefetch(self, pointer: Any, level: int = 3, write: bool = False) -> None:
        """level: 3 brings it to the first-level cache, 2 to the second."""
        self.e.call("llvm.prefetch.p0", VOID, [pointer, I32(int(write)), I32(level), I32(1)])

    def _fetch_rows(self, first: Any, k: Int, count: int) -> None:
        """Prefetch the next tile's rows: a quarter of them at every fourth step, so each line of a row once."""
        e, how, acc = self.e, self.how, self.plan.acc
        assert how.uniform is not None
        each = -(-count // 4)
        turn = e.mod(e.floordiv(k, UNROLL, nonnegative=True), 4, nonnegative=True)
        offset = e.add(e.mul(turn, each * how.uniform), e.mul(k, how.step))
        base = address(e, first, e.add(offset, count * how.uniform), acc)
        for i in range(each):
            self._prefetch(address(e, base, i * how.uniform, acc), 3 if count * how.run * acc.bytes < 1 << 14 else 2)

    def _fetch_epilogue(
        self, where: Sequence[Mapping[str, Int]], batch: Mapping[str, Int], column: Int, vectors: int
    ) -> None:
        """Prefetch the elements of results, and of operands that vary along rows and columns."""
        plan = self.plan
        moving = {ROW, *plan.rows}
        accesses = [(r, True) for r in self.results]
        accesses += [(self.operands[i], False) for i in plan.extra if self.operands[i].where.symbols & moving]
        for access, write in accesses:
            if access.where.stride_along(plan.column) != 1 or access.where.indirect or access.where.is_guarded:
                continue
            step = max(1, LINE // (plan.lanes * access.dtype.bytes))
            for at in where:
                for j in range(0, vectors, step):
                    point = Point({**batch, **at, plan.column: self.e.add(column, j * plan.lanes)})
                    self._prefetch(access.place(self.e, point), 3, write)

    @contextmanager
    def _taps(self, taps: Sequence[tuple[str, int]], at: dict[str, Int]) -> Iterator[dict[str, Int]]:
        if not taps:
            yield at
            return
        (name, size), *rest = taps
        with self.e.loop(0, size, name=name, unroll=False) as i, self._taps(rest, {**at, name: i}) as inner:
            yield inner

    def _flat(self, at: Mapping[str, Int], sizes: Mapping[str, int]) -> Int:
        out: Int = 0
        for name, size in sizes.items():
            out = self.e.add(self.e.mul(out, size), at[name])
        return out

    def _row_parts(self, batch: Mapping[str, Int], where: Sequence[Mapping[str, Int]]) -> Any:
        """What each row adds to the left factor's offset and to the indices that are guarded."""
        e, how = self.e, self.how
        a = how.address
        inner = (*how.taps, how.run_dim)
        if how.uniform is not None:
            flat = self.plan.flattened(a)
            _, rest = split(flat.offset, inner)
            first = scalar_expr(e, rest, {**batch, ROW: where[0][ROW]}, self.ranges)
            return address(e, self.left, first, self.plan.acc)
        parts: list[Any] = []
        for at in where:
            here = {**batch, **at}
            _, rest = split(a.offset, inner)
            guards = [scalar_expr(e, split(g, inner)[1], here, self.ranges) for g, _ in a.guards]
            parts.append((address(e, self.left, scalar_expr(e, rest, here, self.ranges), self.plan.acc), guards))
        return parts

    def _pointers(self, rows: Any, taps: Mapping[str, Int], count: int) -> list[Any]:
        """The address of each row's run under these taps."""
        e, how, acc = self.e, self.how, self.plan.acc
        a = how.address
        mine, _ = split(a.offset, tuple(how.taps))
        moved = scalar_expr(e, mine, taps, self.ranges)
        if how.uniform is not None:
            first = address(e, rows, moved, acc)
            return [address(e, first, i * how.uniform, acc) for i in range(count)]
        shifts = [scalar_expr(e, split(g, tuple(how.taps))[0], taps, self.ranges) for g, _ in a.guards]
        out: list[Any] = []
        for pointer, guards in rows:
            there = address(e, pointer, moved, acc)
            inside: Any = True
            for value, shift, (_, extent) in zip(guards, shifts, a.guards, strict=True):
                inside = e.both(inside, e.within(e.add(value, shift), e.of(extent)))
            out.append(e.select(inside, there, self.fill))
        return out

    # The epilogue.

    def finish(
        self, sums: Sequence[Sequence[Any]], where: Sequence[Mapping[str, Int]], row: Int, batch: Mapping[str, Int],
        column: Int, mask: Any,
    ) -> None:  # fmt: skip
        """The epilogue and stores of a tile."""
        e, plan = self.e, self.plan
        count, vectors = len(sums), len(sums[0])
        if self.operations * count * vectors <= _INLINE or count == 1:
            known = [self._constant_along_rows(batch, column, j, vectors, mask) for j in range(vectors)]
            for line, place in zip(sums, where, strict=True):
                self._row(line, {**batch, **place}, column, mask, known)
            return
        lanes, acc = plan.lanes, plan.acc
        tile = e.alloca(vector(compute_type(acc), lanes), count * vectors, align=64)
        for i, line in enumerate(sums):
            for j, value in enumerate(line):
                store(e, Val(acc, value), address(e, tile, (i * vectors + j) * lanes, acc))
        known = [self._constant_along_rows(batch, column, j, vectors, mask) for j in range(vectors)]
        with e.loop(0, count, name="finish", unroll=False) as i:
            values = [
                load(e, address(e, tile, e.add(e.mul(i, vectors * lanes), j * lanes), acc), acc, lanes).ir
                for j in range(vectors)
            ]
            here = e.add(row, i)
            at: dict[str, Int] = {ROW: here}
            if self.after:
                at |= dict(zip(plan.rows, e.unflatten(here, list(plan.rows.values())), strict=True))
            self._row(values, {**batch, **at}, column, mask, known)

    def _point(self, at: Mapping[str, Int], column: Int, j: int, vectors: int, mask: Any) -> Point:
        lanes = self.plan.lanes
        last = mask if j == vectors - 1 else None
        return Point(at).along(self.plan.column, self.e.add(column, j * lanes), lanes, last)

    def _constant_along_rows(
        self, batch: Mapping[str, Int], column: Int, j: int, vectors: int, mask: Any
    ) -> dict[int, Val]:
        """What the epilogue's operands that do not depend on the row read."""
        plan = self.plan
        moving = {ROW, *plan.rows}
        fixed = [
            i for i in plan.extra
            if not self.operands[i].where.symbols & moving and not self.operands[i].where.indirect
        ]  # fmt: skip
        point = self._point(batch, column, j, vectors, mask)
        return dict(zip(fixed, load_all(self.e, self.operands, point, fixed), strict=True))

    def _row(
        self, values: Sequence[Any], at: Mapping[str, Int], column: Int, mask: Any, known: Sequence[dict[int, Val]]
    ) -> None:
        e, plan = self.e, self.plan
        for j, value in enumerate(values):
            point = self._point(at, column, j, len(values), mask)
            extra = load_all(e, self.operands, point, plan.extra, known[j])
            made = emit_region(
                e, plan.anchor.epilogue, [Val(plan.acc, value), *extra],
                indices(e, point, plan.nest.index, self.ranges) if plan.nest.index else None,
            )  # fmt: skip
            for access, result in zip(self.results, made, strict=True):
                access.store(e, point, result)


def _steps(run: int, unroll: int) -> list[tuple[int, int, int]]:
    """(start, stop, step) of the loops over a run: unrolled, then the rest."""
    if run <= 2 * unroll:
        return [(0, run, run)]
    whole = run - run % unroll
    return [(0, whole, unroll), *([(whole, run, run - whole)] if run > whole else [])]


def _weight(name: str) -> int:
    return {"math.erf": 40, "math.tanh": 25, "math.exp": 15, "math.sigmoid": 22}.get(
        name, 15 if name.startswith("math.") else 1
    )


def panel_offset(e: KernelEmitter, plan: Plan, batch: Mapping[str, Int], panel: Int, width: int) -> Int:
    """Elements before a panel of the packed right factor."""
    flat: Int = 0
    for name, size in plan.batch.items():
        flat = e.add(e.mul(flat, size), batch[name])
    flat = e.add(e.mul(flat, plan.panels(width)), panel)
    return e.mul(flat, plan.depth_count * width)
