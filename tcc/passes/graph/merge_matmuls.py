# SPDX-License-Identifier: Apache-2.0
"""`merge-matmuls`: products of one tensor with several weights become one product with all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.ir.core import Op, Value, union_loc
from tcc.ir.graph import Add, Constant, Matmul, Slice
from tcc.ir.graph.base import tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType
from tcc.passes.base import Pass, PassContext, register_pass


@dataclass
class _Branch:
    """One product `x · w`, with the bias added to it if that is its only use; `out` is what others use."""

    product: Matmul
    bias: Constant | None
    out: Op


@register_pass
@dataclass(frozen=True)
class MergeMatmuls(Pass):
    """The three projections of attention read one tensor: one wide product reads it once and fills the machine better.

    before: `%q = matmul(%x, %wq) + %bq`, likewise `%k`, `%v`; after: one matmul with [wq | wk | wv], one add, and
    three slices of the result.
    """

    name: ClassVar[str] = "merge-matmuls"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        seen: set[Value] = set()
        for op in list(module.walk()):
            if isinstance(op, Matmul) and op.parent is not None and op.a not in seen:
                seen.add(op.a)
                _merge(op.a, module, rewriter)


def _merge(x: Value, module: ModuleOp, rewriter: Rewriter) -> None:
    branches = [b for user in x.users if (b := _branch(user, x)) is not None]
    if len(branches) < 2:
        return
    first = branches[0]
    if any(b.product.parent is not first.product.parent for b in branches):
        return
    biased = [b for b in branches if b.bias is not None]
    if biased and len(biased) != len(branches):
        rewriter.remark(first.product, "merge", "kept apart", "only some of the products have a bias")
        return
    dtype = tensor_type(x).dtype
    weights = np.concatenate([_array(b.product.b) for b in branches], axis=1)
    anchor = min((b.product for b in branches), key=_place)
    loc = union_loc(*(b.product.loc for b in branches), *(b.out.loc for b in branches))
    w = rewriter.insert_before(
        anchor,
        Constant(value=module.resources.add(weights), result_types=[TensorType(weights.shape, dtype)], loc=loc),
    )
    wide: Op = rewriter.insert_before(anchor, Matmul(x, w.y, loc=loc))
    if biased:
        bias = np.concatenate([_bias(b) for b in branches])
        c = rewriter.insert_before(
            anchor, Constant(value=module.resources.add(bias), result_types=[TensorType(bias.shape, dtype)], loc=loc)
        )
        wide = rewriter.insert_before(anchor, Add(wide.results[0], c.y, loc=loc))
    start = 0
    t = tensor_type(wide.results[0])
    for b in branches:
        width = tensor_type(b.product.b).shape[1]
        assert isinstance(width, int)
        cut = Slice(
            wide.results[0],
            starts=(*[0] * (t.rank - 1), start),
            sizes=(*t.shape[:-1], width),
            steps=(1,) * t.rank,
            loc=b.out.loc,
        )
        rewriter.insert_before(anchor, cut)
        rewriter.replace_value(b.out.results[0], cut.y)
        start += width
    for b in branches:
        rewriter.erase(b.out)
        if b.out is not b.product:
            rewriter.erase(b.product)


def _branch(op: Op, x: Value) -> _Branch | None:
    if not isinstance(op, Matmul) or op.a is not x or not isinstance(op.b.defining_op, Constant):
        return None
    if tensor_type(op.b).rank != 2 or tensor_type(x).rank < 2:
        return None
    if op.y.use_count == 1:
        add = op.y.users[0]
        if isinstance(add, Add):
            other = add.operands[1] if add.operands[0] is op.y else add.operands[0]
            made = other.defining_op
            if isinstance(made, Constant) and tensor_type(other).shape[-1:] == tensor_type(op.y).shape[-1:]:
                shape = tensor_type(other).shape
                if all(d == 1 for d in shape[:-1]):
                    return _Branch(op, made, add)
    return _Branch(op, None, op)


def _array(v: Value) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    made = v.defining_op
    assert isinstance(made, Constant)
    return made.array()


def _bias(b: _Branch) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    assert b.bias is not None
    return b.bias.array().reshape(-1)


def _place(op: Op) -> int:
    """How many ops come before an op in its block."""
    count = 0
    at = op.prev_op
    while at is not None:
        count += 1
        at = at.prev_op
    return count
