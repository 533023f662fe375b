# SPDX-License-Identifier: Apache-2.0
"""Dialect `arith`: arithmetic, comparison, selection and casts on scalars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.declare import ANY, DTYPE, Attr, IRError, Operand, Result, one_of, register
from tcc.ir.scalar import Array, SameType, ScalarOp, element, wrap
from tcc.ir.types import BOOL, ScalarType, Type


@register
class Constant(ScalarOp):
    """A literal of the result's type."""

    name = "arith.constant"
    ulps = 0.0
    value = Attr(ANY)
    y = Result()

    def verify(self) -> None:
        if not isinstance(self.value, bool | int | float):
            raise IRError(f"arith.constant: {self.value!r} is not a number")

    def evaluate(self, *args: Array) -> Array:
        d = element(self.y)
        return np.asarray(self.value, np.float64 if d.is_float else d.numpy)


class _Binary(SameType):
    a = Operand()
    b = Operand()
    y = Result()


@register
class Add(_Binary):
    """a + b; integers wrap."""

    name = "arith.add"

    def evaluate(self, *args: Array) -> Array:
        return wrap(args[0] + args[1], element(self.y))


@register
class Sub(_Binary):
    """a - b; integers wrap."""

    name = "arith.sub"

    def evaluate(self, *args: Array) -> Array:
        return wrap(args[0] - args[1], element(self.y))


@register
class Mul(_Binary):
    """a × b; integers wrap."""

    name = "arith.mul"

    def evaluate(self, *args: Array) -> Array:
        return wrap(args[0] * args[1], element(self.y))


@register
class Div(_Binary):
    """a / b; integers truncate toward zero, and x / 0 is 0."""

    name = "arith.div"

    def evaluate(self, *args: Array) -> Array:
        a, b = args
        if element(self.y).is_float:
            with np.errstate(all="ignore"):
                return a / b
        safe = np.where(b == 0, 1, b)
        q = a // safe
        q = q + ((a % safe != 0) & ((a < 0) != (safe < 0)))
        return wrap(np.where(b == 0, 0, q), element(self.y))


@register
class Mod(_Binary):
    """Integer remainder with the sign of b (ONNX Mod, fmod = 0); x mod 0 is 0."""

    name = "arith.mod"

    def evaluate(self, *args: Array) -> Array:
        a, b = args
        return wrap(np.where(b == 0, 0, a % np.where(b == 0, 1, b)), element(self.y))


@register
class Rem(_Binary):
    """Remainder with the sign of a (C fmod, and % on integers); x rem 0 is 0 for integers."""

    name = "arith.rem"

    def evaluate(self, *args: Array) -> Array:
        a, b = args
        with np.errstate(all="ignore"):
            if element(self.y).is_float:
                return np.fmod(a, b)
            return wrap(np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))), element(self.y))


@register
class Min(_Binary):
    """The smaller; NaN if either is NaN."""

    name = "arith.min"
    ulps = 0.0

    def evaluate(self, *args: Array) -> Array:
        return np.minimum(args[0], args[1])


@register
class Max(_Binary):
    """The larger; NaN if either is NaN."""

    name = "arith.max"
    ulps = 0.0

    def evaluate(self, *args: Array) -> Array:
        return np.maximum(args[0], args[1])


@register
class And(_Binary):
    """Bitwise and (logical on booleans)."""

    name = "arith.and"

    def evaluate(self, *args: Array) -> Array:
        return args[0] & args[1]


@register
class Or(_Binary):
    """Bitwise or (logical on booleans)."""

    name = "arith.or"

    def evaluate(self, *args: Array) -> Array:
        return args[0] | args[1]


@register
class Xor(_Binary):
    """Bitwise exclusive or (logical on booleans)."""

    name = "arith.xor"

    def evaluate(self, *args: Array) -> Array:
        return args[0] ^ args[1]


@register
class Shl(_Binary):
    """a shifted left by b bits; 0 when b is negative or at least the width."""

    name = "arith.shl"

    def evaluate(self, *args: Array) -> Array:
        bits = element(self.y).bits
        a, b = args
        inside = (b >= 0) & (b < bits)
        return wrap(np.where(inside, a << np.where(inside, b, 0), 0), element(self.y))


