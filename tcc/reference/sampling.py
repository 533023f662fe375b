# SPDX-License-Identifier: Apache-2.0
"""Sampling at computed positions: GridSample, AffineGrid, DeformConv, RoiAlign, MaxRoiPool."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import numpy as np

from tcc.reference._numeric import Array, Ints, ieee, int_bounds, ints, is_float, narrow, per_axis, split_pads, widen
from tcc.reference.convolution import check_kernel
from tcc.reference.resize import cubic_kernel, linear_kernel

Place = Callable[[Array, int], tuple[Array, Array | None]]


def _reflect(x: Array, low: float, high: float) -> Array:
    """Positions folded into [low, high] by reflection at both ends."""
    span = high - low
    if span <= 0:
        return np.zeros_like(x)
    folded = np.mod(x - low, 2 * span)
    return low + np.where(folded > span, 2 * span - folded, folded)


def _interpolate(x: Array, at: list[Array], mode: str, place: Place) -> Array:
    """x [n, c, d..] at positions `at` (one array [n, p] a spatial dim): [n, c, p].

    `place` turns integer positions along a dim into indices inside it and, where some count as zero, a mask of those
    that do not.
    """
    reach = {"nearest": 1, "linear": 2, "cubic": 4}[mode]
    rank = len(at)
    base = [np.rint(a) if mode == "nearest" else np.floor(a) - (reach // 2 - 1) for a in at]
    batch = np.arange(x.shape[0])[:, None]
    result: Any = np.zeros((x.shape[0], at[0].shape[1], x.shape[1]), x.dtype)
    taps: list[list[tuple[Array, Array]]] = []
    for d in range(rank):
        per_dim: list[tuple[Array, Array]] = []
        for t in range(reach):
            position = base[d] + t
            distance = position - at[d]
            weight = (
                np.ones_like(distance)
                if mode == "nearest"
                else linear_kernel(distance)
                if mode == "linear"
                else cubic_kernel(distance, -0.75)
            )
            index, inside = place(position, d)
            weight = weight if inside is None else np.where(inside, weight, 0)
            per_dim.append((index, weight.astype(x.dtype)))
        taps.append(per_dim)
    for combination in product(range(reach), repeat=rank):
        chosen = [taps[d][t] for d, t in enumerate(combination)]
        weight: Any = prod((w for _, w in chosen), start=np.ones((), x.dtype))
        values = np.moveaxis(x, 1, -1)[(batch, *(i for i, _ in chosen))]
        result += values * weight[..., None]
    return np.moveaxis(result, -1, 1)


def _zero_outside(space: tuple[int, ...]) -> Place:
    def place(position: Array, d: int) -> tuple[Array, Array]:
        finite = np.where(np.isfinite(position), position, -1)
        inside = (finite >= 0) & (finite < space[d])
        return np.clip(finite, 0, space[d] - 1).astype(np.int64), inside

    return place


@ieee
def grid_sample(
    x: Array, grid: Array, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0
) -> Array:
    """X [n, c, d..] sampled at grid [n, o.., r], coordinates in [-1, 1], innermost dim first: [n, c, o..].

    ONNX GridSample. mode linear, nearest or cubic; padding_mode zeros, border or reflection. Integers are
    interpolated in float64 and truncated. Raises ValueError on an unknown mode.
    """
    if mode not in ("linear", "nearest", "cubic"):
        raise ValueError(f"mode '{mode}' is none of linear, nearest, cubic.")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(f"padding_mode '{padding_mode}' is none of zeros, border, reflection.")
    x = np.asarray(x)
    wide = widen(x) if is_float(x.dtype) else x.astype(np.float64)
    space = wide.shape[2:]
    rank = len(space)
    points = widen(grid).astype(wide.dtype)
    out = points.shape[1:-1]
    points = points.reshape(points.shape[0], -1, rank)[..., ::-1]
    borders = [(0.0, n - 1.0) if align_corners else (-0.5, n - 0.5) for n in space]

    def place(position: Array, d: int) -> tuple[Array, Array | None]:
        if padding_mode == "zeros":
            return _zero_outside(space)(position, d)
        if padding_mode == "reflection":
            position = _reflect(position, *borders[d])
        return np.clip(np.nan_to_num(position), 0, space[d] - 1).astype(np.int64), None

    at: list[Array] = []
    for d, n in enumerate(space):
        g = points[..., d]
        p = (g + 1) / 2 * (n - 1) if align_corners else ((g + 1) * n - 1) / 2
        if mode == "nearest":
            p = np.rint(p)
        if padding_mode == "border" and mode != "cubic":  # cubic clamps each of its taps instead
            p = np.clip(p, 0, n - 1)
        elif padding_mode == "reflection":
            low, high = borders[d]
            p = np.where((p < low) | (p > high), _reflect(p, low, high), p)
        at.append(p.astype(wide.dtype))
    y = _interpolate(wide, at, mode, place).reshape(*wide.shape[:2], *out)
    if not is_float(x.dtype) and x.dtype.kind != "b":
        y = np.clip(np.trunc(y), *int_bounds(x.dtype))
    return narrow(y, x.dtype)


@ieee
def affine_grid(theta: Array, size: Ints, *, align_corners: int = 0) -> Array:
    """The sampling grid [n, d.., r] of affine maps theta [n, r, r + 1] for an output of `size` (n, c, d..).

    ONNX AffineGrid. Coordinates run over [-1, 1], innermost dim first.
    """
    wide = widen(theta)
    space = ints(size)[2:]
    if wide.shape[1:] != (len(space), len(space) + 1):
        raise ValueError(f"theta of shape {list(wide.shape)} does not map {len(space)} spatial dims.")
    axes: list[Array] = []
    for n in space:
        if align_corners:
            axes.append(np.linspace(-1, 1, n) if n > 1 else np.full(n, -1.0))
        else:
            axes.append((2 * np.arange(n) + 1) / n - 1)
    mesh = np.meshgrid(*axes, indexing="ij")
    base = np.stack([*reversed(mesh), np.ones(space)], axis=-1).astype(wide.dtype)
    points = base.reshape(-1, len(space) + 1) @ wide.swapaxes(1, 2)
    return narrow(points.reshape(wide.shape[0], *space, len(space)), np.asarray(theta).dtype)


@ieee
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    group: int = 1,
    offset_group: int = 1,
    kernel_shape: Ints | None = None,
) -> Array:
    """Convolution at offset positions, linearly interpolated, zero outside X: [n, m, o..]. ONNX DeformConv.

    X [n, c, d..], W [m, c / group, k..], offset [n, offset_group * K * rank, o..] with K = prod(k) and the rank
    offsets of a tap adjacent, mask [n, offset_group * K, o..].
    """
    check_kernel(w, kernel_shape)
    wide, weight = widen(x), widen(w)
    n, c = wide.shape[:2]
    space, kernel = wide.shape[2:], weight.shape[2:]
    rank, taps = len(space), prod(weight.shape[2:])
    stride, dilation = per_axis(strides, rank, 1, "strides"), per_axis(dilations, rank, 1, "dilations")
    pad = split_pads(pads, rank)
    out = np.shape(offset)[2:]
    m = weight.shape[0]
    moved = widen(offset).reshape(n, offset_group, taps, rank, *out)
    scale = None if mask is None else widen(mask).reshape(n, offset_group, 1, taps, prod(out))
    tap_index = np.stack(np.unravel_index(np.arange(taps), kernel))
    at: list[Array] = []
    for d in range(rank):
        start = np.arange(out[d]) * stride[d] - pad[d][0]
        grid = start.reshape(-1, *((1,) * (rank - 1 - d))) + (tap_index[d] * dilation[d]).reshape(taps, *((1,) * rank))
        at.append((grid + moved[:, :, :, d]).reshape(n * offset_group, -1).astype(wide.dtype))
    groups = wide.reshape(n * offset_group, c // offset_group, *space)
    sampled = _interpolate(groups, at, "linear", _zero_outside(space))
    sampled = sampled.reshape(n, offset_group, c // offset_group, taps, prod(out))
    if scale is not None:
        sampled = sampled * scale
    columns = sampled.reshape(n, group, c // group * taps, prod(out))
    y = np.matmul(weight.reshape(1, group, m // group, -1), columns).reshape(n, m, *out)
    if b is not None:
        y = y + widen(b).reshape(1, -1, *((1,) * rank))
    return narrow(y, np.asarray(x).dtype)


def _corners(position: Array, size: int, dtype: np.dtype[Any]) -> list[tuple[Array, Array]]:
    """The two pixels around each position and their weights, by RoI Align's border rules: zero beyond one pixel out."""
    live = ((position >= -1) & (position <= size)).astype(dtype)
    p = np.clip(position, 0, size - 1)
    low = np.floor(p).astype(np.int64)
    above = (p - low).astype(dtype)
    return [(low, (1 - above) * live), (np.minimum(low + 1, size - 1), above * live)]


