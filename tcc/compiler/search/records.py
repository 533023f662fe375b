# SPDX-License-Identifier: Apache-2.0
"""The timing cache (spec/records.md): JSON lines that can be read, merged with `cat`, and edited.

The winner is a query over the rows, independent of their order.
"""

from __future__ import annotations

import json
import os
import statistics
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATUSES = ("ok", "illegal", "compile-error", "wrong", "timeout", "fault")
FORMAT = 1


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
                "samples": list(self.samples), "message": self.message,
            },
            sort_keys=True, ensure_ascii=False,
        )  # fmt: skip

    @property
    def key(self) -> tuple[str, str, str]:
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
    samples = tuple(float(s) for s in data["samples"])
    if any(not s > 0 for s in samples):
        raise ValueError("a sample is not above 0")
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
    def load(path: Path | None) -> Records:
        """The records of a file; none if there is no such file."""
        out = Records(path)
        if path is None or not path.exists():
            return out
        bad: list[str] = []
        with open(path, encoding="utf-8", errors="replace") as f:
            for number, line in enumerate(f, 1):
                if not line.strip():
                    continue
                try:
                    out._keep(parse(line))
                except ValueError as e:
                    bad.append(f"line {number}: {e}")
        if bad:
            warnings.warn(f"{path}: {len(bad)} rows are skipped ({bad[0]})", stacklevel=2)
        return out

    def _keep(self, row: Row) -> None:
        self.rows.setdefault(row.problem, []).append(row)

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows and append them to the file in one write, so that two processes may append at once."""
        kept = list(rows)
        for row in kept:
            self._keep(row)
        if self.path is None or not kept:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = "".join(row.line() + "\n" for row in kept).encode()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def of(self, problem: str, context: Context | None) -> list[Row]:
        """The rows of a problem in a context; with None, of any device."""
        wanted = None if context is None else context.to_json()
        return [r for r in self.rows.get(problem, []) if wanted is None or r.context == wanted]


TIE = 1.02
"""Medians within 2% of the best are a tie."""


def medians(rows: Iterable[Row]) -> dict[tuple[str, str, str], float]:
    """Median seconds of each candidate that is right, over all its samples. One that was ever wrong is out."""
    samples: dict[tuple[str, str, str], list[float]] = {}
    wrong: set[tuple[str, str, str]] = set()
    for r in rows:
        if r.status == "wrong":
            wrong.add(r.key)
        if r.status == "ok" and r.samples:
            samples.setdefault(r.key, []).extend(r.samples)
    return {k: statistics.median(sorted(v)) for k, v in samples.items() if k not in wrong}
