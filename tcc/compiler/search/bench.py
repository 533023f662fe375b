# SPDX-License-Identifier: Apache-2.0
"""The search's side of the worker: starts it, feeds it, and survives it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.compiler.search.trial import Case, Trial
from tcc.compiler.search.wire import Gone, pack_array, receive, send
from tcc.errors import FailureError
from tcc.ir.kernel.evaluate import largest

START_SECONDS = 60.0
TRIAL_SECONDS = 10.0


@dataclass(frozen=True)
class Verdict:
    """What came of a trial: `status` as in records, why, and about how long one run took."""

    status: str
    message: str = ""
    seconds: float = 0.0


class Bench:
    """One worker process, restarted when a candidate takes it down; use as a context manager.

    `kind` is the device's. `trial_seconds` is how long a candidate may take to be checked, and a round of samples to be
    taken. A worker that does not start is a FailureError: that is no candidate's fault.
    """

    def __init__(self, kind: str = "cpu", trial_seconds: float = TRIAL_SECONDS) -> None:
        self.kind = kind
        self.trial_seconds = trial_seconds
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._to = self._from = -1
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the bench
        self._case: Case | None = None
        self._problem: tuple[dict[str, Any], list[bytes]] = ({}, [])
        self._sent: list[str] = []
        self._alive: dict[int, Trial] = {}

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
        """Give the worker a new problem; it forgets the one before."""
        parts: list[bytes] = []
        checks: list[dict[str, Any]] = []
        for i, (e, t) in enumerate(zip(case.expected, case.func.result_types, strict=True)):
            checks.append({
                "name": f"y{i}", "dtype": t.dtype.numpy.name, "dense": t.strides is None, "shape": list(t.static_shape),
                "strides": [int(s) for s in t.element_strides],  # pyright: ignore[reportArgumentType]
                "at": len(parts), "kind": "float" if t.dtype.is_float else "exact", "largest": largest(t.dtype),
            })  # fmt: skip
            parts += [pack_array(a) for a in (*e.index, e.value, e.allowance)]
        self._case = case
        self._problem = ({"op": "problem", "checks": checks, "rotate": rotate_bytes}, parts)
        self._sent, self._alive = [], {}
        try:
            self._ask(*self._problem, seconds=START_SECONDS)
        except Gone:
            self._restart()

    def trial(self, number: int, trial: Trial) -> Verdict:
        """Check a candidate; a crash or a hang is its own fault."""
        try:
            self._send_arrays(trial)
            answer = self._try(number, trial)
        except Gone as e:
            self._restart()
            return self._gone(e)
        if answer["status"] == "ok":
            self._alive[number] = trial
        return Verdict(answer["status"], answer["message"], answer["seconds"])

    def time(self, numbers: Sequence[int], rounds: int) -> tuple[dict[int, list[float]], dict[int, Verdict]]:
        """`rounds` interleaved samples, in seconds, of candidates that passed; and what became of those that took the
        worker down."""
        if not numbers:
            return {}, {}
        seconds = self.trial_seconds * (1 + rounds * len(numbers))
        try:
            answer = self._ask({"op": "time", "numbers": list(numbers), "rounds": rounds}, (), seconds)
        except Gone as e:
            if len(numbers) == 1:
                self._alive.pop(numbers[0], None)
                self._restart()
                return {}, {numbers[0]: self._gone(e)}
            self._restart()
            samples: dict[int, list[float]] = {}
            failed: dict[int, Verdict] = {}
            for n in numbers:
                if n not in self._alive:
                    failed[n] = Verdict("fault", "it took its process down when it ran again")
                    continue
                s, f = self.time([n], rounds)
                samples |= s
                failed |= f
            return samples, failed
        return {int(n): s for n, s in answer["samples"].items()}, {}

    def _gone(self, e: Gone) -> Verdict:
        if e.timed_out:
            return Verdict("timeout", f"it did not finish in {self.trial_seconds:g} s")
        return Verdict("fault", e.message or "it took its process down")

    def _try(self, number: int, trial: Trial) -> dict[str, Any]:
        header = {"op": "trial", "number": number, "inputs": trial.inputs, "lengths": trial.lengths}
        return self._ask(header, [trial.engine], self.trial_seconds)

    def _send_arrays(self, trial: Trial) -> None:
        for key in trial.inputs.values():
            if key not in self._sent:
                self._send_array(key)
                self._sent.append(key)

    def _send_array(self, key: str) -> None:
        assert self._case is not None
        array, align, constant = self._case.array(key)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._ask({"op": "array", "key": key, "align": align, "cold": constant}, [content.data], START_SECONDS)

    def _restart(self) -> None:
        """A new worker that knows what the old one knew; candidates that take it down now are forgotten."""
        while True:
            self.close()
            self.restarts += 1
            if self._case is None:
                return
            try:
                self._ask(*self._problem, seconds=START_SECONDS)
                for key in self._sent:
                    self._send_array(key)
            except Gone as e:
                raise FailureError(f"the process that tries candidates ended: {e}") from None
            for number, trial in list(self._alive.items()):
                try:
                    self._try(number, trial)
                except Gone:
                    del self._alive[number]
                    break
            else:
                return

    def _ask(self, header: dict[str, Any], parts: Sequence[bytes | memoryview], seconds: float) -> dict[str, Any]:
        if self._process is None:
            self._start()
        send(self._to, header, parts)
        answer, _ = receive(self._from, seconds)
        if answer["status"] == "gone":
            raise Gone(message=answer["message"])
        return answer

    def _start(self) -> None:
        theirs, self._to = os.pipe()
        self._from, back = os.pipe()
        self._errors.seek(0)
        self._errors.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tcc.compiler.search.worker", str(theirs), str(back), self.kind],
            pass_fds=(theirs, back), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
        )  # fmt: skip
        os.close(theirs)
        os.close(back)
        try:
            receive(self._from, START_SECONDS)
        except Gone:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            self.close()
            raise FailureError(
                f"the process that tries candidates does not start: {said[-1] if said else 'it says nothing'}"
            ) from None
