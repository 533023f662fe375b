# SPDX-License-Identifier: Apache-2.0
"""Movement by index: gathers, scatters, selections by condition, unique.

Negative indices count from the end; an index outside its axis is a ValueError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, one_axis, widen


def _wrapped(indices: Array, extent: int) -> Array:
    indices = np.asarray(indices).astype(np.int64)
    if indices.size and not (-extent <= indices.min() and indices.max() < extent):
        bad = indices[(indices < -extent) | (indices >= extent)].reshape(-1)[0]
        raise ValueError(f"index {bad} is outside [{-extent}, {extent - 1}].")
    return np.where(indices < 0, indices + extent, indices)


def gather(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """data's slices along `axis` at indices [i..]: [d0.., i.., d(axis+1)..]. ONNX Gather."""
    data = np.asarray(data)
    at = one_axis(axis, data.ndim)
    return np.take(data, _wrapped(indices, data.shape[at]), axis=at)


def _grid(indices: Array, axis: int) -> tuple[Any, ...]:
    grid: list[Any] = list(np.ogrid[tuple(np.s_[:n] for n in indices.shape)])
    grid[axis] = indices
    return tuple(grid)


def gather_elements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """out[i][j] = data[indices[i][j]][j] for axis 0, and so on; same rank, shape of indices. ONNX GatherElements."""
    data, indices = np.asarray(data), np.asarray(indices)
    at = one_axis(axis, data.ndim)
    return data[_grid(_wrapped(indices, data.shape[at]), at)]


