# SPDX-License-Identifier: Apache-2.0
"""Dims that are numbers, pads that repeat or crop, and gathers at constant negative places."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import Dims, Gather, Pad
from tcc.ir.graph.base import Array, static_ints, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import I64
from tcc.passes.graph.common import content
from tcc.passes.graph.expand_ops.table import Before, expands


@expands("dims")
def expand_dims(op: Dims, rewriter: Rewriter) -> None:
    if all(isinstance(v, int) for v in op.values):
        b = Before(op, rewriter)
        b.done(b.constant(np.array(op.values, np.int64)))


def repeated(n: int, before: int, after: int, mode: str) -> Array:
    """The source positions of an axis of extent n padded at both ends."""
    at = np.arange(-before, n + after)
    if mode == "edge":
        return np.clip(at, 0, n - 1)
    if mode == "wrap":
        return at % n
    period = max(2 * (n - 1), 1)
    at = at % period
    return np.where(at < n, at, period - at)


@expands("pad")
def expand_pad(op: Pad, rewriter: Rewriter) -> None:
    """Cropping comes first, then growth, by a value or axis by axis from what is there."""
    grows = op.mode == "constant" and min((*op.before, *op.after), default=0) >= 0
    if grows:
        return
    b = Before(op, rewriter)
    x: Value = op.x
    t = tensor_type(x)
    cut = [max(-n, 0) for n in op.before]
    sizes = [d - c - max(-n, 0) for d, c, n in zip(t.shape, cut, op.after, strict=True)]
    if tuple(sizes) != t.shape:
        x = b(graph.Slice, x, starts=tuple(cut), sizes=tuple(sizes), steps=(1,) * t.rank)
    before, after = ([max(n, 0) for n in side] for side in (op.before, op.after))
    if op.mode == "constant":
        b.done(b(graph.Pad, x, op.fill, before=before, after=after, value=op.value) if any((*before, *after)) else x)
        return
    for axis, (n, m) in enumerate(zip(before, after, strict=True)):
        if n or m:
            (extent,) = static_ints(op, (sizes[axis],))
            x = b(graph.Gather, x, b.constant(repeated(extent, n, m, op.mode), I64), axis=axis)
    b.done(x)


@expands("gather")
def expand_gather(op: Gather, rewriter: Rewriter) -> None:
    """Constant places count from the start."""
    places, extent = content(op.indices), tensor_type(op.x).shape[op.axis]
    if places is not None and isinstance(extent, int) and places.size and int(places.min()) < 0:
        b = Before(op, rewriter)
        wrapped = np.where(places < 0, places.astype(np.int64) + extent, places.astype(np.int64))
        b.done(b(graph.Gather, op.x, b.constant(wrapped, I64), axis=op.axis))
