# SPDX-License-Identifier: Apache-2.0
"""The language reference and the op reference say what is so."""

from __future__ import annotations

import re
from pathlib import Path

from tcc.ir.declare import OPS
from tcc.ir.opdoc import main, reference, signature
from tcc.ir.parser import parse, parse_block
from tcc.ir.parser_text import parse_domain, parse_expr, parse_map, parse_tensor_type
from tcc.ir.printer import print_op
from tcc.ir.types import DTYPES, F32, TensorType

SPEC = Path(__file__).parents[2] / "spec"


def test_the_op_reference_is_current(capsys):
    assert main(["--check", str(SPEC / "ops.md")]) == 0, capsys.readouterr().err


def test_an_old_op_reference_is_found_out(tmp_path: Path, capsys):
    old = tmp_path / "ops.md"
    assert main(["--check", str(old)]) == 1
    assert main([str(old)]) == 0
    assert main(["--check", str(old)]) == 0
    old.write_text(reference().replace("graph.relu", "graph.rleu"))
    assert main(["--check", str(old)]) == 1
    assert "run python -m tcc.ir.opdoc" in capsys.readouterr().err


def test_every_op_is_described():
    text = reference()
    for name, cls in OPS.items():
        if cls.__module__.startswith("tcc."):
            assert f"\n### {name}\n" in text
            assert cls.__doc__, f"{name} has no docstring"


def test_signatures():
    assert signature(OPS["graph.softmax"]) == "%y = graph.softmax(%x) {axis: int}"
    assert signature(OPS["graph.attention"]).startswith("%y = graph.attention(%q, %k, %v, %mask?) {scale: float")


def test_the_examples_of_the_language_reference_are_true():
    text = (SPEC / "ir.md").read_text(encoding="utf-8")
    program, generic = re.findall(r"```mlir\n(.*?)```", text, re.DOTALL)
    assert print_op(parse(program)) == program
    block = parse_block(generic.replace("tensor<4xf32>", "tensor<2x3xf32>"), {"x": TensorType((2, 3), F32)})
    assert [op.name for op in block.ops] == ["graph.softmax", "graph.fused"]
    assert parse_expr("2*(n + 1) - 2") == parse_expr("n*2")
    for kind, read in (("map", parse_map), ("domain", parse_domain)):
        for found in re.findall(rf"`{kind}<([^`]*)>`", text):
            assert read(found.replace("\\|", "|")).text() == found.replace("\\|", "|")
    for found in re.findall(r"`(tensor<.*?)`", text):
        assert str(parse_tensor_type(found)) == found
    for d in DTYPES:
        assert re.search(rf"[`, ]{re.escape(d.mlir)}[`, ]", text), d
