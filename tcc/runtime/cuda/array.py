# SPDX-License-Identifier: Apache-2.0
"""Device tensors in and out: torch tensors, DLPack and `__cuda_array_interface__` as `Value`s, and `DeviceArray`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.errors import InputError
from tcc.runtime.cuda import dlpack
from tcc.runtime.cuda.device import LEGACY_STREAM, Gpu
from tcc.runtime.cuda.driver import api, check
from tcc.runtime.dtypes import dtype_name, numpy_dtype
from tcc.runtime.executor import Value

_TORCH = {
    "torch.float64": "f64",
    "torch.float32": "f32",
    "torch.float16": "f16",
    "torch.bfloat16": "bf16",
    "torch.float8_e4m3fn": "f8e4m3fn",
    "torch.float8_e5m2": "f8e5m2",
    "torch.int64": "i64",
    "torch.int32": "i32",
    "torch.int16": "i16",
    "torch.int8": "i8",
    "torch.uint64": "u64",
    "torch.uint32": "u32",
    "torch.uint16": "u16",
    "torch.uint8": "u8",
    "torch.bool": "bool",
    "torch.complex64": "c64",
    "torch.complex128": "c128",
}

# Streams that `__cuda_array_interface__` and DLPack name by small numbers: the legacy and the per-thread default.
_LEGACY_NUMBER = 1


class DeviceArray:
    """A dense tensor in GPU memory, an engine's output.

    It speaks DLPack and `__cuda_array_interface__` (torch.from_dlpack, cupy.asarray); `numpy()` copies it to the host.
    Its values are ready for work on `stream`, and for any consumer that asks through one of the protocols. The memory
    is freed in the order of that stream when the last holder lets go.
    """

    def __init__(self, gpu: Gpu, dtype: str, shape: Sequence[int], stream: int) -> None:
        self.gpu = gpu
        self.dtype_name = dtype
        self.dtype = numpy_dtype(dtype)
        self.shape = tuple(shape)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self.stream = stream
        self.pointer = gpu.allocate_ordered(self.nbytes, stream, "an output")

    def __del__(self) -> None:
        # At exit the driver frees everything at once, and may already be gone.
        if hasattr(self, "pointer") and not sys.is_finalizing():
            with self.gpu.active():
                self.gpu.release_ordered(self.pointer, self.stream)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer if self.size else 0, False),
            "strides": None,
            "stream": self.stream or _LEGACY_NUMBER,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.gpu.device.ordinal

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None, **_: Any) -> Any:
        if stream != -1:
            consumer = LEGACY_STREAM if stream in (None, _LEGACY_NUMBER) else stream
            with self.gpu.active():
                self.gpu.join(consumer, self.stream)
        return dlpack.export(self.pointer, self.dtype_name, self.shape, (dlpack.CUDA, self.gpu.device.ordinal), self)

    def numpy(self) -> np.ndarray:
        """A copy on the host, made after the work that fills the array."""
        host = np.empty(self.shape, self.dtype)
        if self.nbytes:
            with self.gpu.active():
                check(
                    api().cuMemcpyDtoHAsync(host.ctypes.data, self.pointer, self.nbytes, self.stream),
                    "copy to the host",
                )
                self.gpu.synchronize(self.stream)
        return host

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array in GPU memory cannot become a numpy array without a copy")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dims")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype_name}, {list(self.shape)}, {self.gpu.name})"

    def value(self) -> Value:
        """The array as the executor's Value."""
        return Value(self.pointer, self.dtype_name, self.shape, self.nbytes, self, self.gpu.name)


def accept(value: object, name: str, gpu: Gpu, writable: bool = False) -> Value:
    """A caller's tensor as a dense Value on the host or on `gpu`, ready for work on ``gpu.stream()``.

    A strided one is copied, or an InputError where it is to be written; so is what is no tensor or is on another GPU.
    """
    if isinstance(value, DeviceArray):
        _same_gpu(value.gpu.name, name, gpu)
        gpu.join(gpu.stream(), value.stream)
        return value.value()
    if isinstance(value, np.ndarray):
        return _host(value, name, writable)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _torch(value, name, gpu, writable)
    if hasattr(value, "__cuda_array_interface__"):
        return _interface(value, name, gpu, writable)
    if hasattr(value, "__dlpack__"):
        return _dlpack(value, name, gpu, writable)
    if writable:
        raise InputError(f"the memory given for '{name}' is a {type(value).__name__}: give a numpy or a device array.")
    return _host(np.asarray(value), name, writable)


def _host(array: np.ndarray, name: str, writable: bool) -> Value:
    if array.dtype.hasobject or (array.dtype.kind in "USV" and dtype_name(array.dtype) == str(array.dtype)):
        raise InputError(f"'{name}' is not a tensor of numbers: its type is {array.dtype}.")
    if not array.dtype.isnative:
        if writable:
            raise InputError(f"the array given for '{name}' is byte-swapped ({array.dtype.str}): give a native one.")
        array = array.astype(array.dtype.newbyteorder("="))
    if writable and not (array.flags.c_contiguous and array.flags.writeable):
        raise InputError(f"the array given for '{name}' cannot be written in place: give a contiguous, writable one.")
    array = np.ascontiguousarray(array) if array.ndim else array
    return Value(array.ctypes.data, dtype_name(array.dtype), array.shape, array.nbytes, array)


