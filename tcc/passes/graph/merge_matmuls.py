# SPDX-License-Identifier: Apache-2.0
"""`merge-matmuls`: products of one tensor with several weights as one product with the weights side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value, union_loc
from tcc.ir.graph import Matmul, Reshape, Slice, Transpose
from tcc.ir.graph.base import Array, tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, constant, content, functions, insert

READERS = ("graph.attention", "graph.matmul")
"""Ops that read a part of a tensor where it lies."""


@register_pass
@dataclass(frozen=True)
class MergeMatmuls(Pass):
    """Makes the products of one tensor with constant weights that attention or products read, one product.

    before: `%q = graph.matmul(%x, %wq)`, `%k = graph.matmul(%x, %wk)`, `%v = graph.matmul(%x, %wv)`, each with its bias
    and on its way to attention; after: `%y = graph.matmul(%x, %wqkv)`, a bias, and three `graph.slice`s, read in
    place. Products whose results go elsewhere stay, with a remark: their slices would be copies.
    """

    name: ClassVar[str] = "merge-matmuls"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            for block in list(blocks(function)):
                by_input: dict[Value, list[_Product]] = {}
                for op in list(block.ops):
                    if isinstance(op, Matmul):
                        w = content(op.b)
                        if w is not None and w.ndim == 2 and content(op.a) is None and tensor_type(op.a).rank > 1:
                            by_input.setdefault(op.a, []).append(_Product(op, w))
                for products in by_input.values():
                    _merge(products, rewriter)


class _Product:
    """A product with its weights, and the bias that is added to it, if one is."""

    def __init__(self, op: Matmul, weights: Array) -> None:
        self.op = op
        self.weights = weights
        self.out: Value = op.y
        self.bias: Array | None = None
        user = op.y.uses[0][0] if op.y.use_count == 1 else None
        if isinstance(user, graph.Add) and user.y.type == op.y.type:
            b = content(user.b)
            if b is not None and b.size == weights.shape[1] and b.shape[-1:] == (weights.shape[1],):
                self.out, self.bias = user.y, b.reshape(-1)

    @property
    def last(self) -> Op:
        op = self.out.owner
        assert isinstance(op, Op)
        return op

    def read_in_place(self) -> bool:
        """Whether all that use the result are attention or products, through transposes and reshapes."""
        work = list(self.out.users)
        for user in work:
            if isinstance(user, Reshape | Transpose | Slice):
                work += user.results[0].users
            elif user.name not in READERS:
                return False
        return bool(work)


def _merge(products: list[_Product], rewriter: Rewriter) -> None:
    if len(products) < 2:
        return
    fit = [p for p in products if p.read_in_place()]
    for p in products:
        if p not in fit:
            rewriter.remark(p.op, "merge", "kept apart", "its result goes to an op that would copy its part")
    if len(fit) < 2 or len({p.weights.dtype for p in fit}) != 1:
        return
    first = fit[0].op
    loc = union_loc(*(p.op.loc for p in fit), *(p.last.loc for p in fit))
    w = constant(rewriter, first, np.concatenate([p.weights for p in fit], 1))
    y = insert(rewriter, first, Matmul(first.a, w), loc).y
    if any(p.bias is not None for p in fit):
        parts = [np.zeros(p.weights.shape[1], p.weights.dtype) if p.bias is None else p.bias for p in fit]
        y = insert(rewriter, first, graph.Add(y, constant(rewriter, first, np.concatenate(parts))), loc).y
    t = tensor_type(y)
    at = 0
    for p in fit:
        n = p.weights.shape[1]
        part = Slice(
            y, starts=(*(0,) * (t.rank - 1), at), sizes=(*t.shape[:-1], n), steps=(1,) * t.rank, loc=p.last.loc
        )
        insert(rewriter, first, part, p.last.loc)
        rewriter.replace_value(p.out, part.y)
        at += n
    for p in fit:
        if p.last is not p.op:
            rewriter.erase(p.last)
        rewriter.erase(p.op)
