# SPDX-License-Identifier: Apache-2.0
"""Scalar regions as code for one point or for V points at once.

Dialect `arith` is here; `math` is dispatched to `elementary` and `trigonometry` in f32, and to the C library lane
by lane in f64. Values that do not vary along the lanes stay scalars as long as they can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tcc.codegen.llvm.emit import elementary, trigonometry
from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.convert import cast, literal, spread, wrap_small
from tcc.codegen.llvm.emit.values import I1, I64, Int, Val, compute_type, constant, lanes_of, vector
from tcc.ir import arith, math
from tcc.ir.core import Op, Region, Value
from tcc.ir.kernel.func import Index, Yield
from tcc.ir.scalar import ScalarOp, element
from tcc.ir.types import I64 as INDEX
from tcc.ir.types import DType


def emit_region(
    e: Emitter,
    region: Region,
    args: Sequence[Val],
    indices: Mapping[str, Int] | None = None,
    known: Mapping[Value, Val] | None = None,
) -> list[Val]:
    """What the region yields for its arguments. `indices`: the coordinate along each domain dim, for `kernel.index`: an
    int, an i64, or a vector of i64. `known`: values of the region that were computed before."""
    env: dict[Value, Val] = {**dict(zip(region.block.args, args, strict=True)), **(known or {})}
    needed = _needed(region, env)
    for op in region.block.ops:
        if isinstance(op, Yield):
            return [env[v] for v in op.operands]
        if op not in needed:
            continue
        if isinstance(op, Index):
            env[op.y] = _index(e, (indices or {})[op.dim])
            continue
        env[op.results[0]] = emit_op(e, op, [env[v] for v in op.operands])
    raise AssertionError("a region without kernel.yield")


def _needed(region: Region, known: Mapping[Value, Any]) -> set[Op]:
    """The ops that the yielded values depend on, not going behind known values."""
    found: set[Op] = set()
    todo = list(region.block.terminator.operands)
    while todo:
        value = todo.pop()
        op = value.defining_op
        if value in known or op is None or op in found:
            continue
        found.add(op)
        todo += op.operands
    return found


def _index(e: Emitter, at: Int) -> Val:
    if isinstance(at, int):
        return literal(INDEX, at)
    wide = vector(I64, lanes_of(at.type))
    return Val(INDEX, at if at.type == wide else e.b.sext(at, wide))


def emit_op(e: Emitter, op: Op, args: list[Val]) -> Val:
    """One scalar op."""
    dtype = element(op.results[0])
    if isinstance(op, arith.Constant):
        return literal(dtype, op.value)
    if isinstance(op, arith.Cast):
        return cast(e, args[0], dtype)
    lanes = max((a.lanes for a in args), default=1)
    if isinstance(op, arith.Div) and dtype.bits == 32 and dtype.is_float and args[0].lanes > 1 == args[1].lanes:
        if _is_approximate(op.a):
            return Val(dtype, _times_reciprocal(e, args[0].ir, args[1].ir))
    args = [spread(e, a, lanes) for a in args]
    values = [a.ir for a in args]
    if isinstance(op, arith.Cmp):
        return Val(dtype, compare(e, op.predicate, args[0], args[1]))
    if isinstance(op, arith.Select):
        exact = args[1].exact and args[2].exact
        return Val(dtype, e.b.select(*values), exact)
    if isinstance(op, math.Pow):
        return Val(dtype, _power(e, dtype, args))
    if isinstance(op, math.IsNan):
        return Val(dtype, e.b.fcmp_unordered("uno", values[0], values[0]))
    if isinstance(op, math.IsInf):
        size = elementary.absolute(e, values[0])
        return Val(dtype, e.b.fcmp_ordered("==", size, constant(size.type, float("inf"))))
    if type(op) in _ARITH:
        return _ARITH[type(op)](e, dtype, args)
    return Val(dtype, _math(e, op.name.removeprefix("math."), dtype, values[0]))


def _is_approximate(value: Value) -> bool:
    """Whether a value's own allowance exceeds what dividing by multiplication adds (a unit in the last place)."""
    op = value.defining_op
    return isinstance(op, ScalarOp) and op.ulps >= 4


