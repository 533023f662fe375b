# SPDX-License-Identifier: Apache-2.0
"""Pooling over windows of the spatial dims of X [n, c, d1, ..]: max (with indices), average, Lp, and the global forms.

Each pool is a running combination over the taps of the kernel, so the work is a few whole-array operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from tcc.reference._numeric import Array, Ints, ieee, lowest, narrow, per_axis, split_pads, widen
from tcc.reference.convolution import pad_spatial


def pooled_size(size: int, kernel: int, stride: int, dilation: int, begin: int, end: int, ceil_mode: int = 0) -> int:
    """The output extent of one pooled axis; with ceil_mode a window that would start in the end padding is dropped."""
    room = size + begin + end - dilation * (kernel - 1) - 1
    if room < 0:
        if not ceil_mode or room <= -stride:
            raise ValueError(f"kernel {kernel} (dilation {dilation}) does not fit {size} with pads {begin}, {end}.")
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + begin:
        count -= 1
    return count


@dataclass(frozen=True)
class _Window:
    """The geometry of one pool, and its taps as strided views of a padded input."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    out: tuple[int, ...]
    reach: tuple[tuple[int, int], ...]  # pads enlarged to where the last ceil_mode window ends

    @staticmethod
    def of(
        shape: tuple[int, ...],
        kernel_shape: Ints,
        strides: Ints | None,
        pads: Ints | None,
        dilations: Ints | None,
        ceil_mode: int,
    ) -> _Window:
        rank = len(shape) - 2
        if rank < 1:
            raise ValueError(f"a pool needs [n, c, d1, ..], got shape {list(shape)}.")
        kernel = per_axis(kernel_shape, rank, 1, "kernel_shape")
        stride, dilation = per_axis(strides, rank, 1, "strides"), per_axis(dilations, rank, 1, "dilations")
        pad = split_pads(pads, rank)
        out = tuple(
            pooled_size(d, k, s, g, b, e, ceil_mode)
            for d, k, s, g, (b, e) in zip(shape[2:], kernel, stride, dilation, pad, strict=True)
        )
        reach = tuple(
            (b, max(e, (o - 1) * s + g * (k - 1) + 1 - d - b))
            for d, k, s, g, (b, e), o in zip(shape[2:], kernel, stride, dilation, pad, out, strict=True)
        )
        return _Window(kernel, stride, dilation, pad, out, reach)

    def taps(self, padded: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        for tap in product(*map(range, self.kernel)):
            at = tuple(
                slice(t * g, t * g + s * (o - 1) + 1, s)
                for t, g, s, o in zip(tap, self.dilations, self.strides, self.out, strict=True)
            )
            yield tap, padded[(slice(None), slice(None), *at)]


def max_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> tuple[Array, Array]:
    """Window maxima [n, c, o..] and their int64 flat indices into X. ONNX MaxPool.

    NaN wins; the first of equal maxima is indexed. storage_order=1 counts the spatial part of an index column-major.
    """
    wide = widen(x)
    w = _Window.of(wide.shape, kernel_shape, strides, pads, dilations, ceil_mode)
    padded = pad_spatial(wide, w.reach, lowest(wide.dtype))
    best, where = np.zeros(0), np.zeros(0, np.int64)
    for number, (_, values) in enumerate(w.taps(padded)):
        if number == 0:
            best, where = values.copy(), np.zeros(values.shape, np.int64)
        else:
            # Not "values > best": a NaN beats every number and the first NaN stays.
            np.copyto(where, number, where=~(values <= best) & (best == best))
            np.maximum(best, values, out=best)
    return narrow(best, np.asarray(x).dtype), _flat_index(w, where, wide.shape, storage_order)


def _flat_index(w: _Window, tap: Array, shape: tuple[int, ...], storage_order: int) -> Array:
    rank = len(w.kernel)
    offsets = np.unravel_index(tap, w.kernel)
    space = shape[2:]
    step = [prod(space[i + 1 :]) for i in range(rank)] if not storage_order else [prod(space[:i]) for i in range(rank)]
    index = np.arange(prod(shape[:2])).reshape(*shape[:2], *((1,) * rank)) * prod(space)
    index = np.broadcast_to(index, tap.shape).copy()
    for i in range(rank):
        start = (np.arange(w.out[i]) * w.strides[i] - w.pads[i][0]).reshape(-1, *((1,) * (rank - 1 - i)))
        index += (start + offsets[i] * w.dilations[i]) * step[i]
    return index


@ieee
def average_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Array:
    """Window means [n, c, o..]; count_include_pad counts the explicit padding as zeros. ONNX AveragePool.

    What lies past the explicit padding (under ceil_mode) is never counted.
    """
    wide = widen(x)
    w = _Window.of(wide.shape, kernel_shape, strides, pads, dilations, ceil_mode)
    total: Any = sum(values for _, values in w.taps(pad_spatial(wide, w.reach)))
    ones = np.ones((1, 1, *wide.shape[2:]), wide.dtype)
    if count_include_pad:
        ones = pad_spatial(ones, w.pads, 1)
        rest = tuple((0, r[1] - p[1]) for r, p in zip(w.reach, w.pads, strict=True))
    else:
        rest = w.reach
    count: Any = sum(values for _, values in w.taps(pad_spatial(ones, rest)))
    return narrow(total / count, np.asarray(x).dtype)


@ieee
def lp_pool(
    x: Array,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
    dilations: Ints | None = None,
    ceil_mode: int = 0,
    p: int = 2,
) -> Array:
    """Window Lp norms (sum |x|**p)**(1/p), [n, c, o..]. ONNX LpPool."""
    wide = widen(x)
    w = _Window.of(wide.shape, kernel_shape, strides, pads, dilations, ceil_mode)
    powers = _power(np.abs(wide), p)
    total: Any = sum(values for _, values in w.taps(pad_spatial(powers, w.reach)))
    return narrow(_root(total, p), np.asarray(x).dtype)


def _power(x: Array, p: int) -> Array:
    return x if p == 1 else x * x if p == 2 else x**p


def _root(x: Array, p: int) -> Array:
    return x if p == 1 else np.sqrt(x) if p == 2 else x ** x.dtype.type(1 / p)


def _spatial(x: Array) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"a pool needs [n, c, d1, ..], got shape {list(x.shape)}.")
    return tuple(range(2, x.ndim))


