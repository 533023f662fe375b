# SPDX-License-Identifier: Apache-2.0
"""Contractions in register tiles: what `llvm.gemm` and `llvm.conv` have in common.

The right factor lies in panels of `n_tile` columns, [panel][depth][column]: constants are packed when the engine is
built, other tensors by a launch of their own. Rows are cut into `m_parts` and panels into `n_parts`; a pair of parts is
a task, and within it every panel is walked by all tiles of `m_tile` rows. `order` says which part varies slowest from
task to task: workers take tasks in runs, so it decides what they share. While a tile is computed, `prefetch` brings in
the next tile's rows and what the epilogue touches, or also a share of the next panel. With `copy`, the left factor is
written out first, padding, prologue and conversions applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from tcc.codegen.llvm.emit import I8, I64, Body, Int, KernelEmitter
from tcc.codegen.llvm.emit.memory import address
from tcc.codegen.llvm.templates.contraction_cost import estimate
from tcc.codegen.llvm.templates.contraction_pack import copy_left, pack_right, zero_row
from tcc.codegen.llvm.templates.contraction_plan import Left, Plan, make_plan, right_packing, why_not
from tcc.codegen.llvm.templates.contraction_tile import Ahead, Tile, panel_offset
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Packing, Space, Template
from tcc.ir.expr import mul, product
from tcc.ir.kernel import Func
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target

_AHEAD = 8192
"""How far ahead of what is computed a panel that is read once is prefetched, in bytes."""
M_TILES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14]


def _parts(target: Target, factor: int) -> list[int]:
    """Numbers of parts: one, one for each worker, and some more, so that blocks fit a cache."""
    return list(dict.fromkeys((1, target.cores, factor * target.cores, factor * 4 * target.cores)))


def registers(target: Target) -> int:
    """Vector registers."""
    return 32 if "avx512" in target.features else 16


def _fits(columns: Columns, problem: Func, target: Target) -> Any:
    lanes = make_plan(problem, target).lanes
    v = columns["n_tile"] // lanes
    return columns["m_tile"] * v + np.where(v == 1, 1, v + 1) <= registers(target)


def _parts_exist(columns: Columns, problem: Func, target: Target) -> Any:
    plan = make_plan(typical(problem), target)
    tiles = -(-plan.row_count // columns["m_tile"])
    panels = -(-plan.columns // columns["n_tile"])
    return (columns["m_parts"] <= tiles) & (columns["n_parts"] <= panels)


def _order_matters(columns: Columns, problem: Func, target: Target) -> Any:
    alone = (columns["m_parts"] == 1) | (columns["n_parts"] == 1)
    return ~alone | (columns["order"] == "mn")


def _next_exists(columns: Columns, problem: Func, target: Target) -> Any:
    plan = make_plan(problem, target)
    return (columns["prefetch"] != "all") | (plan.columns > columns["n_tile"])


class ContractionTiles(Template):
    """Base of the templates; subclasses name the anchor."""

    kind: ClassVar[str] = "cpu"
    legal: ClassVar[Sequence[Constraint]] = (
        Constraint("registers", _fits, "the tile needs more vector registers than there are"),
        Constraint("parts", _parts_exist, "there are fewer tiles than parts"),
        Constraint("order", _order_matters, "the order of tasks only matters where both rows and columns are cut"),
        Constraint("prefetch", _next_exists, "there is no next panel to prefetch"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        return why_not(problem, target)

    def space_for(self, problem: Func, target: Target) -> Space:
        plan, real = make_plan(typical(problem), target), make_plan(problem, target)
        m_parts = [p for p in _parts(target, 4) if p <= plan.row_count]
        n_parts = [p for p in _parts(target, 2) if p <= plan.panels(plan.lanes)]
        return Space(
            m_tile=[m for m in M_TILES if m <= plan.row_count],
            n_tile=[v * plan.lanes for v in (1, 2, 3, 4) if (v - 1) * plan.lanes < plan.columns],
            m_parts=m_parts,
            n_parts=n_parts,
            order=["mn", "nm"] if len(m_parts) > 1 and len(n_parts) > 1 else ["mn"],
            prefetch=["none", "rows", "all"] if plan.columns > plan.lanes and real is plan else ["none", "rows"],
            copy=[c for c, left in ((False, real.direct), (True, real.copy)) if left is not None],
        )

    def default(self, problem: Func, target: Target) -> Config | None:
        columns, _ = self.legal_columns(problem, target)
        seconds = self.cost(typical(problem), columns, target)
        best = int(np.argmin(seconds))
        return {k: v[best].item() for k, v in columns.items()}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        return estimate(make_plan(problem, target), configs, target)

    def pack(self, problem: Func, config: Config, target: Target) -> Sequence[Packing]:
        plan = make_plan(problem, target)
        return (right_packing(plan, config["n_tile"]),) if plan.packs_right else ()

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        plan = make_plan(problem, target)
        e = KernelEmitter(problem, self.name, config, target)
        _Tasks(e, plan, config).emit()
        m, n = config["m_tile"], config["n_tile"]
        kind = "FMA" if plan.acc.is_float else "multiply and add"
        return e.emitted(
            instruction=f"{8 * target.vector_bytes}-bit {kind}",
            tile=f"{m}x{n}x{plan.depth_count}",
            left="copied" if config["copy"] else "in place",
            right="packed constant" if plan.packs_right else "packed by a launch",
            epilogue="registers",
        )


class _Tasks:
    """Emits the launches of one contraction."""

    def __init__(self, e: KernelEmitter, plan: Plan, config: Config) -> None:
        self.e, self.plan = e, plan
        self.m, self.n = config["m_tile"], config["n_tile"]
        self.m_parts, self.n_parts = config["m_parts"], config["n_parts"]
        self.rows_slowest = config["order"] == "mn"
        self.prefetch = config["prefetch"]
        self.copied = plan.copy if config["copy"] else None
        left = self.copied.left if self.copied is not None else plan.direct
        assert left is not None
        self.how: Left = left

    def emit(self) -> None:
        e, plan = self.e, self.plan
        read: list[int] = []
        copy_at = pack_at = -1
        if self.copied is not None:
            copy_at = e.workspace(self.copied.size * plan.acc.bytes)
            read.append(copy_at)
        if not plan.packs_right:
            size = plan.batch_count * plan.panels(self.n) * plan.depth_count * self.n
            pack_at = e.workspace(size * plan.acc.bytes)
            read.append(pack_at)
        if self.copied is not None:
            copy_left(e, plan, self.copied, copy_at)
        if pack_at >= 0:
            pack_right(e, plan, self.n, pack_at)
        guarded = bool(self.how.address.guards)
        fill = None
        if guarded:
            length = (self.how.run - 1) * abs(self.how.step) + 1
            fill = zero_row(e, plan, length, self.how.address.fill)
        parts = [self.m_parts, self.n_parts] if self.rows_slowest else [self.n_parts, self.m_parts]
        tasks = mul(product(plan.repeats.values()), plan.batch_count * self.m_parts * self.n_parts)
        with e.launch(
            tasks, plan.nest.operands, plan.nest.results, scratch_read=read
        ) as body, e.tasks(body.first, body.last) as task:  # fmt: skip
            counts = [*(e.of(size) for size in plan.repeats.values()), *plan.batch.values()]
            *outer, slow, fast = e.unflatten(task, [*counts, *parts])
            m_part, n_part = (slow, fast) if self.rows_slowest else (fast, slow)
            batch = {**body.symbols, **dict(zip([*plan.repeats, *plan.batch], outer, strict=True))}
            left = body.workspaces[copy_at] if copy_at >= 0 else body.operands[0].pointer
            right = body.workspaces[pack_at] if pack_at >= 0 else body.operands[plan.right.start].pointer
            tile = Tile(e, plan, self.how, body, left, fill, self.n)
            self._part(tile, body, batch, m_part, n_part, right)

    def _bounds(self, part: Int, parts: int, count: Int) -> tuple[Int, Int]:
        """Part number `part` of `count` things in `parts` nearly equal parts."""
        e = self.e
        if parts == 1:
            return 0, count
        if isinstance(count, int) and count % parts == 0:
            first = e.mul(part, count // parts)
            return first, e.add(first, count // parts)
        first = e.floordiv(e.mul(part, count), parts, nonnegative=True)
        return first, e.floordiv(e.mul(e.add(part, 1), count), parts, nonnegative=True)

    def _part(self, tile: Tile, body: Body, batch: dict[str, Int], m_part: Int, n_part: Int, right: Any) -> None:
        e, plan = self.e, self.plan
        whole, rest = divmod(plan.columns, self.n)
        first, last = self._bounds(n_part, self.n_parts, plan.panels(self.n))
        lanes = plan.lanes

        def panel_at(panel: Int) -> Any:
            return address(e, right, panel_offset(e, plan, batch, panel, self.n), plan.packed)

        def rows(panel: Int, vectors: int, mask: Any) -> None:
            self._rows(tile, batch, m_part, e.mul(panel, self.n), panel_at(panel), vectors, mask)

        if whole:
            with e.loop(first, e.minimum(last, whole), name="panel", unroll=False) as panel:
                rows(panel, self.n // lanes, None)
        if rest:
            with e.when(e.less(whole, last)):
                mask = e.first_lanes(rest % lanes, lanes) if rest % lanes else None
                rows(whole, -(-rest // lanes), mask)

    def _rows(
        self, tile: Tile, batch: dict[str, Int], m_part: Int, column: Int, panel: Any, vectors: int, mask: Any
    ) -> None:
        e, plan = self.e, self.plan
        if not isinstance(plan.row_count, int):
            self._open_rows(tile, batch, m_part, column, panel, vectors, mask)
            return
        whole, rest = divmod(plan.row_count, self.m)
        count = -(-plan.row_count // self.m)
        first, last = self._bounds(m_part, self.m_parts, count)
        ahead = self._ahead(panel, -(-count // self.m_parts)) if self.prefetch == "all" else None
        near = self.prefetch != "none"
        if whole:
            with e.loop(first, e.minimum(last, whole), name="tile", unroll=False) as t:
                here = None if ahead is None else ahead(e.sub(t, first))
                tile.run(e.mul(t, self.m), self.m, batch, column, panel, vectors, mask, here, near)
        if rest:
            with e.when(e.less(whole, last)):
                tile.run(whole * self.m, rest, batch, column, panel, vectors, mask, None, near)

    def _open_rows(
        self, tile: Tile, batch: dict[str, Int], m_part: Int, column: Int, panel: Any, vectors: int, mask: Any
    ) -> None:
        """As many rows as an argument says: whole tiles, and what is left of the last one row by row."""
        e, near = self.e, self.prefetch != "none"
        rows = e.of(self.plan.row_count)
        whole = e.floordiv(rows, self.m, nonnegative=True)
        count = e.floordiv(e.add(rows, self.m - 1), self.m, nonnegative=True)
        first, last = self._bounds(m_part, self.m_parts, count)
        with e.loop(first, e.minimum(last, whole), name="tile", unroll=False) as t:
            tile.run(e.mul(t, self.m), self.m, batch, column, panel, vectors, mask, None, near)
        if self.m == 1:
            return
        with e.when(e.less(whole, last)), e.loop(e.mul(whole, self.m), rows, name="row", unroll=False) as row:
            tile.run(row, 1, batch, column, panel, vectors, mask, None, near)

    def _ahead(self, panel: Any, tiles: int) -> Callable[[Int], Ahead]:
        """What each of the tiles of a panel prefetches: its share of the panel after this one."""
        e, plan = self.e, self.plan
        size = plan.depth_count * self.n * plan.packed.bytes
        step = -(-self.n * plan.packed.bytes // tiles)
        share = step * plan.depth_count

        if tiles == 1:
            # Every panel is read once: stay a little ahead in the stream.
            return lambda number: Ahead(e.b.gep(panel, [I64(_AHEAD)], source_etype=I8), step)

        def of_tile(number: Int) -> Ahead:
            start = e.minimum(e.mul(number, share), size)
            return Ahead(e.b.gep(panel, [e.i64(e.add(start, size))], source_etype=I8), step)

        return of_tile
