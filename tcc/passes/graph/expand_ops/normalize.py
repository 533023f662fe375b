# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation as a multiplication and an addition."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import BatchNorm
from tcc.ir.graph.base import Array, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.common import content
from tcc.passes.graph.expand_ops.table import Before, expands


def scale_and_shift(op: BatchNorm) -> tuple[Array, Array] | None:
    """(a, b) in float64, one value a channel, with which the op is a·x + b; None where a parameter is no constant."""
    arrays = [content(v) for v in (op.scale, op.bias, op.mean, op.variance)]
    if any(a is None for a in arrays):
        return None
    scale, bias, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    a = scale / np.sqrt(variance + op.epsilon)
    return a, bias - mean * a


@expands("batch_norm")
def expand_batch_norm(op: BatchNorm, rewriter: Rewriter) -> None:
    b = Before(op, rewriter)
    t = tensor_type(op.x)
    known = scale_and_shift(op)
    if known is not None:
        factor, addend = (b.along(v, op.channel_axis, t.rank, t.dtype) for v in known)
        b.done(b(graph.Add, b(graph.Mul, op.x, factor), addend))
        return

    def across(v: Value) -> Value:
        return b.reshape(v, [d if i == op.channel_axis else 1 for i, d in enumerate(t.shape)])

    spread = b(graph.Sqrt, b(graph.Add, op.variance, b.constant(op.epsilon, t.dtype)))
    factor = b(graph.Div, op.scale, spread)
    centred = b(graph.Sub, op.x, across(op.mean))
    b.done(b(graph.Add, b(graph.Mul, centred, across(factor)), across(op.bias)))
