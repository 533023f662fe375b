# SPDX-License-Identifier: Apache-2.0
"""Nodes kept in f32: by name, and as many as an accuracy takes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.compiler.accuracy import hold_accuracy
from tcc.compiler.cli.tcc import main as tcc_main
from tcc.compiler.options import Options
from tcc.errors import InputError
from tcc.ir.rewriter import Decisions
from tests.target import TARGET

LAYERS = 5


@pytest.fixture
def ill() -> onnx.ModelProto:
    """Five layers of which the second cancels nearly all that the first gives: rounding there is what is left."""
    rng = np.random.default_rng(5)
    weights = [rng.standard_normal((24, 24)).astype(np.float32) / 5 for _ in range(LAYERS)]
    weights[1] -= weights[1].mean(0)
    bias = np.full(24, 300, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["m0"], "first"),
        helper.make_node("Add", ["m0", "b"], ["a0"], "shift"),
        helper.make_node("Relu", ["a0"], ["h0"], "relu0"),
    ]
    nodes += [
        n for i in range(1, LAYERS)
        for n in (helper.make_node("MatMul", [f"h{i - 1}", f"w{i}"], [f"m{i}"], f"layer[{i}]"),
                  helper.make_node("Relu", [f"m{i}"], [f"h{i}"], f"relu{i}"))
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [40, 24])],
        [helper.make_tensor_value_info(f"h{LAYERS - 1}", TensorProto.FLOAT, [40, 24])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)] + [numpy_helper.from_array(bias, "b")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def off(model: onnx.ModelProto, x: np.ndarray, **options: object) -> float:
    exact = tcc.compile(model, TARGET)(x)[f"h{LAYERS - 1}"]
    got = tcc.compile(model, TARGET, precision="f16", **options)(x)[f"h{LAYERS - 1}"]
    return float(np.percentile(np.abs(got - exact), 99.9) / np.abs(exact).max())


def test_as_many_stay_in_f32_as_the_accuracy_takes(ill: onnx.ModelProto, rng: np.random.Generator) -> None:
    x = rng.standard_normal((40, 24)).astype(np.float32)
    decisions = Decisions()
    chosen = hold_accuracy(ill, Options("cpu", precision="f16"), 3e-3, [{"x": x}], decisions)
    assert off(ill, x) > 3e-3
    assert off(ill, x, keep_f32=chosen.keep_f32) <= 3e-3
    assert chosen.keep_f32[:2] == ("first", "layer[[]1]")
    assert len(chosen.keep_f32) < LAYERS
    (row,) = [r for r in decisions.rows if r.kind == "accuracy"]
    assert f"of {LAYERS} products" in row.chosen
    assert off(ill, x, accuracy=3e-3, calibration={"x": x}) <= 3e-3
    assert hold_accuracy(ill, Options("cpu", precision="f16"), 0.9, [{"x": x}], decisions).keep_f32 == ()


def test_the_command(ill: onnx.ModelProto, rng: np.random.Generator, tmp_path: Path) -> None:
    model, data, text = tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "g.mlir"
    onnx.save(ill, model)
    np.save(data, rng.standard_normal((40, 24)).astype(np.float32))
    f16 = [str(model), "--target", "cpu", "--precision", "f16"]
    assert tcc_main([*f16, "--accuracy", "3e-3", "--calibrate", f"x={data}", "--emit=graph", "-o", str(text)]) == 0
    assert 'keep_f32 = ["first", "layer[[]1]"' in text.read_text()
    assert tcc_main([*f16, "--keep-f32", "layer*", "-o", str(tmp_path / "e.tcc")]) == 0


def test_what_makes_no_sense_is_refused(ill: onnx.ModelProto, rng: np.random.Generator) -> None:
    x = {"x": rng.standard_normal((40, 24)).astype(np.float32)}
    for options, words in (
        ({"keep_f32": ["stem"], "precision": "f16"}, "stem"),
        ({"keep_f32": ["first"]}, "precision"),
        ({"accuracy": 1e-2, "calibration": x}, "precision"),
        ({"accuracy": 1e-2, "precision": "f16"}, "calibration"),
        ({"calibration": x, "precision": "f16"}, "accuracy"),
        ({"accuracy": 7.0, "calibration": x, "precision": "f16"}, "7"),
    ):
        with pytest.raises(InputError, match=words):
            tcc.compile(ill, TARGET, **options)
