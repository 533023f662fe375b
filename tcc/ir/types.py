# SPDX-License-Identifier: Apache-2.0
"""Element types and value types. A tensor's layout is the order of its dims; precision is in its element type."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from tcc.ir.expr import Dim, Sym, product, symbols, to_text


@dataclass(frozen=True, slots=True)
class DType:
    """An element type. `kind` is one of float, int, uint, bool, string; `bits` counts the packed width."""

    name: str
    kind: str
    bits: int
    numpy: Any = field(compare=False, repr=False)
    mlir: str = field(compare=False, repr=False)

    @property
    def bytes(self) -> int:
        """Bytes of one element in memory (4-bit types take one byte each in tcc's buffers)."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        return self.kind in ("int", "uint")

    def __str__(self) -> str:
        return self.mlir


def _d(name: str, kind: str, bits: int, np_type: Any, mlir: str | None = None) -> DType:
    return DType(name, kind, bits, np.dtype(np_type), mlir or name)


F64 = _d("f64", "float", 64, np.float64)
F32 = _d("f32", "float", 32, np.float32)
F16 = _d("f16", "float", 16, np.float16)
BF16 = _d("bf16", "float", 16, ml_dtypes.bfloat16)
F8E4M3FN = _d("f8e4m3fn", "float", 8, ml_dtypes.float8_e4m3fn, "f8E4M3FN")
F8E4M3FNUZ = _d("f8e4m3fnuz", "float", 8, ml_dtypes.float8_e4m3fnuz, "f8E4M3FNUZ")
F8E5M2 = _d("f8e5m2", "float", 8, ml_dtypes.float8_e5m2, "f8E5M2")
F8E5M2FNUZ = _d("f8e5m2fnuz", "float", 8, ml_dtypes.float8_e5m2fnuz, "f8E5M2FNUZ")
F8E8M0 = _d("f8e8m0", "float", 8, ml_dtypes.float8_e8m0fnu, "f8E8M0FNU")
F4E2M1 = _d("f4e2m1", "float", 4, ml_dtypes.float4_e2m1fn, "f4E2M1FN")
I64 = _d("i64", "int", 64, np.int64)
I32 = _d("i32", "int", 32, np.int32)
I16 = _d("i16", "int", 16, np.int16)
I8 = _d("i8", "int", 8, np.int8)
I4 = _d("i4", "int", 4, ml_dtypes.int4)
I2 = _d("i2", "int", 2, ml_dtypes.int2)
U64 = _d("u64", "uint", 64, np.uint64, "ui64")
U32 = _d("u32", "uint", 32, np.uint32, "ui32")
U16 = _d("u16", "uint", 16, np.uint16, "ui16")
U8 = _d("u8", "uint", 8, np.uint8, "ui8")
U4 = _d("u4", "uint", 4, ml_dtypes.uint4, "ui4")
U2 = _d("u2", "uint", 2, ml_dtypes.uint2, "ui2")
BOOL = _d("bool", "bool", 8, np.bool_, "i1")
STRING = DType("string", "string", 64, np.dtype(object), "!tcc.string")

DTYPES: tuple[DType, ...] = (
    F64, F32, F16, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F4E2M1,
    I64, I32, I16, I8, I4, I2, U64, U32, U16, U8, U4, U2, BOOL, STRING,
)  # fmt: skip
_BY_NAME = {d.name: d for d in DTYPES} | {d.mlir: d for d in DTYPES}


def dtype(name: str) -> DType:
    """The element type of that name, tcc's or MLIR's; KeyError if there is none."""
    return _BY_NAME[name]


@cache
def _by_numpy() -> dict[Any, DType]:
    return {d.numpy: d for d in DTYPES if d is not STRING}


def dtype_of(array_or_dtype: Any) -> DType:
    """The element type of a numpy array or dtype; KeyError if tcc has none."""
    np_type = np.dtype(getattr(array_or_dtype, "dtype", array_or_dtype))
    if np_type.kind in "OUST":
        return STRING
    return _by_numpy()[np_type]


@dataclass(frozen=True, slots=True)
class Type:
    """Base of value types."""


@dataclass(frozen=True, slots=True)
class TensorType(Type):
    """A tensor in memory: `shape` of dims, element type, and where it is a view of a larger buffer, `strides`
    in elements (None: dense row-major) and `align`, the bytes its first element is known to be aligned to."""

    shape: tuple[Dim, ...]
    dtype: DType
    strides: tuple[Dim, ...] | None = None
    align: int = 64

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints; a shape with symbols is a ValueError."""
        out: list[int] = []
        for d in self.shape:
            if not isinstance(d, int):
                raise ValueError(f"{self} has the free dim {d}; bind it with --shape")
            out.append(d)
        return tuple(out)

    @property
    def nbytes(self) -> Dim:
        return product((*self.shape, self.dtype.bytes))

    def dense_strides(self) -> tuple[Dim, ...]:
        """Row-major strides in elements, whatever `strides` says."""
        out: list[Dim] = []
        step: Dim = 1
        for d in reversed(self.shape):
            out.append(step)
            step = product((step, d))
        return tuple(reversed(out))

    @property
    def element_strides(self) -> tuple[Dim, ...]:
        """Strides in elements: `strides`, or the dense ones."""
        return self.dense_strides() if self.strides is None else self.strides

    def with_(self, **changes: Any) -> TensorType:
        """A copy with fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        dims = "".join(f"{d}x" if isinstance(d, int) else "?x" for d in self.shape)
        parts: list[str] = []
        free = [to_text(d) for d in self.shape if not isinstance(d, int)]
        if free:
            parts.append(f"dims=[{', '.join(free)}]")
        if self.strides is not None:
            parts.append(f"strides=[{', '.join(to_text(s) for s in self.strides)}]")
        if self.align != 64:
            parts.append(f"align={self.align}")
        encoding = f', #tcc.enc<"{" ".join(parts)}">' if parts else ""
        return f"tensor<{dims}{self.dtype}{encoding}>"


@dataclass(frozen=True, slots=True)
class ScalarType(Type):
    """One element: what regions of kernels compute with."""

    dtype: DType

    def __str__(self) -> str:
        return str(self.dtype)


@dataclass(frozen=True, slots=True)
class SequenceType(Type):
    """An ONNX sequence of tensors, or of sequences; only host ops touch it.

    `element` is the type of every item, whose dims that are symbols stand for any extent; a `ScalarType` where even
    the rank of its tensors differs or is not known. `length` is the number of items where it is known.
    """

    element: Type
    length: int | None = None

    def __str__(self) -> str:
        return f"!tcc.sequence<{self.element}{'' if self.length is None else f', {self.length}'}>"


@dataclass(frozen=True, slots=True)
class OptionalType(Type):
    """An ONNX optional: a value of type `element` or nothing; only host ops touch it. `length` 0: known to be empty."""

    element: Type
    length: int | None = None

    def __str__(self) -> str:
        return f"!tcc.optional<{self.element}{'' if self.length is None else f', {self.length}'}>"


@dataclass(frozen=True, slots=True)
class MapType(Type):
    """An ONNX map from integers or strings to numbers or strings; only host ops touch it."""

    key: ScalarType
    value: ScalarType

    def __str__(self) -> str:
        return f"!tcc.map<{self.key}, {self.value}>"


def on_host(t: Type) -> bool:
    """Whether values of a type live on the host, as Python objects: strings, sequences, optionals and maps."""
    return t.dtype is STRING if isinstance(t, TensorType | ScalarType) else True


ANY_EXTENT = Sym("any")
"""The extent, in the element type of a sequence, in which its items may differ."""


def as_element(t: Type) -> Type:
    """A type as that of a sequence's items: extents that are not numbers are any extent, lengths are not known."""
    if isinstance(t, TensorType):
        return TensorType(tuple(d if isinstance(d, int) else ANY_EXTENT for d in t.shape), t.dtype)
    if isinstance(t, SequenceType | OptionalType):
        return type(t)(as_element(t.element))
    return t


def joined_element(a: Type, b: Type) -> Type | None:
    """The type that takes values of both types as items of a sequence; None if there is none. An optional takes what it
    may hold."""
    a, b = as_element(a), as_element(b)
    if a == b:
        return a
    if isinstance(a, OptionalType) != isinstance(b, OptionalType):
        first, second = (t.element if isinstance(t, OptionalType) else t for t in (a, b))
        inner = joined_element(first, second)
        return None if inner is None else OptionalType(inner)
    if isinstance(a, SequenceType | OptionalType) and type(a) is type(b):
        inner = joined_element(a.element, b.element)  # type: ignore[attr-defined]
        return None if inner is None else type(a)(inner)
    if not isinstance(a, TensorType | ScalarType) or not isinstance(b, TensorType | ScalarType) or a.dtype != b.dtype:
        return None
    if isinstance(a, ScalarType) or isinstance(b, ScalarType) or a.rank != b.rank:
        return ScalarType(a.dtype)
    return TensorType(tuple(x if x == y else ANY_EXTENT for x, y in zip(a.shape, b.shape, strict=True)), a.dtype)


def free_symbols(t: Type) -> frozenset[str]:
    """Names of the symbols in a type's shape."""
    if not isinstance(t, TensorType):
        return frozenset()
    return frozenset(s for d in t.shape for s in symbols(d))
