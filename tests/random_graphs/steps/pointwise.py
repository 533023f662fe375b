# SPDX-License-Identifier: Apache-2.0
"""Pointwise steps on floats, with broadcasting; comparisons, Where and casts."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.random_graphs.evaluate import type_of
from tests.random_graphs.gen import Gen
from tests.random_graphs.steps.table import new, partner, some_dtype, step

SAFE = [
    "Abs", "Neg", "Exp", "Sin", "Cos", "Erf", "Sigmoid", "Tanh", "Relu", "Softplus", "Softsign", "Floor", "Ceil",
    "Round", "Sign", "Atan", "Asinh", "Sinh", "Identity", "Elu", "Selu", "Celu", "LeakyRelu", "HardSigmoid",
    "HardSwish", "Mish", "Gelu", "ThresholdedRelu", "Shrink", "Swish",
]  # fmt: skip


def activation(g: Gen, x: str, name: str = "") -> str:
    """One of the functions that exporters emit as one node or as several."""
    name = name or g.pick([
        "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish", "Clip6", "Softplus", "Softsign",
        "PRelu", "Swish2", "Mish", "Gelu", "Abs", "Neg", "Selu", "Erf", "GeluErf", "Celu", "ThresholdedRelu",
    ])  # fmt: skip
    if name == "Clip6":
        return g("Clip", x, g.f(0.0, x), g.f(6.0, x))
    if name == "PRelu":
        s = g.shape(x)
        slope = (s[1], *(1,) * (len(s) - 2)) if len(s) > 1 and g.chance(0.7) else (1,)
        return g("PRelu", x, g.weights(*slope, scale=0.3, like=x))
    if name == "Swish2":
        return g("Mul", x, g("Sigmoid", x))
    if name == "GeluErf":
        e = g("Erf", g("Div", x, g.f(np.sqrt(2), x)))
        return g("Mul", g("Mul", x, g("Add", e, g.f(1.0, x))), g.f(0.5, x))
    if name == "Gelu":
        return g("Gelu", x, approximate=g.pick(["none", "tanh"]))
    if name in ("LeakyRelu", "Elu", "ThresholdedRelu", "Celu"):
        return g(name, x, alpha=g.int(1, 20) / 16)
    if name == "Shrink":
        return g(name, x, lambd=0.75, bias=g.pick([0.0, 0.25]))
    if name == "HardSigmoid" and g.chance(0.5):
        return g(name, x, alpha=0.25, beta=0.375)
    return g(name, x)


@step(weight=8)
def unary(g: Gen, x: str) -> str:
    return activation(g, x, g.pick(SAFE)) if g.chance(0.7) else activation(g, x)


@step(weight=2)
def guarded(g: Gen, x: str) -> str:
    """Functions that are not defined everywhere, of operands where they are."""
    name = g.pick(["Log", "Sqrt", "Reciprocal", "Acos", "Asin", "Atanh", "Acosh", "Cosh", "Tan", "Rsqrt"])
    if name in ("Log", "Sqrt", "Reciprocal", "Acosh", "Rsqrt"):
        y = g("Add", g(g.pick(["Abs", "Softplus", "Exp"]), x), g.f(1.25 if name == "Acosh" else 0.5, x))
        return g("Reciprocal", g("Sqrt", y)) if name == "Rsqrt" else g(name, y)
    if name in ("Cosh", "Tan"):
        return g(name, g("Tanh", x))
    return g(name, g("Mul", g("Tanh", x), g.f(0.75, x)))


@step(weight=9)
def binary(g: Gen, x: str) -> str:
    op = g.pick(["Add", "Mul", "Sub", "Add", "Mul", "Max", "Min", "Sum", "Mean"])
    if op in ("Max", "Min", "Sum", "Mean") and g.chance(0.4):
        return g(op, *[x, partner(g, x), partner(g, x)][g.pick([0, 0, 2]) :])
    y = partner(g, x)
    return g(op, y, x) if g.chance(0.3) else g(op, x, y)


@step(weight=2)
def division(g: Gen, x: str) -> str:
    y = partner(g, x)
    if g.chance(0.5):
        return g("Div", x, g("Add", g("Abs", y), g.f(0.5, x)))
    c = g.numbers(g.dtype(x), g.shape(y))
    c = np.where(np.abs(c.astype(np.float64)) < 0.25, 1.5, c.astype(np.float64)).astype(c.dtype)
    return g("Div", x, g.const(c))


@step()
def power(g: Gen, x: str) -> str:
    how = g.pick(["square", "cube", "root", "any", "integer"])
    if how in ("square", "cube"):
        return g("Pow", x, g.f(2.0 if how == "square" else 3.0, x))
    base = g("Add", g("Abs", x), g.f(0.5, x))
    if how == "root":
        return g("Pow", base, g.f(g.pick([0.5, -0.5, 1.0, -1.0, 0.0]), x))
    if how == "integer" and g.opset >= 12:
        return g("Pow", base, g.const(np.array(g.int(-2, 3), g.pick([np.int64, np.int32]))))
    return g("Pow", base, g("Tanh", partner(g, x)))


@step()
def modulo(g: Gen, x: str) -> str:
    c = np.where(g.numbers(np.float32, g.shape(partner(g, x))) < 0, -1.75, 2.5)
    return g("Mod", x, g.const(c.astype(g.dtype(x))), fmod=1)


@step("fi", weight=3)
def compare(g: Gen, x: str) -> str:
    op = g.pick(["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"])
    y = g(op, x, partner(g, x))
    return g("Not", y) if g.chance(0.2) else y


@step("fib", weight=3)
def where(g: Gen, x: str) -> str:
    conditions = [v for v in g.alive if g.kind(v) == "b" and len(g.shape(v)) <= len(g.shape(x))]
    if conditions and g.chance(0.6):
        c = g.pick(conditions)
    elif g.kind(x) == "f":
        c = g("Less", x, partner(g, x))
    else:
        c = new(g, bool, tuple(d if g.chance(0.7) else 1 for d in g.shape(x)))
    y = partner(g, x)
    return g("Where", c, y, x) if g.chance(0.5) else g("Where", c, x, y)


@step("fib", weight=4)
def cast(g: Gen, x: str) -> str:
    to = some_dtype(g, "ffib")
    y = x
    if g.kind(x) == "f" and to.kind in "iu":
        y = g("Clip", x, g.f(0.0 if to.kind == "u" else -100.0, x), g.f(100.0, x))
    elif to.kind == "u" and g.kind(x) == "i":
        y = g("Abs", x)
    number = type_of(np.zeros(0, to))
    if g.opset >= 15 and g.chance(0.15):
        return g("CastLike", y, g.const(np.zeros((), to)))
    return g("Cast", y, to=number)


@step(weight=2)
def clip(g: Gen, x: str) -> str:
    if g.opset < 12 and g.dtype(x) != np.float32:
        return g("Relu", x)
    low, high = g.pick([(-1.0, 1.0), (0.0, 6.0), (-0.5, 0.25), (0.0, None), (None, 1.0)])
    ends = ["" if v is None else g.f(v, x) for v in (low, high)]
    return g("Clip", x, *(ends[:1] if not ends[1] else ends))


@step()
def rounded(g: Gen, x: str) -> str:
    """Through a narrower or a wider type and back."""
    to = g.pick([TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.FLOAT])
    y = g("Cast", x, to=to)
    if g.chance(0.4):
        y = activation(g, y)
    return g("Cast", y, to=type_of(g.values[x]))


@step()
def tests_of_values(g: Gen, x: str) -> str:
    return g(g.pick(["IsNaN", "IsInf"]), x)


@step()
def dropout(g: Gen, x: str) -> str:
    return g("Dropout", x)


@step(weight=2)
def expression(g: Gen, x: str) -> str:
    """One value used several times, as a fusion sees it."""
    a, b = activation(g, x), activation(g, x)
    y = g(g.pick(["Add", "Mul", "Sub"]), a, b)
    g.alive.append(a)
    return g(g.pick(["Add", "Max"]), y, x)
