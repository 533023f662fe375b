# SPDX-License-Identifier: Apache-2.0
"""Elementary functions on f32 scalars and vectors, as polynomials and quotients of them: no calls, no tables, no
branches on data.

Every polynomial is a minimax fit of its own range (Lawson's iteration on Chebyshev points in float64, rounded to f32);
the relative error of each is below 2^-24, so what remains is rounding. NaN, infinities, zeros and subnormals give what
IEEE 754 and numpy give. Range reductions follow Cody and Waite, Software Manual for the Elementary Functions (1980).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.convert import bits_to_float, float_bits
from tcc.codegen.llvm.emit.values import I16, I32, constant, lanes_of

_EXP = (0.4999999403953552, 0.1666651964187622, 0.04166839271783829, 0.008368780836462975, 0.0013814467238262296)
_EXPM1 = (
    0.5, 0.1666666567325592, 0.04166635870933533, 0.008333389647305012, 0.0013940719654783607, 0.0001984588598133996,
)  # fmt: skip
_LOG = (
    0.3333331346511841, -0.25000008940696716, 0.20002123713493347, -0.16668005287647247, 0.14219452440738678,
    -0.12405339628458023, 0.11888699233531952, -0.11677521467208862, 0.06747732311487198,
)  # fmt: skip
_ERF = (
    1.1283791065216064, 0.19040709733963013, 0.05274881049990654, 0.0037656445056200027, 0.00028488339739851654,
    2.0500831396930153e-06,
)  # fmt: skip
_ERF_BELOW = (
    1.0, 0.5020766258239746, 0.11410937458276749, 0.01496927160769701, 0.001162542263045907, 3.809170812019147e-05,
)  # fmt: skip
_TANH = (1.0, 0.13379718363285065, 0.00349403521977365, 2.058349309663754e-05, 1.3319084501972611e-08)
_TANH_BELOW = (1.0, 0.4671303331851959, 0.025871075689792633, 0.00032830939744599164, 7.762025120428007e-07)
_ASIN = (
    0.16666659712791443, 0.07500510662794113, 0.04451571777462959, 0.03181761875748634, 0.014402581378817558,
    0.037565238773822784,
)  # fmt: skip
_ATAN = (
    -0.333333283662796, 0.1999969333410263, -0.14280131459236145, 0.11060246080160141, -0.0881885439157486,
    0.06759585440158844, -0.04494663327932358, 0.022760501131415367, -0.007422713562846184, 0.0011348935076966882,
)  # fmt: skip

_LOG2E = 1.0 / math.log(2.0)
_LN2_HIGH, _LN2_LOW = 0.693359375, -0.00021219444005469057
"""ln 2 in two parts; the first has 9 bits, so its product with an exponent is exact."""
_ROUND = 1.5 * 2.0**23
"""Added to |x| < 2^22, its last place is 1: the sum's low bits are x rounded to an integer."""


