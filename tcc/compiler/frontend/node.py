# SPDX-License-Identifier: Apache-2.0
"""What a handler sees of an ONNX node: operands as values, attributes as Python values, and a way to emit ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import onnx
from onnx import AttributeProto

from tcc.compiler.frontend import run_time
from tcc.compiler.frontend.builder import Builder
from tcc.compiler.frontend.problems import NeedsValue
from tcc.compiler.frontend.run_time import ComputedOperand
from tcc.compiler.frontend.symbolic import is_symbolic
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim, Expr
from tcc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from tcc.compiler.frontend.importer import GraphImporter

Array = np.ndarray[Any, Any]
T = TypeVar("T")
D = TypeVar("D")


class Node:
    """One node being imported. `opset` is the version of its domain; `loc` its name."""

    def __init__(
        self,
        proto: onnx.NodeProto,
        opset: int,
        loc: str,
        values: Sequence[Value | None],
        attributes: dict[str, AttributeProto],
        importer: GraphImporter,
    ) -> None:
        self.proto = proto
        self.opset = opset
        self.loc = loc
        self.values = values
        self.attributes = attributes
        self.importer = importer
        self.builder: Builder = importer.builder

    # Operands.

    def input(self, index: int) -> Value:
        """An operand that must be there."""
        value = self.optional(index)
        if value is None:
            raise InputError(f"its input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """An operand, None if it is absent."""
        return self.values[index] if index < len(self.values) else None

    @property
    def inputs(self) -> list[Value]:
        """All operands of a variadic operator."""
        if not self.values:
            raise InputError("it has no inputs")
        return [self.input(i) for i in range(len(self.values))]

    def type(self, value: Value) -> TensorType:
        """The type of a value, which must be a tensor."""
        return graph.tensor_type(value)

    def shape(self, value: Value) -> tuple[Dim, ...]:
        return self.type(value).shape

    def rank(self, value: Value) -> int:
        return self.type(value).rank

    def dtype(self, value: Value) -> DType:
        return self.type(value).dtype

    def known(self, value: Value | None) -> Array | None:
        """The content of a value that is a constant of numbers; None otherwise."""
        array = None if value is None else self.builder.known.get(value)
        return None if array is None or is_symbolic(array) else array

    def content(self, value: Value | None) -> Array | None:
        """The content of a value that is known, or that graph inputs decide whose contents the caller gave; None
        otherwise. For what decides a shape or an attribute only: an engine made from it is for these contents."""
        array = None if value is None else self.builder.deciding.content(value)
        return None if array is None or is_symbolic(array) else array

    def needed(self, value: Value, message: str) -> InputError:
        """The error for a value that must be known and is not; it carries the graph inputs that would settle it."""
        inputs = self.builder.deciding.inputs(value)
        return NeedsValue(message, inputs) if inputs else InputError(message)

    def const(self, index: int, what: str) -> Array:
        """The content of an operand that decides an attribute; InputError if it is not known."""
        value = self.input(index)
        array = self.content(value)
        if array is None:
            message = f"its input {index} ({what}) must be known when compiling, and it is computed at run time"
            raise ComputedOperand(message) if run_time.is_computed(self, value) else self.needed(value, message)
        return array

    def dims(self, index: int, what: str) -> list[Dim]:
        """An operand of integers that decide a shape, as ints and expressions; those that the graph computes become
        symbols. InputError if they are contents of graph inputs."""
        value = self.input(index)
        array = self.builder.deciding.content(value)
        if array is None and run_time.is_computed(self, value):
            return run_time.bind(self, value, what)
        if array is None:
            name = self.proto.input[index] if index < len(self.proto.input) else ""
            raise self.needed(
                value,
                f'its input {index} ("{name}", {what}) decides a shape and is not known when compiling; '
                "make it constant, or bind the dims it is computed from",
            )
        return [v if isinstance(v, Expr) else int(v) for v in array.reshape(-1)]

    def is_computed(self, *indices: int) -> bool:
        """Whether one of these operands is there and neither known when compiling nor content of graph inputs."""
        values = [v for v in map(self.optional, indices) if v is not None and v not in self.builder.known]
        return any(run_time.is_computed(self, v) for v in values)

    def ints(self, index: int, what: str) -> list[int]:
        """Like `dims`, numbers only."""
        if self.is_computed(index):
            raise ComputedOperand(
                f"its input {index} ({what}) must be known when compiling, and it is computed at run time"
            )
        out: list[int] = []
        for d in self.dims(index, what):
            if not isinstance(d, int):
                run_time.known_extents(self, [d], f"its input {index} ({what})")
                raise InputError(f"its input {index} ({what}) depends on the free dim {d}, which must be bound")
            out.append(d)
        return out

    # Attributes.

    def has(self, name: str) -> bool:
        return name in self.attributes

    @overload
    def attr(self, name: str) -> Any: ...
    @overload
    def attr(self, name: str, default: D) -> Any | D: ...
    def attr(self, name: str, default: Any = ...) -> Any:
        """An attribute's value (strings as str, lists as lists); InputError if it is missing without a default."""
        a = self.attributes.get(name)
        if a is None:
            if default is ...:
                raise InputError(f"its attribute {name} is missing")
            # A default is an attribute too, and those are f32; in an f64 model the difference shows.
            return float(np.float32(default)) if isinstance(default, float) else default
        if a.type == AttributeProto.STRING:
            return a.s.decode("utf-8", "replace")
        if a.type == AttributeProto.STRINGS:
            return [s.decode("utf-8", "replace") for s in a.strings]
        value = onnx.helper.get_attribute_value(a)
        return list(value) if a.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.attr(name, int(default)))

    # Output.

    def op(self, cls: type[Op], *operands: Value | Sequence[Value] | None, **attrs: Any) -> Value:
        """The only result of a new op."""
        (value,) = self.builder.emit(cls, *operands, **attrs)
        return value

    def ops(self, cls: type[Op], *operands: Value | Sequence[Value] | None, **attrs: Any) -> tuple[Value, ...]:
        """All results of a new op."""
        return self.builder.emit(cls, *operands, **attrs)

    def constant(self, array: Any, dtype: DType | None = None) -> Value:
        """A constant of an array or number, in the given element type."""
        value = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy)
        return self.builder.constant(value)

    def like(self, number: float | int, value: Value) -> Value:
        """A 0-D constant of the element type of `value`."""
        return self.constant(number, self.dtype(value))

    def expand(self) -> Sequence[Value | None]:
        """Import the node as the function that ONNX defines for its operator."""
        return self.importer.expand(self.proto, self.opset, self.values, self.attributes, self.loc)

    def uses(self, index: int) -> bool:
        """Whether the node's output has a name, so that something may read it."""
        return index < len(self.proto.output) and self.proto.output[index] != ""

    # Common steps.

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as one in [0, rank)."""
        if not -rank <= axis < rank:
            raise InputError(f"its axis {axis} is outside [{-rank}, {rank - 1}] of a tensor of rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Possibly negative axes, ascending; a repeated one is an InputError."""
        out = sorted(self.axis(int(a), rank) for a in axes)
        if len(set(out)) != len(out):
            raise InputError(f"its axes {list(axes)} name an axis twice")
        return tuple(out)

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value in an element type; itself if it has it."""
        return value if self.dtype(value) == dtype else self.op(graph.Cast, value, to=dtype)

    def reshape(self, value: Value, shape: Sequence[Dim]) -> Value:
        """The value in a shape; itself if it has it."""
        return value if self.shape(value) == tuple(shape) else self.op(graph.Reshape, value, shape=tuple(shape))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """The value with permuted dims; itself if the permutation is the identity."""
        return value if list(perm) == list(range(len(perm))) else self.op(graph.Transpose, value, perm=tuple(perm))
