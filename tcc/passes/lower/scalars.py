# SPDX-License-Identifier: Apache-2.0
"""Pointwise graph ops as scalar ops: one row an op, by graph op name.

Floats narrower than 32 bits are computed in f32 and rounded once, where a tensor is written.
"""

from __future__ import annotations

import math as _m
from collections.abc import Callable, Sequence
from typing import Any

from tcc.ir import arith, math
from tcc.ir.core import Op, Value
from tcc.ir.expr import Binary, Dim, Sum, Sym
from tcc.ir.kernel import Index
from tcc.ir.kernel.build import RegionBuilder
from tcc.ir.scalar import element
from tcc.ir.types import (
    BOOL,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F32,
    I64,
    DType,
    ScalarType,
)


def compute_dtype(d: DType) -> DType:
    """The type that scalars of element type d are computed in."""
    return F32 if d.is_float and d.bits < 32 else d


class Scalars:
    """Short ways to append scalar ops to a region."""

    def __init__(self, builder: RegionBuilder) -> None:
        self.b = builder

    def const(self, value: float | int | bool, dtype: DType) -> Value:
        typed = float(value) if dtype.is_float else bool(value) if dtype is BOOL else int(value)
        return self.b(arith.Constant(value=typed, result_types=[ScalarType(dtype)]))

    def like(self, value: float | int | bool, other: Value) -> Value:
        return self.const(value, element(other))

    def add(self, a: Value, b: Value) -> Value:
        return self.b(arith.Add(a, b))

    def sub(self, a: Value, b: Value) -> Value:
        return self.b(arith.Sub(a, b))

    def mul(self, a: Value, b: Value) -> Value:
        return self.b(arith.Mul(a, b))

    def div(self, a: Value, b: Value) -> Value:
        return self.b(arith.Div(a, b))

    def min(self, a: Value, b: Value) -> Value:
        return self.b(arith.Min(a, b))

    def max(self, a: Value, b: Value) -> Value:
        return self.b(arith.Max(a, b))

    def cmp(self, predicate: str, a: Value, b: Value) -> Value:
        return self.b(arith.Cmp(a, b, predicate=predicate))

    def select(self, c: Value, a: Value, b: Value) -> Value:
        return self.b(arith.Select(c, a, b))

    def coordinate(self, name: str) -> Value:
        """The i64 value of a dim of the domain or a symbol of the kernel."""
        return self.b(Index(dim=name))

    def extent(self, e: Dim, symbol: Callable[[str], Value] | None = None) -> Value:
        """The i64 value of an expression. `symbol` gives that of a name; otherwise it is a dim or a symbol."""
        read = symbol or self.coordinate
        if isinstance(e, int):
            return self.const(e, I64)
        if isinstance(e, Sym):
            return read(e.name)
        if isinstance(e, Binary):
            a, b = self.extent(e.lhs, read), self.extent(e.rhs, read)
            if e.op == "mod":
                return self.b(arith.Mod(a, b))
            if e.op == "floordiv":
                remainder = self.b(arith.Mod(a, b))
                return self.div(self.sub(a, remainder), b)
            return self.min(a, b) if e.op == "min" else self.max(a, b)
        assert isinstance(e, Sum)
        total: Value | None = None
        for atoms, coef in e.terms:
            term: Value | None = None
            for atom in atoms:
                factor = self.extent(atom, read)
                term = factor if term is None else self.mul(term, factor)
            assert term is not None
            term = term if coef == 1 else self.mul(term, self.const(coef, I64))
            total = term if total is None else self.add(total, term)
        assert total is not None
        return total if e.const == 0 else self.add(total, self.const(e.const, I64))

    def count(self, e: Dim, other: Value) -> Value:
        """A number of elements as a value of the type of `other`."""
        return self.like(e, other) if isinstance(e, int) else self.cast(self.extent(e), element(other))

    def fn(self, op: Callable[..., Op], *args: Value) -> Value:
        return self.b(op(*args))

    def cast(self, a: Value, to: DType) -> Value:
        return self.b.cast(a, to)


Row = Callable[[Scalars, Op, Sequence[Value]], Value]
TABLE: dict[str, Row] = {}


def scalar(*names: str) -> Callable[[Row], Row]:
    """Function decorator: the scalar form of the graph ops of those names."""

    def add(row: Row) -> Row:
        for n in names:
            TABLE[f"graph.{n}"] = row
        return row

    return add


def _plain(name: str, op: Callable[..., Op]) -> None:
    TABLE[f"graph.{name}"] = lambda s, o, a: s.b(op(*a))


