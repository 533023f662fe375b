# SPDX-License-Identifier: Apache-2.0
"""The worker process: runs candidates, which may crash or hang it without harm to the search.

Run as `python -m tcc.compiler.search.worker IN OUT KIND` with two pipe descriptors and the kind of device (cpu, cuda).
It says that it is ready, then answers messages. It uses the runtime alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tcc.compiler.search.wire import Array, Gone, receive, send, unpack_array
from tcc.errors import TccError
from tcc.runtime import load
from tcc.runtime.engine import Engine
from tcc.runtime.timing import Timer, make_timer

assert ml_dtypes  # registers bfloat16 and its like with numpy

GUARD = 256
"""Bytes before and after each output that must stay as they were."""
POISON = 0xFF
"""NaN to every float type; the second run has zeros in its place, so what is not written differs."""
MOST_TURNS = 64
SAMPLE_SECONDS = 1.5e-3


class Worker:
    """State between messages: the problem's data and checks, and a timer for each candidate that passed."""

    def __init__(self) -> None:
        self.checks: list[dict[str, Any]] = []
        self.expected: list[Array] = []
        self.rotate = 0
        self.arrays: dict[str, list[Array]] = {}
        self.cold: set[str] = set()
        self.given: dict[int, tuple[dict[str, str], dict[str, int]]] = {}
        self.engines: dict[int, Engine] = {}
        self.timers: dict[int, Timer] = {}

    def problem(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        """A new problem: for each output its index arrays, values and allowances."""
        for timer in self.timers.values():
            timer.close()
        for engine in self.engines.values():
            engine.close()
        self.timers, self.engines, self.given, self.arrays, self.cold = {}, {}, {}, {}, set()
        self.expected = [unpack_array(p) for p in parts]
        self.checks = header["checks"]
        self.rotate = int(header["rotate"])
        return {"status": "ok"}

    def array(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        """Data that inputs take by its key, placed exactly as aligned as the kernel may rely on."""
        self.arrays[header["key"]] = [_placed(np.frombuffer(parts[0], np.uint8), int(header["align"]))]
        if header["cold"]:
            self.cold.add(header["key"])
        return {"status": "ok"}

    def trial(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        """Load one engine, run it twice, compare with what must come out; keep it if it is right."""
        number = int(header["number"])
        self.given[number] = (header["inputs"], header["lengths"])
        engine = load(parts[0])
        first = self.run(engine, self.inputs(number), POISON)
        begun = time.perf_counter()
        second = self.run(engine, self.inputs(number), 0)
        seconds = time.perf_counter() - begun
        message = self.judge(first, second)
        if message:
            engine.close()
            return {"status": "wrong", "message": message, "seconds": seconds}
        self.engines[number] = engine
        return {"status": "ok", "message": "", "seconds": seconds}

    def inputs(self, number: int, turn: int = 0) -> dict[str, Array]:
        """The inputs of an engine, its constants those of a turn."""
        names, lengths = self.given[number]
        out = {name: self.arrays[key][turn if key in self.cold else 0] for name, key in names.items()}
        return out | {name: np.empty(length, np.uint8) for name, length in lengths.items()}

    def run(self, engine: Engine, inputs: Mapping[str, Array], poison: int) -> dict[str, Array]:
        """One run with poisoned outputs and scratch memory; outputs with the guards around them."""
        engine.executor.poison = poison  # pyright: ignore[reportAttributeAccessIssue]
        whole: dict[str, Array] = {}
        out: dict[str, Array] = {}
        for o in engine.outputs:
            size = int(o.shape[0])  # pyright: ignore[reportArgumentType]
            room = _placed(np.full(size + 2 * GUARD, poison, np.uint8), 64)
            whole[o.name], out[o.name] = room, room[GUARD : GUARD + size]
        engine.run(inputs, out=out)
        return whole

    def judge(self, first: Mapping[str, Array], second: Mapping[str, Array]) -> str:
        """Empty if the results are right, else the sentence what is wrong."""
        for check in self.checks:
            message = self.compare(check, first[check["name"]], second[check["name"]])
            if message:
                return message
        return ""

    def compare(self, check: dict[str, Any], whole: Array, again: Array) -> str:
        """Empty if an output is right, the same in both runs, and nothing around it was written."""
        dtype = np.dtype(check["dtype"])
        flat = whole[GUARD : whole.size - GUARD].view(dtype)
        steps = [s * dtype.itemsize for s in check["strides"]]
        if check["dense"]:
            outside, same = (
                np.concatenate([whole[:GUARD], whole[whole.size - GUARD :]]),
                np.array_equal(whole[GUARD : whole.size - GUARD], again[GUARD : whole.size - GUARD]),
            )
        else:
            inside = np.zeros(whole.size, bool)
            marks = inside[GUARD : whole.size - GUARD].reshape(-1, dtype.itemsize)
            seen = np.lib.stride_tricks.as_strided(marks, (*check["shape"], dtype.itemsize), (*steps, 1))
            seen[...] = True
            outside, same = whole[~inside], np.array_equal(whole[inside], again[inside])
        if np.any(outside != POISON):
            return f"something outside {check['name']} was written"
        if not same:
            return f"two runs differ in {check['name']}"
        view = np.lib.stride_tricks.as_strided(flat, check["shape"], steps)
        at, rank = check["at"], len(check["shape"])
        index = tuple(self.expected[at : at + rank])
        value, allowance = self.expected[at + rank], self.expected[at + rank + 1]
        mine = np.asarray(view[index])
        with np.errstate(all="ignore"):
            x, wanted = mine.astype(np.float64), value.astype(np.float64)
            if check["kind"] != "float":
                bad = np.abs(x - wanted) > allowance
            else:
                same = (x == wanted) | (np.isnan(x) & np.isnan(wanted))
                over = np.isinf(x) & (np.sign(x) == np.sign(wanted)) & (np.abs(wanted) + allowance >= check["largest"])
                bad = ~(same | over | (np.abs(x - wanted) <= allowance))
        if not bad.any():
            return ""
        first = int(np.flatnonzero(bad)[0])
        where = ", ".join(str(int(i[first])) for i in index)
        return (
            f"{int(bad.sum())} of {bad.size} checked elements are wrong, the first at [{where}]: "
            f"{mine[first]!s}, not {value[first]!s} ± {allowance[first]:.2g}"
        )

    def time(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        """`rounds` samples of the numbered candidates, interleaved."""
        numbers = [int(n) for n in header["numbers"]]
        for n in numbers:
            if n not in self.timers:
                self.timers[n] = self.timer(n)
        samples: dict[int, list[float]] = {n: [] for n in numbers}
        for turn in range(int(header["rounds"])):
            for n in numbers if turn % 2 == 0 else reversed(numbers):
                samples[n].append(self.timers[n].sample())
        return {"status": "ok", "samples": {str(n): s for n, s in samples.items()}}

    def timer(self, number: int) -> Timer:
        """A timer whose repeats find constants as far away as the model's others push them, and all else near."""
        names, _ = self.given[number]
        cold = {name: key for name, key in names.items() if key in self.cold}
        size = sum(self.arrays[key][0].nbytes for key in cold.values())
        turns = min(MOST_TURNS, max(1, -(-self.rotate // size))) if size else 1
        for key in cold.values():
            copies = self.arrays[key]
            while len(copies) < turns:
                copies.append(_placed(copies[0], 64))
        others = [{name: self.arrays[key][i] for name, key in cold.items()} for i in range(1, turns)]
        return make_timer(self.engines[number], self.inputs(number), seconds=SAMPLE_SECONDS, turns=others)


def _placed(content: Array, align: int) -> Array:
    """A copy whose first byte is at a multiple of `align`, and where that is below 64 of no more than that."""
    unit = max(64, align)
    raw = np.empty(content.nbytes + 2 * unit, np.uint8)
    start = -raw.ctypes.data % unit + align % unit
    placed = raw[start : start + content.nbytes]
    placed[...] = content
    return placed


def _prepare(kind: str) -> None:
    """Do now what could fail whatever the candidate; raises a TccError."""
    if kind == "cuda":
        from tcc.runtime.cuda.device import current_gpu

        with current_gpu().active():
            return
    from tcc.runtime.cpu import team

    team.num_threads()


def main(argv: Sequence[str]) -> int:
    """Serve messages until the pipe closes."""
    source, sink, kind = int(argv[1]), int(argv[2]), argv[3]
    worker = Worker()
    _prepare(kind)
    send(sink, {"status": "ready"})
    while True:
        try:
            header, parts = receive(source)
            try:
                answer = getattr(worker, header["op"])(header, parts)
            except TccError as e:
                # A GPU that has faulted answers nothing sensible from then on: end here, and be started anew.
                send(sink, {"status": "gone", "message": str(e)})
                return 1
            send(sink, answer)
        except Gone:
            return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except TccError as error:
        sys.exit(str(error))
