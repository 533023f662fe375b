# SPDX-License-Identifier: Apache-2.0
"""Engines of RoiAlign and MaxRoiPool against the reference: regions anywhere, of any size, as many as data decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tcc import reference
from tests.compiler.test_irregular_ops import node_model, run

RNG = np.random.default_rng(11)


def boxes(count: int, size: int) -> np.ndarray:
    """Regions inside, across borders, outside, without extent and backwards; some corners on pixels."""
    some = RNG.uniform(-6, size + 6, (count, 4))
    some[:5] = [2, 2, 2, 2], [-30, -30, -20, 60], [3, 4, 9, 12], [5, 5, 3, 3], [-1, -1, size, size]
    some[count // 2 :] = np.round(some[count // 2 :] * 2) / 2
    return some.astype(np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 3])
@pytest.mark.parametrize("shape", [(13, 9), (1, 8), (6, 32)])
def test_roi_align(shape: tuple[int, int], ratio: int, mode: str) -> None:
    for opset, dtype, sign in ((16, np.float32, 1), (10, np.float32, -1), (22, np.float64, 1), (16, np.float16, 1)):
        x = RNG.standard_normal((2, 19, *shape))
        x = (x if sign > 0 else -np.abs(x)).astype(dtype)
        inputs = {"a": x, "b": boxes(24, max(shape)).astype(dtype), "c": RNG.integers(0, 2, 24)}
        given: dict[str, Any] = {"mode": mode, "sampling_ratio": ratio, "output_height": 3, "output_width": 2}
        given["spatial_scale"] = 0.5 if opset == 10 else 1.0
        before = {"coordinate_transformation_mode": "output_half_pixel"} if opset < 16 else {}
        wanted = reference.roi_align(*inputs.values(), **given, **before)
        (got,) = run(node_model("RoiAlign", inputs, 1, {}, opset, **given), inputs)
        assert got.dtype == dtype
        tolerance = 1e-2 if dtype == np.float16 else 2e-5
        np.testing.assert_allclose(got.astype(float), wanted.astype(float), rtol=tolerance, atol=tolerance)


def test_a_region_of_any_size() -> None:
    """Millions of samples are as quick as few: none is laid out."""
    x = RNG.standard_normal((1, 2, 5, 6)).astype(np.float32)
    inputs = {"a": x, "b": np.array([[-1e7, -1e7, 1e7, 1e7], [0, 0, 6, 5]], np.float32), "c": np.array([0, 0])}
    (got,) = run(node_model("RoiAlign", inputs, 1, {}, 16), inputs)
    assert np.abs(got[0]).max() < 1e-6
    np.testing.assert_allclose(got[1:], reference.roi_align(x, inputs["b"][1:], inputs["c"][1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_max_roi_pool(dtype: Any) -> None:
    x = RNG.standard_normal((2, 5, 9, 7)).astype(dtype)
    batch = RNG.integers(0, 2, (16, 1))
    inputs = {"a": x, "b": np.concatenate([batch, boxes(16, 9)], 1).astype(dtype)}
    wanted = reference.max_roi_pool(*inputs.values(), pooled_shape=[3, 2], spatial_scale=0.75)
    (got,) = run(node_model("MaxRoiPool", inputs, 1, {}, 1, pooled_shape=[3, 2], spatial_scale=0.75), inputs)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("mode", "ratio"), [("avg", 0), ("max", 0), ("avg", 2), ("max", 2)])
def test_data_decide_the_number_of_regions(mode: str, ratio: int) -> None:
    how = {"mode": mode, "sampling_ratio": ratio, "output_height": 3, "output_width": 2}
    nodes = [
        helper.make_node("NonZero", ["s"], ["found"]),
        helper.make_node("Squeeze", ["found", "axes"], ["i"]),
        helper.make_node("Gather", ["rois", "i"], ["r"]),
        helper.make_node("Gather", ["which", "i"], ["b"]),
        helper.make_node("RoiAlign", ["x", "r", "b"], ["y"], **how),
    ]
    inputs = {
        "s": np.array([1, 0, 1, 1, 0, 0, 0, 1, 1]), "rois": boxes(9, 8), "which": RNG.integers(0, 2, 9),
        "x": RNG.standard_normal((2, 6, 8, 7)).astype(np.float32),
    }  # fmt: skip
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()
    ]
    graph = helper.make_graph(
        nodes, "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 6, 3, 2])],
        [onnx.numpy_helper.from_array(np.array([0]), "axes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    engine = tcc.compile(model, target="cpu", opt_level=1)
    assert [op["function"] for op in engine.data.schedule if op["op"] == "host_call"] == ["non_zero"]
    for some in (inputs["s"], np.zeros(9, np.int64), np.ones(9, np.int64)):
        kept = some.nonzero()[0]
        got = np.asarray(engine({**inputs, "s": some})["y"])
        wanted = reference.roi_align(inputs["x"], inputs["rois"][kept], inputs["which"][kept], **how)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mode", "ratio"), [("avg", 0), ("max", 0), ("avg", 2), ("max", 2), ("pool", 0)])
def test_data_decide_the_size_of_the_picture(mode: str, ratio: int) -> None:
    how: dict[str, Any] = {"mode": mode, "sampling_ratio": ratio, "output_height": 3, "output_width": 2}
    op, names = "RoiAlign", ["x", "r", "b"]
    if mode == "pool":
        op, names, how = "MaxRoiPool", ["x", "r"], {"pooled_shape": [3, 2]}
    nodes = [
        helper.make_node("Compress", ["whole", "rows"], ["tall"], axis=2),
        helper.make_node("Compress", ["tall", "columns"], ["x"], axis=3),
        helper.make_node(op, names, ["y"], **how),
    ]
    regions = boxes(12, 8)
    inputs: dict[str, np.ndarray] = {
        "whole": RNG.standard_normal((2, 5, 9, 8)).astype(np.float32), "rows": np.ones(9, bool),
        "columns": np.ones(8, bool), "r": regions, "b": RNG.integers(0, 2, 12),
    }  # fmt: skip
    if mode == "pool":
        inputs["r"] = np.concatenate([inputs.pop("b")[:, None], regions], 1).astype(np.float32)
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()
    ]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [12, 5, 3, 2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    engine = tcc.compile(model, target="cpu", opt_level=1)
    assert {row["function"] for row in engine.data.schedule if row["op"] == "host_call"} == {"compress"}
    for seed in range(3):
        keep = np.random.default_rng(seed)
        inputs["rows"], inputs["columns"] = keep.random(9) < 0.7, keep.random(8) < 0.6
        inputs["rows"][4] = inputs["columns"][2] = True
        picture = inputs["whole"][:, :, inputs["rows"]][:, :, :, inputs["columns"]]
        function = reference.max_roi_pool if mode == "pool" else reference.roi_align
        wanted = function(picture, *(inputs[k] for k in names[1:]), **how)
        np.testing.assert_allclose(np.asarray(engine(inputs)["y"]), wanted, rtol=1e-5, atol=1e-5)
