# SPDX-License-Identifier: Apache-2.0
"""Steps that any float tensor takes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.compiler.random_models.gen import Gen, Step


def same_shape(g: Gen, x: str) -> str:
    """A value of x's shape and type, x itself at worst."""
    return g.pick([v for v in g.alive if g.types[v] == g.types[x]] or [x])


def activation(g: Gen, x: str) -> str:
    name = g.pick([
        "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish", "Clip6", "Softplus", "Softsign",
        "PRelu", "Swish", "Mish", "Gelu", "Abs", "Neg", "Selu", "Erf", "GeluErf", "Celu", "ThresholdedRelu",
    ])  # fmt: skip
    if name == "Clip6":
        return g("Clip", x, g.f(0.0), g.f(6.0))
    if name == "PRelu":
        s = g.shape(x)
        slope = (s[1], *(1,) * (len(s) - 2)) if len(s) > 1 and g.chance(0.7) else (1,)
        return g("PRelu", x, g.const(g.normal(*slope, scale=0.3)))
    if name == "Swish":
        return g("Mul", x, g("Sigmoid", x))
    if name == "GeluErf":
        e = g("Erf", g("Div", x, g.f(np.sqrt(2))))
        return g("Mul", g("Mul", x, g("Add", e, g.f(1.0))), g.f(0.5))
    if name == "Gelu":
        return g("Gelu", x, approximate=g.pick(["none", "tanh"]))
    if name in ("LeakyRelu", "Elu", "ThresholdedRelu"):
        return g(name, x, alpha=float(g.rng.uniform(0.05, 1)))
    return g(name, x)


def scale_shift(g: Gen, x: str) -> str:
    s = g.shape(x)
    kept = tuple(d if g.chance(0.5) else 1 for d in s)[g.pick([0, 0, 1]) :]
    op = g.pick(["Add", "Mul", "Sub", "Div", "Max", "Min"])
    c = g.const(g.normal(*kept) + (2.5 if op == "Div" else 0))
    return g(op, c, x) if op in ("Sub", "Add") and g.chance(0.4) else g(op, x, c)


def residual(g: Gen, x: str) -> str:
    return g(g.pick(["Add", "Add", "Mul", "Sub", "Max", "Sum", "Mean"]), x, same_shape(g, x))


def where(g: Gen, x: str) -> str:
    condition = g(g.pick(["Less", "Greater"]), x, same_shape(g, x))
    if g.chance(0.3):
        condition = g("Not", condition)
    return g("Where", condition, x, g.f(g.pick([0.0, -1.0, 0.5])))


def slice_(g: Gen, x: str) -> str | None:
    s = g.shape(x)
    axes = [a for a in range(len(s)) if s[a] > 2]
    if not axes:
        return None
    a = g.pick(axes)
    start = int(g.rng.integers(0, s[a] - 1))
    stop = int(g.rng.integers(start + 1, s[a] + 1))
    step = g.pick([1, 1, 2])
    if g.chance(0.15):
        start, stop, step = -1, -(s[a] + 1), -step
    elif stop == s[a]:
        stop = g.pick([2**62, s[a]])
    return g("Slice", x, g.i(start), g.i(stop), g.i(a), g.i(step))


def split_concat(g: Gen, x: str) -> str | None:
    s = g.shape(x)
    axes = [a for a in range(len(s)) if s[a] > 1]
    if not axes:
        return None
    a = g.pick(axes)
    first = int(g.rng.integers(1, s[a]))
    p, q = g.split(x, a, [first, s[a] - first])
    if g.chance(0.5):
        p = activation(g, p)
    g.alive += [p, q]
    return g("Concat", *g.pick([(q, p), (p, q), (p, q, p)]), axis=a)


def concat(g: Gen, x: str) -> str:
    s = g.shape(x)
    a = int(g.rng.integers(len(s)))
    fits = [
        v for v in g.alive
        if g.types[v][0] == TensorProto.FLOAT and len(g.shape(v)) == len(s)
        and all(i == a or g.shape(v)[i] == s[i] for i in range(len(s)))
    ]  # fmt: skip
    parts = [x, *(g.pick(fits) for _ in range(g.pick([1, 1, 2])) if fits)]
    return g("Concat", *parts, axis=g.pick([a, a - len(s)]))


def transpose(g: Gen, x: str) -> str:
    perm = [int(i) for i in g.rng.permutation(len(g.shape(x)))]
    y = g("Transpose", x, perm=perm)
    if g.chance(0.6):
        y = activation(g, y)
        y = g("Transpose", y, perm=[int(i) for i in np.argsort(perm)])
    return y


def reduction(g: Gen, x: str) -> str:
    s = g.shape(x)
    axes = sorted({int(i) for i in g.rng.integers(-1, len(s), 2)} - ({-1} if len(s) - 1 else set())) or [len(s) - 1]
    kind = g.pick(["Mean", "Max", "Sum", "Min", "L2", "SumSquare", "L1", "LogSumExp"])
    y = g.reduce(kind, x, axes, 1)
    if kind in ("Sum", "SumSquare"):
        y = g("Div", y, g.f(float(np.prod([s[a] for a in axes]))))
    return g(g.pick(["Sub", "Add", "Mul"]), x, y) if g.chance(0.7) else y


