# SPDX-License-Identifier: Apache-2.0
"""`assign-layout`: convolutions and what lies between them work on channels-last tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.core import Block
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.assign_layout.choose import Labels
from tcc.passes.graph.assign_layout.convert import convert
from tcc.passes.graph.common import blocks, functions


@register_pass
@dataclass(frozen=True)
class AssignLayout(Pass):
    """Chooses for every tensor [n, c, spatial…] whether it lies as [n, spatial…, c], so that the fewest bytes are
    transposed.

    before: `%1 = graph.conv(%x, %w)`, `%2 = graph.relu(%1)`, `%3 = graph.conv(%2, %v)`, all nchw; after: `%t =
    graph.transpose(%x) {perm = [0, 2, 3, 1]}`, the three ops on channels-last tensors with `dims = "nhwc"` and weights
    [co, k…, ci], and a transpose back. Convolutions are always channels-last; reshapes of channels, matrix products,
    inputs and outputs never; pointwise ops, reductions, pools, concats, slices, pads, gathers and channel shuffles are
    what is cheaper: a minimum cut between the two. The transposes that meet cancel in `canonicalize`.
    """

    name: ClassVar[str] = "assign-layout"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            for block in list(blocks(function)):
                self._block(block, rewriter)

    def _block(self, block: Block, rewriter: Rewriter) -> None:
        labels = Labels(block)
        if labels.channels_last:
            convert(block, labels, rewriter)
            rewriter.decisions.add(
                self.name, "layout", labels.first, "nhwc",
                f"{len(labels.channels_last)} ops are channels-last; {labels.cost} bytes are transposed",
            )  # fmt: skip
