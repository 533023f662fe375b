# SPDX-License-Identifier: Apache-2.0
"""What every graph op shares: its category, `evaluate`, and the shape and type rules that `infer` methods use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcc.ir.core import Op, Value
from tcc.ir.declare import IRError, Kind, one_of
from tcc.ir.expr import Dim, Expr, maximum
from tcc.ir.types import DType, TensorType

Array: TypeAlias = NDArray[Any]

CATEGORIES = (
    "pointwise", "index", "contraction", "reduction", "rows", "pool", "resize", "batch_norm", "attention", "recurrence",
    "irregular", "constant", "control", "opaque",
)  # fmt: skip

NUMBER: Kind[int | float] = Kind("number", lambda v: isinstance(v, int | float) and not isinstance(v, bool))

LAYOUT = one_of("nchw", "nhwc")
"""Order of activations of any spatial rank: [n, c, spatial…] or [n, spatial…, c]."""


class GraphOp(Op):
    """An op on tensors.

    `category` says how the compiler treats it: `pointwise` (one output element from the elements broadcast to it),
    `index` (moves elements), `contraction`, `reduction`, `rows` (reductions and maps along rows), `pool`, `resize`
    (interpolates), `batch_norm`, `attention`, `recurrence`, `irregular` (scans, orders, scatters: kernels of their
    own), `constant`, `control`, or `opaque` (none of these).
    """

    category: ClassVar[str] = "opaque"
    pure: ClassVar[bool] = True
    terminator: ClassVar[bool] = False
    isolated: ClassVar[bool] = False

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        """Results from one array per operand (None for an absent optional one), computed by `tcc.reference`."""
        raise NotImplementedError(f"{self.name} has no evaluate method")

    def operand_type(self, index: int) -> TensorType:
        """The tensor type of the index-th operand; IRError if it is no tensor."""
        return tensor_type(self.operands[index], self)

    def fail(self, message: str) -> IRError:
        """An IRError that names the op and where it came from."""
        where = f' at "{", ".join(self.loc)}"' if self.loc else ""
        return IRError(f"{self.name}{where}: {message}")


def tensor_type(value: Value, op: Op | None = None) -> TensorType:
    """The type of a value that must be a tensor; IRError if it is none."""
    t = value.type
    if not isinstance(t, TensorType):
        raise IRError(f"{op.name if op is not None else 'a graph op'} takes tensors, not {t}")
    return t


def present(array: Array | None) -> Array:
    """An operand's array that may not be absent."""
    assert array is not None
    return array


def optional(arrays: Sequence[Array | None], index: int) -> Array | None:
    """An optional operand's array: None if absent, or left off at the end."""
    return arrays[index] if index < len(arrays) else None


def dims_text(shape: Iterable[Dim]) -> str:
    """`1x3x?`-like text of a shape, symbols by name."""
    return "x".join(map(str, shape)) or "scalar"


def broadcast_dim(op: GraphOp, a: Dim, b: Dim) -> Dim:
    """The extent of two broadcast dims. A symbol beside an extent other than 1 is taken to fit it; of two expressions
    that are not the same either may be 1, so it is the larger."""
    if a == b or (isinstance(b, int) and b == 1):
        return a
    if isinstance(a, int) and a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise op.fail(f"the extents {a} and {b} do not broadcast")
    if isinstance(a, int):
        return a
    if isinstance(b, int):
        return b
    return maximum(a, b)


def broadcast(op: GraphOp, shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The numpy broadcast of shapes; IRError where they do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for i, d in enumerate(shape):
            out[offset + i] = broadcast_dim(op, out[offset + i], d)
    return tuple(out)


def known_different(a: Dim, b: Dim) -> bool:
    """Whether two extents are certainly unequal."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def check_equal_dim(op: GraphOp, a: Dim, b: Dim, what: str) -> Dim:
    """The extent that a and b share (the known one); IRError if they are known to differ."""
    if known_different(a, b):
        raise op.fail(f"{what}: {a} and {b} differ")
    return a if isinstance(a, int) else b


def same_dtype(op: GraphOp, *types: TensorType) -> DType:
    """The element type all share; IRError if they do not."""
    first = types[0].dtype
    for t in types[1:]:
        if t.dtype != first:
            raise op.fail(f"operands must have one element type, not {first} and {t.dtype}")
    return first


def check_axis(op: GraphOp, axis: int, rank: int, what: str = "axis") -> int:
    """axis, which must be in [0, rank)."""
    if not 0 <= axis < rank:
        raise op.fail(f"{what} {axis} is outside [0, {rank}) of a tensor of rank {rank}")
    return axis


def check_axes(op: GraphOp, axes: Sequence[int], rank: int) -> None:
    """axes must be strictly ascending numbers in [0, rank)."""
    for a in axes:
        check_axis(op, a, rank)
    if list(axes) != sorted(set(axes)):
        raise op.fail(f"axes {list(axes)} must be ascending without repeats")


def check_length(op: GraphOp, values: Sequence[Any], count: int, what: str) -> None:
    """values must have `count` entries."""
    if len(values) != count:
        raise op.fail(f"{what} {list(values)} has {len(values)} entries and {count} are needed")


def check_dims(op: GraphOp, dims: Sequence[Any], what: str) -> None:
    """Every entry must be a non-negative int or an expression."""
    for d in dims:
        if isinstance(d, bool) or not isinstance(d, int | Expr) or (isinstance(d, int) and d < 0):
            raise op.fail(f"{what} {list(dims)} must hold extents, and {d!r} is none")


def static_ints(op: GraphOp, dims: Sequence[Dim]) -> tuple[int, ...]:
    """dims as ints; IRError if one has a symbol."""
    out: list[int] = []
    for d in dims:
        if not isinstance(d, int):
            raise op.fail(f"the extent {d} is not bound; bind it with --shape")
        out.append(d)
    return tuple(out)


def dense(shape: Iterable[Dim], dtype: DType) -> TensorType:
    """A dense tensor type."""
    return TensorType(tuple(shape), dtype)


def to_channels_first(x: Array) -> Array:
    """[n, spatial…, c] → [n, c, spatial…]; for weights [co, k…, ci] → [co, ci, k…]."""
    return np.moveaxis(x, -1, 1)


def to_channels_last(x: Array) -> Array:
    """[n, c, spatial…] → [n, spatial…, c]."""
    return np.moveaxis(x, 1, -1)
