# SPDX-License-Identifier: Apache-2.0
"""Which ops can work on channels-last tensors, and how each does: its twin on permuted operands.

A tensor of rank r lies *permuted* when its dims are in the order `to_last(r)`. An op that can work on permuted tensors
has a twin: an op on its operands permuted that gives its result permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim
from tcc.ir.graph import (
    Concat,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Tile,
    Transpose,
)
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.graph.pointwise import Pointwise
from tcc.ir.types import TensorType

Twin = Callable[[Any, Sequence[Value]], GraphOp]
"""(op, its tensor operands permuted, in order) → a detached op."""


def to_last(rank: int) -> tuple[int, ...]:
    """The order of dims that moves dim 1 to the end."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def to_first(rank: int) -> tuple[int, ...]:
    """The inverse of `to_last`."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


def axis_last(axis: int, rank: int) -> int:
    """Where dim `axis` is after `to_last`."""
    return to_last(rank).index(axis)


def permuted(values: Sequence[Any], rank: int) -> tuple[Any, ...]:
    """Values one a dim, in the order of a permuted tensor."""
    return tuple(values[p] for p in to_last(rank))


def rank_of(op: Op) -> int:
    return tensor_type(op.results[0]).rank


def shape_last(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    return permuted(shape, len(shape))


def is_source(op: Op) -> bool:
    """Whether an op is always channels-last."""
    return isinstance(op, Conv | ConvTranspose) and op.dims == "nchw"


def _dims(op: GraphOp, operands: Sequence[Value]) -> GraphOp:
    """Pools, norms, convolutions: `dims` says it. Parameters are no permuted operands."""
    rest = op.operands[1:]
    groups: list[Any] = [operands[0]]
    at = 0
    for f, count in zip(op.spec.operands[1:], op.segments[1:], strict=True):
        groups.append(None if count == 0 else rest[at])
        at += count
        assert count <= 1, f.attr_name
    return _like(op, *groups, dims="nhwc")


def _like(op: GraphOp, *groups: Any, **attrs: Any) -> GraphOp:
    made = type(op)(*groups, loc=op.loc, **{**op.attrs, **attrs})
    assert isinstance(made, GraphOp)
    return made


def _pointwise(op: GraphOp, operands: Sequence[Value]) -> GraphOp:
    return _like(op, *operands)


def _reduce(op: Reduce, operands: Sequence[Value]) -> GraphOp:
    rank = tensor_type(op.x).rank
    return _like(op, operands[0], axes=tuple(sorted(axis_last(a, rank) for a in op.axes)))


def _slice(op: Slice, operands: Sequence[Value]) -> GraphOp:
    r = rank_of(op)
    return _like(
        op, operands[0], starts=permuted(op.starts, r), sizes=permuted(op.sizes, r), steps=permuted(op.steps, r)
    )


def _pad(op: Pad, operands: Sequence[Value]) -> GraphOp:
    r = rank_of(op)
    return _like(op, operands[0], op.fill, before=permuted(op.before, r), after=permuted(op.after, r))


def _axis(op: Any, operands: Sequence[Value]) -> GraphOp:
    return _like(op, operands[0], axis=axis_last(op.axis, rank_of(op)))


_TWINS: dict[type[Op], Twin] = {
    graph.MaxPool: _dims,
    graph.AveragePool: _dims,
    graph.Lrn: _dims,
    graph.GroupNorm: _dims,
    graph.BatchNorm: _dims,
    Reduce: _reduce,
    Slice: _slice,
    Pad: _pad,
    graph.Softmax: _axis,
    graph.LogSoftmax: _axis,
    Concat: lambda op, xs: _like(op, list(xs), axis=axis_last(op.axis, rank_of(op))),
    Tile: lambda op, xs: _like(op, xs[0], repeats=permuted(op.repeats, rank_of(op))),
    Expand: lambda op, xs: _like(op, xs[0], shape=shape_last(op.shape)),
    Reshape: lambda op, xs: _like(op, xs[0], shape=shape_last(op.shape)),
    Gather: lambda op, xs: _like(op, xs[0], op.indices, axis=axis_last(op.axis, rank_of(op))),
}


def twin_of(op: Op) -> Twin | None:
    """How an op is done on permuted tensors; None if it cannot be, or is channels-last as it is."""
    if not isinstance(op, GraphOp) or len(op.results) != 1 or op.attrs.get("dims") == "nhwc":
        return None
    if not all(isinstance(v.type, TensorType) for v in (*op.operands, *op.results)):
        return None
    if isinstance(op, Pointwise):
        return _pointwise
    if isinstance(op, Reshape):
        return _TWINS[Reshape] if keeps_channels(op) else None
    if isinstance(op, Reduce) and not op.keepdims:
        # Without a channel left the order is that of the plain result; without the batch it is neither.
        return _reduce if 0 not in op.axes and 1 not in op.axes else None
    if isinstance(op, Gather):
        return _TWINS[Gather] if tensor_type(op.indices).rank == 1 else None
    return _TWINS.get(type(op))


def keeps_channels(op: Reshape) -> bool:
    """Whether a reshape leaves n and c alone: [n, c, spatial…] → [n, c, other spatial…]."""
    before, after = tensor_type(op.x).shape, op.shape
    return len(before) >= 2 and len(after) >= 2 and before[:2] == tuple(after[:2])


def permuted_operands(op: GraphOp) -> tuple[Value, ...]:
    """The operands that a twin takes permuted."""
    if isinstance(op, Pointwise | Concat):
        return op.operands
    return op.operands[:1]


def shuffle_of(op: Op) -> tuple[Reshape, Transpose] | None:
    """The first two ops of a channel shuffle that `op` ends: the channels are split, the parts exchanged, and joined
    again. None if it ends none, or something else uses what lies between."""
    if not isinstance(op, Reshape):
        return None
    moved = op.x.defining_op
    if not isinstance(moved, Transpose) or op.x.use_count != 1:
        return None
    split = moved.x.defining_op
    if not isinstance(split, Reshape) or moved.x.use_count != 1:
        return None
    before, parts = tensor_type(split.x).shape, tuple(split.shape)
    k = len(parts) - len(before) + 1
    if len(before) < 3 or k < 2 or parts[0] != before[0] or parts[1 + k :] != before[2:]:
        return None
    inner = moved.perm[1 : 1 + k]
    rest = (*range(1 + k, len(parts)),)
    if moved.perm[0] != 0 or sorted(inner) != list(range(1, 1 + k)) or moved.perm[1 + k :] != rest:
        return None
    return (split, moved) if tuple(op.shape) == before else None
