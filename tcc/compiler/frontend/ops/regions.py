# SPDX-License-Identifier: Apache-2.0
"""ONNX operators on regions of interest: RoiAlign and MaxRoiPool.

The samples of a bin are not laid out, as a region may decide how many there are: interpolation is separable, so a bin
is a weighted sum over the rows and columns of pixels that its samples touch, and of samples that lie half a pixel or
more apart a pixel has few. Positions are computed in f64, as they decide which pixels are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, mul, product
from tcc.ir.types import F64, I64

TAPS = 6
"""Samples that a pixel may have of one bin: at most 4 lie less than a pixel away, and the first is found to one."""


@onnx_op("RoiAlign")
def roi_align(n: Node) -> Value:
    """Bins of regions (He et al., 2017, Mask R-CNN), `sampling_ratio` samples a side each; 0: as many as make them
    less than a pixel apart."""
    f = Formula(n)
    x, rois, batches = n.input(0), n.input(1), n.input(2)
    mode = n.attr("mode", "avg")
    half = n.attr("coordinate_transformation_mode", "half_pixel" if n.opset >= 16 else "output_half_pixel")
    if mode not in ("avg", "max") or half not in ("half_pixel", "output_half_pixel"):
        raise InputError(f"its mode {mode} or coordinate_transformation_mode {half} is not one that ONNX has")
    bins = int(n.attr("output_height", 1)), int(n.attr("output_width", 1))
    boxes = f.sub(f.mul(n.cast(rois, F64), float(n.attr("spatial_scale", 1.0))), 0.5 if half == "half_pixel" else 0.0)
    x1, y1, x2, y2 = (f.part(boxes, 1, i) for i in range(4))

    def extent(low: Value, high: Value) -> Value:
        size = f.sub(high, low)
        return size if half == "half_pixel" else f.most(size, 1.0)

    sides = (y1, extent(y1, y2)), (x1, extent(x1, x2))
    ratio = int(n.attr("sampling_ratio", 0))
    wide = n.transpose(f.wide(x), (0, 2, 3, 1))
    # Samples more than a pixel apart leave pixels out between them, which a maximum must not count.
    build = _fixed if ratio > 0 and mode == "max" else _weighted
    y = build(f, wide, n.cast(batches, I64), sides, bins, mode, ratio)
    return n.cast(n.transpose(y, (0, 3, 1, 2)), n.dtype(x))


def _extent(f: Formula, size: Dim) -> Value:
    """An extent, which data may decide, as an f64."""
    n = f.n
    return (
        n.constant(size, F64) if isinstance(size, int) else n.cast(n.reshape(n.op(graph.Dims, values=(size,)), ()), F64)
    )


def _within(f: Formula, x: Value, high: Value) -> Value:
    """x between 0 and `high`."""
    return f.least(f.most(x, 0.0), high)


def _corners(f: Formula, position: Value, size: Dim) -> list[tuple[Value, Value]]:
    """(index, weight) of the two pixels around each position; beyond one pixel out nothing counts."""
    end = _extent(f, size)
    top = f.sub(end, 1.0)
    live = f.n.cast(f.both(f.at_most(-1.0, position), f.at_most(position, end)), f.n.dtype(position))
    p = _within(f, position, top)
    low = f.floor(p)
    above = f.sub(p, low)
    first = f.n.cast(low, I64)
    second = f.n.cast(_within(f, f.add(low, 1.0), top), I64)
    return [(first, f.mul(f.sub(1.0, above), live)), (second, f.mul(above, live))]


Sides = tuple[tuple[Value, Value], tuple[Value, Value]]
"""(where regions begin [k, 1], their extents [k, 1]) of rows and of columns."""


def _fixed(
    f: Formula, x: Value, batches: Value, sides: Sides, bins: tuple[int, int], mode: str, ratio: int
) -> Value:  # fmt: skip
    """x [n, h, w, c] at `ratio` samples a side of every bin: gathers, and a reduction."""
    n = f.n
    batch, height, width, channels = n.shape(x)
    count = n.shape(batches)[0]
    row, picture = (n.cast(_extent(f, d), I64) for d in (width, mul(height, width)))
    corners: list[list[tuple[Value, Value]]] = []
    for (low, extent), many, size in zip(sides, bins, (height, width), strict=True):
        steps = n.constant((np.arange(many * ratio) + 0.5).reshape(1, -1), F64)
        corners.append(_corners(f, f.add(low, f.mul(steps, f.div(extent, float(many * ratio)))), size))
    pixels = n.reshape(x, (product((batch, height, width)), channels))
    start = n.reshape(f.mul(batches, picture), (count, 1, 1))
    samples = bins[0] * ratio, bins[1] * ratio
    total: Value | None = None
    for (i, v), (j, u) in itertools.product(*corners):
        index = f.add(f.mul(n.reshape(i, (count, samples[0], 1)), row), n.reshape(j, (count, 1, samples[1])))
        weight = f.mul(n.reshape(v, (count, samples[0], 1, 1)), n.reshape(u, (count, 1, samples[1], 1)))
        value = f.mul(n.op(graph.Gather, pixels, f.add(index, start), axis=0), n.cast(weight, n.dtype(x)))
        total = value if total is None else f.add(total, value) if mode == "avg" else f.most(total, value)
    assert total is not None
    parts = n.reshape(total, (count, bins[0], ratio, bins[1], ratio, channels))
    return f.reduce(parts, "mean" if mode == "avg" else "max", 2, 4)


@dataclass(frozen=True)
class _Side:
    """The samples of one side, f64: `low` [k, 1] where a region begins, `count` [k, 1] samples a bin, `step` [k, 1]
    between two of them; of `bins` bins along `size` pixels. Sample m of a region is at low + (m + 1/2) step."""

    f: Formula
    low: Value
    count: Value
    step: Value
    bins: int
    size: Dim
    ratio: int

    @staticmethod
    def of(f: Formula, low: Value, extent: Value, bins: int, size: Dim, ratio: int) -> _Side:
        """`ratio` samples a bin; 0: as many as lie at most a pixel apart."""
        if ratio:
            count = f.expand(f.n.constant(float(ratio), F64), f.n.shape(low))
            return _Side(f, low, count, f.div(extent, float(bins * ratio)), bins, size, ratio)
        bin_size = f.div(extent, float(bins))
        count = f.most(f.n.op(graph.Ceil, bin_size), 0.0)
        return _Side(f, low, count, f.div(bin_size, f.most(count, 1.0)), bins, size, ratio)

    def at(self, sample: Value) -> Value:
        """The position of a sample."""
        return self.f.add(self.low, self.f.mul(self.f.add(sample, 0.5), self.step))

    @property
    def counted(self) -> bool:
        """Whether data decide the counts."""
        return self.ratio == 0

    @property
    def first(self) -> Value:
        """The number of each bin's first sample: [k, bins]."""
        return self.f.mul(self.f.n.constant(np.arange(self.bins).reshape(1, -1), F64), self.count)

    @property
    def last(self) -> Value:
        """The number of each bin's last sample: [k, bins]."""
        return self.f.add(self.first, self.f.sub(self.count, 1.0))

    def pixel(self, position: Value) -> Value:
        """The first of the two pixels around each position."""
        return self.f.floor(_within(self.f, position, self.top))

    @property
    def end(self) -> Value:
        """How many pixels there are."""
        return _extent(self.f, self.size)

    @property
    def top(self) -> Value:
        """The last pixel."""
        return self.f.sub(self.end, 1.0)

    def bounds(self) -> Value:
        """The pixels that a bin's samples touch, from the first to behind the last: i64 [k, bins, 2]."""
        f, n = self.f, self.f.n
        ends = [self.pixel(self.at(v)) for v in (self.first, self.last)]
        # A region that ends before it begins is sampled backwards.
        begin = f.least(*ends)
        end = _within(f, f.add(f.most(*ends), 2.0), self.end)
        end = f.where(f.less(0.0, self.count), end, 0.0)
        shape = (*n.shape(begin), 1)
        return f.concat([n.reshape(n.cast(v, I64), shape) for v in (begin, end)], 2)

    def cube(self, v: Value, *axes: int) -> Value:
        """A value whose dims are some of region, bin and pixel as one of all three."""
        shape = iter(self.f.n.shape(v))
        return self.f.n.reshape(v, tuple(next(shape) if a in axes else 1 for a in range(3)))

    def weights(self, kind: str) -> Value:
        """What the samples of a bin weigh a pixel with, [k, bins, pixels]: in "sum", or the "max" or "min" of single
        ones, which are right within the bounds only."""
        f, n = self.f, self.f.n
        numbers = (
            n.constant(np.arange(self.size)) if isinstance(self.size, int) else n.op(graph.Iota, size=(self.size,))
        )
        pixel = n.reshape(n.cast(numbers, F64), (1, 1, self.size))
        top, end = self.top, self.end
        low, count, step = (self.cube(v, 0, 1) for v in (self.low, self.count, self.step))
        first, last = (self.cube(v, 0, 1) for v in (self.first, self.last))
        start = first
        if self.counted:
            near = f.where(f.less(0.0, count), step, 1.0)
            start = f.most(f.floor(f.sub(f.div(f.sub(f.sub(pixel, 1.0), low), near), 0.5)), first)
        sample = f.add(start, n.constant(np.arange(self.ratio or TAPS).reshape(-1, 1, 1, 1), F64))
        position = f.add(low, f.mul(f.add(sample, 0.5), step))
        inside = f.both(f.at_most(-1.0, position), f.at_most(position, end))
        inside = f.both(inside, f.at_most(sample, last))
        at = _within(f, position, top)
        weight = f.most(f.sub(1.0, n.op(graph.Abs, f.sub(at, pixel))), 0.0)
        if kind != "min":
            return f.reduce(f.where(inside, weight, 0.0), kind, 0)
        before = f.floor(at)
        after = _within(f, f.add(before, 1.0), top)
        touched = n.op(graph.Or, f.equal(before, pixel), f.equal(after, pixel))
        least = f.reduce(f.where(f.both(inside, touched), weight, 1.0), kind, 0)
        # Samples at or beyond a border touch the pixel there and the next one, or that one again, with weight 0; those
        # more than a pixel out touch both with weight 0.
        head, tail = (self.cube(self.at(v), 0, 1) for v in (self.first, self.last))
        outer = f.both(f.at_most(head, 0.0), f.equal(pixel, f.least(1.0, top)))
        outer = n.op(graph.Or, outer, f.both(f.less(head, -1.0), f.equal(pixel, 0.0)))
        outer = n.op(graph.Or, outer, f.both(f.at_most(top, tail), f.equal(pixel, top)))
        return f.where(outer, 0.0, least)


