# SPDX-License-Identifier: Apache-2.0
"""ONNX optionals: resolved while importing where it is known whether they hold a value, calls of the host elsewhere."""

from __future__ import annotations

from tcc.compiler.frontend.binding import value_type
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import REASONS, StaticOptional, fresh_item, host_value
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import BOOL, OptionalType


@onnx_op("Optional")
def optional(n: Node) -> Value:
    if n.optional(0) is not None:
        return StaticOptional(n.input(0))
    return StaticOptional(None, value_type(n.attr("type"), "its result"))


@onnx_op("OptionalHasElement")
def optional_has_element(n: Node) -> Value:
    """Whether there is a value: a tensor or sequence is one, an absent operand is none."""
    value = n.optional(0)
    if value is None or not isinstance(value.type, OptionalType):
        return n.constant(value is not None)
    if isinstance(value, StaticOptional):
        return n.constant(value.item is not None)
    return host_value(n.importer, "optional_has_element", [value], graph.dense((), BOOL), REASONS["optional"])


@onnx_op("OptionalGetElement")
def optional_element(n: Node) -> Value:
    value = n.input(0)
    if isinstance(value, StaticOptional):
        if value.item is None:
            raise InputError("its optional is empty")
        return value.item
    if not isinstance(value.type, OptionalType):
        return value
    result = fresh_item(n, value.type.element)
    return host_value(n.importer, "optional_get_element", [value], result, REASONS["optional"])
