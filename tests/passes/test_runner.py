# SPDX-License-Identifier: Apache-2.0
"""The FileCheck runner finds what it is there to find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tcc.ir.declare import OPS
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import PASSES, Pass, PassContext, load_passes, register_pass

TEXT = """\
graph.func() {sym_name = "main", arg_names = ["x", "k"], result_names = ["y"]} ({
^bb0(%x: tensor<?x3xf32, #tcc.enc<"dims=[n]">>, %k: tensor<2xi64>):
  %0 = graph.relu(%x) : (tensor<?x3xf32, #tcc.enc<"dims=[n]">>) -> tensor<?x3xf32, #tcc.enc<"dims=[n]">>
  graph.return(%0) : (tensor<?x3xf32, #tcc.enc<"dims=[n]">>) -> ()
}) : () -> ()
"""


@dataclass(frozen=True)
class Wrong(Pass):
    """before: `graph.relu`; after: `graph.abs`, which is another function."""

    name = "demo-wrong"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for op in [op for op in module.walk() if op.name == "graph.relu"]:
            rewriter.replace(op, OPS["graph.abs"](op.operands[0]))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    load_passes()
    register_pass(Wrong)
    yield
    del PASSES["demo-wrong"]


def test_numerics_find_a_wrong_pass(runner: SimpleNamespace):
    assert runner.numerics(TEXT, "") == 0.0
    assert runner.numerics(TEXT, "demo-wrong") > 0.1


def test_checks_fail_where_the_text_differs(runner: SimpleNamespace, tmp_path: Path):
    checks = tmp_path / "c.mlir"
    checks.write_text("// CHECK: graph.relu\n// CHECK-NOT: graph.abs\n// OTHER: graph.exp\n")
    assert runner.filecheck([str(checks)], TEXT)[0] is False
    failed, report = runner.filecheck([str(checks)], TEXT.replace("relu", "exp"))
    assert failed
    assert "graph.relu" in report
    assert runner.filecheck([str(checks)], TEXT + "graph.abs")[0]
    assert runner.filecheck([str(checks), "--check-prefix=OTHER"], TEXT)[0]
    checks.write_text("// no checks at all\n")
    assert runner.filecheck([str(checks)], TEXT)[0]


def test_run_lines(runner: SimpleNamespace):
    source = "// RUN: tcc-opt %s \\\n// RUN:   --passes=a 2>&1 | filecheck %s\n// RUN: not tcc-opt 'a b'\nx"
    first, second = map(runner.parse_run, runner.runs(source))
    assert (first.fails, first.arguments, first.both, first.check) == (False, ("%s", "--passes=a"), True, ("%s",))
    assert (second.fails, second.arguments, second.both, second.check) == (True, ("a b",), False, None)
    for bad in ("rm -rf x", "tcc-opt %s | cat"):
        with pytest.raises(ValueError, match="a RUN line is"):
            runner.parse_run(bad)


def test_printing_something_else_is_found(runner: SimpleNamespace):
    with pytest.raises(runner.mismatch, match="does not read back"):
        runner.reads_back(TEXT, False)
