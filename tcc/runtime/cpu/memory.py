# SPDX-License-Identifier: Apache-2.0
"""Host memory: aligned blocks, and callers' objects as values."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tcc.errors import FailureError, InputError
from tcc.runtime.dtypes import dtype_name
from tcc.runtime.executor import Value

ALIGNMENT = 64
_PAGE = 4096


def aligned_empty(nbytes: int, alignment: int = ALIGNMENT) -> np.ndarray:
    """An uninitialised u8 array at a multiple of `alignment` bytes; raises FailureError where there is no memory for
    it.
    """
    alignment = _PAGE if nbytes >= 16 * _PAGE else alignment
    try:
        block = np.empty(nbytes + alignment, np.uint8)
    except MemoryError:
        raise FailureError(f"out of memory: {nbytes} bytes were asked for") from None
    start = -block.ctypes.data % alignment
    return block[start : start + nbytes]


def host_value(array: np.ndarray) -> Value:
    """A C-contiguous, aligned array as a Value."""
    pointer = array.__array_interface__["data"][0]
    return Value(pointer, dtype_name(array.dtype), array.shape, array.nbytes, array)


def as_array(value: object, name: str) -> np.ndarray:
    """A caller's object as a numpy array, without a copy where it is on the host; raises InputError, naming the
    tensor `name`.
    """
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    kind = type(value).__name__
    if hasattr(value, "__cuda_array_interface__") and not _is_host_torch(value):
        raise InputError(
            f"the value of '{name}' ({kind}) is on a GPU and the engine runs on the CPU: copy it to the host first"
        )
    if hasattr(value, "__dlpack_device__"):
        device: Any = value.__dlpack_device__()  # type: ignore[attr-defined]
        if int(device[0]) != 1:
            raise InputError(f"the value of '{name}' ({kind}) is not in host memory: copy it to the host first")
        try:
            return np.from_dlpack(value)  # type: ignore[arg-type]
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"the value of '{name}' ({kind}) cannot be read as an array: {error}") from None
    if hasattr(value, "__array__"):
        return np.asarray(value)
    raise InputError(f"the value of '{name}' is a {kind}; give a numpy array or an object that supports DLPack")


def accept(value: object, name: str) -> Value:
    """An input as a dense Value, copied where it is strided or misaligned."""
    array = value if type(value) is np.ndarray else as_array(value, name)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = np.array(array, order="C", copy=True)
    return host_value(array)


def accept_output(value: object, name: str) -> Value:
    """Memory for an output; raises InputError where it cannot be written in place."""
    array = value if type(value) is np.ndarray else as_array(value, name)
    if not array.flags.writeable:
        raise InputError(f"the array given for the output '{name}' is read-only")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise InputError(
            f"the array given for the output '{name}' is not contiguous: give one that is, and copy from it"
        )
    return host_value(array)


def _is_host_torch(value: Any) -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.device.type == "cpu"
