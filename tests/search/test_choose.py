# SPDX-License-Identifier: Apache-2.0
"""Choices that do not need a stopwatch: locked, forced, drawn, estimated; and a whole small search."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tcc.compiler.cli.tcc import main as tcc_main
from tcc.compiler.driver import compile_model
from tcc.compiler.engine_writer import to_bytes
from tcc.compiler.options import Options
from tcc.errors import InputError
from tcc.ir.rewriter import Decision, Decisions
from tcc.runtime import load
from tcc.runtime.engine import Engine
from tests.compiler import small_models

MODELS = {"cnn": small_models.cnn, "transformer": small_models.transformer}


def given(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    held = {w.name for w in model.graph.initializer}
    return {
        i.name: small_models.normal(seed, *[d.dim_value for d in i.type.tensor_type.shape.dim])
        for i in model.graph.input if i.name not in held
    }  # fmt: skip


def assert_right(model: onnx.ModelProto, engine: Engine) -> None:
    x = given(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for mine, right in zip(engine(x).values(), session.run(None, x), strict=True):
        assert np.abs(mine - right).max() <= 1e-4 * np.abs(right).max()


def build(model: onnx.ModelProto, **options: object) -> tuple[bytes, list[Decision]]:
    """The engine's bytes, and the decisions on tactics."""
    decisions = Decisions()
    content = compile_model(model, Options(target="cpu", **options), decisions=decisions)  # type: ignore[arg-type]
    return to_bytes(content), [d for d in decisions.rows if d.kind == "tactic"]


@pytest.mark.parametrize("name", MODELS)
def test_a_search_and_its_lock(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    lock, records = tmp_path / "lock.json", tmp_path / "records.jsonl"
    searched, decisions = build(model, opt_level=2, search_seconds=4.0, records=records, lock=lock)
    assert_right(model, load(searched))
    assert any("measured" in d.reason for d in decisions)
    statuses = {json.loads(line)["status"] for line in records.read_text(encoding="utf-8").splitlines()}
    assert statuses == {"ok"}, "every candidate of the stock templates is right"

    before = records.read_bytes()
    again, _ = build(model, opt_level=2, search_seconds=0.0, records=records, lock=tmp_path / "again.json")
    assert again == searched, "records alone give the same engine"
    assert records.read_bytes() == before
    assert (tmp_path / "again.json").read_bytes() == lock.read_bytes()

    locked, decisions = build(model, opt_level=2, locked=lock, records=tmp_path / "none.jsonl")
    assert locked == searched
    assert {d.reason for d in decisions} == {"it is locked"}
    assert not (tmp_path / "none.jsonl").exists(), "nothing was measured"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_lock_that_lacks_problems_names_their_nodes(tmp_path: Path) -> None:
    model, lock = small_models.cnn(), tmp_path / "lock.json"
    build(model, opt_level=3, search_seconds=0.0, lock=lock)
    data = json.loads(lock.read_text(encoding="utf-8"))
    key = next(k for k, row in data["tactics"].items() if "classifier" in row["nodes"])
    del data["tactics"][key]
    lock.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"lacks 1 problems: .*classifier.*--lock"):
        build(model, opt_level=3, locked=lock)
    data["target"] = "sm_90"
    lock.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match="is for sm_90, not cpu"):
        build(model, opt_level=3, locked=lock)
    lock.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="no lock file of format 1"):
        build(model, opt_level=3, locked=lock)
    with pytest.raises(InputError, match="cannot read the lock file"):
        build(model, opt_level=3, locked=tmp_path / "nowhere")


def tactics(tmp_path: Path, **rows: object) -> Path:
    path = tmp_path / "tactics.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("level", [1, 3])
def test_forced_tactics(level: int, tmp_path: Path) -> None:
    model = small_models.cnn()
    forced = tactics(
        tmp_path, stem={"template": "llvm.naive", "config": {"chunk": 64}}, depthwise={"template": "llvm.naive"}
    )
    content, decisions = build(model, opt_level=level, search_seconds=0.0, tactics=forced)
    found = [d for d in decisions if d.reason == "it is forced"]
    assert {d.chosen for d in found if "stem" in d.loc} == {"llvm.naive chunk=64"}
    assert {d.chosen.split()[0] for d in found if "depthwise" in d.loc} == {"llvm.naive"}
    assert len(found) < len(decisions)
    engine = load(content)
    assert_right(model, engine)
    stems = [k for k in engine.kernels.values() if "stem" in k["loc"]]
    assert {(k["template"], k["config"]["chunk"]) for k in stems} == {("llvm.naive", 64)}
    rows = {k["problem"][:12]: {"template": "llvm.naive", "config": {"chunk": 16}} for k in stems}
    _, decisions = build(model, opt_level=level, search_seconds=0.0, tactics=tactics(tmp_path, **rows))
    assert {d.chosen for d in decisions if "stem" in d.loc} == {"llvm.naive chunk=16"}


