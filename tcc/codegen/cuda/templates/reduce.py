# SPDX-License-Identifier: Apache-2.0
"""`cuda.reduce`: reductions by warps and blocks, along consecutive or kept-consecutive dims, split over blocks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tcc.codegen.cuda.templates.common import (
    BLOCK_SECONDS,
    ceil_div,
    cheapest,
    clock,
    clusters,
    free_extent,
    memory_seconds,
    parallel_size,
    reduce_size,
)
from tcc.codegen.cuda.templates.reductions import define_reduction, reduction_unit, widest
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Func, Reduce
from tcc.ir.targets import Target


def _vector_fits(c: Columns, problem: Func, target: Target) -> Any:
    unit = reduction_unit(problem, target)
    return c["vector"] <= np.where(c["along"] == "reduced", widest(unit, "fr"), widest(unit, "fp"))


def _threads_fit(c: Columns, problem: Func, target: Target) -> Any:
    return (c["tx"] * c["ty"] >= 32) & (c["tx"] * c["ty"] <= 1024)


def _shared_fits(c: Columns, problem: Func, target: Target) -> Any:
    anchor = problem.anchor
    assert isinstance(anchor, Reduce)
    keep = np.where(c["along"] == "kept", c["vector"], 1)
    return c["tx"] * c["ty"] * keep * len(anchor.combine) * anchor.acc.bytes <= 48 << 10


def _split_helps(c: Columns, problem: Func, target: Target) -> Any:
    kept, reduced = parallel_size(problem), reduce_size(problem)
    keep = np.where(c["along"] == "kept", c["vector"], 1)
    step = c["ty"] * np.where(c["along"] == "reduced", c["vector"], 1)
    blocks = ceil_div(kept, c["tx"] * keep) * c["split"]
    return (c["split"] == 1) | ((blocks <= 4 * target.cores) & (c["split"] * step <= reduced))


def _order_fits(c: Columns, problem: Func, target: Target) -> Any:
    """Threads along the dim whose neighbours lie next to each other."""
    return np.where(c["along"] == "reduced", c["ty"] >= 8, c["tx"] >= 8)


@template
class ReduceTemplate(Template):
    """A block of tx × ty threads for tx (vectors of) points."""

    name = "cuda.reduce"
    kind = "cuda"
    matches = (Reduce,)
    space = Space(
        along=["reduced", "kept"],
        vector=[1, 2, 4, 8, 16],
        tx=[1, 2, 4, 8, 16, 32, 64, 128],
        ty=[1, 2, 4, 8, 16, 32, 128, 256, 512],
        split=[1, 2, 4, 8, 16, 32, 64],
    )
    legal = (
        Constraint("threads", _threads_fit, "a block has 32 to 1024 threads"),
        Constraint("vector", _vector_fits, "V neighbours are V aligned elements of the first operand"),
        Constraint("shared", _shared_fits, "the parts of a block fit 48 KiB of shared memory"),
        Constraint("order", _order_fits, "at least 8 neighbouring threads are neighbours in memory"),
        Constraint("split", _split_helps, "the reduced range is split only where blocks leave SMs idle"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        if not len(problem.anchor.operands):
            return "there is no operand to reduce"
        if max(parallel_size(problem), reduce_size(problem)) >= 1 << 30:
            return "2^30 points or more"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (1.58, 5.83, 0.443, 57.6, 2.62, 1.05e-07, 4.69e-07, 2.02e-06, 2.78)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles of a warp: a read, a value combined, a step of the tree, a thread's frame; how many warps a scheduler
        # needs to issue every cycle; seconds of a load's latency, of a block, of a second kernel; use of the memory's
        # rate (above 1: data in the L2).
        read, value, tree, frame, hide, latency, around, second, use = self.weights
        c = configs
        kept, reduced = max(parallel_size(problem), 1), max(reduce_size(problem), 1)
        unit = reduction_unit(problem, target)
        anchor = unit.anchor
        assert isinstance(anchor, Reduce)
        size = unit.operand(0).dtype.bytes
        rows = c["along"] == "reduced"
        keep, many = np.where(rows, 1, c["vector"]), np.where(rows, c["vector"], 1)
        threads = c["tx"] * c["ty"]
        blocks = ceil_div(kept, c["tx"] * keep) * c["split"]
        steps = np.ceil(reduced / (c["ty"] * many * c["split"]))
        near = np.where(rows, *(unit.operand(0).neighbours(d) for d in ("fr", "fp")))
        width = np.where(near, np.where(rows, c["ty"], c["tx"]) * c["vector"] * size, size)
        wasted = np.maximum(1.0, 32.0 / np.minimum(width, 32))
        issue = steps * (read + c["vector"] * value) + np.log2(c["ty"]) * tree * keep + frame
        resident = np.maximum(1, 2048 // np.maximum(threads, 64))
        together = np.minimum(resident, ceil_div(blocks, target.cores))
        waves = np.maximum(1.0, blocks / (resident * target.cores))
        unroll = np.where(c["vector"] >= 8, 2.0, 4.0)
        cycles = issue * np.maximum(together * threads / 128.0, hide)
        serial = waves * (np.maximum(cycles / clock(target), np.ceil(steps / unroll) * latency) + around)
        moved = memory_seconds(problem, target) * wasted / use
        grouped = np.array([clusters(int(n), anchor.acc.bytes, target) for n in c["split"]])
        finish = np.where(grouped, 0.4, 1.0) * np.where(c["split"] > 1, second + c["split"] * 1e-8, 0.0)
        crowd = np.maximum(moved, BLOCK_SECONDS * blocks)
        return target.launch_seconds + np.maximum(crowd, serial) + finish

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        unit = reduction_unit(problem, target, entry_name(problem, self.name, config))
        anchor = unit.anchor
        assert isinstance(anchor, Reduce)
        rows = config["along"] == "reduced"
        keep, many = (1, config["vector"]) if rows else (config["vector"], 1)
        tx, ty, split = config["tx"], config["ty"], config["split"]
        define_reduction(unit, keep, many)
        points = unit.extents["fp"]
        unit.define(
            TX=tx, TY=ty, VP=keep, VR=many, SPLIT=split, Y_FASTEST=rows, POINTS=points, REDUCED=unit.extents["fr"],
            Coordinate="int",
        )  # fmt: skip
        cluster = clusters(split, anchor.acc.bytes, target)
        unit.macro(TCC_SPLIT=split, TCC_CLUSTER=int(cluster))
        apart = split > 1 and not cluster
        if apart:
            unit.workspace(anchor.acc, len(anchor.combine) * split * points)
        blocks = ceil_div(points, tx * keep) * split
        size = (split, 1, 1) if cluster else None
        launches = [unit.launch((blocks, 1, 1), tx * ty, writes_results=not apart, writes_work=apart, cluster=size)]
        if apart:
            grid = ceil_div(points, keep * 128)
            launches.append(unit.launch((grid, 1, 1), 128, entry=f"{unit.entry}_finish"))
        return unit.emitted(
            unit.source("reduce.cuh", headers=["cluster.cuh"]),
            launches,
            grid=blocks,
            block=tx * ty,
            vector=[config["along"], config["vector"]],
        )
