# SPDX-License-Identifier: Apache-2.0
"""Reductions, running sums, choices of the largest."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.random_graphs.evaluate import type_of
from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.table import axis_of, step


def some_axes(g: Gen, x: str) -> list[int]:
    """At least one axis, some of them negative; Refused for scalars."""
    rank = len(g.shape(x))
    if rank == 0:
        raise Refused("a scalar has no axes")
    return [a - rank if g.chance(0.3) else a for a in g.subset(range(rank), 1)]


@step(weight=5)
def reduction(g: Gen, x: str) -> str:
    kind = g.pick(["Mean", "Max", "Sum", "Min", "L2", "SumSquare", "L1", "LogSumExp", "Prod", "LogSum"])
    keep = g.pick([1, 1, 0])
    if kind == "LogSum":
        x = g("Add", g("Abs", x), g.f(0.25, x))
    if not g.shape(x) or g.chance(0.1):
        extra = {"noop_with_empty_axes": g.pick([0, 1])} if g.opset >= 18 and g.chance(0.3) else {}
        y = g(f"Reduce{kind}", x, keepdims=keep, **extra)
        return g("Tanh", y) if kind == "Prod" else y
    y = g.reduce(kind, x, some_axes(g, x), keep)
    if keep and g.chance(0.4):
        return g(g.pick(["Sub", "Add", "Mul", "Max"]), x, y)
    return y


@step("i")
def integer_reduction(g: Gen, x: str) -> str:
    kind = g.pick(["Sum", "Max", "Min", "Prod", "SumSquare", "L1", "Mean"])
    if kind in ("Prod", "SumSquare"):
        x = g("Clip", x, *(g.const(np.array(v, g.dtype(x))) for v in (0, 2)))
    return g.reduce(kind, x, some_axes(g, x), g.pick([0, 1]))


@step("b", weight=1)
def any_or_all(g: Gen, x: str) -> str:
    if g.opset >= 20 and g.chance(0.6):
        return g.reduce(g.pick(["Max", "Min"]), x, some_axes(g, x), g.pick([0, 1]))
    y = g.reduce("Sum", g("Cast", x, to=TensorProto.INT64), some_axes(g, x), g.pick([0, 1]))
    return g("Greater", y, g.const(np.int64(g.int(0, 2))))


@step("fi", weight=2)
def arg(g: Gen, x: str) -> str:
    extra = {"select_last_index": 1} if g.opset >= 12 and g.chance(0.3) else {}
    return g(g.pick(["ArgMax", "ArgMin"]), x, axis=axis_of(g, x), keepdims=g.pick([0, 1]), **extra)


@step("fi")
def top(g: Gen, x: str) -> str:
    axis = axis_of(g, x)
    extent = g.shape(x)[axis]
    if g.kind(x) == "i" and np.unique(g.values[x]).size < g.values[x].size and not g.chance(0.1):
        raise Refused("ties may come in any order")
    k = g.int(min(1, extent), extent)
    values, at = g.many("TopK", [x, g.i(k)], 2, axis=axis, largest=g.pick([1, 0]), sorted=1)
    g.alive.append(at)
    return values


@step("fi")
def cumulative(g: Gen, x: str) -> str:
    axis = np.array(axis_of(g, x), g.pick([np.int64, np.int32]))
    op = "CumProd" if g.opset >= 26 and g.kind(x) == "f" and g.chance(0.4) else "CumSum"
    y = g("Tanh", x) if op == "CumProd" else x
    return g(op, y, g.const(axis), reverse=g.pick([0, 1]), exclusive=g.pick([0, 1]))


@step(weight=3)
def softmax(g: Gen, x: str) -> str:
    axis = axis_of(g, x)
    if axis < 0 and g.opset < 11:
        axis += len(g.shape(x))
    return g(g.pick(["Softmax", "Softmax", "Softmax", "LogSoftmax", "Hardmax"]), x, axis=axis)


@step(weight=1)
def spread(g: Gen, x: str) -> str:
    """Variance as exporters write it."""
    axes = some_axes(g, x)
    d = g("Sub", x, g.reduce("Mean", x, axes, 1))
    v = g.reduce("Mean", g("Mul", d, d), axes, g.pick([0, 1]))
    return g("Sqrt", g("Add", v, g.f(0.01, x)))


@step("fib", weight=1)
def counted(g: Gen, x: str) -> str:
    """The number of elements or an extent, as a number again."""
    y = g("Size", x) if g.chance(0.5) or not g.shape(x) else g("Gather", g("Shape", x), g.const(np.int64(0)))
    return g("Cast", y, to=type_of(g.values[x])) if g.kind(x) == "f" else y
