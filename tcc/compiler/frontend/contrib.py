# SPDX-License-Identifier: Apache-2.0
"""What handlers of the com.microsoft domain share: their declared attributes, positions, rows and heads.

ONNX has no schema of these operators, so a handler declares the attributes that it takes, with their kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from onnx import AttributeProto

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, floordiv
from tcc.ir.types import I64, DType

DOMAIN = "com.microsoft"
INT, FLOAT, STRING = AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING
INTS, FLOATS, STRINGS = AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS

F = TypeVar("F", bound=Callable[..., Any])


def contrib_op(*names: str) -> Callable[[F], F]:
    """Decorator: the function imports nodes of these operators of com.microsoft."""
    return onnx_op(*names, domain=DOMAIN)


def takes(n: Node, **kinds: int) -> None:
    """InputError unless every attribute of the node is one of these, of its kind."""
    name_of = AttributeProto.AttributeType.Name
    for name, a in n.attributes.items():
        if name not in kinds:
            raise InputError(f"its attribute {name} is not supported")
        if a.type != kinds[name]:
            raise InputError(f"its attribute {name} is of type {name_of(a.type)}, and {name_of(kinds[name])} is needed")


def refuse(n: Node, what: str, *names: str) -> None:
    """InputError if one of these attributes is neither absent nor 0; `what` says what it would ask for."""
    for name in names:
        if n.attr(name, 0):
            raise InputError(f"its attribute {name} is {n.attr(name)}: {what}, which tcc does not import")


def refuse_inputs(n: Node, what: str, **inputs: int) -> None:
    """InputError if one of these operands is given; `what` says what it is for."""
    for name, index in inputs.items():
        if n.optional(index) is not None:
            raise InputError(f"it has the input {name}: {what}, which tcc does not import")


def need_rank(n: Node, value: Value, name: str, *ranks: int) -> tuple[Dim, ...]:
    """The shape of an operand that must be of one of these ranks."""
    if n.rank(value) not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise InputError(f"its input {name} is {n.type(value)}, and rank {wanted} is needed")
    return n.shape(value)


def known_dim(extent: Dim, what: str) -> int:
    """An extent that must be a number."""
    if not isinstance(extent, int):
        raise InputError(f"{what} is the free dim {extent}, which must be bound")
    return extent


def share(extent: Dim, parts: int, what: str) -> Dim:
    """extent / parts, which must divide."""
    if parts < 1 or (isinstance(extent, int) and extent % parts):
        raise InputError(f"{what} of {extent} does not split into {parts} heads")
    return floordiv(extent, parts)


def positions(n: Node, extent: Dim, dtype: DType = I64) -> Value:
    """0, 1, …, extent - 1."""
    if isinstance(extent, int):
        return n.constant(np.arange(extent), dtype)
    return n.op(graph.Cumsum, n.op(graph.Expand, n.constant(1, dtype), shape=(extent,)), axis=0, exclusive=True)


def cut(n: Node, x: Value, axis: int, start: Dim, size: Dim) -> Value:
    """x[start : start + size] along an axis; x itself if that is all of it."""
    shape = n.shape(x)
    if start == 0 and size == shape[axis]:
        return x
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    sizes = tuple(size if i == axis else d for i, d in enumerate(shape))
    return n.op(graph.Slice, x, starts=starts, sizes=sizes, steps=(1,) * len(shape))


def row(n: Node, x: Value, axis: int, index: int) -> Value:
    """x at an index of an axis, which goes."""
    shape = n.shape(x)
    return n.reshape(cut(n, x, axis, index, 1), [d for i, d in enumerate(shape) if i != axis])


def parts(n: Node, x: Value, axis: int, sizes: Sequence[Dim]) -> list[Value]:
    """x cut along an axis into parts of these extents."""
    out: list[Value] = []
    at: Dim = 0
    for size in sizes:
        out.append(cut(n, x, axis, at, size))
        at = at + size
    return out


def to_heads(n: Node, x: Value, heads: int, what: str) -> Value:
    """[b, m, h·d] → [b, h, m, d]."""
    b, m, width = n.shape(x)
    return n.transpose(n.reshape(x, (b, m, heads, share(width, heads, what))), (0, 2, 1, 3))


def from_heads(n: Node, x: Value) -> Value:
    """[b, h, m, d] → [b, m, h·d]."""
    b, h, m, d = n.shape(x)
    return n.reshape(n.transpose(x, (0, 2, 1, 3)), (b, m, h * d))
