# SPDX-License-Identifier: Apache-2.0
"""A model with many things that cannot be imported: one report with all of them, in node order, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tcc.compiler.cli.tcc import main
from tcc.compiler.frontend.importer import load_onnx
from tcc.compiler.frontend.problems import ImportFailure

F = TensorProto.FLOAT
node = helper.make_node
value = helper.make_tensor_value_info


def twenty(chained: bool) -> tuple[onnx.ModelProto, list[str]]:
    """A model with twenty different faults, each at a node of its own, and a word that each line must have. Chained,
    a node reads the result of the one before it, so that most read what could not be imported."""
    inner = helper.make_graph([node("Whatsit", ["x"], ["t"], name="n8")], "t", [], [onnx.ValueInfoProto(name="t")])
    damaged = numpy_helper.from_array(np.arange(3, dtype=np.float32), "damaged")
    damaged.raw_data = damaged.raw_data[:-1]
    faults: list[tuple[onnx.NodeProto, str]] = [
        (node("Frobnicate", ["x"], ["y0"], name="n0"), "Frobnicate of ai.onnx"),
        (node("Gadget", ["x"], ["y1"], name="n1", domain="com.example"), "com.example has no opset"),
        (node("Widget", ["x"], ["y2"], name="n2", domain="org.known"), "Widget of org.known"),
        (node("LeakyRelu", ["x"], ["y3"], name="n3", alpha=1), "alpha is of type INT"),
        (node("Softmax", ["x"], ["y4"], name="n4", axis=7), "axis 7"),
        (node("Cast", ["x"], ["y5"], name="n5", to=TensorProto.COMPLEX64), "COMPLEX64"),
        (node("Concat", ["x", "x"], ["y6"], name="n6"), "axis is missing"),
        (node("Conv", ["x", "x"], ["y7"], name="n7"), "at least 3"),
        (node("If", ["flag"], ["y8"], name="choose", then_branch=inner, else_branch=inner), "Whatsit of ai.onnx"),
        (node("Transpose", ["x"], ["y9"], name="n9", perm=[0, 0]), "no permutation"),
        (node("Add", ["x", "absent"], ["y10"], name="n10"), "which nothing produces"),
        (node("Add", ["x", "damaged"], ["y11"], name="n11"), "has 11 bytes"),
        (node("Not", ["x"], ["y12"], name="n12"), "takes bool"),
        (node("MatMul", ["x", "x"], ["y13"], name="n13"), "tensor<2x3xf32> and tensor<2x3xf32>"),
        (node("Einsum", ["x", "x"], ["y14"], name="n14"), "equation is missing"),
        (node("MaxPool", ["u"], ["y15"], name="n15", kernel_shape=[9, 9, 9]), "window of [9, 9, 9]"),
        (node("Reshape", ["x", "s"], ["y16"], name="n16"), "2x3 does not reshape to 4x4"),
        (node("Split", ["x"], ["y17a", "y17"], name="n17", num_outputs=2, axis=5), "axis 5"),
        (node("Gemm", ["x"], ["y18"], name="n18"), "input 1 is missing"),
        (node("Add", ["x", "seven"], ["y19"], name="n19"), "3 and 7 do not broadcast"),
    ]  # fmt: skip
    if chained:
        for i, (n, _) in enumerate(faults[1:], 1):
            if n.input[0] == "x":
                n.input[0] = f"y{i - 1}"
    infos = [value("x", F, [2, 3]), value("u", F, [1, 1, 4, 4]), value("flag", TensorProto.BOOL, [])]
    shape = numpy_helper.from_array(np.array([4, 4]), "s")
    seven = numpy_helper.from_array(np.zeros((2, 7), np.float32), "seven")
    outputs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(20)]
    graph = helper.make_graph([n for n, _ in faults], "g", infos, outputs, [damaged, shape, seven])
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("org.known", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10), [word for _, word in faults]


def test_twenty_faults_are_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, words = twenty(chained=False)
    with pytest.raises(ImportFailure) as error:
        load_onnx(model)
    lines = str(error.value).splitlines()
    assert lines[0] == "the model has 20 things that tcc cannot import:"
    assert len(lines) == 21
    for i, (line, word) in enumerate(zip(lines[1:], words, strict=True), 1):
        assert line.strip().startswith(f"{i}. ") and word in line, line
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    assert main([str(path), "-o", str(tmp_path / "m.tcc")]) == 2
    err = capsys.readouterr().err
    assert all(word in err for word in words) and "Traceback" not in err
    assert not (tmp_path / "m.tcc").exists()


def test_behind_a_fault_without_a_type_what_needs_no_operands_is_still_told() -> None:
    model, words = twenty(chained=True)
    with pytest.raises(ImportFailure) as error:
        load_onnx(model)
    text = str(error.value)
    for i in (0, 1, 2, 3, 8, 10, 11, 15):
        assert words[i] in text
    for i in range(20):
        model.graph.value_info.append(value(f"y{i}", F, [2, 3]))
    with pytest.raises(ImportFailure) as error:
        load_onnx(model)
    assert len(error.value.problems) == 20
    assert all(word in str(error.value) for word in words)


def test_one_fault_is_one_sentence() -> None:
    graph = helper.make_graph(
        [node("Softmax", ["x"], ["a"], name="s", axis=7), node("Relu", ["a"], ["y"])],
        "g", [value("x", F, ["n", 3])], [onnx.ValueInfoProto(name="y")],
    )  # fmt: skip
    with pytest.raises(ImportFailure) as error:
        load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert str(error.value) == 'node "s" (Softmax): its axis 7 is outside [-2, 1] of a tensor of rank 2'
