# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions, which become convolutions of all their phases: every stride, window, padding and group."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Case:
    """x [n, ci, …], w [ci, co/group, k…]; `options` as the ONNX attributes."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    bias: bool = True

    def model(self) -> onnx.ModelProto:
        co = self.w[1] * self.options.get("group", 1)
        rng = np.random.default_rng(7)
        weights = {"w": rng.standard_normal(self.w), "b": rng.standard_normal(co)}
        names = ["x", "w", "b"] if self.bias else ["x", "w"]
        graph = helper.make_graph(
            [helper.make_node("ConvTranspose", names, ["y"], **self.options)],
            "transposed",
            [helper.make_tensor_value_info("x", T.FLOAT, self.x)],
            [helper.make_tensor_value_info("y", T.FLOAT, None)],
            [numpy_helper.from_array(weights[n].astype(np.float32), n) for n in names[1:]],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


CASES = {
    "one tap a phase": Case((2, 3, 5), (3, 4, 2), {"strides": [2]}),
    "vocoder": Case((1, 6, 9), (6, 5, 16), {"strides": [8], "pads": [4, 4]}),
    "stride 1": Case((1, 3, 5, 6), (3, 4, 3, 2), {"pads": [1, 0, 1, 1]}),
    "stride 1, dilated": Case((1, 3, 9), (3, 4, 3), {"dilations": [2], "pads": [1, 2]}, bias=False),
    "window 3, stride 2": Case(
        (2, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}
    ),
    "window 4, stride 2, groups": Case(
        (2, 6, 5, 4), (6, 2, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 3}
    ),
    "depthwise": Case((1, 5, 7, 6), (5, 1, 5, 3), {"strides": [3, 2], "group": 5, "pads": [2, 0, 1, 1]}),
    "window below stride": Case((1, 2, 4), (2, 3, 2), {"strides": [5], "output_padding": [3]}),
    "dilated": Case((1, 2, 5, 4), (2, 3, 3, 2), {"strides": [2, 3], "dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "much cut off": Case((1, 2, 8), (2, 3, 3), {"strides": [2], "pads": [7, 6]}),
    "shape given": Case((1, 2, 5), (2, 3, 4), {"strides": [3], "output_shape": [14]}),
    "three dims": Case(
        (1, 3, 3, 4, 5), (3, 2, 3, 2, 4),
        {"strides": [2, 1, 3], "pads": [1, 0, 2, 1, 1, 0], "output_padding": [1, 0, 2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_right(name: str, level: int) -> None:
    case = CASES[name]
    made = case.model()
    engine = tcc.compile(made, target=TARGET, opt_level=level)
    weights = [numpy_helper.to_array(t) for t in made.graph.initializer]
    x = np.random.default_rng(8).standard_normal(case.x).astype(np.float32)
    options = {k: v for k, v in case.options.items() if k != "output_shape"}
    if "output_shape" in case.options:
        options["pads"] = [1, 1]
    wanted = reference.conv_transpose(x, *weights, **options)
    got = engine({"x": x})["y"]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["x86-64-v3", "sm_86"])
def test_no_kernel_tries_taps_in_vain(target: str) -> None:
    content = compile_model(CASES["vocoder"].model(), Options(target=target))
    assert not any(k["template"].endswith(".naive") for k in content.kernels.values())


@pytest.mark.parametrize("level", [0, 1])
def test_along_an_extent_that_data_decide(level: int) -> None:
    """A vocoder after a length regulator."""
    made = CASES["vocoder"].model()
    made.graph.node.insert(0, helper.make_node("NonZero", ["mask"], ["places"]))
    made.graph.node.insert(1, helper.make_node("Squeeze", ["places", "zero"], ["frames"]))
    made.graph.node.insert(2, helper.make_node("Gather", ["all", "frames"], ["x"], axis=2))
    made.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    made.graph.input[0].name = "all"
    made.graph.input.append(helper.make_tensor_value_info("mask", T.FLOAT, (9,)))
    engine = tcc.compile(made, target=TARGET, opt_level=level)
    w, b = (numpy_helper.to_array(t) for t in made.graph.initializer[:2])
    x = np.random.default_rng(9).standard_normal((1, 6, 9)).astype(np.float32)
    for count in (9, 4, 1):
        got = engine({"all": x, "mask": (np.arange(9) < count).astype(np.float32)})["y"]
        wanted = reference.conv_transpose(x[:, :, :count], w, b, strides=[8], pads=[4, 4])
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert level == 0 or not any(k["template"] == "llvm.naive" for k in engine.kernels.values())
