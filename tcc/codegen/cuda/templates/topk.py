# SPDX-License-Identifier: Apache-2.0
"""`cuda.topk`: the first places of rows in order, by a sort, or by a radix select and a sort of what it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import (
    BLOCK_SECONDS,
    ceil_div,
    cheapest,
    clock,
    free_extent,
    memory_seconds,
    parallel_size,
)
from tcc.codegen.cuda.templates.irregular import emit_topk, key_bytes, sorted_size, spills
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Func, TopK
from tcc.ir.targets import Target

MODES = {"thread": 0, "sort": 1, "select": 2}


def _extents(problem: Func) -> tuple[TopK, int, int]:
    anchor = problem.anchor
    assert isinstance(anchor, TopK)
    return anchor, anchor.domain.int_extent("s"), anchor.domain.int_extent("r")


def _select_helps(c: Columns, problem: Func, target: Target) -> Any:
    _, places, ranks = _extents(problem)
    return (c["how"] != "select") | ((c["threads"] >= 256) & (ranks < places) & (ranks > 0))


def _thread_is_short(c: Columns, problem: Func, target: Target) -> Any:
    _, places, ranks = _extents(problem)
    return (c["how"] != "thread") | ((places * ranks <= 4096) & (c["threads"] <= 256))


def _sort_is_short(c: Columns, problem: Func, target: Target) -> Any:
    anchor, places, ranks = _extents(problem)
    return (c["how"] != "sort") | (not spills(anchor, 1)) | (ranks == places)


@template
class TopKTemplate(Template):
    """A thread a row for a few of a few, else a block a row."""

    name = "cuda.topk"
    kind = "cuda"
    matches = (TopK,)
    space = Space(how=list(MODES), threads=[32, 64, 128, 256, 512, 1024])
    legal = (
        Constraint("select", _select_helps, "a selection takes 256 threads and leaves places out"),
        Constraint("thread", _thread_is_short, "a thread does at most 4096 comparisons"),
        Constraint("sort", _sort_is_short, "rows that do not fit shared memory are sorted only where all is wanted"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        _, places, _ = _extents(problem)
        return "2^30 places or more" if max(parallel_size(problem), places) >= 1 << 30 else None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles: some 400 for a round of loads by the block, 60 for a step of the network in shared memory (600 in a
        # workspace), 600 for what follows each histogram. A selection usually ends with the key's bytes.
        anchor, places, ranks = _extents(problem)
        c = configs
        rows = max(parallel_size(problem), 1)
        total = np.zeros(len(c["threads"]))
        for how, mode in MODES.items():
            if mode == 0:
                cycles = 30.0 * places * max(ranks, 1) + 0.0 * c["threads"]
                blocks = ceil_div(rows, c["threads"])
            else:
                blocks = rows + 0 * c["threads"]
                size = sorted_size(anchor, mode)
                depth = np.log2(max(size, 2))
                per = np.ceil(size / 2 / c["threads"])
                network = depth * (depth + 1) / 2 * per * (600.0 if spills(anchor, mode) else 60.0)
                rounds = np.ceil(places / c["threads"])
                passes = key_bytes(anchor) + 2 if mode == 2 else 1
                cycles = network + passes * (400.0 + 40.0 * rounds) + (600.0 * passes if mode == 2 else 0.0)
            resident = np.maximum(1, 2048 // np.maximum(c["threads"], 64))
            waves = np.maximum(1.0, blocks / (resident * target.cores))
            total = np.where(c["how"] == how, waves * cycles / clock(target) + BLOCK_SECONDS * blocks, total)
        return target.launch_seconds + np.maximum(total, memory_seconds(problem, target))

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        entry = entry_name(problem, self.name, config)
        return emit_topk(problem, target, entry, config["threads"], MODES[config["how"]])
