# SPDX-License-Identifier: Apache-2.0
"""Timing on the GPU for the search: one graph of many repeats of an engine, measured by events.

Successive repeats use different copies of all buffers, weights too, so that a kernel finds in the caches what it would
find in the model and no more. Repeats are ordered as calls are in a model: each after the one before, early where
its launches are marked `pdl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.errors import FailureError
from tcc.runtime.cuda.array import DeviceArray
from tcc.runtime.cuda.driver import api, check, let_go
from tcc.runtime.cuda.executor import CudaContext, CudaExecutor
from tcc.runtime.cuda.graph import Graph
from tcc.runtime.cuda.launch import resolve
from tcc.runtime.cuda.segment import ordering
from tcc.runtime.engine import Engine
from tcc.runtime.executor import Value
from tcc.runtime.expr import evaluate
from tcc.runtime.signature import Signature

MAX_NODES = 512
MAX_SETS = 64


class Timer:
    """An engine made ready to be timed; `sample` may be called any number of times, between other timers' samples.

    `rotate_bytes` are the bytes that the repeats should touch before they come back to the first buffers (the model's
    weights, say); `seconds` is about what one sample takes. `repeats` and `sets` say what came of that. An engine with
    control flow or host calls is refused with a FailureError.

    With `turns` only the inputs that they name are rotated: set i has those of turns[i-1], and shares all others with
    the first, so that some inputs (constants) come from far and the others from near, as in a model.
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
        if not isinstance(executor, CudaExecutor):
            raise FailureError(f"an engine for {engine.data.target['name']} cannot be timed on a GPU.")
        for op in engine.data.schedule:
            if op["op"] != "segment":
                raise FailureError(f"an engine whose schedule has '{op['op']}' cannot be timed as one graph.")
        self._executor = executor
        self._gpu = executor.gpu
        self._sets: list[_Set] = []
        self._graph: Graph | None = None
        ordered = [inputs[spec.name] for spec in engine.inputs] if isinstance(inputs, Mapping) else inputs
        with self._gpu.active():
            self._events = [self._gpu.event(timing=True) for _ in range(2)]
            try:
                self._prepare(engine, [np.asarray(value) for value in ordered], rotate_bytes, seconds, turns)
            except BaseException:
                self.close()
                raise

    def sample(self) -> float:
        """Seconds for one repeat, over one launch of the graph."""
        cu = api()
        assert self._graph is not None
        with self._gpu.active():
            stream = self._gpu.stream()
            check(cu.cuEventRecord(self._events[0], stream), "record an event")
            self._graph.launch(stream)
            check(cu.cuEventRecord(self._events[1], stream), "record an event")
            self._gpu.synchronize(stream)
            elapsed = check(cu.cuEventElapsedTime(*self._events), "tell the time between events")
        return float(elapsed) * 1e-3 / self.repeats

    def close(self) -> None:
        """Frees what the timer holds."""
        with self._gpu.active():
            if self._graph is not None:
                self._graph.close()
                self._graph = None
            for made in self._sets:
                made.close()
            self._sets = []
            for event in self._events:
                let_go(api().cuEventDestroy(event), "destroy an event")
            self._events = []

    def _prepare(
        self,
        engine: Engine,
        inputs: list[np.ndarray],
        rotate_bytes: int,
        seconds: float,
        turns: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        values = [self._executor.accept(array, spec.name) for array, spec in zip(inputs, engine.inputs, strict=True)]
        symbols = Signature(engine.data).check(values)
        first = _Set(self._executor, values, symbols, own_weights=False)
        self._sets.append(first)
        if turns is not None:
            names = [spec.name for spec in engine.inputs]
            for turn in turns[: MAX_SETS - 1]:
                own = {names.index(n): self._executor.accept(np.asarray(a), n) for n, a in turn.items()}
                self._sets.append(_Set(self._executor, values, symbols, False, first, own))
            self.sets = len(self._sets)
        else:
            wanted = -(-rotate_bytes // max(first.nbytes, 1))
            room = self._gpu.free_memory() // 2 // max(first.nbytes, 1)
            self.sets = max(1, min(wanted, room, MAX_SETS))
            for _ in range(1, self.sets):
                self._sets.append(_Set(self._executor, values, symbols, own_weights=True))
        nodes = max(sum(len(op["body"]) for op in engine.data.schedule), 1)
        self.repeats = self.sets
        self._build(engine)
        self.sample()
        once = max(self.sample(), 1e-7)
        most = max(MAX_NODES // nodes, self.sets)
        repeats = min(max(int(seconds / once), self.sets), most)
        if repeats > self.repeats:
            self.repeats = repeats - repeats % self.sets
            self._build(engine)
            self.sample()

    def _build(self, engine: Engine) -> None:
        if self._graph is not None:
            self._graph.close()
        graph = self._graph = Graph(self._gpu)
        last: list[int] = []
        orders = [ordering(op["body"], self._sets[0].context) for op in engine.data.schedule]
        for repeat in range(self.repeats):
            context = self._sets[repeat % self.sets].context
            for op, order in zip(engine.data.schedule, orders, strict=True):
                last = _append(graph, op["body"], order, context, last)
        graph.instantiate()
        graph.upload(self._gpu.stream())


class _Set:
    """One copy of everything an engine touches; with `base`, of the inputs in `own` only (by position)."""

    def __init__(
        self,
        executor: CudaExecutor,
        inputs: Sequence[Value],
        symbols: Mapping[str, int],
        own_weights: bool,
        base: _Set | None = None,
        own: Mapping[int, Value] | None = None,
    ) -> None:
        gpu, data = executor.gpu, executor.data
        self.context = CudaContext(executor)
        self._gpu = gpu
        self._weights = 0
        stream = gpu.stream()
        if own_weights and executor.weights:
            self._weights = self.context.weights = executor.copy_weights()
        self.context.symbols = dict(symbols)
        self.context.stream = stream
        arrays: list[DeviceArray] = []
        for index, given in enumerate(inputs):
            if base is not None and index not in (own or {}):
                arrays.append(base.arrays[index])
                continue
            value = (own or {}).get(index, given)
            array = DeviceArray(gpu, value.dtype, value.shape, stream)
            if value.nbytes:
                content = np.asarray(value.owner)
                check(
                    api().cuMemcpyHtoD(array.pointer, content.ctypes.data, value.nbytes), "copy an input to the device"
                )
            arrays.append(array)
        self.arrays = arrays
        outputs: list[DeviceArray | None] = [] if base is None else base.outputs
        for facts in data.outputs if base is None else ():
            direct = data.buffers[facts["buffer"]]["space"] == "output"
            shape = [evaluate(dim, symbols) for dim in facts["shape"]] if direct else []
            outputs.append(DeviceArray(gpu, facts["dtype"], shape, stream) if direct else None)
        self.outputs = outputs
        held = [array for array in (*arrays, *outputs) if array is not None]
        self.context.begin([a.value() for a in arrays], [a.value() if a is not None else None for a in outputs])
        arena = evaluate(data.arena["bytes"], self.context.symbols)
        self.nbytes = sum(array.nbytes for array in held) + data.weights_bytes + arena

    def close(self) -> None:
        """Frees the copy."""
        self.context.close()
        self.arrays, self.outputs = [], []
        if self._weights:
            self._gpu.release(self._weights)
            self._weights = 0


def _append(
    graph: Graph, ops: Sequence[Mapping[str, Any]], order: list[list[int]], context: CudaContext, last: list[int]
) -> list[int]:
    """Adds a segment after the nodes `last`; the nodes that nothing in it waits for."""
    numbers: list[int] = []
    waited: set[int] = set()
    for op, after in zip(ops, order, strict=True):
        waited.update(after)
        before = [numbers[index] for index in after] or last
        numbers.append(graph.add(resolve(op, context, context.kernels), before))
    return [number for index, number in enumerate(numbers) if index not in waited] or last


def time_engine(
    engine: Engine,
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    rounds: int = 5,
    rotate_bytes: int = 0,
    seconds: float = 2e-3,
) -> list[float]:
    """Seconds for one run of a one-problem engine, `rounds` samples of it; see Timer."""
    timer = Timer(engine, inputs, rotate_bytes=rotate_bytes, seconds=seconds)
    try:
        return [timer.sample() for _ in range(rounds)]
    finally:
        timer.close()


def time_interleaved(timers: Sequence[Timer], rounds: int) -> list[list[float]]:
    """`rounds` samples of each timer, in turns and every second round in reverse, so that drift hits all alike."""
    samples: list[list[float]] = [[] for _ in timers]
    for turn in range(rounds):
        indices = range(len(timers)) if turn % 2 == 0 else range(len(timers) - 1, -1, -1)
        for index in indices:
            samples[index].append(timers[index].sample())
    return samples
