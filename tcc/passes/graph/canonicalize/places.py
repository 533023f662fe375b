# SPDX-License-Identifier: Apache-2.0
"""Slices, gathers at known places, concats and pads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tcc.ir.core import Value
from tcc.ir.graph import Concat, Gather, Pad, Reshape, Slice
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.canonicalize.table import canonical
from tcc.passes.graph.common import content, insert, producer, shape_of


@canonical("slice")
def merge_slices(op: Slice, rewriter: Rewriter) -> bool:
    if shape_of(op.x) == shape_of(op.y) and all(s == 1 for s in op.steps):
        rewriter.replace(op, op.x)
        return True
    inner = producer(op.x, Slice)
    if inner is None:
        return False
    starts = tuple(a + s * b for a, s, b in zip(inner.starts, inner.steps, op.starts, strict=True))
    steps = tuple(s * t for s, t in zip(inner.steps, op.steps, strict=True))
    rewriter.replace(op, Slice(inner.x, starts=starts, sizes=op.sizes, steps=steps, loc=inner.loc))
    return True


@canonical("slice")
def slice_of_concat(op: Slice, rewriter: Rewriter) -> bool:
    """A slice that lies in one part of a concat is a slice of that part."""
    inner = producer(op.x, Concat)
    if inner is None:
        return False
    axis = inner.axis
    start, size = op.starts[axis], op.sizes[axis]
    if not isinstance(start, int) or not isinstance(size, int) or size == 0:
        return False
    ends = sorted((start, start + (size - 1) * op.steps[axis]))
    at = 0
    for part in inner.operands:
        extent = shape_of(part)[axis]
        if not isinstance(extent, int):
            return False
        if at <= ends[0] and ends[1] < at + extent:
            starts = tuple(s - at if i == axis else s for i, s in enumerate(op.starts))
            rewriter.replace(op, Slice(part, starts=starts, sizes=op.sizes, steps=op.steps))
            return True
        at += extent
    return False


@canonical("concat")
def flatten_concat(op: Concat, rewriter: Rewriter) -> bool:
    """Of one part; of empty parts; of concats along the same axis; of neighbouring slices of one tensor."""
    if len(op.operands) == 1:
        rewriter.replace(op, op.operands[0])
        return True
    parts: list[Value] = []
    for v in op.operands:
        inner = producer(v, Concat)
        if inner is not None and inner.axis == op.axis and v.use_count == 1:
            parts += inner.operands
        elif shape_of(v)[op.axis] != 0:
            parts.append(v)
    if parts and tuple(parts) != op.operands:
        rewriter.replace(op, Concat(parts, axis=op.axis))
        return True
    whole = _whole(op)
    if whole is not None:
        rewriter.replace(op, whole)
        return True
    return False


def _whole(op: Concat) -> Slice | None:
    """The slice that the parts, neighbouring slices of one tensor, make up."""
    slices = [producer(v, Slice) for v in op.operands]
    first = slices[0]
    if first is None:
        return None
    at, total = first.starts[op.axis], 0
    for s in slices:
        if s is None or s.x is not first.x or any(t != 1 for t in s.steps) or s.starts[op.axis] != at + total:
            return None
        if any(s.starts[i] != first.starts[i] for i in range(len(s.starts)) if i != op.axis):
            return None
        total += s.sizes[op.axis]
    sizes = tuple(total if i == op.axis else d for i, d in enumerate(first.sizes))
    return Slice(first.x, starts=first.starts, sizes=sizes, steps=first.steps)


@canonical("gather")
def gather_as_slice(op: Gather, rewriter: Rewriter) -> bool:
    """At one known place, or at places in even steps."""
    places, t = content(op.indices), tensor_type(op.x)
    extent = t.shape[op.axis]
    if places is None or places.ndim > 1 or places.size == 0 or not isinstance(extent, int):
        return False
    at = [int(i) + extent if i < 0 else int(i) for i in places.reshape(-1)]
    steps = {b - a for a, b in pairwise(at)} or {1}
    if len(steps) != 1 or 0 in steps or not 0 <= min(at) <= max(at) < extent:
        return False
    (step,) = steps
    rank = range(t.rank)
    taken = Slice(
        op.x,
        starts=tuple(at[0] if i == op.axis else 0 for i in rank),
        sizes=tuple(len(at) if i == op.axis else d for i, d in enumerate(t.shape)),
        steps=tuple(step if i == op.axis else 1 for i in rank),
    )
    if places.ndim == 1:
        rewriter.replace(op, taken)
    else:
        rewriter.replace(op, Reshape(insert(rewriter, op, taken).y, shape=shape_of(op.y)))
    return True


@canonical("pad")
def merge_pads(op: Pad, rewriter: Rewriter) -> bool:
    if not any((*op.before, *op.after)):
        rewriter.replace(op, op.x)
        return True
    if op.fill is not None:
        fill = content(op.fill)
        if fill is not None and op.mode == "constant" and tensor_type(op.x).dtype.kind in ("float", "int", "uint"):
            value = np.asarray(fill).reshape(()).item() if fill.dtype.kind in "iuf" else float(fill.reshape(()))
            rewriter.replace(op, Pad(op.x, None, before=op.before, after=op.after, mode=op.mode, value=value))
            return True
        return False
    inner = producer(op.x, Pad)
    if inner is None or inner.fill is not None or op.mode != "constant" or inner.mode != "constant":
        return False
    if min((*op.before, *op.after, *inner.before, *inner.after)) < 0 or repr(op.value) != repr(inner.value):
        return False
    before = tuple(a + b for a, b in zip(op.before, inner.before, strict=True))
    after = tuple(a + b for a, b in zip(op.after, inner.after, strict=True))
    rewriter.replace(op, Pad(inner.x, None, before=before, after=after, value=op.value, loc=inner.loc))
    return True
