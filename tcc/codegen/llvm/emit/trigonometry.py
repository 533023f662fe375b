# SPDX-License-Identifier: Apache-2.0
"""Sine, cosine, tangent and powers on f32 vectors, with the delicate part in f64.

π/2 is taken off in f64 in three parts (Cody and Waite), right for |x| ≤ 2^26; lanes beyond that go through the C
library one by one, on a path that ordinary data never takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.elementary import absolute, polynomial
from tcc.codegen.llvm.emit.values import F32, F64, I1, I32, I64, constant, lanes_of, vector

_SIN = (-0.1666666716337204, 0.008333329111337662, -0.00019839327433146536, 2.71823728326126e-06)
_COS = (0.0416666679084301, -0.0013888883404433727, 2.479951217537746e-05, -2.720954626056482e-07)
_PIO2 = (1.570796325802803, 9.920935791635221e-10, 5.170182981794105e-19)
_LARGE = 2.0**26
_EXP2 = (
    0.999999999999762, 0.6931471805464933, 0.24022650698884754, 0.05550410939429682, 0.009618128542209411,
    0.0013333451976635371, 0.00015403851985319473, 1.5309760399781642e-05, 1.3175849041572502e-06,
)  # fmt: skip
_ATANH = (0.6666666667600362, 0.3999999554453488, 0.2857211815570417, 0.22175781872534112, 0.19590420207301734)
_ROUND = 1.5 * 2.0**52


def _wide(e: Emitter, x: Any) -> Any:
    return e.b.fpext(x, vector(F64, lanes_of(x.type)))


def _narrow(e: Emitter, x: Any) -> Any:
    return e.b.fptrunc(x, vector(F32, lanes_of(x.type)))


def _reduce(e: Emitter, x: Any) -> tuple[Any, Any]:
    """(quadrant as i32, remainder of x from a multiple of π/2 as f64); a lane of |x| > 2^26 gives NaN."""
    t = vector(F64, lanes_of(x.type))
    far = e.b.fcmp_unordered(">", absolute(e, x), constant(x.type, _LARGE))
    wide = _wide(e, e.b.select(far, constant(x.type, math.nan), x))
    magic = constant(t, _ROUND)
    shifted = e.fma(wide, constant(t, 2.0 / math.pi), magic)
    n = e.b.fsub(shifted, magic)
    r = wide
    for part in _PIO2:
        r = e.b.fsub(r, e.b.fmul(n, constant(t, part)))
    lanes = lanes_of(x.type)
    quadrant = e.b.trunc(e.b.bitcast(shifted, vector(I64, lanes)), vector(I32, lanes))
    return quadrant, r


def _sin_core(e: Emitter, r: Any) -> Any:
    square = e.b.fmul(r, r)
    return e.fma(e.b.fmul(r, square), polynomial(e, square, _SIN), r)


def _cos_core(e: Emitter, r: Any) -> Any:
    square = e.b.fmul(r, r)
    y = e.fma(e.b.fmul(square, square), polynomial(e, square, _COS), constant(r.type, 1.0))
    return e.fma(square, constant(r.type, -0.5), y)


def _bit(e: Emitter, n: Any, bit: int) -> Any:
    return e.b.icmp_signed("!=", e.b.and_(n, constant(n.type, bit)), constant(n.type, 0))


def sin(e: Emitter, x: Any) -> Any:
    """Sine."""
    return _guarded(e, x, "sin", lambda: _sine(e, x, 0))


def cos(e: Emitter, x: Any) -> Any:
    """Cosine."""
    return _guarded(e, x, "cos", lambda: _sine(e, x, 1))


def _sine(e: Emitter, x: Any, quarter: int) -> Any:
    n, wide = _reduce(e, x)
    r = _narrow(e, wide)
    n = e.b.add(n, constant(n.type, quarter))
    y = e.b.select(_bit(e, n, 1), _cos_core(e, r), _sin_core(e, r))
    return e.b.select(_bit(e, n, 2), e.b.fneg(y), y)


def tan(e: Emitter, x: Any) -> Any:
    """Tangent."""

    def near() -> Any:
        n, wide = _reduce(e, x)
        r = _narrow(e, wide)
        s, c = _sin_core(e, r), _cos_core(e, r)
        odd = _bit(e, n, 1)
        return e.b.fdiv(e.b.select(odd, e.b.fneg(c), s), e.b.select(odd, s, c))

    return _guarded(e, x, "tan", near)


def _guarded(e: Emitter, x: Any, function: str, near: Callable[[], Any]) -> Any:
    """`near()`, and the C library's function on the lanes with 2^26 < |x| < inf, in a function of its own."""
    size = absolute(e, x)
    lanes = lanes_of(x.type)
    far = e.b.and_(
        e.b.fcmp_ordered(">", size, constant(x.type, _LARGE)), e.b.fcmp_ordered("<", size, constant(x.type, math.inf))
    )
    y = near()
    result = e.var(y)
    some = far if lanes == 1 else e.call(f"llvm.vector.reduce.or.v{lanes}i1", I1, [far])
    with e.when(some, likely=False):
        slow = e.helper(f"tcc_{function}_v{lanes}", x.type, [x.type], lambda a: by_lane(e, function, a))
        result.set(e.b.select(far, e.b.call(slow, [x]), y))
    return result.get()


