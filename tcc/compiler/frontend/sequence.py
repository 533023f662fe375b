# SPDX-License-Identifier: Apache-2.0
"""ONNX sequences and optionals: resolved while importing where their length is known, else values of host calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import (
    F32,
    OptionalType,
    ScalarType,
    SequenceType,
    TensorType,
    Type,
    as_element,
    joined_element,
)

if TYPE_CHECKING:
    from tcc.compiler.frontend.importer import GraphImporter
    from tcc.compiler.frontend.node import Node

REASONS = {
    "sequence": "how many tensors a sequence holds is known at run time only",
    "optional": "whether an optional holds a value is known at run time only",
}


class StaticSequence(Value):
    """A list of values that stands for an ONNX sequence of known length; no op takes it as an operand."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Value], element: Type | None = None) -> None:
        found = element_type_of([v.type for v in items]) if items else None
        super().__init__(SequenceType(found or as_element(element or ScalarType(F32))))
        self.items = tuple(items)


class StaticOptional(Value):
    """An ONNX optional of which is known whether it holds a value: `item`, or None."""

    __slots__ = ("item",)

    def __init__(self, item: Value | None, element: Type | None = None) -> None:
        super().__init__(OptionalType(as_element(item.type if item is not None else element or ScalarType(F32))))
        self.item = item


def element_type_of(types: Sequence[Type]) -> Type:
    """The item type of a sequence of values of these types; InputError if ONNX has no such sequence."""
    out = reduce(lambda a, b: a if a is None else joined_element(a, b), types[1:], as_element(types[0]))
    if out is None:
        raise InputError(f"a sequence holds values of one type, not {' and '.join(map(str, dict.fromkeys(types)))}")
    return out


def hosted(importer: GraphImporter, value: Value) -> Value:
    """A value that ops can take: a sequence or optional that was resolved while importing is made by a host call."""
    if isinstance(value, StaticSequence):
        items = [hosted(importer, v) for v in value.items]
        function = "sequence_construct" if items else "sequence_empty"
        return host_value(
            importer, function, items, value.type, "a sequence leaves the part of the model resolved here"
        )
    if isinstance(value, StaticOptional):
        operands = [] if value.item is None else [hosted(importer, value.item)]
        return host_value(importer, "optional", operands, value.type, "an optional leaves the part resolved here")
    return value


def host_value(
    importer: GraphImporter,
    function: str,
    operands: Sequence[Value | None],
    result: Type,
    reason: str,
    **attributes: Any,
) -> Value:
    """The only result of a host call."""
    return host_values(importer, function, operands, [result], reason, **attributes)[0]


def host_values(
    importer: GraphImporter,
    function: str,
    operands: Sequence[Value | None],
    results: Sequence[Type],
    reason: str,
    **attributes: Any,
) -> tuple[Value, ...]:
    """The results of `tcc.reference.<function>` called on the host, with the decision's reason noted."""
    builder = importer.builder
    given = tuple(int(v is not None) for v in operands)
    importer.decisions.add("import", "host", f"onnx.{function}", "host call", reason, loc=builder.loc)
    return builder.emit(
        graph.Host, [v for v in operands if v is not None], function=function, attributes=attributes, given=given,
        types=tuple(results),
    )  # fmt: skip


def fresh_item(n: Node, element: Type) -> Type:
    """The type of one item of a sequence: extents in which items may differ are symbols of their own."""
    if isinstance(element, ScalarType):
        raise InputError(
            "the rank of the tensors in its sequence is not known when compiling; "
            'bind the sequence with shapes={"name": [shape of each tensor]}'
        )
    if not isinstance(element, TensorType):
        return element
    shape: list[Dim] = [
        d if isinstance(d, int) else n.importer.names.fresh(f"{n.loc}_{i}") for i, d in enumerate(element.shape)
    ]
    return graph.dense(shape, element.dtype)


def items_of(value: Value) -> tuple[Value, ...] | None:
    """The values of a sequence whose length is known; None of one whose is not. InputError if it is no sequence."""
    if isinstance(value, StaticSequence):
        return value.items
    if isinstance(value.type, SequenceType):
        return None
    raise InputError(f"it takes a sequence, not {value.type}")


def same_form(a: Value, b: Value) -> bool:
    """Whether two values hold tensors of one type and rank in the same places, so that each can be chosen alone."""
    if isinstance(a, StaticSequence) and isinstance(b, StaticSequence):
        return len(a.items) == len(b.items) and all(map(same_form, a.items, b.items))
    if isinstance(a, StaticOptional) and isinstance(b, StaticOptional):
        if a.item is None or b.item is None:
            return a.item is b.item
        return same_form(a.item, b.item)
    s, t = a.type, b.type
    return isinstance(s, TensorType) and isinstance(t, TensorType) and s.dtype == t.dtype and s.rank == t.rank


def leaves(value: Value) -> list[Value]:
    """The values that ops take in a value resolved while importing; of another one, itself."""
    if isinstance(value, StaticSequence):
        return [leaf for v in value.items for leaf in leaves(v)]
    if isinstance(value, StaticOptional):
        return [] if value.item is None else leaves(value.item)
    return [value]


def rebuilt(value: Value, given: list[Value]) -> Value:
    """The form of `value` around other leaves, which are taken from the front of `given`."""
    if isinstance(value, StaticSequence):
        assert isinstance(value.type, SequenceType)
        return StaticSequence([rebuilt(v, given) for v in value.items], value.type.element)
    if isinstance(value, StaticOptional):
        assert isinstance(value.type, OptionalType)
        return StaticOptional(None if value.item is None else rebuilt(value.item, given), value.type.element)
    return given.pop(0)