@register
class Shr(_Binary):
    """a shifted right by b bits (arithmetic on signed integers); where b is negative or at least the width, only the
    sign is left: -1 for a negative a, else 0."""

    name = "arith.shr"

    def evaluate(self, *args: Array) -> Array:
        bits = element(self.y).bits
        a, b = args
        inside = (b >= 0) & (b < bits)
        sign = np.where(a < 0, -1, 0).astype(a.dtype)
        return wrap(np.where(inside, a >> np.where(inside, b, 0), sign), element(self.y))


class _Unary(SameType):
    a = Operand()
    y = Result()


@register
class Neg(_Unary):
    """-a."""

    name = "arith.neg"
    ulps = 0.0

    def evaluate(self, *args: Array) -> Array:
        return wrap(-args[0], element(self.y))


@register
class Not(_Unary):
    """Bitwise complement (logical not on booleans)."""

    name = "arith.not"

    def evaluate(self, *args: Array) -> Array:
        return ~args[0]


@register
class Cmp(ScalarOp):
    """a compared with b: a boolean. Comparisons with NaN are false, but `ne` is true."""

    name = "arith.cmp"
    ulps = 0.0
    a = Operand()
    b = Operand()
    predicate = Attr(one_of("eq", "ne", "lt", "le", "gt", "ge"))
    y = Result()

    def infer(self) -> Sequence[Type]:
        return [ScalarType(BOOL)]

    def verify(self) -> None:
        if self.a.type != self.b.type or self.y.type != ScalarType(BOOL):
            raise IRError(f"arith.cmp: {self.a.type} and {self.b.type} must be one type, and the result i1")

    def evaluate(self, *args: Array) -> Array:
        a, b = args
        p = self.predicate
        return np.asarray(
            a == b if p == "eq" else a != b if p == "ne" else a < b if p == "lt" else a <= b if p == "le"
            else a > b if p == "gt" else a >= b
        )  # fmt: skip


@register
class Select(ScalarOp):
    """a where the condition holds, else b."""

    name = "arith.select"
    ulps = 0.0
    condition = Operand()
    a = Operand()
    b = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        return [self.a.type]

    def verify(self) -> None:
        if self.condition.type != ScalarType(BOOL) or not self.a.type == self.b.type == self.y.type:
            raise IRError(f"arith.select: ({self.condition.type}, {self.a.type}, {self.b.type}) must be (i1, T, T)")

    def evaluate(self, *args: Array) -> Array:
        return np.where(args[0], args[1], args[2])


@register
class Cast(ScalarOp):
    """a as another element type: to float rounds to nearest even, and what is finite in f32 and beyond the range of a
    float of 8 bits or fewer becomes its largest; float to integer truncates toward zero and saturates; to bool is
    a ≠ 0; between integers wraps."""

    name = "arith.cast"
    a = Operand()
    to = Attr(DTYPE)
    y = Result()

    def infer(self) -> Sequence[Type]:
        return [ScalarType(self.to)]

    def verify(self) -> None:
        if self.y.type != ScalarType(self.to):
            raise IRError(f"arith.cast: the result is {self.y.type}, not {self.to}")

    def evaluate(self, *args: Array) -> Array:
        return cast(args[0], self.to)


def cast(a: Array, to: Any) -> Array:
    """`arith.cast` on points: floats stay exact float64, so rounding is left to the allowance."""
    if to.is_float:
        return a.astype(np.float64)
    if to.kind == "bool":
        return a != 0
    if a.dtype.kind == "f":
        info = np.iinfo(to.numpy) if to.bits >= 8 else None
        lo = info.min if info else (-(2 ** (to.bits - 1)) if to.kind == "int" else 0)
        hi = info.max if info else (2 ** (to.bits - (1 if to.kind == "int" else 0)) - 1)
        t = np.trunc(np.nan_to_num(a, nan=0.0, posinf=np.inf, neginf=-np.inf))
        wide = np.int64 if to.kind == "int" else np.uint64
        out = np.where(t <= lo, wide(lo), np.where(t >= hi, wide(hi), wide(0)))
        inside = (t > lo) & (t < hi)
        return np.where(inside, np.where(inside, t, 0).astype(wide), out).astype(to.numpy)
    return a.astype(to.numpy)
