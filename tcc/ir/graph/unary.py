# SPDX-License-Identifier: Apache-2.0
"""Unary pointwise maths: exponentials, roots, rounding, trigonometry, and tests for NaN and infinity."""

from __future__ import annotations

from collections.abc import Sequence

from tcc import reference as _ref
from tcc.ir.declare import BOOLEAN, Attr, register
from tcc.ir.graph.base import Array, dense, present
from tcc.ir.graph.pointwise import Unary, check_domain
from tcc.ir.types import BOOL, Type


@register
class Neg(Unary):
    """-x. ONNX Neg."""

    name = "graph.neg"
    compute = staticmethod(_ref.neg)


@register
class Abs(Unary):
    """|x|. ONNX Abs."""

    name = "graph.abs"
    compute = staticmethod(_ref.abs)


@register
class Sign(Unary):
    """-1, 0 or 1 as x is negative, zero or positive. ONNX Sign."""

    name = "graph.sign"
    compute = staticmethod(_ref.sign)


@register
class Floor(Unary):
    """⌊x⌋. ONNX Floor."""

    name = "graph.floor"
    domain = "float"
    compute = staticmethod(_ref.floor)


@register
class Ceil(Unary):
    """⌈x⌉. ONNX Ceil."""

    name = "graph.ceil"
    domain = "float"
    compute = staticmethod(_ref.ceil)


@register
class Round(Unary):
    """x rounded to the nearest integer, halves to even. ONNX Round."""

    name = "graph.round"
    domain = "float"
    compute = staticmethod(_ref.round)


@register
class Sqrt(Unary):
    """√x; NaN below 0. ONNX Sqrt."""

    name = "graph.sqrt"
    domain = "float"
    compute = staticmethod(_ref.sqrt)


@register
class Reciprocal(Unary):
    """1 / x. ONNX Reciprocal."""

    name = "graph.reciprocal"
    domain = "float"
    compute = staticmethod(_ref.reciprocal)


@register
class Exp(Unary):
    """eˣ. ONNX Exp."""

    name = "graph.exp"
    domain = "float"
    compute = staticmethod(_ref.exp)


@register
class Log(Unary):
    """Natural logarithm. ONNX Log."""

    name = "graph.log"
    domain = "float"
    compute = staticmethod(_ref.log)


@register
class Sin(Unary):
    """Sine of radians. ONNX Sin."""

    name = "graph.sin"
    domain = "float"
    compute = staticmethod(_ref.sin)


@register
class Cos(Unary):
    """Cosine of radians. ONNX Cos."""

    name = "graph.cos"
    domain = "float"
    compute = staticmethod(_ref.cos)


@register
class Tan(Unary):
    """Tangent of radians. ONNX Tan."""

    name = "graph.tan"
    domain = "float"
    compute = staticmethod(_ref.tan)


@register
class Asin(Unary):
    """Arcsine. ONNX Asin."""

    name = "graph.asin"
    domain = "float"
    compute = staticmethod(_ref.asin)


@register
class Acos(Unary):
    """Arccosine. ONNX Acos."""

    name = "graph.acos"
    domain = "float"
    compute = staticmethod(_ref.acos)


@register
class Atan(Unary):
    """Arctangent. ONNX Atan."""

    name = "graph.atan"
    domain = "float"
    compute = staticmethod(_ref.atan)


@register
class Sinh(Unary):
    """Hyperbolic sine. ONNX Sinh."""

    name = "graph.sinh"
    domain = "float"
    compute = staticmethod(_ref.sinh)


@register
class Cosh(Unary):
    """Hyperbolic cosine. ONNX Cosh."""

    name = "graph.cosh"
    domain = "float"
    compute = staticmethod(_ref.cosh)


@register
class Tanh(Unary):
    """Hyperbolic tangent. ONNX Tanh."""

    name = "graph.tanh"
    domain = "float"
    compute = staticmethod(_ref.tanh)


@register
class Asinh(Unary):
    """Inverse hyperbolic sine. ONNX Asinh."""

    name = "graph.asinh"
    domain = "float"
    compute = staticmethod(_ref.asinh)


@register
class Acosh(Unary):
    """Inverse hyperbolic cosine. ONNX Acosh."""

    name = "graph.acosh"
    domain = "float"
    compute = staticmethod(_ref.acosh)


@register
class Atanh(Unary):
    """Inverse hyperbolic tangent. ONNX Atanh."""

    name = "graph.atanh"
    domain = "float"
    compute = staticmethod(_ref.atanh)


@register
class Erf(Unary):
    """Gauss error function. ONNX Erf."""

    name = "graph.erf"
    domain = "float"
    compute = staticmethod(_ref.erf)


class Test(Unary):
    """Base of float → bool tests."""

    domain = "float"

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_domain(self, self.domain, t.dtype.kind)
        return (dense(t.shape, BOOL),)


@register
class IsNan(Test):
    """Whether x is NaN. ONNX IsNaN."""

    name = "graph.isnan"
    compute = staticmethod(_ref.is_nan)


@register
class IsInf(Test):
    """Whether x is infinite, of the signs asked for. ONNX IsInf."""

    name = "graph.isinf"
    positive = Attr(BOOLEAN, True)
    negative = Attr(BOOLEAN, True)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        return (_ref.is_inf(x, detect_negative=int(self.negative), detect_positive=int(self.positive)),)
