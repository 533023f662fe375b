# SPDX-License-Identifier: Apache-2.0
"""Lp pools: powers, a convolution with ones, a root."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import LpPool
from tcc.ir.graph.base import static_ints, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import F32
from tcc.passes.graph.expand_ops.table import Before, expands


@expands("lp_pool")
def expand_lp_pool(op: LpPool, rewriter: Rewriter) -> None:
    """Σ|x|^p is a depthwise convolution with ones; the end pads are those that give the pool's extents."""
    b = Before(op, rewriter)
    t, y = tensor_type(op.x), tensor_type(op.y)
    wide = t.dtype if t.dtype.bits >= 32 else F32
    x = b(graph.Abs, b.cast(op.x, wide))
    x = b(graph.Mul, x, x) if op.p == 2 else x if op.p == 1 else b(graph.Pow, x, b.constant(float(op.p), wide))
    n = op.spatial
    extents = static_ints(op, [t.shape[a] for a in op.spatial_axes])
    outs = static_ints(op, [y.shape[a] for a in op.spatial_axes])
    ends = [
        (o - 1) * op.strides[i] + op.dilations[i] * (op.kernel[i] - 1) + 1 - extents[i] - op.pads[i]
        for i, o in enumerate(outs)
    ]
    (channels,) = static_ints(op, (t.shape[op.channel_axis],))
    ones = (channels, 1, *op.kernel) if op.dims == "nchw" else (channels, *op.kernel, 1)
    total: Value = b(
        graph.Conv, x, b.constant(np.ones(ones), wide), None, strides=op.strides, pads=(*op.pads[:n], *ends),
        dilations=op.dilations, group=channels, dims=op.dims,
    )  # fmt: skip
    if op.p == 2:
        total = b(graph.Sqrt, total)
    elif op.p != 1:
        total = b(graph.Pow, total, b.constant(1 / op.p, wide))
    b.done(b.cast(total, t.dtype))
