# SPDX-License-Identifier: Apache-2.0
"""DLPack capsules (the unversioned `dltensor`), read and written with ctypes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tcc.errors import InputError
from tcc.runtime.dtypes import numpy_dtype

CPU, CUDA, CUDA_HOST = 1, 2, 3
"""Device types of DLPack."""

_NAME = b"dltensor"
# (type code, bits) of DLPack 1.1 and the engine format's names.
_DTYPES = {
    (0, 8): "i8",
    (0, 16): "i16",
    (0, 32): "i32",
    (0, 64): "i64",
    (1, 8): "u8",
    (1, 16): "u16",
    (1, 32): "u32",
    (1, 64): "u64",
    (2, 16): "f16",
    (2, 32): "f32",
    (2, 64): "f64",
    (4, 16): "bf16",
    (5, 64): "c64",
    (5, 128): "c128",
    (6, 8): "bool",
    (10, 8): "f8e4m3fn",
    (12, 8): "f8e5m2",
}
_CODES = {name: code for code, name in _DTYPES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_python = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
# The same functions on a bare address: a destructor gets a capsule whose reference count is already zero.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))

_held: dict[int, tuple[Any, ...]] = {}


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(address: int) -> None:
    """The consumer is done: lets go of the owner."""
    _held.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _destroy(capsule: int) -> None:
    """A capsule goes: where nobody consumed it, so does the owner's hold."""
    if _is_valid(capsule, _NAME):
        _held.pop(_get_pointer(capsule, _NAME), None)


def export(pointer: int, dtype: str, shape: Sequence[int], device: tuple[int, int], owner: object) -> Any:
    """A capsule of a dense tensor; `owner` is kept until its consumer is done with it."""
    code, bits = _CODES[dtype]
    dims = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    managed = _Managed()
    managed.tensor = _Tensor(pointer, *device, len(shape), code, bits, 1, dims, None, 0)
    managed.deleter = ctypes.cast(_delete, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _held[address] = (managed, dims, owner)
    return _python.PyCapsule_New(address, _NAME, ctypes.cast(_destroy, ctypes.c_void_p))


@dataclass(frozen=True)
class Tensor:
    """A tensor seen through a capsule, which it keeps; `strides` in elements, None where it is dense."""

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    nbytes: int
    device: tuple[int, int]
    capsule: Any


def view(capsule: Any) -> Tensor:
    """What a capsule holds, without consuming it; InputError for element types that engines do not have."""
    managed = _Managed.from_address(_python.PyCapsule_GetPointer(capsule, _NAME))
    tensor = managed.tensor
    dtype = _DTYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if dtype is None:
        raise InputError(
            f"a DLPack tensor of type code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes has no engine type."
        )
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    if strides is not None and _dense(shape, strides):
        strides = None
    nbytes = math.prod(shape) * numpy_dtype(dtype).itemsize
    device = (tensor.device_type, tensor.device_id)
    return Tensor((tensor.data or 0) + tensor.byte_offset, dtype, shape, strides, nbytes, device, capsule)


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True
