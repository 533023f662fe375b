# SPDX-License-Identifier: Apache-2.0
"""Extents as values, and values as extents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir.declare import DIMS, INT, INTS, STRS, Attr, Operand, Result, register
from tcc.ir.expr import Dim
from tcc.ir.graph.base import Array, GraphOp, check_dims, dense, static_ints
from tcc.ir.types import I64, Type


@register
class Dims(GraphOp):
    """An i64 vector of expressions over the free dims, [len(values)]. ONNX Shape, and arithmetic on it."""

    name = "graph.dims"
    category = "constant"
    values: Attr[tuple[Dim, ...]] = Attr(DIMS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        return (dense((len(self.values),), I64),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.array(static_ints(self, self.values), np.int64),)


@register
class Iota(GraphOp):
    """0, 1, …, size - 1 as i64; `size` holds that one extent. ONNX Range."""

    name = "graph.iota"
    category = "constant"
    size: Attr[tuple[Dim, ...]] = Attr(DIMS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        check_dims(self, self.size, "size")
        if len(self.size) != 1:
            raise self.fail(f"size {list(self.size)} must be one extent")
        return (dense(self.size, I64),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.arange(static_ints(self, self.size)[0], dtype=np.int64),)


@register
class Bind(GraphOp):
    """Makes extents of what was computed: from here on the symbol symbols[i] is x[places[i]], at least `least`.

    x: i64 vector. What is below `least` is an error when the program runs. ONNX Reshape, Range and others whose
    operands the graph computes.
    """

    name = "graph.bind"
    category = "control"
    pure = False
    x = Operand()
    symbols = Attr(STRS)
    places = Attr(INTS)
    least = Attr(INT, 0)

    def infer(self) -> Sequence[Type]:
        return ()

    def verify(self) -> None:
        t = self.operand_type(0)
        if t.rank != 1 or t.dtype != I64:
            raise self.fail(f"x must be a vector of i64, not {t}")
        if len(self.symbols) != len(self.places) or any(p < 0 for p in self.places):
            raise self.fail(f"{len(self.symbols)} symbols do not fit the places {list(self.places)}")
