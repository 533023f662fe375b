# SPDX-License-Identifier: Apache-2.0
"""ZipMap, with which converted classifiers end: a sequence of maps, on both targets and through an engine file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import tcc
from tcc.compiler.cli.run import as_array
from tcc.compiler.cli.run import main as tcc_run
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tcc.errors import InputError
from tcc.ir.parser import parse
from tcc.ir.printer import print_op

INTS = {"classlabels_int64s": [4, -1, 9]}
TEXTS = {"classlabels_strings": ["röd", "", "blå"]}


def classifier(labels: dict[str, Any], columns: int = 3) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=1),
        helper.make_node("ZipMap", ["p"], ["maps"], "zip", domain="ai.onnx.ml", **labels),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", columns])
    key = TensorProto.STRING if labels is TEXTS else TensorProto.INT64
    value = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(value))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [maps]), opset_imports=opsets, ir_version=8)


def rows(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)


@pytest.mark.parametrize("labels", [INTS, TEXTS], ids=["ints", "texts"])
def test_maps_are_those_of_onnx_runtime(labels: dict[str, Any], tmp_path: Path) -> None:
    model = classifier(labels)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine: Any = tcc.compile(model, target="cpu")
    fixed: Any = tcc.compile(model, target="cpu", shapes={"x": (5, 3)})
    fixed.save(tmp_path / "a.tcc")
    loaded: Any = tcc.load(tmp_path / "a.tcc")
    for used, count in ((engine, 5), (engine, 1), (fixed, 5), (loaded, 5)):
        (want,) = session.run(None, {"x": rows(count)})
        got = used({"x": rows(count)})["maps"]
        assert [sorted(row) for row in got] == [sorted(row) for row in want]
        np.testing.assert_allclose(as_array(got), as_array(want), rtol=1e-5)
    kept = fixed({"x": rows(5)})["maps"]
    fixed({"x": rows(5) + 1})
    np.testing.assert_allclose(as_array(kept), as_array(session.run(None, {"x": rows(5)})[0]), rtol=1e-5)


def test_text_and_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = classifier(TEXTS)
    from tcc.compiler.frontend.importer import import_onnx

    text = print_op(import_onnx(model, {"x": (5, 3)}))
    assert "!tcc.sequence<!tcc.map<!tcc.string, f32>>" in text
    assert print_op(parse(text)) == text
    assert compile_model(model, Options(target="sm_86", shapes={"x": (5, 3)})).kernels
    onnx.save(model, tmp_path / "m.onnx")
    assert tcc_run([str(tmp_path / "m.onnx"), "--target", "cpu", "--shape", "x=4x3", "--check"]) == 0
    assert "ok" in capsys.readouterr().out


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r'"zip".*labels'):
        tcc.compile(classifier(INTS, 4), target="cpu", shapes={"x": (5, 4)})
