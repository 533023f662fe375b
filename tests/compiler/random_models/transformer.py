# SPDX-License-Identifier: Apache-2.0
"""Steps of transformers, on [n, tokens, width]."""

from __future__ import annotations

import numpy as np

from tests.compiler.random_models.common import activation
from tests.compiler.random_models.gen import Gen, Step


def layer_norm(g: Gen, x: str) -> str:
    width = g.shape(x)[-1]
    scale, shift = g.const(g.normal(width) + 1), g.const(g.normal(width))
    kind = g.pick(["op", "parts", "rms"])
    if kind == "op" and g.opset >= 17:
        return g("LayerNormalization", x, scale, *([shift] if g.chance(0.8) else []), axis=-1, epsilon=1e-5)
    if kind == "rms":
        square = g.reduce("Mean", g("Mul", x, x) if g.chance(0.5) else g("Pow", x, g.f(2.0)), [-1], 1)
        y = g("Div", x, g("Sqrt", g("Add", square, g.f(1e-6))))
        return g("Mul", y, scale)
    centred = g("Sub", x, g.reduce("Mean", x, [-1], 1))
    variance = g.reduce("Mean", g("Pow", centred, g.f(2.0)), [-1], 1)
    y = g("Div", centred, g("Sqrt", g("Add", variance, g.f(1e-5))))
    return g("Add", g("Mul", y, scale), shift)


def linear(g: Gen, x: str, out: int) -> str:
    k = g.shape(x)[-1]
    y = g("MatMul", x, g.const(g.normal(k, out, scale=1 / np.sqrt(k))))
    if g.chance(0.7):
        b = g.const(g.normal(out, scale=0.3))
        y = g("Add", y, b) if g.chance(0.5) else g("Add", b, y)
    return y


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
    cos, sin = (g.const(f(angle).astype(np.float32)) for f in (np.cos, np.sin))
    return g("Add", g("Mul", x, cos), g("Mul", turned, sin))


def attention(g: Gen, x: str) -> str | None:
    if len(g.shape(x)) != 3:
        return None
    n, t, w = g.shape(x)
    count = g.pick([c for c in (1, 2, 3, 4) if w % c == 0])
    depth = w // count
    h = layer_norm(g, x) if g.chance(0.6) else x
    source = h
    if g.chance(0.2):  # another sequence is looked at
        others = [v for v in g.alive if len(g.shape(v)) == 3 and g.shape(v)[0] == n and g.shape(v)[2] == w]
        source = g.pick(others) if others else h
    length = g.shape(source)[1]
    shared = g.pick([1, 1, count])  # heads that share keys and values
    fewer = count // shared
    if source == h and shared == 1 and g.chance(0.4):
        joined = linear(g, h, 3 * w)
        q, k, v = (heads(g, p, count) for p in g.split(joined, 2, [w, w, w]))
    else:
        q = heads(g, linear(g, h, w), count)
        k, v = (heads(g, linear(g, source, fewer * depth), fewer) for _ in range(2))
    if depth % 2 == 0 and g.chance(0.3):
        q, k = rotary(g, q), rotary(g, k)
    if shared > 1:
        k, v = (_repeat(g, p, shared) for p in (k, v))
    if g.chance(0.3):
        q = g("Mul", q, g.f(1 / np.sqrt(depth)))
        scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    else:
        scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g("Div", scores, g.f(np.sqrt(depth))) if g.chance(0.5) else g("Mul", scores, g.f(depth**-0.5))
    mask = g.pick(["none", "none", "causal", "additive", "where"])
    hidden = np.triu(np.ones((t, length), bool), 1)
    if mask == "causal":
        scores = g("Add", scores, g.const(np.where(hidden, -1e9, 0).astype(np.float32)))
    elif mask == "additive":
        scores = g("Add", scores, g.const(g.normal(*g.pick([(n, 1, 1, length), (count, t, length), (t, length)]))))
    elif mask == "where":
        scores = g("Where", g.const(~hidden), scores, g.f(g.pick([-1e9, -np.inf])))
    p = g("Softmax", scores, axis=g.pick([-1, 3]))
    y = g("Transpose", g("MatMul", p, v), perm=[0, 2, 1, 3])
    y = linear(g, g("Reshape", y, g.i(n, t, w)), w)
    return g("Add", x, y) if g.chance(0.7) else y


def _repeat(g: Gen, x: str, times: int) -> str:
    n, h, t, d = g.shape(x)
    y = g.squeeze(x, [2], "Unsqueeze")
    y = g("Expand", y, g.i(n, h, times, t, d))
    return g("Reshape", y, g.i(n, h * times, t, d))


def mlp(g: Gen, x: str) -> str:
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


def einsum(g: Gen, x: str) -> str | None:
    if len(g.shape(x)) != 3:
        return None
    w = g.shape(x)[-1]
    k = g.const(g.normal(w, 5, scale=1 / np.sqrt(w)))
    return g("Einsum", x, k, equation=g.pick(["btd,de->bte", "btd,de->bet", "btd,de->be"]))


def token(g: Gen, x: str) -> str | None:
    """One more token in front, or one taken out."""
    if len(g.shape(x)) != 3:
        return None
    n, _, w = g.shape(x)
    if g.chance(0.5):
        first = g("Expand", g.const(g.normal(1, 1, w)), g.i(n, 1, w))
        return g("Concat", first, x, axis=1)
    y = g("Gather", x, g.const(np.int64(0)), axis=1)
    g.alive.append(linear(g, y, 4))
    return None


def recurrent(g: Gen, x: str) -> str | None:
    if len(g.shape(x)) != 3 or g.shape(x)[0] > 6:
        return None
    t, n, w = g.shape(x)
    kind, gates = g.pick([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden = g.pick([3, 8])
    directions = g.pick([1, 2])
    held = [g.const(g.normal(directions, gates * hidden, k, scale=1 / np.sqrt(k))) for k in (w, hidden)]
    bias = [g.const(g.normal(directions, 2 * gates * hidden))] if g.chance(0.6) else []
    direction = "bidirectional" if directions == 2 else g.pick(["forward", "reverse"])
    extra = {"linear_before_reset": g.pick([0, 1])} if kind == "GRU" else {}
    y, last = g.many(kind, [x, *held, *bias], 2, hidden_size=hidden, direction=direction, **extra)
    g.alive.append(last)
    return g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), g.i(t, n, directions * hidden))


TRANSFORMER: list[tuple[Step, int]] = [
    (attention, 9), (mlp, 7), (layer_norm, 3), (einsum, 1), (token, 1), (recurrent, 1),
]  # fmt: skip
