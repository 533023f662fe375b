# SPDX-License-Identifier: Apache-2.0
"""Timing on the CPU for the search: many repeats of an engine in one native call.

Successive repeats use different copies of all buffers, weights too, so that a kernel finds in the caches what it would
find in the model and no more. Nothing of Python is inside the measured time.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.errors import FailureError, InputError
from tcc.runtime.cpu import memory
from tcc.runtime.cpu.executor import CpuContext, CpuExecutor
from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.engine import Engine
from tcc.runtime.executor import Value
from tcc.runtime.expr import evaluate
from tcc.runtime.signature import Signature

MAX_REPEATS = 4096
MAX_BYTES = 512 << 20
"""How much memory the copies of one timer may take together."""


class Timer:
    """An engine made ready to be timed; `sample` may be called any number of times, between other timers' samples.

    `rotate_bytes` are the bytes that the repeats should touch before they come back to the first buffers (the model's
    weights, say); `seconds` is about what one sample takes. `repeats` and `sets` say what came of that. An engine with
    control flow or host calls is refused with a FailureError.

    With `turns` nothing is copied: the repeats take the inputs as they are, and in turn those of `turns` in place
    of the ones of the same names, so that some inputs (constants) come from far and others from near, as in a model.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Mapping[str, Any] | Sequence[Any],
        *,
        rotate_bytes: int = 0,
        seconds: float = 2e-3,
        turns: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        executor = engine.executor
        if not isinstance(executor, CpuExecutor):
            raise FailureError(f"an engine for {engine.data.target['name']} cannot be timed on the CPU")
        schedule = engine.data.schedule
        if [op["op"] for op in schedule] != ["segment"]:
            raise FailureError(
                "an engine with control flow, host calls or nothing to run cannot be timed as one segment"
            )
        self._executor = executor
        self._segment = executor.library.address(schedule[0]["name"])
        self._repeat = executor.library.address("tcc_repeat")
        ordered = [inputs[spec.name] for spec in engine.inputs] if isinstance(inputs, Mapping) else list(inputs)
        values = [executor.accept(value, spec.name) for value, spec in zip(ordered, engine.inputs, strict=True)]
        symbols = Signature(engine.data).check(values)
        self._at = 0
        self._sets: list[_Set] = []
        self._held: _Held | None = None
        if turns is not None:
            self._held = _Held(executor, values, symbols, [spec.name for spec in engine.inputs], turns)
            self._tables = self._held.addresses
            self.sets = len(self._tables)
            self.repeats = 1
            self.sample()
            self.repeats = max(1, min(int(seconds / max(self.sample(), 1e-8)), MAX_REPEATS))
            return
        first = _Set(executor, values, symbols)
        wanted = -(-rotate_bytes // max(first.nbytes, 1))
        self.sets = max(1, min(wanted, MAX_BYTES // max(first.nbytes, 1), MAX_REPEATS))
        self._sets = [first, *(_Set(executor, values, symbols) for _ in range(1, self.sets))]
        self._tables = [held.table for held in self._sets]
        self.repeats = self.sets
        self.sample()
        once = max(self.sample(), 1e-8)
        self.repeats = self.sets * max(1, min(int(seconds / once / self.sets), MAX_REPEATS // self.sets))
        self.sample()

    def sample(self) -> float:
        """Seconds for one repeat, over `repeats` of them."""
        addresses = [self._tables[(self._at + i) % self.sets] for i in range(self.repeats)]
        self._at = (self._at + self.repeats) % self.sets
        tables = (ctypes.c_int64 * self.repeats)(*addresses)
        table = (ctypes.c_int64 * 7)(self._segment, self.repeats, ctypes.addressof(tables))
        self._executor.runner.run(self._repeat, ctypes.addressof(table))
        return ((table[5] - table[3]) + (table[6] - table[4]) * 1e-9) / self.repeats

    def outputs(self) -> list[np.ndarray]:
        """What the first copy of the engine computed, for outputs in memory of their own."""
        outputs = self._sets[0].outputs if self._held is None else self._held.outputs
        return [value.owner for value in outputs if value is not None]

    def close(self) -> None:
        """Frees what the timer holds."""
        self._sets = []
        self._held = None


class _Held:
    """Tables of one context over the caller's own arrays, one for each turn."""

    def __init__(
        self,
        executor: CpuExecutor,
        inputs: Sequence[Value],
        symbols: Mapping[str, int],
        names: Sequence[str],
        turns: Sequence[Mapping[str, Any]],
    ) -> None:
        data = executor.data
        self._context = CpuContext(executor)
        self._inputs = list(inputs)
        self.outputs: list[Value | None] = []
        for facts in data.outputs:
            direct = data.buffers[facts["buffer"]]["space"] == "output"
            shape = tuple(evaluate(dim, symbols) for dim in facts["shape"]) if direct else ()
            nbytes = math.prod(shape) * numpy_dtype(facts["dtype"]).itemsize
            flat = memory.aligned_empty(nbytes).view(numpy_dtype(facts["dtype"]))
            self.outputs.append(memory.host_value(flat.reshape(shape)) if direct else None)
        self._bound = self._context.bind(self._inputs, self.outputs, symbols)
        first = self._context.table_address
        self._tables: list[Any] = []
        self.addresses = [first]
        slots = self._context.table_slots
        for turn in turns:
            table = (ctypes.c_int64 * slots).from_buffer_copy(ctypes.string_at(first, 8 * slots))
            for name, array in turn.items():
                at = names.index(name)
                value = executor.accept(array, name)
                if (value.dtype, value.shape) != (inputs[at].dtype, inputs[at].shape):
                    raise InputError(f"the turns of the input '{name}' differ in dtype or shape")
                self._inputs.append(value)
                table[2 + at] = value.pointer
            self._tables.append(table)
            self.addresses.append(ctypes.addressof(table))


class _Set:
    """One copy of everything an engine touches."""

    def __init__(self, executor: CpuExecutor, inputs: Sequence[Value], symbols: Mapping[str, int]) -> None:
        data = executor.data
        self._context = CpuContext(executor)
        self._weights = memory.aligned_empty(data.weights_bytes, 4096)
        if data.weights_bytes:
            ctypes.memmove(self._weights.ctypes.data, data.weights_address, data.weights_bytes)
            self._context.weights = int(self._weights.ctypes.data)
        self._inputs = [_copy(value.owner) for value in inputs]
        self.outputs: list[Value | None] = []
        for facts in data.outputs:
            direct = data.buffers[facts["buffer"]]["space"] == "output"
            shape = tuple(evaluate(dim, symbols) for dim in facts["shape"]) if direct else ()
            self.outputs.append(executor.empty(facts["dtype"], shape, self._inputs) if direct else None)
        self._bound = self._context.bind(self._inputs, self.outputs, symbols)
        self.table = self._context.table_address
        arena = evaluate(data.arena["bytes"], symbols)
        held = sum(value.nbytes for value in (*self._inputs, *self.outputs) if value is not None)
        self.nbytes = held + data.weights_bytes + arena


def _copy(array: np.ndarray) -> Value:
    """A copy that is aligned as an engine's own buffers are."""
    flat = memory.aligned_empty(array.nbytes).view(array.dtype).reshape(array.shape)
    flat[...] = array
    return memory.host_value(flat)
