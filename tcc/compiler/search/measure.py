# SPDX-License-Identifier: Apache-2.0
"""Measuring: compile candidates in parallel, check them, time those that are right, record everything.

On a CPU target compiling and timing alternate, for they need the same cores; batches of problems keep both busy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.codegen.template import Template
from tcc.compiler.search.bench import Bench
from tcc.compiler.search.enumerate import Candidate
from tcc.compiler.search.records import Context, Records, Row
from tcc.compiler.search.trial import Case, make_case, trial_engine
from tcc.compiler.targets import threads
from tcc.errors import TccError
from tcc.ir.targets import Target

if TYPE_CHECKING:
    from tcc.compiler.search.choose import Problem

BATCH = 32
"""Candidates compiled before they are timed together."""
ROTATE_LIMIT = 64 << 20
QUICK_ROUNDS, MORE_ROUNDS = 3, 6
CLOSE = 1.3
"""Candidates within this factor of the fastest are timed further."""


@dataclass
class Measurement:
    """A candidate with its engine or the reason it has none."""

    candidate: Candidate
    engine: bytes | None
    message: str = ""


def measure(
    work: Sequence[tuple[Problem, list[Candidate]]], target: Target, device: Context, records: Records, budget: float,
    weights: int,
) -> None:  # fmt: skip
    """Measure the candidates of each problem in order until the budget (seconds of wall time) is spent; rows are
    recorded problem by problem, so what was measured is kept whatever happens next."""
    end = time.monotonic() + budget
    rotate = min(weights, ROTATE_LIMIT)
    with Bench() as bench, ThreadPoolExecutor(threads()) as pool:
        for batch in _batches(work):
            if time.monotonic() >= end:
                return
            cases = [make_case(p.func) for p, _ in batch]
            jobs = [(p, c, case) for (p, candidates), case in zip(batch, cases, strict=True) for c in candidates]
            built = list(pool.map(lambda j: _build(j[0], j[1], j[2], target), jobs))
            at = 0
            for (p, candidates), case in zip(batch, cases, strict=True):
                mine = built[at : at + len(candidates)]
                at += len(candidates)
                records.add(_rows(p, mine, case, bench, device, rotate))


def _batches(work: Sequence[tuple[Problem, list[Candidate]]]) -> Iterator[list[tuple[Problem, list[Candidate]]]]:
    batch: list[tuple[Problem, list[Candidate]]] = []
    count = 0
    for item in work:
        batch.append(item)
        count += len(item[1])
        if count >= BATCH:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _build(p: Problem, c: Candidate, case: Case, target: Target) -> Measurement:
    try:
        return Measurement(c, trial_engine(p.func, c, case, target))
    except TccError as e:
        return Measurement(c, None, str(e))


def _rows(
    p: Problem, built: Sequence[Measurement], case: Case, bench: Bench, device: Context, rotate: int
) -> list[Row]:
    """Check and time the candidates of one problem."""
    bench.start_problem(case, rotate)
    rows: list[Row] = []
    alive: dict[int, Candidate] = {}
    for number, m in enumerate(built):
        if m.engine is None:
            rows.append(_row(p, m.candidate, device, "compile-error", (), m.message))
            continue
        verdict = bench.trial(number, m.engine)
        if verdict.status == "ok":
            alive[number] = m.candidate
        else:
            rows.append(_row(p, m.candidate, device, verdict.status, (), verdict.message))
    samples = bench.time(list(alive), QUICK_ROUNDS) if alive else {}
    if samples:
        best = min(statistics.median(s) for s in samples.values())
        close = [n for n, s in samples.items() if statistics.median(s) <= best * CLOSE]
        if len(close) > 1:
            for n, more in bench.time(close, MORE_ROUNDS).items():
                samples[n] = more
    for n, s in samples.items():
        rows.append(_row(p, alive[n], device, "ok", tuple(s), ""))
    return rows


def _row(p: Problem, c: Candidate, device: Context, status: str, samples: tuple[float, ...], message: str) -> Row:
    return Row(p.key, c.template.name, c.template.source_hash(), c.config, device.to_json(), status, samples, message)


__all__ = ["Measurement", "Template", "measure"]
