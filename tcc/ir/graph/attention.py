# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention."""

from __future__ import annotations

from collections.abc import Sequence

from tcc import reference as _ref
from tcc.ir.declare import BOOLEAN, FLOAT, Attr, Operand, OptionalOperand, Result, register
from tcc.ir.graph.base import (
    Array,
    GraphOp,
    broadcast,
    check_equal_dim,
    dense,
    optional,
    present,
    same_dtype,
    tensor_type,
)
from tcc.ir.types import Type


@register
class Attention(GraphOp):
    """softmax(scale · q kᵀ + mask) v for each batch and head.

    q [b, h, m, d], k [b, h, n, d], v [b, h, n, e] → [b, h, m, e]; k and v may have fewer heads, each serving h/heads
    consecutive query heads. `mask` broadcasts to the scores [b, h, m, n] and is added to them; `causal` hides key j
    from query i where j > i. A row with everything hidden gives 0. ONNX Attention (23), without a cache.
    """

    name = "graph.attention"
    category = "attention"
    q = Operand()
    k = Operand()
    v = Operand()
    mask = OptionalOperand()
    scale = Attr(FLOAT)
    causal = Attr(BOOLEAN, False)
    y = Result()

    def infer(self) -> Sequence[Type]:
        q, k, v = (self.operand_type(i) for i in range(3))
        dtype = same_dtype(self, q, k, v)
        if not q.rank == k.rank == v.rank == 4:
            raise self.fail(f"q, k and v must be [batch, heads, length, depth], not {q}, {k} and {v}")
        check_equal_dim(self, q.shape[0], k.shape[0], "the batches of q and k")
        check_equal_dim(self, q.shape[0], v.shape[0], "the batches of q and v")
        check_equal_dim(self, k.shape[1], v.shape[1], "the heads of k and v")
        check_equal_dim(self, q.shape[3], k.shape[3], "the depths of q and k")
        check_equal_dim(self, k.shape[2], v.shape[2], "the lengths of k and v")
        heads, groups = q.shape[1], k.shape[1]
        if isinstance(heads, int) and isinstance(groups, int) and (groups == 0 or heads % groups):
            raise self.fail(f"{heads} query heads do not share {groups} key heads")
        if self.mask is not None:
            m = tensor_type(self.mask, self)
            same_dtype(self, q, m)
            scores = (*q.shape[:3], k.shape[2])
            if m.rank > 4 or broadcast(self, (scores, m.shape)) != scores:
                raise self.fail(f"the mask {m} does not broadcast to the scores")
        return (dense((*q.shape[:3], v.shape[3]), dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        q, k, v = (present(a) for a in arrays[:3])
        mask = optional(arrays, 3)
        return (_ref.attention(q, k, v, mask, scale=self.scale, is_causal=int(self.causal))[0],)
