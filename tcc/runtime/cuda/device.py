# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs: their facts (`Device`), and what a process holds on one (`Gpu`: CUDA context, streams, memory pool)."""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass
from typing import Any

from tcc.errors import FailureError
from tcc.runtime.cuda.driver import GpuError, api, check, failure, let_go

LEGACY_STREAM = 0
"""The handle of the legacy default stream."""


@dataclass(frozen=True)
class Device:
    """Facts about one GPU; sizes in bytes. `capability` (9, 0) is sm_90."""

    ordinal: int
    name: str
    uuid: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_per_block: int
    shared_per_block_optin: int
    shared_per_multiprocessor: int
    l2: int
    memory: int
    max_threads: int
    cooperative: bool
    pools: bool
    driver: str

    @property
    def arch(self) -> str:
        """The architecture's name, such as `sm_90`."""
        return f"sm_{self.capability[0]}{self.capability[1]}"

    def runs(self, arch: str) -> bool:
        """Whether a cubin of `arch` runs here: same major version, no newer minor one; `sm_90a` runs on 9.0 alone."""
        match = re.fullmatch(r"sm_(\d+)(\d)([af]?)", arch)
        if not match:
            return False
        major, minor = int(match[1]), int(match[2])
        if match[3] == "a":
            return self.capability == (major, minor)
        return self.capability[0] == major and self.capability[1] >= minor


def devices() -> list[Device]:
    """The GPUs that CUDA shows to this process; none where there is no driver."""
    try:
        cu = api()
    except FailureError:
        return []
    return [describe(ordinal) for ordinal in range(check(cu.cuDeviceGetCount(), "count the devices"))]


def describe(ordinal: int) -> Device:
    """The facts about GPU number `ordinal`; FailureError where there is none of that number."""
    cu = api()
    count = check(cu.cuDeviceGetCount(), "count the devices")
    if not 0 <= ordinal < count:
        raise FailureError(f"there is no GPU number {ordinal} here: CUDA shows {count} to this process.")
    handle = check(cu.cuDeviceGet(ordinal), "find the device")
    names = cu.CUdevice_attribute

    def attribute(name: str) -> int:
        return int(
            check(cu.cuDeviceGetAttribute(getattr(names, f"CU_DEVICE_ATTRIBUTE_{name}"), handle), f"tell its {name}")
        )

    version = check(cu.cuDriverGetVersion(), "tell its version")
    return Device(
        ordinal=ordinal,
        name=bytes(check(cu.cuDeviceGetName(96, handle), "tell its name")).split(b"\0")[0].decode(),
        uuid=bytes(check(cu.cuDeviceGetUuid(handle), "tell its uuid").bytes).hex(),
        capability=(attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")),
        multiprocessors=attribute("MULTIPROCESSOR_COUNT"),
        shared_per_block=attribute("MAX_SHARED_MEMORY_PER_BLOCK"),
        shared_per_block_optin=attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        shared_per_multiprocessor=attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        l2=attribute("L2_CACHE_SIZE"),
        memory=int(check(cu.cuDeviceTotalMem(handle), "tell its memory")),
        max_threads=attribute("MAX_THREADS_PER_BLOCK"),
        cooperative=bool(attribute("COOPERATIVE_LAUNCH")),
        pools=bool(attribute("MEMORY_POOLS_SUPPORTED")),
        driver=f"{version // 1000}.{version % 1000 // 10}",
    )


class Gpu:
    """One CUDA context of this process: allocation, streams, entering it. Thread-safe; lives as long as the process."""

    def __init__(self, device: Device, context: Any, primary: bool) -> None:
        self.device = device
        self.context = context
        self.primary = primary
        self.name = f"cuda:{device.ordinal}"
        self.key = int(context)
        self._streams = threading.local()
        self._spare: list[Any] = []
        self._lock = threading.Lock()
        self._pool: Any = None
        with self.active():
            self._pool = self._make_pool() if device.pools else None

    def active(self) -> _Active:
        """A `with` block in which this context is the thread's current one; then what was current is so again."""
        return _Active(self)

    # Streams.

    def stream(self) -> int:
        """The handle of the stream to work on: torch's current one where torch uses this GPU, else the thread's own."""
        cuda = getattr(sys.modules.get("torch"), "cuda", None)  # absent while torch itself is being imported
        if cuda is not None and self.primary and cuda.is_initialized():
            return int(cuda.current_stream(self.device.ordinal).cuda_stream)
        lease = getattr(self._streams, "lease", None)
        if lease is None:
            lease = self._streams.lease = _StreamLease(self)
        return lease.handle

    def take_stream(self) -> Any:
        """A non-blocking stream, an idle one where there is one."""
        with self._lock:
            if self._spare:
                return self._spare.pop()
        cu = api()
        return check(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING), "make a stream")

    def return_stream(self, stream: Any) -> None:
        """Takes back what `take_stream` gave."""
        with self._lock:
            self._spare.append(stream)

    def synchronize(self, stream: int) -> None:
        """Waits for a stream; what went wrong in it comes up here."""
        check(api().cuStreamSynchronize(stream), "finish the work given to it")

    def join(self, waiter: int, producer: int) -> None:
        """Lets later work on `waiter` wait for the work now on `producer`."""
        if waiter == producer:
            return
        cu = api()
        event = self.event()
        check(cu.cuEventRecord(event, producer), "record an event")
        check(cu.cuStreamWaitEvent(waiter, event, 0), "wait for an event")
        let_go(cu.cuEventDestroy(event), "destroy an event")

    def event(self, timing: bool = False) -> Any:
        """A new event, destroyed by the caller."""
        cu = api()
        flags = cu.CUevent_flags.CU_EVENT_DEFAULT if timing else cu.CUevent_flags.CU_EVENT_DISABLE_TIMING
        return check(cu.cuEventCreate(flags), "make an event")

    # Memory.

    def allocate(self, nbytes: int, what: str) -> int:
        """Long-lived memory, aligned to 256 bytes; GpuError naming `what` and the sizes where there is not enough."""
        status, pointer = api().cuMemAlloc(max(nbytes, 1))
        if status:
            raise self._no_memory(status, nbytes, what)
        return int(pointer)

    def release(self, pointer: int) -> None:
        """Gives back what `allocate` returned, after the work that uses it."""
        let_go(api().cuMemFree(pointer), "free memory")

    def allocate_ordered(self, nbytes: int, stream: int, what: str) -> int:
        """Memory from the pool, usable by work on `stream` from now on."""
        if self._pool is None:
            return self.allocate(nbytes, what)
        status, pointer = api().cuMemAllocFromPoolAsync(max(nbytes, 1), self._pool, stream)
        if status:
            raise self._no_memory(status, nbytes, what)
        return int(pointer)

    def release_ordered(self, pointer: int, stream: int) -> None:
        """Gives back what `allocate_ordered` returned, after the work now on `stream`."""
        if self._pool is None:
            self.release(pointer)
        else:
            let_go(api().cuMemFreeAsync(pointer, stream), "free memory")

    def free_memory(self) -> int:
        """Bytes of device memory that nobody holds."""
        free, _ = check(api().cuMemGetInfo(), "tell its free memory")
        return int(free)

    def _no_memory(self, status: Any, nbytes: int, what: str) -> GpuError:
        if status.name != "CUDA_ERROR_OUT_OF_MEMORY":
            return failure(status, f"allocate {nbytes} bytes for {what}")
        message = (
            f"out of GPU memory: {nbytes:,} bytes for {what} do not fit in the {self.free_memory():,} of "
            f"{self.device.memory:,} that are free on {self.device.name}; free some, or use a smaller batch."
        )
        return GpuError(message, status.name)

    def _make_pool(self) -> Any:
        cu = api()
        properties = cu.CUmemPoolProps()
        properties.allocType = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        properties.location.id = self.device.ordinal
        pool = check(cu.cuMemPoolCreate(properties), "make a memory pool")
        # Keep what is freed: by default the pool returns it to the system at every synchronisation.
        threshold = cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        check(cu.cuMemPoolSetAttribute(pool, threshold, cu.cuuint64_t(2**64 - 1)), "set up its memory pool")
        return pool


