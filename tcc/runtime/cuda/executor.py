# SPDX-License-Identifier: Apache-2.0
"""Engines on an NVIDIA GPU: `CudaExecutor` (kernels, weights; shared), `CudaContext` (a caller's memory, graphs)."""

from __future__ import annotations

import ctypes
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tcc.errors import FailureError
from tcc.runtime.container import EngineData
from tcc.runtime.cuda import array
from tcc.runtime.cuda.array import DeviceArray
from tcc.runtime.cuda.device import Gpu, current_gpu
from tcc.runtime.cuda.driver import api, check, let_go
from tcc.runtime.cuda.launch import Kernel
from tcc.runtime.cuda.modules import Modules
from tcc.runtime.cuda.order import Slot
from tcc.runtime.cuda.profile import time_segment
from tcc.runtime.cuda.segment import Segment, symbols_in
from tcc.runtime.cuda.staging import Staging
from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.executor import Context, Executor, LaunchTime, Value, check_result
from tcc.runtime.expr import evaluate
from tcc.runtime.program import Op, ProgramContext
from tcc.runtime.weights import LiveData

GRAPHS_PER_SEGMENT = 16
"""How many sets of symbol values a context keeps graphs for."""


class CudaExecutor(Executor):
    """An engine on the GPU of the thread's CUDA context, or the first one; FailureError where it does not fit there.

    `poison` is a byte that fills the arena, pool buffers and outputs before every run, to find what an engine reads or
    leaves unwritten (0xFF makes floats NaN); None, as in ordinary use, fills nothing.
    """

    poison: int | None = None

    def __init__(self, data: EngineData) -> None:
        super().__init__(data)
        self.gpu = current_gpu()
        device, arch = self.gpu.device, data.target["name"]
        if not device.runs(arch):
            raise FailureError(
                f"this engine is built for {arch} and the GPU here is {device.name} ({device.arch}): compile the model "
                f"with --target {device.arch}."
            )
        with self.gpu.active():
            self._modules = Modules(self.gpu, data)
            block = data.block if isinstance(data, LiveData) else None
            if not data.weights_bytes:
                self.weights = 0
            elif block is not None:
                self._shared = block.on_device(self.gpu, _copy_in)
                self.weights = self._shared.pointer
            else:
                self.weights = self.copy_weights()
                weakref.finalize(self, _free, self.gpu, self.weights).atexit = False

    @property
    def kernels(self) -> Mapping[str, Kernel]:
        """The loaded kernels by id."""
        return self._modules.kernels

    def copy_weights(self) -> int:
        """A copy of the weights in device memory that the caller releases."""
        nbytes = self.data.weights_bytes
        pointer = self.gpu.allocate(nbytes, "the engine's weights")
        _copy_in(pointer, self.data.weights_address, nbytes)
        return pointer

    def accept(self, value: object, name: str) -> Value:
        with self.gpu.active():
            return array.accept(value, name, self.gpu)

    def accept_output(self, value: object, name: str) -> Value:
        with self.gpu.active():
            return array.accept(value, name, self.gpu, writable=True)

    def empty(self, dtype: str, shape: tuple[int, ...], inputs: Sequence[Value]) -> Value:
        if any(value.device not in ("cpu", "host") for value in inputs):
            with self.gpu.active():
                return DeviceArray(self.gpu, dtype, shape, self.gpu.stream()).value()
        host = np.empty(shape, numpy_dtype(dtype))
        return Value(host.ctypes.data, dtype, shape, host.nbytes, host)

    def deliver(self, value: Value) -> Any:
        return value.owner

    def context(self) -> Context:
        return CudaContext(self)

    def describe(self) -> Mapping[str, Any]:
        device = self.gpu.device
        return {
            "device": device.name,
            "arch": device.arch,
            "multiprocessors": device.multiprocessors,
            "memory": device.memory,
            "l2": device.l2,
            "driver": device.driver,
        }


def _copy_in(pointer: int, source: int, nbytes: int) -> None:
    check(api().cuMemcpyHtoD(pointer, source, nbytes), "copy the weights to the device")


