# SPDX-License-Identifier: Apache-2.0
"""Small models at the edges of what graphs may be: outputs that nothing computes, tensors without elements, rounding
casts, concats in concats.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.errors import InputError
from tests.compiler import small_models
from tests.target import TARGET

F = TensorProto.FLOAT
node = helper.make_node


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: list[str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "edge",
        [helper.make_tensor_value_info(n, F, s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def same(proto: onnx.ModelProto, inputs: dict[str, np.ndarray], rtol: float = 1e-5) -> None:
    """At every level what ONNX Runtime gives (or what one of its values is, where it lacks the types of outputs)."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    session = ort.InferenceSession(inferred.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, inputs)
    for level in (0, 1):
        got = tcc.compile(proto, target=TARGET, opt_level=level)(inputs)
        assert list(got) == [o.name for o in proto.graph.output]
        for value, right in zip(got.values(), wanted, strict=True):
            assert (value.dtype, value.shape) == (right.dtype, right.shape)
            np.testing.assert_allclose(value, right, rtol, 1e-6)


X = small_models.normal(0, 2, 3, 4)
C = small_models.normal(1, 3, 4)


def test_an_input_as_an_output() -> None:
    same(model([node("Relu", ["x"], ["y"])], {"x": [2, 3, 4]}, ["x", "y"]), {"x": X})


def test_a_view_of_an_input_and_a_part_of_it() -> None:
    nodes = [node("Flatten", ["x"], ["y"]), node("Slice", ["x", "one", "two", "zero"], ["z"])]
    constants = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    same(model(nodes, {"x": [2, 3, 4]}, ["y", "z"], constants), {"x": X})


def test_one_value_under_several_names() -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Identity", ["y"], ["z"]), node("Flatten", ["y"], ["f"])]
    same(model(nodes, {"x": [2, 3, 4]}, ["y", "z", "f"]), {"x": X})


def test_a_constant_as_an_output_and_an_input_that_nothing_reads() -> None:
    nodes = [node("Relu", ["c"], ["y"])]
    same(model(nodes, {"x": [2, 3, 4]}, ["c", "y"], {"c": C}), {"x": X})


def test_a_call_does_not_hand_out_what_is_the_engines_or_the_callers() -> None:
    proto = model([node("Identity", ["x"], ["y"])], {"x": [2, 3, 4]}, ["y", "c"], {"c": C})
    engine = tcc.compile(proto, target=TARGET)
    x = X.copy()
    first = engine(x)
    first["y"][:] = 7
    first["c"][:] = 7
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(engine(x)["c"], C)


@pytest.mark.parametrize("shape", [[0, 3, 4], [2, 0, 4], [2, 3, 0]])
def test_tensors_without_elements(shape: list[int]) -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Concat", ["r", "r"], ["cat"], axis=0),
        node("ReduceSum", ["x", "last"], ["sum"], keepdims=0),
        node("MatMul", ["x", "w"], ["product"]),
        node("Transpose", ["x"], ["t"], perm=[2, 0, 1]),
    ]
    x, w = np.zeros(shape, np.float32), small_models.normal(3, shape[-1], 5)
    wanted = {"r": x, "cat": np.concatenate([x, x]), "sum": x.sum(-1), "product": x @ w, "t": x.transpose(2, 0, 1)}
    proto = model(nodes, {"x": shape}, list(wanted), {"last": np.array([-1]), "w": w})
    for level in (0, 1):
        got = tcc.compile(proto, target=TARGET, opt_level=level)(x)
        for name, right in wanted.items():
            assert got[name].shape == right.shape
            np.testing.assert_array_equal(got[name], right)


def test_a_batch_of_none() -> None:
    engine = tcc.compile(small_models.cnn("n"), target="cpu", shapes={"x": (0, 3, 33, 31)})
    assert engine(np.zeros((0, 3, 33, 31), np.float32))["y"].shape == (0, 10)


def test_a_cast_rounds() -> None:
    to = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    nodes = [n for k, t in to.items() for n in (node("Cast", ["s"], [k], to=t), node("Cast", [k], [f"{k}_y"], to=F))]
    nodes = [node("Mul", ["x", "x"], ["s"]), *nodes]
    same(model(nodes, {"x": [2, 3, 4]}, [f"{k}_y" for k in to]), {"x": X}, rtol=0)


def test_concats_in_concats() -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Concat", ["r", "x", "r"], ["inner"], axis=0),
        node("Concat", ["inner", "inner", "inner"], ["y"], axis=1),
        node("Tanh", ["inner"], ["t"]),
        node("Concat", ["t", "inner"], ["z"], axis=-1),
    ]
    same(model(nodes, {"x": [2, 3, 4]}, ["y", "z", "inner"]), {"x": X})


def test_a_convolution_with_one_weight() -> None:
    nodes = [node("Conv", ["x", "w"], ["y"])]
    same(model(nodes, {"x": [1, 1, 5, 7]}, ["y"], {"w": np.full((1, 1, 1, 1), 0.5, np.float32)}),
         {"x": small_models.normal(4, 1, 1, 5, 7)})  # fmt: skip


def test_shared_keys_that_are_computed() -> None:
    """Attention whose keys are repeated over heads after pointwise ops."""
    nodes = [
        node("Tanh", ["k"], ["k0"]),
        node("Expand", ["k0", "shape"], ["k1"]),
        node("Transpose", ["k1"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1),
        node("MatMul", ["p", "k1"], ["y"]),
    ]
    inputs = {"q": small_models.normal(5, 1, 4, 6, 8), "k": small_models.normal(6, 1, 1, 6, 8)}
    proto = model(nodes, {n: list(a.shape) for n, a in inputs.items()}, ["y"], {"shape": np.array([1, 4, 6, 8])})
    same(proto, inputs)


def test_two_outputs_of_one_name() -> None:
    proto = model([node("Relu", ["x"], ["y"])], {"x": [2, 3, 4]}, ["y", "y"])
    with pytest.raises(InputError, match="y"):
        tcc.compile(proto, target=TARGET)
