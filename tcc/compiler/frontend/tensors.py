# SPDX-License-Identifier: Apache-2.0
"""Tensor data of an ONNX model as numpy arrays. External data is read only from inside the model's own folder."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tcc.errors import InputError
from tcc.ir.types import STRING, DType, dtype_of

Array = np.ndarray[Any, Any]

_maps: weakref.WeakValueDictionary[tuple[int, int, int, int], mmap.mmap] = weakref.WeakValueDictionary()
_maps_lock = threading.Lock()


def element_type(code: int, what: str) -> DType:
    """tcc's element type of a TensorProto.DataType; InputError for none (complex numbers, or an unknown number)."""
    if code == TensorProto.STRING:
        return STRING
    try:
        return dtype_of(helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError, TypeError):
        names = {v: k for k, v in TensorProto.DataType.items()}
        raise InputError(f"{what} has the element type {names.get(code, code)}, which tcc does not have") from None


def to_array(tensor: TensorProto, folder: Path | None, what: str = "") -> Array:
    """A tensor's content; InputError, naming the tensor, if it is damaged or its file is not to be trusted."""
    what = what or f'the tensor "{tensor.name}"'
    dtype = element_type(tensor.data_type, what)
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise InputError(f"{what} has the shape {list(shape)} with a negative extent; the model is damaged")
    if tensor.data_location == TensorProto.EXTERNAL:
        return _decode(_external(tensor, folder, what), dtype, shape, what)
    if tensor.HasField("raw_data"):
        return _decode(tensor.raw_data, dtype, shape, what)
    if dtype == STRING:
        texts = [raw.decode("utf-8", "surrogateescape") for raw in tensor.string_data]
        if len(texts) != prod(shape):
            raise InputError(f"{what} has {len(texts)} strings for the shape {list(shape)}; the model is damaged")
        out = np.empty(len(texts), object)
        out[:] = texts
        return out.reshape(shape)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as e:
        raise InputError(f"{what} cannot be read ({e}); the model is damaged") from None
    if array.shape != shape:
        raise InputError(f"{what} has {array.size} values for the shape {list(shape)}; the model is damaged")
    return array.astype(dtype.numpy, copy=False)


def _decode(raw: Any, dtype: DType, shape: tuple[int, ...], what: str) -> Array:
    count = prod(shape)
    if dtype == STRING:
        raise InputError(f"{what} holds strings as raw bytes, which ONNX does not allow")
    if dtype.bits < 8:
        per = 8 // dtype.bits
        need = -(-count // per)
        _check_size(len(raw), need, what, shape)
        packed = np.frombuffer(raw, np.uint8, need)
        mask = (1 << dtype.bits) - 1
        codes = np.stack([(packed >> (i * dtype.bits)) & mask for i in range(per)], -1).reshape(-1)[:count]
        return _from_codes(codes, dtype).reshape(shape)
    _check_size(len(raw), count * dtype.bytes, what, shape)
    little = dtype.numpy.newbyteorder("<") if dtype.numpy.isbuiltin == 1 else dtype.numpy
    array = np.frombuffer(raw, little, count).reshape(shape)
    return array if array.dtype == dtype.numpy else array.astype(dtype.numpy)


def _from_codes(codes: Array, dtype: DType) -> Array:
    if dtype.kind == "int":
        half = 1 << (dtype.bits - 1)
        return ((codes.astype(np.int8) ^ half) - half).astype(dtype.numpy)
    if dtype.kind == "uint":
        return codes.astype(dtype.numpy)
    return codes.view(dtype.numpy)


def _check_size(have: int, need: int, what: str, shape: tuple[int, ...]) -> None:
    if have < need:
        raise InputError(f"{what} has {have} bytes where the shape {list(shape)} needs {need}; the model is damaged")


def _external(tensor: TensorProto, folder: Path | None, what: str) -> memoryview:
    info = {e.key: e.value for e in tensor.external_data}
    location = info.get("location", "")
    if folder is None:
        raise InputError(f'{what} is in the file "{location}"; give tcc the path of the model, not its bytes')
    parts = _parts(location, what)
    try:
        offset, length = int(info.get("offset", "0") or 0), int(info.get("length", "-1") or -1)
    except ValueError:
        raise InputError(f"{what} has an offset or length that is no number; the model is damaged") from None
    descriptor = -1
    try:
        descriptor = _open_inside(folder, parts, location, what)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f'{what} is in "{location}", which is no regular file')
        if status.st_nlink != 1:
            raise InputError(
                f'{what} is in "{location}", which has several names (hard links); copy it into the folder'
            )
        length = status.st_size - offset if length < 0 else length
        if offset < 0 or offset + length > status.st_size:
            raise InputError(
                f'{what} needs bytes {offset} to {offset + length} of "{location}", which has {status.st_size}'
            )
        return memoryview(_mapped(descriptor, status))[offset : offset + length] if length else memoryview(b"")
    except OSError as e:
        raise InputError(
            f'{what} is in the file "{location}" beside the model, which cannot be read: {e.strerror}'
        ) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _parts(location: str, what: str) -> list[str]:
    """The names that lead from the model's folder to a file; InputError if they leave it."""
    parts = location.replace("\\", "/").split("/")
    if not location or location.startswith(("/", "\\")) or ":" in parts[0] or ".." in parts or "\0" in location:
        raise InputError(f'{what} is in "{location}", which is not inside the model\'s folder; move it there')
    return [p for p in parts if p not in ("", ".")]


