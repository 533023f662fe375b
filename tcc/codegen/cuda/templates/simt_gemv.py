# SPDX-License-Identifier: Apache-2.0
"""`cuda.simt_gemv`: products with at most eight rows, bound by reading the matrix; convolutions of one pixel too."""

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
)
from tcc.codegen.cuda.templates.contraction import View, no_operand
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Contraction, Func
from tcc.ir.targets import Target

MOST_ROWS = 8


def skinny_view(problem: Func, target: Target, entry: str = "unnamed") -> View:
    """The view whose fm is the shorter side."""
    view = View(problem, target, entry)
    return view if view.m <= view.n else View(problem, target, entry, swapped=not view.swapped)


def _width(view: View) -> int:
    return max(1, view.b.width)


def _vector_fits(c: Columns, problem: Func, target: Target) -> Any:
    return c["vector"] <= _width(skinny_view(problem, target))


def _threads_fit(c: Columns, problem: Func, target: Target) -> Any:
    threads = c["tx"] * c["ty"]
    fast = c["ty"] if skinny_view(problem, target).b.along_k else c["tx"]
    return (threads >= 64) & (threads <= 512) & (fast >= 8)


def _columns_fit(c: Columns, problem: Func, target: Target) -> Any:
    v = skinny_view(problem, target)
    wide = c["vector"] if v.b.along_k else 1
    return (c["columns"] == 1) if not v.b.along_k else (c["columns"] * v.m * 2 + wide * (v.m + c["columns"]) <= 128)


def _not_oversized(c: Columns, problem: Func, target: Target) -> Any:
    v = skinny_view(problem, target)
    columns = c["columns"] if v.b.along_k else c["vector"]
    places = c["vector"] if v.b.along_k else 1
    return (c["tx"] * columns < 2 * max(v.n, 1)) & (c["ty"] * places < 2 * max(v.k, 1))


def _split_helps(c: Columns, problem: Func, target: Target) -> Any:
    v = skinny_view(problem, target)
    columns = c["columns"] if v.b.along_k else c["vector"]
    step = c["ty"] * (c["vector"] if v.b.along_k else 1)
    blocks = ceil_div(v.n, c["tx"] * columns) * v.batch * c["split_k"]
    return (c["split_k"] == 1) | ((blocks <= 4 * target.cores) & (ceil_div(v.k, step) >= 2 * c["split_k"]))


