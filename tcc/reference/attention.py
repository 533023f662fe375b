# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention in all its ONNX forms, linear attention, and rotary position embedding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, ieee, narrow, widen


def _heads(x: Array, count: int | None, name: str) -> Array:
    """[b, s, h * d] -> [b, h, s, d]; 4-D tensors stay as they are."""
    if x.ndim == 4:
        return x
    if x.ndim != 3 or not count or x.shape[2] % count:
        raise ValueError(f"{name} of shape {list(x.shape)} cannot be cut into {count} heads.")
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(0, 2, 1, 3)


def _bias(
    scores: tuple[int, int, int, int],
    mask: Array | None,
    offset: Array,
    lengths: Array | None,
    is_causal: int,
    window: tuple[int, int],
    dtype: np.dtype[Any],
) -> Array:
    """What is added to the scores [b, h, s, t]: the float mask, and -inf where attention is not allowed."""
    s, t = scores[2:]
    query, key = np.arange(s)[:, None], np.arange(t)[None, :]
    position = query[None] + offset.reshape(-1, 1, 1)  # absolute query positions, [1 or b, s, 1]
    allowed = np.ones((1, s, t), bool)
    if is_causal:
        allowed = allowed & (key <= position)
    if window[0] >= 0:
        allowed = allowed & (key >= position - window[0])
    if window[1] >= 0:
        allowed = allowed & (key <= position + window[1])
    if lengths is not None:
        allowed = allowed & (key < lengths.reshape(-1, 1, 1))
    result = np.where(allowed[:, None], 0.0, -np.inf).astype(dtype)
    if mask is None:
        return result
    mask = np.asarray(mask)
    short = t - mask.shape[-1]
    if mask.dtype == bool:
        mask = np.where(mask, 0.0, -np.inf).astype(dtype)
    if short:
        mask = np.pad(widen(mask), [(0, 0)] * (mask.ndim - 1) + [(0, short)], constant_values=-np.inf)
    return result + widen(mask).astype(dtype)


