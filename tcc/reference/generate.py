# SPDX-License-Identifier: Apache-2.0
"""Tensors made from shapes and parameters: Shape, Size, Range, ConstantOfShape, EyeLike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, Ints, ieee, ints, is_float, narrow, widen


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
