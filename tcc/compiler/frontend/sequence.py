# SPDX-License-Identifier: Apache-2.0
"""ONNX sequences whose length is known when compiling: lists of values that never reach the graph."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.errors import InputError
from tcc.ir.core import Value
from tcc.ir.types import F32, SequenceType, TensorType, Type


class StaticSequence(Value):
    """A list of values that stands for an ONNX sequence; no op takes it as an operand."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Value], element: Type | None = None) -> None:
        first = items[0].type if items else element if element is not None else TensorType((), F32)
        super().__init__(SequenceType(first))
        self.items = tuple(items)


def items_of(value: Value) -> tuple[Value, ...]:
    """The values of a sequence; InputError if it is not one that is known."""
    if not isinstance(value, StaticSequence):
        raise InputError(f"it takes a sequence whose length is known when compiling, not {value.type}")
    return value.items
