# SPDX-License-Identifier: Apache-2.0
"""Formulas of a handler as graph ops: short names, numbers beside values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.compiler.frontend.node import Node
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim
from tcc.ir.types import BOOL, F32, F64, DType

Operand = Value | float | int


class Formula:
    """Builds pointwise ops for one node. Where one of two operands is a number it takes the other's element type."""

    def __init__(self, n: Node) -> None:
        self.n = n

    def _two(self, cls: type[Op], a: Operand, b: Operand, **attrs: Any) -> Value:
        if not isinstance(a, Value):
            assert isinstance(b, Value)
            a = self.n.like(a, b)
        elif not isinstance(b, Value):
            b = self.n.like(b, a)
        return self.n.op(cls, a, b, **attrs)

    def add(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Add, a, b)

    def sub(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Sub, a, b)

    def mul(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Mul, a, b)

    def div(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Div, a, b)

    def mod(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Mod, a, b)

    def least(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Min, a, b)

    def most(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Max, a, b)

    def less(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Less, a, b)

    def at_most(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.LessEqual, a, b)

    def equal(self, a: Operand, b: Operand) -> Value:
        return self._two(graph.Equal, a, b)

    def both(self, a: Value, b: Value) -> Value:
        return self.n.op(graph.And, a, b)

    def floor(self, a: Value) -> Value:
        return self.n.op(graph.Floor, a)

    def where(self, condition: Value, a: Operand, b: Operand) -> Value:
        """a where the condition holds, else b; not both are numbers."""
        if not isinstance(a, Value):
            assert isinstance(b, Value)
            a = self.n.like(a, b)
        elif not isinstance(b, Value):
            b = self.n.like(b, a)
        return self.n.op(graph.Where, condition, a, b)

    def clamp(self, a: Value, low: float | int, high: float | int) -> Value:
        return self.n.op(graph.Clip, a, lo=low, hi=high)

    def reduce(self, a: Value, kind: str, *axes: int, keepdims: bool = False) -> Value:
        return self.n.op(graph.Reduce, a, kind=kind, axes=tuple(axes), keepdims=keepdims)

    def expand(self, a: Value, shape: Sequence[Dim]) -> Value:
        return a if self.n.shape(a) == tuple(shape) else self.n.op(graph.Expand, a, shape=tuple(shape))

    def part(self, a: Value, axis: int, start: int, size: int = 1) -> Value:
        """Elements start … start + size - 1 along an axis."""
        shape = self.n.shape(a)
        starts = tuple(start if i == axis else 0 for i in range(len(shape)))
        sizes = tuple(size if i == axis else d for i, d in enumerate(shape))
        return self.n.op(graph.Slice, a, starts=starts, sizes=sizes, steps=(1,) * len(shape))

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else self.n.op(graph.Concat, list(values), axis=axis)

    def zeros(self, shape: Sequence[int], dtype: DType) -> Value:
        return self.expand(self.n.constant(False if dtype is BOOL else 0, dtype), shape)

    def static(self, a: Value) -> tuple[int, ...]:
        """The extents of a value, which must be numbers; InputError otherwise."""
        shape = self.n.shape(a)
        out = tuple(d for d in shape if isinstance(d, int))
        if len(out) != len(shape):
            raise InputError(f"it works on {self.n.type(a)}, whose free dims must be bound")
        return out

    def wide(self, a: Value) -> Value:
        """The value in the type that it is computed with: f32 or f64 for floats, f64 for others."""
        dtype = self.n.dtype(a)
        return self.n.cast(a, F64 if not dtype.is_float or dtype is F64 else F32)