def softmax(g: Gen, x: str) -> str:
    axis = int(g.rng.integers(-len(g.shape(x)), len(g.shape(x))))
    return g(g.pick(["Softmax", "Softmax", "LogSoftmax"]), x, axis=axis)


def pad(g: Gen, x: str) -> str:
    s = g.shape(x)
    before, after = ([g.pick([0, 0, 1, 2]) if d > 2 else 0 for d in s] for _ in range(2))
    mode = g.pick(["constant", "edge", "reflect"])
    values = [g.f(g.pick([0.0, 1.5]))] if mode == "constant" else []
    return g("Pad", x, g.i(*before, *after), *values, mode=mode)


def expand(g: Gen, x: str) -> str | None:
    s = g.shape(x)
    if g.chance(0.5):
        return g("Tile", x, g.i(*[g.pick([1, 1, 2]) for _ in s]))
    return g("Expand", x, g.i(*[3 if d == 1 else d for d in s]))


def gather(g: Gen, x: str) -> str:
    s = g.shape(x)
    a = int(g.rng.integers(len(s)))
    at = g.rng.integers(-s[a], s[a], g.pick([(2,), (s[a],), (3,)]))
    return g("Gather", x, g.const(at.astype(np.int64)), axis=a)


def reshape_round(g: Gen, x: str) -> str:
    """Something done in another shape, and back."""
    s = g.shape(x)
    flat = g("Reshape", x, g.i(0, -1)) if len(s) > 1 else g("Reshape", x, g.i(1, -1))
    y = activation(g, flat) if g.chance(0.5) else softmax(g, flat)
    return g("Reshape", y, g.i(*s))


def branch(g: Gen, x: str) -> str:
    """An If on the data whose branches use values from outside."""
    total = g.reduce(g.pick(["Sum", "Max", "Mean"]), x, list(range(len(g.shape(x)))), 0)
    condition = g("Greater", total, g.f(g.pick([0.0, 1.0])))
    other = same_shape(g, x)
    info = helper.make_tensor_value_info
    bodies: list[onnx.GraphProto] = []
    for k, op in enumerate((g.pick(["Mul", "Add"]), g.pick(["Sub", "Max"]))):
        names = [f"b{g.count}_{k}", f"r{g.count}_{k}"]
        nodes = [
            helper.make_node(op, [x, other], names[:1], f"{op}_{names[0]}"),
            helper.make_node("Tanh", names[:1], names[1:], f"Tanh_{names[1]}"),
        ]
        bodies.append(helper.make_graph(nodes, f"branch{k}", [], [info(names[1], *g.types[x])]))
    name = f"v{g.count}"
    g.nodes.append(helper.make_node("If", [condition], [name], f"If_{g.count}", then_branch=bodies[0],
                                    else_branch=bodies[1]))  # fmt: skip
    g.types[name] = g.types[x]
    g.count += 1
    return name


def cast_round(g: Gen, x: str) -> str:
    to = g.pick([TensorProto.DOUBLE, TensorProto.FLOAT16])
    return g("Cast", g("Cast", x, to=to), to=TensorProto.FLOAT)


def trailing(g: Gen, x: str) -> str:
    """Operators that exporters leave behind."""
    y = g("Unsqueeze", x, axes=[0]) if g.opset < 13 else g("Unsqueeze", x, g.i(0))
    y = g("Identity", y)
    return g.squeeze(y, [0])


def arg(g: Gen, x: str) -> str:
    axis = int(g.rng.integers(len(g.shape(x))))
    if g.chance(0.5):
        values, at = g.many("TopK", [x, g.i(min(2, g.shape(x)[axis]))], 2, axis=axis)
        g.alive.append(values)
        return g("Cast", at, to=TensorProto.FLOAT)
    return g("Cast", g(g.pick(["ArgMax", "ArgMin"]), x, axis=axis, keepdims=1), to=TensorProto.FLOAT)


def cumulative(g: Gen, x: str) -> str:
    axis = int(g.rng.integers(len(g.shape(x))))
    return g("Mul", g("CumSum", x, g.const(np.int64(axis)), reverse=g.pick([0, 1])), g.f(0.3))


COMMON: list[tuple[Step, int]] = [
    (activation, 6), (scale_shift, 4), (residual, 5), (where, 1), (slice_, 2), (split_concat, 2), (concat, 3),
    (transpose, 2), (reduction, 2), (softmax, 1), (pad, 1), (expand, 1), (gather, 1), (reshape_round, 1), (branch, 1),
    (cast_round, 1), (trailing, 1), (arg, 1), (cumulative, 1),
]  # fmt: skip
