# SPDX-License-Identifier: Apache-2.0
"""`cuda.simt_gemm` and `cuda.simt_conv`: tiled products in shared memory with FMA, for every element type and any map.

A convolution is the implicit GEMM of its view: only the readers of the tiles differ (NHWC reads vectors of channels,
NCHW of pixels; groups are the batch).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tcc.codegen.cuda.templates.common import (
    Array,
    ceil_div,
    cheapest,
    clock,
    free_beside,
    memory_seconds,
)
from tcc.codegen.cuda.templates.contraction import View, flat_dims, no_operand
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Conv, Func, MatMul
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target

MOST_THREADS, STATIC_SHARED = 512, 48 << 10


def threads_of(c: Columns) -> Array:
    return (c["block_m"] // c["thread_m"]) * (c["block_n"] // c["thread_n"])


def shared_of(c: Columns, problem: Func) -> Array:
    size = problem.anchor.attrs["acc"].bytes
    pad = 16 // size
    return 2 * c["block_k"] * (c["block_m"] + c["block_n"] + 2 * pad) * size


def staged_of(c: Columns) -> Array:
    """Elements of the next tiles that a thread holds."""
    return (c["block_m"] + c["block_n"]) * c["block_k"] // threads_of(c)


def sizes(problem: Func, target: Target) -> View:
    """The view, for its sizes: those at the tuning point."""
    return View(typical(problem), target, "unnamed")


def _split_helps(c: Columns, problem: Func, target: Target) -> Array:
    if problem.symbols:
        return c["split_k"] == 1
    v = sizes(problem, target)
    tiles = ceil_div(v.m, c["block_m"]) * ceil_div(v.n, c["block_n"]) * v.batch
    steps = ceil_div(v.k, c["block_k"])
    return (c["split_k"] == 1) | ((tiles * c["split_k"] <= 4 * target.cores) & (steps >= 2 * c["split_k"]))


def _not_oversized(c: Columns, problem: Func, target: Target) -> Array:
    v = sizes(problem, target)
    small_m, small_n = max(32, 2 * v.m), max(32, 2 * v.n)
    return (c["block_m"] < small_m) & (c["block_n"] < small_n)


RULES = (
    Constraint(
        "threads", lambda c, p, t: (threads_of(c) >= 64) & (threads_of(c) <= MOST_THREADS),
        f"a block has 64 to {MOST_THREADS} threads",
    ),
    Constraint("registers", lambda c, p, t: c["thread_m"] * c["thread_n"] * p.anchor.attrs["acc"].bytes <= 256,
               "a thread's accumulators fit 64 registers"),
    Constraint("staged", lambda c, p, t: staged_of(c) * (p.anchor.attrs["acc"].bytes // 4) <= 48,
               "a thread stages at most 48 registers of the next tiles"),
    Constraint("shared", lambda c, p, t: shared_of(c, p) <= STATIC_SHARED, "two tiles fit 48 KiB of shared memory"),
    Constraint("oversized", _not_oversized, "the block is less than twice the problem"),
    Constraint("split", _split_helps, "K is split only where tiles leave SMs idle and each part has two steps"),
)  # fmt: skip


class _Simt(Template):
    kind = "cuda"
    space = Space(
        block_m=[16, 32, 64, 128],
        block_n=[16, 32, 64, 128],
        block_k=[8, 16, 32],
        thread_m=[2, 4, 8],
        thread_n=[2, 4, 8],
        split_k=[1, 2, 4, 8, 16],
    )
    legal = RULES

    def accepts(self, problem: Func, target: Target) -> str | None:
        return free_beside(problem, flat_dims(problem)["fm"]) or no_operand(problem) or too_large(problem, target)

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (0.363, 4.98, 13.1, 16.2, 0.118, 38.4, 4.89, 1.5e-06)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles of a warp: an FMA, a read from shared memory, a read of a tile, the same through a window, a value put
        # into shared memory, a step; how many warps a scheduler needs to issue every cycle; seconds around the steps.
        fma, read, fetch, windowed, put, step, hide, around = self.weights
        v, c = sizes(problem, target), configs
        wide = problem.anchor.attrs["acc"].bytes // 4
        threads = threads_of(c)
        area = c["thread_m"] * c["thread_n"]
        tile_a, tile_b = c["block_m"] * c["block_k"] / threads, c["block_n"] * c["block_k"] / threads
        loads = tile_a / v.a.width + tile_b / v.b.width
        guards = sum(bool(v.unit.operand(s.operands[0]).guards) for s in (v.a, v.b))
        quads = ceil_div(c["thread_m"], 4) + ceil_div(c["thread_n"], 4)
        issue = c["block_k"] * (fma * area * (1 if wide == 1 else 6) + read * quads * wide)
        issue = issue + loads * (fetch + guards * windowed) + (tile_a + tile_b) * put + step
        held = np.minimum(area * wide + 40 + staged_of(c) * wide, 255)
        resident = np.minimum(2048 // threads, target.shared_bytes // shared_of(c, problem))
        resident = np.maximum(1, np.minimum(resident, 65536 // (threads * held)))
        blocks = ceil_div(v.m, c["block_m"]) * ceil_div(v.n, c["block_n"]) * v.batch * c["split_k"]
        steps = ceil_div(ceil_div(v.k, c["block_k"]), c["split_k"])
        together = np.minimum(resident, ceil_div(blocks, target.cores))
        warps = together * threads / 128.0
        waves = np.maximum(ceil_div(blocks, target.cores * resident), blocks / (target.cores * resident))
        seconds = waves * (steps * issue * np.maximum(warps, hide) / clock(target) + around)
        l2 = blocks * steps * (c["block_m"] + c["block_n"]) * c["block_k"] * v.unit.operand(0).dtype.bytes
        seconds = np.maximum(seconds, l2 / (2.0 * target.memory_rate))
        partial = np.where(
            c["split_k"] > 1,
            2.0 * c["split_k"] * v.batch * v.m * v.n * 4 / target.memory_rate + target.launch_seconds + 8e-7,
            0.0,
        )
        return target.launch_seconds + np.maximum(seconds, memory_seconds(problem, target)) + partial

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        view = View(problem, target, entry_name(problem, self.name, config))
        return emit_tiled(view, config)


def emit_tiled(view: View, config: Config) -> Emitted:
    """The kernel, and the one that adds the parts where K is split."""
    unit, c = view.unit, config
    bm, bn, bk, split = c["block_m"], c["block_n"], c["block_k"], c["split_k"]
    threads = (bm // c["thread_m"]) * (bn // c["thread_n"])
    va = min(view.a.width, bk if view.a.along_k else bm)
    vb = min(view.b.width, bk if view.b.along_k else bn)
    ve = min(view.store_width(), 4, c["thread_n"])
    view.define_readers(va, vb)
    view.define_epilogue(ve)
    unit.define(
        N=view.n, K=view.k, BATCH=view.batch, BM=bm, BN=bn, BK=bk, TM=c["thread_m"], TN=c["thread_n"],
        SPLIT=split, VA=va, VB=vb, VE=ve, A_ALONG_K=view.a.along_k, B_ALONG_K=view.b.along_k,
        Acc=f"tcc::{view.acc.name}",
    )  # fmt: skip
    if isinstance(view.m, int):
        unit.define(M=view.m)
    else:
        unit.macro(M=f"static_cast<int>({unit.size('fm')})")
    unit.macro(TCC_SPLIT=split, TCC_CLUSTER=0)
    tiles = ceil_div(view.m, bm) * ceil_div(view.n, bn) * view.batch
    if split > 1:
        unit.workspace(view.acc, split * view.batch * view.m * view.n)
    launches = [unit.launch((tiles * split, 1, 1), threads, writes_results=split == 1, writes_work=split > 1)]
    if split > 1:
        groups = ceil_div(view.batch * view.m * view.n, ve)
        launches.append(unit.launch((ceil_div(groups, 256), 1, 1), 256, entry=f"{unit.entry}_finish"))
    return unit.emitted(
        unit.source("split_k.cuh", "simt_gemm.cuh"),
        launches,
        instruction="FMA",
        tile=[bm, bn, bk],
        grid=tiles * split,
        block=threads,
        loads={"a": [va, "k" if view.a.along_k else "own"], "b": [vb, "k" if view.b.along_k else "own"], "store": ve},
        swapped=view.swapped,
    )


def too_large(problem: Func, target: Target) -> str | None:
    """The sentence for extents the 32-bit coordinates do not hold, else None."""
    v = sizes(problem, target)
    if max(v.m, v.n, v.k, v.batch) >= 1 << 30 or v.batch * ceil_div(v.m, 16) * ceil_div(v.n, 16) >= 1 << 30:
        return "an extent is 2^30 or more"
    return None


@template
class SimtGemm(_Simt):
    """Matrix products with FMA."""

    name = "cuda.simt_gemm"
    matches = (MatMul,)


@template
class SimtConv(_Simt):
    """Convolutions as implicit GEMM with FMA."""

    name = "cuda.simt_conv"
    matches = (Conv,)
