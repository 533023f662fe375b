# SPDX-License-Identifier: Apache-2.0
"""Elementwise arithmetic with numpy-style (multidirectional) broadcasting.

Float16 and bfloat16 are computed in float32 and rounded once. Integers are exact and wrap in their own width; integer
division truncates toward zero. NaN propagates through max, min and clip. Comparisons, bits and logic are in logic.py,
type changes in cast.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from tcc.reference._numeric import Array, ieee, is_float, narrow, widen


def _unary(x: Array, f: Callable[[Array], Any]) -> Array:
    return narrow(f(widen(x)), np.asarray(x).dtype)


def _binary(a: Array, b: Array, f: Callable[[Array, Array], Any]) -> Array:
    return narrow(f(widen(a), widen(b)), np.asarray(a).dtype)


def abs(x: Array) -> Array:
    """|x|; the least signed integer stays as it is. ONNX Abs."""
    return _unary(x, np.absolute)


def neg(x: Array) -> Array:
    """-x. ONNX Neg."""
    return _unary(x, np.negative)


def sign(x: Array) -> Array:
    """-1, 0 or 1; NaN stays NaN. ONNX Sign."""
    return _unary(x, np.sign)


def ceil(x: Array) -> Array:
    """The least integer not below x. ONNX Ceil."""
    return _unary(x, np.ceil)


def floor(x: Array) -> Array:
    """The greatest integer not above x. ONNX Floor."""
    return _unary(x, np.floor)


def round(x: Array) -> Array:
    """The nearest integer, halves to even. ONNX Round."""
    return _unary(x, np.rint)


@ieee
def sqrt(x: Array) -> Array:
    """Square root; NaN below zero. ONNX Sqrt."""
    return _unary(x, np.sqrt)


@ieee
def reciprocal(x: Array) -> Array:
    """1 / x. ONNX Reciprocal."""
    return _unary(x, lambda v: np.divide(1, v, dtype=v.dtype))


@ieee
def exp(x: Array) -> Array:
    """e to the x. ONNX Exp."""
    return _unary(x, np.exp)


@ieee
def log(x: Array) -> Array:
    """Natural logarithm; -inf at zero, NaN below. ONNX Log."""
    return _unary(x, np.log)


@ieee
def sin(x: Array) -> Array:
    """Sine of radians. ONNX Sin."""
    return _unary(x, np.sin)


@ieee
def cos(x: Array) -> Array:
    """Cosine of radians. ONNX Cos."""
    return _unary(x, np.cos)


@ieee
def tan(x: Array) -> Array:
    """Tangent of radians. ONNX Tan."""
    return _unary(x, np.tan)


@ieee
def asin(x: Array) -> Array:
    """Arcsine in radians; NaN outside [-1, 1]. ONNX Asin."""
    return _unary(x, np.arcsin)


@ieee
def acos(x: Array) -> Array:
    """Arccosine in radians; NaN outside [-1, 1]. ONNX Acos."""
    return _unary(x, np.arccos)


@ieee
def atan(x: Array) -> Array:
    """Arctangent in radians. ONNX Atan."""
    return _unary(x, np.arctan)


@ieee
def sinh(x: Array) -> Array:
    """Hyperbolic sine. ONNX Sinh."""
    return _unary(x, np.sinh)


@ieee
def cosh(x: Array) -> Array:
    """Hyperbolic cosine. ONNX Cosh."""
    return _unary(x, np.cosh)


@ieee
def tanh(x: Array) -> Array:
    """Hyperbolic tangent. ONNX Tanh."""
    return _unary(x, np.tanh)


@ieee
def asinh(x: Array) -> Array:
    """Inverse hyperbolic sine. ONNX Asinh."""
    return _unary(x, np.arcsinh)


@ieee
def acosh(x: Array) -> Array:
    """Inverse hyperbolic cosine; NaN below 1. ONNX Acosh."""
    return _unary(x, np.arccosh)


@ieee
def atanh(x: Array) -> Array:
    """Inverse hyperbolic tangent; NaN outside [-1, 1]. ONNX Atanh."""
    return _unary(x, np.arctanh)


def erf_float64(x: Array) -> Array:
    """The error function of `x` in float64, to the last place or so (the C library's erf)."""
    flat = np.asarray(x, np.float64).reshape(-1)
    return np.fromiter(map(math.erf, flat.tolist()), np.float64, flat.size).reshape(np.shape(x))


def erf(x: Array) -> Array:
    """The error function; computed in float64 whatever the type. ONNX Erf."""
    return narrow(erf_float64(np.asarray(x).astype(np.float64)), np.asarray(x).dtype)


def identity(x: Array) -> Array:
    """x itself. ONNX Identity."""
    return x


@ieee
def add(a: Array, b: Array) -> Array:
    """a + b. ONNX Add."""
    return _binary(a, b, np.add)


@ieee
def sub(a: Array, b: Array) -> Array:
    """a - b. ONNX Sub."""
    return _binary(a, b, np.subtract)


@ieee
def mul(a: Array, b: Array) -> Array:
    """a * b. ONNX Mul."""
    return _binary(a, b, np.multiply)


def _truncated_quotient(a: Array, b: Array) -> Array:
    floored = np.floor_divide(a, b)
    inexact = (a - floored * b != 0) & ((a < 0) != (b < 0)) & (b != 0)
    return floored + inexact.astype(a.dtype)


@ieee
def div(a: Array, b: Array) -> Array:
    """a / b; integers truncate toward zero, and a division by integer zero gives 0 (ONNX leaves it open). ONNX Div."""
    return _binary(a, b, np.divide if is_float(np.asarray(a).dtype) else _truncated_quotient)


@ieee
def mod(a: Array, b: Array, *, fmod: int = 0) -> Array:
    """a - floor(a / b) * b, or with fmod=1 a - trunc(a / b) * b. ONNX Mod."""
    return _binary(a, b, np.fmod if fmod else np.mod)


def _integer_power(base: Array, exponent: Array) -> Array:
    wide = np.uint64 if base.dtype.kind == "u" else np.int64
    power = np.power(base, np.maximum(exponent, 0).astype(wide))
    # 1 / base**n truncates to zero but for bases of magnitude 1.
    unit = (base == 1) | (base == -1) if base.dtype.kind == "i" else base == 1
    sign_of_unit = np.where(exponent % 2 != 0, base, 1)
    return np.where(exponent < 0, np.where(unit, sign_of_unit, 0).astype(power.dtype), power)


@ieee
def pow(x: Array, y: Array) -> Array:
    """x to the y in the type of x; the exponent may have a type of its own. ONNX Pow.

    Two integers give an integer (a negative exponent truncates 1 / x**n toward zero); an integer base with a float
    exponent is computed in float64 and truncated.
    """
    base, exponent = widen(x), widen(y)
    dtype = np.asarray(x).dtype
    if is_float(base.dtype):
        if exponent.dtype.kind in "iu":
            exponent = exponent.astype(np.float64)
            return narrow(np.power(base.astype(np.float64), exponent), dtype)
        return narrow(np.power(base, exponent), dtype)
    if is_float(exponent.dtype):
        return narrow(np.power(base.astype(np.float64), exponent.astype(np.float64)), dtype)
    return narrow(_integer_power(base, exponent), dtype)


def max(*data: Array) -> Array:
    """The greatest of the inputs; NaN if any is NaN. At least one input. ONNX Max."""
    return narrow(reduce(np.maximum, map(widen, data)), np.asarray(data[0]).dtype)


def min(*data: Array) -> Array:
    """The least of the inputs; NaN if any is NaN. At least one input. ONNX Min."""
    return narrow(reduce(np.minimum, map(widen, data)), np.asarray(data[0]).dtype)


@ieee
def sum(*data: Array) -> Array:
    """The sum of the inputs, left to right, rounded once. At least one input. ONNX Sum."""
    return narrow(reduce(np.add, map(widen, data)), np.asarray(data[0]).dtype)


@ieee
def mean(*data: Array) -> Array:
    """The sum of the inputs over their number, rounded once. At least one input. ONNX Mean."""
    total = np.asarray(reduce(np.add, map(widen, data)))
    return narrow(total / total.dtype.type(len(data)), np.asarray(data[0]).dtype)


def clip(x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """min(max, max(x, min)): where min > max the result is max; NaN propagates. Either bound may be None. ONNX Clip."""
    y = widen(x)
    if min is not None:
        y = np.maximum(y, widen(min).astype(y.dtype))
    if max is not None:
        y = np.minimum(y, widen(max).astype(y.dtype))
    return narrow(y, np.asarray(x).dtype)
