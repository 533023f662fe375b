# SPDX-License-Identifier: Apache-2.0
"""Values of emitted code: an element type with an LLVM value of one or of V lanes, and the LLVM types behind it.

A value of one lane is an LLVM scalar and stands for the same number in every lane, so whatever does not vary along the
lanes is computed once. Floats narrower than f32 are held as f32 and rounded by casts and stores; integers of fewer than
8 bits are held sign- or zero-extended in 8; booleans are held as i1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

from tcc.ir.types import DType

Int: TypeAlias = "int | Any"
"""A Python int (known while emitting) or an LLVM integer value."""

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
HALF = ir.HalfType()
PTR = ir.PointerType()
VOID = ir.VoidType()


def vector(element: Any, lanes: int) -> Any:
    """`<lanes x element>`, or the element itself for one lane."""
    return element if lanes == 1 else ir.VectorType(element, lanes)


def lanes_of(type: Any) -> int:
    """Lanes of an LLVM type; 1 for a scalar."""
    return type.count if isinstance(type, ir.VectorType) else 1


def element_of(type: Any) -> Any:
    """The element type of an LLVM vector type; a scalar type itself."""
    return type.element if isinstance(type, ir.VectorType) else type


def compute_type(dtype: DType) -> Any:
    """The LLVM type that one element is computed in."""
    if dtype.kind == "bool":
        return I1
    if dtype.is_float:
        return F64 if dtype.bits == 64 else F32
    if dtype.is_int:
        return ir.IntType(max(8, dtype.bits))
    raise TypeError(f"{dtype} has no values in kernels")


def storage_type(dtype: DType) -> Any:
    """The LLVM type of one element in memory."""
    if dtype.name in ("f64", "f32"):
        return F64 if dtype.bits == 64 else F32
    return ir.IntType(8 * dtype.bytes)


class Literal(ir.Constant):
    """A constant with its text."""

    def __init__(self, type: Any, text: str) -> None:
        self.type = type
        self.constant = None
        self.text = text

    def _to_string(self) -> str:
        return f"{self.type} {self.text}"

    def _get_reference(self) -> str:
        return self.text


def constant(type: Any, value: float | int | bool) -> Any:
    """A literal of a scalar or vector type, the same in every lane."""
    element = element_of(type)
    if isinstance(element, ir.IntType):
        bits = element.width
        wrapped = int(value) & ((1 << bits) - 1)
        if bits > 1 and wrapped >> (bits - 1):
            wrapped -= 1 << bits
        text = str(bool(value)).lower() if bits == 1 else str(wrapped)
    else:
        text = float_text(float(value), element)
    if element is type:
        return Literal(type, text)
    return Literal(type, f"splat ({element} {text})")


def float_text(value: float, element: Any) -> str:
    """LLVM's hexadecimal text of a float literal (an f32 is written as the double it equals)."""
    if element == F32:
        value = round_f32(value)
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return f"0x{bits:016X}"


def round_f32(value: float) -> float:
    """value rounded to f32; beyond its range an infinity."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def vector_constant(type: Any, values: list[int]) -> Any:
    """A vector of integer literals."""
    element = element_of(type)
    return Literal(type, "<" + ", ".join(f"{element} {v}" for v in values) + ">")


@dataclass(frozen=True)
class Val:
    """One scalar of a region: its element type and LLVM value. `exact`: already rounded to `dtype`, though held wider.
    `literal`: its number where it is known while emitting."""

    dtype: DType
    ir: Any
    exact: bool = False
    literal: float | int | bool | None = None

    @property
    def lanes(self) -> int:
        return lanes_of(self.ir.type)
