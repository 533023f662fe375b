# SPDX-License-Identifier: Apache-2.0
"""`cuda.pool`: reductions over short windows, a thread for neighbouring points (channels in NHWC)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import (
    BLOCK_SECONDS,
    ceil_div,
    cheapest,
    clock,
    free_extent,
    instruction_rate,
    memory_seconds,
    parallel_size,
    reduce_size,
)
from tcc.codegen.cuda.templates.reductions import define_reduction, reduction_unit, widest
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Func, Reduce
from tcc.ir.targets import Target

LONGEST = 256


def _vector_fits(c: Columns, problem: Func, target: Target) -> Any:
    return c["vector"] <= widest(reduction_unit(problem, target), "fp")


@template
class Pool(Template):
    """A thread for V points and their whole window."""

    name = "cuda.pool"
    kind = "cuda"
    matches = (Reduce,)
    space = Space(vector=[1, 2, 4, 8, 16], threads=[64, 128, 256])
    legal = (Constraint("vector", _vector_fits, "V neighbouring points are V aligned elements of the first operand"),)

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        if not len(problem.anchor.operands):
            return "there is no operand to reduce"
        if parallel_size(problem) >= 1 << 30:
            return "2^30 points or more"
        if reduce_size(problem) > LONGEST:
            return f"a window of {reduce_size(problem)} is too long for one thread"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        c = configs
        window, width = max(reduce_size(problem), 1), c["vector"]
        threads = np.ceil(parallel_size(problem) / width)
        blocks = np.ceil(threads / c["threads"])
        unit = reduction_unit(problem, target)
        near = unit.operand(0).neighbours("fp")
        size = unit.operand(0).dtype.bytes
        # Per place of the window: the index, a guard, one load, and a conversion and a step for each of V.
        issue = threads * (window * (18.0 + 3.0 * width) + 50.0 + 4.0 * width) / (0.65 * instruction_rate(target))
        lines = threads * window * (np.maximum(width * size, 4) if near else 32) / (3.0 * target.memory_rate)
        moved = memory_seconds(problem, target)
        serial = (window * (18.0 + 3.0 * width) + 150.0) * 2.5 / clock(target) + 5e-7
        crowd = np.maximum(np.maximum(issue, lines), np.maximum(moved, BLOCK_SECONDS * blocks))
        return target.launch_seconds + np.maximum(crowd, serial) + 0.1 * BLOCK_SECONDS * blocks

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        unit = reduction_unit(problem, target, entry_name(problem, self.name, config))
        vector, threads = config["vector"], config["threads"]
        define_reduction(unit, vector, 1)
        points, reduced = unit.extents["fp"], unit.extents["fr"]
        unit.define(V=vector, THREADS=threads, POINTS=points, REDUCED=reduced, Coordinate="int")
        unit.define(WINDOW_UNROLL=max(reduced, 1) if reduced <= 64 else 8)
        blocks = ceil_div(points, vector * threads)
        return unit.emitted(
            unit.source("pool.cuh"), [unit.launch((blocks, 1, 1), threads)], grid=blocks, block=threads, vector=vector
        )
