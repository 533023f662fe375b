# SPDX-License-Identifier: Apache-2.0
"""The list of host ops says what is so: it is current, short, and has every function that is called on the host."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.defs
import pytest
from onnx import TensorProto, helper

import tcc
from tcc import reference
from tcc.compiler.frontend.host import host_function
from tcc.compiler.frontend.registry import handlers
from tcc.compiler.host_ops import PAGE, host_op_types, main, page
from tcc.ir.graph.host_ops import HOST_OPS, STRING_MOVES, reason_of
from tests.target import TARGET

ROOT = Path(tcc.__file__).parent


def test_the_page_is_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--check", str(PAGE)]) == 0, capsys.readouterr().err
    old = tmp_path / "host-ops.md"
    old.write_text(page().replace("ImageDecoder", "PictureDecoder"))
    assert main(["--check", str(old)]) == 1
    assert "run python -m tcc.compiler.host_ops" in capsys.readouterr().err
    assert main([str(old)]) == 0
    assert old.read_text() == page()


def test_there_are_few():
    assert len(host_op_types()) <= 45


def test_every_function_called_on_the_host_is_listed():
    called: set[str] = set()
    for path in (ROOT / "compiler" / "frontend").rglob("*.py"):
        text = path.read_text()
        called |= set(re.findall(r'function="(\w+)"', text))
        called |= set(re.findall(r'(?:_on_host|host_values?)\(\s*(?:n|n\.importer|importer|self),\s*"(\w+)"', text))
    assert {"sequence_at", "image_decoder", "unique", "sequence_items"} <= called
    for schema in onnx.defs.get_all_schemas():
        domain = "" if schema.domain == "ai.onnx" else schema.domain
        body = schema.has_function or schema.has_context_dependent_function
        name = host_function(schema.name, domain)
        if name is not None and not body and (domain, schema.name) not in handlers():
            called.add(name)
    assert called <= set(HOST_OPS) | set(STRING_MOVES)
    for function in (*HOST_OPS, *STRING_MOVES):
        assert callable(getattr(reference, function))


def test_a_use_is_reported_with_its_node_and_reason():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    nodes = [helper.make_node("Relu", ["x"], ["r"], "first"), helper.make_node("NonZero", ["r"], ["y"], "find")]
    graph = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = tcc.compile(model, target=TARGET)
    rows = [r for r in engine.report if r["kind"] == "host-op"]
    assert rows == [
        {"kind": "host-op", "message": f"non_zero runs on the host: {reason_of('non_zero')}", "loc": ["find"]}
    ]
    assert engine({"x": np.array([0, 1, -1, 2], np.float32)})["y"].tolist() == [[1, 3]]
