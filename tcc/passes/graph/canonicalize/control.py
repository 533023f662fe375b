# SPDX-License-Identifier: Apache-2.0
"""Branches whose condition is known, types that are known better than before, and what is left without a use."""

from __future__ import annotations

from tcc.ir.core import Op, Value
from tcc.ir.graph import Constant, Host, If
from tcc.ir.graph.base import GraphOp
from tcc.ir.graph.symbols import is_needed
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType, Type
from tcc.passes.graph.canonicalize.table import PATTERNS, canonical
from tcc.passes.graph.common import splat


@canonical("if")
def known_branch(op: If, rewriter: Rewriter) -> bool:
    """The ops of the branch taken, in place of the op. Result types become those of the branch."""
    c = splat(op.condition)
    if c is None:
        return False
    block = (op.then if c else op.orelse).block
    values: list[Value] = list(block.terminator.operands)
    if any(not _is_settled(v.type) and v.type != r.type for v, r in zip(values, op.results, strict=True)):
        return False
    for inner in block.ops:
        if inner is not block.terminator:
            rewriter.move_before(inner, op)
            rewriter.touched.append(inner)
    block.terminator.drop_operands()
    rewriter.replace(op, values)
    return True


def _is_settled(t: Type) -> bool:
    """Whether nothing of a type is left for the data to decide."""
    return isinstance(t, TensorType) and t.is_static


def refine(op: Op, rewriter: Rewriter) -> bool:
    """Results with free dims take the types that the operands give by now."""
    if op.regions or not isinstance(op, GraphOp) or op.terminator or isinstance(op, Constant | Host):
        return False
    if all(isinstance(r.type, TensorType) and r.type.is_static for r in op.results):
        return False
    changed = False
    for result, t in zip(op.results, op.infer(), strict=True):
        if isinstance(t, TensorType) and t.is_static and t != result.type:
            result.type = t
            rewriter.changed = changed = True
            rewriter.touched += result.users
    return changed


def unused(op: Op, rewriter: Rewriter) -> bool:
    """Ops without uses go at once, so that they are no users of what they read; but not what gives symbols."""
    if not isinstance(op, GraphOp) or not op.pure or op.terminator or any(r.use_count for r in op.results):
        return False
    if is_needed(op):
        return False
    rewriter.erase(op)
    return True


PATTERNS["*"] = [unused, refine]
