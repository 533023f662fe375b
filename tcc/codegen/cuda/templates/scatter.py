# SPDX-License-Identifier: Apache-2.0
"""`cuda.scatter`: a copy and updates, by lines in order, or by all updates at once where only the last one counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import (
    ceil_div,
    cheapest,
    clock,
    free_extent,
    memory_seconds,
    parallel_size,
    reduce_size,
)
from tcc.codegen.cuda.templates.irregular import emit_scatter
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Func, Scatter
from tcc.ir.targets import Target


def _last_counts(c: Columns, problem: Func, target: Target) -> Any:
    anchor = problem.anchor
    assert isinstance(anchor, Scatter)
    return (c["updates"] == "in_order") | (anchor.reduction == "none")


@template
class ScatterTemplate(Template):
    """Updates of a line in order by one thread, or all at once with the last of each element found before."""

    name = "cuda.scatter"
    kind = "cuda"
    matches = (Scatter,)
    space = Space(updates=["in_order", "at_once"], threads=[64, 128, 256, 512])
    legal = (Constraint("last", _last_counts, "updates that are combined are done in order"),)

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        if parallel_size(problem) * reduce_size(problem) >= 1 << 31:
            return "2^31 updates or more"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # An update in order waits for its index and, where it combines, for the element: some 300 cycles, 4 at a time
        # where it only writes.
        anchor = problem.anchor
        assert isinstance(anchor, Scatter)
        c = configs
        lines, steps = parallel_size(problem), reduce_size(problem)
        whole = c["updates"] == "at_once"
        points = np.where(whole, lines * steps, lines)
        each = 300.0 if anchor.reduction == "none" else 700.0
        waves = np.maximum(1.0, ceil_div(points, c["threads"]) * c["threads"] / (2048.0 * target.cores))
        cycles = np.where(whole, 1200.0, each * steps) * waves
        moved = memory_seconds(problem, target)
        more = np.where(whole, 2.0 * target.launch_seconds + 0.5 * moved, target.launch_seconds)
        even = 1.0 + 0.01 * np.abs(np.log2(c["threads"] / 128.0))
        return (target.launch_seconds + moved + cycles / clock(target)) * even + more

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        entry = entry_name(problem, self.name, config)
        return emit_scatter(problem, target, entry, config["threads"], config["updates"] == "at_once")
