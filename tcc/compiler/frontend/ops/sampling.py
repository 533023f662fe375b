# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that sample at computed positions: weighted sums of gathers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.windows import window
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import BOOL, I64

Place = Callable[[Value, int], tuple[Value, Value | None]]
"""(positions along spatial dim d that are whole numbers) → (indices inside it, which of them count; None: all)."""


def _reflect(f: Formula, x: Value, low: float, high: float) -> Value:
    """Positions folded into [low, high] by reflection at both ends."""
    span = high - low
    if span <= 0:
        return f.mul(x, 0.0)
    shifted = f.sub(x, low)
    folded = f.sub(shifted, f.mul(f.floor(f.div(shifted, 2 * span)), 2 * span))
    return f.add(f.where(f.less(span, folded), f.sub(2 * span, folded), folded), low)


def _cubic(f: Formula, distance: Value, a: float = -0.75) -> Value:
    """Keys' cubic convolution kernel (Keys, 1981) for |distance| < 2."""
    d = f.n.op(graph.Abs, distance)
    square = f.mul(d, d)
    cube = f.mul(square, d)
    near = f.add(f.sub(f.mul(cube, a + 2), f.mul(square, a + 3)), 1.0)
    far = f.sub(f.add(f.sub(f.mul(cube, a), f.mul(square, 5 * a)), f.mul(d, 8 * a)), 4 * a)
    return f.where(f.at_most(d, 1.0), near, f.where(f.less(d, 2.0), far, 0.0))


def _zero_outside(f: Formula, space: Sequence[int]) -> Place:
    def place(position: Value, d: int) -> tuple[Value, Value | None]:
        inside = f.both(f.at_most(0.0, position), f.at_most(position, space[d] - 1.0))
        return f.n.cast(f.clamp(f.where(inside, position, 0.0), 0.0, space[d] - 1.0), I64), inside

    return place


def _clamped(f: Formula, space: Sequence[int], d: int, position: Value) -> Value:
    finite = f.where(f.n.op(graph.IsNan, position), 0.0, position)
    return f.n.cast(f.clamp(finite, 0.0, space[d] - 1.0), I64)


