# SPDX-License-Identifier: Apache-2.0
"""Pointwise arithmetic: each output element from the input elements that numpy broadcasting pairs with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tcc import reference as _ref
from tcc.ir.declare import BOOLEAN, DTYPE, Attr, Operand, Result, register
from tcc.ir.graph.base import Array, GraphOp, broadcast, dense, present, same_dtype
from tcc.ir.types import BOOL, Type


class Pointwise(GraphOp):
    """Base of pointwise ops."""

    category = "pointwise"


class Unary(Pointwise):
    """Base of y = f(x), any shape, same type."""

    compute: ClassVar[Callable[..., Any]]
    domain: ClassVar[str] = "number"
    """Element types taken: `number` (float or int), `float`, `int`, `bool`, `any`."""
    x = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_domain(self, self.domain, t.dtype.kind)
        return (dense(t.shape, t.dtype),)

    def verify(self) -> None:
        check_domain(self, self.domain, self.operand_type(0).dtype.kind)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (type(self).compute(present(arrays[0])),)


def check_domain(op: GraphOp, domain: str, kind: str) -> None:
    """IRError if an op of that domain does not take elements of that kind."""
    accepted = {
        "number": ("float", "int", "uint"),
        "float": ("float",),
        "int": ("int", "uint"),
        "bool": ("bool",),
        "any": ("float", "int", "uint", "bool", "string"),
    }[domain]
    if kind not in accepted:
        raise op.fail(f"it takes {domain} elements, not {kind}")


class Binary(Pointwise):
    """Base of y = f(a, b) with broadcasting; both operands of one type, which is the result's."""

    compute: ClassVar[Callable[..., Any]]
    domain: ClassVar[str] = "number"
    a = Operand()
    b = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        a, b = self.operand_type(0), self.operand_type(1)
        dtype = same_dtype(self, a, b)
        check_domain(self, self.domain, dtype.kind)
        return (dense(broadcast(self, (a.shape, b.shape)), dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (type(self).compute(present(arrays[0]), present(arrays[1])),)


class Compare(Binary):
    """Base of comparisons: the result is bool."""

    def infer(self) -> Sequence[Type]:
        a, b = self.operand_type(0), self.operand_type(1)
        check_domain(self, self.domain, same_dtype(self, a, b).kind)
        return (dense(broadcast(self, (a.shape, b.shape)), BOOL),)


@register
class Add(Binary):
    """a + b. ONNX Add."""

    name = "graph.add"
    compute = staticmethod(_ref.add)


@register
class Sub(Binary):
    """a - b. ONNX Sub."""

    name = "graph.sub"
    compute = staticmethod(_ref.sub)


@register
class Mul(Binary):
    """a × b. ONNX Mul."""

    name = "graph.mul"
    compute = staticmethod(_ref.mul)


@register
class Div(Binary):
    """a / b; integers truncate toward zero. ONNX Div."""

    name = "graph.div"
    compute = staticmethod(_ref.div)


@register
class Pow(Binary):
    """a to the power b. ONNX Pow, with the exponent in the base's type."""

    name = "graph.pow"
    compute = staticmethod(_ref.pow)


@register
class Mod(Binary):
    """Remainder of a / b: with the sign of b, or with `fmod` with that of a (C's fmod). ONNX Mod."""

    name = "graph.mod"
    fmod = Attr(BOOLEAN, False)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.mod(present(arrays[0]), present(arrays[1]), fmod=int(self.fmod)),)


@register
class Min(Binary):
    """The smaller of a and b; NaN if either is. ONNX Min of two."""

    name = "graph.min"
    compute = staticmethod(_ref.min)


@register
class Max(Binary):
    """The larger of a and b; NaN if either is. ONNX Max of two."""

    name = "graph.max"
    compute = staticmethod(_ref.max)


@register
class And(Binary):
    """a and b, of bools. ONNX And."""

    name = "graph.and"
    domain = "bool"
    compute = staticmethod(_ref.and_)


@register
class Or(Binary):
    """a or b, of bools. ONNX Or."""

    name = "graph.or"
    domain = "bool"
    compute = staticmethod(_ref.or_)


@register
class Xor(Binary):
    """a xor b, of bools. ONNX Xor."""

    name = "graph.xor"
    domain = "bool"
    compute = staticmethod(_ref.xor)


@register
class Not(Unary):
    """not x, of bools. ONNX Not."""

    name = "graph.not"
    domain = "bool"
    compute = staticmethod(_ref.not_)


@register
class BitwiseAnd(Binary):
    """a & b, of integers. ONNX BitwiseAnd."""

    name = "graph.bitwise_and"
    domain = "int"
    compute = staticmethod(_ref.bitwise_and)


@register
class BitwiseOr(Binary):
    """a | b, of integers. ONNX BitwiseOr."""

    name = "graph.bitwise_or"
    domain = "int"
    compute = staticmethod(_ref.bitwise_or)


@register
class BitwiseXor(Binary):
    """a ^ b, of integers. ONNX BitwiseXor."""

    name = "graph.bitwise_xor"
    domain = "int"
    compute = staticmethod(_ref.bitwise_xor)


@register
class BitwiseNot(Unary):
    """~x, of integers. ONNX BitwiseNot."""

    name = "graph.bitwise_not"
    domain = "int"
    compute = staticmethod(_ref.bitwise_not)


@register
class ShiftLeft(Binary):
    """a << b; 0 when b is the width or more. ONNX BitShift LEFT."""

    name = "graph.shift_left"
    domain = "int"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.bit_shift(present(arrays[0]), present(arrays[1]), direction="LEFT"),)


