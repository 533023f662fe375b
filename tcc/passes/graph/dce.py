# SPDX-License-Identifier: Apache-2.0
"""`dce`: removes ops whose results nothing uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.core import Block, Op
from tcc.ir.graph import Bind, Fused, If, Loop
from tcc.ir.graph.base import GraphOp
from tcc.ir.graph.control import yielded
from tcc.ir.graph.symbols import is_needed
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import functions
from tcc.passes.graph.loops import needed


@register_pass
@dataclass(frozen=True)
class Dce(Pass):
    """Removes pure ops without uses, and results of branches, loops and fusion groups that nothing uses. What gives a
    symbol that is mentioned elsewhere stays.

    before: `%1 = graph.exp(%0)` unused, `graph.return(%0)`; after: `graph.return(%0)`. Inputs and outputs of the
    function stay.
    """

    name: ClassVar[str] = "dce"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            _sweep(function.block, rewriter)


def _sweep(block: Block, rewriter: Rewriter) -> None:
    op = block.last
    while op is not None:
        before = op.prev_op
        removable = isinstance(op, GraphOp) and (op.pure or isinstance(op, Bind)) and not op.terminator
        if removable and not any(r.use_count for r in op.results) and not is_needed(op):
            rewriter.erase(op)
        else:
            kept = _prune(op, rewriter)
            for region in kept.regions:
                for inner in region.blocks:
                    _sweep(inner, rewriter)
            if isinstance(kept, Fused):
                _drop_inputs(kept, rewriter)
            before = kept.prev_op
        op = before


def _prune(op: Op, rewriter: Rewriter) -> Op:
    """The op without the results that nothing uses, where it is one whose regions yield them."""
    if is_needed(op, [r for r in op.results if not r.use_count]):
        return op
    if isinstance(op, Loop):
        return _prune_loop(op, rewriter)
    if not isinstance(op, If | Fused) or all(r.use_count for r in op.results):
        return op
    live = [i for i, r in enumerate(op.results) if r.use_count]
    for region in op.regions:
        values = yielded(region)
        region.block.terminator.set_operands([values[i] for i in live], (len(live),))
    new = type(op).create(
        op.operands, op.segments, [], op.attrs, [op.results[i].type for i in live], op.loc
    )  # fmt: skip
    return _put(op, new, live, rewriter)


def _put(op: Op, new: Op, live: Sequence[int], rewriter: Rewriter) -> Op:
    """The new op in place of one whose regions it takes over; its results are the `live` ones."""
    for region in list(op.regions):
        new.add_region(region)
    op.regions.clear()
    rewriter.insert_before(op, new)
    for place, i in enumerate(live):
        rewriter.replace_value(op.results[i], new.results[place])
    rewriter.erase(op)
    return new


def _prune_loop(op: Loop, rewriter: Rewriter) -> Op:
    """A loop without the states and stacks that nothing needs."""
    live = needed(op)
    if len(live) == len(op.results):
        return op
    block, carried = op.body.block, len(op.carried)
    given = block.terminator.operands
    block.terminator.set_operands([given[0], *(given[1 + i] for i in live)], (1 + len(live),))
    # Dead states may still read each other until `_sweep` comes to the body: they read what they began with.
    dead = [i for i in range(carried) if i not in live]
    for i in dead:
        block.args[2 + i].replace_all_uses_with(op.carried[i])
    for i in reversed(dead):
        block.erase_arg(2 + i)
    new = Loop(
        op.trip, op.condition, [op.carried[i] for i in live if i < carried], regions=[],
        result_types=[op.results[i].type for i in live], loc=op.loc,
    )  # fmt: skip
    return _put(op, new, live, rewriter)


def _drop_inputs(op: Fused, rewriter: Rewriter) -> None:
    unused = [i for i, a in enumerate(op.block.args) if a.use_count == 0]
    if not unused:
        return
    op.set_operands([v for i, v in enumerate(op.operands) if i not in unused], (len(op.operands) - len(unused),))
    for i in reversed(unused):
        op.block.erase_arg(i)
    rewriter.changed = True