for _name, _op in {
    "add": arith.Add, "sub": arith.Sub, "mul": arith.Mul, "div": arith.Div, "min": arith.Min, "max": arith.Max,
    "and": arith.And, "or": arith.Or, "xor": arith.Xor, "not": arith.Not, "bitwise_and": arith.And,
    "bitwise_or": arith.Or, "bitwise_xor": arith.Xor, "bitwise_not": arith.Not, "shift_left": arith.Shl,
    "shift_right": arith.Shr, "neg": arith.Neg, "where": arith.Select,
}.items():  # fmt: skip
    _plain(_name, _op)

for _name in (
    "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    "erf", "sigmoid", "sqrt", "isnan",
):  # fmt: skip
    _plain(_name, getattr(math, {"isnan": "IsNan"}.get(_name, _name.capitalize())))

for _name, _predicate in {
    "equal": "eq", "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"
}.items():  # fmt: skip
    TABLE[f"graph.{_name}"] = lambda s, o, a, p=_predicate: s.cmp(p, a[0], a[1])


@scalar("floor", "ceil", "round")
def _rounding(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    f: Any = {"graph.floor": math.Floor, "graph.ceil": math.Ceil, "graph.round": math.Round}[op.name]
    return s.fn(f, a[0])


@scalar("abs")
def _abs(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    if element(a[0]).is_float:
        return s.fn(math.Abs, a[0])
    return s.select(s.cmp("lt", a[0], s.like(0, a[0])), s.b(arith.Neg(a[0])), a[0])


@scalar("sign")
def _sign(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    if element(a[0]).is_float:
        return s.fn(math.Sign, a[0])
    zero = s.like(0, a[0])
    positive = s.select(s.cmp("gt", a[0], zero), s.like(1, a[0]), zero)
    if element(a[0]).kind == "uint":
        return positive
    return s.select(s.cmp("lt", a[0], zero), s.like(-1, a[0]), positive)


@scalar("isinf")
def _isinf(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    if op.attrs["positive"] and op.attrs["negative"]:
        return s.fn(math.IsInf, a[0])
    if not op.attrs["positive"] and not op.attrs["negative"]:
        return s.const(False, BOOL)
    return s.cmp("eq", a[0], s.like(_m.inf if op.attrs["positive"] else -_m.inf, a[0]))


@scalar("pow")
def _pow(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    exponent = a[1].defining_op
    if isinstance(exponent, arith.Constant):
        e = float(exponent.value)
        if e == 2.0:
            return s.mul(a[0], a[0])
        if e == 3.0:
            return s.mul(s.mul(a[0], a[0]), a[0])
        if e == 1.0:
            return a[0]
        if e == 0.5 and element(a[0]).is_float:
            return s.fn(math.Sqrt, a[0])
        if e == -1.0 and element(a[0]).is_float:
            return s.div(s.like(1, a[0]), a[0])
    d = element(a[0])
    if d.is_float:
        return s.fn(math.Pow, a[0], a[1])
    from tcc.ir.types import F64

    return s.cast(s.fn(math.Pow, s.cast(a[0], F64), s.cast(a[1], F64)), d)


@scalar("mod")
def _mod(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.b(arith.Rem(a[0], a[1])) if op.attrs["fmod"] else s.b(arith.Mod(a[0], a[1]))


_OVERFLOWS: dict[DType, tuple[float, bool]] = {
    F8E4M3FN: (464.0, False), F8E4M3FNUZ: (248.0, True), F8E5M2: (61440.0, True), F8E5M2FNUZ: (61440.0, True),
}  # fmt: skip
"""Halfway from the largest finite value to what would follow it, and whether a tie rounds up, to the even one."""


@scalar("cast")
def _cast(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    # Rounds here, although the next op may be computed more widely: that is what the cast is for.
    to, x = op.attrs["to"], a[0]
    if to in _OVERFLOWS and element(x) is not BOOL:
        x = x if element(x).is_float else s.cast(x, F32)
        x = _saturated(s, x, to) if op.attrs["saturate"] else _overflowing(s, x, to)
    return s.cast(s.cast(x, to), compute_dtype(to))


def _saturated(s: Scalars, x: Value, to: DType) -> Value:
    """`arith.cast` clamps finite numbers; a type that has infinities keeps those."""
    if to is not F8E5M2:
        return x
    return s.min(s.max(x, s.like(-57344.0, x)), s.like(57344.0, x))


def _overflowing(s: Scalars, x: Value, to: DType) -> Value:
    """What rounds past the largest value is infinite, and NaN in a type without infinities."""
    limit, reached = _OVERFLOWS[to]
    beyond = s.cmp("ge" if reached else "gt", s.fn(math.Abs, x), s.like(limit, x))
    infinite = s.mul(x, s.like(_m.inf, x))
    return s.select(beyond, infinite if to is F8E5M2 else s.sub(infinite, infinite), x)


@scalar("reciprocal")
def _reciprocal(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.div(s.like(1, a[0]), a[0])


@scalar("relu")
def _relu(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.max(a[0], s.like(0, a[0]))


@scalar("leaky_relu")
def _leaky(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.select(s.cmp("lt", a[0], s.like(0, a[0])), s.mul(a[0], s.like(op.attrs["alpha"], a[0])), a[0])


@scalar("prelu")
def _prelu(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.select(s.cmp("lt", a[0], s.like(0, a[0])), s.mul(a[0], a[1]), a[0])


def _exp_minus_one(s: Scalars, x: Value) -> Value:
    return s.fn(math.Expm1, x)


@scalar("elu")
def _elu(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    low = s.mul(_exp_minus_one(s, a[0]), s.like(op.attrs["alpha"], a[0]))
    return s.select(s.cmp("lt", a[0], s.like(0, a[0])), low, a[0])


@scalar("selu")
def _selu(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    low = s.mul(_exp_minus_one(s, a[0]), s.like(op.attrs["alpha"], a[0]))
    return s.mul(s.select(s.cmp("le", a[0], s.like(0, a[0])), low, a[0]), s.like(op.attrs["gamma"], a[0]))


@scalar("celu")
def _celu(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    alpha = s.like(op.attrs["alpha"], a[0])
    zero = s.like(0, a[0])
    return s.add(s.max(a[0], zero), s.min(zero, s.mul(alpha, _exp_minus_one(s, s.div(a[0], alpha)))))


@scalar("hard_sigmoid")
def _hard_sigmoid(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    x = s.add(s.mul(a[0], s.like(op.attrs["alpha"], a[0])), s.like(op.attrs["beta"], a[0]))
    return s.min(s.max(x, s.like(0, x)), s.like(1, x))


@scalar("hard_swish")
def _hard_swish(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    x = s.add(s.mul(a[0], s.like(1 / 6, a[0])), s.like(0.5, a[0]))
    return s.mul(a[0], s.min(s.max(x, s.like(0, x)), s.like(1, x)))


def softplus(s: Scalars, x: Value) -> Value:
    """ln(1 + e^x) without overflow: max(x, 0) + log1p(e^-|x|)."""
    zero = s.like(0, x)
    return s.add(s.max(x, zero), s.fn(math.Log1p, s.fn(math.Exp, s.b(arith.Neg(s.fn(math.Abs, x))))))


@scalar("softplus")
def _softplus(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return softplus(s, a[0])


@scalar("softsign")
def _softsign(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.div(a[0], s.add(s.like(1, a[0]), s.fn(math.Abs, a[0])))


@scalar("mish")
def _mish(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.mul(a[0], s.fn(math.Tanh, softplus(s, a[0])))


@scalar("swish")
def _swish(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    alpha = op.attrs["alpha"]
    x = a[0] if alpha == 1.0 else s.mul(a[0], s.like(alpha, a[0]))
    return s.mul(a[0], s.fn(math.Sigmoid, x))


@scalar("thresholded_relu")
def _thresholded(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    return s.select(s.cmp("gt", a[0], s.like(op.attrs["alpha"], a[0])), a[0], s.like(0, a[0]))


@scalar("gelu")
def _gelu(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    x = a[0]
    half = s.mul(x, s.like(0.5, x))
    if op.attrs["approximate"] == "tanh":
        cube = s.mul(s.mul(s.mul(x, x), x), s.like(0.044715, x))
        inner = s.mul(s.add(x, cube), s.like(_m.sqrt(2 / _m.pi), x))
        return s.mul(half, s.add(s.fn(math.Tanh, inner), s.like(1, x)))
    return s.mul(half, s.add(s.fn(math.Erf, s.mul(x, s.like(_m.sqrt(0.5), x))), s.like(1, x)))


@scalar("shrink")
def _shrink(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    x = a[0]
    bias, lambd = s.like(op.attrs["bias"], x), op.attrs["lambd"]
    zero = s.like(0, x)
    high = s.select(s.cmp("gt", x, s.like(lambd, x)), s.sub(x, bias), zero)
    return s.select(s.cmp("lt", x, s.like(-lambd, x)), s.add(x, bias), high)


@scalar("clip")
def _clip(s: Scalars, op: Op, a: Sequence[Value]) -> Value:
    x = a[0]
    if op.attrs["lo"] is not None:
        x = s.max(x, s.like(op.attrs["lo"], x))
    if op.attrs["hi"] is not None:
        x = s.min(x, s.like(op.attrs["hi"], x))
    return x
