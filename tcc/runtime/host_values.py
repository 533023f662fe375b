# SPDX-License-Identifier: Apache-2.0
"""Values that live on the host as Python objects: tensors of strings, sequences (lists), optionals (a value or None),
maps (dicts).

A *type* is the JSON of spec/engine.md, section 2: `{"dtype", "shape"}`, `{"sequence": type}`, `{"optional": type}` or
`{"map": {"key", "value"}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc.errors import InputError
from tcc.runtime.dtypes import dtype_name, numpy_dtype
from tcc.runtime.executor import Value, show_shape
from tcc.runtime.expr import show

Type = Mapping[str, Any]

DEVICE = "host"
"""The `device` of a Value whose `owner` is such an object; it has no address."""


def is_host(type: Type) -> bool:
    """Whether values of a type live on the host."""
    return any(kind in type for kind in ("sequence", "optional", "map")) or type["dtype"] == "str"


def show_type(type: Type) -> str:
    """A type for people: ``str[2]``, ``seq(f32[?,3])``, ``optional(i64[])``, ``map(i64,f32)``."""
    if "sequence" in type:
        return f"seq({show_type(type['sequence'])})"
    if "optional" in type:
        return f"optional({show_type(type['optional'])})"
    if "map" in type:
        return f"map({type['map']['key']},{type['map']['value']})"
    dims = type["shape"]
    return f"{type['dtype']}{'' if dims is None else '[' + ','.join('?' if d is None else show(d) for d in dims) + ']'}"


def accept(value: object, type: Type, name: str) -> Value:
    """A caller's object as a Value of a type; InputError, naming the input, for what is not of that type."""
    owner = _accepted(value, type, f"the input '{name}'")
    return Value(0, type.get("dtype", ""), form_of(owner), 0, owner, DEVICE)


def form_of(value: Any) -> Any:
    """What a compiler may bind: the shape of a tensor, a tuple of those of a sequence's items, None of nothing; and the
    size of a map."""
    if value is None:
        return None
    if isinstance(value, dict):
        return (len(value),)
    return tuple(form_of(v) for v in value) if isinstance(value, list) else value.shape


def copied(value: Any) -> Any:
    """An object that shares no memory with `value`."""
    if isinstance(value, list):
        return [copied(v) for v in value]
    if isinstance(value, dict):
        return dict(value)
    return None if value is None else np.array(value, copy=True)


def constant(entry: Mapping[str, Any]) -> np.ndarray:
    """The tensor of strings that a buffer of the engine holds."""
    out = np.empty(len(entry["strings"]), object)
    out[:] = [bytes.fromhex(v["bytes"]).decode("utf-8", "surrogateescape") if isinstance(v, dict) else v
              for v in entry["strings"]]  # fmt: skip
    return out.reshape(entry["shape"])


def strings(value: object, what: str) -> np.ndarray:
    """Texts (an array or nested lists of str, or of UTF-8 bytes) as an object array of str."""
    array = np.asarray(value, dtype=None if isinstance(value, np.ndarray | np.generic) else object)
    if array.dtype.kind not in "OUST":
        raise InputError(f"{what} is {dtype_name(array.dtype)} and the engine takes strings")
    out = np.empty(array.shape, object)
    flat = out.reshape(-1)
    for i, v in enumerate(array.reshape(-1)):
        if isinstance(v, bytes):
            v = v.decode("utf-8", "surrogateescape")
        if not isinstance(v, str):
            raise InputError(f"{what} holds a {type(v).__name__} and the engine takes strings")
        flat[i] = str(v)
    return out


def _accepted(value: Any, type: Type, what: str) -> Any:
    if "optional" in type:
        if value is None:
            return None
        if type.get("length") == 0:
            raise InputError(f"{what} has a value, and the engine was compiled for an empty one: compile one for this")
        return _accepted(value, type["optional"], what)
    if value is None:
        raise InputError(f"{what} is None and the engine takes {show_type(type)}")
    if "sequence" in type:
        if not isinstance(value, list | tuple):
            raise InputError(
                f"{what} is a {value.__class__.__name__} and the engine takes {show_type(type)}: give a list"
            )
        if type.get("length") not in (None, len(value)):
            raise InputError(
                f"{what} holds {len(value)} values and the engine was compiled for {type['length']}: "
                "compile one for this length"
            )
        return [_accepted(v, type["sequence"], f"item {i} of {what}") for i, v in enumerate(value)]
    if isinstance(value, dict) or (isinstance(value, list | tuple) and type["dtype"] != "str"):
        raise InputError(f"{what} is a {value.__class__.__name__} and the engine takes {show_type(type)}")
    if type["dtype"] == "str":
        array = strings(value, what)
    else:
        array = np.array(value, copy=True)  # the caller may write to its own later
        if array.dtype != numpy_dtype(type["dtype"]):
            raise InputError(f"{what} is {dtype_name(array.dtype)} and the engine takes {type['dtype']}")
    dims = type["shape"]
    fits = dims is None or (
        len(dims) == array.ndim
        and all(not isinstance(d, int) or d == n for d, n in zip(dims, array.shape, strict=True))
    )
    if not fits:
        wanted = show_shape(["?" if d is None else show(d) for d in dims or ()])
        raise InputError(f"{what} has the shape {show_shape(array.shape)} and the engine takes {wanted}")
    return array
