# SPDX-License-Identifier: Apache-2.0
"""Shared base of the scalar dialects `arith` and `math`: ops on single elements, inside regions of kernels.

`evaluate` computes them on numpy arrays of points; floats arrive as float64 whatever their declared type, integers in
their own type, booleans as bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tcc.ir.core import Op, Value
from tcc.ir.declare import IRError
from tcc.ir.types import DType, ScalarType, Type

Array = np.ndarray[Any, Any]


class ScalarOp(Op):
    """An op whose operands and only result are scalars. `ulps`: how many units in the last place of its type an
    emitted version may be off, beyond what its operands' errors cause (the oracle's allowance)."""

    ulps: ClassVar[float] = 0.5

    def evaluate(self, *args: Array) -> Array:
        """The exact result on arrays of points."""
        raise NotImplementedError(self.name)


def element(value: Value) -> DType:
    """The element type of a scalar value; IRError for anything else."""
    if not isinstance(value.type, ScalarType):
        raise IRError(f"a scalar is needed, not {value.type}")
    return value.type.dtype


class SameType(ScalarOp):
    """Operands of one type, result of that type."""

    def infer(self) -> Sequence[Type]:
        return [self.operands[0].type]

    def verify(self) -> None:
        types = [v.type for v in (*self.operands, *self.results)]
        if any(t != types[0] for t in types):
            raise IRError(f"{self.name}: operands and result must have one type, not {', '.join(map(str, types))}")


def wrap(result: Any, dtype: DType) -> Array:
    """An integer result reduced to its type; floats pass."""
    return np.asarray(result) if dtype.is_float else np.asarray(result).astype(dtype.numpy)
