# SPDX-License-Identifier: Apache-2.0
"""Gathers and scatters, with indices from constants, inputs and the graph."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.table import axis_of, new, step


def indices(g: Gen, extent: int, shape: tuple[int, ...]) -> str:
    """Indices of an axis, negative ones among them: constant, an input, or computed."""
    if extent == 0:
        raise Refused("an axis without elements")
    low = 0 if g.chance(0.5) else -extent
    kind = g.pick([np.int64, np.int64, np.int32])
    at = new(g, kind, shape, low, extent - 1)
    if g.chance(0.2):
        floats = g("Mul", g("Abs", g("Cast", at, to=TensorProto.FLOAT)), g.f(1.0))
        at = g("Min", g("Cast", floats, to=TensorProto.INT64), g.const(np.int64(extent - 1)))
    return at


@step("fib", range(1, 6), weight=4)
def gather(g: Gen, x: str) -> str:
    axis = axis_of(g, x)
    shape = g.pick([(), (1,), (2,), (5,), (2, 3), (3, 1), (g.shape(x)[axis],)])
    return g("Gather", x, indices(g, g.shape(x)[axis], shape), axis=axis)


@step("fib", range(1, 5), weight=3)
def gather_elements(g: Gen, x: str) -> str:
    s = g.shape(x)
    axis = axis_of(g, x)
    shape = tuple(g.int(1, 4) if a == axis % len(s) else g.int(min(1, d), d) for a, d in enumerate(s))
    return g("GatherElements", x, indices(g, s[axis], shape), axis=axis)


@step("fib", range(1, 5), weight=2)
def gather_nd(g: Gen, x: str) -> str:
    s = g.shape(x)
    batch = g.int(0, min(2, len(s) - 1)) if g.opset >= 12 and g.chance(0.4) else 0
    count = g.int(1, len(s) - batch)
    if 0 in s:
        raise Refused("nothing to gather")
    lead = (*s[:batch], *g.ints(1, 4, g.int(1, 2)))
    at = np.stack([g.numbers(np.int64, lead, -s[batch + k], s[batch + k] - 1) for k in range(count)], -1)
    extra = {"batch_dims": batch} if batch else {}
    return g("GatherND", x, g.input(at) if g.depth == 0 and g.chance(0.3) else g.const(at), **extra)


def unique_indices(g: Gen, s: tuple[int, ...], axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """Indices along an axis no two of which are the same place."""
    out = np.empty(shape, np.int64)
    moved = np.moveaxis(out, axis, -1)
    for place in np.ndindex(moved.shape[:-1]):
        moved[place] = g.permutation(s[axis])[: moved.shape[-1]]
    return out


@step("fib", range(1, 5), weight=2)
def scatter_elements(g: Gen, x: str) -> str:
    s = g.shape(x)
    if 0 in s or math.prod(s) > 800:
        raise Refused("too many or no elements")
    axis = axis_of(g, x) % len(s)
    shape = tuple(g.int(1, d) for d in s)
    updates = new(g, g.dtype(x), shape)
    how = g.pick(["none", "none", "add", "mul", "max", "min"])
    if how != "none" and (g.opset < (16 if how in ("add", "mul") else 18) or g.kind(x) == "b"):
        raise Refused("no such reduction")
    at = unique_indices(g, s, axis, shape) if how == "none" else g.numbers(np.int64, shape, 0, s[axis] - 1)
    if g.chance(0.3):
        at = np.where(at % 2 == 0, at, at - s[axis])
    extra = {"reduction": how} if how != "none" else {}
    return g("ScatterElements", x, g.const(at), updates, axis=g.pick([axis, axis - len(s)]), **extra)


@step("fib", range(1, 5), weight=2)
def scatter_nd(g: Gen, x: str) -> str:
    s = g.shape(x)
    if 0 in s:
        raise Refused("no elements")
    count = g.int(1, len(s))
    places = math.prod(s[:count])
    how = g.pick(["none", "none", "add", "mul", "max", "min"])
    if how != "none" and (g.opset < (16 if how in ("add", "mul") else 18) or g.kind(x) == "b"):
        raise Refused("no such reduction")
    rows = g.int(1, min(5, places))
    flat = np.array(g.ints(0, places - 1, rows) if how != "none" else g.permutation(places)[:rows])
    at = np.stack(np.unravel_index(flat, s[:count]), -1).astype(np.int64)
    updates = new(g, g.dtype(x), (rows, *s[count:]))
    return g("ScatterND", x, g.const(at), updates, **({"reduction": how} if how != "none" else {}))


@step("f", range(4, 5), weight=1)
def grid_sample(g: Gen, x: str) -> str:
    if 0 in g.shape(x):
        raise Refused("nothing to sample")
    n = g.shape(x)[0]
    points = g("Tanh", new(g, np.float32, (n, g.int(1, 4), g.int(1, 4), 2)))
    modes = ["bilinear", "nearest", "bicubic"] if g.opset < 20 else ["linear", "nearest", "cubic"]
    return g("GridSample", x, g("Mul", points, g.f(1.125)), mode=g.pick(modes),
             padding_mode=g.pick(["zeros", "border", "reflection"]), align_corners=g.pick([0, 1]))  # fmt: skip


@step("f", range(4, 5), weight=1)
def roi(g: Gen, x: str) -> str:
    """Boxes of the picture pooled to one size."""
    n, _, h, w = g.shape(x)
    if 0 in g.shape(x):
        raise Refused("nothing to pool")
    count = g.int(1, 3)
    corners = np.sort(np.abs(g.normal(count, 2, 2)) * np.float32(0.4), axis=1) + np.float32(0.05)
    boxes = (np.minimum(corners, 1) * np.array([w, h], np.float32)).reshape(count, 4)
    batch = g.const(np.array(g.ints(0, n - 1, count), np.int64))
    extra = {"coordinate_transformation_mode": g.pick(["half_pixel", "output_half_pixel"])} if g.opset >= 16 else {}
    size = {"output_height": g.int(1, 3), "output_width": g.int(1, 3)}
    # ONNX Runtime is wrong about the maxima of several samples.
    how = {"sampling_ratio": g.pick([0, 1, 2])} if g.chance(0.7) else {"sampling_ratio": 1, "mode": "max"}
    return g("RoiAlign", x, g.const(boxes.astype(np.float32)), batch, **size, **how, **extra)