@register
class ShiftRight(Binary):
    """a >> b. ONNX BitShift RIGHT."""

    name = "graph.shift_right"
    domain = "int"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.bit_shift(present(arrays[0]), present(arrays[1]), direction="RIGHT"),)


@register
class Equal(Compare):
    """a == b. ONNX Equal."""

    name = "graph.equal"
    domain = "any"
    compute = staticmethod(_ref.equal)


@register
class Less(Compare):
    """a < b. ONNX Less."""

    name = "graph.less"
    compute = staticmethod(_ref.less)


@register
class LessEqual(Compare):
    """a <= b. ONNX LessOrEqual."""

    name = "graph.less_equal"
    compute = staticmethod(_ref.less_or_equal)


@register
class Greater(Compare):
    """a > b. ONNX Greater."""

    name = "graph.greater"
    compute = staticmethod(_ref.greater)


@register
class GreaterEqual(Compare):
    """a >= b. ONNX GreaterOrEqual."""

    name = "graph.greater_equal"
    compute = staticmethod(_ref.greater_or_equal)


@register
class Where(Pointwise):
    """a where the bool condition holds, else b; all three broadcast. ONNX Where."""

    name = "graph.where"
    condition = Operand()
    a = Operand()
    b = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        c, a, b = (self.operand_type(i) for i in range(3))
        if c.dtype != BOOL:
            raise self.fail(f"the condition must be bool, not {c.dtype}")
        return (dense(broadcast(self, (c.shape, a.shape, b.shape)), same_dtype(self, a, b)),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.where(present(arrays[0]), present(arrays[1]), present(arrays[2])),)


@register
class Cast(Pointwise):
    """x converted to `to`; `saturate` clamps to the largest finite value of 8-bit floats. ONNX Cast."""

    name = "graph.cast"
    x = Operand()
    to = Attr(DTYPE)
    saturate = Attr(BOOLEAN, True)
    y = Result()

    def infer(self) -> Sequence[Type]:
        return (dense(self.operand_type(0).shape, self.to),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.cast(present(arrays[0]), to=self.to.numpy, saturate=int(self.saturate)),)
