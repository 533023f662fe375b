# SPDX-License-Identifier: Apache-2.0
"""Ops that are neither pointwise nor an index map nor a plain reduction: scans, sorting, scattering, and host calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tcc import reference as _ref
from tcc.ir.declare import (
    BOOLEAN,
    DICT,
    INT,
    INTS,
    STR,
    TYPES,
    Attr,
    Operand,
    Result,
    Variadic,
    VariadicResult,
    one_of,
    register,
)
from tcc.ir.graph.base import Array, GraphOp, check_axis, dense, present, same_dtype
from tcc.ir.types import I64, DType, Type


class Cumulative(GraphOp):
    """Base of running totals along `axis`: without the element itself if `exclusive`, from the end if `reverse`."""

    category = "irregular"
    x = Operand()
    axis = Attr(INT)
    exclusive = Attr(BOOLEAN, False)
    reverse = Attr(BOOLEAN, False)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axis(self, self.axis, t.rank)
        return (dense(t.shape, t.dtype),)


@register
class Cumsum(Cumulative):
    """Running sum. ONNX CumSum."""

    name = "graph.cumsum"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        return (_ref.cum_sum(x, self.axis, exclusive=int(self.exclusive), reverse=int(self.reverse)),)


@register
class Cumprod(Cumulative):
    """Running product. ONNX CumProd."""

    name = "graph.cumprod"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        return (_ref.cum_prod(x, self.axis, exclusive=int(self.exclusive), reverse=int(self.reverse)),)


@register
class TopK(GraphOp):
    """The k largest (or smallest) along `axis` and their i64 indices; ties go to the lower index. ONNX TopK."""

    name = "graph.topk"
    category = "irregular"
    x = Operand()
    k = Attr(INT)
    axis = Attr(INT)
    largest = Attr(BOOLEAN, True)
    sorted = Attr(BOOLEAN, True)
    y = Result()
    indices = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axis(self, self.axis, t.rank)
        extent = t.shape[self.axis]
        if self.k < 0 or (isinstance(extent, int) and self.k > extent):
            raise self.fail(f"k {self.k} is not within the extent {extent}")
        shape = (*t.shape[: self.axis], self.k, *t.shape[self.axis + 1 :])
        return dense(shape, t.dtype), dense(shape, I64)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        return _ref.top_k(x, self.k, axis=self.axis, largest=int(self.largest), sorted=int(self.sorted))


class Scatter(GraphOp):
    """Base of copies of x with `updates` written, or by `reduction` combined, at places that `indices` name."""

    category = "irregular"
    x = Operand()
    indices = Operand()
    updates = Operand()
    reduction = Attr(one_of("none", "add", "mul", "max", "min"), "none")
    y = Result()

    def infer(self) -> Sequence[Type]:
        x, indices, updates = (self.operand_type(i) for i in range(3))
        same_dtype(self, x, updates)
        if not indices.dtype.is_int:
            raise self.fail(f"indices must be integers, not {indices.dtype}")
        return (dense(x.shape, x.dtype),)


@register
class ScatterElements(Scatter):
    """Update p goes to p with its `axis` index replaced by indices[p]. ONNX ScatterElements."""

    name = "graph.scatter_elements"
    axis = Attr(INT, 0)

    def verify(self) -> None:
        check_axis(self, self.axis, self.operand_type(0).rank)
        if not self.operand_type(0).rank == self.operand_type(1).rank == self.operand_type(2).rank:
            raise self.fail("x, indices and updates must be of one rank")

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices, updates = (present(a) for a in arrays[:3])
        return (_ref.scatter_elements(x, indices, updates, axis=self.axis, reduction=self.reduction),)


@register
class ScatterNd(Scatter):
    """Slices of x at the index tuples in the last dim of `indices` are updated. ONNX ScatterND."""

    name = "graph.scatter_nd"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices, updates = (present(a) for a in arrays[:3])
        return (_ref.scatter_nd(x, indices, updates, reduction=self.reduction),)


@register
class Host(GraphOp):
    """A call of `tcc.reference.<function>` on the host: for strings, shapes that data decide, and rare ops.

    `given` says for each input of the function whether an operand stands for it (1) or it is absent (0); `attributes`
    are its keyword arguments, element types as such. Results are the first ones of the function, of the declared
    `types`, where an extent that data decide is a symbol of its own.
    """

    name = "graph.host"
    inputs = Variadic()
    function = Attr(STR)
    attributes = Attr(DICT, {})
    given = Attr(INTS)
    types = Attr(TYPES)
    results_ = VariadicResult()

    def infer(self) -> Sequence[Type]:
        return self.types

    def verify(self) -> None:
        if not callable(getattr(_ref, self.function, None)):
            raise self.fail(f"there is no reference function {self.function}")
        if sum(self.given) != len(self.operands):
            raise self.fail(f"given {list(self.given)} does not fit {len(self.operands)} operands")

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        rest = iter(arrays)
        args = [next(rest) if g else None for g in self.given]
        options = {k: v.numpy if isinstance(v, DType) else v for k, v in self.attributes.items()}
        function = cast(Callable[..., Any], getattr(_ref, self.function))
        out = function(*args, **options)
        results = cast("tuple[Array, ...]", out if isinstance(out, tuple) else (out,))
        return results[: len(self.results)]
