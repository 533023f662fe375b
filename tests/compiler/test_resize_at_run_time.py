# SPDX-License-Identifier: Apache-2.0
"""Resizes to and of extents that data decide, as in detectors that paste masks into images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

import tcc
from tcc import reference
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.target import TARGET

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
CASES: list[dict[str, Any]] = [
    *({"mode": "linear", "coordinate_transformation_mode": c} for c in COORDINATES),
    *({"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": e} for e in (0, 1)),
    *({"mode": "nearest", "nearest_mode": m} for m in ("round_prefer_floor", "round_prefer_ceil", "ceil")),
    {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
    {"mode": "nearest", "coordinate_transformation_mode": "align_corners"},
]


def model(nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: int, **constants: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info(k, t, shape) for k, (t, shape) in inputs.items()],
        [helper.make_tensor_value_info(f"y{i}", T.FLOAT, None) for i in range(outputs)],
        [numpy_helper.from_array(np.asarray(a), k) for k, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def to_sizes() -> onnx.ModelProto:
    """x resized to the sizes that an addition gives, in every way."""
    nodes = [helper.make_node("Add", ["wanted", "one"], ["sizes"])]
    nodes += [
        helper.make_node("Resize", ["x", "", "", "sizes"], [f"y{i}"], axes=[2, 3], **case)
        for i, case in enumerate(CASES)
    ]
    inputs = {"x": (T.FLOAT, (2, 3, 5, 4)), "wanted": (T.INT64, (2,))}
    return model(nodes, inputs, len(CASES), one=np.array([1, 1]))


def by_scales() -> onnx.ModelProto:
    """Rows and columns that a mask picks, resized by scales; and pictures that it picks, of known extents."""
    ways: list[tuple[str, dict[str, Any]]] = [
        ("scales", {"mode": "linear"}),
        ("scales", {"mode": "linear", "antialias": 1}),
        ("scales", {"mode": "nearest", "coordinate_transformation_mode": "half_pixel_symmetric"}),
        ("known", {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
        ("known", {"mode": "nearest"}),
    ]
    nodes = [
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("Squeeze", ["places", "zero"], ["rows"]),
        helper.make_node("Gather", ["x", "rows"], ["picked"], axis=0),
    ]
    nodes += [
        helper.make_node("Resize", ["picked", "", s], [f"y{i}"], axes=[0, 2] if s == "scales" else [1, 2], **way)
        for i, (s, way) in enumerate(ways)
    ]
    inputs = {"x": (T.FLOAT, (9, 4, 6)), "mask": (T.FLOAT, (9,))}
    scales, known = np.array([2, 0.5], np.float32), np.array([1.5, 3], np.float32)
    return model(nodes, inputs, len(ways), zero=np.array([0]), scales=scales, known=known)


@pytest.mark.parametrize("level", [0, 1])
def test_sizes_that_the_graph_computes(level: int) -> None:
    engine = tcc.compile(to_sizes(), target=TARGET, opt_level=level)
    assert not any(row["kind"] == "host-op" for row in engine.report)
    x = np.random.default_rng(3).standard_normal((2, 3, 5, 4)).astype(np.float32)
    for sizes in ((10, 8), (3, 2), (1, 1), (5, 4), (7, 13), (0, 3)):
        got = engine({"x": x, "wanted": np.array(sizes) - 1})
        for i, case in enumerate(CASES):
            wanted = reference.resize(x, sizes=sizes, axes=(2, 3), **case)
            np.testing.assert_allclose(got[f"y{i}"], wanted, rtol=1e-5, atol=1e-6, err_msg=f"{sizes} {case}")


@pytest.mark.parametrize("level", [0, 1])
def test_extents_that_data_decide(level: int) -> None:
    made = by_scales()
    engine = tcc.compile(made, target=TARGET, opt_level=level)
    x = np.random.default_rng(4).standard_normal((9, 4, 6)).astype(np.float32)
    for count in (9, 4, 1):
        mask = (np.arange(9) < count).astype(np.float32)
        got = engine({"x": x, "mask": mask})
        for i, node in enumerate(made.graph.node[3:]):
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            options = {k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()}
            scales = [2, 0.5] if node.input[2] == "scales" else [1.5, 3]
            wanted = reference.resize(x[:count], scales=scales, **options)
            np.testing.assert_allclose(got[f"y{i}"], wanted, rtol=1e-5, atol=1e-6, err_msg=f"{count} {options}")


@pytest.mark.parametrize("made", [to_sizes, by_scales])
def test_cuda_engines_build(made: Any) -> None:
    assert compile_model(made(), Options(target="sm_86")).kernels