def _times_reciprocal(e: Emitter, a: Any, b: Any) -> Any:
    """A vector divided by one number, as a product. Both are scaled first where 1/b would not be a normal number."""
    one = constant(b.type, 1.0)
    size = elementary.absolute(e, b)
    scale = e.b.select(e.b.fcmp_ordered(">", size, constant(b.type, 2.0**120)), constant(b.type, 2.0**-32), one)
    scale = e.b.select(e.b.fcmp_ordered("<", size, constant(b.type, 2.0**-120)), constant(b.type, 2.0**32), scale)
    inverse = e.b.fdiv(one, e.b.fmul(b, scale))
    lanes = lanes_of(a.type)
    return e.b.fmul(e.b.fmul(a, e.splat(scale, lanes)), e.splat(inverse, lanes))


def compare(e: Emitter, predicate: str, a: Val, b: Val) -> Any:
    """`arith.cmp` as i1s."""
    sign = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[predicate]
    if a.dtype.is_float:
        if predicate == "ne":
            return e.b.fcmp_unordered(sign, a.ir, b.ir)
        return e.b.fcmp_ordered(sign, a.ir, b.ir)
    return e.b.icmp_signed(sign, a.ir, b.ir) if a.dtype.kind == "int" else e.b.icmp_unsigned(sign, a.ir, b.ir)


def smaller(e: Emitter, a: Val, b: Val) -> Any:
    """The smaller of two values of one type and as many lanes; NaN if either is."""
    return _extreme(e, a, b, "<")


def larger(e: Emitter, a: Val, b: Val) -> Any:
    """The larger of two values of one type and as many lanes; NaN if either is."""
    return _extreme(e, a, b, ">")


def _extreme(e: Emitter, a: Val, b: Val, sign: str) -> Any:
    if not a.dtype.is_float:
        test = e.b.icmp_signed if a.dtype.kind == "int" else e.b.icmp_unsigned
        return e.b.select(test(sign, a.ir, b.ir), a.ir, b.ir)
    if b.literal is not None and b.literal == b.literal:
        a, b = b, a
    # One min/max instruction gives its second operand where either is NaN, so only a NaN in `a` is lost.
    best = e.b.select(e.b.fcmp_ordered(sign, a.ir, b.ir), a.ir, b.ir)
    if a.literal is not None and a.literal == a.literal:
        return best
    return e.b.select(elementary.is_nan(e, a.ir), a.ir, best)


def combine(e: Emitter, combiner: str, a: Val, b: Val) -> Val:
    """Two partial results of a reduction ("sum", "max", "min", "prod")."""
    lanes = max(a.lanes, b.lanes)
    a, b = spread(e, a, lanes), spread(e, b, lanes)
    op = {"sum": arith.Add, "prod": arith.Mul, "max": arith.Max, "min": arith.Min}[combiner]
    return _ARITH[op](e, a.dtype, [a, b])


def identity(combiner: str, dtype: DType) -> float | int | bool:
    """What a reduction starts from."""
    if combiner == "sum":
        return 0
    if combiner == "prod":
        return 1
    if dtype.is_float:
        return float("-inf") if combiner == "max" else float("inf")
    if dtype.kind == "bool":
        return combiner == "min"
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
    return low if combiner == "max" else low + (1 << dtype.bits) - 1


# Arithmetic: each takes (emitter, element type, arguments of equal lanes).

Rule = Callable[[Emitter, DType, "list[Val]"], Val]


def _plain(float_op: str, int_op: str) -> Rule:
    def rule(e: Emitter, dtype: DType, args: list[Val]) -> Val:
        a, b = args[0].ir, args[1].ir
        if dtype.is_float:
            return Val(dtype, getattr(e.b, float_op)(a, b))
        return Val(dtype, wrap_small(e, getattr(e.b, int_op)(a, b), dtype))

    return rule


