# SPDX-License-Identifier: Apache-2.0
"""Steps on integers and on truth values."""

from __future__ import annotations

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.table import new, partner, step


@step("i", weight=4)
def arithmetic(g: Gen, x: str) -> str:
    if g.dtype(x).itemsize < 4 and g.opset < 14:
        raise Refused("arithmetic on narrow integers begins at opset 14")
    op = g.pick(["Add", "Sub", "Mul", "Max", "Min"])
    return g(op, x, partner(g, x))


@step("i")
def divided(g: Gen, x: str) -> str:
    """Quotients and remainders, of both signs."""
    y = partner(g, x, 1, 7)
    if g.dtype(x).kind == "i" and g.chance(0.4) and y in g.consts:
        y = g.const(-g.values[y])
    if (g.values[y] == 0).any():
        raise Refused("a division by 0")
    op = g.pick(["Div", "Mod", "Mod"])
    return g("Mod", x, y, fmod=g.pick([0, 1])) if op == "Mod" else g("Div", x, y)


@step("i")
def bits(g: Gen, x: str) -> str:
    op = g.pick(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift"])
    if op == "BitwiseNot":
        return g(op, x)
    if op == "BitShift":
        direction = g.pick(["LEFT", "RIGHT"])
        return g(op, x, g.const(g.numbers(g.dtype(x), g.pick([(), g.shape(x)]), 0, 3)), direction=direction)
    return g(op, x, partner(g, x))


@step("i")
def signs(g: Gen, x: str) -> str:
    return g(g.pick(["Abs", "Neg", "Sign", "Relu"]), x)


@step("i")
def limits(g: Gen, x: str) -> str:
    low, high = (g.const(np.array(v, g.dtype(x))) for v in (g.int(0, 2), g.int(3, 9)))
    return g("Clip", x, low, high)


@step("b", weight=3)
def logic(g: Gen, x: str) -> str:
    op = g.pick(["And", "Or", "Xor", "Equal", "Not"])
    return g("Not", x) if op == "Not" else g(op, x, partner(g, x))


@step("i", weight=1)
def looked_up(g: Gen, x: str) -> str:
    """An embedding by x's values."""
    if not np.abs(g.values[x].astype(np.float64)).max(initial=0) < 8 or g.dtype(x).name not in ("int64", "int32"):
        raise Refused("no indices")
    if x in g.varying:
        raise Refused("indices that later iterations change")
    return g("Gather", g.weights(g.int(8, 11), g.int(1, 9)), x)


@step("i", weight=1)
def one_hot(g: Gen, x: str) -> str:
    depth = g.const(np.array(g.int(2, 7), np.int64))
    values = g.const(np.array([0.0, 1.0] if g.chance(0.7) else [-0.5, 2.0], np.float32))
    if len(g.shape(x)) > 3:
        raise Refused("large")
    return g("OneHot", x, depth, values, axis=g.pick([-1, 0, -1, len(g.shape(x))]))


@step("i", weight=1)
def integer_product(g: Gen, x: str) -> str:
    if g.dtype(x).name not in ("int32", "int64", "uint32", "uint64") or not g.shape(x):
        raise Refused("no product of these")
    k = g.shape(x)[-1]
    return g("MatMul", x, new(g, g.dtype(x), (k, g.int(1, 5)), 0, 4))