def test_a_node_of_several_kernels(tmp_path: Path) -> None:
    """The stem is a convolution and a change of layout before it: the choice is for the one it fits."""
    forced = tactics(tmp_path, stem={"template": "llvm.conv"})
    _, decisions = build(small_models.cnn(), opt_level=3, search_seconds=0.0, tactics=forced)
    rows = {d.op.split()[0]: d for d in decisions if "stem" in d.loc}
    assert len(rows) > 1
    assert rows["kernel.conv"].reason == "it is forced"
    assert rows["kernel.map"].reason != "it is forced"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ({"nobody": {"template": "llvm.naive"}}, "nobody is no kernel, ONNX node or problem"),
        ({"stem": {"template": "llvm.gone"}}, "no template llvm.gone for it; there are .*llvm.naive"),
        ({"stem": {"template": "llvm.naive", "config": {"chunk": 17}}}, "chunk is one of 16, .* not 17"),
        ({"stem": {"template": "llvm.naive", "config": {"size": 3}}}, "takes the parameters chunk, not"),
        ({"stem": {"config": {}}}, "needs an object with a template"),
        ({"stem": {"template": "llvm.naive", "config": 3}}, "the config is no object"),
        ({"stem": {"template": "llvm.depthwise"}}, "llvm.depthwise does not take it: its groups"),
        ({"stem": {"template": "llvm.naive"}, "norm": {"template": "llvm.conv"}}, "norm asks for llvm.conv .* another"),
    ],
)
def test_tactics_that_cannot_be(rows: dict[str, object], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        build(small_models.cnn(), opt_level=3, search_seconds=0.0, tactics=tactics(tmp_path, **rows))


@pytest.mark.parametrize("name", MODELS)
def test_drawn_configs_are_right_and_repeatable(name: str) -> None:
    model = MODELS[name]()
    engines: set[bytes] = set()
    for seed in range(3):
        content, decisions = build(model, opt_level=3, random_seed=seed)
        assert {d.reason for d in decisions} == {f"it is drawn with the seed {seed}"}
        assert_right(model, load(content))
        assert build(model, opt_level=3, random_seed=seed)[0] == content
        engines.add(content)
    assert len(engines) > 1


def test_a_gpu_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcc.runtime.cuda.device.devices", lambda: ())
    decisions = Decisions()
    options = Options(target="sm_86", opt_level=3, records=tmp_path / "r.jsonl")
    content = compile_model(small_models.cnn(), options, decisions=decisions)
    rows = [d for d in decisions.rows if d.kind == "tactic"]
    assert rows
    assert all("there is no sm_86 here and no record of one" in d.reason for d in rows)
    assert not {k["template"] for k in content.kernels.values()} & {"cuda.naive"}
    estimates = [reason for d in rows for _, reason, _ in d.alternatives if reason.startswith("estimated")]
    assert estimates


def test_records_of_another_machine_decide_where_there_is_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tcc.codegen.template import TEMPLATES
    from tcc.compiler.search.records import Context, Records, Row

    monkeypatch.setattr("tcc.runtime.cuda.device.devices", lambda: ())
    options = Options(target="sm_86", opt_level=3, records=tmp_path / "r.jsonl")
    decisions = Decisions()
    content = compile_model(small_models.cnn(), options, decisions=decisions)
    stem = next(k for k in content.kernels.values() if "stem" in k["loc"])
    row = next(d for d in decisions.rows if d.kind == "tactic" and "stem" in d.loc)
    label = next(name for name, reason, _ in row.alternatives if reason.startswith("estimated"))
    template, *words = label.split()
    space = TEMPLATES[template].space.parameters
    config = {k: next(v for v in space[k] if str(v) == text) for k, text in (w.split("=") for w in words)}
    there = Context("sm_86", "RTX 3090", "1", "nvrtc", 1).to_json()
    source = TEMPLATES[template].source_hash()
    Records(tmp_path / "r.jsonl").add([Row(stem["problem"], template, source, config, there, "ok", (1e-6, 2e-6))])
    decisions = Decisions()
    compile_model(small_models.cnn(), options, decisions=decisions)
    row = next(d for d in decisions.rows if d.kind == "tactic" and "stem" in d.loc)
    assert row.chosen == label
    assert "recorded on RTX 3090" in row.reason


def test_a_dump_maps_kernels_to_nodes(tmp_path: Path) -> None:
    model, dump = tmp_path / "cnn.onnx", tmp_path / "dump"
    onnx.save(small_models.cnn(), model)
    command = [str(model), "-O3", "--search-seconds", "0", "--target", "cpu", "-o", str(tmp_path / "e.tcc")]
    assert tcc_main([*command, "--records", str(tmp_path / "r.jsonl"), "--dump-dir", str(dump)]) == 0
    rows = json.loads((dump / "kernels.json").read_text(encoding="utf-8"))
    nodes = {n for row in rows for n in row["nodes"]}
    assert {"stem", "depthwise", "classifier", "softmax", "pool"} <= nodes
    for row in rows:
        assert row["entry"] in (dump / row["files"]["source"]).read_text(encoding="utf-8")
        assert row["tactic"]["chosen"].startswith(row["template"])
        assert row["launches"] >= 1
    assert "tcc_run" in (dump / "kernels" / "native.ll").read_text(encoding="utf-8")