def gather_nd(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Slices of data at the index tuples in the last dim of indices, after `batch_dims` shared dims. ONNX GatherND."""
    data, indices = np.asarray(data), np.asarray(indices)
    depth = indices.shape[-1]
    tuples = [_wrapped(indices[..., i], data.shape[batch_dims + i]) for i in range(depth)]
    batch = np.ogrid[tuple(np.s_[:n] for n in indices.shape[:batch_dims])] if batch_dims else ()
    shaped = [b.reshape(b.shape + (1,) * (indices.ndim - 1 - batch_dims)) for b in batch]
    if not tuples and not shaped:
        return np.broadcast_to(data, indices.shape[:-1] + data.shape).copy()
    where = (*shaped, *tuples)
    picked = data[tuple(where)]
    return picked.reshape(indices.shape[:-1] + data.shape[batch_dims + depth :])


_REDUCTIONS: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@ieee
def _update(result: Array, where: tuple[Any, ...], updates: Array, reduction: str) -> Array:
    if reduction == "none":
        result = result.copy()
        result[where] = updates
        return result
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction '{reduction}' is none of none, add, mul, max, min.")
    wide = widen(result).copy()
    _REDUCTIONS[reduction].at(wide, where, widen(updates))
    return narrow(wide, result.dtype)


def scatter_elements(data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    """A copy of data with out[indices[i][j]][j] = f(.., updates[i][j]) for axis 0, and so on. ONNX ScatterElements.

    `reduction` is none, add, mul, max or min; with none a repeated index keeps one of its updates, the last here.
    """
    data, indices = np.asarray(data), np.asarray(indices)
    at = one_axis(axis, data.ndim)
    return _update(data, _grid(_wrapped(indices, data.shape[at]), at), np.asarray(updates), reduction)


def scatter_nd(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """A copy of data with its slices at the index tuples of indices updated. ONNX ScatterND."""
    data, indices = np.asarray(data), np.asarray(indices)
    depth = indices.shape[-1]
    where = tuple(_wrapped(indices[..., i], data.shape[i]) for i in range(depth))
    shape = indices.shape[:-1] + data.shape[depth:]
    if np.shape(updates) != shape:
        raise ValueError(f"updates of shape {list(np.shape(updates))} where {list(shape)} is needed.")
    return _update(data, where if depth else (Ellipsis,), np.asarray(updates), reduction)


def tensor_scatter(
    past_cache: Array, update: Array, write_indices: Array | None = None, *, axis: int = -2, mode: str = "linear"
) -> Array:
    """The cache with `update` written along `axis` from write_indices[batch] on. ONNX TensorScatter.

    mode="circular" wraps around the cache; with "linear" a write past its end is a ValueError.
    """
    if mode not in ("linear", "circular"):
        raise ValueError(f"mode '{mode}' is neither linear nor circular.")
    cache, update = np.asarray(past_cache), np.asarray(update)
    at = one_axis(axis, cache.ndim)
    if at == 0:
        raise ValueError("TensorScatter cannot write along the batch axis 0.")
    start = np.zeros(cache.shape[0], np.int64) if write_indices is None else np.asarray(write_indices)
    position = start[:, None] + np.arange(update.shape[at])[None, :]
    extent = cache.shape[at]
    if mode == "circular":
        position = position % extent
    elif position.size and (position.min() < 0 or position.max() >= extent):
        raise ValueError(
            f"write indices {start.tolist()} plus {update.shape[at]} positions leave the cache of {extent}."
        )
    shape = [1] * cache.ndim
    shape[0], shape[at] = position.shape
    return _update(cache, _grid(np.broadcast_to(position.reshape(shape), update.shape), at), update, "none")


def compress(data: Array, condition: Array, *, axis: int | None = None) -> Array:
    """The slices along `axis` (elements of the flattened data when absent) whose condition holds. ONNX Compress."""
    data = np.asarray(data)
    keep = np.flatnonzero(np.asarray(condition))
    if axis is None:
        return data.reshape(-1)[keep]
    return np.take(data, keep, axis=one_axis(axis, data.ndim))


def non_zero(x: Array) -> Array:
    """The indices of the non-zero elements, int64 [rank, count], row-major; a scalar gives [0, count]. ONNX NonZero."""
    wide = widen(x)
    if wide.ndim == 0:
        return np.zeros((0, int(bool(wide))), np.int64)
    return np.array(np.nonzero(wide), np.int64).reshape(wide.ndim, -1)


def reverse_sequence(data: Array, sequence_lens: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """The first sequence_lens[i] elements along `time_axis` reversed in each batch i. ONNX ReverseSequence."""
    data, lens = np.asarray(data), np.asarray(sequence_lens)
    time = np.arange(data.shape[time_axis])
    position = np.where(time[None, :] < lens[:, None], lens[:, None] - 1 - time[None, :], time[None, :])
    shape = [1] * data.ndim
    shape[batch_axis], shape[time_axis] = position.shape
    position = position if batch_axis < time_axis else position.T
    return np.take_along_axis(data, np.broadcast_to(position.reshape(shape), data.shape), axis=time_axis)


def unique(x: Array, *, axis: int | None = None, sorted: int = 1) -> tuple[Array, Array, Array, Array]:
    """Distinct values (or slices along `axis`), their first positions, the inverse, and the counts. ONNX Unique.

    The last three are int64. sorted=0 keeps the order of first occurrence.
    """
    x = np.asarray(x)
    wide = widen(x)
    at = None if axis is None else one_axis(axis, x.ndim)
    rows = wide.reshape(-1, 1) if at is None else np.moveaxis(wide, at, 0).reshape(wide.shape[at], -1)
    if x.dtype == object or rows.shape[1] == 1:
        keys = rows[:, 0] if rows.shape[1] == 1 else np.array([tuple(r) for r in rows.tolist()], dtype=object)
        _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    else:
        _, first, inverse, counts = np.unique(rows, axis=0, return_index=True, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    values = x.reshape(-1)[first] if at is None else np.take(x, first, axis=at)
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


def one_hot(indices: Array, depth: Any, values: Array, *, axis: int = -1) -> Array:
    """values[1] where the new dim of extent `depth` at `axis` equals the index, values[0] elsewhere. ONNX OneHot.

    Indices in [-depth, -1] count from the end; others outside [0, depth) give no on-value.
    """
    count = int(np.asarray(depth).reshape(-1)[0])
    index = np.asarray(indices).astype(np.int64)
    at = one_axis(axis, index.ndim + 1)
    index = np.where((index < 0) & (index >= -count), index + count, index)
    shape = [1] * (index.ndim + 1)
    shape[at] = count
    hot = np.expand_dims(index, at) == np.arange(count).reshape(shape)
    values = np.asarray(values)
    return np.where(hot, values[1], values[0]).astype(values.dtype, copy=False)
