# SPDX-License-Identifier: Apache-2.0
"""Small matchers that the patterns share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tcc.ir.core import Op, Value
from tcc.ir.graph import Constant
from tcc.ir.graph.base import tensor_type


def scalar(v: Value) -> float | None:
    """The number in a one-element constant, else None."""
    op = v.defining_op
    if not isinstance(op, Constant) or tensor_type(v).size != 1 or tensor_type(v).dtype.kind == "string":
        return None
    return float(np.asarray(op.array()).reshape(()))


def made_by(v: Value, name: str) -> Op | None:
    """The op of that name whose result v is, else None."""
    op = v.defining_op
    return op if op is not None and op.name == name else None


def sides(op: Op) -> Iterator[tuple[Value, Value]]:
    """Both orders of a commutative op's operands."""
    a, b = op.operands[:2]
    yield a, b
    yield b, a


def with_scalar(v: Value, name: str) -> tuple[Value, float] | None:
    """(x, number) where v is x combined with a one-element constant by the commutative op of that name."""
    op = made_by(v, name)
    if op is None:
        return None
    for x, c in sides(op):
        number = scalar(c)
        if number is not None and tensor_type(x).shape == tensor_type(v).shape:
            return x, number
    return None


def once(v: Value) -> bool:
    """Whether v has exactly one use."""
    return v.use_count == 1
