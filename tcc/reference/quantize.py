# SPDX-License-Identifier: Apache-2.0
"""Linear quantisation per tensor, per axis and blocked, and the integer matmuls and convolutions built on it.

Integer sums are exact. Requantisation multiplies by one combined scale in the type of the scales (float32 for small
floats) and rounds half to even before the zero point is added and the result saturates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import (
    Array,
    Ints,
    ieee,
    int_bounds,
    is_float,
    is_integer,
    narrow,
    one_axis,
    per_axis,
    split_pads,
    wide_type,
    widen,
)
from tcc.reference.cast import cast
from tcc.reference.convolution import check_kernel, wide_conv
from tcc.reference.matmul import exact_matmul


def _spread(v: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or zero point in the form that broadcasts over `shape`."""
    v = np.asarray(v)
    if v.size == 1 and v.ndim <= 1:
        return v.reshape(())
    if v.ndim == 1 and not block_size:
        at = 0 if len(shape) == 1 else one_axis(axis, len(shape))
        if v.size != shape[at]:
            raise ValueError(f"{v.size} scales do not fit axis {at} of shape {list(shape)}.")
        return v.reshape(-1, *((1,) * (len(shape) - 1 - at)))
    if v.ndim != len(shape) or block_size < 1:
        raise ValueError(f"a scale of shape {list(v.shape)} with block_size {block_size} does not fit {list(shape)}.")
    at = one_axis(axis, len(shape))
    repeated = np.repeat(v, block_size, axis=at)
    return repeated[tuple(slice(None, n) for n in shape)]


def _saturated(rounded: Array, zero_point: Array, dtype: np.dtype[Any]) -> Array:
    low, high = int_bounds(dtype)
    total = np.where(np.isnan(rounded), 0, rounded) + widen(zero_point).astype(rounded.dtype)
    return np.clip(total, low, high).astype(np.int64).astype(dtype)


@ieee
def quantize_linear(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: DTypeLike | None = None,
    precision: DTypeLike | None = None,
    saturate: int = 1,
) -> Array:
    """saturate(round(x / y_scale) + y_zero_point), halves to even. ONNX QuantizeLinear.

    A scalar scale is per tensor, a 1-D one per `axis`, one of X's rank is blocked along `axis` by block_size. The type
    is that of the zero point, else output_dtype, else uint8; to 8-bit floats it rounds to the type. The division is
    rounded to `precision`, by default the type of y_scale. Raises ValueError where shapes or types disagree.
    """
    x = np.asarray(x)
    if y_zero_point is not None:
        dtype = np.asarray(y_zero_point).dtype
        if output_dtype is not None and np.dtype(output_dtype) != dtype:
            raise ValueError(f"output_dtype {np.dtype(output_dtype)} disagrees with the zero point's {dtype}.")
    else:
        dtype = np.dtype(np.uint8 if output_dtype is None else output_dtype)
    divide = np.dtype(precision) if precision is not None else np.asarray(y_scale).dtype
    scale = widen(_spread(y_scale, x.shape, axis, block_size)).astype(wide_type(divide))
    zero = _spread(np.zeros((), dtype) if y_zero_point is None else y_zero_point, x.shape, axis, block_size)
    quotient = widen(narrow(widen(x).astype(scale.dtype) / scale, divide))
    if is_integer(dtype):
        return _saturated(np.rint(quotient), zero, dtype)
    return cast(quotient + widen(zero), to=dtype, saturate=saturate)


@ieee
def dequantize_linear(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: DTypeLike | None = None,
) -> Array:
    """(x - x_zero_point) * x_scale in output_dtype, by default the type of the scale. ONNX DequantizeLinear."""
    x = np.asarray(x)
    dtype = np.dtype(output_dtype) if output_dtype is not None else np.asarray(x_scale).dtype
    wide = widen(x).astype(np.int64) if is_integer(x.dtype) else widen(x)
    if x_zero_point is not None:
        wide = wide - widen(_spread(x_zero_point, x.shape, axis, block_size)).astype(wide.dtype)
    kind = np.promote_types(wide_type(dtype), wide_type(np.asarray(x_scale).dtype))
    scale = widen(_spread(x_scale, x.shape, axis, block_size)).astype(kind)
    return narrow(wide.astype(kind) * scale, dtype)


@ieee
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """X in uint8 with the scale and zero point of its own range, 0 included: (y, y_scale, y_zero_point).

    ONNX DynamicQuantizeLinear. A tensor of zeros (or an empty one) has scale 0 by the formula; it quantises to 0.
    """
    wide = widen(x)
    kind = wide.dtype.type
    low = np.minimum(kind(0), wide.min(initial=0))
    high = np.maximum(kind(0), wide.max(initial=0))
    scale = np.asarray((high - low) / kind(255), wide.dtype)
    if scale == 0:
        return np.zeros(wide.shape, np.uint8), narrow(scale, np.asarray(x).dtype), np.array(0, np.uint8)
    zero = np.array(np.rint(np.clip(-low / scale, 0, 255)), np.uint8)
    y = np.clip(np.rint(wide / scale) + kind(zero), 0, 255).astype(np.uint8)
    return y, narrow(scale, np.asarray(x).dtype), zero


