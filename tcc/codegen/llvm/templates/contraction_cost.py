# SPDX-License-Identifier: Apache-2.0
"""How long a contraction in register tiles takes, estimated.

Cycles of one worker: the tiles it computes (two multiply-adds and two loads a cycle, chains of four cycles, what a tile
and a tap cost besides), and what it waits for memory: operands come from the last-level cache once, and again for
every pass over a block that the second level does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.templates.contraction_plan import Left, Plan
from tcc.codegen.template import Columns
from tcc.ir.scalar import ScalarOp
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

Array = np.ndarray[Any, Any]

FAR = 20.0
"""Bytes a cycle that one core gets from the last-level cache while it also computes."""
FAR_PREFETCHED = 10.0
"""The same, sustained, where computing hides it."""
SECOND_LEVEL = 1.3e6
"""Bytes of a block that stays in the second-level cache beside what streams through."""
NEAR = 28.0
"""Bytes a cycle from the second-level cache."""
PANEL_FIRST_LEVEL = 3.2e4
"""Bytes of a panel that stays in the first-level cache from tile to tile."""
WITHOUT_PREFETCH = 1.3
"""How much longer rows and results are waited for without prefetching."""
FIRST_LEVEL = 2.4e4
"""Bytes of a block that stays in the first-level cache."""
LAUNCH_CYCLES = 4000.0


@dataclass(frozen=True)
class _Work:
    """What one config has to do; arrays over configs."""

    m: Array
    v: Array
    tiles: Array
    panels: Array
    vectors: float


def region_cycles(plan: Plan) -> float:
    """Cycles that the epilogue takes for a vector, its loads and stores included."""
    heavy = {"math.exp": 12, "math.sigmoid": 16, "math.tanh": 18, "math.erf": 22, "math.log": 14, "math.pow": 40}
    ops = [op.name for op in plan.anchor.epilogue.block.ops if isinstance(op, ScalarOp)]
    moving = set(plan.rows)
    loads = sum(1 for i in plan.extra if plan.nest.operands[i].symbols & moving)
    stores = len(plan.anchor.results)
    strided = sum(1 for r in plan.nest.results if r.stride_along(plan.column) not in (0, 1))
    arithmetic = sum(heavy.get(n, 12 if n.startswith("math.") else 0.5) for n in ops)
    return arithmetic + loads + 1.5 * stores + 14.0 * strided


def tile_cycles(plan: Plan, left: Left, m: Array, v: Array) -> Array:
    """Cycles of one tile of m rows and v vectors."""
    panel = plan.depth_count * v * plan.lanes * plan.acc.bytes
    near = np.where(panel > PANEL_FIRST_LEVEL, v * plan.lanes * plan.acc.bytes / NEAR, 0.0)
    step = np.maximum(np.maximum(np.maximum(m * v, m + v) / 2, 4.0), near)
    taps = prod(left.taps.values())
    run = np.maximum(left.run * step, left.run * (m * v + m + v + 0.75) / 5.5) * (1.0 if abs(left.step) <= 1 else 1.2)
    if left.uniform is not None:
        finding, setup = 3.0, 20.0
    else:
        # Four or eight rows are found by one vector.
        each = np.where((m == 4) | (m == 8), 0.05, 0.5)
        finding, setup = 2.0 + m * (1 + len(left.address.guards)) * each, 20.0 + 3.0 * m
    return taps * (run + finding) + setup + m * v * (region_cycles(plan) * np.where(m * v > 24, 1.3, 1.0) + 0.5)


def estimate(plan: Plan, c: Columns, target: Target) -> Array:
    """Seconds for each config."""
    rate = target.flop_rate / target.cores / (4 * target.lanes)
    m, v = c["m_tile"].astype(float), c["n_tile"] / plan.lanes
    mp, np_ = c["m_parts"].astype(float), c["n_parts"].astype(float)
    rows, depth = float(plan.row_count), float(plan.depth_count)
    vectors = float(-(-plan.columns // plan.lanes))
    batch = float(plan.batch_count)
    w = _Work(m, v, np.ceil(rows / m), np.ceil(plan.columns / c["n_tile"]), vectors)
    direct, copied = plan.direct or plan.copy_left, plan.copy_left or plan.direct
    assert direct is not None and copied is not None

    def everything(left: Left) -> Array:
        whole_m, rest_m = rows // m, rows % m
        whole_v, rest_v = vectors // v, vectors % v

        def panel(width: Array) -> Array:
            rest = np.where(rest_m > 0, tile_cycles(plan, left, rest_m, width), 0.0)
            return whole_m * tile_cycles(plan, left, m, width) + rest

        return whole_v * panel(v) + np.where(rest_v > 0, panel(rest_v), 0.0)

    cycles = batch * np.where(c["copy"], everything(copied), everything(direct))
    share, rows_w, columns_w = _share(w, mp, np_, c["order"] == "mn", rows, batch, target.cores)
    cycles = cycles * share

    size = plan.acc.bytes
    left_bytes = rows * depth / _reuse(plan) * size
    right_bytes = vectors * plan.lanes * depth * size
    own_left, own_right = left_bytes * rows_w, right_bytes * columns_w
    out = _moved(plan) * share
    # What is read again, from the level that holds it.
    by_rows = c["order"] == "mn"
    panels_w, parts_w = np.ceil(w.panels * columns_w), np.ceil(np_ * columns_w)
    inner = np.where(by_rows, panels_w, np.ceil(w.panels / np_)) - 1
    outer = np.where(by_rows, 0.0, parts_w - 1)
    again_left = own_left * (inner * _level(left_bytes / mp) + outer * _level(own_left))
    passes = np.ceil(mp * rows_w) - 1
    again_right = own_right * passes * _level(np.where(by_rows, own_right, right_bytes / np_), 1.0)
    first = right_bytes / w.panels
    vectors_a_tile = m * v * (1 + sum(1 for i in plan.extra if plan.nest.operands[i].symbols & set(plan.rows)))
    fetching = np.where(c["prefetch"] == "none", 0.0, 0.5 * share * batch * w.tiles * w.panels * vectors_a_tile)
    waiting = (own_left + again_left + out) / FAR
    waiting = waiting * np.where(c["prefetch"] == "none", WITHOUT_PREFETCH, 1.0) + fetching
    plain = (own_right + again_right) / FAR * 1.25
    once = cycles / (passes + 1)
    late = np.maximum(0.0, own_right / FAR_PREFETCHED - once)
    late = late + np.maximum(0.0, again_right / FAR_PREFETCHED - (cycles - once))
    hidden = first / FAR + late + 0.015 * cycles
    waiting = waiting + np.where(c["prefetch"] == "all", hidden, plain)
    tasks = batch * mp * np_
    seconds = (cycles + waiting + 40.0 * np.ceil(tasks / target.cores)) / rate
    before = _before(plan, c, target)
    return target.launch_seconds + seconds + before / rate


def _level(nbytes: Array, far: float = 0.5) -> Array:
    """The cost of reading a block of that size again, relative to the first time."""
    return np.where(nbytes > SECOND_LEVEL, far, np.where(nbytes > FIRST_LEVEL, 0.25, 0.0))


def _share(
    w: _Work, mp: Array, np_: Array, by_rows: Array, rows: float, batch: float, cores: int
) -> tuple[Array, Array, Array]:
    """(the part of all work that the busiest worker has, the part of the rows, of the columns that it touches)."""
    tasks = batch * mp * np_
    each = np.ceil(tasks / cores)

    def split(slow: Array, fast: Array, slow_units: Array, fast_units: Array) -> tuple[Array, Array, Array]:
        """(share of batches, of slow units, of fast units)."""
        parts = each / fast
        many = parts >= 1
        whole = np.ceil(parts)
        some = np.where(batch > 1, 1.0, np.ceil(slow_units * np.minimum(whole / slow, 1.0)) / slow_units)
        batches = np.where(batch > 1, np.minimum(whole / (slow * batch), 1.0), 1.0)
        few_slow = np.ceil(slow_units / slow) / slow_units
        few_fast = np.ceil(fast_units * np.minimum(parts, 1.0)) / fast_units
        return (
            np.where(many, batches, 1.0 / batch),
            np.where(many, some, few_slow),
            np.where(many, 1.0, few_fast),
        )

    b1, s1, f1 = split(mp, np_, w.tiles, w.panels)
    b2, s2, f2 = split(np_, mp, w.panels, w.tiles)
    tiles = np.where(by_rows, s1, f2)
    panels = np.where(by_rows, f1, s2)
    batches = np.where(by_rows, b1, b2)
    row_share = np.minimum(tiles * w.tiles * w.m, rows) / rows
    column_share = np.minimum(panels * w.panels * w.v, w.vectors) / w.vectors
    return batches * row_share * column_share, row_share, column_share


def _reuse(plan: Plan) -> float:
    """How often an element of the left factor is read within one pass, by overlapping windows."""
    t = plan.anchor.operands[0].type
    assert isinstance(t, TensorType)
    have = float(prod(t.static_shape)) / plan.batch_count
    return max(1.0, plan.row_count * plan.depth_count / max(have, 1.0))


def _moved(plan: Plan) -> float:
    """Bytes of the results and of the epilogue's large operands."""
    total = 0.0
    for value in {*(plan.anchor.operands[i] for i in plan.extra), *plan.anchor.results}:
        assert isinstance(value.type, TensorType)
        total += prod(value.type.static_shape) * value.type.dtype.bytes
    return total


def _before(plan: Plan, c: Columns, target: Target) -> Array:
    """Cycles of the launches that write factors out first."""
    lanes, size = plan.lanes, plan.acc.bytes
    total = np.zeros(len(c["m_tile"]))
    if plan.copy is not None and plan.copy.dims:
        name, inner = list(plan.copy.dims.items())[-1]
        strided = all(a.stride_along(name) not in (0, 1) for a in plan.copy.operands)
        lines = plan.copy.size / inner
        instructions = plan.copy.size / lanes * 25.0 if strided else lines * (8.0 + 2.0 * -(-inner // lanes))
        copying = (instructions + plan.copy.size * size / FAR) / target.cores
        total = total + np.where(c["copy"], copying + LAUNCH_CYCLES, 0.0)
    if not plan.packs_right:
        elements = plan.batch_count * np.ceil(plan.columns / c["n_tile"]) * c["n_tile"] * plan.depth_count
        total = total + elements * (0.25 + 2 * size / FAR / 2) / target.cores + LAUNCH_CYCLES
    return total
