# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention, spelled out (Vaswani et al., 2017, §3.2.1)."""

from __future__ import annotations

from tcc.ir.core import Op, Value, union_loc
from tcc.ir.graph import Attention, Matmul, Reshape, Softmax, Transpose
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.raise_patterns.match import made_by, once, scalar, sides, with_scalar


def raise_attention(op: Op, rewriter: Rewriter) -> bool:
    """softmax(scale · q kᵀ + mask) v, with the scale on the scores, on q, on k, or on several of them."""
    assert isinstance(op, Matmul)
    softmax = op.a.defining_op
    if not isinstance(softmax, Softmax):
        return False
    t = tensor_type(softmax.x)
    if softmax.axis != t.rank - 1:
        return _decline(rewriter, op, "its softmax is not over the last dim")
    if t.rank not in (3, 4) or tensor_type(op.b).rank != t.rank:
        return _decline(rewriter, op, f"its scores are of rank {t.rank}, not 3 or 4")
    if not once(softmax.y):
        return _decline(rewriter, op, f"the softmax has {softmax.y.use_count} users")
    value, loc = softmax.x, softmax.loc
    mask: Value | None = None
    scale = 1.0
    peeled = _mask(value)
    if peeled is not None:
        value, mask, made = peeled
        loc = union_loc(made.loc, loc)
    while once(value) and (step := _scaled(value)) is not None:
        value, factor = step
        scale *= factor
    scores = value.defining_op
    if not isinstance(scores, Matmul) or not once(value):
        return _decline(rewriter, op, "its scores are no product of two tensors alone")
    q, k = scores.a, scores.b
    while (step := _scaled(q)) is not None:
        q, scale = step[0], scale * step[1]
    while (step := _scaled(k)) is not None:
        k, scale = step[0], scale * step[1]
    shapes = [tensor_type(v).shape for v in (q, k, op.b)]
    if any(len(s) != t.rank or s[:-2] != t.shape[:-2] for s in shapes):
        return _decline(rewriter, op, "q, k and v have not one batch shape")
    if mask is not None and tensor_type(mask).rank > t.rank:
        return _decline(rewriter, op, "the mask has more dims than the scores")
    turned = rewriter.insert_before(op, Transpose(k, perm=(*range(t.rank - 2), t.rank - 1, t.rank - 2), loc=scores.loc))
    parts = [q, turned.y, op.b]
    if t.rank == 3:
        parts = [_four(rewriter, op, v) for v in parts]
        if mask is not None and tensor_type(mask).rank == 3:
            mask = _four(rewriter, op, mask)
    made = Attention(*parts, mask, scale=scale, loc=union_loc(scores.loc, loc))
    if t.rank == 3:
        rewriter.insert_before(op, made)
        made.loc = union_loc(made.loc, op.loc)
        rewriter.replace(op, Reshape(made.y, shape=tensor_type(op.y).shape))
    else:
        rewriter.replace(op, made)
    return True


def _mask(v: Value) -> tuple[Value, Value, Op] | None:
    """(scores, mask, the add) where v is scores plus something that broadcasts to them."""
    op = made_by(v, "graph.add")
    if op is None or not once(v):
        return None
    for scores, mask in sides(op):
        inner = scores
        while (step := _scaled(inner)) is not None:
            inner = step[0]
        if isinstance(inner.defining_op, Matmul) and tensor_type(scores).shape == tensor_type(v).shape:
            return scores, mask, op
    return None


def _scaled(v: Value) -> tuple[Value, float] | None:
    """(x, factor) where v is x times or by a number."""
    found = with_scalar(v, "graph.mul")
    if found is not None:
        return found
    op = made_by(v, "graph.div")
    if op is None:
        return None
    divisor = scalar(op.operands[1])
    if divisor is None or divisor == 0 or tensor_type(op.operands[0]).shape != tensor_type(v).shape:
        return None
    return op.operands[0], 1.0 / divisor


def _four(rewriter: Rewriter, before: Op, v: Value) -> Value:
    """A batch of matrices as [batch, 1, rows, columns]."""
    b, m, n = tensor_type(v).shape
    return rewriter.insert_before(before, Reshape(v, shape=(b, 1, m, n))).y


def _decline(rewriter: Rewriter, op: Op, reason: str) -> bool:
    rewriter.remark(op, "raise", "not attention", reason)
    return False
