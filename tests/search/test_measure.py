# SPDX-License-Identifier: Apache-2.0
"""Measuring: a candidate that misbehaves loses only itself, and the fastest right one wins."""

import os
from pathlib import Path

import pytest

from tcc.compiler.search.choose import choose
from tcc.compiler.search.devices import measuring_context
from tcc.compiler.search.measure import Measurer
from tcc.compiler.search.progress import Progress
from tcc.compiler.search.records import Records, Row, times
from tcc.compiler.search.wire import _Patience  # pyright: ignore[reportPrivateUsage]
from tcc.compiler.targets import host_cpu
from tcc.errors import FailureError
from tcc.ir.rewriter import Decision
from tcc.passes.base import PassContext
from tests.search.odd import doubling, module_of, problem_of, registered


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run on one thread: on a busy machine, threads that meet wait for its other work."""
    monkeypatch.setenv("TCC_NUM_THREADS", "1")


def measured(modes: list[str], path: Path | None = None, trial_seconds: float = 2.0) -> dict[str, Row]:
    """The row of each mode after measuring them in this order."""
    p = problem_of(doubling())
    (space,) = p.listing.spaces
    candidates = {c.config["mode"]: c for c in map(space.at, range(len(space.costs))) if c.config["level"] == 0}
    device = measuring_context(host_cpu())
    assert device is not None
    records = Records(path)
    with (
        Progress(60, "test") as progress,
        Measurer(host_cpu(), device, records, progress, 1 << 20, trial_seconds) as measurer,
    ):
        measurer.measure([(p, [candidates[m] for m in modes])], deadline=float("inf"))
    return {row.config["mode"]: row for row in records.rows[p.key]}


def test_each_fault_costs_only_its_candidate(tmp_path: Path) -> None:
    modes = ["a", "crash", "wrong", "hang", "outside", "fickle", "unwritten", "broken", "raises", "b"]
    with registered():
        rows = measured(modes, tmp_path / "records.jsonl")
    assert {m: r.status for m, r in rows.items()} == {
        "a": "ok", "b": "ok", "crash": "fault", "wrong": "wrong", "hang": "timeout", "outside": "wrong",
        "fickle": "wrong", "unwritten": "wrong", "broken": "compile-error", "raises": "compile-error",
    }, {m: r.message for m, r in rows.items()}  # fmt: skip
    assert all(rows[m].samples for m in "ab")
    assert "outside" in rows["outside"].message and "written" in rows["outside"].message
    assert "the first at [0, 0]" in rows["wrong"].message
    assert "differ" in rows["fickle"].message or "wrong" in rows["fickle"].message
    assert "KeyError" in rows["raises"].message
    assert "2" in rows["hang"].message
    again = Records.load(tmp_path / "records.jsonl")
    assert [r.status for rs in again.rows.values() for r in rs] != []
    assert set(times(next(iter(again.rows.values())))) == {rows["a"].key, rows["b"].key}


def test_a_worker_that_does_not_start_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_NUM_THREADS", "none")
    with registered(), pytest.raises(FailureError, match=r"does not start: .*TCC_NUM_THREADS is 'none'"):
        measured(["a"])


def test_time_in_which_all_were_stopped_hardly_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3600.0, 3600.0, 3600.0])
    monkeypatch.setattr("tcc.compiler.search.wire.time.monotonic", lambda: next(clock))
    here, there = os.pipe()
    os.write(there, b"x")
    patience = _Patience(2.0)
    patience.wait(here)
    assert patience.left == 1.5
    os.close(here)
    os.close(there)


def choice(tmp_path: Path, name: str, seconds: float = 30.0) -> tuple[dict[str, object], Decision]:
    """The config chosen for the kernel by a search, and the decision."""
    f = doubling()
    options = {"search_seconds": seconds, "records": tmp_path / name}
    context = PassContext(target=host_cpu(), opt_level=2, options=options)
    chosen = choose([f], module_of(f), context)
    (decision,) = [d for d in context.decisions.rows if d.kind == "tactic"]
    return chosen["k0"][1], decision


def only(monkeypatch: pytest.MonkeyPatch, *modes: str) -> None:
    """Let searches see these modes of the odd template and nothing else."""
    monkeypatch.setattr("tcc.compiler.search.choose.enumerate_problem", lambda f, t: problem_of(f, modes).listing)


def test_slowing_the_winner_down_changes_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "a", "b", "wrong")
    with registered(a=1, b=200):
        config, decision = choice(tmp_path, "records.jsonl")
        assert config["mode"] == "a"
        assert "measured" in decision.reason
        slower = [s for n, _, s in decision.alternatives if n == "llvm.odd mode=b level=0"]
        assert slower and slower[0] is not None
    # The edited template has another source hash, so what was recorded of it before does not count.
    with registered(a=200, b=1):
        config, decision = choice(tmp_path, "records.jsonl")
        assert config == {"mode": "b", "level": 0}
        reasons = {n: r for n, r, _ in decision.alternatives}
        assert reasons["llvm.odd mode=wrong level=0"].startswith("wrong: ")
        before = (tmp_path / "records.jsonl").read_bytes()
        config, decision = choice(tmp_path, "records.jsonl", seconds=0.0)
        assert config == {"mode": "b", "level": 0}, "records alone give the same answer"
        assert (tmp_path / "records.jsonl").read_bytes() == before


def test_without_time_or_records_the_cost_model_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "a", "b")
    with registered(a=60, b=1):
        config, decision = choice(tmp_path, "none.jsonl", seconds=0.0)
    assert config == {"mode": "a", "level": 0}
    assert "nothing was measured" in decision.reason
    assert not (tmp_path / "none.jsonl").exists()
    assert any("only a has a second level" in why for _, why, _ in decision.alternatives)
