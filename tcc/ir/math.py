# SPDX-License-Identifier: Apache-2.0
"""Dialect `math`: elementary functions on scalars. `ulps` is the accuracy every emitter must reach in f32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tcc.ir.declare import Operand, Result, register
from tcc.ir.scalar import Array, SameType, ScalarOp
from tcc.ir.types import BOOL, ScalarType, Type
from tcc.reference import elementwise as reference


class _Unary(SameType):
    a = Operand()
    y = Result()


def _unary(word: str, ulps: float, doc: str, f: Callable[[Array], Array]) -> type[_Unary]:
    def evaluate(self: _Unary, *args: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(f(args[0]))

    return register(
        type(word.capitalize(), (_Unary,), {"__doc__": doc, "name": f"math.{word}", "ulps": ulps, "evaluate": evaluate})
    )


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # never overflows, and keeps the digits of results near 0
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


Exp = _unary("exp", 4, "e^a.", np.exp)
Log = _unary("log", 4, "ln a.", np.log)
Sqrt = _unary("sqrt", 1, "√a.", np.sqrt)
Rsqrt = _unary("rsqrt", 4, "1/√a.", lambda x: 1.0 / np.sqrt(x))
Erf = _unary("erf", 8, "The error function.", lambda x: np.asarray(reference.erf(x)))
Tanh = _unary("tanh", 8, "Hyperbolic tangent.", np.tanh)
Sigmoid = _unary("sigmoid", 8, "1/(1 + e^-a).", _sigmoid)
Sin = _unary("sin", 8, "Sine (radians).", np.sin)
Cos = _unary("cos", 8, "Cosine (radians).", np.cos)
Tan = _unary("tan", 16, "Tangent (radians).", np.tan)
Asin = _unary("asin", 8, "Arc sine, in radians.", np.arcsin)
Acos = _unary("acos", 8, "Arc cosine, in radians.", np.arccos)
Atan = _unary("atan", 8, "Arc tangent, in radians.", np.arctan)
Sinh = _unary("sinh", 16, "Hyperbolic sine.", np.sinh)
Cosh = _unary("cosh", 16, "Hyperbolic cosine.", np.cosh)
Asinh = _unary("asinh", 16, "Inverse hyperbolic sine.", np.arcsinh)
Acosh = _unary("acosh", 16, "Inverse hyperbolic cosine.", np.arccosh)
Atanh = _unary("atanh", 16, "Inverse hyperbolic tangent.", np.arctanh)
Log1p = _unary("log1p", 8, "ln(1 + a), accurate near 0.", np.log1p)
Expm1 = _unary("expm1", 8, "e^a - 1, accurate near 0.", np.expm1)
Abs = _unary("abs", 0, "|a|.", np.abs)
Sign = _unary("sign", 0, "-1, 0 or 1; NaN for NaN.", np.sign)
Floor = _unary("floor", 0, "The largest integer ≤ a.", np.floor)
Ceil = _unary("ceil", 0, "The smallest integer ≥ a.", np.ceil)
Round = _unary("round", 0, "The nearest integer, ties to even.", np.rint)
Trunc = _unary("trunc", 0, "a without its fraction.", np.trunc)


@register
class Pow(ScalarOp):
    """a^b, both of one float type."""

    name = "math.pow"
    ulps = 32
    a = Operand()
    b = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        return [self.a.type]

    def evaluate(self, *args: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.power(args[0], args[1])


class _Test(ScalarOp):
    a = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        return [ScalarType(BOOL)]


@register
class IsNan(_Test):
    """Whether a is NaN."""

    name = "math.isnan"

    def evaluate(self, *args: Array) -> Array:
        return np.isnan(args[0])


@register
class IsInf(_Test):
    """Whether a is an infinity."""

    name = "math.isinf"

    def evaluate(self, *args: Array) -> Array:
        return np.isinf(args[0])
