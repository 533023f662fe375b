# SPDX-License-Identifier: Apache-2.0
"""Function bodies: those a model brings, and those that ONNX defines for composite operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import defs

from tcc.compiler.frontend.model import domain_of
from tcc.ir.core import Value
from tcc.ir.types import ANY_EXTENT, STRING, DType, MapType, OptionalType, ScalarType, SequenceType, TensorType, Type


class Functions:
    """The functions of a model by (domain, name, overload), and ONNX's own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.local = {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}
        self._attributes: dict[tuple[str, str, int], dict[str, int]] = {}
        self._schemas: dict[tuple[str, str, int], defs.OpSchema | None] = {}

    def schema(self, op: str, domain: str, opset: int) -> defs.OpSchema | None:
        """ONNX's declaration of an operator at an opset; None if it has none."""
        key = (op, domain, opset)
        if key not in self._schemas:
            try:
                self._schemas[key] = defs.get_schema(op, opset, domain)
            except defs.SchemaError:
                self._schemas[key] = None
        return self._schemas[key]

    def attribute_types(self, op: str, domain: str, opset: int) -> dict[str, int]:
        """AttributeProto type by name of an operator's attributes; empty if ONNX does not declare it."""
        key = (op, domain, opset)
        if key not in self._attributes:
            schema = self.schema(op, domain, opset)
            declared: dict[str, Any] = {} if schema is None else dict(schema.attributes)
            self._attributes[key] = {name: int(a.type.value) for name, a in declared.items()}
        return self._attributes[key]

    def schema_function(self, op: str, domain: str, opset: int) -> defs.OpSchema | None:
        """The declaration of an operator that has a function body at an opset, whether or not it depends on context."""
        schema: Any = self.schema(op, domain, opset)
        if schema is None or not (schema.has_function or schema.has_context_dependent_function):
            return None
        return schema

    def body(
        self, schema: Any, node: onnx.NodeProto, opset: int, operands: Sequence[Value | None]
    ) -> onnx.FunctionProto | None:
        """The function body that a declaration has for these operands; None if it has none at this opset."""
        if schema.has_function:
            versions = [v for v in schema.function_opset_versions if v <= opset] or schema.function_opset_versions[:1]
            return _parse(schema.get_function_with_opset_version(max(versions)))
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        if not versions:
            return None
        types = [(onnx.TypeProto() if v is None else type_proto(v)).SerializeToString() for v in operands]
        raw = schema.get_context_dependent_function_with_opset_version(max(versions), node.SerializeToString(), types)
        return _parse(raw)


def _parse(raw: object) -> onnx.FunctionProto | None:
    if isinstance(raw, onnx.FunctionProto):
        return raw
    if not isinstance(raw, bytes) or not raw:
        return None
    return onnx.FunctionProto.FromString(raw)


def type_proto(value: Value) -> onnx.TypeProto:
    """The ONNX type of a value; free dims become dim_params."""
    return _proto_of(value.type)


def _proto_of(t: Type) -> onnx.TypeProto:
    if isinstance(t, SequenceType):
        return onnx.helper.make_sequence_type_proto(_proto_of(t.element))
    if isinstance(t, OptionalType):
        return onnx.helper.make_optional_type_proto(_proto_of(t.element))
    if isinstance(t, MapType):
        return onnx.helper.make_map_type_proto(_code(t.key.dtype), _proto_of(t.value))
    assert isinstance(t, TensorType | ScalarType)
    code = _code(t.dtype)
    if isinstance(t, ScalarType):
        return onnx.helper.make_tensor_type_proto(code, None)
    shape = [None if d == ANY_EXTENT else d if isinstance(d, int) else str(d) for d in t.shape]
    return onnx.helper.make_tensor_type_proto(code, shape)


def _code(dtype: DType) -> int:
    return onnx.TensorProto.STRING if dtype == STRING else onnx.helper.np_dtype_to_tensor_dtype(dtype.numpy)


def bound_attributes(
    function: onnx.FunctionProto, given: Mapping[str, onnx.AttributeProto], schema: defs.OpSchema | None
) -> dict[str, onnx.AttributeProto]:
    """Attributes inside a body: those given, else the function's or the operator's defaults."""
    out = {a.name: a for a in function.attribute_proto}
    if schema is not None:
        for name, a in schema.attributes.items():
            if a.default_value is not None and a.default_value.name:
                out.setdefault(name, a.default_value)
    out.update(given)
    return out
