# SPDX-License-Identifier: Apache-2.0
"""What random graphs found, as small as it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.random_graphs.check import check
from tests.random_graphs.evaluate import every_value, info
from tests.random_graphs.gen import Array, Model

FOUND: dict[str, Callable[[], Model]] = {}


def found(function: Callable[[], Model]) -> Callable[[], Model]:
    FOUND[function.__name__] = function
    return function


def normal(*shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


def model(
    opset: int,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Array],
    held: dict[str, Array] | None = None,
    last: int = 1,
) -> Model:
    """The model whose outputs are those of the last nodes."""
    imports = [helper.make_opsetid("", opset)]
    tensors = [numpy_helper.from_array(a, n) for n, a in (held or {}).items()]
    graph = helper.make_graph(nodes, "found", [info(n, a) for n, a in inputs.items()], [], tensors)
    proto = helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports, True))
    values = every_value(proto, inputs)
    proto.graph.output.extend(info(o, values[o]) for node in nodes[-last:] for o in node.output)
    return Model(proto, inputs)


@found
def roi_align_before_half_pixels() -> Model:
    """Before opset 16 boxes are not shifted by half a pixel, and are at least a pixel large."""
    boxes = np.array([[0.3, 0.9, 0.4, 1.4], [0.5, 0.5, 4.0, 3.5]], np.float32)
    node = helper.make_node(
        "RoiAlign", ["x", "boxes", "batch"], ["y"], output_height=2, output_width=3, sampling_ratio=2
    )
    return model(12, [node], {"x": normal(2, 3, 5, 6)}, {"boxes": boxes, "batch": np.array([1, 0], np.int64)})


@found
def attention_for_two_readers() -> Model:
    """Both are computed where the attention's rows are at hand."""
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["mean"]),
        helper.make_node("Tanh", ["mean"], ["y"]),
        helper.make_node("Mul", ["mean", "two"], ["z"]),
    ]
    inputs = {"q": normal(3, 5, 21, 5), "k": normal(3, 5, 5, 13), "v": normal(3, 5, 13, 19)}
    return model(17, nodes, inputs, {"two": np.array(2, np.float32)}, last=2)


@found
def a_loop_that_collects_nothing() -> Model:
    """Rows without elements: there is nothing to move, but the collection has a place."""
    empty = np.empty((6, 2, 0))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Tanh", ["a"], ["b"]),
            helper.make_node("Round", ["x"], ["row"]),
        ],
        "body",
        [info("i", np.array(0)), info("go", np.array(True)), info("a", np.ones(3))],
        [info("on", np.array(True)), info("b", np.ones(3)), info("row", empty)],
    )
    node = helper.make_node("Loop", ["count", "", "a0"], ["y", "rows"], body=body)
    return model(17, [node], {"count": np.array(2), "a0": np.ones(3), "x": empty})


@found
def resize_to_nothing() -> Model:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1)
    scales = np.array([1, 1, 0.5, 2], np.float32)
    return model(18, [node], {"x": normal(2, 3, 1, 6)}, {"scales": scales})


@found
def default_attribute_in_f64() -> Model:
    """The default of alpha is the f32 next to 0.2, which an f64 model shows."""
    return model(12, [helper.make_node("HardSigmoid", ["x"], ["y"])], {"x": normal(4, 3, dtype=np.float64)})


@found
def first_rows_in_a_concat() -> Model:
    """A view of the first rows of a larger tensor is no reason to put all of it into the concat."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Slice", ["t", "zero", "one", "zero"], ["part"]),
        helper.make_node("Neg", ["part"], ["turned"]),
        helper.make_node("Concat", ["part", "turned"], ["y"], axis=0),
    ]
    return model(20, nodes, {"x": normal(10, 700)}, {"zero": np.array([0]), "one": np.array([1])})


@found
def running_total_from_the_end_of_what_data_decide() -> Model:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("CumSum", ["places", "one"], ["y"], reverse=1),
    ]
    return model(20, nodes, {"x": np.maximum(normal(5, 6), 0)}, {"one": np.array(1)})


@found
def first_numbers_as_many_as_data_decide() -> Model:
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Greater", ["t", "c"], ["larger"]),
        helper.make_node("Cast", ["larger"], ["ones"], to=onnx.TensorProto.INT64),
        helper.make_node("ReduceSum", ["ones", "zero"], ["count"], keepdims=1),
        helper.make_node("Slice", ["t", "zero", "count", "zero"], ["first"]),
        helper.make_node("Softmax", ["first"], ["y"], axis=0),
    ]
    return model(18, nodes, {"x": normal(9)}, {"c": np.array(0, np.float32), "zero": np.array([0])})


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    outcome = check(FOUND[name](), 0, levels=(0, 1, 3))
    assert outcome.verdict == "pass" and not outcome.disputes, outcome.message
