# SPDX-License-Identifier: Apache-2.0
"""The worker process: runs candidates, which may crash or hang it without harm to the search.

Run as `python -m tcc.compiler.search.worker IN OUT` with two pipe descriptors. It uses the runtime alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.compiler.search.wire import Array, Gone, receive, send, unpack_array
from tcc.errors import TccError
from tcc.runtime import load
from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.engine import Engine
from tcc.runtime.timing import Timer, make_timer


class Worker:
    """State between messages: the problem's inputs and checks, and a timer for each candidate that passed."""

    def __init__(self) -> None:
        self.inputs: dict[str, Array] = {}
        self.checks: list[dict[str, Any]] = []
        self.arrays: list[Array] = []
        self.rotate = 0
        self.timers: dict[int, Timer] = {}
        self.engines: dict[int, Engine] = {}

    def problem(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        """A new problem: inputs, and for each output its index arrays, values and allowances."""
        self.forget({}, ())
        arrays = [unpack_array(p) for p in parts]
        self.inputs = {name: arrays[i].view(numpy_dtype(dtype)) for i, (name, dtype) in enumerate(header["inputs"])}
        self.arrays = arrays
        self.checks = header["checks"]
        self.rotate = int(header["rotate"])
        return {"status": "ok"}

    def forget(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        for timer in self.timers.values():
            timer.close()
        for engine in self.engines.values():
            engine.close()
        self.timers, self.engines = {}, {}
        return {"status": "ok"}

    def trial(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        """Load one engine, run it twice, compare with what must come out; keep it for timing if it is right."""
        try:
            engine = load(parts[0])
            first = self.run(engine)
            second = self.run(engine)
        except TccError as e:
            return {"status": "fault", "message": str(e)}
        for name, a in first.items():
            if a.tobytes() != second[name].tobytes():
                return {"status": "wrong", "message": f"two runs differ in {name}"}
        for check in self.checks:
            message = self.compare(check, first[check["name"]])
            if message:
                return {"status": "wrong", "message": message}
        number = int(header["number"])
        if header.get("timed", True):
            self.engines[number] = engine
            self.timers[number] = make_timer(
                engine, self.inputs, rotate_bytes=self.rotate, seconds=float(header.get("seconds", 2e-3))
            )
        return {"status": "ok"}

    def run(self, engine: Engine) -> dict[str, Array]:
        """One run with poisoned outputs and scratch memory."""
        if hasattr(engine.executor, "poison"):
            engine.executor.poison = 0xFF  # pyright: ignore[reportAttributeAccessIssue]
        out = {o.name: np.full([int(d) for d in o.shape], 0, o.dtype) for o in engine.outputs}
        for a in out.values():
            a.view(np.uint8).reshape(-1)[:] = 0xFF if a.dtype.kind != "b" else 1
        given = engine.run(self.inputs, out=out)
        return {n: np.asarray(v) for n, v in given.items()}

    def compare(self, check: dict[str, Any], flat: Array) -> str:
        """Empty if an output is right, else the sentence what is wrong."""
        shape, strides = check["shape"], check["strides"]
        itemsize = flat.dtype.itemsize
        steps = [s * itemsize for s in strides]
        whole = np.lib.stride_tricks.as_strided(flat.reshape(-1), shape, steps)
        rank = len(shape)
        at = check["at"]
        index = tuple(self.arrays[at : at + rank])
        value, allowance = self.arrays[at + rank], self.arrays[at + rank + 1]
        mine = np.asarray(whole[index])
        if check["kind"] != "float":
            bad = np.abs(mine.astype(np.float64) - value.astype(np.float64)) > allowance
        else:
            x = mine.astype(np.float64)
            with np.errstate(all="ignore"):
                same = (x == value) | (np.isnan(x) & np.isnan(value))
                over = np.isinf(x) & (np.sign(x) == np.sign(value)) & (np.abs(value) + allowance >= check["largest"])
                bad = ~(same | over | (np.abs(x - value) <= allowance))
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
        samples: dict[int, list[float]] = {n: [] for n in numbers}
        for turn in range(int(header["rounds"])):
            for n in numbers if turn % 2 == 0 else reversed(numbers):
                samples[n].append(self.timers[n].sample())
        return {"status": "ok", "samples": {str(n): s for n, s in samples.items()}}

    def drop(self, header: dict[str, Any], parts: Sequence[bytes]) -> dict[str, Any]:
        for n in header["numbers"]:
            self.timers.pop(int(n)).close()
            self.engines.pop(int(n)).close()
        return {"status": "ok"}


def main(argv: Sequence[str]) -> int:
    """Serve messages until the pipe closes."""
    source, sink = int(argv[1]), int(argv[2])
    worker = Worker()
    while True:
        try:
            header, parts = receive(source)
            answer = getattr(worker, header["op"])(header, parts)
            send(sink, answer)
        except Gone:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