def by_lane(e: Emitter, function: str, *arguments: Any) -> Any:
    """The C library's f64 function of that name on every lane of f64 or f32 values; the result has their type."""
    type = arguments[0].type
    lanes = lanes_of(type)
    narrow = type == vector(F32, lanes)
    wide = [_wide(e, a) if narrow else a for a in arguments]
    out = constant(vector(F64, lanes), 0.0)
    for lane in range(lanes):
        value = e.call(function, F64, [e.extract(w, lane) for w in wide])
        out = value if lanes == 1 else e.b.insert_element(out, value, I32(lane))
    return _narrow(e, out) if narrow else out


def power(e: Emitter, a: Any, b: Any) -> Any:
    """a^b as 2^(b·log2 |a|) in f64, with C's special cases."""
    t = vector(F64, lanes_of(a.type))
    one = constant(t, 1.0)
    x, y = _wide(e, a), _wide(e, b)
    size = absolute(e, x)
    exponent = e.b.fmul(y, _log2(e, size))
    magnitude = _exp2(e, exponent)
    whole = e.b.fcmp_ordered("==", e.overloaded("trunc", y), y)
    halved = e.b.fmul(y, constant(t, 0.5))
    odd = e.b.and_(whole, e.b.fcmp_unordered("!=", e.overloaded("trunc", halved), halved))
    integer = vector(I64, lanes_of(a.type))
    negative = e.b.icmp_signed("<", e.b.bitcast(x, integer), constant(integer, 0))
    signed = e.b.select(e.b.and_(negative, odd), e.b.fneg(magnitude), magnitude)
    below = e.b.and_(e.b.fcmp_ordered("<", x, constant(t, 0.0)), e.b.fcmp_ordered(">", x, constant(t, -math.inf)))
    out = e.b.select(e.b.and_(below, e.b.xor(whole, constant(whole.type, True))), constant(t, math.nan), signed)
    # (±1)^±inf is 1, as are a^0 and 1^b whatever the other is.
    unit = e.b.and_(e.b.fcmp_ordered("==", size, one), e.b.fcmp_ordered("==", absolute(e, y), constant(t, math.inf)))
    unit = e.b.or_(unit, e.b.fcmp_ordered("==", y, constant(t, 0.0)))
    unit = e.b.or_(unit, e.b.fcmp_ordered("==", x, one))
    return _narrow(e, e.b.select(unit, one, out))


def _log2(e: Emitter, x: Any) -> Any:
    """log2 of an f64 that is an f32's absolute value (so normal or 0): 0 gives -inf."""
    lanes = lanes_of(x.type)
    t, it = x.type, vector(I64, lanes)
    bits = e.b.bitcast(x, it)
    moved = e.b.sub(bits, constant(it, 0x3FE6A09E667F3BCD))
    n = e.b.ashr(moved, constant(it, 52))
    m = e.b.bitcast(e.b.sub(bits, e.b.shl(n, constant(it, 52))), t)
    one = constant(t, 1.0)
    s = e.b.fdiv(e.b.fsub(m, one), e.b.fadd(m, one))
    square = e.b.fmul(s, s)
    natural = e.fma(e.b.fmul(s, square), polynomial(e, square, _ATANH), e.b.fadd(s, s))
    whole = e.b.sitofp(e.b.trunc(n, vector(I32, lanes)), t)
    y = e.fma(natural, constant(t, 1.0 / math.log(2.0)), whole)
    y = e.b.select(e.b.fcmp_ordered("==", x, constant(t, 0.0)), constant(t, -math.inf), y)
    return e.b.select(e.b.fcmp_unordered(">=", x, constant(t, math.inf)), x, y)


def _exp2(e: Emitter, x: Any) -> Any:
    """2^x in f64, for results in f32's range (beyond it anything that rounds alike)."""
    lanes = lanes_of(x.type)
    t, it = x.type, vector(I64, lanes)
    for bound, relation in ((-200.0, "<"), (200.0, ">")):
        limit = constant(t, bound)
        x = e.b.select(e.b.fcmp_ordered(relation, x, limit), limit, x)
    magic = constant(t, _ROUND)
    shifted = e.b.fadd(x, magic)
    r = e.b.fsub(x, e.b.fsub(shifted, magic))
    scale = e.b.shl(e.b.sub(e.b.bitcast(shifted, it), e.b.bitcast(magic, it)), constant(it, 52))
    y = polynomial(e, r, _EXP2)
    scaled = e.b.bitcast(e.b.add(e.b.bitcast(y, it), scale), t)
    return e.b.select(e.b.fcmp_unordered("uno", x, x), x, scaled)
