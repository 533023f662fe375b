# SPDX-License-Identifier: Apache-2.0
"""Models of opsets before 7, which onnx converts on the way in, and forms that only old exporters write."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tcc.compiler.frontend import import_onnx
from tcc.compiler.frontend.importer import load_onnx
from tcc.compiler.interpret import interpret
from tcc.errors import InputError

F = TensorProto.FLOAT


def model(node: onnx.NodeProto, inputs: dict[str, tuple[int, ...]], opset: int) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(n, F, s) for n, s in inputs.items()]
    out = helper.make_tensor_value_info("y", F, inputs["x"])
    graph = helper.make_graph([node], "g", infos, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


@pytest.mark.parametrize(("opset", "shape"), [(6, (2, 3, 4)), (6, (2, 3, 5, 3)), (13, (2, 3, 4)), (13, (2, 3, 5, 4))])
def test_a_slope_for_each_channel(opset: int, shape: tuple[int, ...], rng: np.random.Generator):
    m = model(helper.make_node("PRelu", ["x", "s"], ["y"]), {"x": shape, "s": (3,)}, opset)
    x, s = rng.standard_normal(shape).astype(np.float32), np.array([0.5, -1, 2], np.float32)
    got = interpret(import_onnx(m), {"x": x, "s": s})["y"]
    np.testing.assert_array_equal(got, np.where(x < 0, x * s.reshape(3, *[1] * (len(shape) - 2)), x))


def test_a_slope_that_broadcasts_as_opset_7_says(rng: np.random.Generator):
    m = model(helper.make_node("PRelu", ["x", "s"], ["y"]), {"x": (2, 3, 3), "s": (3,)}, 9)
    x, s = rng.standard_normal((2, 3, 3)).astype(np.float32), np.array([0.5, -1, 2], np.float32)
    np.testing.assert_array_equal(interpret(import_onnx(m), {"x": x, "s": s})["y"], np.where(x < 0, x * s, x))


def test_broadcast_as_an_attribute(rng: np.random.Generator):
    m = model(helper.make_node("Add", ["x", "b"], ["y"], broadcast=1), {"x": (2, 3, 4), "b": (4,)}, 6)
    x, b = rng.standard_normal((2, 3, 4)).astype(np.float32), np.arange(4, dtype=np.float32)
    assert load_onnx(m).in_file == frozenset()
    np.testing.assert_array_equal(interpret(import_onnx(m), {"x": x, "b": b})["y"], x + b)


def test_what_onnx_cannot_convert_is_refused():
    m = model(helper.make_node("Add", ["x", "b"], ["y"], broadcast=1, axis=0), {"x": (2, 3), "b": (3, 2)}, 6)
    with pytest.raises(InputError, match=r"is of opset 6.* cannot convert it \(.*export it again"):
        import_onnx(m)


def test_unpooling_into_a_larger_shape(rng: np.random.Generator):
    node = helper.make_node("MaxUnpool", ["x", "i", "shape"], ["y"], kernel_shape=[2], strides=[2])
    m = model(node, {"x": (1, 2, 2)}, 11)
    m.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, (1, 2, 2)))
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2, 5]), "shape"))
    feed = {"x": np.array([[[1, 2], [3, 4]]], np.float32), "i": np.array([[[0, 3], [5, 6]]])}
    got = interpret(import_onnx(m), feed)["y"]
    assert got.tolist() == [[[1, 0, 0, 2, 0], [0, 3, 4, 0, 0]]]


@pytest.mark.parametrize("axes", [(2, 3), (3, 2)])
def test_regions_of_interest_follow_the_order_of_axes(axes: tuple[int, int], rng: np.random.Generator):
    mode = "tf_crop_and_resize"
    node = helper.make_node("Resize", ["x", "roi", "", "sizes"], ["y"], mode="linear", axes=axes,
                            coordinate_transformation_mode=mode)  # fmt: skip
    m = model(node, {"x": (1, 1, 6, 5)}, 18)
    starts, ends, sizes = {2: 0.1, 3: 0.3}, {2: 0.8, 3: 0.7}, {2: 3, 3: 4}
    roi = np.array([starts[a] for a in axes] + [ends[a] for a in axes], np.float32)
    m.graph.initializer.append(onnx.numpy_helper.from_array(roi, "roi"))
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.array([sizes[a] for a in axes]), "sizes"))
    x = rng.standard_normal((1, 1, 6, 5)).astype(np.float32)
    want = interpret(import_onnx(m), {"x": x})["y"]
    rows, columns = 0.1 * 5 + np.arange(3) * 0.7 * 5 / 2, 0.3 * 4 + np.arange(4) * 0.4 * 4 / 3
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    fr, fc = (rows - r)[:, None], columns - c
    p = x[0, 0]
    top = p[r][:, c] * (1 - fc) + p[r][:, c + 1] * fc
    below = p[r + 1][:, c] * (1 - fc) + p[r + 1][:, c + 1] * fc
    np.testing.assert_allclose(want[0, 0], top * (1 - fr) + below * fr, rtol=1e-5, atol=1e-6)
