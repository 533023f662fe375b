# SPDX-License-Identifier: Apache-2.0
"""Integers that the shapes of the inputs decide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir.declare import DIMS, Attr, Result, register
from tcc.ir.expr import Dim
from tcc.ir.graph.base import Array, GraphOp, dense, static_ints
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
