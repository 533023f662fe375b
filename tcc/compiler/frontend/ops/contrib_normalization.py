# SPDX-License-Identifier: Apache-2.0
"""Normalisations of com.microsoft, with the sums and lookups that are fused into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.compiler.frontend.contrib import FLOAT, INT, contrib_op, known_dim, need_rank, takes
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.movement import expand_to
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, F64, I32


@onnx_op("SimplifiedLayerNormalization")
@contrib_op("SimplifiedLayerNormalization")
def simplified_layer_normalization(n: Node) -> list[Value | None]:
    """x / √(mean x² + ε) · scale over the dims from `axis` on; also the factor 1 / √…. Some models have it in the
    default domain."""
    takes(n, axis=INT, epsilon=FLOAT, stash_type=INT)
    x, scale = n.input(0), n.input(1)
    if n.attr("stash_type", 1) != 1:
        raise InputError(f"its attribute stash_type is {n.attr('stash_type')}, and 1 (f32) is supported")
    axis, epsilon = n.axis(n.attr("axis", -1), n.rank(x)), n.attr("epsilon", 1e-5)
    y = n.op(graph.RmsNorm, n.cast(x, n.dtype(scale)), scale, axis=axis, epsilon=epsilon)
    if not n.uses(1):
        return [y]
    wide = x if n.dtype(x) == F64 else n.cast(x, F32)
    square = n.op(graph.Mul, wide, wide)
    mean = n.op(graph.Reduce, square, kind="mean", axes=tuple(range(axis, n.rank(x))), keepdims=True)
    spread = n.op(graph.Sqrt, n.op(graph.Add, mean, n.like(epsilon, mean)))
    return [y, n.cast(n.op(graph.Reciprocal, spread), F32)]


def _skip(norm: Callable[[Node, Value, int, float], Value], bias_at: int) -> Callable[[Node], list[Value | None]]:
    def handler(n: Node) -> list[Value | None]:
        takes(n, epsilon=FLOAT)
        x, skip, bias = n.input(0), n.input(1), n.optional(bias_at)
        need_rank(n, x, "input", 2, 3)
        if n.rank(skip) > n.rank(x):
            raise InputError(f"its skip is {n.type(skip)}, which does not fit {n.type(x)}")
        total = n.op(graph.Add, x, skip)
        if bias is not None:
            total = n.op(graph.Add, total, bias)
        return [norm(n, total, n.rank(x) - 1, n.attr("epsilon", 1e-12)), None, None, total]

    return handler


def _layer_norm(n: Node, x: Value, axis: int, epsilon: float) -> Value:
    return n.op(graph.LayerNorm, x, n.input(2), n.optional(3), axis=axis, epsilon=epsilon)


def _rms_norm(n: Node, x: Value, axis: int, epsilon: float) -> Value:
    return n.op(graph.RmsNorm, x, n.input(2), axis=axis, epsilon=epsilon)


contrib_op("SkipLayerNormalization")(_skip(_layer_norm, 4))
contrib_op("SkipSimplifiedLayerNormalization")(_skip(_rms_norm, 3))


@contrib_op("EmbedLayerNormalization")
def embed_layer_normalization(n: Node) -> Sequence[Value | None]:
    takes(n, epsilon=FLOAT, mask_index_type=INT)
    return _embedded(n, n.optional(8), lambda value, _: value)


@contrib_op("QEmbedLayerNormalization")
def quantized_embed_layer_normalization(n: Node) -> Sequence[Value | None]:
    """With tables, scale and bias in 8 bits: rows are gathered as integers."""
    takes(n, epsilon=FLOAT)

    def real(value: Value, which: int) -> Value:
        scale, zero = (n.reshape(n.input(first + which), ()) for first in (8, 13))
        centred = n.op(graph.Sub, n.cast(value, I32), n.cast(zero, I32))
        return n.op(graph.Mul, n.cast(centred, n.dtype(scale)), scale)

    return _embedded(n, None, real)[:2]


def _embedded(n: Node, places: Value | None, real: Callable[[Value, int], Value]) -> tuple[Value, Value | None, Value]:
    """The layer norm of word + position + segment embeddings; the number of words of each row of the mask; the sum.

    `real` gives the numbers that rows of a table mean: of words, positions, segments (0 to 2), the scale, the bias.
    """
    words, segments, mask = n.input(0), n.optional(1), n.optional(7)
    batch, length = need_rank(n, words, "input_ids", 2)
    need_rank(n, n.input(2), "word_embedding", 2)
    total = real(n.op(graph.Gather, n.input(2), words, axis=0), 0)
    table = n.input(3)
    need_rank(n, table, "position_embedding", 2)
    if places is None:
        width = n.shape(table)[1]
        position = n.op(graph.Slice, table, starts=(0, 0), sizes=(length, width), steps=(1, 1))
    else:
        position = n.op(graph.Gather, table, places, axis=0)
    total = n.op(graph.Add, total, real(position, 1))
    if segments is not None:
        total = n.op(graph.Add, total, real(n.op(graph.Gather, n.input(4), segments, axis=0), 2))
    scale, bias = real(n.input(5), 3), real(n.input(6), 4)
    y = n.op(graph.LayerNorm, total, scale, bias, axis=2, epsilon=n.attr("epsilon", 1e-12))
    if not n.uses(1):
        return y, None, total
    if mask is None:
        return y, n.op(graph.Expand, n.constant(0, I32), shape=(batch,)), total
    ones = n.cast(n.op(graph.Equal, mask, n.like(1, mask)), I32)
    return y, n.op(graph.Reduce, ones, kind="sum", axes=(1,), keepdims=False), total


def _group_norm(n: Node, x: Value) -> Value:
    """Of x [n, c, …] or, with channels_last, [n, …, c], then SiLU if `activation` says so."""
    last = n.flag("channels_last", True)
    rank = n.rank(x)
    groups = n.attr("groups")
    channels = known_dim(n.shape(x)[-1 if last else 1], "its number of channels")
    if groups < 1 or channels % groups:
        raise InputError(f"its {channels} channels do not split into {groups} groups")
    if n.attr("activation") not in (0, 1):
        raise InputError(f"its attribute activation is {n.attr('activation')}, and 0 (none) and 1 (SiLU) are known")
    inner = n.transpose(x, (0, rank - 1, *range(1, rank - 1))) if last else x
    scale, bias = (n.cast(n.input(i), n.dtype(x)) for i in (1, 2))
    y = n.op(graph.GroupNorm, inner, scale, bias, groups=groups, epsilon=n.attr("epsilon", 1e-5))
    if n.attr("activation"):
        y = n.op(graph.Swish, y)
    return n.transpose(y, (0, *range(2, rank), 1)) if last else y


@contrib_op("GroupNorm")
def group_norm(n: Node) -> Value:
    takes(n, channels_last=INT, activation=INT, groups=INT, epsilon=FLOAT)
    need_rank(n, n.input(0), "X", 4)
    return _group_norm(n, n.input(0))


@contrib_op("SkipGroupNorm")
def skip_group_norm(n: Node) -> list[Value]:
    """The group norm of x + skip + bias, and that sum."""
    takes(n, channels_last=INT, activation=INT, groups=INT, epsilon=FLOAT)
    x, skip, bias = n.input(0), n.input(3), n.optional(4)
    last = n.flag("channels_last", True)
    batch, *_ = need_rank(n, x, "X", 4)
    channels = n.shape(x)[-1 if last else 1]
    if need_rank(n, skip, "skip", 2, 4) == (batch, channels):
        skip = n.reshape(skip, (batch, 1, 1, channels) if last else (batch, channels, 1, 1))
    total = n.op(graph.Add, x, skip)
    if bias is not None:
        total = n.op(graph.Add, total, n.reshape(bias, (channels,) if last else (channels, 1, 1)))
    total = expand_to(n, total, list(n.shape(x)))
    return [_group_norm(n, total), total]
