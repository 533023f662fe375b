# SPDX-License-Identifier: Apache-2.0
"""The expansions by op name, and short ways to insert ops before the one that is expanded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim
from tcc.ir.graph.base import Array, GraphOp, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import DType
from tcc.passes.graph.common import constant

Expansion = Callable[[Any, Rewriter], None]
EXPANSIONS: dict[str, Expansion] = {}
F = TypeVar("F", bound=Expansion)


def expands(*names: str) -> Callable[[F], F]:
    """Function decorator: the expansion of the graph ops of those names."""

    def add(f: F) -> F:
        for n in names:
            EXPANSIONS[f"graph.{n}"] = f
        return f

    return add


class Before:
    """Inserts ops before `op`, under its loc."""

    def __init__(self, op: GraphOp, rewriter: Rewriter) -> None:
        self.op = op
        self.rewriter = rewriter

    def __call__(self, cls: type[Op], /, *operands: Value | Sequence[Value] | None, **attrs: Any) -> Value:
        return self.rewriter.insert_before(self.op, cls(*operands, loc=self.op.loc, **attrs)).result

    def constant(self, array: Any, dtype: DType | None = None) -> Value:
        array = np.asarray(array)
        return constant(self.rewriter, self.op, array if dtype is None else array.astype(dtype.numpy), self.op.loc)

    def along(self, values: Any, axis: int, rank: int, dtype: DType) -> Value:
        """A vector constant shaped to broadcast along `axis` of a tensor of that rank."""
        vector: Array = np.asarray(values)
        return self.constant(vector.reshape([-1 if i == axis else 1 for i in range(rank)]), dtype)

    def cast(self, x: Value, to: DType) -> Value:
        return x if tensor_type(x).dtype == to else self(graph.Cast, x, to=to)

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if tensor_type(x).shape == tuple(shape) else self(graph.Reshape, x, shape=tuple(shape))

    def done(self, *values: Value) -> None:
        """Replace the op by values."""
        self.rewriter.replace(self.op, list(values))
