# SPDX-License-Identifier: Apache-2.0
"""Runs ONNX graphs on tcc.reference: a thin table from node attributes to keyword arguments, for the tests."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc import reference
from tcc.reference.names import function_name

CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
_TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype", "output_datatype", "softmax_precision"}
_IGNORED = {"stash_type", "auto_pad", "output_shape", "precision"}


def supported(model: onnx.ModelProto) -> bool:
    """Whether every node of the model is a default-domain operator that tcc.reference computes."""
    return all(
        n.domain in ("", "ai.onnx") and (n.op_type == "Constant" or hasattr(reference, function_name(n.op_type)))
        for n in model.graph.node
    )


def attribute(a: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(a)
    if a.name in _TYPE_ATTRIBUTES:
        return helper.tensor_dtype_to_np_dtype(value) if value else None
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if a.type == onnx.AttributeProto.STRINGS:
        return [v.decode() for v in value]
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else value


def _explicit_pads(op: str, inputs: list[Any], kw: dict[str, Any], auto: str, shape: list[int] | None) -> None:
    """Resolves auto_pad and output_shape into pads."""
    space = inputs[0].shape[2:]
    kernel = kw.get("kernel_shape") or inputs[1].shape[2:]
    rank = len(space)
    strides, dilations = kw.get("strides") or [1] * rank, kw.get("dilations") or [1] * rank
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if op == "ConvTranspose":
        extra = kw.get("output_padding") or [0] * rank
        if shape is None:
            if auto not in ("SAME_UPPER", "SAME_LOWER"):
                return
            shape = [n * s for n, s in zip(space, strides, strict=True)]
        total = [s * (n - 1) + e + k - o for s, n, e, k, o in zip(strides, space, extra, spans, shape, strict=True)]
        small_first = auto == "SAME_UPPER"
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (-(-n // s) - 1) * s + k - n) for n, s, k in zip(space, strides, spans, strict=True)]
        small_first = auto == "SAME_UPPER"
    else:
        if auto == "VALID":
            kw["pads"] = [0] * (2 * rank)
        return
    begin = [t // 2 if small_first else t - t // 2 for t in total]
    kw["pads"] = begin + [t - b for t, b in zip(total, begin, strict=True)]


def run_node(node: onnx.NodeProto, inputs: list[Any]) -> tuple[Any, ...]:
    """The outputs of one node."""
    kw = {a.name: attribute(a) for a in node.attribute}
    if node.op_type == "Constant":
        ((name, value),) = kw.items()
        if name in ("value_float", "value_floats"):
            value = np.array(value, np.float32)
        elif name in ("value_int", "value_ints"):
            value = np.array(value, np.int64)
        elif name in ("value_string", "value_strings"):
            value = np.array(value, object)
        return (value,)
    function = getattr(reference, function_name(node.op_type))
    if "auto_pad" in kw or "output_shape" in kw:
        _explicit_pads(node.op_type, inputs, kw, kw.get("auto_pad", "NOTSET"), kw.get("output_shape"))
    known = inspect.signature(function).parameters
    kw = {k: v for k, v in kw.items() if k in known or k not in _IGNORED}
    if node.op_type == "ConstantOfShape" and "value" in kw:
        kw["value"] = kw["value"].reshape(-1)
    if node.op_type == "Split" and "num_outputs" not in kw and len(inputs) < 2 and "split" not in kw:
        kw["num_outputs"] = len(node.output)
    result = function(*inputs, **kw)
    return result if isinstance(result, tuple) else (result,)


def run_model(model: onnx.ModelProto, inputs: list[Any]) -> list[Any]:
    """The graph's outputs for positional inputs; initializers listed among them win over None."""
    values: dict[str, Any] = {"": None}
    values.update(zip((i.name for i in model.graph.input), inputs, strict=False))
    values.update((t.name, numpy_helper.to_array(t)) for t in model.graph.initializer)
    for node in model.graph.node:
        results = run_node(node, [values[name] for name in node.input])
        values.update((n, r) for n, r in zip(node.output, results, strict=False) if n)
    return [values[o.name] for o in model.graph.output]
