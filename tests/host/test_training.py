# SPDX-License-Identifier: Apache-2.0
"""Optimizer steps and gradients of ai.onnx.preview.training, compiled: against onnx.reference and differences."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tcc
from tcc.compiler.frontend import import_onnx
from tcc.errors import InputError
from tests.target import TARGET

TRAINING = "ai.onnx.preview.training"
D = TensorProto.DOUBLE
node = helper.make_node


def make(nodes: list[onnx.NodeProto], feed: dict[str, np.ndarray], outputs: list[str], constants: Any = None):
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feed.items()
    ]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name=o) for o in outputs], held)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid(TRAINING, 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


@pytest.mark.parametrize("t", [0, 3])
@pytest.mark.parametrize(
    ("op", "lists", "results", "attributes"),
    [
        ("Adagrad", 3, 2, {"decay_factor": 0.1, "epsilon": 1e-5, "norm_coefficient": 0.01}),
        ("Adam", 4, 3, {"alpha": 0.9, "beta": 0.99, "epsilon": 1e-5, "norm_coefficient": 0.01,
                        "norm_coefficient_post": 0.1}),
        ("Momentum", 3, 2, {"alpha": 0.9, "beta": 0.5, "mode": "standard", "norm_coefficient": 0.01}),
        ("Momentum", 3, 2, {"alpha": 0.9, "beta": 0.5, "mode": "nesterov", "norm_coefficient": 0.01}),
    ],
)  # fmt: skip
def test_steps(op: str, lists: int, results: int, attributes: Any, t: int, rng: np.random.Generator):
    feed: dict[str, np.ndarray] = {"R": np.float32(0.1).reshape(()), "T": np.array(t)}
    for i in range(lists):
        feed |= {f"a{i}": rng.random(3).astype(np.float32), f"b{i}": rng.random((2, 2)).astype(np.float32)}
    names = ["R", "T", *(f"{k}{i}" for i in range(lists) for k in "ab")]
    outputs = [f"{k}{i}_new" for i in range(results) for k in "ab"]
    model = make([node(op, names, outputs, domain=TRAINING, **attributes)], feed, outputs)
    engine = tcc.compile(model, target=TARGET)
    assert not [x for x in engine.data.schedule if x["op"] == "host_call"]
    got = engine(feed)
    for name, want in zip(outputs, ReferenceEvaluator(model).run(None, feed), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-6)


def differs(model: onnx.ModelProto, feed: dict[str, np.ndarray], name: str, wanted: np.ndarray) -> None:
    """Compare a gradient of the sum of y with central differences."""
    forward = onnx.ModelProto()
    forward.CopyFrom(model)
    del forward.graph.output[1:], forward.graph.node[-1:]
    engine, step = tcc.compile(forward, target=TARGET), 1e-6
    for at in np.ndindex(wanted.shape):
        moved = []
        for sign in (1, -1):
            x = feed[name].copy()
            x[at] += sign * step
            moved.append(float(engine({**feed, name: x})["y"].sum()))
        assert wanted[at] == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-4, abs=1e-6), (name, at)


UNARY = ["Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tanh", "Sigmoid", "Softplus", "Erf", "Relu",
         "LeakyRelu", "Softmax", "LogSoftmax", "Identity"]  # fmt: skip


@pytest.mark.parametrize("op", UNARY)
def test_gradients_of_functions_of_one_tensor(op: str, rng: np.random.Generator):
    x = rng.random((2, 3)) + 0.1 if op in ("Log", "Sqrt", "Reciprocal") else rng.standard_normal((2, 3))
    nodes = [
        node(op, ["x"], ["f"]), node("Mul", ["f", "f"], ["y"]),
        node("Gradient", ["x"], ["dx"], domain=TRAINING, xs=["x"], y="y"),
    ]  # fmt: skip
    model = make(nodes, {"x": x}, ["y", "dx"])
    differs(model, {"x": x}, "x", tcc.compile(model, target=TARGET)({"x": x})["dx"])


A, B, V = (2, 3), (3,), (3, 4)
BOTH: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Add", A, B, {}), ("Sub", A, (2, 1), {}), ("Mul", B, A, {}), ("Div", A, B, {}), ("Pow", A, B, {}),
    ("Max", A, B, {}), ("Min", A, A, {}), ("MatMul", A, V, {}), ("MatMul", B, V, {}), ("MatMul", A, B, {}),
    ("MatMul", (2, 2, 3), V, {}), ("MatMul", B, (2, 3, 2), {}), ("Gemm", A, (4, 3), {"transB": 1, "alpha": 0.5}),
    ("Concat", A, (4, 3), {"axis": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "first", "second", "attributes"), BOTH)
def test_gradients_of_functions_of_two_tensors(op: str, first: Any, second: Any, attributes: Any, rng: Any):
    feed = {"a": rng.random(first) + 0.5, "b": rng.random(second) + 0.5}
    nodes = [
        node(op, ["a", "b"], ["f"], **attributes), node("Tanh", ["f"], ["y"]),
        node("Gradient", ["a", "b"], ["da", "db"], domain=TRAINING, xs=["a", "b"], y="y"),
    ]  # fmt: skip
    model = make(nodes, feed, ["y", "da", "db"])
    got = tcc.compile(model, target=TARGET)(feed)
    for name in feed:
        assert got[f"d{name}"].shape == feed[name].shape
        differs(model, feed, name, got[f"d{name}"])


MOVES = [
    node("Transpose", ["x"], ["f"], perm=[1, 0]), node("Slice", ["x", "at", "end"], ["f"]),
    node("Clip", ["x", "lo"], ["f"]), node("ReduceL2", ["x"], ["f"], axes=[1]),
    node("ReduceSum", ["x", "axes"], ["f"], keepdims=0), node("ReduceMean", ["x"], ["f"], axes=[0]),
    node("ReduceMax", ["x"], ["f"], axes=[1], keepdims=0), node("ReduceProd", ["x"], ["f"], axes=[1]),
    node("Expand", ["x", "large"], ["f"]), node("Where", ["c", "x", "lo"], ["f"]),
]  # fmt: skip


@pytest.mark.parametrize("move", MOVES, ids=lambda m: m.op_type)
def test_gradients_through_moves_and_reductions(move: onnx.NodeProto, rng: np.random.Generator):
    x = rng.standard_normal((2, 3))
    nodes = [
        move, node("Sin", ["f"], ["y"]),
        node("Gradient", ["x"], ["dx"], domain=TRAINING, xs=["x"], y="y"),
    ]  # fmt: skip
    constants = {"at": np.array([1]), "end": np.array([2]), "axes": np.array([0]), "large": np.array([4, 2, 3]),
                 "lo": np.array(-0.2), "c": np.array([[True], [False]])}  # fmt: skip
    used = {k: v for k, v in constants.items() if k in move.input}
    model = make(nodes, {"x": x}, ["y", "dx"], used)
    differs(model, {"x": x}, "x", tcc.compile(model, target=TARGET)({"x": x})["dx"])


def test_at_other_values_and_of_what_does_not_depend():
    a, b, c = np.array([2.0, 3.0]), np.array([5.0, 7.0]), np.array([1.0])
    nodes = [
        node("Mul", ["a", "b"], ["y"]), node("Add", ["a", "b"], ["other"]),
        node("Gradient", ["other", "c", "b"], ["d", "dc"], domain=TRAINING, xs=["a", "c"], zs=["b"], y="y"),
        node("Gradient", ["other", "b"], ["db"], domain=TRAINING, xs=["b"], zs=["a"], y="y"),
    ]  # fmt: skip
    feed = {"a": a, "b": b, "c": c}
    got = tcc.compile(make(nodes, feed, ["d", "dc", "db"]), target="cpu")(feed)
    assert got["d"].tolist() == [5, 7]
    assert got["dc"].tolist() == [0]
    assert got["db"].tolist() == [5, 7], "a is given the value of b"


def test_a_gradient_of_a_gradient():
    x = np.array([0.3, 2.0])
    nodes = [
        node("Tanh", ["x"], ["y"]), node("Gradient", ["x"], ["d"], domain=TRAINING, xs=["x"], y="y"),
        node("Gradient", ["x"], ["dd"], domain=TRAINING, xs=["x"], y="d"),
    ]  # fmt: skip
    got = tcc.compile(make(nodes, {"x": x}, ["dd"]), target="cpu")({"x": x})["dd"]
    np.testing.assert_allclose(got, -2 * np.tanh(x) * (1 - np.tanh(x) ** 2), rtol=1e-6)


def test_what_cannot_be_differentiated_is_named():
    x = np.ones((1, 1, 4, 4))
    nodes = [
        node("MaxPool", ["x"], ["p"], "pool", kernel_shape=[2, 2]), node("Floor", ["p"], ["y"], "down"),
        node("Gradient", ["x"], ["d"], domain=TRAINING, xs=["x"], y="y"),
    ]  # fmt: skip
    with pytest.raises(InputError, match='cannot differentiate max_pool at "pool", floor at "down"'):
        import_onnx(make(nodes, {"x": x}, ["d"]))
    nodes[-1] = node("Gradient", ["x"], ["d"], domain=TRAINING, xs=["x"], y="z")
    with pytest.raises(InputError, match="names z, which nothing before the node computes"):
        import_onnx(make(nodes, {"x": x}, ["d"]))
