# SPDX-License-Identifier: Apache-2.0
"""Quantized numbers: there and back, and products of them."""

from __future__ import annotations

import math

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.contraction import window
from tests.random_graphs.steps.table import axis_of, step


def _scale(g: Gen, shape: tuple[int, ...] = ()) -> str:
    return g.const(np.asarray(0.02 + np.abs(g.normal(*shape)) / 16, np.float32))


def _zero(g: Gen, kind: str, shape: tuple[int, ...] = ()) -> str:
    return g.const(g.numbers(kind, shape, 0 if kind == "uint8" else -5, 120 if kind == "uint8" else 5))


def quantized(g: Gen, x: str, kind: str) -> tuple[str, str, str]:
    """(x as bytes, its scale, its zero point)."""
    s, z = _scale(g), _zero(g, kind)
    return g("QuantizeLinear", x, s, z), s, z


@step("f", range(1, 6), weight=3)
def fake_quantized(g: Gen, x: str) -> str:
    if g.dtype(x) != np.float32:
        raise Refused("scales are f32")
    kind = g.pick(["int8", "uint8"])
    if g.opset >= 13 and g.chance(0.4):
        axis = axis_of(g, x)
        n = (g.shape(x)[axis],)
        s, z = _scale(g, n), _zero(g, kind, n)
        return g("DequantizeLinear", g("QuantizeLinear", x, s, z, axis=axis), s, z, axis=axis)
    q, s, z = quantized(g, x, kind)
    return g("DequantizeLinear", q, s, z)


@step("f", range(5), weight=1)
def dynamic(g: Gen, x: str) -> str:
    if g.dtype(x) != np.float32 or 0 in g.shape(x):
        raise Refused("f32 only")
    y, scale, zero = g.many("DynamicQuantizeLinear", [x], 3)
    return g("DequantizeLinear", y, scale, zero)


@step("f", range(2, 5), weight=2)
def quantized_matmul(g: Gen, x: str) -> str:
    if g.dtype(x) != np.float32:
        raise Refused("f32 only")
    k, n = g.shape(x)[-1], g.pick([1, 4, 9])
    kind = g.pick(["int8", "uint8"])
    q, s, z = quantized(g, x, kind)
    other = g.pick(["int8", "uint8"]) if kind == "uint8" else "int8"
    w = g.const(g.numbers(other, (k, n), 0 if other == "uint8" else -60, 60))
    wz = _zero(g, other, g.pick([(), (n,)]))
    if g.chance(0.5):
        y = g("MatMulInteger", q, w, z, wz) if g.chance(0.8) else g("MatMulInteger", q, w)
        return g("Mul", g("Cast", y, to=1), g.f(0.001))
    ws = _scale(g, g.shape(wz))
    out = g.const(np.float32(0.25)), _zero(g, kind)
    y = g("QLinearMatMul", q, s, z, w, ws, wz, *out)
    return g("DequantizeLinear", y, *out)


@step("f", range(3, 5), weight=2)
def quantized_conv(g: Gen, x: str) -> str:
    _, c, *space = g.shape(x)
    if g.dtype(x) != np.float32 or 0 in g.shape(x):
        raise Refused("f32 only")
    attrs = window(g, tuple(space), 3)
    group = g.pick([1, 1, c])
    out = group * g.pick([1, 2, 5])
    kind = "uint8" if g.chance(0.7) else "int8"
    q, s, z = quantized(g, x, kind)
    shape = (out, c // group, *attrs["kernel_shape"])
    signed = kind == "int8" or g.chance(0.6)
    w = g.const(g.numbers("int8", shape, -50, 50) if signed else g.numbers("uint8", shape, 0, 99))
    wz = g.const(np.zeros((), g.dtype(w)))
    if g.chance(0.4) and kind == "uint8":
        y = g("ConvInteger", q, w, z, group=group, **attrs)
        return g("Mul", g("Cast", y, to=1), g.f(0.001))
    ws = _scale(g, g.pick([(), (out,)]))
    if g.shape(ws):
        wz = g.const(np.zeros(out, g.dtype(w)))
    to = g.const(np.float32(0.02 * math.sqrt(math.prod(shape[1:])))), _zero(g, kind)
    bias = [g.const(g.numbers(np.int32, (out,), -200, 200))] if g.chance(0.5) else []
    y = g("QLinearConv", q, s, z, w, ws, wz, *to, *bias, group=group, **attrs)
    return g("DequantizeLinear", y, *to)


@step("f", range(2, 5), weight=2)
def qdq_layer(g: Gen, x: str) -> str:
    """A layer between pairs of QuantizeLinear and DequantizeLinear, as quantizers write it."""
    if g.dtype(x) != np.float32 or 0 in g.shape(x):
        raise Refused("f32 only")
    q, s, z = quantized(g, x, g.pick(["int8", "uint8"]))
    a = g("DequantizeLinear", q, s, z)
    k = g.shape(x)[1] if len(g.shape(x)) == 4 else g.shape(x)[-1]
    n = g.pick([3, 8])
    four = len(g.shape(x)) == 4
    shape = (n, k, 1, 1) if four else (k, n)
    ws, wz = _scale(g), g.const(np.int8(0))
    w = g("DequantizeLinear", g.const(g.numbers("int8", shape, -40, 40)), ws, wz)
    y = g("Conv", a, w, kernel_shape=[1, 1]) if four else g("MatMul", a, w)
    if g.chance(0.5):
        y = g("Relu", y)
    out = g.const(np.float32(0.0625 * math.sqrt(k))), g.const(np.int8(g.int(-9, 9)))
    return g("DequantizeLinear", g("QuantizeLinear", y, *out), *out)
