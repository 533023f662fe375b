# SPDX-License-Identifier: Apache-2.0
"""Positions of extremes as two reductions, and short running sums and products as reductions over a triangle."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph import ArgReduce, Cumprod, Cumsum
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import I32, I64
from tcc.passes.graph.expand_ops.table import Before, expands

LONGEST_SCAN = 1024
"""Running sums over longer axes stay on the host: as reductions they cost the square of the extent."""


@expands("arg_reduce")
def expand_arg_reduce(op: ArgReduce, rewriter: Rewriter) -> None:
    """The extreme, then the least (or greatest) place that holds it; a NaN is the extreme, and equals itself here."""
    t = tensor_type(op.x)
    extent = t.shape[op.axis]
    if not isinstance(extent, int) or t.dtype.bits == 4:
        rewriter.remark(op, "expand", "kept", f"its axis of extent {extent} is not known, or packed")
        return
    b = Before(op, rewriter)
    best = b(graph.Reduce, op.x, kind=op.kind, axes=(op.axis,), keepdims=True)
    hit = b(graph.Equal, op.x, best)
    if t.dtype.is_float:
        hit = b(graph.Or, hit, b(graph.IsNan, op.x))
    places = b.along(np.arange(extent), op.axis, t.rank, I32)
    none = b.constant(-1 if op.last else extent, I32)
    where = b(graph.Where, hit, places, none)
    kind = "max" if op.last else "min"
    found = b(graph.Reduce, where, kind=kind, axes=(op.axis,), keepdims=op.keepdims)
    b.done(b(graph.Cast, found, to=I64))


@expands("cumsum", "cumprod")
def expand_cumulative(op: Cumsum | Cumprod, rewriter: Rewriter) -> None:
    t = tensor_type(op.x)
    extent = t.shape[op.axis]
    if not isinstance(extent, int) or extent > LONGEST_SCAN:
        rewriter.remark(op, "expand", "host", f"a running total over {extent} elements is done on the host")
        return
    b = Before(op, rewriter)
    i, j = np.arange(extent)[:, None], np.arange(extent)[None, :]
    keep = (j >= i if op.reverse else j <= i) & ((i != j) if op.exclusive else True)
    rank = t.rank + 1
    rows: Value = b.reshape(op.x, (*t.shape[: op.axis], 1, *t.shape[op.axis :]))
    mask = b.constant(keep.reshape(*[1] * op.axis, extent, extent, *[1] * (rank - op.axis - 2)))
    total = isinstance(op, Cumsum)
    part = b(graph.Where, mask, rows, b.constant(0 if total else 1, t.dtype))
    b.done(b(graph.Reduce, part, kind="sum" if total else "prod", axes=(op.axis + 1,), keepdims=False))
