# SPDX-License-Identifier: Apache-2.0
"""The blocks of networks as exporters write them: what fusion, layouts and pattern matching look for."""

from __future__ import annotations

import math

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.contraction import divisors
from tests.random_graphs.steps.pointwise import activation
from tests.random_graphs.steps.table import step

IMAGES = range(3, 6)
TOKENS = range(3, 4)


def whole(g: Gen, x: str) -> None:
    if 0 in g.shape(x):
        raise Refused("no elements")


def layer_norm(g: Gen, x: str) -> str:
    """Over the last axis, as one node or in parts."""
    w = g.shape(x)[-1]
    scale, shift = g.weights(w, like=x), g.weights(w, like=x)
    kind = g.pick(["op", "parts", "rms"])
    if kind == "op" and g.opset >= 17:
        return g("LayerNormalization", x, scale, *([shift] if g.chance(0.8) else []), axis=-1, epsilon=1e-3)
    if kind == "rms":
        square = g.reduce("Mean", g("Mul", x, x) if g.chance(0.5) else g("Pow", x, g.f(2.0, x)), [-1], 1)
        return g("Mul", g("Div", x, g("Sqrt", g("Add", square, g.f(1e-3, x)))), scale)
    centred = g("Sub", x, g.reduce("Mean", x, [-1], 1))
    variance = g.reduce("Mean", g("Pow", centred, g.f(2.0, x)), [-1], 1)
    y = g("Div", centred, g("Sqrt", g("Add", variance, g.f(1e-3, x))))
    return g("Add", g("Mul", y, scale), shift)


def linear(g: Gen, x: str, out: int) -> str:
    k = g.shape(x)[-1]
    y = g("MatMul", x, g.weights(k, out, scale=1 / math.sqrt(max(1, k)), like=x))
    if g.chance(0.7):
        b = g.weights(out, scale=0.3, like=x)
        y = g("Add", y, b) if g.chance(0.5) else g("Add", b, y)
    return y


