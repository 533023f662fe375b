# SPDX-License-Identifier: Apache-2.0
"""A CUDA driver in Python, to test the executor's logic without a GPU.

It takes the place of the module `cuda.bindings.driver`: enums and structures are the real ones, functions work on host
memory. It is as lazy as a device may be: work on a stream happens when something waits for it, pinned memory is read
then and not when the copy is asked for, freed memory is poisoned, and a graph's nodes run in a random order that its
edges allow. A "cubin" is JSON, ``{entry: [parameter sizes]}``, and a kernel a Python function in `FakeDriver.kernels`.
"""

import ctypes
import json
import random
import threading
from types import SimpleNamespace

import numpy as np
from cuda.bindings import driver as real

OK = real.CUresult.CUDA_SUCCESS
CAPABILITY = (9, 0)


class Launched(SimpleNamespace):
    """One executed kernel: entry, grid, block, shared, and what its graph node said."""


class FakeDriver:
    def __init__(self, seed=0, memory=1 << 30, capability=CAPABILITY):
        self.kernels = {}
        self.random = random.Random(seed)
        self.total = memory
        self.capability = capability
        self.log = []
        self.launches = []
        self.updates = 0
        self.instantiated = 0
        self.live = {}
        self.pinned = {}
        self.encoded = []
        self.fail = {}
        self._objects = {}
        self._next = 0x1000
        self._current = threading.local()
        self._streams = {0: Stream(), 1: Stream()}
        self._pushed = []
        self._lock = threading.RLock()

    def __getattr__(self, name):
        if name.startswith("cu") and hasattr(real, name) and not isinstance(getattr(real, name), type):
            raise AssertionError(f"the fake driver lacks {name}")
        return getattr(real, name)

    def _new(self, value, kind=None):
        self._next += 16
        self._objects[self._next] = value
        return kind(self._next) if kind else self._next

    def _get(self, handle):
        return self._objects[int(handle)]

    def stream(self, handle):
        return self._streams[int(handle)]

    # Devices and contexts.

    def cuGetErrorString(self, status):
        return OK, f"text of {status.name}".encode()

    def cuDeviceGetCount(self):
        return OK, 1

    def cuDeviceGet(self, ordinal):
        return OK, real.CUdevice(ordinal)

    def cuDeviceGetAttribute(self, attribute, device):
        values = {
            "COMPUTE_CAPABILITY_MAJOR": self.capability[0],
            "COMPUTE_CAPABILITY_MINOR": self.capability[1],
            "MULTIPROCESSOR_COUNT": 132,
            "MAX_SHARED_MEMORY_PER_BLOCK": 49152,
            "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
            "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472,
            "L2_CACHE_SIZE": 50 << 20,
            "MAX_THREADS_PER_BLOCK": 1024,
            "COOPERATIVE_LAUNCH": 1,
            "MEMORY_POOLS_SUPPORTED": 1,
        }
        return OK, values[attribute.name.removeprefix("CU_DEVICE_ATTRIBUTE_")]

    def cuDriverGetVersion(self):
        return OK, 13000

    def cuDeviceGetName(self, length, device):
        return OK, b"Fake GPU" + bytes(length - 8)

    def cuDeviceGetUuid(self, device):
        return OK, SimpleNamespace(bytes=bytes(range(16)))

    def cuDeviceTotalMem(self, device):
        return OK, self.total

    def cuDevicePrimaryCtxRetain(self, device):
        return OK, real.CUcontext(0xC0)

    def cuCtxGetCurrent(self):
        stack = getattr(self._current, "stack", [])
        return OK, real.CUcontext(stack[-1] if stack else 0)

    def cuCtxPushCurrent(self, context):
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        self._current.stack.append(int(context))
        return (OK,)

    def cuCtxPopCurrent(self):
        return OK, real.CUcontext(self._current.stack.pop())

    def _in_context(self):
        assert getattr(self._current, "stack", []), "a call outside the CUDA context"

    # Streams and events.

    def cuStreamCreate(self, flags):
        self._in_context()
        self._next += 16
        self._streams[self._next] = Stream()
        return OK, real.CUstream(self._next)

    def cuStreamSynchronize(self, stream):
        with self._lock:
            self.log.append(("synchronize", int(stream)))
            self.stream(stream).drain()
        if "synchronize" in self.fail:
            return (self.fail["synchronize"],)
        return (OK,)

    def cuEventCreate(self, flags):
        self._in_context()
        return OK, self._new(Event(), real.CUevent)

    def cuEventDestroy(self, event):
        self._get(event)  # the work that waits for it keeps it
        del self._objects[int(event)]
        return (OK,)

    def cuEventRecord(self, event, stream):
        with self._lock:
            self._get(event).record(self.stream(stream))
        return (OK,)

    def cuEventSynchronize(self, event):
        with self._lock:
            self._get(event).wait()
        return (OK,)

    def cuStreamWaitEvent(self, stream, event, flags):
        with self._lock:
            mark = self._get(event).mark()
            self.stream(stream).add(mark)
        return (OK,)

    def cuEventElapsedTime(self, start, stop):
        return OK, 1e-3 * (self._get(stop).tick - self._get(start).tick)

    # Memory.

    def _allocate(self, nbytes, table):
        used = sum(block.nbytes for block in self.live.values())
        if used + nbytes > self.total:
            return real.CUresult.CUDA_ERROR_OUT_OF_MEMORY, real.CUdeviceptr(0)
        block = np.full(nbytes + 512, 0xCD, np.uint8)
        address = -(-block.ctypes.data // 512) * 512
        table[address] = block
        return OK, address

    def cuMemAlloc(self, nbytes):
        self._in_context()
        with self._lock:
            return self._allocate(nbytes, self.live)

    def cuMemFree(self, pointer):
        self._in_context()
        with self._lock:
            for stream in self._streams.values():
                stream.drain()
            self.live.pop(int(pointer))[:] = 0xDD
        return (OK,)

    def cuMemAllocFromPoolAsync(self, nbytes, pool, stream):
        self._in_context()
        with self._lock:
            return self._allocate(nbytes, self.live)

    def cuMemFreeAsync(self, pointer, stream):
        with self._lock:
            block = self.live.pop(int(pointer))

            def poison():
                block[:] = 0xDD

            self.stream(stream).add(poison)
        return (OK,)

    def cuMemGetInfo(self):
        return OK, self.total - sum(block.nbytes for block in self.live.values()), self.total

    def cuMemPoolCreate(self, properties):
        return OK, self._new("pool", real.CUmemoryPool)

    def cuMemPoolSetAttribute(self, pool, attribute, value):
        return (OK,)

    def cuMemHostAlloc(self, nbytes, flags):
        with self._lock:
            return self._allocate(nbytes, self.pinned)

    def cuMemFreeHost(self, pointer):
        with self._lock:
            self.pinned.pop(int(pointer))[:] = 0xDD
        return (OK,)

    def _is_pinned(self, pointer):
        return any(start <= pointer < start + block.nbytes for start, block in self.pinned.items())

    def _queue_copy(self, destination, source, nbytes, stream):
        def copy():
            ctypes.memmove(destination, source, nbytes)

        self.stream(stream).add(copy)

    def cuMemcpyHtoD(self, destination, source, nbytes):
        ctypes.memmove(int(destination), int(source), nbytes)
        return (OK,)

    def cuMemcpyHtoDAsync(self, destination, source, nbytes, stream):
        with self._lock:
            self.log.append(("to device", nbytes, self._is_pinned(source)))
            if self._is_pinned(source):
                self._queue_copy(int(destination), int(source), nbytes, stream)
            else:
                content = ctypes.string_at(int(source), nbytes)
                self.stream(stream).add(lambda: ctypes.memmove(int(destination), content, nbytes))
        return (OK,)

    def cuMemcpyDtoHAsync(self, destination, source, nbytes, stream):
        with self._lock:
            self.log.append(("to host", nbytes, self._is_pinned(destination)))
            self._queue_copy(int(destination), int(source), nbytes, stream)
        return (OK,)

    def cuMemcpyDtoDAsync(self, destination, source, nbytes, stream):
        with self._lock:
            self.log.append(("on device", nbytes))
            self._queue_copy(int(destination), int(source), nbytes, stream)
        return (OK,)

    def cuMemsetD8Async(self, pointer, value, nbytes, stream):
        with self._lock:
            self.stream(stream).add(lambda: ctypes.memset(int(pointer), value, nbytes))
        return (OK,)

    def cuMemcpy2DAsync(self, copy, stream):
        facts = (int(copy.dstDevice), copy.dstPitch, int(copy.srcDevice), copy.srcPitch, copy.WidthInBytes, copy.Height)
        assert facts[3] >= facts[4]
        assert facts[1] >= facts[4]

        def run():
            for i in range(facts[5]):
                ctypes.memmove(facts[0] + i * facts[1], facts[2] + i * facts[3], facts[4])

        with self._lock:
            self.log.append(("pitched", copy.Height))
            self.stream(stream).add(run)
        return (OK,)

    # Modules and kernels.

    def cuModuleLoadData(self, image):
        if not image.startswith(b"{"):
            return real.CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU, real.CUmodule(0)
        return OK, self._new(json.loads(image), real.CUmodule)

    def cuModuleUnload(self, module):
        self._objects.pop(int(module), None)  # one of an earlier test's driver may be collected late
        return (OK,)

    def cuModuleGetFunction(self, module, name):
        sizes = self._get(module).get(name.decode())
        if sizes is None:
            return real.CUresult.CUDA_ERROR_NOT_FOUND, real.CUfunction(0)
        return OK, self._new(SimpleNamespace(name=name.decode(), sizes=sizes, attributes={}), real.CUfunction)

    def cuFuncGetParamInfo(self, function, index):
        sizes = self._get(function).sizes
        if index >= len(sizes):
            return real.CUresult.CUDA_ERROR_INVALID_VALUE, 0, 0
        return OK, sum(sizes[:index]), sizes[index]

    def cuFuncGetAttribute(self, attribute, function):
        values = {"MAX_THREADS_PER_BLOCK": 1024, "NUM_REGS": 32}
        return OK, values.get(attribute.name.removeprefix("CU_FUNC_ATTRIBUTE_"), 0)

    def cuFuncSetAttribute(self, function, attribute, value):
        self._get(function).attributes[attribute.name] = value
        return (OK,)

    def cuTensorMapEncodeTiled(self, dtype, rank, address, dims, strides, box, steps, *modes):
        facts = [int(x) for x in (dtype, rank, address, *dims, *strides, *box, *steps, *modes)]
        self.encoded.append(facts)
        if int(address) % 16 or any(int(stride) % 16 for stride in strides):
            return real.CUresult.CUDA_ERROR_INVALID_VALUE, real.CUtensorMap()
        encoded = real.CUtensorMap()
        ctypes.memmove(
            int(encoded.getPtr()), np.array([address, *facts[3:]], np.int64).tobytes().ljust(128, b"\0"), 128
        )
        return OK, encoded

    # Graphs.

    def cuGraphCreate(self, flags):
        return OK, self._new([], real.CUgraph)

    def _add(self, graph, node):
        node.after, node.edges, node.attributes = [], [], {}
        node.number = len(self._get(graph))
        handle = self._new(node, real.CUgraphNode)
        self._get(graph).append(node)
        return OK, handle

    def cuGraphAddEmptyNode(self, graph, dependencies, count):
        return self._add(graph, SimpleNamespace(kind="empty", run=lambda: None))

    def cuGraphAddKernelNode(self, graph, dependencies, count, params):
        node = SimpleNamespace(kind="kernel")
        self._set_kernel(node, params)
        return self._add(graph, node)

    def _set_kernel(self, node, params):
        function = self._get(params.func)
        addresses = (ctypes.c_void_p * max(len(function.sizes), 1)).from_address(params.kernelParams)
        params_now = [ctypes.string_at(addresses[i], size) for i, size in enumerate(function.sizes)]
        facts = Launched(
            entry=function.name,
            grid=(params.gridDimX, params.gridDimY, params.gridDimZ),
            block=(params.blockDimX, params.blockDimY, params.blockDimZ),
            shared=params.sharedMemBytes,
            limit=function.attributes,
        )
        assert 0 not in facts.grid + facts.block

        def run():
            self.launches.append(facts)
            self.kernels[function.name](*params_now)

        node.params, node.facts, node.run = params_now, facts, run

    def cuGraphAddMemsetNode(self, graph, dependencies, count, params, context):
        node = SimpleNamespace(kind="memset")
        self._set_memset(node, params)
        return self._add(graph, node)

    def _set_memset(self, node, params):
        assert params.width
        pattern = int(params.value).to_bytes(params.elementSize, "little") * params.width
        destination = int(params.dst)
        node.run = lambda: ctypes.memmove(destination, pattern, len(pattern))

    def cuGraphAddMemcpyNode(self, graph, dependencies, count, params, context):
        node = SimpleNamespace(kind="memcpy")
        self._set_memcpy(node, params)
        return self._add(graph, node)

    def _set_memcpy(self, node, params):
        facts = int(params.dstDevice), int(params.srcDevice), params.WidthInBytes
        assert facts[2]
        assert params.Height == params.Depth == 1
        node.run = lambda: ctypes.memmove(*facts)

    def cuGraphAddEventRecordNode(self, graph, dependencies, count, event):
        state = self._get(event)
        return self._add(graph, SimpleNamespace(kind="event", run=state.stamp))

    def cuGraphKernelNodeSetAttribute(self, node, attribute, value):
        self._get(node).attributes[attribute.name] = value
        return (OK,)

    def cuGraphAddDependencies(self, graph, sources, targets, edges, count):
        assert len(sources) == len(targets) == len(edges) == count
        for source, target, edge in zip(sources, targets, edges, strict=True):
            node = self._get(target)
            node.after.append(self._get(source).number)
            node.edges.append((int(edge.type), edge.from_port))
        return (OK,)

    def cuGraphInstantiate(self, graph, flags):
        self.instantiated += 1
        return OK, self._new(SimpleNamespace(nodes=self._get(graph)), real.CUgraphExec)

    def cuGraphUpload(self, graph, stream):
        return (OK,)

    def cuGraphLaunch(self, graph, stream):
        # What is enqueued keeps the parameters of now: an update is for later launches.
        nodes = [(node.run, set(node.after)) for node in self._get(graph).nodes]

        def run():
            done, waiting = set(), set(range(len(nodes)))
            while waiting:
                ready = [i for i in sorted(waiting) if nodes[i][1] <= done]
                chosen = self.random.choice(ready)
                nodes[chosen][0]()
                done.add(chosen)
                waiting.remove(chosen)

        with self._lock:
            self.log.append(("graph", int(stream)))
            self.stream(stream).add(run)
        return (OK,)

    def cuGraphExecKernelNodeSetParams(self, graph, node, params):
        self.updates += 1
        self._set_kernel(self._get(node), params)
        return (OK,)

    def cuGraphExecMemsetNodeSetParams(self, graph, node, params, context):
        self.updates += 1
        self._set_memset(self._get(node), params)
        return (OK,)

    def cuGraphExecMemcpyNodeSetParams(self, graph, node, params, context):
        self.updates += 1
        self._set_memcpy(self._get(node), params)
        return (OK,)

    def cuGraphExecDestroy(self, graph):
        del self._objects[int(graph)]
        return (OK,)

    def cuGraphDestroy(self, graph):
        for handle in [h for h, o in self._objects.items() if any(o is node for node in self._get(graph))]:
            del self._objects[handle]
        del self._objects[int(graph)]
        return (OK,)

    def nodes(self):
        """The nodes of the graphs there are, in the order they were added."""
        graphs = [o for o in self._objects.values() if isinstance(o, list)]
        return [node for graph in graphs for node in graph]


def _refusable(release):
    """What lets something go, unless `fail` has an answer to that."""
    return lambda self, *given: (self.fail["release"],) if "release" in self.fail else release(self, *given)


for _name in ("EventDestroy", "MemFree", "MemFreeHost", "ModuleUnload", "GraphDestroy", "GraphExecDestroy"):
    setattr(FakeDriver, f"cu{_name}", _refusable(getattr(FakeDriver, f"cu{_name}")))


class Stream:
    """Work not done yet; `done` counts what is."""

    def __init__(self):
        self.queue = []
        self.done = 0

    def add(self, work):
        self.queue.append(work)

    @property
    def end(self):
        return self.done + len(self.queue)

    def drain(self, until=None):
        while self.queue and (until is None or self.done < until):
            work = self.queue.pop(0)
            self.done += 1
            work()


class Event:
    ticks = 0

    def __init__(self):
        self.stream, self.position, self.tick = None, 0, 0

    def record(self, stream):
        self.stream, self.position = stream, stream.end
        stream.add(self.stamp)

    def stamp(self):
        Event.ticks += 1
        self.tick = Event.ticks

    def mark(self):
        stream, position = self.stream, self.position
        return lambda: stream and stream.drain(position)

    def wait(self):
        self.mark()()


def view(pointer, count, dtype=np.float32):
    """Memory at an address (an int, or eight bytes of a kernel parameter) as an array."""
    address = pointer if isinstance(pointer, int) else int.from_bytes(pointer, "little")
    dtype = np.dtype(dtype)
    return np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype)
