# SPDX-License-Identifier: Apache-2.0
"""com.microsoft Attention, MultiHeadAttention and QAttention: all end in graph.attention."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.compiler.frontend.attend import Scores, attend, bias_mask, padding_mask, scale_of, weighed
from tcc.compiler.frontend.contrib import (
    FLOAT,
    INT,
    INTS,
    contrib_op,
    from_heads,
    known_dim,
    need_rank,
    parts,
    refuse,
    refuse_inputs,
    row,
    takes,
    to_heads,
)
from tcc.compiler.frontend.loops import stack
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.quantize import matmul_of_integers
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import F32

_SHARED = "past and present in one buffer"


def _filter(n: Node) -> float:
    """What is added to the score of a key that a mask hides."""
    return n.attr("mask_filter_value", -10000.0)


def _causal(n: Node, length: Dim, past: Dim) -> Dim | None:
    """The `past` of the scores; a single query sees all keys."""
    return past if n.flag("unidirectional") and length != 1 else None


@contrib_op("Attention")
def attention(n: Node) -> Sequence[Value | None]:
    """Self attention of x [b, s, i] by weights [i, dq + dk + dv]; past and present are [2, b, h, length, d]."""
    takes(
        n, num_heads=INT, unidirectional=INT, qkv_hidden_sizes=INTS, mask_filter_value=FLOAT, scale=FLOAT,
        do_rotary=INT, rotary_embedding_dim=INT, past_present_share_buffer=INT,
    )  # fmt: skip
    refuse(n, "rotary positions inside Attention", "do_rotary", "rotary_embedding_dim")
    refuse(n, _SHARED, "past_present_share_buffer")
    refuse_inputs(n, _SHARED, past_sequence_length=6)
    x, w, bias = n.input(0), n.input(1), n.optional(2)
    need_rank(n, x, "input", 3)
    width = known_dim(need_rank(n, w, "weights", 2)[1], "the width of its weights")
    sizes = n.attr("qkv_hidden_sizes", []) or [width // 3] * 3
    if len(sizes) != 3 or sum(sizes) != width or sizes[0] != sizes[1]:
        raise InputError(f"its weights are {n.type(w)}, and its qkv_hidden_sizes {sizes}")
    y = n.op(graph.Matmul, x, w)
    if bias is not None:
        y = n.op(graph.Add, y, bias)
    return _self_attention(n, y, sizes, n.optional(3), n.optional(4), n.optional(5))


def _self_attention(
    n: Node, y: Value, sizes: Sequence[int], mask: Value | None, past: Value | None, bias: Value | None
) -> list[Value | None]:
    """Of the projected y [b, s, dq + dk + dv]."""
    heads = n.attr("num_heads")
    q, k, v = (to_heads(n, p, heads, "its hidden size") for p in parts(n, y, 2, sizes))
    batch, _, length, depth = n.shape(q)
    before: Dim = 0
    if past is not None:
        shape = need_rank(n, past, "past", 5)
        before = shape[3]
        if shape != (2, batch, heads, before, depth) or n.shape(v) != n.shape(k):
            raise InputError(f"its past is {n.type(past)}, which does not fit keys of {n.type(k)}")
        k, v = (n.op(graph.Concat, [row(n, past, 0, i), new], axis=2) for i, new in enumerate((k, v)))
    total = n.shape(k)[2]
    masks: list[Value] = []
    if mask is not None:
        made = padding_mask(n, mask, (batch, length, before, total), q, _filter(n))
        masks += [] if made is None else [made]
    if bias is not None:
        masks.append(bias_mask(n, bias, (batch, heads, length, total)))
    out = attend(n, q, k, v, Scores(scale_of(n, depth), masks, _causal(n, length, before)))
    present = None
    if n.uses(1):
        if n.shape(k) != n.shape(v):
            raise InputError("its output present needs keys and values of one size")
        present = stack(n, [k, v])
    return [from_heads(n, out), present]


@contrib_op("MultiHeadAttention")
def multi_head_attention(n: Node) -> Sequence[Value | None]:
    """q, k and v as [b, length, h·d]; or k and v as [b, h, length, d]; or packed, [b, t, h, 2 or 3, d]."""
    takes(n, num_heads=INT, unidirectional=INT, mask_filter_value=FLOAT, scale=FLOAT)
    refuse_inputs(n, _SHARED, past_sequence_length=8, cache_indirection=9)
    q, k, v = _projections(n, n.attr("num_heads"))
    batch, heads, length, depth = n.shape(q)
    before: Dim = 0
    old = [n.optional(6), n.optional(7)]
    if (old[0] is None) != (old[1] is None):
        raise InputError("it has one of past_key and past_value, and needs both or none")
    if old[0] is not None and old[1] is not None:
        before = need_rank(n, old[0], "past_key", 4)[2]
        need_rank(n, old[1], "past_value", 4)
        k, v = n.op(graph.Concat, [old[0], k], axis=2), n.op(graph.Concat, [old[1], v], axis=2)
    total = n.shape(k)[2]
    masks: list[Value] = []
    mask, bias = n.optional(4), n.optional(5)
    if mask is not None:
        made = padding_mask(n, mask, (batch, length, before, total), q, _filter(n))
        masks += [] if made is None else [made]
    if bias is not None:
        masks.append(bias_mask(n, bias, (batch, heads, length, total)))
    how = Scores(scale_of(n, depth), masks, _causal(n, length, before))
    if not n.uses(3):
        return [from_heads(n, attend(n, q, k, v, how)), k, v]
    out, score = weighed(n, q, k, v, how)
    return [from_heads(n, out), k, v, n.cast(score, n.dtype(q))]


def _projections(n: Node, heads: int) -> tuple[Value, Value, Value]:
    """q, k and v as [b, h, length, d], with their biases."""
    q, k, v, bias = n.input(0), n.optional(1), n.optional(2), n.optional(3)
    need_rank(n, q, "query", 3, 5)
    if k is None:
        if n.rank(q) == 3:
            raise InputError("its key is missing, and its query is not packed [b, t, h, 3, d]")
        q, k, v = _unpacked(n, q, 3, heads)
    elif n.rank(q) != 3:
        raise InputError(f"its query is {n.type(q)}, and with a key it must be [b, s, h·d]")
    elif n.rank(k) == 5 and v is None:
        q = to_heads(n, q, heads, "its query's width")
        k, v = _unpacked(n, k, 2, heads)
    elif v is None or n.rank(k) != n.rank(v) or n.rank(k) not in (3, 4):
        raise InputError(f"its key is {n.type(k)}, which its value does not fit")
    else:
        q = to_heads(n, q, heads, "its query's width")
        if n.rank(k) == 3:
            k, v = to_heads(n, k, heads, "its key's width"), to_heads(n, v, heads, "its value's width")
    assert v is not None
    if bias is None:
        return q, k, v
    widths = [known_dim(n.shape(x)[3], "the depth of its heads") for x in (q, k, v)]
    if n.shape(bias) != (heads * sum(widths),):
        raise InputError(f"its bias is {n.type(bias)}, and {heads * sum(widths)} values are needed")
    pieces = parts(n, bias, 0, [heads * w for w in widths])
    q, k, v = (
        n.op(graph.Add, x, n.reshape(p, (1, heads, 1, w)))
        for x, p, w in zip((q, k, v), pieces, widths, strict=True)
    )  # fmt: skip
    return q, k, v


def _unpacked(n: Node, x: Value, count: int, heads: int) -> tuple[Value, ...]:
    """[b, t, h, count, d] as `count` values [b, h, t, d]."""
    if n.shape(x)[2:4] != (heads, count):
        raise InputError(f"its packed input is {n.type(x)}, and [b, t, {heads}, {count}, d] is needed")
    return tuple(n.transpose(row(n, x, 3, i), (0, 2, 1, 3)) for i in range(count))


@contrib_op("QAttention")
def quantized_attention(n: Node) -> Sequence[Value | None]:
    """Attention whose projection is a product of 8-bit integers, scaled to f32."""
    takes(
        n, num_heads=INT, unidirectional=INT, mask_filter_value=FLOAT, scale=FLOAT, do_rotary=INT,
        past_present_share_buffer=INT,
    )  # fmt: skip
    refuse(n, "rotary positions inside QAttention", "do_rotary")
    refuse(n, _SHARED, "past_present_share_buffer")
    x, w, bias, x_scale, w_scale = (n.input(i) for i in range(5))
    need_rank(n, x, "input", 3)
    width = known_dim(need_rank(n, w, "weight", 2)[1], "the width of its weights")
    if width % 3:
        raise InputError(f"its weight is {n.type(w)}, and 3 · hidden size columns are needed")
    product = matmul_of_integers(n, x, n.optional(6), w, n.optional(7))
    columns = n.reshape(w_scale, ()) if n.type(w_scale).size == 1 else w_scale
    factor = n.op(graph.Mul, n.reshape(x_scale, ()), columns)
    y = n.op(graph.Add, n.op(graph.Mul, n.cast(product, F32), factor), bias)
    return _self_attention(n, y, [width // 3] * 3, n.optional(5), n.optional(8), None)