def polynomial(e: Emitter, x: Any, coefficients: Sequence[float]) -> Any:
    """Σ c_i x^i by Horner's rule; coefficients from the constant one up."""
    out = constant(x.type, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        out = e.fma(out, x, constant(x.type, c))
    return out


def clamp(e: Emitter, x: Any, low: float | None, high: float | None) -> Any:
    """x between the bounds; NaN stays NaN."""
    if low is not None:
        bound = constant(x.type, low)
        x = e.b.select(e.b.fcmp_ordered("<", x, bound), bound, x)
    if high is not None:
        bound = constant(x.type, high)
        x = e.b.select(e.b.fcmp_ordered(">", x, bound), bound, x)
    return x


def absolute(e: Emitter, x: Any) -> Any:
    return e.overloaded("fabs", x)


def with_sign(e: Emitter, x: Any, sign: Any) -> Any:
    """|x| with the sign of another."""
    return e.overloaded("copysign", x, sign)


def is_nan(e: Emitter, x: Any) -> Any:
    return e.b.fcmp_unordered("uno", x, x)


def _reduce_exp(e: Emitter, x: Any) -> tuple[Any, Any]:
    """(n as i32, r) with x = n ln 2 + r and |r| ≤ ln 2 / 2."""
    magic = constant(x.type, _ROUND)
    shifted = e.fma(x, constant(x.type, _LOG2E), magic)
    n = e.b.fsub(shifted, magic)
    r = e.fma(n, constant(x.type, -_LN2_HIGH), x)
    r = e.fma(n, constant(x.type, -_LN2_LOW), r)
    bits = float_bits(e, shifted)
    return e.b.sub(bits, float_bits(e, magic)), r


def _power_of_two(e: Emitter, n: Any) -> Any:
    """2^n for an i32 n in [-126, 127]."""
    return bits_to_float(e, e.b.shl(e.b.add(n, constant(n.type, 127)), constant(n.type, 23)))


def exp(e: Emitter, x: Any) -> Any:
    """e^x."""
    # Where the result rounds to 0, a 0 is put there: making it by underflow would cost an assist of the processor's.
    tiny = e.b.fcmp_ordered("<", x, constant(x.type, -104.0))
    x = clamp(e, e.b.select(tiny, constant(x.type, 0.0), x), None, 89.0)
    if _has_scale(e, x):
        y = _exp_scaled(e, x)
    else:
        n, r = _reduce_exp(e, x)
        half = e.b.ashr(n, constant(n.type, 1))  # in two factors, as 2^n itself may be subnormal or too large
        y = e.b.fmul(_exp_polynomial(e, r), _power_of_two(e, half))
        y = e.b.fmul(y, _power_of_two(e, e.b.sub(n, half)))
    return e.b.select(tiny, constant(x.type, 0.0), y)


def exp_nonpositive(e: Emitter, x: Any) -> Any:
    """e^x for x ≤ 0 (-inf gives 0, NaN gives NaN), where results below 2^-126 may be 0: softmax's."""
    if _has_scale(e, x):
        # Results that are not normal numbers would cost an assist of the processor's each.
        kept = e.b.fcmp_unordered(">=", x, constant(x.type, -87.3))
        return _exp_scaled(e, clamp(e, x, -87.3, None), kept)
    below = e.b.fcmp_ordered("<", x, constant(x.type, -87.3))
    n, r = _reduce_exp(e, e.b.select(below, constant(x.type, -87.3), x))
    y = _exp_polynomial(e, r)
    scaled = bits_to_float(e, e.b.add(float_bits(e, y), e.b.shl(n, constant(n.type, 23))))
    scaled = e.b.select(is_nan(e, x), x, scaled)
    return e.b.select(below, constant(x.type, 0.0), scaled)


def _exp_polynomial(e: Emitter, r: Any) -> Any:
    """e^r for |r| ≤ ln 2 / 2."""
    y = e.fma(e.b.fmul(r, r), polynomial(e, r, _EXP), r)
    return e.b.fadd(y, constant(r.type, 1.0))


def _has_scale(e: Emitter, x: Any) -> bool:
    """Whether the target multiplies vectors like this one by powers of two (vscalefps)."""
    return "avx512" in e.target.features and lanes_of(x.type) == 16


def _exp_scaled(e: Emitter, x: Any, kept: Any = None) -> Any:
    """e^x for x that does not overflow 2^n's exponent: the instruction rounds subnormals and keeps NaN itself. Lanes
    not `kept` give 0."""
    n = e.overloaded("rint", e.b.fmul(x, constant(x.type, _LOG2E)))
    r = e.fma(n, constant(x.type, -_LN2_HIGH), x)
    r = e.fma(n, constant(x.type, -_LN2_LOW), r)
    y = _exp_polynomial(e, r)
    mask = I16(-1) if kept is None else e.b.bitcast(kept, I16)
    return e.call("llvm.x86.avx512.mask.scalef.ps.512", x.type, [y, n, constant(x.type, 0.0), mask, I32(4)])


def expm1(e: Emitter, x: Any) -> Any:
    """e^x - 1."""
    bounded = clamp(e, x, -20.0, 89.0)
    n, r = _reduce_exp(e, bounded)
    q = e.fma(e.b.fmul(r, r), polynomial(e, r, _EXPM1), r)
    # 2^n is made in two steps of 2^(n-1), as 2^128 overflows; x near 0 has n = 0 and gives q itself.
    scale = _power_of_two(e, e.b.sub(n, constant(n.type, 1)))
    y = e.fma(scale, q, e.b.fsub(scale, constant(x.type, 0.5)))
    y = e.b.fadd(y, y)
    y = e.b.select(e.b.icmp_signed("==", n, constant(n.type, 0)), q, y)
    return e.b.select(e.b.fcmp_ordered("==", x, constant(x.type, 0.0)), x, y)


def _split_log(e: Emitter, x: Any) -> tuple[Any, Any]:
    """(exponent as f32, f) with x = 2^exponent (1 + f), 1 + f in [√½, √2); x > 0 and normal."""
    bits = float_bits(e, x)
    t = bits.type
    moved = e.b.sub(bits, constant(t, 0x3F3504F3))
    exponent = e.b.ashr(moved, constant(t, 23))
    mantissa = e.b.sub(bits, e.b.shl(exponent, constant(t, 23)))
    f = e.b.fsub(bits_to_float(e, mantissa), constant(x.type, 1.0))
    return e.b.sitofp(exponent, x.type), f


def _log_near_one(e: Emitter, f: Any, exponent: Any, correction: Any = None) -> Any:
    """exponent·ln 2 + ln(1 + f) (+ correction)."""
    f2 = e.b.fmul(f, f)
    tail = e.b.fmul(e.b.fmul(f2, f), polynomial(e, f, _LOG))
    tail = e.fma(exponent, constant(f.type, _LN2_LOW), tail)
    tail = e.fma(f2, constant(f.type, -0.5), tail)
    if correction is not None:
        tail = e.b.fadd(tail, correction)
    return e.fma(exponent, constant(f.type, _LN2_HIGH), e.b.fadd(f, tail))


def log(e: Emitter, x: Any) -> Any:
    """ln x."""
    tiny = e.b.fcmp_ordered("<", x, constant(x.type, 2.0**-126))
    scaled = e.b.select(tiny, e.b.fmul(x, constant(x.type, 2.0**23)), x)
    exponent, f = _split_log(e, scaled)
    exponent = e.b.select(tiny, e.b.fsub(exponent, constant(x.type, 23.0)), exponent)
    return _log_edges(e, x, _log_near_one(e, f, exponent))


def _log_edges(e: Emitter, x: Any, y: Any) -> Any:
    """ln at the ends: 0 gives -inf, below it NaN; +inf and NaN give themselves."""
    zero = constant(x.type, 0.0)
    y = e.b.select(e.b.fcmp_unordered("<", x, constant(x.type, math.inf)), y, x)
    y = e.b.select(e.b.fcmp_ordered("==", x, zero), constant(x.type, -math.inf), y)
    y = e.b.select(e.b.fcmp_ordered("<", x, zero), constant(x.type, math.nan), y)
    return e.b.select(is_nan(e, x), x, y)


def log1p(e: Emitter, x: Any) -> Any:
    """ln(1 + x)."""
    one = constant(x.type, 1.0)
    u = e.b.fadd(x, one)
    exponent, f = _split_log(e, u)
    # What rounding 1 + x lost, relative to u, is added to the logarithm.
    larger = e.b.fcmp_ordered(">", x, one)
    lost = e.b.select(larger, e.b.fsub(one, e.b.fsub(u, x)), e.b.fsub(x, e.b.fsub(u, one)))
    y = _log_near_one(e, f, exponent, e.b.fdiv(lost, u))
    y = _log_edges(e, u, y)
    small = e.b.fcmp_ordered("<", absolute(e, x), constant(x.type, 2.0**-24))
    return e.b.select(small, x, y)


def quotient(e: Emitter, a: Any, b: Any) -> Any:
    """a / b to within about a unit in the last place, for b neither tiny nor huge: on AVX-512 an estimate of 1/b with
    one step of Newton's, several times as fast as the division."""
    if not _has_scale(e, a):
        return e.b.fdiv(a, b)
    estimate = e.call("llvm.x86.avx512.rcp14.ps.512", a.type, [b, b, I16(-1)])
    q = e.b.fmul(a, estimate)
    rest = e.fma(e.b.fneg(b), q, a)
    return e.fma(rest, estimate, q)


def _odd_rational(e: Emitter, x: Any, bound: float, above: Sequence[float], below: Sequence[float]) -> Any:
    """x · P(x²) / Q(x²) for |x| up to `bound`, where the function has come to ±1; not beyond ±1."""
    x = clamp(e, x, -bound, bound)
    square = e.b.fmul(x, x)
    y = quotient(e, e.b.fmul(x, polynomial(e, square, above)), polynomial(e, square, below))
    return clamp(e, y, -1.0, 1.0)


def tanh(e: Emitter, x: Any) -> Any:
    """Hyperbolic tangent, an odd rational function up to 9.02, where it rounds to 1."""
    return _odd_rational(e, x, 9.02, _TANH, _TANH_BELOW)


def erf(e: Emitter, x: Any) -> Any:
    """The error function, an odd rational function up to 3.92, where it rounds to 1."""
    return _odd_rational(e, x, 3.92, _ERF, _ERF_BELOW)


def sigmoid(e: Emitter, x: Any) -> Any:
    """1 / (1 + e^-x), as e^min(x, 0) / (1 + e^-|x|), which neither overflows nor loses small results."""
    one = constant(x.type, 1.0)
    small = exp(e, e.b.fneg(absolute(e, x)))
    top = e.b.select(e.b.fcmp_ordered(">=", x, constant(x.type, 0.0)), one, small)
    return quotient(e, top, e.b.fadd(one, small))


def _asin_core(e: Emitter, x: Any, square: Any) -> Any:
    """asin x for 0 ≤ x ≤ ½."""
    return e.fma(e.b.fmul(x, square), polynomial(e, square, _ASIN), x)


def asin(e: Emitter, x: Any) -> Any:
    """Arc sine: π/2 - 2 asin √((1 - |x|)/2) above ½."""
    core, far = _asin_parts(e, absolute(e, x))
    folded = e.fma(core, constant(x.type, -2.0), constant(x.type, math.pi / 2))
    return with_sign(e, e.b.select(far, folded, core), x)


def acos(e: Emitter, x: Any) -> Any:
    """Arc cosine."""
    core, far = _asin_parts(e, absolute(e, x))
    negative = e.b.fcmp_ordered("<", x, constant(x.type, 0.0))
    double = e.b.fadd(core, core)
    outer = e.b.select(negative, e.b.fsub(constant(x.type, math.pi), double), double)
    inner = e.b.fsub(constant(x.type, math.pi / 2), with_sign(e, core, x))
    # π/2 is not an f32: what it lacks is added where the result is near it.
    inner = e.b.fadd(inner, constant(x.type, math.pi / 2 - 1.5707963705062866))
    return e.b.select(far, outer, inner)


def _asin_parts(e: Emitter, size: Any) -> tuple[Any, Any]:
    half = constant(size.type, 0.5)
    far = e.b.fcmp_ordered(">", size, half)
    folded = e.b.fmul(e.b.fsub(constant(size.type, 1.0), size), half)
    root = e.overloaded("sqrt", folded)
    at = e.b.select(far, root, size)
    square = e.b.select(far, folded, e.b.fmul(size, size))
    return _asin_core(e, at, square), far


def atan(e: Emitter, x: Any) -> Any:
    """Arc tangent: π/2 - atan(1/|x|) above 1."""
    size = absolute(e, x)
    far = e.b.fcmp_ordered(">", size, constant(x.type, 1.0))
    at = e.b.select(far, e.b.fdiv(constant(x.type, 1.0), size), size)
    square = e.b.fmul(at, at)
    y = e.fma(e.b.fmul(at, square), polynomial(e, square, _ATAN), at)
    folded = e.b.fsub(constant(x.type, math.pi / 2), y)
    return with_sign(e, e.b.select(far, folded, y), x)


def sinh(e: Emitter, x: Any) -> Any:
    """Hyperbolic sine: (t + t/(t + 1)) / 2 with t = e^|x| - 1; from 20 on, half the square of e^(|x|/2)."""
    half = constant(x.type, 0.5)
    size = absolute(e, x)
    t = expm1(e, clamp(e, size, None, 30.0))
    near = e.b.fmul(e.b.fadd(t, e.b.fdiv(t, e.b.fadd(t, constant(x.type, 1.0)))), half)
    return with_sign(e, e.b.select(_beyond(e, size), _half_exp(e, size), near), x)


def cosh(e: Emitter, x: Any) -> Any:
    """Hyperbolic cosine: e^|x|/2 + e^-|x|/2."""
    half = constant(x.type, 0.5)
    size = absolute(e, x)
    t = exp(e, clamp(e, size, None, 30.0))
    near = e.fma(t, half, e.b.fdiv(half, t))
    return e.b.select(_beyond(e, size), _half_exp(e, size), near)


def _beyond(e: Emitter, size: Any) -> Any:
    return e.b.fcmp_ordered(">", size, constant(size.type, 20.0))


def _half_exp(e: Emitter, size: Any) -> Any:
    half = constant(size.type, 0.5)
    root = exp(e, e.b.fmul(size, half))
    return e.b.fmul(e.b.fmul(root, half), root)


def asinh(e: Emitter, x: Any) -> Any:
    """ln(|x| + √(x² + 1)), as log1p(|x| + x²/(1 + √(1 + x²))); large |x| as ln |x| + ln 2."""
    one = constant(x.type, 1.0)
    size = absolute(e, x)
    large = e.b.fcmp_ordered(">", size, constant(x.type, 2.0**20))
    near = clamp(e, size, None, 2.0**20)
    square = e.b.fmul(near, near)
    root = e.overloaded("sqrt", e.b.fadd(square, one))
    inner = log1p(e, e.b.fadd(near, e.b.fdiv(square, e.b.fadd(one, root))))
    outer = e.b.fadd(log(e, size), constant(x.type, math.log(2.0)))
    return with_sign(e, e.b.select(large, outer, inner), x)


def acosh(e: Emitter, x: Any) -> Any:
    """log1p(t + √(2t + t²)) with t = x - 1; large x as ln x + ln 2. NaN below 1."""
    large = e.b.fcmp_ordered(">", x, constant(x.type, 2.0**20))
    t = e.b.fsub(clamp(e, x, None, 2.0**20), constant(x.type, 1.0))
    root = e.overloaded("sqrt", e.fma(t, t, e.b.fadd(t, t)))
    inner = log1p(e, e.b.fadd(t, root))
    outer = e.b.fadd(log(e, x), constant(x.type, math.log(2.0)))
    y = e.b.select(large, outer, inner)
    return e.b.select(e.b.fcmp_ordered("<", x, constant(x.type, 1.0)), constant(x.type, math.nan), y)


def atanh(e: Emitter, x: Any) -> Any:
    """½ log1p(2|x| / (1 - |x|)). NaN beyond 1."""
    size = absolute(e, x)
    ratio = e.b.fdiv(e.b.fadd(size, size), e.b.fsub(constant(x.type, 1.0), size))
    y = e.b.fmul(log1p(e, ratio), constant(x.type, 0.5))
    return with_sign(e, y, x)
