# SPDX-License-Identifier: Apache-2.0
"""Branches and loops at run time: right answers at every level, on every way through; text, resuming, both targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import tcc
from tcc.compiler.cli.opt import main as tcc_opt
from tcc.compiler.cli.tcc import main as tcc_main
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.compiler.control_models import Feeds
from tests.compiler.growing_models import MODELS
from tests.target import TARGET


def right(model: onnx.ModelProto, feeds: Feeds) -> dict[str, np.ndarray[Any, Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return {k: np.asarray(a) for k, a in zip(names, session.run(None, feeds), strict=True)}


def check(engine: Any, model: onnx.ModelProto, feeds: list[Feeds], rtol: float = 1e-4) -> None:
    """All inputs twice, in turn: nothing is left over from the call before."""
    for given in [*feeds, *feeds]:
        got = engine(given)
        want = right(model, given)
        assert list(got) == list(want)
        for name, a in want.items():
            assert got[name].dtype == a.dtype
            assert got[name].shape == a.shape, name
            if a.size:
                scale = max(float(np.abs(a.astype(np.float64)).max()), 1e-3)
                np.testing.assert_allclose(got[name], a, rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_right_on_every_way(name: str, level: int) -> None:
    model, feeds = MODELS[name]()
    check(tcc.compile(model, target=TARGET, opt_level=level), model, feeds)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_random_configs_are_right(name: str, seed: int) -> None:
    model, feeds = MODELS[name]()
    check(tcc.compile(model, target=TARGET, opt_level=3, random_seed=seed), model, feeds)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_read_that_was_not_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tcc.runtime.cpu.executor import CpuExecutor

    monkeypatch.setattr(CpuExecutor, "poison", 0xFF)
    model, feeds = MODELS[name]()
    check(tcc.compile(model, target=TARGET, opt_level=1), model, feeds)


@pytest.mark.parametrize("name", MODELS)
def test_variables_and_their_next_values_change_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcc.passes.kernel.plan_memory.LARGE", 1)
    monkeypatch.setattr("tcc.passes.kernel.plan_memory.LARGE_ON_CUDA", 1)
    model, feeds = MODELS[name]()
    engine = tcc.compile(model, target=TARGET, opt_level=1)
    check(engine, model, feeds)
    if name in ("counted", "refined", "long_scan", "lstm_in_loop"):
        (loop,) = [op for op in engine.data.schedule if op["op"] == "loop"]
        assert any(pair["swap"] for pair in loop["carried"])


@pytest.mark.parametrize("name", ["counted", "refined", "long_scan"])
def test_sixteen_bits_stay_inside_of_regions(name: str) -> None:
    model, feeds = MODELS[name]()
    engine = tcc.compile(model, target=TARGET, opt_level=1, precision="f16")
    for given in feeds:
        got, want = engine(given), right(model, given)
        for k, a in want.items():
            if got[k].shape == a.shape:  # a condition on rounded numbers may end a loop elsewhere
                np.testing.assert_allclose(got[k], a, rtol=0.05, atol=0.05, err_msg=k)


@pytest.mark.parametrize("name", MODELS)
def test_every_dump_resumes_to_the_same_engine(name: str, tmp_path: Path) -> None:
    path, direct, dump = tmp_path / "m.onnx", tmp_path / "direct.tcc", tmp_path / "dump"
    onnx.save(MODELS[name]()[0], path)
    assert tcc_main([str(path), "-O1", "--target", "cpu", "-o", str(direct), "--dump-dir", str(dump)]) == 0
    files = sorted(dump.glob("*.mlir"))
    assert files
    for f in files:
        again, out = tmp_path / "again.mlir", tmp_path / "out.tcc"
        assert tcc_opt([str(f), "-o", str(again)]) == 0
        lines = f.read_text().splitlines(keepends=True)
        assert again.read_text() == "".join(x for x in lines if not x.startswith("//")), f.name
        assert tcc_opt([str(f), "--finish", "-o", str(out)]) == 0
        assert out.read_bytes() == direct.read_bytes(), f.name


@pytest.mark.parametrize(
    "name", ["counted", "nested", "refined", "lstm_in_loop", "growing", "translator", "chosen_rows"]
)
def test_builds_for_a_gpu(name: str) -> None:
    content = compile_model(MODELS[name]()[0], Options(target="sm_86", opt_level=1))
    kinds = [op["op"] for op in content.schedule]
    assert "loop" in kinds
    assert all(k["files"]["binary"].endswith(".cubin") for k in content.kernels.values())


def test_branches_write_where_their_result_lies() -> None:
    """A branch that gives what it captures copies it; one that computes it does not."""
    engine = tcc.compile(MODELS["passed_through"]()[0], target="cpu")
    (loop,) = [op for op in engine.data.schedule if op["op"] == "loop"]
    (branch,) = [op for op in loop["body"] if op["op"] == "if"]
    kinds = [[op["op"] for part in branch[side] for op in part["body"]] for side in ("then", "else")]
    assert kinds == [["copy", "copy"], ["launch", "copy"]]


def test_crossings_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def report(name: str) -> list[tuple[int, str]]:
        engine = tcc.compile(MODELS[name]()[0], target=TARGET)
        return [(row["count"], row["message"]) for row in engine.report if row["kind"] == "crossing"]

    assert report("fixed") == [(0, "no iteration waits for the host")]
    assert report("early_exit") == [(1, "every iteration waits for the host 1 time, for its condition")]
    (branch, loop) = report("while_loop")
    assert branch == (1, "the host reads its condition and runs one branch")
    assert loop[0] == 2
    assert loop[1].startswith(
        "every iteration waits for the host 2 times, for its condition, the condition of collatz/"
    )
    path = tmp_path / "m.onnx"
    onnx.save(MODELS["early_exit"]()[0], path)
    assert tcc_main([str(path), "--target", "cpu", "-o", str(tmp_path / "m.tcc")]) == 0
    assert "tcc: note: grow: every iteration waits for the host 1 time, for its condition" in capsys.readouterr().out
