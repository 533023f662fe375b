# SPDX-License-Identifier: Apache-2.0
"""Values that live on the host, as the engine file describes them: their types, and constants of strings."""

from __future__ import annotations

from typing import Any

from tcc.ir.expr import to_json
from tcc.ir.resources import Array
from tcc.ir.types import ANY_EXTENT, STRING, DType, MapType, OptionalType, ScalarType, SequenceType, TensorType, Type

Json = dict[str, Any]


def dtype_json(dtype: DType) -> str:
    """The engine file's name of an element type."""
    return "str" if dtype is STRING else dtype.name


def type_json(t: Type) -> Json:
    """A type as spec/engine.md, section 2, has it; an extent or a rank that may be any is null."""
    if isinstance(t, SequenceType):
        return {"sequence": type_json(t.element), **({} if t.length is None else {"length": t.length})}
    if isinstance(t, OptionalType):
        return {"optional": type_json(t.element), **({} if t.length is None else {"length": t.length})}
    if isinstance(t, MapType):
        return {"map": {"key": dtype_json(t.key.dtype), "value": dtype_json(t.value.dtype)}}
    if isinstance(t, ScalarType):
        return {"dtype": dtype_json(t.dtype), "shape": None}
    assert isinstance(t, TensorType)
    return {"dtype": dtype_json(t.dtype), "shape": [None if d == ANY_EXTENT else to_json(d) for d in t.shape]}


def strings_json(array: Array) -> list[Any]:
    """The elements in row-major order: a string, or {"bytes": hex} of one whose bytes are no UTF-8."""
    return [
        _string(v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v)) for v in array.reshape(-1)
    ]


def _string(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"bytes": text.encode("utf-8", "surrogateescape").hex()}
    return text
