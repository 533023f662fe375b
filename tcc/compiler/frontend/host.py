# SPDX-License-Identifier: Apache-2.0
"""Operators that no kernel computes: their reference function called on the host, with types from ONNX's inference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import onnx
from onnx import shape_inference

from tcc import reference
from tcc.compiler.frontend.functions import bound_attributes, type_proto
from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.problems import NeedsValue
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import TensorType

_ELEMENT_TYPES = frozenset(("dtype", "to", "output_datatype", "output_dtype", "softmax_precision", "precision"))
# Random operators draw through handlers, and sequences and optionals are no tensors.
_NOT_HOST = frozenset((
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Optional",
    "OptionalGetElement", "OptionalHasElement", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceAt", "SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence",
    "ImageDecoder",
))  # fmt: skip


# Operands whose values are extents of the result.
_DECIDING = {"CenterCropPad": (1,), "Col2Im": (1, 2), "DFT": (1, 2), "MelWeightMatrix": (0, 1), "STFT": (1, 3)}


@cache
def host_function(op: str, domain: str) -> str | None:
    """The reference function of an operator that may be called on the host; None if it has none."""
    if domain or op in _NOT_HOST:
        return None
    name = reference.function_name(op)
    return name if callable(getattr(reference, name, None)) else None


def host_call(n: Node) -> tuple[Value, ...]:
    """graph.host for a node; extents that data decide become symbols of their own."""
    name = host_function(n.proto.op_type, "")
    assert name is not None
    accepted = inspect.signature(getattr(reference, name)).parameters
    attributes: dict[str, Any] = {}
    for key in n.attributes:
        if key not in accepted:
            raise InputError(f"its attribute {key} is not supported")
        value = n.attr(key)
        attributes[key] = element_type(value, "its result") if key in _ELEMENT_TYPES else _plain(value)
    given = tuple(int(v is not None) for v in n.values)
    operands = [v for v in n.values if v is not None]
    types = _result_types(n)
    n.importer.decisions.add(
        "import", "host", f"onnx.{n.proto.op_type}", "host call", "no kernel computes this operator", loc=(n.loc,)
    )
    return n.ops(graph.Host, operands, function=name, attributes=attributes, given=given, types=types)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _result_types(n: Node) -> tuple[TensorType, ...]:
    schema = n.importer.functions.schema(n.proto.op_type, "", n.opset)
    if schema is None:
        raise InputError(f"ONNX has no {n.proto.op_type} at opset {n.opset}")
    node = onnx.NodeProto()
    node.CopyFrom(n.proto)
    # The reference function gives all outputs, so those without a name have types too, up to the last that has one.
    count = max((i + 1 for i, o in enumerate(n.proto.output) if o), default=0)
    del node.input[:], node.attribute[:], node.output[:]
    # With the defaults written out: some inference functions of onnx take an absent attribute for 0.
    node.attribute.extend(bound_attributes(onnx.FunctionProto(), n.attributes, schema).values())
    node.output.extend(f"o{i}" for i in range(count))
    node.input.extend("" if v is None else f"i{i}" for i, v in enumerate(n.values))
    deciding = [v for i, v in enumerate(n.values) if v is not None and i in _DECIDING.get(n.proto.op_type, ())]
    found = _inferred(n, schema, node, n.content if deciding else n.known)
    for v in deciding:
        if n.content(v) is None and not _settled(found, node.output):
            error = n.needed(v, "the extents of its outputs depend on the value of an operand, and that is not known")
            if isinstance(error, NeedsValue):
                raise error
    symbols = {str(d): d for v in n.values if v is not None for d in n.shape(v)}
    out: list[TensorType] = []
    for i, name in enumerate(node.output):
        t = found.get(name)
        if t is None or not t.tensor_type.HasField("shape"):
            raise InputError(f"the rank of its output {i} is not known when compiling")
        dims: list[Dim] = []
        for d in t.tensor_type.shape.dim:
            if d.HasField("dim_value"):
                dims.append(d.dim_value)
            else:
                dims.append(symbols.get(d.dim_param) or n.importer.names.fresh(f"{n.loc}_{len(dims)}"))
        out.append(graph.dense(dims, element_type(t.tensor_type.elem_type, "its result")))
    return tuple(out)


def _inferred(
    n: Node, schema: Any, node: onnx.NodeProto, content: Callable[[Value], Array | None]
) -> dict[str, onnx.TypeProto]:
    """Types by output from ONNX's inference, which sees the small operands that have a content."""
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for i, v in enumerate(n.values):
        if v is None:
            continue
        types[f"i{i}"] = type_proto(v)
        known = content(v)
        if known is not None and known.dtype != object and known.size <= 4096:
            data[f"i{i}"] = onnx.numpy_helper.from_array(known, f"i{i}")
    try:
        return shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=[onnx.helper.make_opsetid("", n.opset)]
        )
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as e:
        raise InputError(f"its operands do not fit: {str(e).splitlines()[0]}") from None


def _settled(found: Mapping[str, onnx.TypeProto], outputs: Iterable[str]) -> bool:
    """Whether all outputs have a shape without unknown extents."""
    types = [found.get(name) for name in outputs]
    return all(
        t is not None
        and t.tensor_type.HasField("shape")
        and all(d.HasField("dim_value") or d.dim_param for d in t.tensor_type.shape.dim)
        for t in types
    )
