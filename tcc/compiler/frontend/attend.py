# SPDX-License-Identifier: Apache-2.0
"""Attention as com.microsoft operators mean it: masks of every form as numbers to add, then one graph.attention.

Where an operator caps its scores, adds a sink to the softmax or gives the scores away, they are computed by
products and a softmax instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from tcc.compiler.frontend.contrib import cut, known_dim, need_rank, positions
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.movement import expand_to
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, floordiv
from tcc.ir.types import F32, F64, I32, I64


@dataclass(frozen=True)
class Scores:
    """What happens to q kᵀ: score = cap(scale · q kᵀ) + Σ masks, then a softmax, to whose sum e^sink is added.

    `masks` broadcast to [b, h, s, t]; `past`, if it is not None, hides key j from query i where j > i + past. `cap`
    is 0 for none; `sink` is [h], or None.
    """

    scale: float
    masks: Sequence[Value] = ()
    past: Dim | None = None
    cap: float = 0.0
    sink: Value | None = None

    @property
    def plain(self) -> bool:
        return self.cap == 0.0 and self.sink is None


def scale_of(n: Node, depth: Dim) -> float:
    """The attribute scale; 1 / √depth where it is absent or 0."""
    return n.attr("scale", 0.0) or 1.0 / sqrt(max(1, known_dim(depth, "the depth of its heads")))


def attend(n: Node, q: Value, k: Value, v: Value, how: Scores) -> Value:
    """q [b, h, s, d], k [b, g, t, d], v [b, g, t, e] → [b, h, s, e]."""
    if not how.plain:
        return _weigh(n, weights(n, scores(n, q, k, how), how), v)
    masks = list(how.masks)
    if how.past is not None and how.past != 0:
        masks.append(causal_mask(n, q, k, how.past))
    total = sum_of(n, masks)
    if total is not None:
        total = n.cast(total, n.dtype(q))
    return n.op(graph.Attention, q, k, v, total, scale=how.scale, causal=how.past == 0)


def sum_of(n: Node, values: Sequence[Value]) -> Value | None:
    out: Value | None = None
    for v in values:
        out = v if out is None else n.op(graph.Add, out, v)
    return out


def causal_mask(n: Node, q: Value, k: Value, past: Dim) -> Value:
    """[s, t]: -∞ where j > i + past."""
    rows, columns = n.shape(q)[2], n.shape(k)[2]
    last = positions(n, rows)
    if past != 0:
        last = n.op(graph.Add, last, extent_value(n, past))
    seen = n.op(graph.LessEqual, n.reshape(positions(n, columns), (1, columns)), n.reshape(last, (rows, 1)))
    return hidden(n, seen, q, -inf)


def extent_value(n: Node, extent: Dim) -> Value:
    """An extent as a 0-D i64."""
    return n.constant(extent, I64) if isinstance(extent, int) else n.reshape(n.op(graph.Dims, values=(extent,)), ())


def hidden(n: Node, seen: Value, like: Value, value: float) -> Value:
    """0 where seen, `value` elsewhere, in the type of `like`."""
    return n.op(graph.Where, seen, n.like(0.0, like), n.like(value, like))


def scores(n: Node, q: Value, k: Value, how: Scores, masked: bool = True) -> Value:
    """[b, h, s, t] in f32 at least, each key head serving h/g query heads."""
    wide = F64 if n.dtype(q) == F64 else F32
    (b, h, s, d), (_, g, t, _) = n.shape(q), n.shape(k)
    each = floordiv(h, g)
    left = n.reshape(n.cast(q, wide), (b, g, each, s, d))
    right = n.reshape(n.transpose(n.cast(k, wide), (0, 1, 3, 2)), (b, g, 1, d, t))
    out = n.reshape(n.op(graph.Matmul, left, right), (b, h, s, t))
    out = n.op(graph.Mul, out, n.like(how.scale, out))
    if how.cap:
        out = n.op(graph.Mul, n.op(graph.Tanh, n.op(graph.Div, out, n.like(how.cap, out))), n.like(how.cap, out))
    masks = [n.cast(m, wide) for m in how.masks] if masked else []
    if masked and how.past is not None:
        masks.append(n.cast(causal_mask(n, q, k, how.past), wide))
    for m in masks:
        out = n.op(graph.Add, out, m)
    return out


def weights(n: Node, score: Value, how: Scores) -> Value:
    """The softmax over keys; a sink is one more score, whose weight is dropped."""
    if how.sink is None:
        return n.op(graph.Softmax, score, axis=3)
    b, h, s, t = n.shape(score)
    sink = n.cast(n.reshape(how.sink, (1, h, 1, 1)), n.dtype(score))
    joined = n.op(graph.Concat, [score, expand_to(n, sink, [b, h, s, 1])], axis=3)
    return cut(n, n.op(graph.Softmax, joined, axis=3), 3, 0, t)


def _weigh(n: Node, weight: Value, v: Value) -> Value:
    (b, h, s, t), (_, g, _, e) = n.shape(weight), n.shape(v)
    left = n.reshape(weight, (b, g, floordiv(h, g), s, t))
    right = n.reshape(n.cast(v, n.dtype(weight)), (b, g, 1, t, e))
    return n.cast(n.reshape(n.op(graph.Matmul, left, right), (b, h, s, e)), n.dtype(v))


def weighed(n: Node, q: Value, k: Value, v: Value, how: Scores) -> tuple[Value, Value]:
    """The result, and the scores before the softmax."""
    score = scores(n, q, k, how)
    return _weigh(n, weights(n, score, how), v), score


def padding_mask(n: Node, mask: Value, sizes: tuple[Dim, Dim, Dim, Dim], like: Value, value: float) -> Value | None:
    """A mask of integers as numbers to add to scores [b, h, s, t] of `sizes` (b, s, past, t): `value` hides a key.

    [b] (or [3b + 2], whose first b say the same): the number of keys; [2b]: their ends, then their starts; [b, t] and
    [b, s, t]: 1 where a key is seen; [b, 1, m, m]: the same for all m positions, of which the queries are those from
    past on; [b, 1] and [1, 1] mask nothing.
    """
    batch, length, past, total = sizes
    shape = need_rank(n, mask, "mask", 1, 2, 3, 4)
    seen: Value | None = None
    if len(shape) == 1 and shape[0] in (batch, batch * 2, batch * 3 + 2):
        bound, places = n.cast(mask, I32), positions(n, total, I32)
        seen = n.op(graph.Less, places, n.reshape(cut(n, bound, 0, 0, batch), (batch, 1, 1, 1)))
        if shape[0] == batch * 2:
            starts = n.reshape(cut(n, bound, 0, batch, batch), (batch, 1, 1, 1))
            seen = n.op(graph.And, seen, n.op(graph.LessEqual, starts, places))
        return hidden(n, seen, like, value)
    if shape == (batch, total):
        mask = n.reshape(mask, (batch, 1, 1, total))
    elif len(shape) == 2 and shape[0] in (batch, 1) and shape[1] == 1:
        return None
    elif shape == (batch, length, total):
        mask = n.reshape(mask, (batch, 1, length, total))
    elif len(shape) == 4 and shape == (batch, 1, shape[2], shape[2]) and _at_least(shape[2], total):
        mask = cut(n, cut(n, mask, 2, past, length), 3, 0, total)
    else:
        raise InputError(
            f"its mask is {n.type(mask)}, which does not fit a batch of {batch}, {length} queries and {total} keys"
        )
    return hidden(n, n.op(graph.Greater, mask, n.like(0, mask)), like, value)


def _at_least(extent: Dim, least: Dim) -> bool:
    return not isinstance(extent, int) or not isinstance(least, int) or extent >= least


def bias_mask(n: Node, bias: Value, sizes: tuple[Dim, Dim, Dim, Dim]) -> Value:
    """What is added to scores [b, h, s, t] of `sizes`: of that shape, or with 1 for b or h."""
    b, h, s, t = need_rank(n, bias, "attention_bias", 4)
    if b not in (1, sizes[0]) or h not in (1, sizes[1]) or (s, t) != sizes[2:]:
        raise InputError(f"its attention_bias is {n.type(bias)}, and {[str(d) for d in sizes]} is needed")
    return bias
