# SPDX-License-Identifier: Apache-2.0
"""Which ops bear 16 bits."""

from __future__ import annotations

import numpy as np

from tcc.ir.core import Op
from tcc.ir.graph import BitCast, Constant, Host, QuantizedLstm, Reduce
from tcc.ir.graph.base import Array, GraphOp, tensor_type
from tcc.ir.types import BF16, DType, TensorType

ALWAYS = ("graph.matmul", "graph.conv", "graph.conv_transpose", "graph.attention")
"""Ops that are done in 16 bits whatever their operands: they are what 16 bits are for."""

WIDE = frozenset(
    f"graph.{n}" for n in (
        "exp", "log", "pow", "sqrt", "reciprocal", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh",
        "acosh", "atanh", "cumsum", "cumprod", "topk", "scatter_nd", "scatter_elements", "max_pool_indices",
    )
)  # fmt: skip
"""Ops whose results overflow or lose digits easily: f32."""


def largest(dtype: DType) -> float:
    """The largest finite number of a 16-bit type."""
    return 3.3895313892515355e38 if dtype is BF16 else 65504.0


def smallest(dtype: DType) -> float:
    """The smallest normal number of a 16-bit type."""
    return 2.0**-126 if dtype is BF16 else 2.0**-14


def is_mask_number(x: float) -> bool:
    """Whether a number is meant as minus infinity."""
    return x <= -1e4


def narrowed(array: Array, dtype: DType) -> Array | None:
    """A constant in a 16-bit type; None if it does not bear that.

    Numbers that stand for minus infinity become the least finite one (those that are infinite stay). Others must be in
    range, and one that is not 0 must stay so, unless the rest of the tensor is large beside it.
    """
    if array.size:
        low, high = float(array.min()), float(array.max())
        if -largest(dtype) <= low <= high <= largest(dtype) and max(-low, high) >= smallest(dtype):
            return array.astype(dtype.numpy)
    wide = np.asarray(array, np.float64)
    finite = wide[np.isfinite(wide)]
    if finite.size == 0:
        return array.astype(dtype.numpy)
    top = largest(dtype)
    if float(finite.max()) > top:
        return None
    low = finite[finite < -top]
    if low.size and not all(is_mask_number(float(v)) for v in np.unique(low)[:8]):
        return None
    biggest = float(np.abs(finite).max())
    if 0 < biggest < smallest(dtype):
        return None
    clamped = np.where(np.isfinite(wide), np.maximum(wide, -top), wide) if low.size else array
    with np.errstate(over="ignore"):
        return np.asarray(clamped).astype(dtype.numpy)


def wide_reason(op: GraphOp) -> str | None:
    """Why an op stays in f32 whatever it reads, or None."""
    if op.name in WIDE:
        return f"{op.name} overflows or loses digits in 16 bits"
    if isinstance(op, Host):
        return "it is done on the host"
    if isinstance(op, BitCast):
        return "its bits are those of 32"
    if isinstance(op, QuantizedLstm):
        return "its state is quantized in f32"
    if isinstance(op, Reduce) and op.kind in ("sum", "prod"):
        return f"a {op.kind} overflows or loses digits in 16 bits"
    if op.name == "graph.mul" and op.operands[0] is op.operands[1]:
        return "a square overflows in 16 bits"
    if op.regions:
        return "its values pass between regions"
    return None


def returned_only(op: Op) -> bool:
    """Whether an op's result is an output of the function and nothing else."""
    return bool(op.results) and all(u.name == "graph.return" for r in op.results for u in r.users)


def float_operands(op: Op, dtype: DType) -> list[int]:
    """The places of operands of that element type that are no constants."""
    return [
        i for i, v in enumerate(op.operands)
        if isinstance(v.type, TensorType) and tensor_type(v).dtype is dtype and not isinstance(v.defining_op, Constant)
    ]  # fmt: skip
