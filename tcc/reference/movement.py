# SPDX-License-Identifier: Apache-2.0
"""Data movement that only rearranges or copies: shapes, slices, joins, padding, tiling, blocks, triangles.

Values are never changed, so every type is taken, strings (object arrays) included. Shapes, axes and counts may be
arrays or int sequences. Indexed movement is in indexing.py; generated tensors are in generate.py.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tcc.reference._numeric import Array, Ints, ints, many_axes, one_axis, per_axis, scalar, split_pads


def reshape(data: Array, shape: Ints, *, allowzero: int = 0) -> Array:
    """`data` in another shape: one -1 is inferred, 0 copies the input's dim unless allowzero. ONNX Reshape.

    Raises ValueError where the element counts disagree or a 0 has no dim to copy.
    """
    data, target = np.asarray(data), list(ints(shape))
    if not allowzero:
        for i, d in enumerate(target):
            if d == 0:
                if i >= data.ndim:
                    raise ValueError(f"shape {target} copies dim {i} of a tensor of rank {data.ndim}.")
                target[i] = data.shape[i]
    if target.count(-1) == 1:
        rest = prod(d for d in target if d != -1)
        target[target.index(-1)] = data.size // rest if rest else 0
    if -1 in target or prod(target) != data.size:
        raise ValueError(f"a tensor of shape {list(data.shape)} cannot be reshaped to {list(ints(shape))}.")
    return data.reshape(target)


def flatten(data: Array, *, axis: int = 1) -> Array:
    """`data` as a matrix: dims before `axis` make the rows, the rest the columns; axis in [-r, r]. ONNX Flatten."""
    data = np.asarray(data)
    if not -data.ndim <= axis <= data.ndim:
        raise ValueError(f"axis {axis} is outside [{-data.ndim}, {data.ndim}].")
    at = axis + data.ndim if axis < 0 else axis
    return data.reshape(prod(data.shape[:at]), prod(data.shape[at:]))


def squeeze(data: Array, axes: Ints | None = None) -> Array:
    """`data` without the dims of extent 1 named by `axes` (all of them when absent). ONNX Squeeze."""
    data = np.asarray(data)
    return np.squeeze(data, axis=None if axes is None else many_axes(axes, data.ndim))


def unsqueeze(data: Array, axes: Ints) -> Array:
    """`data` with dims of extent 1 at `axes` of the result, in any order. ONNX Unsqueeze."""
    data = np.asarray(data)
    at = many_axes(axes, data.ndim + len(ints(axes)))
    return np.expand_dims(data, at)


def transpose(data: Array, *, perm: Ints | None = None) -> Array:
    """`data` with its dims in the order `perm` (reversed when absent). ONNX Transpose."""
    return np.transpose(data, None if perm is None else ints(perm))


def expand(data: Array, shape: Ints) -> Array:
    """`data` broadcast with `shape`, both ways. ONNX Expand."""
    data = np.asarray(data)
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, ints(shape))).copy()


def tile(data: Array, repeats: Ints) -> Array:
    """`data` repeated `repeats[i]` times along dim i. ONNX Tile."""
    return np.tile(data, per_axis(repeats, np.ndim(data), 1, "repeats"))


def concat(*inputs: Array, axis: int) -> Array:
    """The inputs joined along `axis`. ONNX Concat."""
    return np.concatenate(inputs, axis=one_axis(axis, np.ndim(inputs[0])))


def split(
    data: Array, split: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> tuple[Array, ...]:
    """`data` cut along `axis` into the lengths `split`, or into num_outputs equal parts (the last smaller). ONNX Split.

    Raises ValueError where the lengths do not add up, or neither or both are given.
    """
    data = np.asarray(data)
    at = one_axis(axis, data.ndim)
    extent = data.shape[at]
    if (split is None) == (num_outputs is None):
        raise ValueError("Split needs exactly one of split and num_outputs.")
    if split is not None:
        lengths = ints(split)
    else:
        count = int(num_outputs or 0)
        chunk = -(-extent // count)
        lengths = tuple(max(0, min(chunk, extent - i * chunk)) for i in range(count))
    if sum(lengths) != extent:
        raise ValueError(f"split {list(lengths)} does not add up to {extent}, the extent of axis {at}.")
    return tuple(np.split(data, np.cumsum(lengths)[:-1], axis=at))


def slice(data: Array, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Array:
    """numpy-style slices, clamped, negative steps allowed. ONNX Slice. Raises ValueError on a zero step."""
    data = np.asarray(data)
    start, end = ints(starts), ints(ends)
    at = many_axes(axes, data.ndim) if axes is not None else tuple(range(len(start)))
    step = ints(steps) if steps is not None else (1,) * len(start)
    index: list[Any] = [_full] * data.ndim
    for a, b, e, s in zip(at, start, end, step, strict=True):
        if s == 0:
            raise ValueError(f"Slice has a zero step on axis {a}.")
        n = data.shape[a]
        b, e = (b + n if b < 0 else b), (e + n if e < 0 else e)
        if s > 0:
            b, e = min(max(b, 0), n), min(max(e, 0), n)
            index[a] = _builtin_slice(b, e, s)
        else:
            b, e = min(max(b, 0), n - 1), min(max(e, -1), n - 1)
            # A stop of -1 would count from the end in Python; None means through the first element.
            index[a] = _builtin_slice(b, None if e < 0 else e, s) if n else _full
    return data[tuple(index)]


_builtin_slice = type(np.s_[:])
_full = np.s_[:]


def pad(
    data: Array, pads: Ints, constant_value: Array | None = None, axes: Ints | None = None, *, mode: str = "constant"
) -> Array:
    """`data` grown (or, by negative pads, cropped) at both ends of `axes`. ONNX Pad.

    pads is [b0, b1, .., e0, e1, ..]; modes constant, reflect, edge, wrap. Cropping comes first. Raises ValueError on
    another mode, and where an empty dim has nothing to repeat.
    """
    data = np.asarray(data)
    at = many_axes(axes, data.ndim) if axes is not None else tuple(range(data.ndim))
    grow = [(0, 0)] * data.ndim
    for a, (begin, end) in zip(at, split_pads(pads, len(at)), strict=True):
        grow[a] = (begin, end)
    crop = tuple(_builtin_slice(max(-b, 0), max(n - max(-e, 0), 0)) for (b, e), n in zip(grow, data.shape, strict=True))
    data = data[crop]
    grow = [(max(b, 0), max(e, 0)) for b, e in grow]
    if mode == "constant":
        value = scalar(constant_value) if constant_value is not None else ("" if data.dtype == object else 0)
        shape = [n + b + e for n, (b, e) in zip(data.shape, grow, strict=True)]
        result = np.full(shape, value, data.dtype)
        result[tuple(_builtin_slice(b, b + n) for n, (b, _) in zip(data.shape, grow, strict=True))] = data
        return result
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"pad mode '{mode}' is none of constant, reflect, edge, wrap.")
    for a, (begin, end) in enumerate(grow):
        if begin or end:
            data = np.take(data, _mirror(data.shape[a], begin, end, mode), axis=a)
    return data


def _mirror(n: int, begin: int, end: int, mode: str) -> Array:
    """The source positions of an axis of extent n padded by begin and end."""
    if n == 0:
        raise ValueError(f"pad mode '{mode}' has nothing to repeat in an empty dim.")
    position = np.arange(-begin, n + end)
    if mode == "edge":
        return np.clip(position, 0, n - 1)
    if mode == "wrap":
        return position % n
    period = max(2 * (n - 1), 1)
    position = position % period
    return np.where(position < n, position, period - position)


def depth_to_space(data: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """[n, c, h, w] -> [n, c / b**2, h b, w b], channels depth-column-row or column-row-depth. ONNX DepthToSpace."""
    n, c, h, w = np.shape(data)
    b = blocksize
    if c % (b * b):
        raise ValueError(f"{c} channels are not a multiple of blocksize {b} squared.")
    if mode == "DCR":
        blocks = np.reshape(data, (n, b, b, c // (b * b), h, w)).transpose(0, 3, 4, 1, 5, 2)
    elif mode == "CRD":
        blocks = np.reshape(data, (n, c // (b * b), b, b, h, w)).transpose(0, 1, 4, 2, 5, 3)
    else:
        raise ValueError(f"mode '{mode}' is neither DCR nor CRD.")
    return blocks.reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(data: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """[n, c, h, w] -> [n, c b**2, h / b, w / b], the inverse of depth_to_space. ONNX SpaceToDepth."""
    n, c, h, w = np.shape(data)
    b = blocksize
    if h % b or w % b:
        raise ValueError(f"spatial dims {h} x {w} are not multiples of blocksize {b}.")
    blocks = np.reshape(data, (n, c, h // b, b, w // b, b))
    if mode == "DCR":
        blocks = blocks.transpose(0, 3, 5, 1, 2, 4)
    elif mode == "CRD":
        blocks = blocks.transpose(0, 1, 3, 5, 2, 4)
    else:
        raise ValueError(f"mode '{mode}' is neither DCR nor CRD.")
    return blocks.reshape(n, c * b * b, h // b, w // b)


def trilu(data: Array, k: Any = None, *, upper: int = 1) -> Array:
    """The upper or lower triangle of the last two dims from diagonal k, zeros elsewhere. ONNX Trilu."""
    data = np.asarray(data)
    diagonal = 0 if k is None else int(scalar(k))
    rows, columns = np.ogrid[: data.shape[-2], : data.shape[-1]]
    kept = columns - rows >= diagonal if upper else columns - rows <= diagonal
    return np.where(kept, data, np.zeros((), data.dtype)).astype(data.dtype, copy=False)


def center_crop_pad(data: Array, shape: Ints, *, axes: Ints | None = None) -> Array:
    """`data` cropped or zero-padded around its centre to the extents `shape` of `axes`. ONNX CenterCropPad.

    An odd crop takes the extra element off the end, an odd pad adds it at the end.
    """
    data = np.asarray(data)
    at = many_axes(axes, data.ndim) if axes is not None else tuple(range(data.ndim))
    for a, extent in zip(at, ints(shape), strict=True):
        n = data.shape[a]
        if extent < n:
            start = (n - extent) // 2
            data = np.take(data, range(start, start + extent), axis=a)
        elif extent > n:
            before = (extent - n) // 2
            data = pad(data, (before, extent - n - before), axes=(a,))
    return data
