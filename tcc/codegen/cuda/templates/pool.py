# SPDX-License-Identifier: Apache-2.0
"""`cuda.pool`: reductions over short windows, a thread for neighbouring points (channels in NHWC)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import (
    ceil_div,
    cheapest,
    free_extent,
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
        threads = parallel_size(problem) / c["vector"]
        busy = np.clip(threads / (target.cores * 512.0), 1e-3, 1.0)
        unit = reduction_unit(problem, target)
        size = unit.operand(0).dtype.bytes
        # Window reads that overlap hit the L1.
        reads = threads * reduce_size(problem) * np.maximum(0 if unit.operand(0).neighbours("fp") else 32, size)
        seconds = memory_seconds(problem, target) / np.minimum(1.0, 0.6 + 0.4 * c["vector"] * size / 16)
        serial = reduce_size(problem) * 4e-8 + 1e-6
        work = np.maximum(seconds, reads / (4 * target.memory_rate)) / busy
        return target.launch_seconds + np.maximum(work, serial) + c["threads"] * 1e-10

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