class CudaContext(ProgramContext):
    """One caller's state: arena, staging for host tensors, pool buffers and graphs."""

    def __init__(self, executor: CudaExecutor) -> None:
        super().__init__(executor.data)
        self.executor = executor
        self.gpu: Gpu = executor.gpu
        self.kernels = executor.kernels
        self.weights = executor.weights
        self.stream = 0
        self._align = int(self.data.arena["align"])
        self._arena_bytes = -1
        self._graphs: dict[int, OrderedDict[tuple[int, ...], Segment]] = {}
        self._symbols_in: dict[int, tuple[str, ...]] = {}
        self._copies_out: list[tuple[Value, int]] = []
        self._block_out: list[tuple[Value, int]] = []
        self._block_bytes = 0
        self._busy = False
        with self.gpu.active():
            self._in = Staging(self.gpu, "the inputs")
            self._out = Staging(self.gpu, "the outputs")
            self._done = self.gpu.event()
        self._held: dict[str, Any] = {"event": self._done}
        self._finalizer = weakref.finalize(self, _release, self.gpu, self._held)
        self._finalizer.atexit = False

    def run(self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]) -> None:
        with self.gpu.active():
            try:
                super().run(inputs, outputs, symbols)
            except BaseException:
                # Nothing may be under way when the memory is used again; this status matters less than the error.
                api().cuStreamSynchronize(self.stream)
                self._busy = False
                raise

    def bind(
        self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]
    ) -> Callable[[], None]:
        """A call of `run` with these arguments; where nothing has to be copied it only launches graphs."""
        if not self._copy_free(inputs, outputs):
            return super().bind(inputs, outputs, symbols)
        gpu = self.gpu
        with gpu.active():
            self.symbols = dict(symbols)
            self.begin(inputs, outputs)
            graphs = [self._graph(op) for op in self.data.schedule]

        def call() -> None:
            with gpu.active():
                self._enter(gpu.stream())
                for graph in graphs:
                    graph.launch(self)
                self._leave(inputs)

        return call

    def _copy_free(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> bool:
        segments = all(op["op"] == "segment" for op in self.data.schedule)
        return (
            segments
            and not self.host_inputs
            and self.executor.poison is None
            and all(map(self._in_place, (*inputs, *outputs)))
        )

    def _in_place(self, value: Value | None) -> bool:
        return value is not None and value.device != "cpu" and value.pointer % self._align == 0

    def result(self, index: int, inputs: Sequence[Value], into: Value | None = None) -> Value:
        facts = self.data.outputs[index]
        buffer = facts["buffer"]
        shape = self.shape(buffer)
        if into is None:
            into = self.executor.empty(facts["dtype"], shape, inputs)
        else:
            check_result(facts["name"], shape, into)
        with self.gpu.active():
            self._copy_out(into, self.pointer(buffer))
            if into.device == "cpu":
                self.gpu.synchronize(self.stream)
            else:
                self._mark()
        return into

    def address(self, slot: Slot) -> int:
        """Where an allocation is now."""
        space, index = slot
        if space == "input":
            return self.input_pointers[index]
        if space == "output":
            return self.output_pointers[index]
        return self.pool.get(index, 0)

    def close(self) -> None:
        with self.gpu.active():
            if self._busy:
                check(api().cuEventSynchronize(self._done), "finish the work given to it")
                self._busy = False
            super().close()
            self._drop_graphs()
            self._in.close()
            self._out.close()
            self._finalizer()

    # The primitives of ProgramContext.

    def begin(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> None:
        self._enter(self.gpu.stream())
        arena = evaluate(self.data.arena["bytes"], self.symbols)
        self._place_arena(arena)
        self._place_inputs(inputs)
        self._place_outputs(outputs)
        if self.executor.poison is not None:
            self._poison(self.arena, arena)
            for facts, pointer in zip(self.data.outputs, self.output_pointers, strict=True):
                if self.data.buffers[facts["buffer"]]["space"] == "output":
                    self._poison(pointer, self.nbytes(facts["buffer"]))

    def finish(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> None:
        for value, source in self._copies_out:
            self._copy_out(value, source)
        pinned = bool(self._out.pinned)
        if self._block_out and pinned:
            self._out.receive(self._block_bytes, self.stream)
        elif self._block_out:
            for value, offset in self._block_out:
                self._copy_out(value, self._out.device + offset)
        host = bool(self._block_out) or any(value.device == "cpu" for value, _ in self._copies_out)
        if host:
            self.gpu.synchronize(self.stream)
            self._busy = False
            if pinned:
                for value, offset in self._block_out:
                    self._out.get(offset, value.pointer, value.nbytes)
        else:
            self._leave(inputs)

    def segment(self, op: Op) -> None:
        self._graph(op).launch(self)

    def _graph(self, op: Op) -> Segment:
        """The segment's graph for the symbols' values now."""
        key = id(op)
        names = self._symbols_in.get(key)
        if names is None:
            names = self._symbols_in[key] = symbols_in(op, self.data.buffers)
        graphs = self._graphs.setdefault(key, OrderedDict())
        values = tuple(self.symbols.get(name, 0) for name in names)
        graph = graphs.get(values)
        if graph is None:
            if len(graphs) >= GRAPHS_PER_SEGMENT:
                # Launches of it may be under way; the driver keeps what they need. In a loop whose extents grow no
                # values come twice, and changing a graph is much faster than making one.
                oldest = graphs.popitem(last=False)[1]
                if oldest.retarget(self):
                    graph = oldest
                else:
                    oldest.close()
            graph = graphs[values] = graph or Segment(op, self)
        elif len(graphs) > 1:
            graphs.move_to_end(values)
        return graph

    def time_segment(self, op: Op) -> list[LaunchTime]:
        return time_segment(op, self)

    def allocate(self, nbytes: int) -> int:
        pointer = self.gpu.allocate_ordered(nbytes, self.stream, "a buffer whose size data decides")
        if self.executor.poison is not None:
            self._poison(pointer, nbytes)
        return pointer

    def free(self, pointer: int) -> None:
        self.gpu.release_ordered(pointer, self.stream)

    def read(self, pointer: int, nbytes: int) -> bytearray:
        content = bytearray(nbytes)
        if nbytes:
            address = ctypes.addressof(ctypes.c_char.from_buffer(content))
            check(api().cuMemcpyDtoHAsync(address, pointer, nbytes, self.stream), "copy to the host")
        self.gpu.synchronize(self.stream)
        return content

    def write(self, pointer: int, content: bytes | bytearray | memoryview) -> None:
        source = np.frombuffer(content, np.uint8)
        if source.nbytes:
            result = api().cuMemcpyHtoDAsync(pointer, source.ctypes.data, source.nbytes, self.stream)
            check(result, "copy to the device")

    def move(self, destination: int, source: int, nbytes: int) -> None:
        if nbytes:
            check(api().cuMemcpyDtoDAsync(destination, source, nbytes, self.stream), "copy on the device")

    # Placing a call's memory.

    def _enter(self, stream: int) -> None:
        if self._busy and stream != self.stream:
            check(api().cuStreamWaitEvent(stream, self._done, 0), "wait for the call before")
        self.stream = stream

    def _leave(self, inputs: Sequence[Value]) -> None:
        self._mark()
        for value in inputs:
            # Its memory is freed in the order of its own stream.
            if isinstance(value.owner, DeviceArray):
                self.gpu.join(value.owner.stream, self.stream)

    def _poison(self, pointer: int, nbytes: int) -> None:
        if nbytes:
            check(api().cuMemsetD8Async(pointer, self.executor.poison, nbytes, self.stream), "poison memory")

    def _place_arena(self, nbytes: int) -> None:
        if nbytes <= self._arena_bytes:
            return
        if self.arena:
            self._drop_graphs()
            self.gpu.release(self._held.pop("arena"))  # waits for the work that uses it
            self.arena, self._arena_bytes = 0, -1
        self.arena = self._held["arena"] = self.gpu.allocate(nbytes, "the engine's arena")
        self._arena_bytes = nbytes

    def _place_inputs(self, inputs: Sequence[Value]) -> None:
        staged: list[int] = []
        for index, value in enumerate(inputs):
            if self._in_place(value):
                self.input_pointers[index] = value.pointer
            else:
                staged.append(index)
        if not staged:
            return
        if self._busy:
            check(api().cuEventSynchronize(self._done), "finish the work given to it")
            self._busy = False
        offsets, total = self._in.reserve([inputs[index].nbytes for index in staged])
        pinned = bool(self._in.pinned) and all(inputs[index].device == "cpu" for index in staged)
        for index, offset in zip(staged, offsets, strict=True):
            value, destination = inputs[index], self._in.device + offset
            self.input_pointers[index] = destination
            if not value.nbytes:
                continue
            if pinned:
                self._in.put(offset, value.pointer, value.nbytes)
            elif value.device == "cpu":
                result = api().cuMemcpyHtoDAsync(destination, value.pointer, value.nbytes, self.stream)
                check(result, "copy an input to the device")
            else:
                self.move(destination, value.pointer, value.nbytes)
        if pinned and total:
            self._in.send(total, self.stream)

    def _place_outputs(self, outputs: Sequence[Value | None]) -> None:
        self._copies_out, self._block_out = [], []
        blocked: list[int] = []
        for index, value in enumerate(outputs):
            entry = self.data.buffers[self.data.outputs[index]["buffer"]]
            if entry["space"] != "output":
                continue
            if value is not None and self._in_place(value):
                self.output_pointers[index] = value.pointer
            else:
                blocked.append(index)
        sizes = [self.nbytes(self.data.outputs[index]["buffer"]) for index in blocked]
        offsets, self._block_bytes = self._out.reserve(sizes) if blocked else ([], 0)
        for index, offset in zip(blocked, offsets, strict=True):
            self.output_pointers[index] = self._out.device + offset
            value = outputs[index]
            if value is None or not value.nbytes:
                continue
            if value.device == "cpu":
                self._block_out.append((value, offset))
            else:
                self._copies_out.append((value, self.output_pointers[index]))

    def _copy_out(self, value: Value, source: int) -> None:
        if not value.nbytes:
            return
        if value.device == "cpu":
            result = api().cuMemcpyDtoHAsync(value.pointer, source, value.nbytes, self.stream)
            check(result, "copy an output to the host")
        else:
            self.move(value.pointer, source, value.nbytes)

    def _mark(self) -> None:
        check(api().cuEventRecord(self._done, self.stream), "record an event")
        self._busy = True

    def _drop_graphs(self) -> None:
        for graphs in self._graphs.values():
            for graph in graphs.values():
                graph.close()
        self._graphs.clear()


def _free(gpu: Gpu, pointer: int) -> None:
    with gpu.active():
        gpu.release(pointer)


def _release(gpu: Gpu, held: dict[str, Any]) -> None:
    with gpu.active():
        let_go(api().cuEventDestroy(held["event"]), "destroy an event")
        if "arena" in held:
            gpu.release(held["arena"])
