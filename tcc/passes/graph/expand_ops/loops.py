# SPDX-License-Identifier: Apache-2.0
"""Loops of a known, small number of trips, written out."""

from __future__ import annotations

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import Loop, Reshape
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import BOOL, I64, TensorType
from tcc.passes.graph.common import splat
from tcc.passes.graph.expand_ops.table import Before, expands
from tcc.passes.graph.loops import ends_early, trips_of

MOST_OPS = 256
"""Loops that would become more ops are not written out."""


@expands("loop")
def expand_loop(op: Loop, rewriter: Rewriter) -> None:
    """The body once a trip, if the condition never ends it; scanned values are stacked."""
    reason = _reason(op)
    if reason is not None:
        rewriter.remark(op, "expand", "kept", reason)
        return
    trips = trips_of(op)
    assert trips is not None
    b = Before(op, rewriter)
    carried: list[Value] = list(op.carried)
    scanned: list[list[Value]] = [[] for _ in range(len(op.results) - len(carried))]
    block = op.body.block
    for i in range(trips):
        values: dict[Value, Value] = dict(
            zip(block.args, (b.constant(i, I64), b.constant(True, BOOL), *carried), strict=True)
        )
        for inner in block.ops:
            if inner is not block.terminator:
                rewriter.insert_before(op, inner.clone(values))
        given = [values.get(v, v) for v in block.terminator.operands[1:]]
        carried = given[: len(carried)]
        for row, v in zip(scanned, given[len(carried) :], strict=True):
            row.append(b(Reshape, v, shape=(1, *tensor_type(v).shape)))
    b.done(*carried, *(row[0] if len(row) == 1 else b(graph.Concat, row, axis=0) for row in scanned))


def _reason(op: Loop) -> str | None:
    """Why a loop cannot be written out, or None."""
    trips = trips_of(op)
    if trips is None:
        return "the number of its trips is not known"
    if op.condition is not None and splat(op.condition) is not True:
        return "data decide whether it begins"
    block = op.body.block
    if ends_early(op):
        return "data decide when it ends"
    if any(isinstance(v.type, TensorType) and not v.type.is_static for v in block.terminator.operands[1:]):
        return "its shapes are not known"
    if any(a.type != v.type for a, v in zip(block.args[2:], block.terminator.operands[1:], strict=False)):
        return "its carried values change shape"
    scans = len(op.results) > len(op.carried)
    if trips < 1 and scans:
        return "it makes no trip, and its scanned values are empty"
    if trips * sum(1 for _ in block.ops) > MOST_OPS:
        return f"{trips} trips of its body are more than {MOST_OPS} ops"
    return None
