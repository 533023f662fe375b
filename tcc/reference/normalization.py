# SPDX-License-Identifier: Apache-2.0
"""Normalisations: batch, instance, layer, group, RMS, local response, Lp, mean-variance.

Statistics are taken in float32 for small floats and the result is rounded once; float64 stays float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.reference._numeric import Array, Ints, ieee, many_axes, narrow, one_axis, widen


def _channels(v: Array, rank: int) -> Array:
    """A vector [c] shaped to broadcast over [n, c, d1, ..]."""
    return widen(v).reshape(1, -1, *((1,) * (rank - 2))) if rank > 1 else widen(v)


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + epsilon), the mean and the inverse deviation, over `axes`."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + x.dtype.type(epsilon))
    return centred * inverse, mean, inverse


@ieee
def batch_normalization(
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    """(X - mean) / sqrt(var + epsilon) * scale + B, channel by channel of X [n, c, d..]. ONNX BatchNormalization.

    With training_mode the batch's own statistics are used and (Y, running_mean, running_var) is returned, the running
    values being input * momentum + batch * (1 - momentum).
    """
    wide = widen(x)
    rank = wide.ndim
    if not training_mode:
        inverse = 1 / np.sqrt(widen(var) + widen(var).dtype.type(epsilon))
        y = (wide - _channels(mean, rank)) * _channels(inverse * widen(scale), rank) + _channels(b, rank)
        return narrow(y, np.asarray(x).dtype)
    axes = tuple(a for a in range(rank) if a != 1)
    batch_mean = wide.mean(axis=axes)
    batch_var = wide.var(axis=axes)
    inverse = 1 / np.sqrt(batch_var + wide.dtype.type(epsilon))
    y = (wide - _channels(batch_mean, rank)) * _channels(inverse * widen(scale), rank) + _channels(b, rank)
    running_mean = widen(mean) * momentum + batch_mean * (1 - momentum)
    running_var = widen(var) * momentum + batch_var * (1 - momentum)
    return (
        narrow(y, np.asarray(x).dtype),
        narrow(running_mean, np.asarray(mean).dtype),
        narrow(running_var, np.asarray(var).dtype),
    )


@ieee
def instance_normalization(x: Array, scale: Array, b: Array, *, epsilon: float = 1e-5) -> Array:
    """Each instance and channel of X [n, c, d..] standardised, times scale, plus B [c]. ONNX InstanceNormalization."""
    wide = widen(x)
    y = _standardise(wide, tuple(range(2, wide.ndim)), epsilon)[0]
    return narrow(y * _channels(scale, wide.ndim) + _channels(b, wide.ndim), np.asarray(x).dtype)


@ieee
def group_normalization(x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5) -> Array:
    """Each group of channels of X [n, c, d..] standardised, times scale, plus bias [c]. ONNX GroupNormalization.

    Raises ValueError where num_groups does not divide c.
    """
    wide = widen(x)
    n, c = wide.shape[:2]
    if num_groups < 1 or c % num_groups:
        raise ValueError(f"num_groups {num_groups} does not divide the {c} channels.")
    groups = wide.reshape(n, num_groups, -1)
    y = _standardise(groups, (2,), epsilon)[0].reshape(wide.shape)
    return narrow(y * _channels(scale, wide.ndim) + _channels(bias, wide.ndim), np.asarray(x).dtype)


@ieee
def layer_normalization(
    x: Array, scale: Array, b: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """X standardised over dims axis.., times scale, plus B: (Y, Mean, InvStdDev). ONNX LayerNormalization.

    Scale and B broadcast to X in one direction. Mean and InvStdDev are [d0, .., 1, ..] in float32, or float64 for a
    float64 X.
    """
    wide = widen(x)
    axes = tuple(range(one_axis(axis, wide.ndim), wide.ndim))
    y, mean, inverse = _standardise(wide, axes, epsilon)
    y = y * widen(scale)
    if b is not None:
        y = y + widen(b)
    return narrow(y, np.asarray(x).dtype), mean, inverse


@ieee
def rms_normalization(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5) -> Array:
    """X / sqrt(mean(X**2) + epsilon) over dims axis.., times scale, in the type of scale. ONNX RMSNormalization."""
    wide = widen(x)
    axes = tuple(range(one_axis(axis, wide.ndim), wide.ndim))
    rms = np.sqrt(np.square(wide).mean(axis=axes, keepdims=True) + wide.dtype.type(epsilon))
    return narrow(wide / rms * widen(scale), np.asarray(scale).dtype)


@ieee
def mean_variance_normalization(x: Array, *, axes: Ints = (0, 2, 3)) -> Array:
    """(X - mean) / (deviation + 1e-9) over `axes`. ONNX MeanVarianceNormalization (epsilon as in its function body)."""
    wide = widen(x)
    over = many_axes(axes, wide.ndim)
    mean = wide.mean(axis=over, keepdims=True)
    deviation = np.sqrt(np.square(wide - mean).mean(axis=over, keepdims=True))
    return narrow((wide - mean) / (deviation + wide.dtype.type(1e-9)), np.asarray(x).dtype)


@ieee
def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """X over its L1 or L2 norm along `axis`; 0 where the norm is 0. ONNX LpNormalization.

    Raises ValueError on another p.
    """
    wide = widen(x)
    at = one_axis(axis, wide.ndim)
    if p == 1:
        norm = np.abs(wide).sum(axis=at, keepdims=True)
    elif p == 2:
        norm = np.sqrt(np.square(wide).sum(axis=at, keepdims=True))
    else:
        raise ValueError(f"p {p} is neither 1 nor 2.")
    return narrow(np.where(norm == 0, 0, wide / norm), np.asarray(x).dtype)


@ieee
def lrn(x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """X / (bias + alpha / size * sum of squares over `size` channels around)**beta, X [n, c, d..]. ONNX LRN.

    The region of channel c is c - floor((size - 1) / 2) .. c + ceil((size - 1) / 2), clipped to the channels there are.
    """
    wide = widen(x)
    channels = wide.shape[1]
    below = (size - 1) // 2
    squares = np.zeros((wide.shape[0], channels + size - 1, *wide.shape[2:]), wide.dtype)
    squares[:, below : below + channels] = np.square(wide)
    total: Any = sum(squares[:, i : i + channels] for i in range(size))
    return narrow(wide / (bias + alpha / size * total) ** wide.dtype.type(beta), np.asarray(x).dtype)
