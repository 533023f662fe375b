# SPDX-License-Identifier: Apache-2.0
"""Timing on the CPU for the search: many repeats of an engine in one native call.

Successive repeats use different copies of all buffers, weights too, so that a kernel finds in the caches what it would
find in the model and no more. Nothing of Python is inside the measured time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.errors import FailureError
from tcc.runtime.cpu import memory
from tcc.runtime.cpu.executor import CpuContext, CpuExecutor
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
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Mapping[str, Any] | Sequence[Any],
        *,
        rotate_bytes: int = 0,
        seconds: float = 2e-3,
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
        first = _Set(executor, values, symbols)
        wanted = -(-rotate_bytes // max(first.nbytes, 1))
        self.sets = max(1, min(wanted, MAX_BYTES // max(first.nbytes, 1), MAX_REPEATS))
        self._sets = [first, *(_Set(executor, values, symbols) for _ in range(1, self.sets))]
        self.repeats = self.sets
        self.sample()
        once = max(self.sample(), 1e-8)
        self.repeats = self.sets * max(1, min(int(seconds / once / self.sets), MAX_REPEATS // self.sets))
        self.sample()

    def sample(self) -> float:
        """Seconds for one repeat, over `repeats` of them."""
        addresses = [self._sets[i % self.sets].table for i in range(self.repeats)]
        tables = (ctypes.c_int64 * self.repeats)(*addresses)
        table = (ctypes.c_int64 * 7)(self._segment, self.repeats, ctypes.addressof(tables))
        self._executor.runner.run(self._repeat, ctypes.addressof(table))
        return ((table[5] - table[3]) + (table[6] - table[4]) * 1e-9) / self.repeats

    def outputs(self) -> list[np.ndarray]:
        """What the first copy of the engine computed, for outputs in memory of their own."""
        return [value.owner for value in self._sets[0].outputs if value is not None]

    def close(self) -> None:
        """Frees what the timer holds."""
        self._sets = []


class _Set:
    """One copy of everything an engine touches."""

    def __init__(self, executor: CpuExecutor, inputs: Sequence[Value], symbols: Mapping[str, int]) -> None:
        data = executor.data
        self._context = CpuContext(executor)
        self._weights = memory.aligned_empty(data.weights_bytes, 4096)
        if data.weights_bytes:
            ctypes.memmove(self._weights.ctypes.data, data.weights_address, data.weights_bytes)
            self._context.weights = int(self._weights.ctypes.data)
        self._inputs = [memory.host_value(np.array(value.owner)) for value in inputs]
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
