# SPDX-License-Identifier: Apache-2.0
"""From an ONNX operator's name to the name of its function here."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# Python's reserved words get an underscore; the rest are words a boundary rule would cut wrongly.
_IRREGULAR = {
    "And": "and_",
    "Not": "not_",
    "Or": "or_",
    "Col2Im": "col2im",
    "IsNaN": "is_nan",
    "MatMul": "matmul",
    "MatMulInteger": "matmul_integer",
    "PRelu": "prelu",
    "QLinearConv": "qlinear_conv",
    "QLinearMatMul": "qlinear_matmul",
}


def function_name(op_type: str) -> str:
    """The function of an operator: "MaxPool" -> "max_pool", "GatherND" -> "gather_nd", "And" -> "and_"."""
    return _IRREGULAR.get(op_type) or _BOUNDARY.sub("_", op_type).lower()
