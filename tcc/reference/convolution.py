# SPDX-License-Identifier: Apache-2.0
"""Convolutions over any number of spatial dims, channels second: X [n, c, d1, ..], W [m, c / group, k1, ..].

A convolution is a gather of the input under the kernel (im2col) and one matrix product a group; where a group has one
input channel (depthwise) it is a sum over the taps of the kernel instead.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tcc.reference._numeric import Array, Ints, ieee, ints, narrow, per_axis, split_pads, widen
from tcc.reference.activation import logistic
from tcc.reference.matmul import wide_matmul


def pad_spatial(x: Array, pads: tuple[tuple[int, int], ...], value: Any = 0) -> Array:
    """`x` [n, c, d1, ..] with its spatial dims padded by a constant; negative pads crop."""
    crop = tuple(slice(max(-b, 0), n - max(-e, 0)) for (b, e), n in zip(pads, x.shape[2:], strict=True))
    grow = [(0, 0), (0, 0), *((max(b, 0), max(e, 0)) for b, e in pads)]
    x = x[(slice(None), slice(None), *crop)]
    return np.pad(x, grow, constant_values=value) if any(map(any, grow)) else x


def windows(x: Array, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Array:
    """A view [n, c, o1, .., k1, ..] of the patches of a padded `x` [n, c, d1, ..]."""
    rank = len(kernel)
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    if any(s > n for s, n in zip(span, x.shape[2:], strict=True)):
        raise ValueError(f"a dilated kernel of {list(span)} does not fit the padded input {list(x.shape[2:])}.")
    view = sliding_window_view(x, span, axis=tuple(range(2, 2 + rank)))
    outer = tuple(slice(None, None, s) for s in strides)
    inner = tuple(slice(None, None, d) for d in dilations)
    return view[(slice(None), slice(None), *outer, *inner)]


def _check(x: Array, w: Array, group: int) -> int:
    rank = x.ndim - 2
    if rank < 1 or w.ndim != x.ndim:
        raise ValueError(f"X of shape {list(x.shape)} and W of shape {list(w.shape)} need one rank of 3 or more.")
    if group < 1 or w.shape[0] % group:
        raise ValueError(f"group {group} does not divide the {w.shape[0]} leading channels of W.")
    return rank


def _depthwise(view: Array, w: Array, rank: int) -> Array:
    """view [n, c, o.., k..], w [c * m, 1, k..] -> [n, c * m, o..]: a sum over the taps."""
    n, c = view.shape[:2]
    out, multiplier = view.shape[2 : 2 + rank], w.shape[0] // c
    taps = w.reshape(c, multiplier, *w.shape[2:])
    y = np.zeros((n, c, multiplier, *out), view.dtype)
    for tap in product(*map(range, w.shape[2:])):
        patch = view[(slice(None), slice(None), *((slice(None),) * rank), *tap)]
        y += patch[:, :, None] * taps[(slice(None), slice(None), *tap)].reshape(1, c, multiplier, *((1,) * rank))
    return y.reshape(n, c * multiplier, *out)


def wide_conv(
    x: Array,
    w: Array,
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilations: tuple[int, ...],
    group: int,
) -> Array:
    """Convolution without bias in the common type of x and w (float32, float64, or an integer type)."""
    rank = _check(x, w, group)
    n, c = x.shape[:2]
    if w.shape[1] * group != c:
        raise ValueError(f"X has {c} channels and W {list(w.shape)} with group {group} takes {w.shape[1] * group}.")
    view = windows(pad_spatial(x, pads), w.shape[2:], strides, dilations)
    if w.shape[1] == 1 and group > 1:
        return _depthwise(view, w, rank)
    out = view.shape[2 : 2 + rank]
    order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    depth = w.shape[1] * prod(w.shape[2:])
    columns = view.transpose(order).reshape(n, group, depth, prod(out))
    y = wide_matmul(w.reshape(1, group, w.shape[0] // group, depth), columns)
    return y.reshape(n, w.shape[0], *out)


def _add_bias(y: Array, b: Array | None) -> Array:
    return y if b is None else y + widen(b).reshape(1, -1, *((1,) * (y.ndim - 2)))


@ieee
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
) -> Array:
    """Cross-correlation of X [n, c, d..] with W [m, c / group, k..], plus B [m]: [n, m, o..]. ONNX Conv.

    `kernel_shape` is read off W; where given it must agree. Raises ValueError where shapes disagree.
    """
    rank = _check(np.asarray(x), np.asarray(w), group)
    check_kernel(w, kernel_shape)
    y = wide_conv(
        widen(x),
        widen(w),
        per_axis(strides, rank, 1, "strides"),
        split_pads(pads, rank),
        per_axis(dilations, rank, 1, "dilations"),
        group,
    )
    return narrow(_add_bias(y, b), np.asarray(x).dtype)


def check_kernel(w: Array, kernel_shape: Ints | None) -> None:
    """Raises ValueError where `kernel_shape` is given and is not the spatial shape of W."""
    if kernel_shape is not None and tuple(int(k) for k in kernel_shape) != np.shape(w)[2:]:
        raise ValueError(f"kernel_shape {list(kernel_shape)} disagrees with W of shape {list(np.shape(w))}.")


@ieee
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    output_padding: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
) -> Array:
    """The adjoint of conv: X [n, c, d..], W [c, m / group, k..], B [m] -> [n, m, o..]. ONNX ConvTranspose.

    o = stride * (d - 1) + output_padding + dilation * (k - 1) + 1 - pad_begin - pad_end; auto_pad and output_shape
    are to be resolved into `pads` by the caller.
    """
    rank = _check(np.asarray(x), np.asarray(w), group)
    check_kernel(w, kernel_shape)
    wide, weight = widen(x), widen(w)
    if wide.shape[1] != weight.shape[0]:
        raise ValueError(f"X has {wide.shape[1]} channels and W {list(weight.shape)} takes {weight.shape[0]}.")
    stride, dilation = per_axis(strides, rank, 1, "strides"), per_axis(dilations, rank, 1, "dilations")
    extra, pad = per_axis(output_padding, rank, 0, "output_padding"), split_pads(pads, rank)
    n, c = wide.shape[:2]
    space, kernel, m = wide.shape[2:], weight.shape[2:], weight.shape[1]
    rows = weight.reshape(1, group, c // group, m * prod(kernel)).swapaxes(-1, -2)
    columns = np.matmul(rows, wide.reshape(n, group, c // group, prod(space)))
    columns = columns.reshape(n, group * m, *kernel, *space)
    full = tuple(
        s * (d - 1) + g * (k - 1) + 1 + e for s, d, g, k, e in zip(stride, space, dilation, kernel, extra, strict=True)
    )
    # Begin pads crop the full result, end pads too; negative ones extend it with zeros.
    y = np.zeros((n, group * m, *full), wide.dtype)
    for tap in product(*map(range, kernel)):
        at = tuple(
            slice(t * g, t * g + s * (d - 1) + 1, s) for t, g, s, d in zip(tap, dilation, stride, space, strict=True)
        )
        y[(slice(None), slice(None), *at)] += columns[(slice(None), slice(None), *tap)]
    y = pad_spatial(y, tuple((-begin, -end) for begin, end in pad))
    return narrow(_add_bias(y, b), np.asarray(x).dtype)


def col2im(
    data: Array,
    image_shape: Ints,
    block_shape: Ints,
    *,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
) -> Array:
    """[n, c * prod(block), blocks] -> [n, c, *image_shape], overlapping blocks summed. ONNX Col2Im."""
    data = np.asarray(data)
    image, block = ints(image_shape), ints(block_shape)
    rank = len(image)
    stride, dilation = per_axis(strides, rank, 1, "strides"), per_axis(dilations, rank, 1, "dilations")
    pad_ = split_pads(pads, rank)
    counts = tuple(
        (n + b + e - g * (k - 1) - 1) // s + 1
        for n, k, s, g, (b, e) in zip(image, block, stride, dilation, pad_, strict=True)
    )
    if data.shape[1] % prod(block) or data.shape[2] != prod(counts):
        raise ValueError(f"columns of shape {list(data.shape)} do not fit image {list(image)} and block {list(block)}.")
    channels = data.shape[1] // prod(block)
    columns = data.reshape(data.shape[0], channels, *block, *counts)
    padded = [n + b + e for n, (b, e) in zip(image, pad_, strict=True)]
    wide = np.zeros((data.shape[0], channels, *padded), data.dtype)
    for tap in product(*map(range, block)):
        where = tuple(
            slice(t * g, t * g + s * (o - 1) + 1, s) for t, g, s, o in zip(tap, dilation, stride, counts, strict=True)
        )
        wide[(slice(None), slice(None), *where)] += columns[(slice(None), slice(None), *tap)]
    inner = tuple(slice(b, b + n) for n, (b, _) in zip(image, pad_, strict=True))
    return wide[(slice(None), slice(None), *inner)]


@ieee
def causal_conv_with_state(
    x: Array, weight: Array, bias: Array | None = None, past_state: Array | None = None, *, activation: str = "none"
) -> tuple[Array, Array]:
    """Depthwise 1-D convolution over the past, and the last k - 1 positions to carry on: (output, present_state).

    ONNX CausalConvWithState. x [b, c, t], weight [c, 1, k], past_state [b, c, k - 1] (zeros when absent); activation
    none, silu or swish (the same). Raises ValueError on another.
    """
    if activation not in ("none", "silu", "swish"):
        raise ValueError(f"activation '{activation}' is none of none, silu, swish.")
    wide, w = widen(x), widen(weight)
    carry = w.shape[2] - 1
    past = np.zeros((*wide.shape[:2], carry), wide.dtype) if past_state is None else widen(past_state)
    whole = np.concatenate([past, wide], axis=2)
    y = _add_bias(_depthwise(windows(whole, w.shape[2:], (1,), (1,)), w, 1), bias)
    if activation != "none":
        y = y * logistic(y)
    dtype = np.asarray(x).dtype
    return narrow(y, dtype), narrow(whole[:, :, whole.shape[2] - carry :], dtype)
