# SPDX-License-Identifier: Apache-2.0
"""Progress: lines where nobody watches a terminal, a bar where somebody does, and an honest guess of what is left."""

import io
import sys

import pytest

from tcc.compiler.search import progress
from tcc.compiler.search.progress import Progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with Progress(100.0, "cpu") as p:
        p.plan(40)
        for _ in range(40):
            clock.now += 1.0
            p.advance(1, "conv")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tcc: search cpu: 10 of 40 candidates, 30 s left, conv"
    assert len(lines) == 5
    assert lines[-1] == "tcc: search cpu: 40 candidates in 40 s"


def test_a_short_search_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with Progress(100.0, "cpu") as p:
        p.plan(3)
        for _ in range(3):
            clock.now += 1.0
            p.advance(1)
    assert capsys.readouterr().err == ""


def test_the_guess_never_exceeds_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    p = Progress(20.0, "cpu")
    assert p.eta == 20.0
    p.plan(1000)
    clock.now = 5.0
    p.done = 5
    assert p.eta == 15.0
    p.done = 900
    assert p.eta == pytest.approx(5 / 9)
    clock.now = 30.0
    assert p.eta == 0.0


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress(100.0, "cpu") as p:
        p.plan(8)
        p.advance(3, "conv")
    shown = screen.getvalue()
    assert "search cpu" in shown
    assert "3/8" in shown
    assert "tcc: search" not in shown
