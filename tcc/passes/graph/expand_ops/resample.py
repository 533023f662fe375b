# SPDX-License-Identifier: Apache-2.0
"""Resizes as gathers: at the nearest position, or a weighted sum over the taps of each axis."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import Resize, ResizeNearest
from tcc.ir.graph.base import Array, static_ints, tensor_type
from tcc.ir.graph.resize import axis_taps, nearest_taps, source_coordinates
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import BOOL, F32, F64, I64
from tcc.passes.graph.expand_ops.resample_free import free_interpolated, free_nearest
from tcc.passes.graph.expand_ops.table import Before, expands


class _Axis:
    """One axis that a resize changes, of extents that are numbers."""

    def __init__(self, op: Resize | ResizeNearest, place: int) -> None:
        self.axis = op.axes[place]
        self.size, self.out = static_ints(op, (tensor_type(op.x).shape[self.axis], tensor_type(op.y).shape[self.axis]))
        self.scale = op.axis_scales()[place]
        self.crop = (0.0, 1.0) if op.crop is None else op.crop[place]
        self.changes = self.out != self.size or self.scale != 1.0 or op.crop is not None
        self.coordinates: Array = source_coordinates(
            op.coordinate_mode, self.size, self.out, self.scale, *self.crop
        )  # fmt: skip

    @property
    def outside(self) -> Array:
        """Which output positions lie outside of x."""
        return (self.coordinates < 0) | (self.coordinates > self.size - 1)


def _axes(op: Resize | ResizeNearest) -> list[_Axis]:
    return [a for a in (_Axis(op, i) for i in range(len(op.axes))) if a.changes]


def _bound(op: Resize | ResizeNearest) -> bool:
    """Whether the extents of the resized axes are numbers."""
    x, y = tensor_type(op.x).shape, tensor_type(op.y).shape
    return all(isinstance(d, int) for a in op.axes for d in (x[a], y[a]))


def _empty(op: Resize | ResizeNearest, b: Before) -> bool:
    """Whether the result has no elements on a resized axis; it is then filled without reading x."""
    t = tensor_type(op.y)
    if not any(t.shape[a] == 0 for a in op.axes):
        return False
    b.done(b(graph.Expand, b.constant(0, t.dtype), shape=t.shape))
    return True


def _extrapolated(b: Before, op: Resize | ResizeNearest, y: Value, axes: list[_Axis]) -> Value:
    """y with the value of extrapolation at points that lie outside of x along some axis."""
    if op.crop is None:
        return y
    t = tensor_type(y)
    for a in axes:
        if a.outside.any():
            mask = b.along(a.outside, a.axis, t.rank, BOOL)
            y = b(graph.Where, mask, b.constant(op.extrapolation, t.dtype), y)
    return y


@expands("resize_nearest")
def expand_nearest(op: ResizeNearest, rewriter: Rewriter) -> None:
    b = Before(op, rewriter)
    if _empty(op, b):
        return
    if not _bound(op):
        b.done(free_nearest(b, op))
        return
    y: Value = op.x
    axes = _axes(op)
    for a in axes:
        places = nearest_taps(op.coordinate_mode, op.nearest_mode, a.size, a.out, a.scale, *a.crop)
        y = b(graph.Gather, y, b.constant(places, I64), axis=a.axis)
    b.done(_extrapolated(b, op, y, axes))


@expands("resize")
def expand_resize(op: Resize, rewriter: Rewriter) -> None:
    """Floats are interpolated in 32 bits at least, integers in f64, then truncated and clamped, as the reference."""
    b = Before(op, rewriter)
    if _empty(op, b):
        return
    t = tensor_type(op.x)
    wide = F64 if not t.dtype.is_float else t.dtype if t.dtype.bits >= 32 else F32
    y = b.cast(op.x, wide)
    bound = _bound(op)
    axes = _axes(op) if bound else []
    if not bound:
        y = free_interpolated(b, op, y)
    for a in axes:
        places, weights = axis_taps(
            a.coordinates, a.size, a.scale, op.mode, op.antialias, op.exclude_outside, op.cubic_coeff
        )
        total: Value | None = None
        for tap in range(places.shape[1]):
            if not weights[:, tap].any():
                continue
            part = b(graph.Gather, y, b.constant(places[:, tap], I64), axis=a.axis)
            part = b(graph.Mul, part, b.along(weights[:, tap], a.axis, t.rank, wide))
            total = part if total is None else b(graph.Add, total, part)
        assert total is not None, "the weights of a position sum to 1"
        y = total
    y = _extrapolated(b, op, y, axes)
    if not t.dtype.is_float:
        low, high = (0, 1) if t.dtype is BOOL else (np.iinfo(t.dtype.numpy).min, np.iinfo(t.dtype.numpy).max)
        y = b(graph.Clip, y, lo=float(low), hi=float(high))
        if t.dtype is BOOL:
            y = b(graph.Floor, y)
    b.done(b.cast(y, t.dtype))
