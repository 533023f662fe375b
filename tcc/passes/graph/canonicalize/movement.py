# SPDX-License-Identifier: Apache-2.0
"""Transposes, reshapes, expansions and casts of places that do nothing, or that one op does."""

from __future__ import annotations

from typing import Any

from tcc.ir import graph
from tcc.ir.core import Value, union_loc
from tcc.ir.graph import Expand, Reduce, Reshape, Tile, Transpose
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.canonicalize.table import canonical
from tcc.passes.graph.common import insert, producer, shape_of


@canonical("transpose")
def compose_transposes(op: Transpose, rewriter: Rewriter) -> bool:
    """The identity; a transpose of a transpose; one that moves only dims of 1, which is a reshape."""
    if op.perm == tuple(range(len(op.perm))):
        rewriter.replace(op, op.x)
        return True
    inner = producer(op.x, Transpose)
    if inner is not None:
        rewriter.replace(op, Transpose(inner.x, perm=tuple(inner.perm[p] for p in op.perm), loc=inner.loc))
        return True
    shape = shape_of(op.x)
    real = [p for p in op.perm if shape[p] != 1]
    if real == sorted(real):
        rewriter.replace(op, Reshape(op.x, shape=shape_of(op.y)))
        return True
    return False


@canonical("transpose")
def transpose_of_reshape(op: Transpose, rewriter: Rewriter) -> bool:
    """A transpose of a reshape that only adds dims of 1, where leaving those aside the reshape can follow instead; and
    so a transpose that a reshape only gives dims of 1 meets the transposes before it."""
    inner = producer(op.x, Reshape)
    if inner is None or op.x.use_count != 1 or producer(inner.x, Transpose) is None:
        return False
    before = shape_of(inner.x)
    shape = shape_of(op.x)
    real = [i for i, d in enumerate(shape) if d != 1]
    places = [i for i, d in enumerate(before) if d != 1]
    if [shape[i] for i in real] != [before[i] for i in places]:
        return False
    place = dict(zip(real, places, strict=True))
    order = [place[p] for p in op.perm if p in place]
    rest = [i for i in range(len(before)) if i not in places]
    moved = insert(rewriter, op, Transpose(inner.x, perm=(*rest, *order)))
    rewriter.replace(op, Reshape(moved.y, shape=shape_of(op.y), loc=inner.loc))
    return True


@canonical("reshape")
def merge_reshapes(op: Reshape, rewriter: Rewriter) -> bool:
    if tensor_type(op.x).shape == op.shape:
        rewriter.replace(op, op.x)
        return True
    inner = producer(op.x, Reshape)
    if inner is not None:
        rewriter.replace(op, Reshape(inner.x, shape=op.shape, loc=inner.loc))
        return True
    return False


@canonical("expand")
def merge_expands(op: Expand, rewriter: Rewriter) -> bool:
    if tensor_type(op.x).shape == op.shape:
        rewriter.replace(op, op.x)
        return True
    inner = producer(op.x, Expand)
    if inner is not None:
        rewriter.replace(op, Expand(inner.x, shape=op.shape, loc=inner.loc))
        return True
    return False


@canonical("tile")
def tile_as_expand(op: Tile, rewriter: Rewriter) -> bool:
    """Repeats of 1 do nothing; repeats of dims of 1 are an expansion."""
    if all(r == 1 for r in op.repeats):
        rewriter.replace(op, op.x)
        return True
    if all(r == 1 or d == 1 for r, d in zip(op.repeats, shape_of(op.x), strict=True)):
        rewriter.replace(op, Expand(op.x, shape=shape_of(op.y)))
        return True
    return False


@canonical("reduce")
def reduce_nothing(op: Reduce, rewriter: Rewriter) -> bool:
    """Reductions over no axis, or over dims of 1, are reshapes at most."""
    shape = shape_of(op.x)
    live = tuple(a for a in op.axes if shape[a] != 1)
    if not live:
        rewriter.replace(op, _reshaped(rewriter, op, op.x, shape_of(op.y)))
        return True
    return False


def _reshaped(rewriter: Rewriter, before: Any, x: Value, shape: tuple[Any, ...]) -> Value:
    return x if shape_of(x) == shape else insert(rewriter, before, Reshape(x, shape=shape)).y


@canonical("resize_nearest", "resize")
def resize_nothing(op: Any, rewriter: Rewriter) -> bool:
    """To the same extents at the plain ratio, without a region of interest."""
    if op.x.type != op.y.type or op.coordinate_mode == "tf_crop_and_resize" or op.attrs["scales"] is not None:
        return False
    if not tensor_type(op.x).is_static or op.policy != "stretch":
        return False
    if isinstance(op, graph.Resize) and op.exclude_outside:
        return False
    rewriter.replace(op, op.x)
    return True


@canonical("reduce")
def reduce_of_transpose(op: Reduce, rewriter: Rewriter) -> bool:
    """A reduction that drops dims, of a transpose that keeps the others in order."""
    inner = producer(op.x, Transpose)
    if inner is None or op.keepdims:
        return False
    kept = [p for i, p in enumerate(inner.perm) if i not in op.axes and shape_of(op.x)[i] != 1]
    if kept != sorted(kept):
        return False
    axes = tuple(sorted(inner.perm[a] for a in op.axes))
    made = Reduce(inner.x, kind=op.kind, axes=axes, keepdims=False, loc=inner.loc)
    if made.y.type == op.y.type:
        rewriter.replace(op, made)
    else:
        made = insert(rewriter, op, made, union_loc(inner.loc, op.loc))
        rewriter.replace(op, Reshape(made.y, shape=shape_of(op.y)))
    return True
