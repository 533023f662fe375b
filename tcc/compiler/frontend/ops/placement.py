# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that put elements at places: Col2Im, ReverseSequence, TensorScatter; and Det."""

from __future__ import annotations

import math

import numpy as np

from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import I64


def _per_axis(n: Node, name: str, rank: int, default: int, count: int = 1) -> list[int]:
    values = [int(v) for v in n.attr(name, [default] * rank * count)]
    if len(values) != rank * count:
        raise InputError(f"its {name} {values} have {len(values)} entries and {rank * count} are needed")
    return values


def _contributions(
    image: list[int], block: list[int], strides: list[int], pads: list[int], dilations: list[int]
) -> tuple[np.ndarray, int]:
    """(for each pixel the places tap · blocks + block that are summed there, -1 for none; the number of blocks)."""
    rank = len(image)
    counts = [
        (n + pads[i] + pads[rank + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i, n in enumerate(image)
    ]
    blocks = math.prod(counts)
    pixels = math.prod(image)
    taps = np.indices(block).reshape(rank, -1)
    found = np.full((pixels, taps.shape[1]), -1, np.int64)
    at = np.indices(image).reshape(rank, -1)
    for t in range(taps.shape[1]):
        place = np.zeros(pixels, np.int64)
        inside = np.ones(pixels, bool)
        for i in range(rank):
            offset = at[i] + pads[i] - taps[i, t] * dilations[i]
            step = offset // strides[i]
            inside &= (offset % strides[i] == 0) & (step >= 0) & (step < counts[i])
            place = place * counts[i] + step
        found[:, t] = np.where(inside, t * blocks + place, -1)
    # Few taps reach a pixel: those that do come first.
    found = np.take_along_axis(found, np.argsort(found < 0, axis=1, kind="stable"), 1)
    most = int((found >= 0).sum(1).max(initial=0))
    return found[:, : max(most, 1)], blocks


@onnx_op("Col2Im")
def col2im(n: Node) -> Value:
    """Each pixel sums the elements of the columns that came from it, at places known when compiling."""
    f = Formula(n)
    x = n.input(0)
    image, block = n.ints(1, "image_shape"), n.ints(2, "block_shape")
    rank = len(image)
    strides, dilations = _per_axis(n, "strides", rank, 1), _per_axis(n, "dilations", rank, 1)
    pads = _per_axis(n, "pads", rank, 0, 2)
    shape, taps = f.static(x), math.prod(block)
    places, blocks = _contributions(image, block, strides, pads, dilations)
    if len(shape) != 3 or shape[1] % taps or shape[2] != blocks:
        raise InputError(f"columns {n.type(x)} do not fit an image {image} and blocks {block}")
    channels = shape[1] // taps
    columns = n.reshape(x, (shape[0], channels, taps * blocks))
    # One more element, a zero, stands for the places that there are none of.
    columns = n.op(graph.Pad, columns, before=(0, 0, 0), after=(0, 0, 1), value=0)
    table = n.constant(np.where(places < 0, taps * blocks, places), I64)
    y = f.reduce(n.op(graph.Gather, columns, table, axis=2), "sum", 3)
    return n.reshape(y, (shape[0], channels, *image))


@onnx_op("ReverseSequence")
def reverse_sequence(n: Node) -> Value:
    """The first sequence_lens[i] elements along the time axis read backwards."""
    f = Formula(n)
    x, lengths = n.input(0), n.cast(n.input(1), I64)
    shape = f.static(x)
    rank = len(shape)
    time, batch = n.axis(int(n.attr("time_axis", 0)), rank), n.axis(int(n.attr("batch_axis", 1)), rank)
    if {time, batch} != {0, 1}:
        raise InputError(f"its time_axis {time} and batch_axis {batch} must be 0 and 1")
    steps = n.constant(np.arange(shape[time]).reshape([-1 if i == time else 1 for i in range(rank)]), I64)
    ends = n.reshape(lengths, [shape[batch] if i == batch else 1 for i in range(rank)])
    place = f.where(f.less(steps, ends), f.sub(f.sub(ends, steps), 1), steps)
    return n.op(graph.GatherElements, x, f.expand(place, shape), axis=time)


@onnx_op("TensorScatter")
def tensor_scatter(n: Node) -> Value:
    """The cache, or the update where the distance from the place of writing is within it."""
    f = Formula(n)
    cache, update = n.input(0), n.input(1)
    shape, extent = f.static(cache), f.static(update)
    rank = len(shape)
    axis = n.axis(int(n.attr("axis", -2)), rank)
    mode = n.attr("mode", "linear")
    if axis == 0 or mode not in ("linear", "circular"):
        raise InputError(f"its axis {axis} or mode {mode} is not one that ONNX has")
    steps = n.constant(np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(rank)]), I64)
    distance = steps
    if n.optional(2) is not None:
        starts = n.reshape(n.cast(n.input(2), I64), (shape[0], *(1,) * (rank - 1)))
        distance = f.sub(steps, starts)
    if mode == "circular":
        distance = f.mod(distance, shape[axis])
    inside = f.both(f.at_most(0, distance), f.less(distance, extent[axis]))
    place = f.clamp(distance, 0, max(extent[axis] - 1, 0))
    if 0 in extent:
        return cache
    written = n.op(graph.GatherElements, update, f.expand(place, shape), axis=axis)
    return n.op(graph.Where, inside, written, cache)


@onnx_op("Det")
def det(n: Node) -> Value:
    """Gaussian elimination with partial pivoting (Golub and Van Loan, Matrix Computations, 3.4), one step an op list:
    the pivot's row is taken out, the first row takes its place, and the rest is reduced by one row and column."""
    f = Formula(n)
    x = n.input(0)
    shape = f.static(x)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise InputError(f"x is {n.type(x)}, and square matrices are needed")
    count, size = math.prod(shape[:-2]), shape[-1]
    rest = n.reshape(f.wide(x), (count, size, size))
    result = f.expand(n.like(1.0, rest), (count,))
    for left in range(size, 0, -1):
        column = n.reshape(f.part(rest, 2, 0), (count, left))
        if left == 1:
            result = f.mul(result, n.reshape(column, (count,)))
            break
        place = n.op(graph.ArgReduce, n.op(graph.Abs, column), kind="max", axis=1, keepdims=True)
        row = n.op(graph.GatherElements, rest, f.expand(n.reshape(place, (count, 1, 1)), (count, 1, left)), axis=1)
        pivot = n.reshape(f.part(row, 2, 0), (count,))
        moved = n.cast(f.equal(n.reshape(place, (count,)), 0), n.dtype(rest))
        result = f.mul(f.mul(result, pivot), f.sub(f.mul(moved, 2.0), 1.0))
        rows = n.constant(np.arange(1, left).reshape(1, left - 1), I64)
        source = n.reshape(f.where(f.equal(rows, place), 0, rows), (count, left - 1, 1))
        others = n.op(graph.GatherElements, rest, f.expand(source, (count, left - 1, left)), axis=1)
        safe = n.reshape(f.where(f.equal(pivot, 0.0), 1.0, pivot), (count, 1, 1))
        factor = f.div(f.part(others, 2, 0), safe)
        rest = f.sub(f.part(others, 2, 1, left - 1), f.mul(factor, f.part(row, 2, 1, left - 1)))
    return n.cast(n.reshape(result, shape[:-2]), n.dtype(x))
