# SPDX-License-Identifier: Apache-2.0
"""Measuring: compile candidates in parallel, check them, time those that are right, record everything.

On a CPU target compiling and timing alternate, for they need the same cores; for a GPU the next batch is compiled
while one is timed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.compiler.search.bench import TRIAL_SECONDS, Bench, Verdict
from tcc.compiler.search.enumerate import Candidate
from tcc.compiler.search.progress import Progress
from tcc.compiler.search.records import Context, Records, Row, time_of
from tcc.compiler.search.trial import Case, Trial, build_trial, make_case
from tcc.compiler.targets import threads
from tcc.errors import TccError
from tcc.ir.targets import Target

if TYPE_CHECKING:
    from tcc.compiler.search.choose import Problem

Work = Sequence[tuple["Problem", list[Candidate]]]

FIRST_BATCH, BATCH = 8, 24
"""Candidates compiled before they are timed together; few at first, so that there is something soon."""
ROTATE_LIMIT = 64 << 20
QUICK_ROUNDS, MORE_ROUNDS, LAST_ROUNDS = 3, 6, 12
CLOSE, CLOSER = 1.25, 1.06
"""Candidates within these factors of the fastest are timed further."""
HOPELESS = 4.0
"""A candidate that took so many times as long as the fastest in its check is timed once only."""


@dataclass
class Built:
    """A candidate with its engine, or the reason it has none."""

    candidate: Candidate
    trial: Trial | None
    message: str = ""


@dataclass
class _Batch:
    work: list[tuple[Problem, Case, list[Future[Built | None]]]]


class Measurer:
    """Measures work until a deadline; rows are recorded problem by problem, so what was measured is kept whatever
    happens next. Use as a context manager."""

    def __init__(
        self, target: Target, device: Context, records: Records, progress: Progress, weights: int,
        trial_seconds: float = TRIAL_SECONDS,
    ) -> None:  # fmt: skip
        self.target = target
        self.device = device
        self.records = records
        self.progress = progress
        self.rotate = min(weights, ROTATE_LIMIT)
        self.trial_seconds = trial_seconds
        self.bench = Bench("cuda" if target.is_cuda else "cpu", trial_seconds)
        self._deadline = float("inf")
        # One thread more than cores: while it writes the text of a kernel, LLVM's workers have others to compile.
        self._pool = ThreadPoolExecutor(threads() + (not target.is_cuda))

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.bench.close()

    def measure(self, work: Work, deadline: float) -> None:
        """Measure the candidates of each problem in order, until `deadline` by the monotonic clock; what is under way
        then is finished, and the rest left."""
        self.progress.plan(sum(len(c) for _, c in work))
        self._deadline = deadline
        batches = list(_batches(work))
        started: list[_Batch] = []
        ahead = 2 if self.target.is_cuda else 1
        for i in range(len(batches)):
            if time.monotonic() >= deadline:
                break
            while len(started) < ahead and i + len(started) < len(batches):
                started.append(self._start(batches[i + len(started)]))
            batch = started.pop(0)
            if not self.target.is_cuda:
                for _, _, futures in batch.work:
                    for f in futures:
                        f.result()
            for n, (p, case, futures) in enumerate(batch.work):
                if n and time.monotonic() >= deadline:
                    break
                self.records.add(self._rows(p, case, futures))
        for left in started:
            for _, _, futures in left.work:
                for f in futures:
                    f.cancel()

    def _start(self, batch: Work) -> _Batch:
        work: list[tuple[Problem, Case, list[Future[Built | None]]]] = []
        for p, candidates in batch:
            case = make_case(p.func)
            work.append((p, case, [self._pool.submit(self._build, case, c) for c in candidates]))
        return _Batch(work)

    def _build(self, case: Case, c: Candidate) -> Built | None:
        if time.monotonic() >= self._deadline:
            return None
        try:
            return Built(c, build_trial(case, c, self.target))
        except TccError as e:
            return Built(c, None, str(e))
        except Exception as e:  # whatever a template does wrong costs only this candidate, and is on record
            return Built(c, None, f"{type(e).__name__}: {e}")

    def _rows(self, p: Problem, case: Case, futures: Sequence[Future[Built | None]]) -> list[Row]:
        """Check and time the candidates of one problem."""
        self.bench.trial_seconds = self.trial_seconds + 100 * min(p.listing.best.cost, 1.0)
        self.bench.start_problem(case, self.rotate)
        rows: list[Row] = []
        alive: dict[int, Candidate] = {}
        once: dict[int, float] = {}
        for number, future in enumerate(futures):
            built = future.result()
            if built is None:
                continue
            verdict = Verdict("compile-error", built.message)
            if built.trial is not None:
                verdict = self.bench.trial(number, built.trial)
            if verdict.status == "ok":
                alive[number], once[number] = built.candidate, verdict.seconds
            else:
                rows.append(self._row(p, built.candidate, verdict))
            self.progress.advance(1, f"{p.title}: {verdict.status}" if verdict.status != "ok" else p.title)
        samples, failed = self._time(once)
        for n, verdict in failed.items():
            rows.append(self._row(p, alive[n], verdict))
        for n, s in samples.items():
            rows.append(self._row(p, alive[n], Verdict("ok"), tuple(s)))
        return rows

    def _time(self, once: dict[int, float]) -> tuple[dict[int, list[float]], dict[int, Verdict]]:
        """Samples of candidates by number, more of them the closer they are to the fastest; `once` tells about how
        long one run of each takes."""
        samples: dict[int, list[float]] = {n: [] for n in once}
        failed: dict[int, Verdict] = {}

        def more(numbers: Sequence[int], rounds: int) -> None:
            found, lost = self.bench.time(numbers, rounds)
            for n, s in found.items():
                samples[n] += s
            failed.update(lost)
            for n in lost:
                samples.pop(n, None)

        def near(factor: float) -> list[int]:
            timed = {n: time_of(s).seconds for n, s in samples.items() if s}
            best = min(timed.values(), default=0.0)
            return [n for n, s in timed.items() if s <= factor * best]

        if not once:
            return {}, {}
        limit = HOPELESS * min(once.values()) + 1e-4
        quick = [n for n, s in once.items() if s <= limit]
        slow = max(once[n] for n in quick) > 0.1
        more([n for n in once if n not in quick], 1)
        more(quick, 1 if slow else QUICK_ROUNDS)
        for factor, rounds in ((CLOSE, 2 if slow else MORE_ROUNDS), (CLOSER, 3 if slow else LAST_ROUNDS)):
            close = near(factor)
            if len(close) > 1:
                more(close, rounds)
        return {n: s for n, s in samples.items() if s}, failed

    def _row(self, p: Problem, c: Candidate, verdict: Verdict, samples: tuple[float, ...] = ()) -> Row:
        template, source, _ = c.key
        return Row(p.key, template, source, c.config, self.device.to_json(), verdict.status, samples, verdict.message)


def _batches(work: Work) -> Iterator[Work]:
    batch: list[tuple[Problem, list[Candidate]]] = []
    count, most = 0, FIRST_BATCH
    for item in work:
        batch.append(item)
        count += len(item[1])
        if count >= most:
            yield batch
            batch, count, most = [], 0, BATCH
    if batch:
        yield batch
