# SPDX-License-Identifier: Apache-2.0
"""How long each op of a segment takes: one graph of the ops in order with an event after each.

As one graph it has no gaps for the host's sake. Recording an event takes longer than a small kernel, so what it costs
is measured once on each GPU and taken off every op's time.
"""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tcc.runtime.cuda.device import Gpu
from tcc.runtime.cuda.driver import api, check, let_go
from tcc.runtime.cuda.graph import Graph
from tcc.runtime.cuda.launch import Fill, Node, resolve
from tcc.runtime.executor import LaunchTime

if TYPE_CHECKING:
    from tcc.runtime.cuda.executor import CudaContext

_CALIBRATION_OPS = 64
_CALIBRATION_RUNS = 5

_costs: dict[int, float] = {}
_costs_lock = threading.Lock()


def time_segment(op: Mapping[str, Any], context: CudaContext) -> list[LaunchTime]:
    """Runs the segment's ops one after another and times each, from the end of the op before to its own end."""
    gpu, ops = context.gpu, op["body"]
    cost = event_cost(gpu, context.stream)
    nodes = [resolve(item, context, context.kernels) for item in ops]
    (times,) = _time(gpu, context.stream, nodes, range(len(nodes)), runs=1)
    return [
        LaunchTime(
            item.get("kernel", item["op"]), item["op"], max(t - cost, 0.0), tuple(item.get("loc", ())), op["name"]
        )
        for item, t in zip(ops, times, strict=True)
    ]


def event_cost(gpu: Gpu, stream: int) -> float:
    """Seconds that an event after an op adds to it: a chain of small memsets with one after each, against without."""
    with _costs_lock:
        if gpu.key not in _costs:
            memory = gpu.allocate(256, "calibration")
            try:
                nodes: list[Node | None] = [Fill(memory, 0, 256)] * _CALIBRATION_OPS
                every = _time(gpu, stream, nodes, range(len(nodes)), _CALIBRATION_RUNS)
                last = _time(gpu, stream, nodes, [len(nodes) - 1], _CALIBRATION_RUNS)
            finally:
                gpu.release(memory)
            spent = statistics.median(map(sum, every)) - statistics.median(map(sum, last))
            _costs[gpu.key] = max(spent / (_CALIBRATION_OPS - 1), 0.0)
        return _costs[gpu.key]


def _time(gpu: Gpu, stream: int, nodes: Sequence[Node | None], marks: Sequence[int], runs: int) -> list[list[float]]:
    """For each run the seconds up to the end of each node in `marks`, from the start or the mark before."""
    events = [gpu.event(timing=True) for _ in range(len(marks) + 1)]
    graph = Graph(gpu)
    try:
        last = graph.add_event(events[0])
        recorded = iter(events[1:])
        for index, node in enumerate(nodes):
            last = graph.add(node, [last])
            if index in marks:
                last = graph.add_event(next(recorded), [last])
        graph.instantiate()
        graph.upload(stream)
        times: list[list[float]] = []
        for _ in range(runs):
            graph.launch(stream)
            gpu.synchronize(stream)
            times.append([_between(*pair) for pair in itertools.pairwise(events)])
        return times
    finally:
        graph.close()
        for event in events:
            let_go(api().cuEventDestroy(event), "destroy an event")


def _between(start: Any, stop: Any) -> float:
    return float(check(api().cuEventElapsedTime(start, stop), "tell the time between events")) * 1e-3