@template
class SimtGemv(Template):
    """tx × ty threads; B is read once."""

    name = "cuda.simt_gemv"
    kind = "cuda"
    matches = (Contraction,)
    space = Space(
        vector=[1, 2, 4, 8, 16],
        columns=[1, 2, 4],
        tx=[1, 2, 4, 8, 16, 32, 64, 128],
        ty=[1, 2, 4, 8, 16, 32, 64, 128, 256],
        split_k=[1, 2, 4, 8, 16],
    )
    legal = (
        Constraint("vector", _vector_fits, "V neighbours are V aligned elements of the matrix"),
        Constraint("threads", _threads_fit, "a block has 64 to 512 threads, 8 of them neighbours in the matrix"),
        Constraint("columns", _columns_fit, "several columns a thread only where the matrix is consecutive along k"),
        Constraint("oversized", _not_oversized, "the block is less than twice the problem"),
        Constraint("split", _split_helps, "K is split only where blocks leave SMs idle and each part has two steps"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem) or no_operand(problem)) is not None:
            return sentence
        v = skinny_view(problem, target)
        if v.m > MOST_ROWS:
            return f"there are {v.m} rows, more than {MOST_ROWS}"
        if v.k < 32 or v.n < 16:
            return f"a matrix of {v.k} x {v.n} is too small to share among threads"
        if max(v.n, v.k, v.batch) >= 1 << 30 or v.batch * v.n >= 1 << 30:
            return "an extent is 2^30 or more"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (3.17, 18.7, 25.9, 2.61, 4.5e-08, 1.53e-06, 4.32, 8.06e-07)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles of a warp: an FMA with its conversions, a load, the same through a window; how many warps a scheduler
        # needs to issue every cycle; seconds of a block, of a second kernel; use of the L2's rate; latency of a load.
        fma, load, windowed, hide, around, second, use, latency = self.weights
        v, c = skinny_view(problem, target), configs
        matrix = v.unit.operand(v.b.operands[0])
        size = matrix.dtype.bytes
        columns = c["columns"] if v.b.along_k else c["vector"]
        places = c["vector"] if v.b.along_k else np.ones_like(c["vector"])
        threads = c["tx"] * c["ty"]
        blocks = ceil_div(v.n, c["tx"] * columns) * v.batch * c["split_k"]
        steps = ceil_div(v.k, c["ty"] * places * c["split_k"])
        guards = sum(bool(v.unit.operand(s.operands[0]).guards) for s in (v.a, v.b))
        reads = np.where(v.b.along_k, c["columns"], 1) + v.m
        issue = steps * (v.m * columns * places * fma * 1.5 + reads * (load + guards * windowed))
        issue = issue + v.m * columns * (np.log2(np.maximum(c["ty"], 1)) * 6.0 + 20.0)
        resident = np.maximum(1, 1536 // threads)
        together = np.minimum(resident, ceil_div(blocks, target.cores))
        waves = np.maximum(1.0, blocks / (resident * target.cores))
        unroll = np.where(columns * places >= 16, 2.0, np.where(columns * places >= 4, 4.0, 8.0))
        serial = np.maximum(
            issue * np.maximum(together * threads / 128.0, hide) / clock(target), steps / unroll * latency
        )
        neighbours = (c["ty"] if v.b.along_k else c["tx"]) * c["vector"] * size
        wasted = np.maximum(1.0, 32.0 / neighbours)
        traffic = memory_seconds(problem, target) * wasted / use
        grouped = np.array([clusters(int(n), v.acc.bytes, target) for n in c["split_k"]])
        finish = np.where(grouped, 0.4, 1.0) * np.where(c["split_k"] > 1, second, 0.0)
        crowd = np.maximum(traffic, BLOCK_SECONDS * blocks)
        return target.launch_seconds + np.maximum(crowd, waves * serial + around) + finish

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        view = skinny_view(problem, target, entry_name(problem, self.name, config))
        unit, c, fast = view.unit, config, view.b.along_k
        nw, kw = (c["columns"], c["vector"]) if fast else (c["vector"], 1)
        ve = 1 if fast else min(view.store_width(), nw, 4)
        along = ("fk", kw) if kw > 1 else None
        unit.reader("tcc_read_a", view.a.region, view.a.operands, ("fb", "fm", "fk"), view.acc, along)
        across = along if fast else ("fn", nw) if nw > 1 else None
        unit.reader("tcc_read_b", view.b.region, view.b.operands, ("fb", "fn", "fk"), view.acc, across)
        view.define_epilogue(ve)
        unit.define(
            M=view.m, N=view.n, K=view.k, BATCH=view.batch, TX=c["tx"], TY=c["ty"], NW=nw, KW=kw, VE=ve,
            SPLIT=c["split_k"], K_FASTEST=fast, Acc=f"tcc::{view.acc.name}",
        )  # fmt: skip
        split = c["split_k"]
        cluster = clusters(split, view.acc.bytes, target)
        unit.macro(TCC_SPLIT=split, TCC_CLUSTER=int(cluster), TCC_K_FASTEST=int(fast))
        apart = split > 1 and not cluster
        if apart:
            unit.workspace(view.acc, split * view.batch * view.m * view.n)
        grid = ceil_div(view.n, c["tx"] * nw) * view.batch * split
        threads = c["tx"] * c["ty"]
        size = (split, 1, 1) if cluster else None
        launches = [unit.launch((grid, 1, 1), threads, writes_results=not apart, writes_work=apart, cluster=size)]
        if apart:
            groups = ceil_div(view.batch * view.m * view.n, ve)
            launches.append(unit.launch((ceil_div(groups, 256), 1, 1), 256, entry=f"{unit.entry}_finish"))
        return unit.emitted(
            unit.source("split_k.cuh", "simt_gemv.cuh", headers=["cluster.cuh"]),
            launches,
            instruction="FMA",
            grid=grid,
            block=threads,
            vector=["k" if fast else "n", c["vector"]],
        )
