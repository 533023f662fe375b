# SPDX-License-Identifier: Apache-2.0
"""Positions of extremes as two reductions."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.graph import ArgReduce
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import I32, I64
from tcc.passes.graph.expand_ops.table import Before, expands


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