@step("f", IMAGES)
def squeeze_excite(g: Gen, x: str) -> str:
    whole(g, x)
    c, space = g.shape(x)[1], len(g.shape(x)) - 2
    y = g(g.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"]), x)
    inner = max(1, c // 2)
    y = g("Relu", g("Conv", y, g.weights(inner, c, *(1,) * space, scale=1 / math.sqrt(c), like=x)))
    y = g("Conv", y, g.weights(c, inner, *(1,) * space, scale=1 / math.sqrt(inner), like=x), g.weights(c, like=x))
    return g("Mul", x, g(g.pick(["Sigmoid", "HardSigmoid"]), y))


@step("f", IMAGES)
def shuffle(g: Gen, x: str) -> str:
    """Channels of groups, interleaved."""
    whole(g, x)
    n, c, *space = g.shape(x)
    k = g.pick(divisors(c))
    y = g("Reshape", x, g.i(n, k, c // k, *space))
    y = g("Transpose", y, perm=[0, 2, 1, *range(3, 3 + len(space))])
    return g("Reshape", y, g.i(0, c, *space) if g.chance(0.5) else g.i(n, -1, *space))


@step("f", IMAGES)
def norm_of_channels(g: Gen, x: str) -> str:
    """A LayerNorm over channels between transposes."""
    whole(g, x)
    rank = len(g.shape(x))
    y = layer_norm(g, g("Transpose", x, perm=[0, *range(2, rank), 1]))
    return g("Transpose", y, perm=[0, rank - 1, *range(1, rank - 1)])


@step("f", IMAGES, weight=1)
def group_norm_in_parts(g: Gen, x: str) -> str:
    whole(g, x)
    n, c, *space = g.shape(x)
    groups = g.pick(divisors(c))
    y = g("Reshape", x, g.i(n, groups, -1))
    ones, zeros = (g.const(np.full(groups, v, g.dtype(x))) for v in (1, 0))
    y = g("Reshape", g("InstanceNormalization", y, ones, zeros, epsilon=0.01), g.i(n, c, *space))
    one = (c, *(1,) * len(space))
    return g("Add", g("Mul", y, g.weights(*one, like=x)), g.weights(*one, like=x))


@step("f", IMAGES)
def residual_block(g: Gen, x: str) -> str:
    """Two convolutions with norms, and what came in."""
    whole(g, x)
    c, space = g.shape(x)[1], len(g.shape(x)) - 2
    inner = g.pick([c, max(1, c // 2), 4])
    y = x
    for ci, co, k in ((c, inner, 1), (inner, c, 3)):
        w = g.weights(co, ci, *(k,) * space, scale=1 / math.sqrt(ci * k**space), like=x)
        y = g("Conv", y, w, pads=[k // 2] * 2 * space, kernel_shape=[k] * space)
        scale, shift, mean = (g.weights(co, like=x) for _ in range(3))
        variance = g.const((g.normal(co) ** 2 + np.float32(0.5)).astype(g.dtype(x)))
        y = g("BatchNormalization", y, scale, shift, mean, variance)
        y = activation(g, y) if co == inner and g.chance(0.8) else y
    return g("Relu", g("Add", y, x))


@step("f", IMAGES)
def head(g: Gen, x: str) -> str:
    """Pooled features and a classifier."""
    whole(g, x)
    kind = g.pick(["gap", "mean", "flatten"])
    if kind == "flatten":
        y = g("Flatten", x, axis=1)
    elif kind == "gap":
        y = g("Flatten", g("GlobalAveragePool", x))
    else:
        y = g.reduce("Mean", x, list(range(2, len(g.shape(x)))), 0)
    k = g.shape(y)[1]
    if k > 600:
        raise Refused("too wide a classifier")
    out = g.pick([1, 3, 10, 33])
    turned = g.pick([0, 1])
    w = g.weights(*((out, k) if turned else (k, out)), scale=1 / math.sqrt(k), like=x)
    bias = [g.weights(out, like=x)] if g.chance(0.7) else []
    y = g("Gemm", y, w, *bias, transB=turned) if g.chance(0.7) or turned else g("MatMul", y, w)
    return g("Softmax", y, axis=1) if g.chance(0.5) else y


def heads(g: Gen, x: str, count: int) -> str:
    n, t, w = g.shape(x)
    y = g("Reshape", x, g.i(n, t, count, w // count) if g.chance(0.5) else g.i(0, 0, count, -1))
    return g("Transpose", y, perm=[0, 2, 1, 3])


def rotary(g: Gen, x: str) -> str:
    """Rotary positions on [n, heads, tokens, depth]."""
    t, d = g.shape(x)[2:]
    angle = np.arange(t)[:, None] / 100 ** (np.arange(d) % (d // 2) / max(d // 2, 1))
    a, b = g.split(x, 3, [d // 2, d // 2])
    turned = g("Concat", g("Neg", b), a, axis=-1)
    cos, sin = (g.const(f(angle).astype(g.dtype(x))) for f in (np.cos, np.sin))
    return g("Add", g("Mul", x, cos), g("Mul", turned, sin))


def repeated(g: Gen, x: str, times: int) -> str:
    """Heads of keys or values, each `times` times."""
    n, h, t, d = g.shape(x)
    y = g("Expand", g.squeeze(x, [2], "Unsqueeze"), g.i(n, h, times, t, d))
    return g("Reshape", y, g.i(n, h * times, t, d))


@step("f", TOKENS, weight=3)
def multi_head(g: Gen, x: str) -> str:
    """Attention with several heads, its projections, a mask, and what came in."""
    whole(g, x)
    n, t, w = g.shape(x)
    count = g.pick([c for c in (1, 2, 3, 4) if w % c == 0])
    depth = w // count
    h = layer_norm(g, x) if g.chance(0.6) else x
    others = [v for v in g.like(x) if v != x]
    source = g.pick(others) if others and g.chance(0.2) else h
    shared = g.pick([1, 1, count])
    if source == h and shared == 1 and g.chance(0.4):
        q, k, v = (heads(g, p, count) for p in g.split(linear(g, h, 3 * w), 2, [w, w, w]))
    else:
        q = heads(g, linear(g, h, w), count)
        k, v = (heads(g, linear(g, source, count // shared * depth), count // shared) for _ in range(2))
    if depth % 2 == 0 and g.chance(0.3):
        q, k = rotary(g, q), rotary(g, k)
    if shared > 1:
        k, v = (repeated(g, p, shared) for p in (k, v))
    scale = g.f(1 / math.sqrt(depth), x)
    if g.chance(0.3):
        scores = g("MatMul", g("Mul", q, scale), g("Transpose", k, perm=[0, 1, 3, 2]))
    else:
        scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g("Div", scores, g.f(math.sqrt(depth), x)) if g.chance(0.5) else g("Mul", scores, scale)
    mask = g.pick(["none", "none", "causal", "additive", "where"])
    hidden = np.triu(np.ones((t, t), bool), 1)
    if mask == "causal":
        scores = g("Add", scores, g.const(np.where(hidden, -100, 0).astype(g.dtype(x))))
    elif mask == "additive":
        scores = g("Add", scores, g.weights(*g.pick([(n, 1, 1, t), (count, t, t), (t, t)]), like=x))
    elif mask == "where":
        scores = g("Where", g.const(~hidden), scores, g.f(-150.0, x))
    p = g("Softmax", scores, axis=-1 if g.opset >= 13 else 3)
    y = g("Transpose", g("MatMul", p, v), perm=[0, 2, 1, 3])
    y = linear(g, g("Reshape", y, g.i(n, t, w)), w)
    return g("Add", x, y) if g.chance(0.7) else y


@step("f", range(2, 4))
def mlp(g: Gen, x: str) -> str:
    whole(g, x)
    w = g.shape(x)[-1]
    h = layer_norm(g, x) if g.chance(0.5) else x
    inner = g.pick([2 * w, w + 1, 31])
    y = linear(g, h, inner)
    if g.chance(0.3):
        y = g("Mul", g("Mul", y, g("Sigmoid", y)), linear(g, h, inner))
    else:
        y = activation(g, y)
    y = linear(g, y, w)
    return g("Add", y, x) if g.chance(0.7) else y


@step("f", TOKENS, weight=1)
def token(g: Gen, x: str) -> str:
    """One more token in front, or one taken out."""
    whole(g, x)
    n, _, w = g.shape(x)
    if g.chance(0.5):
        return g("Concat", g("Expand", g.weights(1, 1, w, like=x), g.i(n, 1, w)), x, axis=1)
    return linear(g, g("Gather", x, g.const(np.int64(0)), axis=1), 4)


@step("f", TOKENS, weight=1)
def recurrent(g: Gen, x: str) -> str:
    t, n, w = g.shape(x)
    if 0 in (t, n, w) or t > 6:
        raise Refused("long")
    kind, gates = g.pick([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden = g.pick([3, 8])
    directions = g.pick([1, 2])
    held = [g.weights(directions, gates * hidden, k, scale=1 / math.sqrt(k), like=x) for k in (w, hidden)]
    bias = [g.weights(directions, 2 * gates * hidden, like=x)] if g.chance(0.6) else []
    direction = "bidirectional" if directions == 2 else g.pick(["forward", "reverse"])
    extra = {"linear_before_reset": g.pick([0, 1])} if kind == "GRU" else {}
    if kind == "RNN":
        extra = {"activations": ["Tanh"] * directions}
    y, last = g.many(kind, [x, *held, *bias], 2, hidden_size=hidden, direction=direction, **extra)
    g.alive.append(last)
    return g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), g.i(t, n, directions * hidden))
