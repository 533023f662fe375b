# SPDX-License-Identifier: Apache-2.0
"""ONNX arithmetic, comparison, logic and maths."""

from __future__ import annotations

from collections.abc import Callable

from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.types import BOOL, F8E8M0, F32, F64, I64, DType

_BINARY: dict[str, type[Op]] = {
    "Add": graph.Add,
    "Sub": graph.Sub,
    "Mul": graph.Mul,
    "Div": graph.Div,
    "And": graph.And,
    "Or": graph.Or,
    "Xor": graph.Xor,
    "BitwiseAnd": graph.BitwiseAnd,
    "BitwiseOr": graph.BitwiseOr,
    "BitwiseXor": graph.BitwiseXor,
    "Equal": graph.Equal,
    "Less": graph.Less,
    "LessOrEqual": graph.LessEqual,
    "Greater": graph.Greater,
    "GreaterOrEqual": graph.GreaterEqual,
}
_UNARY: dict[str, type[Op]] = {
    "Not": graph.Not,
    "BitwiseNot": graph.BitwiseNot,
    "Neg": graph.Neg,
    "Abs": graph.Abs,
    "Sign": graph.Sign,
    "Floor": graph.Floor,
    "Ceil": graph.Ceil,
    "Round": graph.Round,
    "Sqrt": graph.Sqrt,
    "Reciprocal": graph.Reciprocal,
    "Exp": graph.Exp,
    "Log": graph.Log,
    "Sin": graph.Sin,
    "Cos": graph.Cos,
    "Tan": graph.Tan,
    "Asin": graph.Asin,
    "Acos": graph.Acos,
    "Atan": graph.Atan,
    "Sinh": graph.Sinh,
    "Cosh": graph.Cosh,
    "Tanh": graph.Tanh,
    "Asinh": graph.Asinh,
    "Acosh": graph.Acosh,
    "Atanh": graph.Atanh,
    "Erf": graph.Erf,
    "IsNaN": graph.IsNan,
}


def _simple(cls: type[Op], arity: int) -> Callable[[Node], Value]:
    return lambda n: n.op(cls, *(n.input(i) for i in range(arity)))


for _name, _cls in _BINARY.items():
    onnx_op(_name)(_simple(_cls, 2))
for _name, _cls in _UNARY.items():
    onnx_op(_name)(_simple(_cls, 1))


@onnx_op("Identity")
def identity(n: Node) -> Value:
    return n.input(0)


@onnx_op("Pow")
def power(n: Node) -> Value:
    """Base and exponent may differ in type; an integer base with a float exponent is computed in float."""
    a, b = n.input(0), n.input(1)
    base, exponent = n.dtype(a), n.dtype(b)
    if base == exponent:
        return n.op(graph.Pow, a, b)
    if base.is_float or not exponent.is_float:
        return n.op(graph.Pow, a, n.cast(b, base))
    wide = F64 if base.bits > 16 or exponent == F64 else F32
    return n.cast(n.op(graph.Pow, n.cast(a, wide), n.cast(b, wide)), base)


@onnx_op("Mod")
def modulo(n: Node) -> Value:
    return n.op(graph.Mod, n.input(0), n.input(1), fmod=n.flag("fmod"))


@onnx_op("BitShift")
def bit_shift(n: Node) -> Value:
    direction = n.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise InputError(f"its direction is {direction}, and LEFT or RIGHT are the choices")
    return n.op(graph.ShiftLeft if direction == "LEFT" else graph.ShiftRight, n.input(0), n.input(1))


def _chain(cls: type[Op]) -> Callable[[Node], Value]:
    def handler(n: Node) -> Value:
        out = n.input(0)
        for value in n.inputs[1:]:
            out = n.op(cls, out, value)
        return out

    return handler


onnx_op("Max")(_chain(graph.Max))
onnx_op("Min")(_chain(graph.Min))
onnx_op("Sum")(_chain(graph.Add))


@onnx_op("Mean")
def mean(n: Node) -> Value:
    total = _chain(graph.Add)(n)
    return n.op(graph.Mul, total, n.like(1.0 / len(n.values), total)) if len(n.values) > 1 else total


