# SPDX-License-Identifier: Apache-2.0
"""com.microsoft GroupQueryAttention: attention of a decoder with its key and value cache.

The cache of row b holds start[b] positions (seqlens_k + 1 less the new ones) in a buffer of fixed length; present is
that buffer with the new keys and values behind them, and a mask hides what lies after. All of it is pointwise over
the buffer, so start may differ from row to row and from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from tcc.compiler.frontend.attend import Scores, attend, bias_mask, hidden, scale_of, weighed, weights
from tcc.compiler.frontend.contrib import (
    FLOAT,
    INT,
    STRING,
    contrib_op,
    cut,
    from_heads,
    known_dim,
    need_rank,
    parts,
    positions,
    refuse,
    refuse_inputs,
    takes,
    to_heads,
)
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.rotary import rotate
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import I64


@dataclass(frozen=True)
class _Cache:
    """Extents: b rows, `new` positions, `held` in the past buffer, `length` in the present one; `start` [b, 1, 1, 1]
    is where the new positions go in each row, None for all at 0; `ends` [b, 1, 1, 1] is where they end."""

    n: Node
    batch: int
    new: int
    held: int
    length: int
    start: Value | None
    ends: Value

    def places(self) -> Value:
        """[length]: positions of the present buffer."""
        return positions(self.n, self.length)

    def rows(self) -> Value:
        """[b or 1, 1, new, 1]: positions of the queries."""
        own = self.n.reshape(positions(self.n, self.new), (self.new, 1))
        return own if self.start is None else self.n.op(graph.Add, own, self.start)

    def present(self, past: Value | None, fresh: Value) -> Value:
        """The buffer [b, g, length, d] with the new values at start and zeros behind them."""
        n = self.n
        if self.start is None or past is None:
            return self._padded(fresh, self.length - self.new)
        known = n.known(self.start)
        if known is not None and (known == self.held).all() and self.length == self.held + self.new:
            return n.op(graph.Concat, [past, fresh], axis=2)
        places = n.reshape(self.places(), (self.length, 1))
        if self.new > 1:
            offset = n.op(graph.Clip, n.op(graph.Sub, places, self.start), lo=0, hi=self.new - 1)
            shape = (*n.shape(fresh)[:2], self.length, n.shape(fresh)[3])
            fresh = n.op(graph.GatherElements, fresh, n.op(graph.Expand, offset, shape=shape), axis=2)
        behind = n.op(graph.Where, n.op(graph.Less, places, self.ends), fresh, n.like(0, fresh))
        old = self._padded(past, self.length - self.held)
        return n.op(graph.Where, n.op(graph.Less, places, self.start), old, behind)

    def _padded(self, x: Value, count: int) -> Value:
        value = 0.0 if self.n.dtype(x).is_float else 0
        return self.n.op(graph.Pad, x, before=(0,) * 4, after=(0, 0, count, 0), value=value) if count else x

    def mask(self, like: Value, causal: bool, window: int) -> Value | None:
        """What hides keys, as numbers to add; None where the flag of graph.attention says all of it."""
        n = self.n
        if not causal:
            seen = n.op(graph.Less, self.places(), self.ends)
        elif self.start is None and window <= 0:
            return None
        else:
            seen = n.op(graph.LessEqual, self.places(), self.rows())
        if window > 0:
            first = n.op(graph.Sub, self.rows(), n.constant(window, I64))
            seen = n.op(graph.And, seen, n.op(graph.Greater, self.places(), first))
        return hidden(n, seen, like, -inf)


@contrib_op("GroupQueryAttention")
def group_query_attention(n: Node) -> Sequence[Value | None]:
    """query [b, s, h·d], key and value [b, s, g·d] or all three packed in query; cache buffers [b, g, length, d]."""
    takes(
        n, num_heads=INT, kv_num_heads=INT, scale=FLOAT, softcap=FLOAT, do_rotary=INT, rotary_interleaved=INT,
        local_window_size=INT, smooth_softmax=INT, qk_output=INT, qk_norm_epsilon=FLOAT, causal=INT,
        kv_cache_bit_width=INT, k_quant_type=STRING, v_quant_type=STRING, sliding_window_cache=INT,
    )  # fmt: skip
    refuse(n, "a cache of integers", "kv_cache_bit_width")
    refuse(n, "a cache that evicts its own rows", "sliding_window_cache")
    for name in ("k_quant_type", "v_quant_type"):
        if n.attr(name, "NONE") != "NONE":
            raise InputError(f"its attribute {name} is {n.attr(name)}, and tcc takes caches of floats")
    refuse_inputs(n, "a cache of integers", k_scale=12, v_scale=13)
    q, k, v = _normed(n, *_projections(n))
    cache = _cache(n, q)
    if n.flag("do_rotary"):
        q, k = _rotated(n, q, k, cache)
    k, v = cache.present(n.optional(3), k), cache.present(n.optional(4), v)
    causal, window = n.flag("causal", True), n.attr("local_window_size", -1)
    if window > 0 and not causal:
        raise InputError(f"its attribute local_window_size is {window}, and causal is 0; a window needs it to be 1")
    mask = cache.mask(q, causal, window)
    masks = [] if mask is None else [mask]
    bias = n.optional(10)
    if bias is not None:
        masks.append(_bias(n, bias, q, cache))
    sink = n.optional(11)
    if sink is None and n.attr("smooth_softmax", 0) == 1:
        sink = n.constant(np.zeros(n.attr("num_heads")), n.dtype(q))
    past = 0 if mask is None else None
    how = Scores(scale_of(n, n.shape(q)[3]), masks, past, n.attr("softcap", 0.0), sink)
    given = n.attr("qk_output", 0)
    if not n.uses(3):
        return [from_heads(n, attend(n, q, k, v, how)), k, v]
    if given not in (1, 2):
        raise InputError(f"it has the output output_qk, and its qk_output is {given}; 1 or 2 says what to give")
    out, score = weighed(n, q, k, v, how)
    # What is given is 0 where a key is hidden, and ends with the longest row.
    shown = n.op(graph.Where, n.op(graph.IsInf, score), n.like(0.0, score), score)
    shown = cut(n, shown if given == 1 else weights(n, score, how), 3, 0, n.ints(6, "total_sequence_length")[0])
    return [from_heads(n, out), k, v, n.cast(shown, n.dtype(q))]


def _projections(n: Node) -> tuple[Value, Value, Value]:
    q, k, v = n.input(0), n.optional(1), n.optional(2)
    heads, groups = n.attr("num_heads"), n.attr("kv_num_heads")
    if heads < 1 or groups < 1 or heads % groups:
        raise InputError(f"its num_heads is {heads} and its kv_num_heads {groups}, which must divide it")
    width = known_dim(need_rank(n, q, "query", 3)[2], "the width of its query")
    if (k is None) != (v is None):
        raise InputError("it has one of key and value, and needs both or none")
    if k is None or v is None:
        if width % (heads + 2 * groups):
            raise InputError(f"its packed query is {n.type(q)}, which does not split into {heads} + 2 · {groups} heads")
        depth = width // (heads + 2 * groups)
        q, k, v = parts(n, q, 2, (heads * depth, groups * depth, groups * depth))
    need_rank(n, k, "key", 3)
    need_rank(n, v, "value", 3)
    return (
        to_heads(n, q, heads, "its query's width"),
        to_heads(n, k, groups, "its key's width"),
        to_heads(n, v, groups, "its value's width"),
    )


def _normed(n: Node, q: Value, k: Value, v: Value) -> tuple[Value, Value, Value]:
    """q and k through an RMS norm of each head, where its weights are given."""
    own, other = n.optional(14), n.optional(15)
    if own is None and other is None:
        return q, k, v
    if own is None or other is None:
        raise InputError("it has one of q_norm_weight and k_norm_weight, and needs both or none")
    epsilon = n.attr("qk_norm_epsilon", 1e-6)
    return (
        n.op(graph.RmsNorm, q, own, axis=3, epsilon=epsilon),
        n.op(graph.RmsNorm, k, other, axis=3, epsilon=epsilon),
        v,
    )


def _cache(n: Node, q: Value) -> _Cache:
    batch, new = (known_dim(n.shape(q)[i], what) for i, what in ((0, "its batch"), (2, "its sequence length")))
    total = n.ints(6, "total_sequence_length")
    if len(total) != 1:
        raise InputError(f"its total_sequence_length has {len(total)} elements, and one is needed")
    old, other = n.optional(3), n.optional(4)
    if (old is None) != (other is None):
        raise InputError("it has one of past_key and past_value, and needs both or none")
    held = 0
    if old is not None and other is not None:
        held = known_dim(need_rank(n, old, "past_key", 4)[2], "the length of its past")
        if n.shape(old) != n.shape(other):
            raise InputError(f"its past_key is {n.type(old)} and its past_value {n.type(other)}")
    if total[0] < new:
        raise InputError(f"its total_sequence_length is {total[0]}, less than the {new} new positions")
    if total[0] != new and old is None:
        raise InputError(f"its total_sequence_length is {total[0]} with {new} new positions, and it has no past")
    lengths = n.input(5)
    if n.type(lengths).size != batch:
        raise InputError(f"its seqlens_k is {n.type(lengths)}, and one number for each of {batch} rows is needed")
    ends = n.op(graph.Add, n.reshape(n.cast(lengths, I64), (batch, 1, 1, 1)), n.constant(1, I64))
    start = None if total[0] == new else n.op(graph.Sub, ends, n.constant(new, I64))
    return _Cache(n, batch, new, held, max(total[0], held), start, ends)


def _rotated(n: Node, q: Value, k: Value, cache: _Cache) -> tuple[Value, Value]:
    if n.optional(7) is None or n.optional(8) is None:
        raise InputError("its do_rotary is 1, and its cos_cache or sin_cache is missing")
    cosine, sine, given = n.input(7), n.input(8), n.optional(9)
    if need_rank(n, cosine, "cos_cache", 2) != need_rank(n, sine, "sin_cache", 2):
        raise InputError(f"its caches are {n.type(cosine)} and {n.type(sine)}, and must be of one shape")
    if given is not None:
        if n.shape(given) != (cache.batch, cache.new):
            raise InputError(f"its position_ids are {n.type(given)}, and [{cache.batch}, {cache.new}] is needed")
        places = given
        if cache.start is None:
            # A first prompt goes on from the first of them, in every row.
            first = n.reshape(cut(n, cut(n, given, 0, 0, 1), 1, 0, 1), (1, 1))
            places = n.op(graph.Add, positions(n, cache.new), n.cast(first, I64))
    else:
        rows = cache.rows()
        places = n.reshape(rows, (n.type(rows).size // cache.new, cache.new))
    c, s = n.op(graph.Gather, cosine, places, axis=0), n.op(graph.Gather, sine, places, axis=0)
    interleaved = n.flag("rotary_interleaved")
    return rotate(n, q, c, s, interleaved), rotate(n, k, c, s, interleaved)


def _bias(n: Node, bias: Value, q: Value, cache: _Cache) -> Value:
    """The bias [b or 1, h or 1, s, total], padded to the length of the buffer, whose end is hidden anyway."""
    (b, h, s, _), total = n.shape(q), n.ints(6, "total_sequence_length")[0]
    sizes: tuple[Dim, Dim, Dim, Dim] = (b, h, s, total)
    bias = bias_mask(n, bias, sizes)
    more = cache.length - total
    return n.op(graph.Pad, bias, before=(0,) * 4, after=(0, 0, 0, more), value=0.0) if more else bias
