# SPDX-License-Identifier: Apache-2.0
"""Models with recurrent layers, as exporters write them: a CRNN for text in pictures, and a speech model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.target import TARGET

ort = pytest.importorskip("onnxruntime")
node = helper.make_node


class Builder:
    """Nodes and weights of a model; `layer` adds a bidirectional layer with what PyTorch puts after it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        scale = 1 / np.sqrt(shape[-1]) if scale is None else scale
        self.weights[name] = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        return name

    def ints(self, name: str, *values: int) -> str:
        self.weights[name] = np.array(values, np.int64)
        return name

    def add(self, op: str, inputs: list[str], output: str, **attrs: Any) -> str:
        self.nodes.append(node(op, inputs, [output], name=f"{op}_{output}", **attrs))
        return output

    def layer(self, kind: str, x: str, width: int, hidden: int, out: str) -> str:
        gates = {"LSTM": 4, "GRU": 3}[kind]
        w = self.weight(f"{out}.w", 2, gates * hidden, width)
        r = self.weight(f"{out}.r", 2, gates * hidden, hidden)
        b = self.weight(f"{out}.b", 2, 2 * gates * hidden)
        attrs = {"linear_before_reset": 1} if kind == "GRU" else {}
        self.nodes.append(
            node(kind, [x, w, r, b], [f"{out}.y"], name=out, hidden_size=hidden, direction="bidirectional", **attrs)
        )
        turned = self.add("Transpose", [f"{out}.y"], f"{out}.t", perm=[0, 2, 1, 3])
        return self.add("Reshape", [turned, self.ints(f"{out}.s", 0, 0, -1)], out)

    def model(self, inputs: dict[str, tuple[int, list[int]]], outputs: list[str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "recurrent",
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def crnn() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Convolutions and pooling over a picture 16 high, its columns as steps, two bidirectional LSTMs, a classifier."""
    b = Builder(1)
    x = b.add("Conv", ["x", b.weight("c0", 12, 1, 3, 3, scale=0.4)], "a0", kernel_shape=[3, 3], pads=[1] * 4)
    x = b.add("MaxPool", [b.add("Relu", [x], "r0")], "p0", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Conv", [x, b.weight("c1", 20, 12, 3, 3, scale=0.1)], "a1", kernel_shape=[3, 3], pads=[1] * 4)
    x = b.add("MaxPool", [b.add("Relu", [x], "r1")], "p1", kernel_shape=[8, 1], strides=[8, 1])
    x = b.add("Squeeze", [x, b.ints("axis", 2)], "s")
    x = b.add("Transpose", [x], "columns", perm=[2, 0, 1])
    x = b.layer("LSTM", x, 20, 24, "l0")
    x = b.layer("LSTM", x, 48, 17, "l1")
    x = b.add("Add", [b.add("MatMul", [x, b.weight("f", 34, 11)], "m"), b.weight("fb", 11)], "logits")
    b.add("LogSoftmax", [x], "y", axis=2)
    return b.model({"x": (TensorProto.FLOAT, [2, 1, 16, 50])}, ["y"]), {
        "x": np.random.default_rng(2).standard_normal((2, 1, 16, 50)).astype(np.float32)
    }


def speech() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Frames batch first, stacked bidirectional layers, and another head where a flag says so."""
    b = Builder(3)
    x = b.add("Transpose", ["frames"], "steps", perm=[1, 0, 2])
    x = b.layer("LSTM", x, 20, 32, "l0")
    x = b.layer("GRU", x, 64, 32, "l1")
    x = b.layer("LSTM", x, 64, 16, "l2")
    heads = []
    for name in ("plain", "smooth"):
        nodes = [node("MatMul", ["l2", b.weight(f"{name}.f", 32, 9)], [f"{name}.m"])]
        nodes += [node("Tanh", [f"{name}.m"], [f"{name}.o"])] if name == "smooth" else []
        out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
        heads.append(helper.make_graph(nodes, name, [], [out]))
    b.nodes.append(node("If", ["flag"], ["scores"], name="choose", then_branch=heads[0], else_branch=heads[1]))
    b.add("Softmax", ["scores"], "y", axis=-1)
    rng = np.random.default_rng(4)
    feeds = {"frames": rng.standard_normal((3, 37, 20)).astype(np.float32), "flag": np.array(False)}
    return b.model({"frames": (TensorProto.FLOAT, [3, 37, 20]), "flag": (TensorProto.BOOL, [])}, ["y"]), feeds


MODELS = {"crnn": crnn, "speech": speech}


@pytest.mark.parametrize(("level", "seed"), [(0, None), (1, None), (1, 5), (1, 6), (3, 7)])
@pytest.mark.parametrize("name", MODELS)
def test_models_agree_with_onnx_runtime(name: str, level: int, seed: int | None) -> None:
    model, feeds = MODELS[name]()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine = tcc.compile(model, TARGET, opt_level=level, random_seed=seed)
    for flag in (False, True) if "flag" in feeds else (None,):
        given = feeds if flag is None else {**feeds, "flag": np.array(flag)}
        for got, want in zip(engine(given).values(), session.run(None, given), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_no_layer_is_a_host_call_or_a_launch_for_every_step(name: str) -> None:
    for target in ("cpu", "sm_86"):
        compilation = compile_model(MODELS[name]()[0], Options(target=target))
        ops = [op for each in compilation.schedule for op in each.get("body", [each])]
        assert not [op for op in ops if op["op"] == "host_call"]
        launches = [op for op in ops if op["op"] == "launch" and any(n in ("l0", "l1", "l2") for n in op["loc"])]
        assert 0 < len(launches) < 30