class _Active:
    """See `Gpu.active`. A class because a call enters it several times, and generators cost more than the driver."""

    __slots__ = ("_gpu", "_pushed")

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._pushed = False

    def __enter__(self) -> None:
        cu = api()
        gpu = self._gpu
        if int(check(cu.cuCtxGetCurrent(), "tell the current context")) != gpu.key:
            check(cu.cuCtxPushCurrent(gpu.context), "enter its context")
            self._pushed = True

    def __exit__(self, *error: object) -> None:
        if self._pushed:
            check(api().cuCtxPopCurrent(), "leave its context")


class _StreamLease:
    """A thread's own stream; it goes to another thread when this one ends."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._stream = gpu.take_stream()
        self.handle = int(self._stream)

    def __del__(self) -> None:
        self._gpu.return_stream(self._stream)


_gpus: dict[int, Gpu] = {}
_primary: dict[int, Any] = {}
_gpus_lock = threading.Lock()


def current_gpu(ordinal: int = 0) -> Gpu:
    """The GPU of the thread's current CUDA context (torch's, PyCUDA's), or that number's primary context."""
    cu = api()
    context = check(cu.cuCtxGetCurrent(), "tell the current context")
    with _gpus_lock:
        if int(context):
            ordinal = int(check(cu.cuCtxGetDevice(), "tell the current device"))
        elif int(check(cu.cuDeviceGetCount(), "count the devices")) == 0:
            raise FailureError("an NVIDIA GPU is needed and CUDA shows none to this process.")
        primary = _primary.get(ordinal)
        if primary is None:
            handle = check(cu.cuDeviceGet(ordinal), "find the device")
            primary = _primary[ordinal] = check(cu.cuDevicePrimaryCtxRetain(handle), "make a context")
        key = int(context) or int(primary)
        gpu = _gpus.get(key)
        if gpu is None:
            gpu = _gpus[key] = Gpu(describe(ordinal), context if int(context) else primary, key == int(primary))
        return gpu
