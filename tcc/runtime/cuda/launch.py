# SPDX-License-Identifier: Apache-2.0
"""One device op of a schedule with every pointer, extent and parameter known: `Launch`, `Fill`, `Copy`.

`resolve` makes them from the manifest's ops; a graph adds and updates its nodes from them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tcc.errors import FailureError
from tcc.runtime.cuda.device import Gpu
from tcc.runtime.cuda.driver import api, check, failure
from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.expr import evaluate

Op = Mapping[str, Any]

_TENSOR_MAP_BYTES = 128
_TENSOR_MAP_ALIGN = 64
_MAP_DTYPES = {
    "f64": "FLOAT64",
    "f32": "FLOAT32",
    "f16": "FLOAT16",
    "bf16": "BFLOAT16",
    "f8e4m3fn": "UINT8",
    "f8e5m2": "UINT8",
    "i64": "INT64",
    "i32": "INT32",
    "i16": "UINT16",
    "i8": "UINT8",
    "u64": "UINT64",
    "u32": "UINT32",
    "u16": "UINT16",
    "u8": "UINT8",
    "bool": "UINT8",
}


class Places(Protocol):
    """Where buffers are and what symbols are worth: a context."""

    symbols: dict[str, int]

    def at(self, place: Any) -> int: ...


class Kernel:
    """A kernel of a loaded module. `parameters` are the byte sizes of its parameters."""

    def __init__(self, gpu: Gpu, name: str, function: Any) -> None:
        self.gpu = gpu
        self.name = name
        self.function = function
        self.parameters = _parameter_sizes(function)
        cu = api()
        attributes = cu.CUfunction_attribute
        self.static_shared = self._attribute(attributes.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
        self.max_threads = self._attribute(attributes.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
        self.registers = self._attribute(attributes.CU_FUNC_ATTRIBUTE_NUM_REGS)
        self.local = self._attribute(attributes.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
        self._shared = gpu.device.shared_per_block - self.static_shared
        self._cluster = 8  # the size every device with clusters takes without asking
        self._lock = threading.Lock()

    def allow(self, shared: int, threads: int, cluster: int) -> None:
        """Lets launches use that much dynamic shared memory and clusters of that size, or says why they cannot."""
        attributes = api().CUfunction_attribute
        if threads > self.max_threads:
            raise FailureError(
                f"the kernel {self.name} is launched with {threads} threads a block and can have {self.max_threads} on "
                f"{self.gpu.device.name}."
            )
        with self._lock:
            if shared > self._shared:
                limit = self.gpu.device.shared_per_block_optin
                if shared + self.static_shared > limit:
                    raise FailureError(
                        f"the kernel {self.name} needs {shared + self.static_shared:,} bytes of shared memory a block "
                        f"and {self.gpu.device.name} has {limit:,}."
                    )
                self._set(attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
                self._shared = shared
            if cluster > self._cluster:
                self._set(attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
                self._cluster = cluster

    def _attribute(self, which: Any) -> int:
        return int(check(api().cuFuncGetAttribute(which, self.function), f"inspect the kernel {self.name}"))

    def _set(self, which: Any, value: int) -> None:
        check(
            api().cuFuncSetAttribute(self.function, which, value),
            f"set {which.name} of the kernel {self.name} to {value}",
        )


def _parameter_sizes(function: Any) -> tuple[int, ...]:
    """Asks for one after another until there is none; compute-sanitizer lists that last answer as an API error."""
    cu = api()
    sizes: list[int] = []
    while True:
        status, *facts = cu.cuFuncGetParamInfo(function, len(sizes))
        if status:
            break
        sizes.append(int(facts[1]))
    if status.name != "CUDA_ERROR_INVALID_VALUE":  # what one past the last parameter gives
        raise failure(status, "list a kernel's parameters")
    return tuple(sizes)


class Parameters:
    """The values of a launch's parameters in memory, and the array of their addresses that the driver takes."""

    def __init__(self, values: list[bytes]) -> None:
        offsets, size = [], 0
        for value in values:
            align = _TENSOR_MAP_ALIGN if len(value) == _TENSOR_MAP_BYTES else 8
            size = -(-size // align) * align
            offsets.append(size)
            size += len(value)
        self.sizes = tuple(len(value) for value in values)
        self._memory = ctypes.create_string_buffer(size + _TENSOR_MAP_ALIGN)
        base = -(-ctypes.addressof(self._memory) // _TENSOR_MAP_ALIGN) * _TENSOR_MAP_ALIGN
        self._places = [base + offset for offset in offsets]
        for index, value in enumerate(values):
            self.put(index, value)
        self._addresses = (ctypes.c_void_p * max(len(values), 1))(*self._places)
        self.address = ctypes.addressof(self._addresses)

    def put(self, index: int, value: bytes) -> None:
        """Gives a parameter another value of the same size."""
        ctypes.memmove(self._places[index], value, len(value))


@dataclass(slots=True)
class Launch:
    """A kernel launch."""

    kernel: Kernel
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int] | None
    shared: int
    cooperative: bool
    pdl: bool
    parameters: Parameters
    raw: Any = None  # the driver's structure for it, made by the graph once


@dataclass(slots=True)
class Fill:
    """A memset of `nbytes` bytes with a byte value."""

    pointer: int
    value: int
    nbytes: int


@dataclass(slots=True)
class Copy:
    """A copy within device memory."""

    destination: int
    source: int
    nbytes: int


Node = Launch | Fill | Copy


def resolve(op: Op, places: Places, kernels: Mapping[str, Kernel]) -> Node | None:
    """The op with the pointers and symbols of `places`, None where their extents leave it no work.

    FailureError where a launch does not fit its kernel or the device.
    """
    symbols = places.symbols
    if op["op"] == "memset":
        nbytes = evaluate(op["bytes"], symbols)
        return Fill(places.at(op["dst"]), int(op["value"]), nbytes) if nbytes else None
    if op["op"] == "copy":
        nbytes = evaluate(op["bytes"], symbols)
        return Copy(places.at(op["dst"]), places.at(op["src"]), nbytes) if nbytes else None
    kernel = kernels[op["kernel"]]
    grid, block = _three(op["grid"], symbols), _three(op["block"], symbols)
    if 0 in grid:
        return None
    cluster = _three(op["cluster"], symbols) if op.get("cluster") else None
    shared = evaluate(op.get("shared", 0), symbols)
    kernel.allow(shared, block[0] * block[1] * block[2], cluster[0] * cluster[1] * cluster[2] if cluster else 1)
    parameters = Parameters([_pack(param, places, kernel.name) for param in op["params"]])
    if parameters.sizes != kernel.parameters:
        raise FailureError(
            f"the kernel {kernel.name} takes parameters of {list(kernel.parameters)} bytes "
            f"and gets {list(parameters.sizes)}."
        )
    return Launch(kernel, grid, block, cluster, shared, bool(op.get("cooperative")), bool(op.get("pdl")), parameters)


def rebind(node: Node | None, op: Op, parameters: Sequence[int], places: Places) -> None:
    """Gives a resolved node the pointers of `places`: those of these parameters of a launch, all of a fill or copy."""
    if isinstance(node, Launch):
        for index in parameters:
            node.parameters.put(index, _pack(op["params"][index], places, node.kernel.name))
    elif isinstance(node, Fill):
        node.pointer = places.at(op["dst"])
    elif isinstance(node, Copy):
        node.destination, node.source = places.at(op["dst"]), places.at(op["src"])


def _three(exprs: Any, symbols: Mapping[str, int]) -> tuple[int, int, int]:
    x, y, z = (evaluate(expr, symbols) for expr in exprs)
    return x, y, z


def _pack(param: Op, places: Places, kernel: str) -> bytes:
    if "buffer" in param:
        return places.at(param).to_bytes(8, "little")
    if "tensor_map" in param:
        return encode_tensor_map(param["tensor_map"], places, kernel)
    value = param["scalar"]
    dtype = numpy_dtype(param["dtype"])
    if dtype.kind in "iub":
        return np.array(evaluate(value, places.symbols)).astype(dtype).tobytes()
    return np.array(float(value)).astype(dtype).tobytes()


def encode_tensor_map(spec: Op, places: Places, kernel: str) -> bytes:
    """The 128 bytes of a tiled tensor map (spec/engine.md, section 4), for the address its buffer has now."""
    cu = api()
    symbols = places.symbols
    dims = [evaluate(dim, symbols) for dim in spec["dims"]]
    strides = [evaluate(stride, symbols) for stride in spec["strides"]]
    if spec["dtype"] not in _MAP_DTYPES:
        raise FailureError(f"the kernel {kernel} asks for a tensor map of {spec['dtype']}, which has none.")
    status, encoded = cu.cuTensorMapEncodeTiled(
        getattr(cu.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{_MAP_DTYPES[spec['dtype']]}"),
        len(dims),
        places.at(spec),
        [cu.cuuint64_t(dim) for dim in dims],
        [cu.cuuint64_t(stride) for stride in strides],
        [cu.cuuint32_t(extent) for extent in spec["box"]],
        [cu.cuuint32_t(step) for step in spec.get("element_strides") or [1] * len(dims)],
        getattr(cu.CUtensorMapInterleave, f"CU_TENSOR_MAP_INTERLEAVE_{_bytes(spec.get('interleave', 'none'))}"),
        getattr(cu.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{_bytes(spec.get('swizzle', 'none'))}"),
        getattr(cu.CUtensorMapL2promotion, f"CU_TENSOR_MAP_L2_PROMOTION_{_l2(spec.get('l2_promotion', '128'))}"),
        cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA
        if spec.get("oob_fill", "zero") == "nan"
        else cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if status:
        raise failure(
            status,
            f"make the tensor map of the kernel {kernel} ({spec['dtype']}, dims {dims}, strides {strides}, "
            f"box {spec['box']}, swizzle {spec.get('swizzle', 'none')})",
        )
    return ctypes.string_at(encoded.getPtr(), _TENSOR_MAP_BYTES)


def _bytes(name: str) -> str:
    return "NONE" if name == "none" else f"{name}B"


def _l2(name: str) -> str:
    return "NONE" if name == "none" else f"L2_{name}B"