def _bin_samples(feature: Array, y: Array, x: Array, mode: str) -> Array:
    """feature [c, h, w] at the products of positions y and x: [c, len(y), len(x)].

    avg interpolates; max takes the largest of the four weighted corners, as the conformance data has it.
    """
    rows, columns = _corners(y, feature.shape[1], feature.dtype), _corners(x, feature.shape[2], feature.dtype)
    parts = [feature[:, i[:, None], j] * (v[:, None] * w) for (i, v), (j, w) in product(rows, columns)]
    return np.sum(parts, axis=0) if mode == "avg" else np.max(parts, axis=0)


@ieee
def roi_align(
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    mode: str = "avg",
    coordinate_transformation_mode: str = "half_pixel",
) -> Array:
    """Bins of regions of interest, sampled bilinearly: X [n, c, h, w], rois [k, 4] (x1, y1, x2, y2) -> [k, c, oh, ow].

    ONNX RoiAlign (He et al. 2017). Raises ValueError on another mode.
    """
    if mode not in ("avg", "max"):
        raise ValueError(f"mode '{mode}' is neither avg nor max.")
    wide, boxes = widen(x), widen(rois)
    half = coordinate_transformation_mode == "half_pixel"
    if not half and coordinate_transformation_mode != "output_half_pixel":
        raise ValueError(f"coordinate_transformation_mode '{coordinate_transformation_mode}' is not RoiAlign's.")
    shift = 0.5 if half else 0.0
    result = np.zeros((boxes.shape[0], wide.shape[1], output_height, output_width), wide.dtype)
    for k, batch in enumerate(np.asarray(batch_indices).reshape(-1).tolist()):
        x1, y1, x2, y2 = (float(v) * spatial_scale - shift for v in boxes[k])
        height, width = y2 - y1, x2 - x1
        if not half:
            height, width = max(height, 1.0), max(width, 1.0)
        # A box without extent, or with a negative one, has no samples.
        rows = sampling_ratio or max(math.ceil(height / output_height), 0)
        columns = sampling_ratio or max(math.ceil(width / output_width), 0)
        ys = y1 + (np.arange(output_height * rows) + 0.5) * (height / output_height / rows) if rows else np.zeros(0)
        xs = (
            x1 + (np.arange(output_width * columns) + 0.5) * (width / output_width / columns)
            if columns
            else np.zeros(0)
        )
        if not rows or not columns:
            continue
        samples = _bin_samples(wide[batch], ys, xs, mode)
        bins = samples.reshape(-1, output_height, rows, output_width, columns)
        result[k] = bins.mean(axis=(2, 4)) if mode == "avg" else bins.max(axis=(2, 4))
    return narrow(result, np.asarray(x).dtype)