def _weighted(
    f: Formula, x: Value, batches: Value, sides: Sides, bins: tuple[int, int], mode: str, ratio: int
) -> Value:  # fmt: skip
    """x [n, h, w, c] as weighted sums or maxima over the pixels that samples touch."""
    n = f.n
    _, height, width, _ = n.shape(x)
    both = [
        _Side.of(f, low, extent, many, size, ratio)
        for (low, extent), many, size in zip(sides, bins, (height, width), strict=True)
    ]
    bounds = [side.bounds() for side in both]

    def reduced(kind: str) -> Value:
        weights = [side.weights(kind) for side in both]
        if kind == "sum":
            each = [f.most(side.cube(side.count, 0, 1), 1.0) for side in both]
            weights = [f.div(w, count) for w, count in zip(weights, each, strict=True)]
        given = [n.cast(w, n.dtype(x)) for w in weights]
        return n.op(graph.RegionReduce, x, batches, *bounds, *given, kind="sum" if kind == "sum" else "max")

    if mode == "avg":
        return reduced("sum")
    # The largest product of a pixel is that of its largest weight, or, where the pixel is negative, of its least.
    return f.most(reduced("max"), reduced("min"))


@onnx_op("MaxRoiPool")
def max_roi_pool(n: Node) -> Value:
    """Maxima over a grid of bins of each region (Girshick, 2015, Fast R-CNN)."""
    f = Formula(n)
    x, rois = n.input(0), n.input(1)
    bins: Sequence[int] = n.attr("pooled_shape")
    if len(bins) != 2 or min(bins) < 1 or n.rank(x) != 4:
        raise InputError(f"its pooled_shape {list(bins)} or x {n.type(x)} is not that of pictures")
    _, _, height, width = n.shape(x)
    boxes = n.cast(rois, F64)
    batch = n.reshape(n.cast(f.part(boxes, 1, 0), I64), (n.shape(rois)[0],))
    corners = f.floor(f.add(f.mul(boxes, float(n.attr("spatial_scale", 1.0))), 0.5))
    x1, y1, x2, y2 = (f.part(corners, 1, 1 + i) for i in range(4))

    def bounds(low: Value, high: Value, many: int, size: Dim) -> Value:
        step = f.div(f.most(f.add(f.sub(high, low), 1.0), 1.0), float(many))

        def edge(cls: type[graph.GraphOp], first: int) -> Value:
            number = n.constant((np.arange(many) + first).reshape(1, -1), F64)
            return _within(f, f.add(n.op(cls, f.mul(number, step)), low), _extent(f, size))

        ends = edge(graph.Floor, 0), edge(graph.Ceil, 1)
        shape = (n.shape(rois)[0], many, 1)
        return f.concat([n.reshape(n.cast(e, I64), shape) for e in ends], 2)

    at = bounds(y1, y2, bins[0], height), bounds(x1, x2, bins[1], width)
    y = n.op(graph.RegionReduce, n.transpose(f.wide(x), (0, 2, 3, 1)), batch, *at, kind="max")
    return n.cast(n.transpose(y, (0, 3, 1, 2)), n.dtype(x))
