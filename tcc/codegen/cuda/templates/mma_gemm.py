# SPDX-License-Identifier: Apache-2.0
"""`cuda.mma_gemm`: matrix products on tensor cores with mma.sync, for f16, bf16 and, where allowed, tf32.

A block's tile, the warps' tiles within it, the depth and number of stages of the ring in shared memory, and how many
blocks share one sum over K are parameters. Where K is split, a cluster adds the parts through its blocks' shared
memory; chips without clusters use a workspace and a second kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import cheapest, free_extent
from tcc.codegen.cuda.templates.contraction import no_operand
from tcc.codegen.cuda.templates.mma_cost import (
    FEWEST_BYTES,
    RULES,
    estimate,
    passes,
    reduction,
    shared_of,
    threads_of,
)
from tcc.codegen.cuda.templates.mma_view import COPY_ASYNC, KINDS, MODES, MmaView, refusal
from tcc.codegen.template import Columns, Config, Emitted, Packing, Space, Template, entry_name, template
from tcc.ir.kernel import Func, MatMul
from tcc.ir.targets import Target

GROUP = 8


class Mma(Template):
    """What products and convolutions share."""

    kind = "cuda"
    needs = frozenset({"mma_f16", "ldmatrix"})
    space = Space(
        block_m=[16, 32, 64, 128, 256],
        block_n=[32, 64, 96, 128, 256],
        block_k=[16, 32, 64, 128],
        warp_m=[16, 32, 64],
        warp_n=[16, 32, 48, 64],
        slices=[1, 2, 4],
        stages=[2, 3, 4, 6],
        split_k=[1, 2, 4, 8],
    )
    legal = RULES

    def space_for(self, problem: Func, target: Target) -> Space:
        """The steps of K whose rows are 64 to 256 bytes; two stages without cp.async; slices where results are few."""
        p = dict(self.space.parameters)
        view = MmaView(problem, target)
        size = view.element.bytes
        p["block_k"] = [k for k in p["block_k"] if FEWEST_BYTES <= k * size <= 4 * FEWEST_BYTES]
        if "cp_async" not in target.features:
            p["stages"] = [2]
        if view.m * view.n * view.batch >= 4 * 64 * 64 * target.cores:
            p["slices"] = [1]
        return Space(**p)

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem) or no_operand(problem)) is not None:
            return sentence
        view = MmaView(problem, target)
        if max(view.m, view.n, view.k, view.batch) >= 1 << 30:
            return "an extent is 2^30 or more"
        if min(view.m, view.n, view.k, view.batch) < 1:
            return "there is nothing to multiply"
        return refusal(problem, target, view)

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        return estimate(MmaView(problem, target), configs, problem, target)

    def pack(self, problem: Func, config: Config, target: Target) -> Sequence[Packing]:
        return MmaView(problem, target).packings

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        view = MmaView(problem, target, entry_name(problem, self.name, config))
        unit, c = view.unit, config
        bm, bn, bk, split = c["block_m"], c["block_n"], c["block_k"], c["split_k"]
        threads = int(threads_of(c))
        reduce = reduction(split, target)
        shared = int(shared_of(c, view.element.bytes, target))
        vector = view.vector
        view.define_sides()
        registers = view.define_finish(vector)
        tiles = -(-view.m // bm) * -(-view.n // bn) * view.batch
        right = view.right
        whole = right.constant and right.mode == COPY_ASYNC and right.width * view.element.bytes == 16
        prefetch = whole and tiles * split <= 2 * target.cores
        unit.define(
            M=view.m, N=view.n, K=view.k, BATCH=view.batch, BM=bm, BN=bn, BK=bk, WM=c["warp_m"], WN=c["warp_n"],
            STAGES=c["stages"], SLICES=c["slices"], SPLIT=split, PREFETCH=prefetch, GROUP=GROUP, THREADS=threads,
            KIND=KINDS[view.element], VE=vector, REDUCE=reduce, PASS=passes(c, shared, reduce),
            EXTRAS=max(1, min(4, 64 // max(1, registers))),
        )  # fmt: skip
        unit.macro(TCC_WORKSPACE=int(reduce == 2))
        if reduce == 2:
            unit.workspace(view.acc, split * view.batch * view.m * view.n)
        first = unit.launch(
            (tiles * split, 1, 1), threads, shared, writes_results=reduce != 2, writes_work=reduce == 2
        )  # fmt: skip
        launches = [replace(first, cluster=(split, 1, 1)) if reduce == 1 else first]
        if reduce == 2:
            groups = -(-view.batch * view.m * view.n // (256 * vector))
            launches.append(unit.launch((groups, 1, 1), 256, entry=f"{unit.entry}_finish"))
        source = unit.source("mma_ptx.cuh", "mma_tile.cuh", "mma_epilogue.cuh", "mma_gemm.cuh")
        return unit.emitted(
            source,
            launches,
            instruction=f"mma.sync.m16n8k{32 // view.element.bytes}" if target.sm >= 80 else "mma.sync.m16n8k8",
            tile=[bm, bn, bk],
            warps=[bm // c["warp_m"], bn // c["warp_n"], c["slices"]],
            stages=c["stages"],
            grid=tiles * split,
            block=threads,
            shared=shared,
            copies={
                "a": [MODES[view.left.mode], view.left.width, "packed" if view.left.packing else "as it is"],
                "b": [MODES[view.right.mode], view.right.width, "packed" if view.right.packing else "as it is"],
                "store": vector,
            },
            split=("none", "cluster", "workspace")[reduce],
            swapped=view.swapped,
        )


@template
class MmaGemm(Mma):
    """Matrix products on tensor cores."""

    name = "cuda.mma_gemm"
    matches = (MatMul,)
