# SPDX-License-Identifier: Apache-2.0
"""Reductions over axes: sums, means, extremes, and where the extremes are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc import reference as _ref
from tcc.ir.declare import BOOLEAN, INT, INTS, Attr, Operand, Result, one_of, register
from tcc.ir.expr import Dim
from tcc.ir.graph.base import Array, GraphOp, check_axes, check_axis, dense, present
from tcc.ir.types import I64, TensorType, Type

_COMPUTE: dict[str, Callable[..., Any]] = {
    "sum": _ref.reduce_sum,
    "mean": _ref.reduce_mean,
    "max": _ref.reduce_max,
    "min": _ref.reduce_min,
    "prod": _ref.reduce_prod,
}


def reduced_shape(t: TensorType, axes: Sequence[int], keepdims: bool) -> tuple[Dim, ...]:
    """The shape after reducing `axes`: 1 there with keepdims, else without them."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(t.shape))
    return tuple(d for i, d in enumerate(t.shape) if i not in axes)


@register
class Reduce(GraphOp):
    """The sum, mean, max, min or prod of x over `axes` (ascending, none: x itself).

    Empty ranges give the identity of the kind. ONNX ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd,
    GlobalAveragePool, GlobalMaxPool; the other Reduce ops are made of these.
    """

    name = "graph.reduce"
    category = "reduction"
    x = Operand()
    kind = Attr(one_of(*_COMPUTE))
    axes = Attr(INTS)
    keepdims = Attr(BOOLEAN, True)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axes(self, self.axes, t.rank)
        return (dense(reduced_shape(t, self.axes, self.keepdims), t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        return (_COMPUTE[self.kind](x, self.axes, keepdims=int(self.keepdims), noop_with_empty_axes=1),)


@register
class ArgReduce(GraphOp):
    """The i64 index of the max or min along `axis`: the first one, or the last with `last`. ONNX ArgMax, ArgMin."""

    name = "graph.arg_reduce"
    category = "reduction"
    x = Operand()
    kind = Attr(one_of("max", "min"))
    axis = Attr(INT)
    keepdims = Attr(BOOLEAN, True)
    last = Attr(BOOLEAN, False)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axis(self, self.axis, t.rank)
        return (dense(reduced_shape(t, (self.axis,), self.keepdims), I64),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        f = _ref.arg_max if self.kind == "max" else _ref.arg_min
        x = present(arrays[0])
        return (f(x, axis=self.axis, keepdims=int(self.keepdims), select_last_index=int(self.last)),)
