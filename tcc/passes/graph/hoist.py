# SPDX-License-Identifier: Apache-2.0
"""`hoist`: what every iteration of a loop computes anew from the same values is computed before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.core import Block, Op
from tcc.ir.graph import Host, Loop
from tcc.ir.graph.base import GraphOp
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, functions

CHEAP = ("pointwise", "index", "constant")
"""Categories that a kernel of the body computes on the way: they are moved only for an op of another one."""


@register_pass
@dataclass(frozen=True)
class Hoist(Pass):
    """Moves products, reductions and their like out of loops whose iterations do not change what they read.

    before: `graph.loop(...) ({ %1 = graph.matmul(%memory, %w), ... })` with both from outside; after: `%1` before the
    loop. Pointwise and index ops follow only where such an op needs them. Host calls stay: they may fail, and the loop
    may make no trip.
    """

    name: ClassVar[str] = "hoist"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            # Inner loops first: what leaves them may leave the outer one too.
            for block in reversed(list(blocks(function))):
                owner = block.parent.parent if block.parent is not None else None
                if isinstance(owner, Loop):
                    _hoist(owner, block, rewriter)


def _hoist(loop: Loop, block: Block, rewriter: Rewriter) -> None:
    inside = set(block.ops)
    steady: set[Op] = set()
    for op in block.ops:
        if not isinstance(op, GraphOp) or not op.pure or op.terminator or op.regions or isinstance(op, Host):
            continue
        makers = [v.defining_op for v in op.operands]
        own = [v for v in op.operands if v.defining_op is None and v in block.args]
        if own or any(m in inside and m not in steady for m in makers if m is not None):
            continue
        steady.add(op)
        if op.category not in CHEAP:
            rewriter.remark(op, "hoist", "moved", "every iteration would compute the same")
            _move(op, loop, steady, rewriter)


def _move(op: Op, loop: Loop, steady: set[Op], rewriter: Rewriter) -> None:
    """Move an op before the loop, after what it reads."""
    for v in op.operands:
        maker = v.defining_op
        if maker in steady and maker.parent is op.parent:
            _move(maker, loop, steady, rewriter)
    rewriter.move_before(op, loop)
