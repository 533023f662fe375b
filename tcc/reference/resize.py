# SPDX-License-Identifier: Apache-2.0
"""Resize, one axis at a time: every output position is a weighted sum of a few source positions (taps).

Coordinates are computed in float64, for nearest in float32. All modes are separable but for tf_crop_and_resize's
extrapolation, which replaces a point that is outside along any axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, Ints, ieee, int_bounds, ints, is_float, many_axes, narrow, widen


@dataclass(frozen=True)
class _Axis:
    """One resized axis: extents before and after, the scale, and the crop in normalised coordinates."""

    axis: int
    size: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def resized_extents(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    scales: tuple[float, ...] | None,
    sizes: tuple[int, ...] | None,
    policy: str = "stretch",
    crop: tuple[tuple[float, float], ...] | None = None,
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The extent and the scale of each resized axis, by the rules of ONNX Resize.

    Extents by scales are floor(extent * scale) in float32 arithmetic, as ONNX shape inference has it. Raises ValueError
    unless exactly one of scales and sizes is given, one value an axis.
    """
    if (scales is None) == (sizes is None):
        raise ValueError("Resize needs exactly one of scales and sizes.")
    given: tuple[Any, ...] = scales if scales is not None else sizes or ()
    if len(given) != len(axes):
        raise ValueError(f"Resize got {len(given)} scales or sizes for {len(axes)} axes.")
    extents = [shape[a] for a in axes]
    if scales is not None:
        spans = [1.0] * len(axes) if crop is None else [e - b for b, e in crop]
        lengths = np.array(extents, np.float32) * np.array(spans, np.float32) * np.array(scales, np.float32)
        return ints(np.floor(lengths)), tuple(map(float, scales))
    target = sizes or ()
    ratios = [t / n if n else 1.0 for t, n in zip(target, extents, strict=True)]
    if policy == "stretch":
        return target, tuple(ratios)
    if policy not in ("not_larger", "not_smaller"):
        raise ValueError(f"keep_aspect_ratio_policy '{policy}' is none of stretch, not_larger, not_smaller.")
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return tuple(int(np.floor(scale * n + 0.5)) for n in extents), (scale,) * len(axes)


def source_coordinates(
    mode: str,
    size: int,
    out: int,
    scale: float,
    start: float = 0.0,
    end: float = 1.0,
    dtype: DTypeLike = np.float64,
) -> Array:
    """The source coordinate of each output position, [out], for a coordinate_transformation_mode.

    Computed in `dtype`. Where the scale is the plain ratio of the extents no rounded ratio enters.
    """
    real: Any = np.dtype(dtype).type
    x = np.arange(out, dtype=dtype)
    exact = size > 0 and scale == out / size
    if out == 0:
        return x

    def unscale(v: Array) -> Array:
        return (v.astype(np.float64) * size / out).astype(dtype) if exact else v / real(scale)

    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out > 1):
        return unscale(x + real(0.5)) - real(0.5)
    if mode == "tf_half_pixel_for_nn":
        return unscale(x + real(0.5))
    if mode == "half_pixel_symmetric":
        adjustment = out / (scale * size)
        return real(size / 2 * (1 - adjustment)) + unscale(x + real(0.5)) - real(0.5)
    if mode == "align_corners":
        # The resized length is the fractional size * scale, as in the conformance data; for sizes it is `out`.
        span = (out if exact else size * scale) - 1
        return x * real(size - 1) / real(span) if out > 1 else np.zeros(out, dtype)
    if mode == "asymmetric":
        return unscale(x)
    if mode == "tf_crop_and_resize":
        if out > 1:
            return real(start) * real(size - 1) + x * (real(end) - real(start)) * real(size - 1) / real(out - 1)
        return np.full(out, 0.5 * (start + end) * (size - 1), dtype)
    if mode == "pytorch_half_pixel":
        return np.zeros(out, dtype)
    raise ValueError(f"coordinate_transformation_mode '{mode}' is not one of ONNX Resize's.")


_NEAREST: dict[str, Any] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def nearest_taps(
    mode: str, nearest_mode: str, size: int, out: int, scale: float, start: float = 0.0, end: float = 1.0
) -> Array:
    """The source position of each output position, clamped, int64 [out].

    Rounding decides, so ties are settled in float32, the type of scales and roi: 6.5 / 2.6 is 2.5 there and in no
    wider type. Raises ValueError on an unknown mode.
    """
    if nearest_mode not in _NEAREST:
        raise ValueError(f"nearest_mode '{nearest_mode}' is none of {', '.join(_NEAREST)}.")
    where = source_coordinates(mode, size, out, scale, start, end, np.float32)
    return np.clip(_NEAREST[nearest_mode](where), 0, size - 1).astype(np.int64)


