# SPDX-License-Identifier: Apache-2.0
"""The combiners of reductions as C++: identity and one step."""

from __future__ import annotations

import numpy as np

from tcc.codegen.cuda.emit.dtypes import codec, literal
from tcc.ir.types import DType


def identity(combiner: str, dtype: DType) -> str:
    """What the combination of nothing is."""
    if combiner in ("sum", "prod"):
        return literal(combiner == "prod", dtype)
    if dtype.is_float:
        return literal(float("-inf") if combiner == "max" else float("inf"), dtype)
    info = np.iinfo(dtype.numpy)
    return literal(int(info.min if combiner == "max" else info.max), dtype)


def step(combiner: str, a: str, b: str, dtype: DType) -> str:
    """a combined with b."""
    if combiner in ("max", "min"):
        return f"tcc::arith_{combiner}({a}, {b})"
    if dtype.is_float:
        return f"{a} {'+' if combiner == 'sum' else '*'} {b}"
    return f"tcc::{'iadd' if combiner == 'sum' else 'imul'}<{codec(dtype)}>({a}, {b})"
