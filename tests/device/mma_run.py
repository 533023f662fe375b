# SPDX-License-Identifier: Apache-2.0
"""Launches what a CUDA template emitted, on torch's current stream, so that it can be captured beside torch's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from cuda.bindings import driver as cu

from tcc.codegen.template import BufferParam, Emitted, Launch


def check(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if int(status):
        raise RuntimeError(f"the driver says {status.name}")
    return values[0] if values else None


class Loaded:
    """The kernels of one emitted problem, loaded."""

    def __init__(self, emitted: Emitted, cubin: bytes) -> None:
        torch.cuda.current_stream()  # makes torch's context the current one
        self.emitted = emitted
        self._cubin = cubin
        self._module = check(cu.cuModuleLoadData(cubin))
        self._functions = {
            launch.entry: check(cu.cuModuleGetFunction(self._module, launch.entry.encode()))
            for launch in emitted.launches
        }
        limit = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        for launch in emitted.launches:
            if launch.shared > 48 << 10:
                check(cu.cuFuncSetAttribute(self._functions[launch.entry], limit, launch.shared))

    def workspaces(self) -> list[torch.Tensor]:
        """Scratch memory, poisoned unless it must be zero."""
        return [
            torch.full((int(w.bytes),), 0 if w.zeroed else 0xFF, dtype=torch.uint8, device="cuda")
            for w in self.emitted.workspaces
        ]

    def launch(self, addresses: Sequence[int]) -> None:
        """All launches, on buffers at these addresses: operands, results, workspaces."""
        for one in self.emitted.launches:
            self._launch(one, addresses)

    def _launch(self, one: Launch, addresses: Sequence[int]) -> None:
        ids = cu.CUlaunchAttributeID
        attributes: list[Any] = []
        if one.pdl:
            a = cu.CUlaunchAttribute()
            a.id = ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            a.value.programmaticStreamSerializationAllowed = 1
            attributes.append(a)
        if one.cluster is not None:
            a = cu.CUlaunchAttribute()
            a.id = ids.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            a.value.clusterDim.x, a.value.clusterDim.y, a.value.clusterDim.z = one.cluster
            attributes.append(a)
        config = cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = (int(g) for g in one.grid)
        config.blockDimX, config.blockDimY, config.blockDimZ = one.block
        config.sharedMemBytes = one.shared
        config.hStream = torch.cuda.current_stream().cuda_stream
        config.attrs = attributes
        config.numAttrs = len(attributes)
        pointers = [addresses[p.buffer] for p in one.params if isinstance(p, BufferParam)]
        assert len(pointers) == len(one.params)
        values = np.array(pointers, np.uint64)
        places = np.array([values.ctypes.data + 8 * i for i in range(len(values))], np.uint64)
        check(cu.cuLaunchKernelEx(config, self._functions[one.entry], places.ctypes.data, 0))

    def close(self) -> None:
        check(cu.cuModuleUnload(self._module))


def on_device(raw: np.ndarray, like: int) -> tuple[torch.Tensor, int]:
    """A copy of host bytes, and its address, which is the host's `like` modulo 256."""
    memory = torch.empty(raw.nbytes + 512, dtype=torch.uint8, device="cuda")
    start = (like - memory.data_ptr()) % 256
    memory[start : start + raw.nbytes] = torch.from_numpy(raw).cuda()
    return memory[start : start + raw.nbytes], memory.data_ptr() + start


def seconds(launches: Sequence[Any], rounds: int = 5) -> float:
    """Median seconds of one launch, of a graph of all of them in a row. A launch is a function without arguments."""
    stream = torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for f in launches[:4]:
            f()
        stream.synchronize()
        graph.capture_begin()
        for f in launches:
            f()
        graph.capture_end()
    graph.replay()
    torch.cuda.synchronize()
    samples: list[float] = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e-3 / len(launches))
    return float(np.median(samples))
