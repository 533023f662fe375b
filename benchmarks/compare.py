# SPDX-License-Identifier: Apache-2.0
"""Timing rivals fairly: each in its own process, in alternating blocks, the idle ones asleep on a pipe.

A block is a pause of 50 ms and 9 samples, of which the first 3 are dropped; 5 rounds; the median of all that is left.
Thread pools that spin disturb each other for milliseconds after a call, so interleaving call by call would measure
mostly that.
"""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PLAIN = "plain/"  # before the name of an output that is a yardstick, not the contender's own
PAUSE, CALLS, DROPPED, ROUNDS = 0.05, 9, 3, 5


class Worker:
    """A process of `benchmarks.worker` that builds one contender and then sleeps until it is asked for something."""

    def __init__(self, spec: dict[str, Any], env: dict[str, str] | None = None) -> None:
        self.name = f"{spec['contender']} {spec['model']}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(spec)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._answer()

    def ask(self, request: str) -> Any:
        """One request (`block`, `outputs FILE`), and what the worker says to it."""
        assert self.process.stdin
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self._answer()

    def outputs(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The contender's outputs by name, and the plain ones it also has, if any."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "outputs.npz")
            self.ask(f"outputs {path}")
            named = dict(np.load(path))
        plain = {key.removeprefix(PLAIN): value for key, value in named.items() if key.startswith(PLAIN)}
        return {key: value for key, value in named.items() if not key.startswith(PLAIN)}, plain

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.name} ended with status {self.process.wait()}; its error is above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(build: Callable[[], tuple[Callable[[], float], Callable[[], dict[str, np.ndarray]], dict[str, Any]]]) -> None:
    """The worker's side: build, say so, then answer requests until the pipe closes.

    `build` gives a function that makes one sample (seconds), one that gives the outputs by name, and facts to report.
    Whatever the contender prints goes to standard error.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: Any) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    sample, outputs, facts = build()
    say(facts)
    for request in sys.stdin:
        what, _, argument = request.strip().partition(" ")
        if what == "block":
            time.sleep(PAUSE)
            say([sample() for _ in range(CALLS)][DROPPED:])
        elif what == "outputs":
            np.savez(argument, **{name: np.asarray(value) for name, value in outputs().items()})  # type: ignore[arg-type]
            say("written")
        else:
            raise ValueError(f"a worker does not know the request {what!r}")


def cold_engine(spec: dict[str, Any], env: dict[str, str], keep: bool) -> dict[str, Any]:
    """Compile the engine that `spec` describes in a process of its own: no records, an empty kernel cache.

    Gives its seconds and its number of kernels. With `keep`, an engine (and these facts) of an earlier run are used.
    """
    facts = Path(spec["engine"]).with_suffix(".json")
    if keep and facts.exists():
        return json.loads(facts.read_text())
    Path(spec["records"]).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="tcc-cold-") as cache:
        maker = Worker({**spec, "contender": "compile"}, {**env, "TCC_CACHE_DIR": cache})
        maker.close()
    write(facts, json.dumps(maker.ready) + "\n")
    return maker.ready


def race(workers: Sequence[Worker], rounds: int = ROUNDS) -> list[float]:
    """The median seconds of each worker over `rounds` alternating blocks."""
    samples: list[list[float]] = [[] for _ in workers]
    for _ in range(rounds):
        for worker, taken in zip(workers, samples, strict=True):
            taken.extend(worker.ask("block"))
    return [statistics.median(taken) for taken in samples]


def error(reference: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> float:
    """The largest error of any output, relative to that output's largest reference value; infinite for a NaN or another
    shape. Raises KeyError for an output that `got` lacks."""
    worst = 0.0
    for name, wanted in reference.items():
        given = got[name]
        if wanted.shape != given.shape or not np.isfinite(given).all():
            return float("inf")
        scale = float(np.abs(wanted).max()) or 1.0
        worst = max(worst, float(np.abs(wanted.astype(np.float64) - given.astype(np.float64)).max()) / scale)
    return worst


def commit(given: str | None) -> str:
    """The commit measured: as given (a copy without its repository), else what git says, + where files have changed.

    The results folder does not count as changed: the script itself writes there.
    """
    if given:
        if not re.fullmatch(r"[0-9a-f]{7,40}\+?", given):
            raise SystemExit(f"--commit {given} is no commit: give its hash, 7 to 40 hexadecimal digits")
        return given
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", "tcc", "benchmarks/*.py", "constraints.txt"
        )
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("the commit cannot be told from a copy without its repository: give --commit") from None
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """The CPU's name and the cores this process may use."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


@dataclass
class Table:
    """Results on their way to `benchmarks/results/NAME.json` and `NAME.md`; rows of earlier runs stay until replaced.

    Each row says on which commit, machine and day it was measured, so that a table made in parts stays honest.
    """

    name: str
    title: str
    columns: dict[str, Callable[[dict[str, Any]], str]]  # heading -> how a row shows it
    note: Callable[[list[dict[str, Any]]], str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = RESULTS / f"{self.name}.json"
        if path.exists():
            self.rows = {row["model"]: row for row in json.loads(path.read_text())["rows"]}

    def add(self, row: dict[str, Any], machine: str, measured: str) -> None:
        """Put a row in and write both files anew."""
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.rows[row["model"]] = {**row, "machine": machine, "commit": measured, "date": today}
        RESULTS.mkdir(parents=True, exist_ok=True)
        rows = list(self.rows.values())
        write(RESULTS / f"{self.name}.json", json.dumps({"title": self.title, "rows": rows}, indent=1) + "\n")
        write(RESULTS / f"{self.name}.md", self.markdown())

    def markdown(self) -> str:
        """The table for readers."""
        rows = list(self.rows.values())
        lines = [f"# {self.title}", "", *(f"- {one}" for one in sorted({_origin(row) for row in rows})), ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(show(row) for show in self.columns.values()) + " |" for row in rows]
        return "\n".join([*lines, "", self.note(rows), ""])


def _origin(row: dict[str, Any]) -> str:
    return f"{row['machine']}; commit {row['commit']}, {row['date']}"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)