def _centred(x: Array, zero_point: Array | None) -> Array:
    wide = widen(x).astype(np.int64)
    return wide if zero_point is None else wide - widen(zero_point).astype(np.int64)


def _per_row(v: Array, rank: int) -> Array:
    """A 1-D per-row parameter as a column; scalars and N-D ones as they are."""
    return v if np.ndim(v) != 1 or np.size(v) == 1 or rank < 2 else np.asarray(v)[:, None]


def matmul_integer(a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None) -> Array:
    """(A - a_zero_point)(B - b_zero_point) in int32, A's zero point per tensor or row, B's per column.

    ONNX MatMulInteger.
    """
    a, b = np.asarray(a), np.asarray(b)
    a_zero = None if a_zero_point is None else _per_row(a_zero_point, a.ndim)
    product = exact_matmul(_centred(a, a_zero), _centred(b, b_zero_point))
    return product.astype(np.int64).astype(np.int32)


def _requantised(total: Array, multiplier: Array, zero_point: Array, dtype: np.dtype[Any]) -> Array:
    return _saturated(np.rint(total.astype(multiplier.dtype) * multiplier), zero_point, dtype)


@ieee
def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    """The quantised product of two quantised matrices, in the type of y_zero_point. ONNX QLinearMatMul.

    A's scale and zero point are per tensor or row, B's per tensor or column. 8-bit floats are multiplied in float32.
    """
    a, b = np.asarray(a), np.asarray(b)
    left, right = widen(_per_row(a_scale, a.ndim)), widen(b_scale)
    multiplier = np.asarray(left * right / widen(_per_row(y_scale, a.ndim)))
    zero, dtype = _per_row(y_zero_point, a.ndim), np.asarray(y_zero_point).dtype
    if is_float(a.dtype):
        product = np.matmul(widen(a) - widen(_per_row(a_zero_point, a.ndim)), widen(b) - widen(b_zero_point))
        return cast(product * multiplier + widen(zero), to=dtype)
    product = exact_matmul(_centred(a, _per_row(a_zero_point, a.ndim)), _centred(b, b_zero_point))
    return _requantised(product, multiplier, np.asarray(zero), dtype)


def _integer_conv(
    x: Array,
    w: Array,
    x_zero_point: Array | None,
    w_zero_point: Array | None,
    strides: Ints | None,
    pads: Ints | None,
    dilations: Ints | None,
    group: int,
    kernel_shape: Ints | None,
) -> Array:
    """The exact sums, int64. Padding stands for the zero point, so it is zero after centring."""
    check_kernel(w, kernel_shape)
    rank = np.ndim(x) - 2
    w_zero = None if w_zero_point is None else np.asarray(w_zero_point)
    if w_zero is not None and w_zero.size > 1:
        w_zero = w_zero.reshape(-1, *((1,) * (rank + 1)))
    return wide_conv(
        _centred(x, None if x_zero_point is None else np.asarray(x_zero_point).reshape(())),
        _centred(w, w_zero if w_zero is None or w_zero.size > 1 else w_zero.reshape(())),
        per_axis(strides, rank, 1, "strides"),
        split_pads(pads, rank),
        per_axis(dilations, rank, 1, "dilations"),
        group,
    )


def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
) -> Array:
    """conv of X - x_zero_point with W - w_zero_point (per tensor or output channel), in int32. ONNX ConvInteger."""
    total = _integer_conv(x, w, x_zero_point, w_zero_point, strides, pads, dilations, group, kernel_shape)
    return total.astype(np.int32)


@ieee
def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    b: Array | None = None,
    *,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
) -> Array:
    """The quantised convolution of quantised X and W, in the type of y_zero_point. ONNX QLinearConv.

    W's scale and zero point are per tensor or output channel; B is int32 in units of x_scale * w_scale.
    """
    total = _integer_conv(x, w, x_zero_point, w_zero_point, strides, pads, dilations, group, kernel_shape)
    channel = (1, -1, *((1,) * (total.ndim - 2)))
    if b is not None:
        total = total + np.asarray(b).astype(np.int64).reshape(channel)
    scale = widen(w_scale)
    scale = scale.reshape(channel) if scale.size > 1 else scale.reshape(())
    multiplier = np.asarray(widen(x_scale).reshape(()) * scale / widen(y_scale).reshape(()))
    return _requantised(total, multiplier, np.asarray(y_zero_point).reshape(()), np.asarray(y_zero_point).dtype)
