# SPDX-License-Identifier: Apache-2.0
"""C++ names of element types, and literals.

Each type is a struct of `types.cuh`: `tcc::f16::mem` is what lies in memory (`__half`), `tcc::f16::reg` what code
computes with (`float`). Floats narrower than f32 are computed with in f32 and rounded when stored.
"""

from __future__ import annotations

import math

import numpy as np

from tcc.ir.types import BOOL, DTYPES, STRING, DType

_REGISTER = {
    "f64": "double",
    "i64": "long long",
    "i32": "int",
    "i16": "short",
    "i8": "signed char",
    "i4": "signed char",
    "i2": "signed char",
    "u64": "unsigned long long",
    "u32": "unsigned",
    "u16": "unsigned short",
    "u8": "unsigned char",
    "u4": "unsigned char",
    "u2": "unsigned char",
    "bool": "bool",
}
SUPPORTED = frozenset(d.name for d in DTYPES if d is not STRING)
SMALL = frozenset(("f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz", "f8e8m0", "f4e2m1"))
"""Floats of 8 bits and fewer, converted by `small_float.cuh`."""


def codec(dtype: DType) -> str:
    """The struct of an element type: `tcc::f16`."""
    return "tcc::boolean" if dtype == BOOL else f"tcc::{dtype.name}"


def register(dtype: DType) -> str:
    """The C++ type values of an element type are computed in."""
    return _REGISTER.get(dtype.name, "float")


def literal(value: float | int | bool, dtype: DType) -> str:
    """A constant of an element type as it is computed with."""
    if dtype == BOOL:
        return "true" if value else "false"
    if not dtype.is_float:
        v = int(value)
        if dtype.bits == 64:
            if dtype.kind == "uint":
                return f"{v}ull"
            return "(-9223372036854775807ll - 1)" if v == -(2**63) else f"{v}ll"
        return f"{v}u" if dtype.name == "u32" else "(-2147483647 - 1)" if v == -(2**31) else str(v)
    v = float(value)
    double = dtype.name == "f64"
    if math.isnan(v):
        return "tcc::nan64()" if double else "tcc::nan32()"
    if not double:
        with np.errstate(over="ignore"):
            v = float(np.float32(v))
    if math.isinf(v):
        text = "tcc::inf64()" if double else "tcc::inf32()"
        return text if v > 0 else f"(-{text})"
    text = repr(v) if double else f"{np.float32(v):.9g}"
    if not any(c in text for c in ".en"):
        text += ".0"
    text = text if double else text + "f"
    return f"({text})" if text.startswith("-") else text