def _safe_divisor(e: Emitter, dtype: DType, a: Val, b: Val) -> tuple[Any, Any | None, Any | None]:
    """(a divisor that cannot trap, the lanes where b is 0, the lanes where it is -1); None: there are none."""
    if b.literal is not None and b.literal not in (0, -1):
        return b.ir, None, None
    zero = e.b.icmp_unsigned("==", b.ir, constant(b.ir.type, 0))
    bad, minus = zero, None
    if dtype.kind == "int":
        minus = e.b.icmp_signed("==", b.ir, constant(b.ir.type, -1))
        bad = e.b.or_(zero, minus)
    return e.b.select(bad, constant(b.ir.type, 1), b.ir), zero, minus


def _divide(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    a, b = args
    if dtype.is_float:
        return Val(dtype, e.b.fdiv(a.ir, b.ir))
    safe, zero, minus = _safe_divisor(e, dtype, a, b)
    q = e.b.sdiv(a.ir, safe) if dtype.kind == "int" else e.b.udiv(a.ir, safe)
    if minus is not None:
        q = e.b.select(minus, e.b.neg(a.ir), q)
    if zero is not None:
        q = e.b.select(zero, constant(q.type, 0), q)
    return Val(dtype, wrap_small(e, q, dtype))


def _remainder(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    a, b = args
    if dtype.is_float:
        return Val(dtype, e.b.frem(a.ir, b.ir))
    safe, zero, _ = _safe_divisor(e, dtype, a, b)
    r = e.b.srem(a.ir, safe) if dtype.kind == "int" else e.b.urem(a.ir, safe)
    return Val(dtype, r if zero is None else e.b.select(zero, constant(r.type, 0), r))


def _modulo(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    r = _remainder(e, dtype, args)
    if dtype.kind == "uint":
        return r
    b = args[1].ir
    zero = constant(b.type, 0)
    if dtype.is_float:
        some = e.b.fcmp_unordered("!=", r.ir, constant(b.type, 0.0))
        mixed = e.b.xor(
            e.b.fcmp_ordered("<", r.ir, constant(b.type, 0.0)), e.b.fcmp_ordered("<", b, constant(b.type, 0.0))
        )
        return Val(dtype, e.b.select(e.b.and_(some, mixed), e.b.fadd(r.ir, b), r.ir))
    some = e.b.icmp_signed("!=", r.ir, zero)
    mixed = e.b.icmp_signed("<", e.b.xor(r.ir, b), zero)
    # b = 0 gives r = 0, and adding b = 0 to it changes nothing.
    return Val(dtype, e.b.select(e.b.and_(some, mixed), e.b.add(r.ir, b), r.ir))


def _minimum(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    return Val(dtype, smaller(e, *args), args[0].exact and args[1].exact)


def _maximum(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    return Val(dtype, larger(e, *args), args[0].exact and args[1].exact)


def _shift(word: str) -> Rule:
    def rule(e: Emitter, dtype: DType, args: list[Val]) -> Val:
        a, b = args[0].ir, args[1].ir
        # A negative amount is, without its sign, more than any width.
        over = e.b.icmp_unsigned(">=", b, constant(b.type, dtype.bits))
        amount = e.b.and_(b, constant(b.type, _width(a) - 1))
        op = e.b.shl if word == "left" else e.b.ashr if dtype.kind == "int" else e.b.lshr
        fill = constant(a.type, 0)
        if word == "right" and dtype.kind == "int":
            fill = e.b.ashr(a, constant(a.type, _width(a) - 1))
        return Val(dtype, wrap_small(e, e.b.select(over, fill, op(a, amount)), dtype))

    return rule


def _width(value: Any) -> int:
    type = value.type
    return (type.element if lanes_of(type) > 1 else type).width


def _negate(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    a = args[0]
    if dtype.is_float:
        return Val(dtype, e.b.fneg(a.ir), a.exact)
    return Val(dtype, wrap_small(e, e.b.neg(a.ir), dtype))


def _complement(e: Emitter, dtype: DType, args: list[Val]) -> Val:
    return Val(dtype, wrap_small(e, e.b.not_(args[0].ir), dtype))


_ARITH: dict[type[Op], Rule] = {
    arith.Add: _plain("fadd", "add"),
    arith.Sub: _plain("fsub", "sub"),
    arith.Mul: _plain("fmul", "mul"),
    arith.Div: _divide,
    arith.Mod: _modulo,
    arith.Rem: _remainder,
    arith.Min: _minimum,
    arith.Max: _maximum,
    arith.And: _plain("", "and_"),
    arith.Or: _plain("", "or_"),
    arith.Xor: _plain("", "xor"),
    arith.Shl: _shift("left"),
    arith.Shr: _shift("right"),
    arith.Neg: _negate,
    arith.Not: _complement,
}


# Mathematics.

_INTRINSICS = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc", "abs": "fabs"}
_F32 = {
    name: getattr(elementary, name)
    for name in (
        "exp", "log", "erf", "tanh", "sigmoid", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
        "log1p", "expm1",
    )
} | {name: getattr(trigonometry, name) for name in ("sin", "cos", "tan")}  # fmt: skip


def _math(e: Emitter, word: str, dtype: DType, x: Any) -> Any:
    """A function of one argument."""
    if not dtype.is_float:
        return _integer_math(e, word, dtype, x)
    if word in _INTRINSICS:
        return e.overloaded(_INTRINSICS[word], x)
    if word == "rsqrt":
        return e.b.fdiv(constant(x.type, 1.0), e.overloaded("sqrt", x))
    if word == "sign":
        one = elementary.with_sign(e, constant(x.type, 1.0), x)
        y = e.b.select(e.b.fcmp_ordered("==", x, constant(x.type, 0.0)), constant(x.type, 0.0), one)
        return e.b.select(elementary.is_nan(e, x), x, y)
    if dtype.bits == 64:
        if word == "sigmoid":
            return _sigmoid64(e, x)
        return trigonometry.by_lane(e, word, x)
    return _F32[word](e, x)


def _sigmoid64(e: Emitter, x: Any) -> Any:
    one = constant(x.type, 1.0)
    small = trigonometry.by_lane(e, "exp", e.b.fneg(elementary.absolute(e, x)))
    top = e.b.select(e.b.fcmp_ordered(">=", x, constant(x.type, 0.0)), one, small)
    return e.b.fdiv(top, e.b.fadd(one, small))


def _integer_math(e: Emitter, word: str, dtype: DType, x: Any) -> Any:
    zero = constant(x.type, 0)
    signed = dtype.kind == "int"
    if word in ("floor", "ceil", "round", "trunc") or (word == "abs" and not signed):
        return x
    negative = e.b.icmp_signed("<", x, zero)
    if word == "abs":
        return wrap_small(e, e.b.select(negative, e.b.neg(x), x), dtype)
    if word == "sign":
        positive = e.b.zext(e.b.icmp_unsigned("!=", x, zero), x.type)
        return e.b.select(negative, constant(x.type, -1), positive) if signed else positive
    raise TypeError(f"math.{word} is not defined on {dtype}")


def _power(e: Emitter, dtype: DType, args: list[Val]) -> Any:
    a, b = args
    small = {2.0: 1, 3.0: 2, 4.0: 3}
    if b.literal is not None:
        p = float(b.literal)
        if p in small:
            out = e.b.fmul(a.ir, a.ir)
            return out if p == 2.0 else e.b.fmul(out, a.ir if p == 3.0 else out)
        if p == 1.0:
            return a.ir
        if p == -1.0:
            return e.b.fdiv(constant(a.ir.type, 1.0), a.ir)
        if p == 0.5:
            # √ differs from a power at -inf (whose power is +inf) and at -0 (whose power is +0).
            root = e.overloaded("sqrt", e.b.fadd(a.ir, constant(a.ir.type, 0.0)))
            low = e.b.fcmp_ordered("==", a.ir, constant(a.ir.type, float("-inf")))
            return e.b.select(low, constant(a.ir.type, float("inf")), root)
    if dtype.bits == 64:
        return trigonometry.by_lane(e, "pow", a.ir, b.ir)
    return trigonometry.power(e, a.ir, b.ir)


__all__ = ["I1", "combine", "compare", "compute_type", "emit_op", "emit_region", "identity", "larger", "smaller"]
