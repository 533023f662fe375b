# SPDX-License-Identifier: Apache-2.0
"""Pads that the window after them can do itself, and convolutions of one point."""

from __future__ import annotations

from typing import Any

from tcc.ir import graph
from tcc.ir.core import Value, union_loc
from tcc.ir.graph import AveragePool, Conv, Matmul, Pad, Reshape, Transpose
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.canonicalize.table import canonical
from tcc.passes.graph.common import insert, producer, shape_of, with_operands


@canonical("conv", "average_pool")
def take_pads(op: Any, rewriter: Rewriter) -> bool:
    """Zeros around the spatial dims become pads of a convolution, or of a mean that counts its pads."""
    assert isinstance(op, Conv | AveragePool)
    pad = producer(op.x, Pad)
    if pad is None or pad.mode != "constant" or pad.fill is not None or pad.value != 0:
        return False
    if min((*pad.before, *pad.after)) < 0 or min(op.pads) < 0:
        return False
    axes = op.spatial_axes
    if any(pad.before[i] or pad.after[i] for i in range(len(pad.before)) if i not in axes):
        return False
    if isinstance(op, AveragePool) and (op.ceil_mode or (any(op.pads) and not op.count_include_pad)):
        return False
    n = len(axes)
    pads = tuple(
        [op.pads[i] + pad.before[a] for i, a in enumerate(axes)]
        + [op.pads[n + i] + pad.after[a] for i, a in enumerate(axes)]
    )
    if isinstance(op, AveragePool):
        new = with_operands(op, pad.x, pads=pads, count_include_pad=True)
    else:
        new = with_operands(op, pad.x, op.w, op.b, pads=pads)
    new.loc = union_loc(pad.loc, op.loc)
    rewriter.replace(op, new)
    return True


@canonical("conv")
def point_as_product(op: Conv, rewriter: Rewriter) -> bool:
    """A channels-last convolution of a single point, as in squeeze and excitation, is a product of matrices."""
    if op.dims != "nhwc" or op.group != 1 or any(op.pads):
        return False
    x, w = shape_of(op.x), shape_of(op.w)
    if any(d != 1 for d in (*x[1:-1], *w[1:-1])):
        return False
    flat = insert(rewriter, op, Reshape(op.x, shape=(x[0], x[-1]))).y
    matrix = insert(rewriter, op, Reshape(op.w, shape=(w[0], w[-1]))).y
    turned = insert(rewriter, op, Transpose(matrix, perm=(1, 0))).y
    y: Value = insert(rewriter, op, Matmul(flat, turned)).y
    if op.b is not None:
        y = insert(rewriter, op, graph.Add(y, op.b)).y
    rewriter.replace(op, Reshape(y, shape=shape_of(op.y)))
    return True
