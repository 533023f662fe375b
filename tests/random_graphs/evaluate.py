# SPDX-License-Identifier: Apache-2.0
"""Models computed node by node: by onnx.reference, or by ONNX Runtime for the nodes where onnx.reference is wrong.

If, Loop and Scan are run here: onnx.reference joins what loops scan along the wrong axis and lacks Scan's attributes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.random_graphs.choices import Array


def type_of(array: Array) -> int:
    """onnx's number for an array's type."""
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, type_of(array), array.shape)


def attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def session(model: ModelProto) -> ort.InferenceSession:
    """ONNX Runtime with nothing optimised."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def evaluate(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The model's outputs. Raises what the runtimes raise where neither computes a node."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return _graph(model.graph, dict(feeds), model.opset_import[0].version)


def every_value(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The values of the main graph, inputs and initialisers included."""
    values = dict(feeds)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        _graph(model.graph, values, model.opset_import[0].version)
    return values


def compute(node: NodeProto, values: Mapping[str, Array], opset: int) -> list[Array]:
    """The outputs of one node; `values` has its operands and what its bodies take from outside."""
    special = {"If": _if, "Loop": _loop, "Scan": _scan}.get(node.op_type)
    if special is not None and not node.domain:
        return special(node, values, opset)
    operands = {i: values[i] for i in node.input if i}
    if node.op_type in INSTEAD and operands[node.input[0]].dtype == np.float64 and not node.domain:
        return [np.asarray(INSTEAD[node.op_type](operands[node.input[0]], **attributes(node)), np.float64)]
    if wrong_in_reference(node, opset, operands):
        return by_onnxruntime(node, operands, opset)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = ReferenceEvaluator(node, opsets={"": opset}).run(None, operands)
    return [np.asarray(a) for a in found]


def by_onnxruntime(node: NodeProto, operands: Mapping[str, Array], opset: int) -> list[Array]:
    """One node in ONNX Runtime."""
    graph = helper.make_graph([node], "node", [info(n, a) for n, a in operands.items()],
                              [onnx.ValueInfoProto(name=o) for o in node.output if o])  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports, True))
    model = onnx.shape_inference.infer_shapes(model)
    return [np.asarray(a) for a in session(model).run(None, dict(operands))]


def _erf(x: Array) -> Array:
    return np.reshape([math.erf(v) for v in x.reshape(-1)], x.shape)


def _hard_swish(x: Array) -> Array:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def _lrn(x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """The window of channel c is [c - ⌊(size - 1)/2⌋, c + ⌈(size - 1)/2⌉]."""
    before, after = (size - 1) // 2, size // 2
    squares = [np.square(x[:, max(0, c - before) : c + after + 1]).sum(1, keepdims=True) for c in range(x.shape[1])]
    return x / (bias + alpha / size * np.concatenate(squares, 1)) ** beta


INSTEAD = {"Erf": _erf, "HardSwish": _hard_swish, "LRN": _lrn}
"""In f64 ONNX Runtime lacks these, and onnx.reference takes f32's numbers or (LRN) the wrong channels."""


def wrong_in_reference(node: NodeProto, opset: int, operands: Mapping[str, Array]) -> str:
    """Why onnx.reference (1.23) gives no right answer for a node; "" if it does."""
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and opset < 13:
        return "it takes axis for one axis, where opset 12 and before flatten from it on"
    if node.op_type == "LRN":
        return "it takes the extent of the batch for that of the channels"
    if (
        node.op_type == "Resize"
        and operands[node.input[0]].dtype == np.float64
        and attributes(node).get("mode") == b"cubic"
    ):
        return "its cubic weights are f32 numbers"
    if node.op_type == "RoiAlign" and opset < 16:
        return "it shifts boxes by half a pixel, which began at opset 16"
    return ""


def _graph(graph: GraphProto, values: dict[str, Array], opset: int) -> list[Array]:
    for t in graph.initializer:
        values[t.name] = numpy_helper.to_array(t)
    for node in graph.node:
        found = compute(node, values, opset)
        values.update((name, array) for name, array in zip(node.output, found) if name)
    return [values[o.name] for o in graph.output]


def _if(node: NodeProto, values: Mapping[str, Array], opset: int) -> list[Array]:
    branch = "then_branch" if bool(values[node.input[0]].reshape(-1)[0]) else "else_branch"
    return _graph(attributes(node)[branch], dict(values), opset)


def _stacked(rows: Sequence[Array], body: GraphProto, k: int) -> Array:
    if rows:
        return np.stack(rows)
    t = body.output[k].type.tensor_type
    return np.zeros([0, *(d.dim_value for d in t.shape.dim)], helper.tensor_dtype_to_np_dtype(t.elem_type))


def _loop(node: NodeProto, values: Mapping[str, Array], opset: int) -> list[Array]:
    body: GraphProto = attributes(node)["body"]
    names = [i.name for i in body.input]
    first = list(node.input) + [""] * 2
    trips = int(values[first[0]].reshape(-1)[0]) if first[0] else 2**62
    going = bool(values[first[1]].reshape(-1)[0]) if first[1] else True
    carried = [values[i] for i in node.input[2:]]
    rows: list[list[Array]] = [[] for _ in body.output[1 + len(carried) :]]
    at = 0
    while going and at < trips:
        here = dict(zip(names, [np.array(at, np.int64), np.array(going), *carried], strict=True))
        found = _graph(body, {**values, **here}, opset)
        going = bool(found[0].reshape(-1)[0])
        carried = found[1 : 1 + len(carried)]
        for row, value in zip(rows, found[1 + len(carried) :], strict=True):
            row.append(value)
        at += 1
    return [*carried, *(_stacked(r, body, 1 + len(carried) + k) for k, r in enumerate(rows))]


def _scan(node: NodeProto, values: Mapping[str, Array], opset: int) -> list[Array]:
    given = attributes(node)
    body: GraphProto = given["body"]
    count = given["num_scan_inputs"]
    states = [values[i] for i in node.input[:-count]]
    axes = given.get("scan_input_axes", [0] * count)
    scanned = [np.moveaxis(values[i], a, 0) for i, a in zip(node.input[-count:], axes, strict=True)]
    back = given.get("scan_input_directions", [0] * count)
    scanned = [s[::-1] if b else s for s, b in zip(scanned, back, strict=True)]
    rows: list[list[Array]] = [[] for _ in body.output[len(states) :]]
    for at in range(len(scanned[0])):
        here = dict(zip([i.name for i in body.input], [*states, *(s[at] for s in scanned)], strict=True))
        found = _graph(body, {**values, **here}, opset)
        states = found[: len(states)]
        for row, value in zip(rows, found[len(states) :], strict=True):
            row.append(value)
    outputs = [_stacked(r, body, len(states) + k) for k, r in enumerate(rows)]
    flipped = given.get("scan_output_directions", [0] * len(rows))
    to = given.get("scan_output_axes", [0] * len(rows))
    return [*states, *(np.moveaxis(o[::-1] if b else o, 0, a) for o, b, a in zip(outputs, flipped, to, strict=True))]
