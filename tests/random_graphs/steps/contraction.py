# SPDX-License-Identifier: Apache-2.0
"""Matrix products and convolutions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.pointwise import activation
from tests.random_graphs.steps.table import new, partner, step


def scaled(g: Gen, x: str, shape: tuple[int, ...], fan: int) -> str:
    """Weights whose products keep the size of x; an input at times."""
    w = g.normal(*shape, scale=1 / math.sqrt(max(1, fan))).astype(g.dtype(x))
    return g.input(w) if g.depth == 0 and len(g.inputs) < 5 and g.chance(0.2) else g.const(w)


@step("f", range(1, 6), weight=6)
def matmul(g: Gen, x: str) -> str:
    s = g.shape(x)
    k = s[-1]
    fits = [v for v in g.alive if g.dtype(v) == g.dtype(x) and len(g.shape(v)) > 1 and g.shape(v)[-2] == k]
    if fits and g.chance(0.4):
        return g("MatMul", x, g.pick(fits))
    if len(s) > 1 and g.chance(0.15):  # x on the right, or with itself
        if g.chance(0.5):
            turned = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
            return g("MatMul", x, g("Transpose", x, perm=turned))
        return g("MatMul", scaled(g, x, (g.int(1, 9), s[-2]), s[-2]), x)
    lead = g.pick([(), (), (), tuple(d if g.chance(0.6) else 1 for d in s[:-2])])
    n = g.pick([1, 2, 3, 5, 8, 16, 17])
    if g.chance(0.12):
        return g("MatMul", x, scaled(g, x, (k,), k))
    y = g("MatMul", x, scaled(g, x, (*lead, k, n), k))
    if g.chance(0.4):
        y = g("Add", y, g.weights(n, scale=0.5, like=x))
        if g.chance(0.5):
            y = activation(g, y)
    return y


@step("f", range(2, 3), weight=3)
def gemm(g: Gen, x: str) -> str:
    ta, tb = g.pick([0, 0, 1]), g.pick([0, 1])
    k = g.shape(x)[0 if ta else 1]
    m, n = g.shape(x)[1 if ta else 0], g.pick([1, 3, 8, 13])
    w = scaled(g, x, (n, k) if tb else (k, n), k)
    bias = [g.weights(*g.pick([(n,), (1, n), (m, n), (m, 1), (1,), ()]), like=x)] if g.chance(0.6) else []
    return g("Gemm", x, w, *bias, transA=ta, transB=tb, alpha=g.pick([1.0, 1.0, 0.5]), beta=g.pick([1.0, 1.0, 0.25]))


@step("f", range(1, 5), weight=2)
def einsum(g: Gen, x: str) -> str:
    s = g.shape(x)
    letters = "abcd"[: len(s)]
    how = g.pick(["product", "sum", "outer", "transpose", "self", "diagonal"])
    if how == "product":
        axis = g.int(0, len(s) - 1)
        k = scaled(g, x, (s[axis], 3), s[axis])
        out = letters.replace(letters[axis], "")
        out = out + "z" if g.chance(0.6) else "z" + out
        return g("Einsum", x, k, equation=f"{letters},{letters[axis]}z->{out}")
    if how == "outer":
        return g("Einsum", x, new(g, g.dtype(x), (2,)), equation=f"{letters},z->{letters}z")
    if how == "self":
        return g("Einsum", x, x, equation=f"{letters},{letters}->{letters[: g.int(0, len(s))]}")
    if how == "diagonal" and len(s) > 1 and s[0] == s[1]:
        rest = letters[2:]
        return g("Einsum", x, equation=g.pick([f"aa{rest}->a{rest}", f"aa{rest}->{rest}"]))
    order = "".join(letters[i] for i in g.permutation(len(s)))
    if how == "sum":
        return g("Einsum", x, equation=f"{letters}->{order[1:]}")
    return g("Einsum", x, equation=g.pick([f"{letters}->{order}", f"...{letters[-1]}->{letters[-1]}..."]))


def window(g: Gen, space: tuple[int, ...], most: int = 4, dilated: bool = True) -> dict[str, Any]:
    """Kernel, strides, pads and dilations that fit these extents."""
    kernel = [g.int(1, min(most, max(1, d + 1))) for d in space]
    attrs: dict[str, Any] = {"kernel_shape": kernel}
    if g.chance(0.5):
        attrs["strides"] = g.ints(1, 2, len(space)) if g.chance(0.8) else g.ints(1, 4, len(space))
    auto = g.pick(["NOTSET"] * 5 + ["SAME_UPPER", "SAME_LOWER", "VALID"])
    if auto != "NOTSET":
        attrs["auto_pad"] = auto
    elif g.chance(0.7):
        same = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel]
        attrs["pads"] = same if g.chance(0.5) else [g.int(0, k - 1) for k in kernel * 2]
    if dilated and auto == "NOTSET" and g.chance(0.25):
        attrs["dilations"] = g.ints(1, 3, len(space))
    return attrs


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@step("f", range(3, 6), weight=6)
def conv(g: Gen, x: str) -> str:
    _, c, *space = g.shape(x)
    if 0 in (c, *space):
        raise Refused("no channels or points")
    group = g.pick([1, 1, 1, c, g.pick(divisors(c))])
    out = group * g.pick([1, 1, 2, 3]) if group > 1 else g.pick([1, 3, 4, 7, 8, 16, 17])
    attrs = window(g, tuple(space), {1: 7, 2: 5}.get(len(space), 3))
    if g.chance(0.2):
        attrs = {"kernel_shape": [1] * len(space), **({"strides": [2] * len(space)} if g.chance(0.3) else {})}
    shape = (out, c // group, *attrs["kernel_shape"])
    w = scaled(g, x, shape, math.prod(shape[1:]))
    if g.chance(0.2):
        del attrs["kernel_shape"]
    bias = [g.weights(out, like=x)] if g.chance(0.5) else []
    y = g("Conv", x, w, *bias, group=group, **attrs)
    if g.chance(0.4):
        y = activation(g, y)
    if g.chance(0.3) and g.shape(y) == g.shape(x):
        y = g("Add", y, x)
    return y


@step("f", range(3, 6), weight=2)
def conv_transpose(g: Gen, x: str) -> str:
    _, c, *space = g.shape(x)
    if 0 in (c, *space):
        raise Refused("no channels or points")
    group = g.pick([1, 1, 1, c])
    kernel = g.ints(1, 3, len(space))
    strides = kernel if g.chance(0.3) else g.ints(1, 3, len(space))
    attrs: dict[str, Any] = {"strides": strides, "kernel_shape": kernel}
    if g.chance(0.3):
        attrs["auto_pad"] = g.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif g.chance(0.6):
        attrs["pads"] = [g.int(0, k - 1) for k in kernel * 2]
        attrs["output_padding"] = [g.int(0, s - 1) for s in strides]
    if g.chance(0.2):
        attrs["dilations"] = g.ints(1, 2, len(space))
    out = g.pick([1, 3, 4])
    w = scaled(g, x, (c, out, *kernel), c // group)
    # onnx.reference, the oracle of types that ONNX Runtime lacks, adds biases of several groups to the wrong channels.
    biased = g.chance(0.5) and (group == 1 or g.dtype(x) == np.float32)
    bias = [g.weights(out * group, like=x)] if biased else []
    return g("ConvTranspose", x, w, *bias, group=group, **attrs)


@step("f", range(2, 5), weight=1)
def bilinear(g: Gen, x: str) -> str:
    """The product of two values of the graph."""
    s = g.shape(x)
    y = g("MatMul", x, g("Transpose", x, perm=[*range(len(s) - 2), len(s) - 1, len(s) - 2]))
    return g("Mul", y, g.f(1 / max(1, s[-1]), x)) if g.chance(0.7) else g("Add", y, partner(g, y))


@step("f", range(3, 5), weight=2)
def attention(g: Gen, x: str) -> str:
    """Attention over the last two axes, as nodes or as one."""
    s = g.shape(x)
    if len(s) == 3:
        s = (s[0], 1, *s[1:])
        x = g("Reshape", x, g.i(*s))
    depth = s[-1]
    k, v = x, x
    if g.chance(0.6):
        k = g("MatMul", x, scaled(g, x, (depth, depth), depth))
        v = g("MatMul", x, scaled(g, x, (depth, g.pick([depth, 5])), depth))
    if g.opset >= 23 and g.dtype(x) in (np.float32, np.float16) and g.chance(0.5):
        mask = [new(g, g.dtype(x), g.pick([(s[-2], s[-2]), (s[0], 1, s[-2], s[-2])]))] if g.chance(0.3) else []
        return g("Attention", x, k, v, *mask, is_causal=g.pick([0, 1]), **({"scale": 0.5} if g.chance(0.3) else {}))
    scores = g("MatMul", x, g("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g(g.pick(["Mul", "Mul", "Div"]), scores, g.f(g.pick([0.5, 0.25, 2.0]), x))
    if g.chance(0.3):
        scores = g("Add", scores, new(g, g.dtype(x), (s[-2], s[-2])))
    return g("MatMul", g("Softmax", scores, axis=-1 if g.opset >= 13 else 3), v)