def _open_inside(folder: Path, parts: Sequence[str], location: str, what: str) -> int:
    """A descriptor of a file below a folder, opened name by name from the folder's own descriptor and through no link,
    so that nothing that is renamed or linked meanwhile leads elsewhere."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for i, name in enumerate(parts):
            last = i == len(parts) - 1
            kind = os.O_NONBLOCK if last else os.O_DIRECTORY
            try:
                following = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=held)
            except OSError as e:
                if e.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, held):
                    raise InputError(
                        f'{what} is in "{location}", which is a symbolic link; put the file itself there'
                    ) from None
                raise
            os.close(held)
            held = following
        return os.dup(held)
    finally:
        os.close(held)


def _is_link(name: str, folder: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _mapped(descriptor: int, status: os.stat_result) -> mmap.mmap:
    """A file in memory: one mapping for all the tensors in it, which lives as long as one of them does."""
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    with _maps_lock:
        found = _maps.get(key)
        if found is None:
            found = _maps[key] = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return found


_DENSE_BYTES = 1 << 34


def sparse_to_array(sparse: onnx.SparseTensorProto, folder: Path | None) -> Array:
    """A sparse tensor as a dense array. ONNX SparseTensorProto: indices are linear [n] or coordinates [n, rank]."""
    what = f'the sparse tensor "{sparse.values.name}"'
    values, indices = to_array(sparse.values, folder, what), to_array(sparse.indices, folder, what)
    shape = tuple(sparse.dims)
    if any(d < 0 for d in shape) or prod(shape) * values.dtype.itemsize > _DENSE_BYTES:
        raise InputError(f"{what} has the shape {list(shape)}, which is damaged, or too large to be made dense")
    dense = np.zeros(shape, values.dtype)
    if indices.dtype.kind not in "iu":
        raise InputError(f"{what} has indices of the type {indices.dtype}, and integers are needed")
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        try:
            indices = (
                np.ravel_multi_index(tuple(indices.T), shape) if indices.size else np.zeros(len(indices), np.int64)
            )
        except ValueError:
            raise InputError(f"{what} has indices outside its shape {list(shape)}; the model is damaged") from None
    if indices.shape != values.shape or (indices.size and (indices.min() < 0 or indices.max() >= dense.size)):
        raise InputError(f"{what} has indices that do not fit its values or shape; the model is damaged")
    dense.reshape(-1)[indices] = values
    return dense
