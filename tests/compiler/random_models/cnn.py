# SPDX-License-Identifier: Apache-2.0
"""Steps of convolutional nets, on [n, c, space...]."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.random_models.common import activation, softmax
from tests.compiler.random_models.gen import Gen, Refused, Step
from tests.compiler.random_models.transformer import layer_norm


def _window(g: Gen, space: int, largest: int = 4) -> dict[str, Any]:
    kernel = g.ints(1, largest, space)
    attrs: dict[str, Any] = {"kernel_shape": kernel}
    if g.chance(0.6):
        attrs["strides"] = g.ints(1, 2, space) if g.chance(0.8) else g.ints(1, 3, space)
    auto = g.pick(["NOTSET"] * 5 + ["SAME_UPPER", "SAME_LOWER", "VALID"])
    if auto != "NOTSET":
        attrs["auto_pad"] = auto
    elif g.chance(0.7):
        pads = [int(g.rng.integers(0, k)) for k in kernel * 2]
        attrs["pads"] = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel] if g.chance(0.5) else pads
    return attrs


def conv(g: Gen, x: str) -> str:
    _, c, *space = g.shape(x)
    divisors = [d for d in range(1, c + 1) if c % d == 0]
    group = g.pick([1, 1, 1, c, g.pick(divisors)])
    out = group * g.pick([1, 1, 2, 3, 5]) if group > 1 else g.pick([1, 3, 4, 7, 8, 16, 17, 24])
    attrs = _window(g, len(space), 5 if len(space) < 3 else 3)
    if g.chance(0.25) and "auto_pad" not in attrs:
        attrs["dilations"] = g.ints(1, 2, len(space))
    if g.chance(0.3):
        attrs = {"kernel_shape": [1] * len(space), **({"strides": [2] * len(space)} if g.chance(0.3) else {})}
    kernel = attrs["kernel_shape"]
    fan = c // group * int(np.prod(kernel))
    w = g.const(g.normal(out, c // group, *kernel, scale=1.4 / np.sqrt(fan)))
    bias = [g.const(g.normal(out))] if g.chance(0.5) else []
    y = g("Conv", x, w, *bias, group=group, **attrs)
    if g.chance(0.4):
        y = batch_norm(g, y)
    if g.chance(0.5):
        y = activation(g, y)
    if g.chance(0.3) and g.types[y] == g.types[x]:
        y = g("Add", y, x)
    return y


def batch_norm(g: Gen, x: str) -> str:
    c = g.shape(x)[1]
    scale, shift, mean = (g.const(g.normal(c)) for _ in range(3))
    return g("BatchNormalization", x, scale, shift, mean, g.const(g.normal(c) ** 2 + np.float32(0.5)))


def conv_transpose(g: Gen, x: str) -> str:
    _, c, *space = g.shape(x)
    group = g.pick([1, 1, 1, c])
    kernel = g.ints(1, 3, len(space))
    strides = kernel if g.chance(0.4) else g.ints(1, 2, len(space))
    attrs: dict[str, Any] = {"strides": strides, "kernel_shape": kernel}
    if g.chance(0.3):
        attrs["auto_pad"] = g.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif g.chance(0.5):
        attrs["pads"] = [int(g.rng.integers(0, k)) for k in kernel * 2]
        attrs["output_padding"] = [int(g.rng.integers(0, s)) for s in strides]
    if g.chance(0.2):
        attrs["dilations"] = g.ints(1, 2, len(space))
    out = g.pick([1, 3, 4])
    w = g.const(g.normal(c, out, *kernel, scale=1 / np.sqrt(c // group)))
    bias = [g.const(g.normal(out * group))] if g.chance(0.5) else []
    return g("ConvTranspose", x, w, *bias, group=group, **attrs)


def pool(g: Gen, x: str) -> str:
    space = len(g.shape(x)) - 2
    attrs = _window(g, space, 3)
    if "auto_pad" not in attrs and g.chance(0.4):
        attrs["ceil_mode"] = 1
    kind = g.pick(["MaxPool", "MaxPool", "AveragePool", "LpPool"])
    if kind == "MaxPool" and g.chance(0.2) and "auto_pad" not in attrs:
        attrs["dilations"] = g.ints(1, 2, space)
    if kind == "AveragePool" and g.chance(0.5):
        attrs["count_include_pad"] = 1
    if kind == "LpPool":
        attrs.pop("ceil_mode", None)
    return g(kind, x, **attrs)


def squeeze_excite(g: Gen, x: str) -> str:
    c, space = g.shape(x)[1], len(g.shape(x)) - 2
    y = g(g.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"]), x)
    inner = max(1, c // 2)
    y = g("Relu", g("Conv", y, g.const(g.normal(inner, c, *(1,) * space, scale=1 / np.sqrt(c)))))
    y = g("Conv", y, g.const(g.normal(c, inner, *(1,) * space, scale=1 / np.sqrt(inner))), g.const(g.normal(c)))
    return g("Mul", x, g(g.pick(["Sigmoid", "HardSigmoid"]), y))


def shuffle(g: Gen, x: str) -> str | None:
    n, c, *space = g.shape(x)
    divisors = [d for d in range(2, c) if c % d == 0]
    if not divisors:
        return None
    k = g.pick(divisors)
    y = g("Reshape", x, g.i(n, k, c // k, *space))
    y = g("Transpose", y, perm=[0, 2, 1, *range(3, 3 + len(space))])
    return g("Reshape", y, g.i(0, c, *space) if g.chance(0.5) else g.i(n, -1, *space))


def norm(g: Gen, x: str) -> str:
    n, c, *space = g.shape(x)
    kind = g.pick(["instance", "group", "lrn", "channels"])
    scale, shift = g.const(g.normal(c)), g.const(g.normal(c))
    if kind == "instance":
        return g("InstanceNormalization", x, scale, shift)
    if kind == "lrn" and len(space) == 2:
        return g("LRN", x, size=g.pick([1, 3, 5]), alpha=0.1)
    if kind == "channels":  # a LayerNorm over channels, as ConvNeXt has it
        last = [0, *range(2, 2 + len(space)), 1]
        y = g("Transpose", x, perm=last)
        y = layer_norm(g, y)
        return g("Transpose", y, perm=[0, 1 + len(space), *range(1, 1 + len(space))])
    groups = g.pick([d for d in range(1, c + 1) if c % d == 0])
    y = g("Reshape", x, g.i(n, groups, -1))
    y = g("InstanceNormalization", y, g.const(np.ones(groups, np.float32)), g.const(np.zeros(groups, np.float32)))
    y = g("Reshape", y, g.i(n, c, *space))
    one = (c, *(1,) * len(space))
    return g("Add", g("Mul", y, g.const(g.normal(*one))), g.const(g.normal(*one)))


def resize(g: Gen, x: str) -> str | None:
    s = g.shape(x)
    if len(s) != 4:
        return None
    mode = g.pick(["nearest", "nearest", "linear", "cubic"])
    attrs: dict[str, Any] = {"mode": mode}
    choices = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    attrs["coordinate_transformation_mode"] = g.pick(choices)
    if mode == "nearest":
        attrs["nearest_mode"] = g.pick(["floor", "round_prefer_floor", "ceil", "round_prefer_ceil"])
    if g.chance(0.5):
        scales = g.const(np.array([1, 1, *(g.pick([2, 1.5, 0.5, 3]) for _ in range(2))], np.float32))
        return g("Resize", x, "", scales, **attrs) if g.opset >= 13 else None
    sizes = [s[0], s[1], *(max(1, int(d * f)) for d, f in zip(s[2:], g.rng.uniform(0.6, 2.2, 2), strict=True))]
    return g("Resize", x, "", "", g.i(*sizes), **attrs) if g.opset >= 13 else None


def depth_space(g: Gen, x: str) -> str | None:
    if len(g.shape(x)) != 4:
        return None
    if not any(d % 2 for d in g.shape(x)[2:]):
        return g("SpaceToDepth", x, blocksize=2)
    return g("DepthToSpace", x, blocksize=2, mode=g.pick(["DCR", "CRD"]))


def head(g: Gen, x: str) -> str:
    """Pooled features and a classifier; they leave the stream of images."""
    kind = g.pick(["gap", "mean", "flatten"])
    if kind == "flatten":
        y = g("Flatten", x, axis=g.pick([1, 1, -len(g.shape(x)) + 1]))
    elif kind == "gap":
        y = g("Flatten", g("GlobalAveragePool", x))
    else:
        y = g.reduce("Mean", x, list(range(2, len(g.shape(x)))), 0)
    k = g.shape(y)[1]
    if k > 600:
        raise Refused("too wide a classifier")
    out = g.pick([1, 3, 10, 33])
    w = g.normal(k, out, scale=1 / np.sqrt(k))
    if g.chance(0.5):
        bias = [g.const(g.normal(out))] if g.chance(0.7) else []
        turned = g.pick([0, 1])
        alpha = g.pick([1.0, 1.0, 0.5])
        y = g("Gemm", y, g.const(w.T if turned else w), *bias, transB=turned, alpha=alpha)
    else:
        y = g("MatMul", y, g.const(w))
    if g.chance(0.5):
        y = softmax(g, y)
    g.alive.append(y)
    return y


CNN: list[tuple[Step, int]] = [
    (conv, 16), (conv_transpose, 2), (batch_norm, 2), (pool, 5), (squeeze_excite, 2), (shuffle, 2), (norm, 2),
    (resize, 2), (depth_space, 1), (head, 2),
]  # fmt: skip
