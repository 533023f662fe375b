# SPDX-License-Identifier: Apache-2.0
"""`cuda.scan`: running sums and the like, a thread or a block a row."""

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
    reduce_size,
)
from tcc.codegen.cuda.templates.irregular import emit_scan
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Func, Scan
from tcc.ir.targets import Target


def _items_fit(c: Columns, problem: Func, target: Target) -> Any:
    return np.where(c["row"] == "block", True, c["items"] == 1)


def _block_is_used(c: Columns, problem: Func, target: Target) -> Any:
    least = c["threads"] * c["items"] <= 2 * max(reduce_size(problem), 32)
    return np.where(c["row"] == "block", least, c["threads"] <= 256)


@template
class ScanTemplate(Template):
    """A thread a row where rows are many and lie side by side, else a block a row."""

    name = "cuda.scan"
    kind = "cuda"
    matches = (Scan,)
    space = Space(row=["thread", "block"], threads=[32, 64, 128, 256, 512, 1024], items=[1, 2, 4])
    legal = (
        Constraint("items", _items_fit, "only a block takes several places a thread at a time"),
        Constraint("threads", _block_is_used, "a block is at most twice as long as a row, 256 threads of rows at most"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        return "2^30 places or more" if max(parallel_size(problem), reduce_size(problem)) >= 1 << 30 else None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # A thread waits for about 40 cycles a place where loads are ahead of it; a block's step takes some 150 and a
        # few more for every warp and item.
        rows, places = max(parallel_size(problem), 1), max(reduce_size(problem), 1)
        c = configs
        whole = c["row"] == "block"
        blocks = np.where(whole, rows, ceil_div(rows, c["threads"]))
        steps = ceil_div(places, c["threads"] * c["items"])
        cycles = np.where(whole, steps * (150 + 8 * c["threads"] / 32 + 12 * c["items"]), 40.0 * places)
        resident = np.maximum(1, 2048 // np.maximum(c["threads"], 64))
        waves = np.ceil(blocks / (resident * target.cores))
        moved = memory_seconds(problem, target) * np.where(whole & (c["items"] > 1), 1.1, 1.0)
        return target.launch_seconds + np.maximum(moved, waves * cycles / clock(target)) + BLOCK_SECONDS * blocks

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        entry = entry_name(problem, self.name, config)
        return emit_scan(problem, target, entry, config["threads"], config["row"] == "block", config["items"])
