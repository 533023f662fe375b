# SPDX-License-Identifier: Apache-2.0
"""Runs and times emitted kernels on the GPU, one at a time, with nothing between them and the driver."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

import numpy as np
from cuda.bindings import driver as cu

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import BufferParam, Emitted
from tcc.runtime.cuda.device import current_gpu
from tcc.runtime.cuda.driver import check
from tests.codegen.cuda.problems import Buffer


class Launcher:
    """Compiles for, loads on and launches on one GPU."""

    def __init__(self) -> None:
        self.gpu = current_gpu()
        check(cu.cuCtxSetCurrent(self.gpu.context), "enter its context")
        self.arch = self.gpu.device.arch
        self.stream = self.gpu.take_stream()
        self.lock = threading.Lock()

    def run(self, emitted: Emitted, buffers: Sequence[Buffer]) -> None:
        """All launches on the buffers of operands and results, guard zones included; workspaces start poisoned."""
        memory: list[int] = []
        pointers: list[int] = []
        for b in buffers:
            base = self.gpu.allocate(b.raw.size + 512, "a buffer")
            start = base + (b.raw.ctypes.data - base) % 256
            check(cu.cuMemcpyHtoD(start, b.raw, b.raw.size), "copy")
            memory.append(base)
            pointers.append(start + b.first)
        for w in emitted.workspaces:
            memory.append(self.gpu.allocate(int(w.bytes), "a workspace"))
            check(cu.cuMemsetD8(memory[-1], 0 if w.zeroed else 0xFF, max(int(w.bytes), 1)), "fill")
            pointers.append(memory[-1])
        module, calls = self.load(emitted, pointers)
        for call in calls:
            call()
        check(cu.cuStreamSynchronize(self.stream), "finish")
        for b, start in zip(buffers, pointers, strict=False):
            check(cu.cuMemcpyDtoH(b.raw, start - b.first, b.raw.size), "copy back")
        check(cu.cuModuleUnload(module), "unload")
        for base in memory:
            self.gpu.release(base)

    def load(self, emitted: Emitted, pointers: Sequence[int]):
        """(the module, a function per launch)."""
        built = compile_cuda(emitted.source, emitted.options.get("arch", self.arch))
        module = check(cu.cuModuleLoadData(built.cubin), "load")
        return module, [self._call(module, launch, pointers) for launch in emitted.launches if 0 not in launch.grid]

    def _call(self, module, launch, pointers: Sequence[int]):
        function = check(cu.cuModuleGetFunction(module, launch.entry.encode()), "find")
        if launch.shared > 48 << 10:
            limit = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(cu.cuFuncSetAttribute(function, limit, launch.shared), "allow shared memory")
        assert all(isinstance(p, BufferParam) for p in launch.params)
        values = (ctypes.c_uint64 * len(launch.params))(*(pointers[p.buffer] + int(p.offset) for p in launch.params))
        step = ctypes.sizeof(ctypes.c_uint64)
        places = (ctypes.c_void_p * len(launch.params))(
            *(ctypes.addressof(values) + i * step for i in range(len(launch.params)))
        )
        config = cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = (int(g) for g in launch.grid)
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
        config.sharedMemBytes = launch.shared
        config.hStream = self.stream
        attributes = []
        if launch.pdl:
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            attributes.append(attribute)
        if launch.cooperative:
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            attribute.value.cooperative = 1
            attributes.append(attribute)
        if launch.cluster is not None:
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            size = attribute.value.clusterDim
            size.x, size.y, size.z = launch.cluster
            attributes.append(attribute)
        config.attrs, config.numAttrs = attributes, len(attributes)

        def call() -> None:
            check(cu.cuLaunchKernelEx(config, function, ctypes.addressof(places), 0), "launch")

        call.keep = (values, places)  # the driver reads them at every launch
        return call

    def seconds(self, emitted: Emitted, sizes: Sequence[int], repeat: int = 20, rounds: int = 5) -> float:
        """Median seconds of all launches in a graph of `repeat` copies; buffers of these byte sizes, in the cache."""
        memory = [self.gpu.allocate(s + 64, "a buffer") for s in (*sizes, *(int(w.bytes) for w in emitted.workspaces))]
        for base, size in zip(memory, (*sizes, *(int(w.bytes) for w in emitted.workspaces)), strict=True):
            check(cu.cuMemsetD8(base, 0, max(size, 1)), "fill")
        module, calls = self.load(emitted, memory)
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        check(cu.cuStreamBeginCapture(self.stream, mode), "capture")
        for _ in range(repeat):
            for call in calls:
                call()
        graph = check(cu.cuStreamEndCapture(self.stream), "capture")
        ready = check(cu.cuGraphInstantiate(graph, 0), "make a graph")
        start, stop = self.gpu.event(timing=True), self.gpu.event(timing=True)
        samples: list[float] = []
        for i in range(rounds + 1):
            check(cu.cuEventRecord(start, self.stream), "record")
            check(cu.cuGraphLaunch(ready, self.stream), "launch")
            check(cu.cuEventRecord(stop, self.stream), "record")
            check(cu.cuEventSynchronize(stop), "wait")
            if i:
                samples.append(float(check(cu.cuEventElapsedTime(start, stop), "tell the time")) / 1e3 / repeat)
        for done in (
            cu.cuGraphExecDestroy(ready), cu.cuGraphDestroy(graph), cu.cuEventDestroy(start), cu.cuEventDestroy(stop),
            cu.cuModuleUnload(module),
        ):  # fmt: skip
            check(done, "clean up")
        for base in memory:
            self.gpu.release(base)
        return float(np.median(samples))
