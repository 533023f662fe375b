# SPDX-License-Identifier: Apache-2.0
"""Resizes along axes whose extents data decide: positions and weights are computed when the program runs.

The formulas are those of `tcc.reference.resize`, term by term.
"""

from __future__ import annotations

from math import ceil

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.graph import Resize, ResizeNearest
from tcc.ir.graph.base import tensor_type
from tcc.ir.types import F32, F64, I64, DType
from tcc.passes.graph.expand_ops.table import Before

_NEAREST = {"round_prefer_floor": (graph.Ceil, -0.5), "round_prefer_ceil": (graph.Floor, 0.5)}


def free_nearest(b: Before, op: ResizeNearest) -> Value:
    """x at the nearest source positions, which are settled in f32."""
    y: Value = op.x
    for place, a in enumerate(op.axes):
        axis = _FreeAxis(b, op, place, F32)
        if op.nearest_mode in _NEAREST:
            rounds, shift = _NEAREST[op.nearest_mode]
            where = b(rounds, axis.plus(axis.where, shift))
        else:
            where = b(graph.Floor if op.nearest_mode == "floor" else graph.Ceil, axis.where)
        y = b(graph.Gather, y, axis.clamped(b.cast(where, I64)), axis=a)
    return y


def free_interpolated(b: Before, op: Resize, x: Value) -> Value:
    """x (the operand, in the type to compute in) as a weighted sum over the taps of each axis."""
    y = x
    for place, a in enumerate(op.axes):
        axis = _FreeAxis(b, op, place, F64)
        radius = 1.0 if op.mode == "linear" else 2.0
        scale = axis.scale
        stretch = min(scale, 1.0) if op.antialias and scale is not None else 1.0
        first = b.cast(axis.plus(b(graph.Floor, axis.plus(axis.where, -radius / stretch)), 1.0), I64)
        taps = [b(graph.Add, first, b.constant(i, I64)) for i in range(2 * ceil(radius / stretch))]
        weights = [_weight(b, op, axis, tap, stretch) for tap in taps]
        if op.exclude_outside or stretch < 1:
            total = weights[0]
            for w in weights[1:]:
                total = b(graph.Add, total, w)
            weights = [b(graph.Div, w, total) for w in weights]
        parts: list[Value] = []
        t = tensor_type(y)
        for tap, weight in zip(taps, weights, strict=True):
            part = b(graph.Gather, y, axis.clamped(tap), axis=a)
            along = [axis.out if i == a else 1 for i in range(t.rank)]
            parts.append(b(graph.Mul, part, b.reshape(b.cast(weight, t.dtype), along)))
        y = parts[0]
        for part in parts[1:]:
            y = b(graph.Add, y, part)
    return y


class _FreeAxis:
    """Axis `place` of a resize: its extents as values, and `where`, the source coordinate of each output position."""

    def __init__(self, b: Before, op: Resize | ResizeNearest, place: int, dtype: DType) -> None:
        self.b, self.dtype = b, dtype
        axis = op.axes[place]
        self.size: Dim = tensor_type(op.x).shape[axis]
        self.out: Dim = tensor_type(op.y).shape[axis]
        scales: tuple[float, ...] | None = op.attrs["scales"]
        self.scale = None if scales is None else scales[place]
        self.where = self._where(op.coordinate_mode)

    def number(self, value: Dim, dtype: DType) -> Value:
        """An extent as a tensor of rank 0."""
        b = self.b
        if isinstance(value, int):
            return b.constant(value, dtype)
        return b.cast(b.reshape(b(graph.Dims, values=(value,)), ()), dtype)

    def plus(self, value: Value, number: float) -> Value:
        return self.b(graph.Add, value, self.b.constant(number, tensor_type(value).dtype))

    def clamped(self, places: Value) -> Value:
        """Positions i64, the nearest that x has."""
        b = self.b
        return b(graph.Max, b(graph.Min, places, self.number(self.size - 1, I64)), b.constant(0, I64))

    def _over_scale(self, v: Value) -> Value:
        """v divided by the scale, rounded once."""
        b = self.b
        v = b.cast(v, F64)
        if self.scale is None:
            v = b(graph.Div, b(graph.Mul, v, self.number(self.size, F64)), self.number(self.out, F64))
        else:
            v = b(graph.Div, v, b.constant(self.scale, F64))
        return b.cast(v, self.dtype)

    def _where(self, mode: str) -> Value:
        b = self.b
        x = b.cast(b(graph.Iota, size=(self.out,)), self.dtype)
        if mode == "asymmetric":
            return self._over_scale(x)
        if mode == "align_corners":
            span = self.plus(self.number(self.out, F64), -1.0)
            if self.scale is not None:
                scaled = b(graph.Mul, self.number(self.size, F64), b.constant(self.scale, F64))
                span = self.plus(scaled, -1.0)
            span = b.cast(b(graph.Where, self._several(), span, b.constant(1.0, F64)), self.dtype)
            return b(graph.Div, b(graph.Mul, x, self.number(self.size - 1, self.dtype)), span)
        centre = self._over_scale(self.plus(x, 0.5))
        if mode == "tf_half_pixel_for_nn":
            return centre
        half = self.plus(centre, -0.5)
        if mode == "pytorch_half_pixel":
            return b(graph.Where, self._several(), half, b.constant(0.0, self.dtype))
        if mode == "half_pixel_symmetric" and self.scale is not None:
            size = self.number(self.size, F64)
            scaled = b(graph.Mul, size, b.constant(self.scale, F64))
            missing = b(graph.Sub, b.constant(1.0, F64), b(graph.Div, self.number(self.out, F64), scaled))
            shift = b(graph.Mul, b(graph.Mul, size, b.constant(0.5, F64)), missing)
            return b(graph.Add, half, b.cast(shift, self.dtype))
        return half

    def _several(self) -> Value:
        """Whether there is more than one output position."""
        return self.b(graph.Less, self.b.constant(1, I64), self.number(self.out, I64))


def _weight(b: Before, op: Resize, axis: _FreeAxis, tap: Value, stretch: float) -> Value:
    """The weight of x[tap] for each output position, in f64."""
    distance = b(graph.Sub, b.cast(tap, F64), axis.where)
    d = b(graph.Abs, b(graph.Mul, distance, b.constant(stretch, F64)))
    zero = b.constant(0.0, F64)
    if op.mode == "linear":
        weight = b(graph.Max, zero, b(graph.Sub, b.constant(1.0, F64), d))
    else:
        a = op.cubic_coeff
        near = _horner(b, d, (a + 2, -(a + 3), 0.0, 1.0))
        far = _horner(b, d, (a, -5 * a, 8 * a, -4 * a))
        far = b(graph.Where, b(graph.Less, d, b.constant(2.0, F64)), far, zero)
        weight = b(graph.Where, b(graph.LessEqual, d, b.constant(1.0, F64)), near, far)
    if op.exclude_outside:
        inside = b(graph.Equal, tap, axis.clamped(tap))
        weight = b(graph.Where, inside, weight, zero)
    return weight


def _horner(b: Before, x: Value, factors: tuple[float, ...]) -> Value:
    """The polynomial in x with these factors, of the highest power first."""
    y: Value = b.constant(factors[0], F64)
    for f in factors[1:]:
        y = b(graph.Add, b(graph.Mul, y, x), b.constant(f, F64))
    return y
