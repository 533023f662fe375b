# SPDX-License-Identifier: Apache-2.0
"""The timing cache (spec/records.md): JSON lines that can be read, merged with `cat`, and edited.

The winner is a query over the rows, independent of their order.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tcc.errors import InputError

STATUSES = ("ok", "illegal", "compile-error", "wrong", "timeout", "fault")
FORMAT = 1
Key = tuple[str, str, str]
K = TypeVar("K")

_PROBLEM = re.compile(r'"problem":\s*"([0-9a-f]+)"')


@dataclass(frozen=True)
class Context:
    """What a measurement depends on beside problem and candidate."""

    target: str
    device: str
    driver: str
    toolchain: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target, "device": self.device, "driver": self.driver, "toolchain": self.toolchain,
            "threads": self.threads,
        }  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measurement of one candidate; `samples` in seconds."""

    problem: str
    template: str
    source: str
    config: dict[str, Any]
    context: dict[str, Any]
    status: str
    samples: tuple[float, ...] = ()
    message: str = ""
    plan: str = "alone"

    def line(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(
            {
                "format": FORMAT, "problem": self.problem, "template": self.template, "source": self.source,
                "config": self.config, "context": self.context, "plan": self.plan, "status": self.status,
                "samples": [float(f"{s:.6g}") for s in self.samples], "message": self.message,
            },
            sort_keys=True, ensure_ascii=False,
        )  # fmt: skip

    @property
    def key(self) -> Key:
        """(template, source, config): rows of one candidate share it."""
        return (self.template, self.source, json.dumps(self.config, sort_keys=True))


def parse(line: str) -> Row:
    """A row; ValueError says what is wrong with the line."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("it is no object")
    if data.get("format") != FORMAT:
        raise ValueError(f"its format is {data.get('format')!r}, not {FORMAT}")
    for name, kind in (("problem", str), ("template", str), ("source", str), ("config", dict), ("context", dict),
                       ("status", str), ("samples", list)):  # fmt: skip
        if not isinstance(data.get(name), kind):
            raise ValueError(f"{name} is missing or no {kind.__name__}")
    if data["status"] not in STATUSES:
        raise ValueError(f"the status {data['status']!r} is none of {', '.join(STATUSES)}")
    try:
        samples = tuple(float(s) for s in data["samples"])
    except TypeError:
        raise ValueError("a sample is no number") from None
    if any(not 0 < s < float("inf") for s in samples):
        raise ValueError("a sample is not above 0")
    if data["status"] == "ok" and not samples:
        raise ValueError("it is ok and has no samples")
    return Row(
        data["problem"], data["template"], data["source"], data["config"], data["context"], data["status"], samples,
        str(data.get("message", "")), str(data.get("plan", "alone")),
    )  # fmt: skip


@dataclass
class Records:
    """The rows of a file, by problem. Rows that cannot be read are skipped with one warning a file."""

    path: Path | None = None
    rows: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])

    @staticmethod
    def load(path: Path | None, problems: Container[str] | None = None) -> Records:
        """The records of a file; none if there is no such file. With `problems`, of these alone: others are not even
        parsed. InputError if there is a file and it cannot be read."""
        out = Records(path)
        if path is None or not path.exists():
            return out
        bad: list[str] = []
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                for number, line in enumerate(f, 1):
                    named = _PROBLEM.search(line)
                    if not line.strip() or (problems is not None and named is not None and named[1] not in problems):
                        continue
                    try:
                        out._keep(parse(line))
                    except ValueError as e:
                        bad.append(f"line {number}: {e}")
        except OSError as e:
            raise InputError(f"cannot read the records {path}: {e.strerror}") from None
        if bad:
            warnings.warn(f"{path}: {len(bad)} rows are skipped ({bad[0]})", stacklevel=2)
        return out

    def _keep(self, row: Row) -> None:
        self.rows.setdefault(row.problem, []).append(row)

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows and append them to the file in one write, so that two processes may append at once. InputError if
        the file cannot be written."""
        kept = list(rows)
        for row in kept:
            self._keep(row)
        if self.path is None or not kept:
            return
        data = "".join(row.line() + "\n" for row in kept).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if _cut_short(fd):
                    data = b"\n" + data
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError as e:
            raise InputError(
                f"cannot write the records {self.path}: {e.strerror}; name another file with --records"
            ) from None

    def of(self, problem: str, context: Context) -> list[Row]:
        """The rows of a problem that were measured alone in a context."""
        wanted = context.to_json()
        return [r for r in self.rows.get(problem, []) if r.context == wanted and r.plan == "alone"]

    def foreign(self, problem: str, target: str) -> list[Row]:
        """The rows of a problem for a target from one other machine: the one with the most candidates that are ok; of
        equal ones the first by its facts."""
        by: dict[str, list[Row]] = {}
        for r in self.rows.get(problem, []):
            if r.context.get("target") == target and r.plan == "alone":
                by.setdefault(json.dumps(r.context, sort_keys=True), []).append(r)
        if not by:
            return []
        return by[min(by, key=lambda c: (-len({r.key for r in by[c] if r.status == "ok"}), c))]


def _cut_short(fd: int) -> bool:
    """Whether a file ends in the middle of a line, as after a crash."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


@dataclass(frozen=True)
class Time:
    """What samples say: `seconds`, their lower quartile (what disturbs a measurement only makes it longer), and
    `slack`, by how much that may be off."""

    seconds: float
    slack: float


TIE, MOST_TIE = 0.02, 0.05
"""Times that differ by 2% are a tie; by up to 5% where their slacks say so."""


def time_of(samples: Sequence[float]) -> Time:
    """The time that samples stand for, and its half interval of confidence."""
    ordered = sorted(samples)
    quarter = ordered[(len(ordered) - 1) // 4]
    middle = statistics.median(ordered)
    return Time(quarter, 1.57 * 2 * (middle - quarter) / len(ordered) ** 0.5)


def times(rows: Iterable[Row]) -> dict[Key, Time]:
    """The time of each candidate that is right, over all its samples. One that was ever wrong is out."""
    samples: dict[Key, list[float]] = {}
    wrong: set[Key] = set()
    for r in rows:
        if r.status == "wrong":
            wrong.add(r.key)
        elif r.status == "ok":
            samples.setdefault(r.key, []).extend(r.samples)
    return {k: time_of(v) for k, v in samples.items() if k not in wrong}


def tied(found: Mapping[K, Time]) -> list[K]:
    """Those that are not surely slower than the fastest."""
    best = min(found.values(), key=lambda t: (t.seconds, t.slack))
    return [
        k for k, t in found.items()
        if t.seconds - best.seconds <= max(TIE * best.seconds, min(t.slack + best.slack, MOST_TIE * best.seconds))
    ]  # fmt: skip
