# SPDX-License-Identifier: Apache-2.0
"""A product with one-hot rows as a lookup."""

from __future__ import annotations

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.graph import Cast, Equal, Gather, Matmul, Reshape
from tcc.ir.graph.base import Array, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.common import content, insert, number_like, producer


def raise_lookup(op: Op, rewriter: Rewriter) -> None:
    """cast(x == [0, 1, …, n - 1]) · table, with x [..., 1], is the row of the table that x names, or zeros where x
    names none. Exact: all other terms are 0, if the table is finite."""
    if not isinstance(op, Matmul):
        return
    cast = producer(op.a, Cast)
    equal = None if cast is None else producer(cast.x, Equal)
    table = content(op.b)
    if equal is None or table is None or table.ndim != 2 or not tensor_type(op.a).dtype.is_float:
        return
    names = content(equal.b)
    x = equal.a
    if names is None:
        names, x = content(equal.a), equal.b
    if names is None or not _counts(names, table.shape[0]) or tensor_type(x).shape[-1:] != (1,):
        return
    t = tensor_type(x)
    if not t.dtype.is_int or tensor_type(equal.y).shape != (*t.shape[:-1], table.shape[0]):
        return
    if not np.isfinite(np.asarray(table, np.float64)).all():
        rewriter.remark(op, "raise", "not made a lookup", "its table is not finite")
        return
    n = table.shape[0]
    flat = insert(rewriter, op, Reshape(x, shape=t.shape[:-1])).y
    inside = insert(rewriter, op, graph.Clip(flat, lo=0, hi=n - 1)).y
    row: Value = insert(rewriter, op, Gather(op.b, inside, axis=0)).y
    known = insert(rewriter, op, Equal(x, insert(rewriter, op, graph.Clip(x, lo=0, hi=n - 1)).y)).y
    zero = number_like(rewriter, op, 0.0, tensor_type(op.b).dtype, op.loc)
    rewriter.remark(op, "raise", "gather", f"its left operand is one of {n} unit vectors")
    rewriter.replace(op, graph.Where(known, row, zero))


def _counts(names: Array, n: int) -> bool:
    """Whether a constant is 0, 1, …, n - 1 along its last dim."""
    return names.size == n and names.shape[-1:] == (n,) and bool(np.array_equal(names.reshape(-1), np.arange(n)))
