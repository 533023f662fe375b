# SPDX-License-Identifier: Apache-2.0
"""Running a schedule program (spec/engine.md, section 4): everything but the segments, for any device."""

from __future__ import annotations

import importlib
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.errors import FailureError
from tcc.runtime import host_values
from tcc.runtime.container import EngineData
from tcc.runtime.dtypes import dtype_name, numpy_dtype
from tcc.runtime.executor import Context, LaunchTime, Value
from tcc.runtime.expr import evaluate, show

Op = dict[str, Any]
Place = dict[str, Any]
_LEAST = 64
"""Bytes of the smallest allocation: a kernel may read the first element of an empty tensor, and throw it away."""


class ProgramContext(Context):
    """A context whose control flow runs on the host over a device's primitives.

    `pointer` places any buffer. A subclass sets `arena` and `weights` (addresses), and fills `input_pointers` and
    `output_pointers` in `begin`.
    """

    def __init__(self, data: EngineData) -> None:
        self.data = data
        self.symbols: dict[str, int] = {}
        self.arena = 0
        self.weights = 0
        self.input_pointers: list[int] = [0] * len(data.inputs)
        self.output_pointers: list[int] = [0] * len(data.outputs)
        self.pool: dict[int, int] = {}
        self.host_inputs = {b: i for i, b in enumerate(p["buffer"] for p in data.inputs) if self._on_host(b)}
        """Position of each input that lives on the host, by its buffer."""
        self._objects: dict[int, Any] = {}
        self._pool_bytes: dict[int, int] = {}
        self._times: list[LaunchTime] | None = None

    # What a device provides.

    @abstractmethod
    def begin(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> None:
        """Get ready for a run: the arena (its size may depend on `symbols`), the pointers, staged inputs."""

    @abstractmethod
    def finish(self, inputs: Sequence[Value], outputs: Sequence[Value | None]) -> None:
        """End a run: host outputs hold their values."""

    @abstractmethod
    def segment(self, op: Op) -> None:
        """Run a segment."""

    @abstractmethod
    def time_segment(self, op: Op) -> list[LaunchTime]:
        """Run a segment op by op, timing each."""

    @abstractmethod
    def allocate(self, nbytes: int) -> int:
        """The address of at least `nbytes` of memory for a pool buffer (never 0), aligned as the arena is."""

    @abstractmethod
    def free(self, pointer: int) -> None:
        """Give back what `allocate` returned; work that uses it may still be under way on the device."""

    @abstractmethod
    def read(self, pointer: int, nbytes: int) -> bytearray:
        """Wait for the device, then read memory."""

    @abstractmethod
    def write(self, pointer: int, content: bytes | bytearray | memoryview) -> None:
        """Write memory, ordered after the work before it."""

    @abstractmethod
    def move(self, destination: int, source: int, nbytes: int) -> None:
        """Copy memory on the device, ordered after the work before it; the two do not overlap."""

    # Places.

    def pointer(self, buffer: int, offset: Any = 0) -> int:
        """The address of a buffer (plus an offset expression in bytes)."""
        extra = 0 if offset == 0 else evaluate(offset, self.symbols)
        entry = self.data.buffers[buffer]
        space = entry["space"]
        if space == "view":
            extra += evaluate(entry["offset"], self.symbols)
            buffer = entry["of"]
            entry = self.data.buffers[buffer]
            space = entry["space"]
        if space == "arena":
            return self.arena + evaluate(entry["offset"], self.symbols) + extra
        if space == "weight":
            return self.weights + entry["offset"] + extra
        if space == "input":
            return self.input_pointers[entry["position"]] + extra
        if space == "output":
            return self.output_pointers[entry["position"]] + extra
        try:
            return self.pool[buffer] + extra
        except KeyError:
            raise FailureError(f"buffer {buffer} of the engine's pool is used before it is allocated") from None

    def at(self, place: Place) -> int:
        """The address of a place."""
        return self.pointer(place["buffer"], place.get("offset", 0))

    def nbytes(self, buffer: int) -> int:
        """The size of a buffer in bytes."""
        return evaluate(self.data.buffers[buffer]["bytes"], self.symbols)

    def shape(self, buffer: int) -> tuple[int, ...]:
        """The shape of a buffer."""
        return tuple(evaluate(d, self.symbols) for d in self.data.buffers[buffer]["shape"])

    def _on_host(self, buffer: int) -> bool:
        return self.data.buffers[buffer]["space"] == "host"

    def fetch(self, buffer: int) -> Any:
        """A host copy of a buffer; of one on the host the object itself, which nobody may change."""
        if self._on_host(buffer):
            if buffer not in self._objects and "strings" in self.data.buffers[buffer]:
                self._objects[buffer] = host_values.constant(self.data.buffers[buffer])
            try:
                return self._objects[buffer]
            except KeyError:
                raise FailureError(
                    f"buffer {buffer} of the engine, on the host, is read before it is written"
                ) from None
        dtype, shape = numpy_dtype(self.data.buffers[buffer]["dtype"]), self.shape(buffer)
        content = self.read(self.pointer(buffer), self.nbytes(buffer))
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(content, dtype, count).reshape(shape) if count else np.empty(shape, dtype)

    # Running.

    def run(self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]) -> None:
        self._release_pool()
        self.symbols = dict(symbols)
        self._objects = {buffer: inputs[i].owner for buffer, i in self.host_inputs.items()}
        self.begin(inputs, outputs)
        self._run(self.data.schedule)
        self.finish(inputs, outputs)

    def host_result(self, index: int) -> Value:
        owner = host_values.copied(self.fetch(self.data.outputs[index]["buffer"]))
        return Value(0, "", host_values.form_of(owner), 0, owner, host_values.DEVICE)

    def profile(
        self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]
    ) -> list[LaunchTime]:
        self._times = []
        try:
            self.run(inputs, outputs, symbols)
            return self._times
        finally:
            self._times = None

    def close(self) -> None:
        self._release_pool()

    def _run(self, ops: list[Op]) -> None:
        for op in ops:
            kind = op["op"]
            if kind == "segment":
                if self._times is None:
                    self.segment(op)
                else:
                    self._times += self.time_segment(op)
            elif kind == "if":
                taken = self.read(self.pointer(op["cond"]), 1)[0]
                self._run(op["then"] if taken else op["else"])
            elif kind == "loop":
                self._loop(op)
            elif kind == "host_call":
                self._host_call(op)
            elif kind == "assign":
                self._store(op["dst"], self.fetch(op["src"]), "if")
            elif kind == "alloc":
                self._alloc(op["buffer"], self.nbytes(op["buffer"]))
            elif kind == "let" and "value" in op:
                self.symbols[op["symbol"]] = evaluate(op["value"], self.symbols)
            elif kind == "let":
                dtype = numpy_dtype(op["dtype"])
                content = self.read(self.at(op["src"]), dtype.itemsize)
                value = int(np.frombuffer(content, dtype)[0])
                if value < op.get("min", value):
                    nodes = ", ".join(op.get("loc", ())) or "the graph"
                    raise FailureError(f"the operands of {nodes} do not fit: an extent comes out as {value}")
                self.symbols[op["symbol"]] = value
            else:
                raise FailureError(f"the engine's schedule has an op '{kind}' that this runtime does not know")

    def _loop(self, op: Op) -> None:
        trip: int | None = None
        if op.get("trip") is not None:
            trip = int(np.frombuffer(self.read(self.at(op["trip"]), 8), np.int64)[0])
        elif op.get("trip_expr") is not None:
            trip = evaluate(op["trip_expr"], self.symbols)
        cond, iteration, done = op.get("cond"), op.get("iteration"), 0
        scans, carried, extents = op.get("scan", ()), op.get("carried", ()), op.get("extents", ())
        for scan in scans:
            if self._in_pool(scan["to"]):
                # Extents inside may be bound by the first iteration only: it grows as it is filled.
                self._alloc(scan["to"], 0)
        while trip is None or done < trip:
            if cond is not None and not self.read(self.pointer(cond), 1)[0]:
                break
            if iteration is not None:
                self.write(self.pointer(iteration), done.to_bytes(8, "little"))
            self._run(op["body"])
            for scan in scans:
                element = self.nbytes(scan["from"])
                if element:
                    if self._in_pool(scan["to"]):
                        self._grow(scan["to"], done * element, (done + 1) * element)
                    self.move(self.pointer(scan["to"]) + done * element, self.pointer(scan["from"]), element)
            following = {e["symbol"]: evaluate(e["next"], self.symbols) for e in extents}
            objects = [(pair["var"], self.fetch(pair["next"])) for pair in carried if self._on_host(pair["var"])]
            for pair in carried:
                if not self._on_host(pair["var"]):
                    self._carry(pair)
            self.symbols.update(following)
            for var, value in objects:
                self._store(var, value, "loop")
            done += 1
        if op.get("count") is not None:
            self.symbols[op["count"]] = done

    def _carry(self, pair: Op) -> None:
        """Give a variable its next value."""
        var, following = pair["var"], pair["next"]
        if pair.get("swap"):
            for table in (self.pool, self._pool_bytes):
                table[var], table[following] = table[following], table[var]
            return
        nbytes = self.nbytes(following)
        if self._in_pool(var):
            self._alloc(var, nbytes)
        self.move(self.pointer(var), self.pointer(following), nbytes)

    def _in_pool(self, buffer: int) -> bool:
        return self.data.buffers[buffer]["space"] == "pool"

    def _host_call(self, op: Op) -> None:
        reference = importlib.import_module("tcc.reference")
        function = getattr(reference, op["function"], None)
        if function is None or op["function"].startswith("_"):
            raise FailureError(f"the engine calls '{op['function']}' on the host, which this runtime does not have")
        arrays = [None if i is None else self.fetch(i) for i in op["inputs"]]
        attrs = {name: self._attr(value) for name, value in op.get("attrs", {}).items()}
        timer = _Timer(self._times)
        try:
            results = function(*arrays, **attrs)
        except ImportError as error:
            raise FailureError(str(error)) from None
        except ValueError as error:
            nodes = ", ".join(op.get("loc", ())) or "the graph"
            raise FailureError(f"'{op['function']}' (of {nodes}) cannot take these values: {error}") from None
        timer.stop(op["function"], "host_call", op)
        results = results if isinstance(results, tuple) else (results,)
        for name in op.get("binds", ()):
            self.symbols.pop(name, None)
        for buffer, result in zip(op["outputs"], results, strict=False):
            if buffer is not None:
                self._store(buffer, result, op["function"])

    def _store(self, buffer: int, value: Any, function: str) -> None:
        entry = self.data.buffers[buffer]
        if "dtype" not in entry:
            self._objects[buffer] = value
            return
        result = np.asarray(value)
        if dtype_name(result.dtype) != entry["dtype"]:
            raise FailureError(
                f"the host call '{function}' gave {dtype_name(result.dtype)} where the engine expects {entry['dtype']}"
            )
        for dim, extent in zip(entry["shape"], result.shape, strict=False):
            if isinstance(dim, str) and dim not in self.symbols:
                self.symbols[dim] = extent
        if len(entry["shape"]) != result.ndim or self.shape(buffer) != result.shape:
            wanted = "x".join(show(d) for d in entry["shape"])
            given = "x".join(map(str, result.shape))
            raise FailureError(f"the host call '{function}' gave the shape {given} where the engine expects {wanted}")
        if entry["space"] == "host":
            self._objects[buffer] = result
            return
        if entry["space"] == "pool":
            self._alloc(buffer, self.nbytes(buffer))
        if result.nbytes:
            self.write(self.pointer(buffer), np.ascontiguousarray(result).reshape(-1).view(np.uint8).data)

    def _attr(self, value: Any) -> Any:
        if isinstance(value, dict) and "dtype" in value:
            return numpy_dtype(value["dtype"])
        if isinstance(value, dict) and "tensor" in value:
            return self.fetch(value["tensor"])
        return value

    # The pool.

    def _alloc(self, buffer: int, nbytes: int) -> None:
        if self._pool_bytes.get(buffer, -1) >= nbytes:
            return
        if buffer in self.pool:
            self.free(self.pool.pop(buffer))
        self.pool[buffer] = self.allocate(max(nbytes, _LEAST))
        self._pool_bytes[buffer] = max(nbytes, _LEAST)

    def _grow(self, buffer: int, used: int, needed: int) -> None:
        if self._pool_bytes.get(buffer, -1) >= needed:
            return
        old = self.pool.get(buffer)
        capacity = max(needed, 2 * used)
        new = self.allocate(capacity)
        if old is not None:
            if used:
                self.move(new, old, used)
            self.free(old)
        self.pool[buffer], self._pool_bytes[buffer] = new, capacity

    def _release_pool(self) -> None:
        for pointer in self.pool.values():
            self.free(pointer)
        self.pool.clear()
        self._pool_bytes.clear()


class _Timer:
    """Times one host call where a profile is being made."""

    def __init__(self, times: list[LaunchTime] | None) -> None:
        self._times = times
        self._start = time.perf_counter()

    def stop(self, name: str, kind: str, op: Op) -> None:
        if self._times is not None:
            self._times.append(LaunchTime(name, kind, time.perf_counter() - self._start, tuple(op.get("loc", ()))))