def cubic_kernel(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (IEEE TASSP 29(6), 1981, equation 4)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def linear_kernel(distance: Array) -> Array:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def axis_taps(
    x: Array, size: int, scale: float, mode: str, antialias: bool, exclude_outside: bool, a: float
) -> tuple[Array, Array]:
    """Source positions (clamped, int64) and weights (float64), both [out, taps], for coordinates `x` [out].

    The weights of a position sum to 1. With antialias and scale < 1 the filter is stretched by 1 / scale.
    """
    radius = {"linear": 1.0, "cubic": 2.0}.get(mode)
    if radius is None:
        raise ValueError(f"mode '{mode}' is none of nearest, linear, cubic.")
    stretch = min(scale, 1.0) if antialias else 1.0
    first = np.floor(x - radius / stretch).astype(np.int64) + 1
    taps = int(2 * np.ceil(radius / stretch))
    position = first[:, None] + np.arange(taps)[None, :]
    distance = (position - x[:, None]) * stretch
    weight = linear_kernel(distance) if mode == "linear" else cubic_kernel(distance, a)
    if exclude_outside:
        weight = np.where((position >= 0) & (position < size), weight, 0.0)
    if exclude_outside or stretch < 1:
        weight = weight / weight.sum(axis=1, keepdims=True)
    return np.clip(position, 0, size - 1), weight


def _apply(x: Array, axis: int, position: Array, weight: Array) -> Array:
    shape = [1] * x.ndim
    shape[axis] = -1
    result: Any = 0
    for t in range(position.shape[1]):
        result = result + np.take(x, position[:, t], axis=axis) * weight[:, t].astype(x.dtype).reshape(shape)
    return result


@ieee
def resize(
    x: Array,
    roi: Array | None = None,
    scales: Any = None,
    sizes: Ints | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    antialias: int = 0,
    extrapolation_value: float = 0.0,
    axes: Ints | None = None,
    keep_aspect_ratio_policy: str = "stretch",
) -> Array:
    """X resampled to new extents along `axes` (all when absent). ONNX Resize.

    scales and sizes hold one value an axis, exactly one of them given; empty arrays count as absent. roi is
    [start.., end..] over the same axes and is read by tf_crop_and_resize alone. Integers are interpolated in float64,
    truncated and saturated. Raises ValueError on an unknown mode or a wrong count.
    """
    x = np.asarray(x)
    at = many_axes(axes, x.ndim) if axes is not None else tuple(range(x.ndim))
    scale_values = None if scales is None or np.size(scales) == 0 else tuple(map(float, np.asarray(scales).reshape(-1)))
    size_values = None if sizes is None or np.size(sizes) == 0 else ints(sizes)
    crop = None
    if coordinate_transformation_mode == "tf_crop_and_resize":
        if roi is None or np.size(roi) != 2 * len(at):
            raise ValueError(f"tf_crop_and_resize needs a roi of {2 * len(at)} values.")
        corners = np.asarray(roi).astype(np.float64).reshape(2, -1)
        crop = tuple((float(b), float(e)) for b, e in corners.T)
    outs, ratios = resized_extents(x.shape, at, scale_values, size_values, keep_aspect_ratio_policy, crop)
    plan = [
        _Axis(a, x.shape[a], o, r, *(crop[i] if crop else (0.0, 1.0)))
        for i, (a, o, r) in enumerate(zip(at, outs, ratios, strict=True))
    ]
    nearest = mode == "nearest"
    dtype = x.dtype
    y = x if nearest else (widen(x) if is_float(dtype) else x.astype(np.float64))
    outside = []
    for p in plan:
        if p.out == p.size and p.scale == 1.0 and crop is None:
            continue
        where = source_coordinates(coordinate_transformation_mode, p.size, p.out, p.scale, p.start, p.end)
        if nearest:
            span = (p.size, p.out, p.scale, p.start, p.end)
            y = np.take(y, nearest_taps(coordinate_transformation_mode, nearest_mode, *span), axis=p.axis)
        else:
            taps = axis_taps(where, p.size, p.scale, mode, bool(antialias), bool(exclude_outside), cubic_coeff_a)
            y = _apply(y, p.axis, *taps)
        if crop is not None:
            outside.append((p.axis, (where < 0) | (where > p.size - 1)))
    for axis, mask in outside:
        shape = [1] * y.ndim
        shape[axis] = -1
        y = np.where(mask.reshape(shape), y.dtype.type(extrapolation_value), y)
    if not is_float(dtype) and not nearest:
        low, high = (0, 1) if dtype.kind == "b" else int_bounds(dtype)
        y = np.clip(np.trunc(y), low, high)
    return narrow(y, dtype)
