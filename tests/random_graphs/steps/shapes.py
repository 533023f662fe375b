# SPDX-License-Identifier: Apache-2.0
"""Shape arithmetic as exporters leave it: it is known when compiling, whatever way it is written."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper

from tests.random_graphs.evaluate import type_of
from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.table import axis_of, step


def extent(g: Gen, x: str, axis: int) -> str:
    """A vector of one extent of x, computed in the graph."""
    if g.opset >= 15 and g.chance(0.4):
        return g("Shape", x, start=axis, end=axis + 1)
    if g.chance(0.5):
        return g("Slice", g("Shape", x), g.i(axis), g.i(axis + 1), g.i(0))
    return g.squeeze(g("Gather", g("Shape", x), g.const(np.int64(axis))), [0], "Unsqueeze")


def known(g: Gen, value: str) -> str:
    """The same value; inference of the steps that follow may use it as a constant, which it folds to."""
    if value not in g.varying:
        g.consts.add(value)
    return value


@step("fib", range(1, 5), weight=3)
def reshape_by_extents(g: Gen, x: str) -> str:
    s = g.shape(x)
    if 0 in s:
        raise Refused("no elements")
    parts = [known(g, extent(g, x, a)) if g.chance(0.5) else g.i(d) for a, d in enumerate(s)]
    if len(s) > 1 and g.chance(0.5):
        product = known(g, g("Mul", parts[0], parts[1]))
        parts = [product, *parts[2:]]
    elif g.chance(0.5):
        parts[g.int(0, len(parts) - 1)] = g.i(-1)
    return g("Reshape", x, known(g, g("Concat", *parts, axis=0)))


@step("fib", range(1, 5), weight=1)
def sliced_in_half(g: Gen, x: str) -> str:
    axis = axis_of(g, x) % len(g.shape(x))
    half = known(g, g("Div", known(g, extent(g, x, axis)), g.i(2)))
    if g.shape(x)[axis] < 2:
        raise Refused("nothing to halve")
    return g("Slice", x, g.i(0), half, g.i(axis)) if g.chance(0.5) else g("Slice", x, half, g.i(2**31), g.i(axis))


@step("fib", weight=1)
def filled(g: Gen, x: str) -> str:
    """A constant of x's shape, joined with x."""
    if not g.shape(x) or math.prod(g.shape(x)) == 0:
        raise Refused("no elements")
    value = helper.make_tensor("value", type_of(g.values[x]), [1], np.asarray(g.pick([0, 1]), g.dtype(x)).reshape(1))
    y = g("ConstantOfShape", known(g, g("Shape", x)), value=value)
    if g.kind(x) == "b":
        return g("Or", x, y)
    return g("Concat", x, y, axis=0) if g.chance(0.5) or g.kind(x) == "i" else g("Sub", x, y)


@step("f", range(1, 5), weight=1)
def positions(g: Gen, x: str) -> str:
    """x and the numbers of its last axis."""
    count = known(g, g("Gather", g("Shape", x), g.const(np.int64(-1))))
    numbers = known(g, g("Range", g.const(np.int64(0)), count, g.const(np.int64(1))))
    return g("Add", x, g("Cast", numbers, to=type_of(g.values[x])))


@step("f", range(2, 3), weight=1)
def diagonal(g: Gen, x: str) -> str:
    y = g("EyeLike", x, k=g.int(-1, 1), dtype=g.pick([TensorProto.FLOAT, type_of(g.values[x])]))
    return g("Mul", x, y) if g.dtype(y) == g.dtype(x) else y
