# SPDX-License-Identifier: Apache-2.0
"""`fuse`: the graph cut into groups that become one kernel each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.core import Block
from tcc.ir.graph import Concat, Fused, Reshape
from tcc.ir.graph.base import GraphOp
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, functions
from tcc.passes.graph.fuse.emit import emit
from tcc.passes.graph.fuse.grow import Grower
from tcc.passes.graph.fuse.partition import Partition
from tcc.passes.graph.fuse.rules import is_anchor, is_index, is_pointwise


@register_pass
@dataclass(frozen=True)
class Fuse(Pass):
    """Cuts the graph into `graph.fused` groups: an anchor with what is computed before and after it, or pointwise and
    index ops alone.

    before: `%1 = graph.conv(%x, %w, %b)`, `%2 = graph.relu(%1)`, `%3 = graph.add(%2, %r)`; after: `%3 = graph.fused(%x,
    %w, %b, %r) ({ conv, relu, add })`. Greedy, in this order: contractions and attention read through transposes,
    slices and expansions; every anchor takes the pointwise ops, transposes and reshapes after it; then it takes what
    is computed before it (contractions: only of their further operands); what is left is grouped from the end. A group
    has at most `max-ops` ops and `max-outputs` results. Constants stay outside. Every pair that could not be fused
    gets a remark with its reason.
    """

    name: ClassVar[str] = "fuse"
    max_ops: int = 48
    max_outputs: int = 2

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            for block in [b for b in blocks(function) if not _in_group(b)]:
                self._cut(block, rewriter)

    def _cut(self, block: Block, rewriter: Rewriter) -> None:
        partition = Partition(block)
        grower = Grower(partition, rewriter, self.max_ops, self.max_outputs)
        anchors = [op for op in partition.ops if isinstance(op, GraphOp) and is_anchor(op)]
        clusters = [partition.start(op, anchored=True) for op in anchors]
        for step in (grower.read_through, grower.follow, grower.precede):
            for cluster in clusters:
                step(cluster)
        for op in reversed(partition.ops):
            if partition.free(op) and isinstance(op, GraphOp) and not isinstance(op, Reshape | Concat):
                if (is_pointwise(op) or is_index(op)) and partition.needed(op):
                    grower.map_from(op)
        emit(partition, rewriter)


def _in_group(block: Block) -> bool:
    return block.parent is not None and isinstance(block.parent.parent, Fused)
