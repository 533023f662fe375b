# SPDX-License-Identifier: Apache-2.0
"""Reductions, arg-reductions, running sums and products, top-k.

`axes` may be an array or a sequence; absent or empty means all axes, or none with noop_with_empty_axes. Float16 and
bfloat16 accumulate in float32; integers wrap in their own width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tcc.reference._numeric import Array, Ints, highest, ieee, ints, lowest, many_axes, narrow, one_axis, scalar, widen


def _axes(data: Array, axes: Ints | None, noop: int) -> tuple[int, ...]:
    if axes is None or len(ints(axes)) == 0:
        return () if noop else tuple(range(data.ndim))
    return many_axes(axes, data.ndim)


def _reduce(
    data: Array, axes: Ints | None, keepdims: int, noop: int, f: Callable[[Array, tuple[int, ...], bool], Any]
) -> Array:
    wide = widen(data)
    return narrow(f(wide, _axes(wide, axes, noop), bool(keepdims)), np.asarray(data).dtype)


def _sum(v: Array, axes: tuple[int, ...], keep: bool) -> Any:
    return np.add.reduce(v, axis=axes, keepdims=keep, dtype=v.dtype)


@ieee
def reduce_sum(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Sum; 0 over nothing. ONNX ReduceSum."""
    return _reduce(data, axes, keepdims, noop_with_empty_axes, _sum)


