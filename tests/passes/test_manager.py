# SPDX-License-Identifier: Apache-2.0
"""The pass manager and its instruments: printing, timing, dumps, crashes and their reproducers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcc.errors import InputError
from tcc.ir.declare import OPS, IRError
from tcc.ir.module import ModuleOp
from tcc.ir.parser import parse
from tcc.ir.printer import print_op
from tcc.ir.resources import ResourceStore
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import F16, TensorType
from tcc.passes.base import PASSES, Pass, PassContext, load_passes, register_pass
from tcc.passes.dump import Dump
from tcc.passes.manager import PassFailure, PassManager, run_passes

T = "tensor<4xf32>"
SOURCE = f"""\
graph.func() {{sym_name = "main", arg_names = ["x"], result_names = ["y"]}} ({{
^bb0(%x: {T}):
  %c = graph.constant() {{value = dense<4xf32: 1, 2, 3, 4>}} : () -> {T}
  %s = graph.add(%x, %c) : ({T}, {T}) -> {T} loc("Add_0")
  %r = graph.relu(%s) : ({T}) -> {T} loc("Relu_1")
  graph.return(%r) : ({T}) -> ()
}}) : () -> ()
"""


def ops(module: ModuleOp, name: str) -> list:
    return [op for op in module.walk() if op.name == name]


@dataclass(frozen=True)
class Swap(Pass):
    """before: `graph.relu`; after: `graph.abs`."""

    name = "demo-swap"
    to: str = "graph.abs"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for op in ops(module, "graph.relu"):
            rewriter.replace(op, OPS[self.to](op.operands[0]))
        for op in ops(module, "graph.add"):
            rewriter.remark(op, "swap", "kept", "it is no relu")


@dataclass(frozen=True)
class Crash(Pass):
    """before: any module; after: nothing, for it raises what `how` says."""

    name = "demo-crash"
    how: str = "key"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        if self.how == "key":
            raise KeyError("missing")
        if self.how == "input":
            raise InputError("the model cannot be compiled: bind x")
        if self.how == "invalid":
            module.block.first.regions[0].block.first.result.type = TensorType((9,), F16)  # pyright: ignore
            rewriter.changed = True
        if self.how == "sly":
            ops(module, "graph.add")[0].loc = ("moved",)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    load_passes()
    register_pass(Swap)
    register_pass(Crash)
    yield
    del PASSES["demo-swap"], PASSES["demo-crash"]


def test_passes_run_and_tell(capsys: pytest.CaptureFixture[str]):
    m = parse(SOURCE)
    context = run_passes(m, "demo-swap,demo-swap")
    assert ops(m, "graph.abs")[0].loc == ("Relu_1",)
    assert [(r.pass_name, r.op, r.loc, r.reason) for r in context.decisions.rows] == [
        ("demo-swap", "graph.add", ("Add_0",), "it is no relu")
    ] * 2
    assert context.resources is m.resources
    assert capsys.readouterr() == ("", "")


def test_the_module_carries_what_is_still_to_run(tmp_path: Path):
    m = parse(SOURCE)
    PassManager([Dump(tmp_path)]).run(m, "demo-swap,demo-swap{to=graph.exp}", then="demo-crash")
    assert m.pipeline == "demo-crash"
    assert parse((tmp_path / "000-input.mlir").read_text()).pipeline == "demo-swap,demo-swap{to=graph.exp},demo-crash"
    assert parse((tmp_path / "001-demo-swap.mlir").read_text()).pipeline == "demo-swap{to=graph.exp},demo-crash"


def test_a_dump_directory_is_complete(tmp_path: Path):
    m = parse(SOURCE)
    manager = PassManager([Dump(tmp_path)])
    manager.run(m, "demo-swap,demo-swap{to=graph.exp}")
    manager.run(m, "demo-swap")
    names = sorted(p.name for p in tmp_path.iterdir())
    # The second and third passes changed nothing.
    assert names == ["000-input.mlir", "001-demo-swap.mlir", "constants", "remarks.jsonl", "timing.json"]
    store = ResourceStore((tmp_path / "constants",))
    again = parse((tmp_path / "001-demo-swap.mlir").read_text(), resources=store)
    assert store.get(ops(again, "graph.constant")[0].attrs["value"]).tolist() == [1, 2, 3, 4]
    assert len(list((tmp_path / "constants").iterdir())) == 1
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert [(p["number"], p["pass"], p["changed"]) for p in timing["passes"]] == [
        (1, "demo-swap", True),
        (2, "demo-swap{to=graph.exp}", False),
        (3, "demo-swap", False),
    ]
    rows = [json.loads(line) for line in (tmp_path / "remarks.jsonl").read_text().splitlines()]
    assert rows[0]["loc"] == ["Add_0"]
    assert rows[0]["reason"] == "it is no relu"


def test_constants_of_the_model_file_are_not_copied(tmp_path: Path):
    m = parse(SOURCE)
    resource = ops(m, "graph.constant")[0].attrs["value"]
    m.resources.origins = frozenset({resource.sha256})
    PassManager([Dump(tmp_path / "d")]).run(m, "demo-swap")
    assert not (tmp_path / "d" / "constants").exists()
    with pytest.raises(PassFailure) as e:  # a reproducer goes to others, so it holds them all
        PassManager(crash_dir=tmp_path / "c").run(m, "demo-crash")
    assert e.value.reproducer
    assert len(list((tmp_path / "c" / "constants").iterdir())) == 1


def test_a_crash_leaves_one_reproducer_that_replays(tmp_path: Path, opt):
    m = parse(SOURCE)
    with pytest.raises(PassFailure, match="the pass demo-crash failed: KeyError: 'missing'; replay it with") as e:
        PassManager(crash_dir=tmp_path).run(m, "demo-swap,demo-crash,demo-swap", then="demo-swap")
    assert e.value.exit_code == 1
    assert e.value.reproducer == str(tmp_path / "crash-demo-crash.mlir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constants", "crash-demo-crash.mlir"]
    kept = parse(Path(e.value.reproducer).read_text())
    assert kept.pipeline == "demo-crash,demo-swap,demo-swap"
    assert ops(kept, "graph.abs")
    code, out, err = opt([e.value.reproducer, "--run-reproducer", f"--crash-dir={tmp_path / 'again'}"])
    assert (code, out) == (1, "")
    assert "the pass demo-crash failed: KeyError: 'missing'; replay it with" in err
    assert (tmp_path / "again" / "crash-demo-crash.mlir").read_text() == Path(e.value.reproducer).read_text()


def test_invalid_ir_found_at_the_end_is_pinned_on_its_pass(tmp_path: Path):
    with pytest.raises(PassFailure, match="the IR is not valid") as e:
        PassManager(crash_dir=tmp_path).run(parse(SOURCE), "demo-crash{how=invalid},demo-swap,demo-swap")
    assert e.value.reproducer
    kept = parse(Path(e.value.reproducer).read_text())
    assert kept.pipeline == "demo-crash{how=invalid},demo-swap,demo-swap"
    assert Path(e.value.reproducer).name == "crash-demo-crash.mlir"


def test_verify_each_names_the_pass(tmp_path: Path):
    with pytest.raises(PassFailure, match="after the pass demo-crash the IR is not valid: graph"):
        PassManager(verify_each=True, crash_dir=tmp_path).run(parse(SOURCE), "demo-crash{how=invalid},demo-swap")


def test_verify_each_holds_passes_to_their_word():
    with pytest.raises(PassFailure, match="changed the IR behind its rewriter's back"):
        run_passes(parse(SOURCE), "demo-crash{how=sly}")


def test_errors_of_the_input_are_no_crash(tmp_path: Path):
    with pytest.raises(InputError, match="bind x"):
        PassManager(crash_dir=tmp_path).run(parse(SOURCE), "demo-crash{how=input}")
    assert not list(tmp_path.iterdir())


def test_what_goes_in_is_verified():
    m = parse(SOURCE)
    ops(m, "graph.relu")[0].result.type = TensorType((9,), F16)
    with pytest.raises(IRError, match=r'graph.relu at "Relu_1": result 0'):
        run_passes(m, "demo-swap")


def write(folder: Path) -> str:
    path = folder / "in.mlir"
    path.write_text(SOURCE)
    return str(path)


def test_printing_around_passes(tmp_path: Path, opt):
    file = write(tmp_path)
    pipeline = "--passes=demo-swap,demo-swap{to=graph.exp}"
    titles = {
        "--print-ir-before=demo-swap": ["IR before demo-swap", "IR before demo-swap{to=graph.exp}"],
        "--print-ir-after=demo-swap": ["IR after demo-swap (1)", "IR after demo-swap{to=graph.exp} (2)"],
        "--print-ir-after-all": ["IR after demo-swap (1)", "IR after demo-swap{to=graph.exp} (2)"],
        "--print-ir-before-all": ["IR before demo-swap", "IR before demo-swap{to=graph.exp}"],
        "--print-ir-on-change": ["IR that goes in", "IR after demo-swap (1)"],
    }
    for flag, wanted in titles.items():
        code, out, err = opt([file, pipeline, flag])
        assert code == 0
        assert [line[9:-6] for line in err.splitlines() if line.startswith("// -----")] == wanted
        assert "graph.abs" in out
        shown = err.split("-----\n")[1].split("// -----")[0]
        assert print_op(parse(shown)) == shown.rstrip("\n") + "\n"


def test_timing_remarks_and_json(tmp_path: Path, opt):
    file = write(tmp_path)
    code, _, err = opt([file, "--passes=demo-swap,demo-swap", "--time-passes", "--remarks"])
    assert code == 0
    table = [line.split() for line in err.splitlines() if line.endswith(("demo-swap", "total"))]
    assert table[0][2:] == ["2", "1", "demo-swap"]
    assert table[1][2:] == ["2", "total"]
    assert 'remark: [demo-swap] graph.add at "Add_0": swap: kept: it is no relu' in err
    code, out, _ = opt([file, "--passes=demo-swap", "--json"])
    answer = json.loads(out)
    assert (code, answer["pipeline"], answer["remarks"][0]["chosen"]) == (0, "", "kept")
    assert "graph.abs" in answer["ir"]


def test_list_passes(opt):
    code, out, _ = opt(["--list-passes"])
    assert code == 0
    assert "demo-swap\n    before: `graph.relu`; after: `graph.abs`.\n    {to=}  str, default graph.abs" in out
    code, out, _ = opt(["--list-passes", "--json"])
    assert {"name": "to", "type": "str", "default": "graph.abs"} in [
        o for row in json.loads(out) for o in row["options"]
    ]


def test_output_goes_to_a_file_with_its_constants(tmp_path: Path, opt):
    file = write(tmp_path)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "o.mlir"
    assert opt([file, "--passes=demo-swap", "-o", str(target)]) == (0, "", "")
    code, out, err = opt([str(target), "--passes=demo-swap"])
    assert (code, err) == (0, "")
    assert out == target.read_text()
    assert len(list((tmp_path / "out" / "constants").iterdir())) == 1
    code, _, err = opt([file, "-o", str(tmp_path / "none" / "o.mlir")])
    assert code == 1
    assert err.startswith("tcc-opt: error: cannot write ")


def test_a_failed_run_leaves_no_output(tmp_path: Path, opt):
    file = write(tmp_path)
    target = tmp_path / "o.mlir"
    code, _, err = opt([file, "--passes=demo-crash", "-o", str(target), f"--crash-dir={tmp_path / 'c'}"])
    assert code == 1
    assert err.count("\n") == 1
    assert not target.exists()


def test_split_input_file_keeps_line_numbers(tmp_path: Path, opt):
    path = tmp_path / "two.mlir"
    path.write_text(SOURCE + "// -----\n" + SOURCE.replace("relu", "rleu"))
    code, _, err = opt([str(path), "--split-input-file"])
    assert code == 2
    assert f"{path}:13:8: there is no op graph.rleu" in err
    path.write_text(SOURCE + "// -----\n" + SOURCE)
    code, out, _ = opt([str(path), "--split-input-file"])
    assert code == 0
    first, second = out.split("// -----\n")
    assert first == second == print_op(parse(SOURCE))