@onnx_op("Where")
def where(n: Node) -> Value:
    return n.op(graph.Where, n.input(0), n.input(1), n.input(2))


@onnx_op("IsInf")
def is_inf(n: Node) -> Value:
    positive, negative = n.flag("detect_positive", True), n.flag("detect_negative", True)
    return n.op(graph.IsInf, n.input(0), positive=positive, negative=negative)


@onnx_op("Cast")
def cast(n: Node) -> Value:
    to = element_type(n.attr("to"), "its result")
    return _convert(n, n.input(0), to)


@onnx_op("CastLike")
def cast_like(n: Node) -> Value:
    return _convert(n, n.input(0), n.dtype(n.input(1)))


def _convert(n: Node, x: Value, to: DType) -> Value:
    if n.dtype(x) == to:
        return x
    mode = n.attr("round_mode", "up")
    if mode not in ("up", "down", "nearest"):
        raise InputError(f"its round_mode is {mode}, and up, down and nearest are the choices")
    saturate = n.flag("saturate", True)
    if n.dtype(x).kind == "string" and to.is_float and to.bits <= 8:
        x = n.cast(x, F64)
    if to is F8E8M0 and n.dtype(x) is not BOOL:
        x = _power_of_two(n, x, mode, saturate)
    if to.is_int and to.bits < 8 and n.dtype(x).is_float:
        # The low bits of the integer, not the nearest of the few that there are.
        x = n.cast(x, I64)
    return n.op(graph.Cast, x, to=to, saturate=saturate)


def _power_of_two(n: Node, x: Value, mode: str, saturate: bool) -> Value:
    """x in f64, rounded to a power of two from 2^-127 to 2^127 by its bits; NaN for what is none of these."""
    f = Formula(n)
    x = n.cast(x, F64)
    bits = n.op(graph.BitCast, f.where(n.op(graph.IsNan, x), 0.0, x), to=I64)
    # Rounding carries from the mantissa into the exponent.
    carry = {"up": (1 << 52) - 1, "down": 0, "nearest": 1 << 51}[mode]
    power = n.op(graph.BitwiseAnd, f.add(bits, carry), n.constant(-1 << 52, I64))
    y = n.op(graph.BitCast, power, to=F64)
    low, high = 2.0**-127, 2.0**127
    if saturate:
        y = f.clamp(y, low, high)
        good = f.at_most(0.0, x)
    else:
        good = f.both(f.less(0.0, x), f.both(f.at_most(low, y), f.at_most(y, high)))
    return f.where(good, y, float("nan"))


@onnx_op("BitCast")
def bit_cast(n: Node) -> Value:
    x, to = n.input(0), element_type(n.attr("to"), "its result")
    if n.dtype(x).kind == "string" or to.kind == "string" or n.dtype(x).bits != to.bits:
        raise InputError(f"its operand is {n.type(x)}, and {to} has another width")
    return x if n.dtype(x) == to else n.op(graph.BitCast, x, to=to)


@onnx_op("Clip")
def clip(n: Node) -> Value:
    """Bounds are attributes before opset 11 and operands since."""
    x = n.input(0)
    if n.opset < 11:
        return _clip(n, x, n.attr("min", None), n.attr("max", None))
    bounds = [n.optional(1), n.optional(2)]
    known = [n.known(b) for b in bounds]
    if all(b is None or k is not None for b, k in zip(bounds, known, strict=True)):
        lo, hi = (None if k is None else k.reshape(-1)[0].item() for k in known)
        return _clip(n, x, lo, hi)
    lo, hi = bounds
    x = x if lo is None else n.op(graph.Max, x, lo)
    return x if hi is None else n.op(graph.Min, x, hi)


def _clip(n: Node, x: Value, lo: float | None, hi: float | None) -> Value:
    dtype = n.dtype(x)
    if dtype.is_float:
        lo = None if lo is None or lo == float("-inf") else float(lo)
        hi = None if hi is None or hi == float("inf") else float(hi)
    if lo is None and hi is None:
        return x
    # With lo > hi everything becomes hi, as the composition of max and min says.
    return n.op(graph.Clip, x, lo=lo, hi=hi)