@ieee
def reduce_mean(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Mean; NaN over nothing; integers truncate toward zero. ONNX ReduceMean."""

    def f(v: Array, axes: tuple[int, ...], keep: bool) -> Any:
        count = int(np.prod([v.shape[a] for a in axes], dtype=np.int64))
        if v.dtype.kind == "f":
            return np.divide(_sum(v, axes, keep), count, dtype=v.dtype)
        return np.trunc(np.add.reduce(v, axis=axes, keepdims=keep, dtype=np.int64) / count)

    return _reduce(data, axes, keepdims, noop_with_empty_axes, f)


@ieee
def reduce_prod(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Product; 1 over nothing. ONNX ReduceProd."""
    return _reduce(
        data,
        axes,
        keepdims,
        noop_with_empty_axes,
        lambda v, a, k: np.multiply.reduce(v, axis=a, keepdims=k, dtype=v.dtype),
    )


def reduce_max(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Maximum, NaN if any is NaN; over nothing -inf, the least integer, or False. ONNX ReduceMax."""
    return _reduce(
        data,
        axes,
        keepdims,
        noop_with_empty_axes,
        lambda v, a, k: np.maximum.reduce(v, axis=a, keepdims=k, initial=lowest(v.dtype)),
    )


def reduce_min(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Minimum, NaN if any is NaN; over nothing +inf, the greatest integer, or True. ONNX ReduceMin."""
    return _reduce(
        data,
        axes,
        keepdims,
        noop_with_empty_axes,
        lambda v, a, k: np.minimum.reduce(v, axis=a, keepdims=k, initial=highest(v.dtype)),
    )


@ieee
def reduce_l1(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Sum of magnitudes. ONNX ReduceL1."""
    return _reduce(data, axes, keepdims, noop_with_empty_axes, lambda v, a, k: _sum(np.abs(v), a, k))


def _float_of(v: Array) -> Array:
    """Roots and logarithms of integers are taken in float64 and truncated."""
    return v if v.dtype.kind == "f" else v.astype(np.float64)


@ieee
def reduce_l2(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Square root of the sum of squares. ONNX ReduceL2."""
    return _reduce(
        data,
        axes,
        keepdims,
        noop_with_empty_axes,
        lambda v, a, k: np.sqrt(_sum(np.square(_float_of(v)), a, k)),
    )


@ieee
def reduce_sum_square(
    data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Sum of squares. ONNX ReduceSumSquare."""
    return _reduce(data, axes, keepdims, noop_with_empty_axes, lambda v, a, k: _sum(v * v, a, k))


@ieee
def reduce_log_sum(data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
    """Logarithm of the sum; -inf over nothing. ONNX ReduceLogSum."""
    return _reduce(data, axes, keepdims, noop_with_empty_axes, lambda v, a, k: np.log(_sum(_float_of(v), a, k)))


@ieee
def reduce_log_sum_exp(
    data: Array, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Logarithm of the sum of exponentials, the maximum taken out first; -inf over nothing. ONNX ReduceLogSumExp."""

    def f(v: Array, axes: tuple[int, ...], keep: bool) -> Any:
        v = _float_of(v)
        top = np.maximum.reduce(v, axis=axes, keepdims=True, initial=-np.inf)
        top = np.where(np.isinf(top), v.dtype.type(0), top)
        kept = np.log(_sum(np.exp(v - top), axes, True)) + top
        return kept if keep else np.squeeze(kept, axis=axes)

    return _reduce(data, axes, keepdims, noop_with_empty_axes, f)


def _arg(data: Array, axis: int, keepdims: int, last: int, pick: Callable[..., Array]) -> Array:
    wide = widen(data)
    at = one_axis(axis, wide.ndim)
    if last:
        index = wide.shape[at] - 1 - pick(np.flip(wide, at), axis=at)
    else:
        index = pick(wide, axis=at)
    index = np.asarray(index, np.int64)
    return np.expand_dims(index, at) if keepdims else index


def arg_max(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """int64 index of the first (or last) maximum along `axis`; NaN counts as the maximum. ONNX ArgMax."""
    return _arg(data, axis, keepdims, select_last_index, np.argmax)


def arg_min(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """int64 index of the first (or last) minimum along `axis`; NaN counts as the minimum. ONNX ArgMin."""
    return _arg(data, axis, keepdims, select_last_index, np.argmin)


def _scan(x: Array, axis: Any, exclusive: int, reverse: int, ufunc: np.ufunc) -> Array:
    wide = widen(x)
    at = one_axis(scalar(axis), wide.ndim)
    if reverse:
        wide = np.flip(wide, at)
    if exclusive:
        first = list(wide.shape)
        first[at] = min(1, wide.shape[at])
        head = np.full(first, ufunc.identity, wide.dtype)
        wide = np.concatenate([head, np.take(wide, range(max(wide.shape[at] - 1, 0)), axis=at)], axis=at)
    result = ufunc.accumulate(wide, axis=at, dtype=wide.dtype)
    return narrow(np.flip(result, at) if reverse else result, np.asarray(x).dtype)


@ieee
def cum_sum(x: Array, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running sums along `axis` (an int or a one-element array). ONNX CumSum."""
    return _scan(x, axis, exclusive, reverse, np.add)


@ieee
def cum_prod(x: Array, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running products along `axis` (an int or a one-element array). ONNX CumProd."""
    return _scan(x, axis, exclusive, reverse, np.multiply)


def top_k(x: Array, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Array, Array]:
    """The k largest (or smallest) along `axis` in order, and their int64 indices; ties keep the lower index first.

    NaN orders above every number. With sorted=0 the order is free and is the same here. `k` is an int or a one-element
    array; raises ValueError where it exceeds the axis. ONNX TopK.
    """
    wide = widen(x)
    at, count = one_axis(axis, wide.ndim), int(scalar(k))
    if not 0 <= count <= wide.shape[at]:
        raise ValueError(f"k {count} is outside [0, {wide.shape[at]}], the extent of axis {at}.")
    if largest:
        # A stable ascending sort of the reversed axis, read backwards, keeps the lower index first among equals.
        order = wide.shape[at] - 1 - np.flip(np.argsort(np.flip(wide, at), axis=at, kind="stable"), at)
    else:
        order = np.argsort(wide, axis=at, kind="stable")
    index = np.take(order, range(count), axis=at).astype(np.int64)
    return narrow(np.take_along_axis(wide, index, axis=at), np.asarray(x).dtype), index