@ieee
def global_average_pool(x: Array) -> Array:
    """Means over all spatial dims: [n, c, 1, ..]. ONNX GlobalAveragePool."""
    wide = widen(x)
    return narrow(wide.mean(axis=_spatial(wide), keepdims=True), np.asarray(x).dtype)


def global_max_pool(x: Array) -> Array:
    """Maxima over all spatial dims: [n, c, 1, ..]. ONNX GlobalMaxPool."""
    wide = widen(x)
    return narrow(wide.max(axis=_spatial(wide), keepdims=True), np.asarray(x).dtype)


@ieee
def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    """Lp norms over all spatial dims: [n, c, 1, ..]. ONNX GlobalLpPool."""
    wide = widen(x)
    total = _power(np.abs(wide), p).sum(axis=_spatial(wide), keepdims=True)
    return narrow(_root(total, p), np.asarray(x).dtype)


def max_unpool(
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Ints,
    strides: Ints | None = None,
    pads: Ints | None = None,
) -> Array:
    """Scatters X [n, c, d..] to the flat `indices` a max pool gave; zeros elsewhere. ONNX MaxUnpool.

    Indices count in the inverse-pooled shape stride * (d - 1) + kernel - pads; a larger `output_shape` (all dims)
    is that result with zeros after it in each dim.
    """
    x, indices = np.asarray(x), np.asarray(indices)
    rank = x.ndim - 2
    kernel, stride = per_axis(kernel_shape, rank, 1, "kernel_shape"), per_axis(strides, rank, 1, "strides")
    pad = split_pads(pads, rank)
    space = tuple(s * (d - 1) + k - b - e for d, k, s, (b, e) in zip(x.shape[2:], kernel, stride, pad, strict=True))
    inferred = (*x.shape[:2], *space)
    y = np.zeros(prod(inferred), x.dtype)
    y[indices.reshape(-1)] = x.reshape(-1)
    y = y.reshape(inferred)
    if output_shape is None:
        return y
    target = tuple(int(d) for d in np.asarray(output_shape).reshape(-1))
    result = np.zeros(target, x.dtype)
    result[tuple(slice(0, d) for d in inferred)] = y
    return result