def max_roi_pool(x: Array, rois: Array, *, pooled_shape: Ints, spatial_scale: float = 1.0) -> Array:
    """Maxima over a grid of bins of each region: X [n, c, h, w], rois [k, 5] (batch, x1, y1, x2, y2) -> [k, c, ph, pw].

    ONNX MaxRoiPool (Girshick 2015): corners round half up and are inclusive, an empty bin gives 0.
    """
    x = np.asarray(x)
    wide, boxes = widen(x), widen(rois)
    ph, pw = ints(pooled_shape)
    result = np.zeros((boxes.shape[0], wide.shape[1], ph, pw), wide.dtype)
    for k in range(boxes.shape[0]):
        batch = int(boxes[k, 0])
        x1, y1, x2, y2 = (math.floor(float(v) * spatial_scale + 0.5) for v in boxes[k, 1:])
        rows = _bins(y1, y2, ph, wide.shape[2])
        columns = _bins(x1, x2, pw, wide.shape[3])
        for i, j in product(range(ph), range(pw)):
            patch = wide[batch, :, rows[i], columns[j]]
            if patch.size:
                result[k, :, i, j] = patch.max(axis=(1, 2))
    return narrow(result, x.dtype)


def _bins(start: int, end: int, count: int, size: int) -> list[slice]:
    step = max(end - start + 1, 1) / count
    return [
        slice(min(max(math.floor(i * step) + start, 0), size), min(max(math.ceil((i + 1) * step) + start, 0), size))
        for i in range(count)
    ]


@ieee
def region_reduce(
    x: Array,
    batch: Array,
    rows: Array,
    columns: Array,
    row_weights: Array | None = None,
    column_weights: Array | None = None,
    *,
    kind: str = "sum",
) -> Array:
    """Sums or maxima (`kind`) over rectangles of pictures: X [n, h, w, c] -> [k, i, j, c].

    Bin (i, j) of region k covers rows[k, i, 0] .. rows[k, i, 1] - 1 and columns[k, j, 0] .. columns[k, j, 1] - 1 of
    picture batch[k] mod n, as far as these lie in it, multiplied by row_weights [k, i, h] and column_weights
    [k, j, w]; an empty rectangle gives 0.
    """
    x = np.asarray(x)
    wide = widen(x)
    n, h, w, c = wide.shape
    regions, across, along = rows.shape[0], rows.shape[1], columns.shape[1]
    y = np.zeros((regions, across, along, c), wide.dtype)
    for k, i, j in product(range(regions), range(across), range(along)):
        top, bottom = (min(max(int(v), 0), h) for v in rows[k, i])
        left, right = (min(max(int(v), 0), w) for v in columns[k, j])
        if top >= bottom or left >= right:
            continue
        part = wide[int(batch[k]) % n, top:bottom, left:right]
        if row_weights is not None:
            part = part * widen(row_weights)[k, i, top:bottom, None, None]
        if column_weights is not None:
            part = part * widen(column_weights)[k, j, None, left:right, None]
        y[k, i, j] = part.sum(axis=(0, 1)) if kind == "sum" else part.max(axis=(0, 1))
    return narrow(y, x.dtype)
