# SPDX-License-Identifier: Apache-2.0
"""The comparison's own machinery: workers answer, errors are found, tables keep what they know."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.compare import Table, Worker, error, race


def spec(folder: Path, **other: object) -> dict[str, object]:
    return {"contender": "onnxruntime", "model": "light_squeezenet", "batch": 1, "threads": 1,
            "engine": str(folder / "e.tcc"), **other}  # fmt: skip


def test_a_worker_builds_times_and_answers(tmp_path: Path):
    worker = Worker(spec(tmp_path))
    assert worker.ready["seconds"] > 0 and worker.ready["version"]
    block = worker.ask("block")
    assert len(block) == compare.CALLS - compare.DROPPED and all(1e-5 < one < 10 for one in block)
    (median,) = race([worker], rounds=2)
    assert 1e-5 < median < 10
    own, plain = worker.outputs()
    assert list(own) == list(plain) == ["softmaxout_1"]
    assert error(plain, own) < 1e-4
    worker.close()
    assert worker.process.returncode == 0


def test_a_worker_that_dies_is_named(tmp_path: Path):
    with pytest.raises(RuntimeError, match="the worker onnxruntime no_such_model ended with status 1"):
        Worker(spec(tmp_path, model="no_such_model"))


def test_errors_are_relative_to_the_largest_value():
    reference = {"a": np.array([1.0, -4.0]), "b": np.array([0.0])}
    assert error(reference, {"a": np.array([1.0, -4.0]), "b": np.array([0.0])}) == 0
    assert error(reference, {"b": np.array([0.5]), "a": np.array([1.0, -4.0])}) == 0.5
    assert error(reference, {"a": np.array([3.0, -4.0]), "b": np.array([0.0])}) == 0.5
    assert error(reference, {"a": np.array([np.nan, -4.0]), "b": np.array([0.0])}) == float("inf")
    assert error(reference, {"a": np.array([[1.0, -4.0]]), "b": np.array([0.0])}) == float("inf")
    with pytest.raises(KeyError):
        error(reference, {"a": reference["a"]})


def test_a_table_keeps_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    columns = {"model": lambda row: row["model"], "ms": lambda row: f"{row['s'] * 1e3:.1f}"}

    def table() -> Table:
        return Table("t", "A title", columns, lambda rows: f"{len(rows)} rows")

    table().add({"model": "m", "s": 0.5}, "a machine", "abc")
    table().add({"model": "n", "s": 0.25}, "a machine", "abd+")
    table().add({"model": "m", "s": 0.125}, "a machine", "abd+")
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [(row["model"], row["s"], row["commit"]) for row in rows] == [("m", 0.125, "abd+"), ("n", 0.25, "abd+")]
    text = (tmp_path / "t.md").read_text()
    assert "| m | 125.0 |" in text and "| n | 250.0 |" in text and "2 rows" in text and "a machine; commit abd+" in text
    assert not list(tmp_path.glob("*.part"))


def test_a_commit_is_a_hash() -> None:
    assert compare.commit("e6dd833") == "e6dd833"
    with pytest.raises(SystemExit, match="--commit HEAD is no commit: give its hash"):
        compare.commit("HEAD")
