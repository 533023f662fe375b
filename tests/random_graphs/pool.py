# SPDX-License-Identifier: Apache-2.0
"""Many graphs in forked processes: one that dies or hangs names its seed, and the rest goes on."""

from __future__ import annotations

import multiprocessing as mp
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.random_graphs.check import Outcome

Job = Callable[[int, Callable[[str], object]], Outcome]
"""Does the work of a seed; it tells the stages it comes to."""

BROKEN = ("crash", "refused")
"""Verdicts after which a process is replaced: a GPU's context is of no more use after a fault."""

_CONTEXT = mp.get_context("fork")


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    seed: int = -1
    stage: str = ""
    since: float = 0.0


def outcomes(job: Job, seeds: Sequence[int], processes: int, limit: float = 180.0) -> Iterator[Outcome]:
    """What became of each seed, in the order they end. A seed that takes more than `limit` seconds is a crash."""
    waiting = list(seeds)[::-1]
    workers = [_start(job) for _ in range(min(processes, len(waiting)))]
    for w in workers:
        _give(w, waiting)
    while workers:
        ready = wait([w.pipe for w in workers], timeout=5)
        for w in list(workers):
            ended: Outcome | None = None
            if w.pipe in ready:
                try:
                    message = w.pipe.recv()
                except EOFError:
                    w.process.join()
                    ended = _died(w)
                else:
                    if isinstance(message, str):
                        w.stage = message
                        continue
                    ended = message
                    if message.verdict not in BROKEN:
                        yield message
                        _give(w, waiting)
                        if w.seed < 0:
                            w.process.join()
                            workers.remove(w)
                        continue
                    w.process.join()
            elif time.monotonic() - w.since > limit:
                w.process.kill()
                w.process.join()
                ended = Outcome(w.seed, "crash", f"{w.stage}: more than {limit:g} s")
            if ended is None:
                continue
            yield ended
            workers.remove(w)
            if waiting:
                workers.append(_start(job))
                _give(workers[-1], waiting)


def isolated(job: Job, seed: int) -> Outcome:
    """One job in a process of its own."""
    return next(iter(outcomes(job, [seed], 1)))


def _died(w: _Worker) -> Outcome:
    code = w.process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"
    # An oracle that dies has no answer, which is no fault of what is tested.
    return Outcome(
        w.seed, "invalid" if w.stage in ("oracle", "arbiter") else "crash", f"{w.stage}: it ended with {how}"
    )


def _start(job: Job) -> _Worker:
    mine, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_serve, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, mine)


def _give(w: _Worker, waiting: list[int]) -> None:
    w.seed, w.stage, w.since = (waiting.pop() if waiting else -1), "", time.monotonic()
    w.pipe.send(w.seed)


def _serve(pipe: Connection, job: Job) -> None:
    while (seed := pipe.recv()) >= 0:
        outcome = job(seed, pipe.send)
        pipe.send(outcome)
        if outcome.verdict in BROKEN:
            return
