# SPDX-License-Identifier: Apache-2.0
"""The search's side of the worker: starts it, feeds it, and survives it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tcc.compiler.search.trial import Case, flat_inputs
from tcc.compiler.search.wire import Gone, pack_array, receive, send
from tcc.ir.kernel.evaluate import largest

START_SECONDS = 60.0
TRIAL_SECONDS = 20.0


@dataclass(frozen=True)
class Verdict:
    """What came of a trial: `status` as in records, and why."""

    status: str
    message: str = ""


class Bench:
    """One worker process, restarted when a candidate takes it down; use as a context manager."""

    def __init__(self, trial_seconds: float = TRIAL_SECONDS) -> None:
        self.trial_seconds = trial_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._to = self._from = -1
        self._problem: tuple[dict[str, Any], list[bytes]] | None = None
        self._alive: dict[int, bytes] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        if self._process is None:
            return
        os.close(self._to)
        os.close(self._from)
        self._process.kill()
        self._process.wait()
        self._process = None

    def start_problem(self, case: Case, rotate_bytes: int) -> None:
        """Give the worker a new problem."""
        parts: list[bytes] = []
        names: list[tuple[str, str]] = []
        for name, array in flat_inputs(case.func, case).items():
            names.append((name, _dtype_name(case, name)))
            parts.append(pack_array(array))
        checks: list[dict[str, Any]] = []
        for i, (e, t) in enumerate(zip(case.expected, case.func.result_types, strict=True)):
            checks.append({
                "name": f"y{i}", "shape": list(t.static_shape), "strides": list(t.element_strides), "at": len(parts),
                "kind": "float" if t.dtype.is_float else "exact", "largest": largest(t.dtype),
            })  # fmt: skip
            parts += [pack_array(a) for a in (*e.index, e.value, e.allowance)]
        self._problem = ({"op": "problem", "inputs": names, "checks": checks, "rotate": rotate_bytes}, parts)
        self._alive = {}
        self._ask(*self._problem, seconds=START_SECONDS)

    def trial(self, number: int, engine: bytes, timed: bool = True) -> Verdict:
        """Check a candidate; a crash or a hang is its own fault."""
        try:
            answer = self._ask({"op": "trial", "number": number, "timed": timed}, [engine], self.trial_seconds)
        except Gone as e:
            self._restart()
            if e.timed_out:
                return Verdict("timeout", f"it did not finish in {self.trial_seconds:g} s")
            return Verdict("fault", "it took its process down")
        if answer["status"] == "ok" and timed:
            self._alive[number] = engine
        return Verdict(answer["status"], answer.get("message", ""))

    def time(self, numbers: Sequence[int], rounds: int) -> dict[int, list[float]]:
        """Interleaved samples in seconds of candidates that passed."""
        try:
            answer = self._ask(
                {"op": "time", "numbers": list(numbers), "rounds": rounds}, (), 60.0 + self.trial_seconds
            )
        except Gone:
            self._restart()
            return {}
        return {int(n): s for n, s in answer["samples"].items()}

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget candidates, freeing their memory."""
        for n in numbers:
            self._alive.pop(n, None)
        self._ask({"op": "drop", "numbers": list(numbers)}, (), self.trial_seconds)

    def _restart(self) -> None:
        self.close()
        if self._problem is not None:
            self._ask(*self._problem, seconds=START_SECONDS)
        for number, engine in list(self._alive.items()):
            self._ask({"op": "trial", "number": number}, [engine], self.trial_seconds)

    def _ask(self, header: dict[str, Any], parts: Sequence[bytes], seconds: float) -> dict[str, Any]:
        if self._process is None:
            self._start()
        send(self._to, header, parts)
        answer, _ = receive(self._from, seconds)
        return answer

    def _start(self) -> None:
        theirs, self._to = os.pipe()
        self._from, back = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tcc.compiler.search.worker", str(theirs), str(back)],
            pass_fds=(theirs, back), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(back)


def _dtype_name(case: Case, name: str) -> str:
    return case.func.arg_types[int(name.removeprefix("x"))].dtype.name
