# SPDX-License-Identifier: Apache-2.0
"""Lp pools: powers, a convolution with ones, a root. Max pools with indices: the place of the first greatest."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import ArgReduce, LpPool, MaxPoolIndices
from tcc.ir.graph.base import static_ints, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import BOOL, F32, I64, DType
from tcc.passes.graph.expand_ops.scans import expand_arg_reduce
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


@expands("max_pool_indices")
def expand_max_pool_indices(op: MaxPoolIndices, rewriter: Rewriter) -> None:
    """The elements of every window, gathered at places known when compiling, and the place of the greatest of them; an
    element beyond x's end stands for all that is outside."""
    b = Before(op, rewriter)
    t, y = tensor_type(op.x), tensor_type(op.y)
    shape, out = static_ints(op, t.shape), static_ints(op, y.shape)
    space, windows = shape[2:], out[2:]
    pixels, count = int(np.prod(space)), int(np.prod(windows))
    at = np.indices(windows).reshape(op.spatial, count, 1)
    taps = np.indices(op.kernel).reshape(op.spatial, 1, -1)
    flat = np.zeros((count, taps.shape[2]), np.int64)
    told = np.zeros_like(flat)
    inside = np.ones(flat.shape, bool)
    for i, extent in enumerate(space):
        place = at[i] * op.strides[i] + taps[i] * op.dilations[i] - op.pads[i]
        inside &= (place >= 0) & (place < extent)
        flat = flat * extent + place
        told = told + place * int(np.prod(space[:i] if op.storage_order else space[i + 1 :]))
    low = _least(t.dtype)
    planes = shape[0] * shape[1]
    x = b.reshape(op.x, (planes, pixels))
    x = b(graph.Pad, b.cast(x, I64) if t.dtype is BOOL else x, before=(0, 0), after=(0, 1), value=low)
    table = b.constant(np.where(inside, flat, pixels), I64)
    values = b(graph.Gather, x, table, axis=1)
    tap = b(graph.ArgReduce, values, kind="max", axis=2, keepdims=True)
    best = b(graph.GatherElements, values, tap, axis=2)
    rows = b(graph.Expand, b.constant(told.reshape(1, count, -1), I64), shape=(planes, *told.shape))
    where = b.reshape(b(graph.GatherElements, rows, tap, axis=2), (planes, count))
    where = b(graph.Add, where, b.constant(np.arange(planes).reshape(-1, 1) * pixels, I64))
    b.done(b.reshape(b.cast(best, t.dtype), out), b.reshape(where, out))
    found = tap.defining_op
    assert isinstance(found, ArgReduce)
    expand_arg_reduce(found, rewriter)


def _least(dtype: DType) -> float | int:
    """Less than or equal to every number of a type."""
    if dtype.is_float:
        return -np.inf
    return 0 if dtype.kind in ("uint", "bool") else -(1 << (dtype.bits - 1))
