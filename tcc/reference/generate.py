# SPDX-License-Identifier: Apache-2.0
"""Tensors made from shapes and parameters: Shape, Size, Range, ConstantOfShape, EyeLike, windows, mel weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, Ints, ieee, ints, is_float, narrow, scalar, widen


def shape(data: Array, *, start: int = 0, end: int | None = None) -> Array:
    """The dims start..end of data's shape, int64, clamped. ONNX Shape."""
    dims = np.shape(data)
    rank = len(dims)
    first = min(max(start + rank if start < 0 else start, 0), rank)
    last = rank if end is None else min(max(end + rank if end < 0 else end, 0), rank)
    return np.array(dims[first:last], np.int64)


def size(data: Array) -> Array:
    """The number of elements, an int64 scalar. ONNX Size."""
    return np.array(np.size(data), np.int64)


@ieee
def range(start: Array, limit: Array, delta: Array) -> Array:
    """start + i * delta for i below max(ceil((limit - start) / delta), 0), in the type of start. ONNX Range."""
    dtype = np.asarray(start).dtype
    first, last, step = (widen(v).reshape(()) for v in (start, limit, delta))
    if is_float(dtype):
        count = max(math.ceil(float(last - first) / float(step)), 0)
        return narrow(first + np.arange(count).astype(first.dtype) * step, dtype)
    # Python integers: the span of two int64 values may not fit int64.
    low, high, by = int(first), int(last), int(step)
    count = max(-(-(high - low) // by), 0)
    return narrow(low + np.arange(count, dtype=np.int64) * by, dtype)


def constant_of_shape(shape: Ints, *, value: Array | None = None) -> Array:
    """A tensor of `shape` filled with the one element of `value` (float32 0 when absent). ONNX ConstantOfShape."""
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.broadcast_to(fill.reshape(()), ints(shape)).copy()


def eye_like(data: Array, *, dtype: DTypeLike | None = None, k: int = 0) -> Array:
    """Ones on diagonal k of a matrix of data's shape, in `dtype` (data's own when absent). ONNX EyeLike."""
    data = np.asarray(data)
    if data.ndim != 2:
        raise ValueError(f"EyeLike needs a matrix, got shape {list(data.shape)}.")
    return np.eye(data.shape[0], data.shape[1], k).astype(data.dtype if dtype is None else dtype)


def _window(size: Any, periodic: int, dtype: DTypeLike, weights: tuple[float, ...]) -> Array:
    count = int(scalar(size))
    span = count if periodic else count - 1
    angle = 2 * math.pi * np.arange(count) / max(span, 1)
    total = np.zeros(count)
    for i, w in enumerate(weights):
        total += w * np.cos(i * angle) * (1 if i % 2 == 0 else -1)
    return total.astype(dtype)


def hann_window(size: Any, *, output_datatype: DTypeLike = np.float32, periodic: int = 1) -> Array:
    """Hann window of `size` samples. ONNX HannWindow."""
    return _window(size, periodic, output_datatype, (0.5, 0.5))


def hamming_window(size: Any, *, output_datatype: DTypeLike = np.float32, periodic: int = 1) -> Array:
    """Hamming window of `size` samples, with the coefficients 25/46 and 21/46. ONNX HammingWindow."""
    return _window(size, periodic, output_datatype, (25 / 46, 21 / 46))


def blackman_window(size: Any, *, output_datatype: DTypeLike = np.float32, periodic: int = 1) -> Array:
    """Blackman window of `size` samples. ONNX BlackmanWindow."""
    return _window(size, periodic, output_datatype, (0.42, 0.5, 0.08))


def mel_weight_matrix(
    num_mel_bins: Any,
    dft_length: Any,
    sample_rate: Any,
    lower_edge_hertz: Any,
    upper_edge_hertz: Any,
    *,
    output_datatype: DTypeLike = np.float32,
) -> Array:
    """Triangular mel filters over the bins of a real DFT: [dft_length // 2 + 1, num_mel_bins]. ONNX MelWeightMatrix."""
    bins, length, rate = int(scalar(num_mel_bins)), int(scalar(dft_length)), int(scalar(sample_rate))
    low, high = (2595 * math.log10(1 + float(scalar(v)) / 700) for v in (lower_edge_hertz, upper_edge_hertz))
    rows = length // 2 + 1
    edges = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    hertz = 700 * (10 ** (edges / 2595) - 1)
    edges = np.floor((length + 1) * hertz / rate).astype(np.int64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    row = np.arange(rows)[:, None]
    # An edge that coincides with the centre leaves a step there, and the centre itself always weighs 1.
    rise = np.where(centre > left, (row - left) / np.maximum(centre - left, 1), 1.0)
    fall = (right - row) / np.maximum(right - centre, 1)
    result = np.where((row >= left) & (row <= centre), rise, np.where((row > centre) & (row < right), fall, 0.0))
    return result.astype(output_datatype)
