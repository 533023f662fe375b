# SPDX-License-Identifier: Apache-2.0
"""Loops that make no trip, states that stay, conditions that hold, and numbers of trips that are known by now."""

from __future__ import annotations

import numpy as np

from tcc.ir.core import Value
from tcc.ir.graph import Loop
from tcc.ir.graph.base import dense, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import on_host
from tcc.passes.graph.canonicalize.table import canonical
from tcc.passes.graph.common import constant, splat
from tcc.passes.graph.loops import ends_early, trips_of


@canonical("loop")
def no_trip(op: Loop, rewriter: Rewriter) -> bool:
    """A loop that never begins gives what it got, and empty stacks."""
    if trips_of(op) != 0 and (op.condition is None or splat(op.condition) is not False):
        return False
    stacks = op.results[len(op.carried) :]
    if any(v.type != r.type for v, r in zip(op.carried, op.results, strict=False) if not _settled(r)):
        return False
    if any(not _settled(r, 1) for r in stacks):
        return False
    empty: list[Value] = []
    for r in stacks:
        t = tensor_type(r)
        shape = [0, *(d for d in t.shape[1:] if isinstance(d, int))]
        empty.append(constant(rewriter, op, np.zeros(shape, t.dtype.numpy), op.loc))
    rewriter.replace(op, [*op.carried, *empty])
    return True


def _settled(r: Value, first: int = 0) -> bool:
    """Whether a tensor's extents from dim `first` on are known."""
    return not on_host(r.type) and all(isinstance(d, int) for d in tensor_type(r).shape[first:])


@canonical("loop")
def holds(op: Loop, rewriter: Rewriter) -> bool:
    """Inside of a body its condition is true."""
    condition = op.body.block.args[1]
    users = [u for u in condition.users if u is not op.body.block.terminator]
    first = op.body.block.first
    if not users or first is None:
        return False
    true = constant(rewriter, first, np.ones(tensor_type(condition).static_shape, np.bool_), op.loc)
    rewriter.replace_value(condition, true)
    return True


@canonical("loop")
def stays(op: Loop, rewriter: Rewriter) -> bool:
    """A state that no iteration changes is the value that the loop began with, for the body and after it."""
    changed = False
    given = op.body.block.terminator.operands[1:]
    for i, (before, arg) in enumerate(zip(op.carried, op.body.block.args[2:], strict=True)):
        if given[i] is not arg or before.type != arg.type:
            continue
        result = op.results[i]
        if arg.use_count > 1:
            for user, place in arg.uses:
                if user is not op.body.block.terminator:
                    rewriter.set_operand(user, place, before)
                    changed = True
        if result.use_count and result.type == before.type:
            rewriter.replace_value(result, before)
            changed = True
    return changed


@canonical("loop")
def counted(op: Loop, rewriter: Rewriter) -> bool:
    """Where nothing ends it early, a known number of trips is the extent of what is stacked."""
    trips = trips_of(op)
    if trips is None or ends_early(op):
        return False
    changed = False
    for r in op.results[len(op.carried) :]:
        t = tensor_type(r)
        if not isinstance(t.shape[0], int):
            r.type = dense((trips, *t.shape[1:]), t.dtype)
            rewriter.changed = changed = True
            rewriter.touched += r.users
    return changed
