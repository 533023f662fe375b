# SPDX-License-Identifier: Apache-2.0
"""`expand-ops`: ops that have no kernel of their own, spelled in ops that have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.graph.base import GraphOp
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, functions
from tcc.passes.graph.expand_ops import arrange, loops, normalize, pools, resample, scans, strings, transposed
from tcc.passes.graph.expand_ops.table import EXPANSIONS

# They fill EXPANSIONS.
assert arrange and loops and normalize and pools and resample and scans and strings and transposed


@register_pass
@dataclass(frozen=True)
class ExpandOps(Pass):
    """Spells every op that `lower-to-kernel` does not lower in ops that it does. It runs at every level.

    before: `%y = graph.resize(%x) {mode = "linear", ...}`; after: per axis, the sum of `graph.gather`s of x at constant
    positions times constant weights (computed ones where data decide the extents). Likewise batch normalisation (a
    multiplication and an addition), nearest resizes, transposed convolutions, pads other than by a value, Lp pools,
    positions of extremes, loops of known trips, and dims that are numbers. An op that stays for the host gets a remark.
    """

    name: ClassVar[str] = "expand-ops"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            # Inner blocks first: a loop is written out with its body expanded.
            for block in reversed(list(blocks(function))):
                for op in block.ops:
                    expansion = strings.expand if strings.has_strings(op) else EXPANSIONS.get(op.name)
                    if expansion is not None and isinstance(op, GraphOp):
                        expansion(op, rewriter)
