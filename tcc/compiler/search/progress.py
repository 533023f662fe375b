# SPDX-License-Identifier: Apache-2.0
"""Progress of a search: a bar on a terminal, a line now and then elsewhere, both on stderr."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

LINE_SECONDS = 10.0
"""Seconds between two lines where no terminal shows a bar; a search shorter than that prints none."""


class Progress:
    """Counts candidates done of those planned, and guesses how long the rest takes; use as a context manager."""

    def __init__(self, budget: float, what: str) -> None:
        self.budget = budget
        self.what = what
        self.planned = self.done = 0
        self.begun = time.monotonic()
        self._last = self.begun
        self._printed = False
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("[bold]{task.description}"), progress.BarColumn(),
                progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[eta]}"),
                progress.TextColumn("{task.fields[note]}"), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(f"search {self.what}", total=None, eta="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._printed and kind is None:
            self._print(f"{self.done} candidates in {self.seconds:.0f} s")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.begun

    @property
    def eta(self) -> float:
        """About how many seconds are left: by the pace so far, and never more than the budget has."""
        left = max(0.0, self.budget - self.seconds)
        return min(left, self.seconds / self.done * (self.planned - self.done)) if self.done else left

    def plan(self, count: int) -> None:
        """More candidates are to be tried."""
        self.planned += count
        self._show("")

    def advance(self, count: int, note: str = "") -> None:
        """Candidates are done with."""
        self.done += count
        self._show(note)

    def _show(self, note: str) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, total=self.planned, completed=self.done, eta=f"{self.eta:.0f} s left", note=note
            )
        elif time.monotonic() - self._last >= LINE_SECONDS and self.done:
            self._last = time.monotonic()
            self._print(f"{self.done} of {self.planned} candidates, {self.eta:.0f} s left{f', {note}' if note else ''}")

    def _print(self, text: str) -> None:
        self._printed = True
        print(f"tcc: search {self.what}: {text}", file=sys.stderr, flush=True)
