# SPDX-License-Identifier: Apache-2.0
"""Extents that data decide: NonZero, Compress, Unique, NonMaxSuppression, Range, slices up to a computed place and
branches of two shapes, and what may follow them whatever the extent is.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.control import deeper, finish, graph, result
from tests.random_graphs.steps.pointwise import activation
from tests.random_graphs.steps.table import axis_of, step


def followed(g: Gen, x: str, axis: int, most: int = 3) -> None:
    """Add a few steps to x, whose extent along `axis` is not known; nothing else takes their results."""
    if g.kind(x) != "f":
        x = g("Cast", x, to=TensorProto.FLOAT)
    for _ in range(g.int(1, most)):
        rank = len(g.shape(x))
        how = g.pick(["unary", "scale", "softmax", "others", "reduce", "transpose", "matmul", "twice", "thin", "sum",
                      "flat", "norm", "expression"])  # fmt: skip
        if how == "unary":
            x = activation(g, x)
        elif how == "scale":
            x = g(g.pick(["Mul", "Add", "Max"]), x, g.weights(*g.pick([(), (1,)]), like=x))
        elif how == "softmax":
            x = g("Softmax", x, axis=g.int(0, rank - 1)) if g.opset >= 13 else g("Tanh", x)
        elif how == "others" and rank > 1:
            at = g.pick([a for a in range(rank) if a != axis])
            x = g.reduce(g.pick(["Sum", "Max", "Mean"]), x, [at], 1)
        elif how == "reduce":
            # Sums and largest values of nothing are defined; a mean of nothing is not.
            g.reduce(g.pick(["Sum", "SumSquare", "L1", "Mean", "Max"]), x, [axis], g.pick([0, 1]))
            return
        elif how == "transpose":
            perm = g.permutation(rank)
            x, axis = g("Transpose", x, perm=perm), perm.index(axis)
        elif how == "matmul" and axis != rank - 1:
            k = g.shape(x)[-1]
            x = g("MatMul", x, g.weights(k, g.int(1, 6), scale=1 / math.sqrt(max(1, k)), like=x))
        elif how == "twice":
            x = g("Concat", x, g("Neg", x), axis=axis)
        elif how == "thin":
            x = g("Slice", x, g.i(g.int(0, 1)), g.i(2**31), g.i(axis), g.i(g.pick([1, 2])))
        elif how == "sum":
            x = g("CumSum", x, g.const(np.int64(axis)), reverse=g.pick([0, 1]))
        elif how == "flat":
            x, axis = g("Reshape", x, g.i(-1)), 0
        elif how == "norm" and axis != rank - 1 and g.opset >= 17:
            x = g("LayerNormalization", x, g.weights(g.shape(x)[-1], like=x), axis=-1, epsilon=0.01)
        elif how == "expression":
            x = g("Add", activation(g, x), activation(g, x))


def flags(g: Gen, x: str) -> str:
    """Truth values that x decides."""
    return g(g.pick(["Greater", "Less"]), x, g.f(g.pick([0.0, 0.5, -1.0]), x))


@step("f", range(1, 4))
def places(g: Gen, x: str) -> None:
    """The places of what is larger than something, and what is there."""
    with g.freed():
        found = g("NonZero", flags(g, x))
        if g.chance(0.4):
            followed(g, found, 1)
        else:
            followed(g, g("GatherND", x, g("Transpose", found, perm=[1, 0])), 0)


@step("f", range(1, 5))
def compressed(g: Gen, x: str) -> None:
    axis = axis_of(g, x)
    others = [a for a in range(len(g.shape(x))) if a != axis % len(g.shape(x))]
    if 0 in g.shape(x):
        raise Refused("no elements")
    with g.freed():
        row = g.reduce("Mean", x, others, 0) if others else x
        followed(g, g("Compress", x, flags(g, row), axis=axis), axis % len(g.shape(x)))


@step("i", range(1, 4), weight=1)
def distinct(g: Gen, x: str) -> None:
    if 0 in g.shape(x):
        raise Refused("no elements")
    with g.freed():
        y, _, _, counts = g.many("Unique", [x], 4, sorted=1)
        followed(g, g.pick([y, counts]), 0)


@step("f", range(2, 4), weight=1)
def boxes(g: Gen, x: str) -> None:
    """Boxes from numbers, and those that do not overlap."""
    if g.dtype(x) != np.float32 or math.prod(g.shape(x)) % 4 or not math.prod(g.shape(x)):
        raise Refused("no boxes")
    rows = g("Reshape", x, g.i(1, -1, 4))
    count = g.shape(rows)[1]
    corner, size = g.split(rows, 2, [2, 2])
    box = g("Concat", corner, g("Add", corner, g("Abs", size)), axis=2)
    scores = g("Sigmoid", g("MatMul", rows, g.weights(1, 4, 2)))
    with g.freed():
        limits = g.i(g.int(1, 4)), g.f(0.5), g.f(g.pick([0.3, 0.5]))
        kept = g("NonMaxSuppression", box, g("Transpose", scores, perm=[0, 2, 1]), *limits)
        at = g.squeeze(g("Slice", kept, g.i(2), g.i(3), g.i(1)), [1])
        picked = g("Gather", g("Reshape", box, g.i(count, 4)), at, axis=0)
        followed(g, picked, 0)


@step("f", range(1, 4), weight=1)
def up_to(g: Gen, x: str) -> None:
    """A slice up to a place, a range or copies of a number that data decide."""
    axis = axis_of(g, x) % len(g.shape(x))
    total = g.reduce("Sum", g("Cast", flags(g, x), to=TensorProto.INT64), list(range(len(g.shape(x)))), 0)
    few = g("Min", total, g.const(np.int64(g.int(1, 6))))
    with g.freed():
        how = g.pick(["slice", "range", "tile", "expand"])
        if how == "slice":
            end = g.squeeze(few, [0], "Unsqueeze")
            followed(g, g("Slice", x, g.i(0), end, g.i(axis)), axis)
        elif how == "range":
            numbers = g("Range", g.const(np.int64(0)), few, g.const(np.int64(1)))
            followed(g, numbers, 0)
        elif how == "tile":
            once = [g.i(1)] * (len(g.shape(x)) - 1)
            repeats = [*once[:axis], g.squeeze(few, [0], "Unsqueeze"), *once[axis:]]
            followed(g, g("Tile", x, g("Concat", *repeats, axis=0)), axis)
        else:
            wanted = g("Concat", g.squeeze(few, [0], "Unsqueeze"), g.i(*g.shape(x)), axis=0)
            followed(g, g("Expand", x, wanted), 0)


@step("f", range(1, 4), weight=1)
def two_shapes(g: Gen, x: str) -> None:
    """An If whose branches give different extents."""
    deeper(g)
    axis = axis_of(g, x) % len(g.shape(x))
    if g.shape(x)[axis] < 2:
        raise Refused("too small")
    total = g.reduce("Mean", x, list(range(len(g.shape(x)))), 0)
    condition = flags(g, total)
    bodies: list[onnx.GraphProto] = []
    for how in ("part", "twice"):
        with g.inside() as body:
            y = activation(g, x) if g.chance(0.5) else x
            y = g("Slice", y, g.i(0), g.i(-1), g.i(axis)) if how == "part" else g("Concat", y, x, axis=axis)
            made = graph(g, body, [], [result(g, body, y)])
            made.output[0].type.tensor_type.shape.dim[axis].ClearField("dim_value")
            bodies.append(made)
    name = g.fresh()
    branches = {"then_branch": bodies[0], "else_branch": bodies[1]}
    (y,) = finish(g, helper.make_node("If", [condition], [name], f"If_{name}", **branches))
    with g.freed():
        followed(g, y, axis)
