# SPDX-License-Identifier: Apache-2.0
"""Ops that must keep 32 bits, or that 16 serve, in models compiled with fewer bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tests.compiler.contrib import test_recurrent as contrib
from tests.compiler.contrib.peers import F32, single
from tests.compiler.test_irregular_ops import node_model


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_a_quantized_layer(precision: str) -> None:
    model, given = single("DynamicQuantizeLSTM", contrib.layer(), [F32], contrib.HELD, hidden_size=contrib.HIDDEN)
    wanted = tcc.compile(model, target="cpu")(given)["y0"]
    got = tcc.compile(model, target="cpu", precision=precision)(given)["y0"]
    np.testing.assert_allclose(got, wanted, atol=0.03)


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_regions(precision: str, rng: np.random.Generator) -> None:
    given = {
        "a": rng.standard_normal((1, 6, 9, 8)).astype(np.float32), "b": rng.uniform(0, 9, (5, 4)).astype(np.float32),
        "c": np.zeros(5, np.int64),
    }  # fmt: skip
    model = node_model("RoiAlign", given, 1, {}, 16, output_height=2, output_width=3)
    wanted = tcc.compile(model, target="cpu")(given)["y0"]
    got = tcc.compile(model, target="cpu", precision=precision)(given)["y0"]
    np.testing.assert_allclose(got, wanted, atol=0.03)


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_bits(precision: str, rng: np.random.Generator) -> None:
    """The sign of a product, by its bits: these are of 32-bit floats although the product is of 16-bit ones."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("BitCast", ["m"], ["i"], to=TensorProto.INT32),
        helper.make_node("Less", ["i", "zero"], ["y"]),
    ]
    held = [
        onnx.numpy_helper.from_array(rng.standard_normal((16, 5)).astype(np.float32), "w"),
        onnx.numpy_helper.from_array(np.int32(0), "zero"),
    ]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 16))
    graph = helper.make_graph(nodes, "g", [info], [onnx.ValueInfoProto(name="y")], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=13)
    x = rng.standard_normal((4, 16)).astype(np.float32)
    product = x @ onnx.numpy_helper.to_array(held[0])
    sure = np.abs(product) > 0.1
    got = np.asarray(tcc.compile(model, target="cpu", precision=precision)({"x": x})["y"])
    np.testing.assert_array_equal(got[sure], product[sure] < 0)