def _interpolate(f: Formula, x: Value, space: Sequence[int], at: Sequence[Value], mode: str, place: Place) -> Value:
    """x [n, c, d..] at positions `at` (one [n, p] a spatial dim): [n, c, p]."""
    n = f.n
    reach = {"nearest": 1, "linear": 2, "cubic": 4}[mode]
    batch, channels = f.static(x)[:2]
    points = f.static(at[0])[1]
    flat = n.reshape(x, (batch, channels, math.prod(space)))
    dtype = n.dtype(x)
    taps: list[list[tuple[Value, Value]]] = []
    for d, a in enumerate(at):
        base = n.op(graph.Round, a) if mode == "nearest" else f.sub(f.floor(a), float(reach // 2 - 1))
        per_dim: list[tuple[Value, Value]] = []
        for t in range(reach):
            position = f.add(base, float(t)) if t else base
            distance = f.sub(position, a)
            if mode == "nearest":
                weight = f.expand(n.like(1.0, a), f.static(a))
            elif mode == "linear":
                weight = f.sub(1.0, n.op(graph.Abs, distance))
            else:
                weight = _cubic(f, distance)
            index, inside = place(position, d)
            weight = weight if inside is None else f.where(inside, weight, 0.0)
            stride = math.prod(space[d + 1 :])
            per_dim.append((f.mul(index, stride) if stride != 1 else index, n.cast(weight, dtype)))
        taps.append(per_dim)
    total: Value | None = None
    for chosen in product(*taps):
        index, weight = chosen[0]
        for more, factor in chosen[1:]:
            index, weight = f.add(index, more), f.mul(weight, factor)
        wide = f.expand(n.reshape(index, (batch, 1, points)), (batch, channels, points))
        value = n.op(graph.GatherElements, flat, wide, axis=2)
        value = f.mul(value, n.reshape(weight, (batch, 1, points)))
        total = value if total is None else f.add(total, value)
    assert total is not None
    return total


@onnx_op("GridSample")
def grid_sample(n: Node) -> Value:
    """Positions from the grid, then a weighted sum of the elements around each."""
    f = Formula(n)
    x, grid = n.input(0), n.input(1)
    # Before opset 20 the modes were called bilinear and bicubic.
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(n.attr("mode", "linear"), n.attr("mode", "linear"))
    padding = n.attr("padding_mode", "zeros")
    if mode not in ("linear", "nearest", "cubic") or padding not in ("zeros", "border", "reflection"):
        raise InputError(f"its mode {mode} or padding_mode {padding} is not one that ONNX has")
    align = n.flag("align_corners")
    wide = f.wide(x)
    dtype = n.dtype(wide)
    shape, points = f.static(x), f.static(grid)
    space, out = shape[2:], points[1:-1]
    rank = len(space)
    if points[-1] != rank or points[0] != shape[0]:
        raise InputError(f"a grid {n.type(grid)} does not fit x {n.type(x)}")
    count = math.prod(out)
    if 0 in (*shape, *points):
        return f.zeros((*shape[:2], *out), n.dtype(x))
    table = n.reshape(n.cast(f.wide(grid), dtype), (points[0], count, rank))
    borders = [(0.0, d - 1.0) if align else (-0.5, d - 0.5) for d in space]
    zero = _zero_outside(f, space)

    def place(position: Value, d: int) -> tuple[Value, Value | None]:
        if padding == "zeros":
            return zero(position, d)
        if padding == "reflection":
            position = _reflect(f, position, *borders[d])
        return _clamped(f, space, d, position), None

    at: list[Value] = []
    for d, size in enumerate(space):
        g = n.reshape(f.part(table, 2, rank - 1 - d), (points[0], count))
        p = f.div(f.add(g, 1.0), 2.0)
        p = f.mul(p, size - 1.0) if align else f.div(f.sub(f.mul(f.add(g, 1.0), float(size)), 1.0), 2.0)
        if mode == "nearest":
            p = n.op(graph.Round, p)
        if padding == "border" and mode != "cubic":
            p = f.clamp(p, 0.0, size - 1.0)
        elif padding == "reflection":
            inside = f.both(f.at_most(borders[d][0], p), f.at_most(p, borders[d][1]))
            p = f.where(inside, p, _reflect(f, p, *borders[d]))
        at.append(p)
    y = n.reshape(_interpolate(f, wide, space, at, mode, place), (*shape[:2], *out))
    kind = n.dtype(x)
    if not kind.is_float and kind is not BOOL:
        y = f.clamp(y, float(np.iinfo(kind.numpy).min), float(np.iinfo(kind.numpy).max))
    return n.cast(y, kind)


@onnx_op("DeformConv")
def deform_conv(n: Node) -> Value:
    """Columns sampled at offset positions (Dai et al., 2017; Zhu et al., 2019, with a mask), then a product."""
    f = Formula(n)
    x, w, offset = n.input(0), n.input(1), n.input(2)
    bias, mask = n.optional(3), n.optional(4)
    shape, weights = f.static(x), f.static(w)
    rank = len(shape) - 2
    kernel = weights[2:]
    groups, parts = int(n.attr("group", 1)), int(n.attr("offset_group", 1))
    at = window(n, x, kernel)
    out = f.static(offset)[2:]
    taps, count = math.prod(kernel), math.prod(out)
    batch, channels, space = shape[0], shape[1], shape[2:]
    wide = f.wide(x)
    dtype = n.dtype(wide)
    moved = n.reshape(n.cast(offset, dtype), (batch, parts, taps, rank, count))
    places = np.stack(np.unravel_index(np.arange(taps), kernel))
    grid = np.indices(out).reshape(rank, count)
    positions: list[Value] = []
    for d in range(rank):
        start = grid[d] * at.strides[d] - at.pads[d]
        base = n.constant(start[None, :] + (places[d] * at.dilations[d])[:, None], dtype)
        mine = n.reshape(f.part(moved, 3, d), (batch, parts, taps, count))
        positions.append(n.reshape(f.add(mine, base), (batch * parts, taps * count)))
    split = n.reshape(wide, (batch * parts, channels // parts, *space))
    sampled = _interpolate(f, split, space, positions, "linear", _zero_outside(f, space))
    sampled = n.reshape(sampled, (batch, parts, channels // parts, taps, count))
    if mask is not None:
        sampled = f.mul(sampled, n.reshape(n.cast(mask, dtype), (batch, parts, 1, taps, count)))
    columns = n.reshape(sampled, (batch, groups, channels // groups * taps, count))
    lhs = n.reshape(n.cast(w, dtype), (1, groups, weights[0] // groups, channels // groups * taps))
    y = n.reshape(n.op(graph.Matmul, lhs, columns), (batch, weights[0], *out))
    if bias is not None:
        y = f.add(y, n.reshape(n.cast(bias, dtype), (weights[0], *(1,) * rank)))
    return n.cast(y, n.dtype(x))
