# SPDX-License-Identifier: Apache-2.0
"""Engines on the CPU: the executor links the native code, a context holds an arena and the table segments work from."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm
import ml_dtypes
import numpy as np

from tcc.errors import FailureError
from tcc.runtime.container import EngineData
from tcc.runtime.cpu import memory, team
from tcc.runtime.cpu.objects import ObjectLibrary
from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.executor import Executor, LaunchTime, Value, check_result
from tcc.runtime.expr import evaluate, symbols_of
from tcc.runtime.program import Op, ProgramContext

_SPARE_BLOCKS, _SPARE_BYTES = 32, 1 << 28
_SMALL_COPY, _SMALL_LAUNCH = 1 << 14, 1 << 13
"""Bytes that one thread copies, and works on, faster than a team would."""
_FLOATS = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


class CpuExecutor(Executor):
    """An engine linked into this process.

    `poison` is a byte that fills the arena when a context makes it, to find what an engine reads and has not written
    (0xFF makes floats NaN); None, as in ordinary use, fills nothing.
    """

    poison: int | None = None

    def __init__(self, data: EngineData) -> None:
        super().__init__(data)
        check_target(data)
        if data.native is None:
            raise FailureError(f"the engine {data.name} has no native code: build it again")
        binaries = dict.fromkeys([k["files"]["binary"] for k in data.kernels.values()] + [data.native["binary"]])
        self.segments = _segment_names(data.schedule)
        self.entries = sorted({k["entry"] for k in data.kernels.values()})
        self.library = ObjectLibrary(
            [data.entry(name) for name in binaries], [*self.segments, *self.entries, *team.FUNCTIONS], data.name
        )
        self.runner = team.Runner(self.library, data.name)

    def accept(self, value: object, name: str) -> Value:
        return memory.accept(value, name)

    def accept_output(self, value: object, name: str) -> Value:
        return memory.accept_output(value, name)

    def empty(self, dtype: str, shape: tuple[int, ...], inputs: Sequence[Value]) -> Value:
        try:
            array = np.empty(shape, numpy_dtype(dtype))
        except MemoryError:
            raise FailureError(f"out of memory for an output of the shape {shape} and type {dtype}") from None
        return memory.host_value(array)

    def deliver(self, value: Value) -> np.ndarray:
        return value.owner

    def context(self) -> CpuContext:
        return CpuContext(self)

    def describe(self) -> Mapping[str, Any]:
        return {"device": llvm.get_host_cpu_name(), "threads": team.num_threads()}


class CpuContext(ProgramContext):
    """One caller's arena, pool and table."""

    def __init__(self, executor: CpuExecutor) -> None:
        data = executor.data
        super().__init__(data)
        self.executor = executor
        self.weights = data.weights_address
        self._blocks: dict[int, np.ndarray] = {}
        self._spare: dict[int, np.ndarray] = {}
        """Blocks of the pool that were given back, oldest first."""
        self._arena = memory.aligned_empty(0)
        self._pools = [i for i, buffer in enumerate(data.buffers) if buffer["space"] == "pool"]
        self._names = [symbol["name"] for symbol in data.symbols]
        slots = 2 + len(data.inputs) + len(data.outputs) + len(self._pools) + len(self._names)
        self.table_slots = slots
        self._table = (ctypes.c_int64 * slots)()
        self.table_address = ctypes.addressof(self._table)
        self._shared: dict[str, list[tuple[Any, int]]] = {}
        self._functions = {name: executor.library.address(name) for name in executor.segments}
        schedule = data.schedule
        plain = [op["op"] for op in schedule] == ["segment"] and not self.host_inputs
        self._only = self._functions[schedule[0]["name"]] if plain else None
        shared = _shared(schedule[0], data.buffers) if plain else []
        self._alone = all(not symbols_of(e) and evaluate(e, {}) <= most for e, most in shared)
        self._fixed = evaluate(data.arena["bytes"], {}) if isinstance(data.arena["bytes"], int) else None

    def run(self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]) -> None:
        if self._only is None or self._times is not None:
            super().run(inputs, outputs, symbols)
            return
        self.symbols = dict(symbols)
        self.begin(inputs, outputs)
        self._fill_symbols()
        self.executor.runner.run(self._only, self.table_address, self._alone)

    def bind(
        self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]
    ) -> Callable[[], None]:
        if self._only is None:
            return super().bind(inputs, outputs, symbols)
        self.symbols = dict(symbols)
        self.begin(inputs, outputs)
        self._fill_symbols()
        run, function, table, alone = self.executor.runner.run, self._only, self.table_address, self._alone
        return lambda: run(function, table, alone)

    def begin(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> None:
        size = self._fixed if self._fixed is not None else evaluate(self.data.arena["bytes"], self.symbols)
        if self._arena.nbytes < size or not self.arena:
            self._arena = memory.aligned_empty(size)
            if self.executor.poison is not None:
                self._arena[:] = self.executor.poison
            self.arena = int(self._arena.ctypes.data)
        table = self._table
        table[0], table[1] = self.arena, self.weights
        slot = 2
        for i, value in enumerate(inputs):
            table[slot] = self.input_pointers[i] = value.pointer
            slot += 1
        for i, value in enumerate(outputs):
            table[slot] = self.output_pointers[i] = 0 if value is None else value.pointer
            slot += 1

    def finish(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> None:
        return None

    def result(self, index: int, inputs: Sequence[Value], into: Value | None = None) -> Value:
        spec = self.data.outputs[index]
        shape = tuple(evaluate(d, self.symbols) for d in spec["shape"])
        if into is None:
            into = self.executor.empty(spec["dtype"], shape, inputs)
        else:
            check_result(spec["name"], shape, into)
        self.move(into.pointer, self.pointer(spec["buffer"]), into.nbytes)
        return into

    def segment(self, op: Op) -> None:
        self._fill_symbols()
        name = op["name"]
        shared = self._shared.get(name)
        if shared is None:
            shared = self._shared[name] = _shared(op, self.data.buffers)
        alone = all(evaluate(e, self.symbols) <= most for e, most in shared)
        self.executor.runner.run(self._functions[name], self.table_address, alone)

    def time_segment(self, op: Op) -> list[LaunchTime]:
        return [self._time(part, op["name"]) for part in op["body"]]

    def allocate(self, nbytes: int) -> int:
        # What one run gave back the next asks for again: fresh memory costs a page fault every 4 KiB.
        fitting = [p for p, block in self._spare.items() if nbytes <= block.nbytes <= 2 * nbytes]
        if fitting:
            pointer = min(fitting, key=lambda p: self._spare[p].nbytes)
            self._blocks[pointer] = self._spare.pop(pointer)
            return pointer
        block = memory.aligned_empty(nbytes)
        pointer = int(block.ctypes.data)
        self._blocks[pointer] = block
        return pointer

    def free(self, pointer: int) -> None:
        self._spare[pointer] = self._blocks.pop(pointer)
        while len(self._spare) > _SPARE_BLOCKS or sum(b.nbytes for b in self._spare.values()) > _SPARE_BYTES:
            del self._spare[next(iter(self._spare))]

    def close(self) -> None:
        super().close()
        self._spare.clear()

    def read(self, pointer: int, nbytes: int) -> bytearray:
        return bytearray(ctypes.string_at(pointer, nbytes))

    def write(self, pointer: int, content: bytes | bytearray | memoryview) -> None:
        ctypes.memmove(pointer, bytes(content), len(content))

    def move(self, destination: int, source: int, nbytes: int) -> None:
        ctypes.memmove(destination, source, nbytes)

    def _fill_symbols(self) -> None:
        """Bring the table's pool and symbol slots up to date; one without a value yet is not used by the next
        segment.
        """
        slot = 2 + len(self.data.inputs) + len(self.data.outputs)
        for buffer in self._pools:
            self._table[slot] = self.pool.get(buffer, 0)
            slot += 1
        for name in self._names:
            self._table[slot] = self.symbols.get(name, 0)
            slot += 1

    def _time(self, op: Op, segment: str) -> LaunchTime:
        loc = tuple(op.get("loc", ()))
        if op["op"] != "launch":
            start = time.perf_counter()
            nbytes = evaluate(op["bytes"], self.symbols)
            if op["op"] == "copy":
                self.move(self.at(op["dst"]), self.at(op["src"]), nbytes)
            else:
                ctypes.memset(self.at(op["dst"]), op["value"], nbytes)
            return LaunchTime(op["op"], op["op"], time.perf_counter() - start, loc, segment)
        args = (ctypes.c_int64 * max(len(op["params"]), 1))(*[self._slot(p) for p in op["params"]])
        tasks = evaluate(op["tasks"], self.symbols)
        library = self.executor.library
        kernel = library.address(self.data.kernels[op["kernel"]]["entry"])
        table = (ctypes.c_int64 * 8)(kernel, tasks, ctypes.addressof(args), 0, 0, 0, 0, op.get("waves", 1))
        self.executor.runner.run(library.address("tcc_timed"), ctypes.addressof(table))
        seconds = (table[5] - table[3]) + (table[6] - table[4]) * 1e-9
        return LaunchTime(op["kernel"], "launch", seconds, loc, segment)

    def _slot(self, param: Mapping[str, Any]) -> int:
        """The 8-byte slot of a launch parameter, as the segment function would store it."""
        if "buffer" in param:
            return self.pointer(param["buffer"], param.get("offset", 0))
        value, dtype = param["scalar"], param["dtype"]
        if dtype in _FLOATS:
            content = np.array(float(value), _FLOATS[dtype]).tobytes()
            return int.from_bytes(content.ljust(8, b"\0"), "little", signed=True)
        return evaluate(value, self.symbols)


def _shared(segment: Op, buffers: Sequence[Op]) -> list[tuple[Any, int]]:
    """(bytes that an op touches, up to which there is nothing to share) for the ops that workers may share. A team
    takes longer to wake than small work takes, which is what the body of a loop often is."""
    found: list[tuple[Any, int]] = []
    for op in segment["body"]:
        if op["op"] != "launch":
            found.append((op["bytes"], _SMALL_COPY))
        elif not op.get("serial"):
            touched = [buffers[i]["bytes"] for i in (*op["reads"], *op["writes"])]
            found.append((["add", *touched], _SMALL_LAUNCH))
    return found


def check_target(data: EngineData) -> None:
    """Refuse an engine for another kind of CPU or for features that this one lacks."""
    triple = str(data.target["triple"])
    here = f"{platform.machine()}-{sys.platform}"
    parts = triple.split("-")
    if parts[0] != platform.machine() or sys.platform not in triple:
        raise FailureError(f"the engine {data.name} is for {triple} and this machine is {here}: build it for this one")
    present = {name for name, is_present in llvm.get_host_cpu_features().items() if is_present}
    missing = sorted(set(data.target["features"]) - present)
    if missing:
        raise FailureError(
            f"the engine {data.name} needs the CPU features {', '.join(missing)}, which this CPU lacks: "
            "build it with --target native here"
        )


def _segment_names(ops: Sequence[Op]) -> list[str]:
    names: list[str] = []
    for op in ops:
        if op["op"] == "segment":
            names.append(op["name"])
        else:
            for part in ("body", "then", "else"):
                names += _segment_names(op.get(part, ()))
    return names