@ieee
def attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    scale: float | None = None,
    is_causal: int = 0,
    softcap: float = 0.0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
    qk_matmul_output_mode: int = 0,
    softmax_precision: DTypeLike | None = None,
) -> tuple[Array, Array, Array, Array]:
    """softmax(scale Q K' + bias) V: (Y, present_key, present_value, qk_matmul_output). ONNX Attention.

    Q [b, hq, s, d], K [b, hk, t, d], V [b, hk, t, e] (hk divides hq), or 3-D [b, s, h * d] with the head counts; Y has
    the form of Q. attn_mask (bool: may attend; float: added) broadcasts to [b, hq, s, t] and may stop short of t.
    The causal and window bounds are offset by the past length, or by nonpad_kv_seqlen - s. A row that may attend
    nothing is zero. softmax_precision is a numpy type; scores are never computed in less than float32 here.
    """
    q, k, v = np.asarray(q), np.asarray(k), np.asarray(v)
    flat = q.ndim == 3
    dtype = q.dtype
    query, key, value = _heads(q, q_num_heads, "Q"), _heads(k, kv_num_heads, "K"), _heads(v, kv_num_heads, "V")
    if (past_key is None) != (past_value is None):
        raise ValueError("Attention takes past_key and past_value together or not at all.")
    past = 0
    if past_key is not None and past_value is not None:
        past = np.shape(past_key)[2]
        key = np.concatenate([past_key, key], axis=2)
        value = np.concatenate([past_value, value], axis=2)
    present_key, present_value = key, value
    b, heads, s, d = query.shape
    groups = key.shape[1]
    if groups < 1 or heads % groups:
        raise ValueError(f"{heads} query heads are not a multiple of {groups} key heads.")
    total = key.shape[2]
    factor = 1 / math.sqrt(d) if scale is None else scale
    wide_q, wide_k, wide_v = widen(query), widen(key), widen(value)
    grouped = (wide_q * factor).reshape(b, groups, heads // groups * s, d)
    scores = np.matmul(grouped, wide_k.swapaxes(-1, -2)).reshape(b, heads, s, total)
    probe = scores
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if qk_matmul_output_mode == 1:
        probe = scores
    lengths = None if nonpad_kv_seqlen is None else np.asarray(nonpad_kv_seqlen).astype(np.int64)
    offset = np.array([past]) if lengths is None or past_key is not None else lengths - s
    window = (left_window_size, right_window_size)
    scores = scores + _bias((b, heads, s, total), attn_mask, offset, lengths, is_causal, window, scores.dtype)
    if qk_matmul_output_mode == 2:
        probe = scores
    if softmax_precision is not None:
        scores = scores.astype(np.promote_types(scores.dtype, widen(np.zeros(0, softmax_precision)).dtype))
    weights = _guarded_softmax(scores)
    if qk_matmul_output_mode == 3:
        probe = weights
    mixed = np.matmul(weights.astype(wide_v.dtype).reshape(b, groups, heads // groups * s, total), wide_v)
    y = mixed.reshape(b, heads, s, value.shape[3])
    if flat:
        y = y.transpose(0, 2, 1, 3).reshape(b, s, -1)
    return narrow(y, dtype), present_key, present_value, narrow(probe, dtype)


def _guarded_softmax(scores: Array) -> Array:
    """Softmax over the last dim; a row of -inf alone (or an empty one) gives zeros."""
    if scores.shape[-1] == 0:
        return scores
    top = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


@ieee
def rotary_embedding(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Array:
    """Rotary position embedding of X [b, h, s, d] or [b, s, h * d] (Su et al. 2021). ONNX RotaryEmbedding.

    The caches are [positions, r / 2] with position_ids [b, s], else [b, s, r / 2]; r is rotary_embedding_dim or d.
    Raises ValueError where they disagree with r.
    """
    x = np.asarray(x)
    wide = _heads(widen(x), num_heads, "X")
    r = rotary_embedding_dim or wide.shape[3]
    cos, sin = widen(cos_cache), widen(sin_cache)
    if position_ids is not None:
        cos, sin = cos[np.asarray(position_ids)], sin[np.asarray(position_ids)]
    if cos.shape[-1] != r // 2 or sin.shape[-1] != r // 2:
        raise ValueError(
            f"cos and sin caches hold {cos.shape[-1]} and {sin.shape[-1]} angles where {r // 2} are needed."
        )
    cos, sin = cos[:, None], sin[:, None]
    turned, rest = wide[..., :r], wide[..., r:]
    first, second = (
        (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., : r // 2], turned[..., r // 2 :])
    )
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    if interleaved:
        turned = np.stack([real, imaginary], axis=-1).reshape(turned.shape)
    else:
        turned = np.concatenate([real, imaginary], axis=-1)
    y = np.concatenate([turned, rest], axis=-1)
    return narrow(y.transpose(0, 2, 1, 3).reshape(x.shape) if x.ndim == 3 else y, x.dtype)


@ieee
def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    update_rule: str = "gated_delta",
    scale: float = 0.0,
    chunk_size: int = 64,
) -> tuple[Array, Array]:
    """Recurrent linear attention over packed [b, t, h * d] tensors: (output, present_state). ONNX LinearAttention.

    The state is [b, hk, dk, dv]. decay (log space) is [b, t, hk * dk] or [b, t, hk]; beta is [b, t, hk] or [b, t, 1].
    chunk_size is a tuning hint that changes nothing. Raises ValueError on another rule or a missing gate.
    """
    if update_rule not in ("linear", "gated", "delta", "gated_delta"):
        raise ValueError(f"update_rule '{update_rule}' is none of linear, gated, delta, gated_delta.")
    gated, delta = update_rule.startswith("gated"), update_rule.endswith("delta")
    if (gated and decay is None) or (delta and beta is None):
        raise ValueError(f"update_rule '{update_rule}' needs its decay or beta input.")
    q, k, v = (
        _heads(widen(x), h, n)
        for x, h, n in ((query, q_num_heads, "query"), (key, kv_num_heads, "key"), (value, kv_num_heads, "value"))
    )
    b, _, steps, dk = q.shape
    factor = scale or 1 / math.sqrt(dk)
    state = (
        np.zeros((b, kv_num_heads, dk, v.shape[3]), q.dtype)
        if past_state is None
        else widen(past_state).astype(q.dtype)
    )
    gate = np.exp(widen(decay)).reshape(b, steps, kv_num_heads, -1) if gated and decay is not None else None
    rate = np.broadcast_to(widen(beta), (b, steps, kv_num_heads)) if delta and beta is not None else None
    grouped = q.reshape(b, kv_num_heads, q_num_heads // kv_num_heads, steps, dk)
    out = np.zeros((*grouped.shape[:4], v.shape[3]), q.dtype)
    for t in range(steps):
        kt, vt = k[:, :, t], v[:, :, t]
        if gate is not None:
            state = state * gate[:, t][..., None]
        if rate is not None:
            vt = rate[:, t][..., None] * (vt - np.einsum("bhkv,bhk->bhv", state, kt))
        state = state + kt[..., None] * vt[..., None, :]
        out[:, :, :, t] = factor * np.einsum("bhgk,bhkv->bhgv", grouped[:, :, :, t], state)
    y = out.reshape(b, q_num_heads, steps, -1).transpose(0, 2, 1, 3).reshape(b, steps, -1)
    dtype = np.asarray(query).dtype
    return narrow(y, dtype), narrow(state, dtype if past_state is None else np.asarray(past_state).dtype)