def _torch(tensor: Any, name: str, gpu: Gpu, writable: bool) -> Value:
    tensor = tensor.detach()
    dtype = _TORCH.get(str(tensor.dtype))
    if dtype is None:
        raise InputError(f"'{name}' is a tensor of {tensor.dtype}, a type that engines do not have.")
    if not tensor.is_contiguous():
        if writable:
            raise InputError(
                f"the tensor given for '{name}' is strided and cannot be written in place: give a contiguous one."
            )
        tensor = tensor.contiguous()
    device = "cpu"
    if tensor.is_cuda:
        device = f"cuda:{tensor.device.index}"
        _same_gpu(device, name, gpu)
        if not gpu.primary:
            # torch works in the primary context, and this engine in another one: torch's stream means nothing there.
            sys.modules["torch"].cuda.current_stream(tensor.device.index).synchronize()
    elif tensor.device.type != "cpu":
        raise InputError(f"'{name}' is on {tensor.device} and the engine runs on {gpu.name}: move it there.")
    return Value(tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.nbytes, tensor, device)


def _interface(value: Any, name: str, gpu: Gpu, writable: bool) -> Value:
    facts = value.__cuda_array_interface__
    pointer, read_only = facts["data"]
    dtype = np.dtype(getattr(value, "dtype", None) if facts["typestr"][1] == "V" else facts["typestr"])
    shape = tuple(facts["shape"])
    if writable and read_only:
        raise InputError(f"the array given for '{name}' is read-only.")
    # Without a stream the producer may have used the legacy default stream.
    producer = facts.get("stream", LEGACY_STREAM)
    if producer is not None:
        gpu.join(gpu.stream(), LEGACY_STREAM if producer == _LEGACY_NUMBER else producer)
    return _dense(pointer or 0, dtype_name(dtype), shape, facts.get("strides"), value, name, gpu, writable)


def _dlpack(value: Any, name: str, gpu: Gpu, writable: bool) -> Value:
    kind, ordinal = value.__dlpack_device__()
    if kind not in (dlpack.CPU, dlpack.CUDA, dlpack.CUDA_HOST):
        raise InputError(f"'{name}' is on DLPack device {int(kind)} and the engine runs on {gpu.name}: move it there.")
    if kind != dlpack.CUDA:
        tensor = dlpack.view(value.__dlpack__())
        if tensor.strides is not None:
            return _host(np.from_dlpack(value), name, writable)
        return Value(tensor.pointer, tensor.dtype, tensor.shape, tensor.nbytes, tensor)
    _same_gpu(f"cuda:{ordinal}", name, gpu)
    tensor = dlpack.view(value.__dlpack__(stream=gpu.stream() or _LEGACY_NUMBER))
    itemsize = numpy_dtype(tensor.dtype).itemsize
    strides = None if tensor.strides is None else tuple(stride * itemsize for stride in tensor.strides)
    return _dense(tensor.pointer, tensor.dtype, tensor.shape, strides, tensor, name, gpu, writable)


def _dense(
    pointer: int,
    dtype: str,
    shape: tuple[int, ...],
    strides: Sequence[int] | None,
    owner: object,
    name: str,
    gpu: Gpu,
    writable: bool,
) -> Value:
    itemsize = numpy_dtype(dtype).itemsize
    nbytes = math.prod(shape) * itemsize
    if strides is None or nbytes == 0 or _is_dense(shape, strides, itemsize):
        return Value(pointer, dtype, shape, nbytes, owner, gpu.name)
    if writable:
        raise InputError(
            f"the array given for '{name}' is strided and cannot be written in place: give a contiguous one."
        )
    copy = DeviceArray(gpu, dtype, shape, gpu.stream())
    copy_strided(copy.pointer, pointer, shape, strides, itemsize, copy.stream)
    return copy.value()


def _is_dense(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    expected = itemsize
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


def copy_strided(
    destination: int, source: int, shape: Sequence[int], strides: Sequence[int], itemsize: int, stream: int
) -> None:
    """Copies a strided tensor (strides in bytes) to dense memory, by pitched copies of the two inner levels.

    Slow where the innermost dim is strided: callers in a hurry pass dense tensors.
    """
    dims = [(extent, stride) for extent, stride in zip(shape, strides, strict=True) if extent != 1]
    row = itemsize
    while dims and dims[-1][1] == row:
        row *= dims.pop()[0]
    extent, pitch = dims.pop() if dims else (1, row)
    cu = api()
    size = extent * row
    for index in np.ndindex(*(e for e, _ in dims)):
        origin = source + sum(i * s for i, (_, s) in zip(index, dims, strict=True))
        if pitch >= row:
            copy = cu.CUDA_MEMCPY2D()
            copy.srcMemoryType = copy.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
            copy.srcDevice, copy.srcPitch = origin, pitch
            copy.dstDevice, copy.dstPitch = destination, row
            copy.WidthInBytes, copy.Height = row, extent
            check(cu.cuMemcpy2DAsync(copy, stream), "copy a strided tensor")
        else:  # a broadcast or reversed dim
            for i in range(extent):
                check(
                    cu.cuMemcpyDtoDAsync(destination + i * row, origin + i * pitch, row, stream),
                    "copy a strided tensor",
                )
        destination += size


def _same_gpu(device: str, name: str, gpu: Gpu) -> None:
    if device != gpu.name:
        raise InputError(f"'{name}' is on {device} and the engine runs on {gpu.name}: move it there.")
