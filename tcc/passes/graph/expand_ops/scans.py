# SPDX-License-Identifier: Apache-2.0
"""Positions of extremes as two reductions."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.graph import ArgReduce
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import I8, I32, I64, U8
from tcc.passes.graph.expand_ops.table import Before, expands


@expands("arg_reduce")
def expand_arg_reduce(op: ArgReduce, rewriter: Rewriter) -> None:
    """The extreme, then the least (or greatest) place that holds it; a NaN is the extreme, and equals itself here."""
    t = tensor_type(op.x)
    extent = t.shape[op.axis]
    b = Before(op, rewriter)
    x = b.cast(op.x, I8 if t.dtype.kind == "int" else U8) if t.dtype.bits < 8 else op.x
    best = b(graph.Reduce, x, kind=op.kind, axes=(op.axis,), keepdims=True)
    hit = b(graph.Equal, x, best)
    if t.dtype.is_float:
        hit = b(graph.Or, hit, b(graph.IsNan, x))
    if isinstance(extent, int):
        places = b.along(np.arange(extent), op.axis, t.rank, I32)
        none = b.constant(-1 if op.last else extent, I32)
    else:
        ones = b(graph.Expand, b.constant(1, I64), shape=(extent, *(1,) * (t.rank - 1 - op.axis)))
        places = b(graph.Cumsum, ones, axis=0, exclusive=True)
        none = b.constant(-1 if op.last else 1 << 62, I64)
    where = b(graph.Where, hit, places, none)
    kind = "max" if op.last else "min"
    found = b(graph.Reduce, where, kind=kind, axes=(op.axis,), keepdims=op.keepdims)
    b.done(b.cast(found, I64))
