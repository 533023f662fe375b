# SPDX-License-Identifier: Apache-2.0
"""Conversions between element types, and between how elements lie in memory and how they are computed.

Everything here works on scalars and vectors alike. Floats narrower than f32 are encoded with round to nearest even by
integer arithmetic where the target has no instruction for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcc.codegen.llvm.emit.builder import Emitter, type_suffix
from tcc.codegen.llvm.emit.values import (
    F32,
    F64,
    HALF,
    I1,
    I8,
    I16,
    I32,
    I64,
    Val,
    compute_type,
    constant,
    element_of,
    lanes_of,
    storage_type,
    vector,
)
from tcc.ir.types import DType


@dataclass(frozen=True)
class SmallFloat:
    """A float format of at most 8 bits: exponent and mantissa bits, bias, the largest finite value, and the codes of
    NaN and infinity (None: there is none; NaN then becomes 0). `signed_zero`: whether code 100…0 is -0 (else it is
    NaN)."""

    exponent: int
    mantissa: int
    bias: int
    largest: float
    nan: int | None
    infinity: int | None = None
    signed_zero: bool = True


SMALL_FLOATS = {
    "f8e4m3fn": SmallFloat(4, 3, 7, 448.0, 0x7F),
    "f8e4m3fnuz": SmallFloat(4, 3, 8, 240.0, 0x80, signed_zero=False),
    "f8e5m2": SmallFloat(5, 2, 15, 57344.0, 0x7E, 0x7C),
    "f8e5m2fnuz": SmallFloat(5, 2, 16, 57344.0, 0x80, signed_zero=False),
    "f4e2m1": SmallFloat(2, 1, 1, 6.0, None),
}


def from_storage(e: Emitter, raw: Any, dtype: DType) -> Val:
    """What memory holds (of `storage_type`) as a value."""
    lanes = lanes_of(raw.type)
    if dtype.name in ("f32", "f64"):
        return Val(dtype, raw, exact=True)
    if dtype.kind == "bool":
        return Val(dtype, e.b.icmp_unsigned("!=", raw, constant(raw.type, 0)))
    if dtype.is_int:
        return Val(dtype, _extend_small(e, raw, dtype))
    if dtype.name == "f16":
        return Val(dtype, half_to_float(e, raw), exact=True)
    if dtype.name == "bf16":
        wide = e.b.zext(raw, vector(I32, lanes))
        return Val(dtype, bits_to_float(e, e.b.shl(wide, constant(wide.type, 16))), exact=True)
    wide = e.b.zext(raw, vector(I32, lanes))
    if dtype.name == "f8e8m0":
        return Val(dtype, _decode_exponent(e, wide), exact=True)
    return Val(dtype, _decode_small(e, wide, SMALL_FLOATS[dtype.name]), exact=True)


def to_storage(e: Emitter, value: Val) -> Any:
    """A value as memory holds it."""
    dtype, x = value.dtype, value.ir
    lanes = lanes_of(x.type)
    if dtype.name in ("f32", "f64"):
        return x
    if dtype.kind == "bool":
        return e.b.zext(x, vector(I8, lanes))
    if dtype.is_int:
        return e.b.and_(x, constant(x.type, (1 << dtype.bits) - 1)) if dtype.bits < 8 else x
    if dtype.name == "f16":
        return float_to_half(e, x)
    if dtype.name == "bf16":
        bits = float_bits(e, x if value.exact else _round_bf16(e, x))
        return e.b.trunc(e.b.lshr(bits, constant(bits.type, 16)), vector(I16, lanes))
    if dtype.name == "f8e8m0":
        return e.b.trunc(_encode_exponent(e, x), vector(I8, lanes))
    return e.b.trunc(_encode_small(e, x, SMALL_FLOATS[dtype.name]), vector(I8, lanes))


def literal(dtype: DType, number: float | int | bool) -> Val:
    """A literal of an element type, of one lane."""
    return Val(dtype, constant(compute_type(dtype), number), literal=number)


def spread(e: Emitter, value: Val, lanes: int) -> Val:
    """A value in every lane."""
    if value.lanes == lanes:
        return value
    return Val(value.dtype, e.splat(value.ir, lanes), value.exact, value.literal)


def cast(e: Emitter, value: Val, to: DType) -> Val:
    """`arith.cast`."""
    source, x = value.dtype, value.ir
    if source == to:
        return value
    lanes = lanes_of(x.type)
    target = vector(compute_type(to), lanes)
    if to.kind == "bool":
        if source.is_float:
            return Val(to, e.b.fcmp_unordered("!=", x, constant(x.type, 0.0)))
        return Val(to, e.b.icmp_unsigned("!=", x, constant(x.type, 0)))
    if to.is_float:
        return _to_float(e, value, to, target)
    if source.kind == "bool":
        return Val(to, _extend_small(e, e.b.zext(x, target), to))
    if source.is_float:
        return Val(to, float_to_int(e, x, to))
    width, wanted = element_of(x.type).width, element_of(target).width
    if width > wanted:
        x = e.b.trunc(x, target)
    elif width < wanted:
        x = e.b.sext(x, target) if source.kind == "int" else e.b.zext(x, target)
    return Val(to, _extend_small(e, x, to))


def _to_float(e: Emitter, value: Val, to: DType, target: Any) -> Val:
    source, x = value.dtype, value.ir
    if not source.is_float:
        signed = source.kind == "int"
        return round_to(e, Val(to, e.b.sitofp(x, target) if signed else e.b.uitofp(x, target)))
    held, wanted = element_of(x.type), element_of(target)
    if held == F64 and wanted == F32:
        return round_to(e, Val(to, e.b.fptrunc(x, target)))
    if held == F32 and wanted == F64:
        return Val(to, e.b.fpext(x, target), exact=True)
    if to.bits >= 32:
        return Val(to, x, exact=True)
    return round_to(e, Val(to, x))


def round_to(e: Emitter, value: Val) -> Val:
    """A float value rounded to its type's precision (held in f32 all the same)."""
    dtype, x = value.dtype, value.ir
    if dtype.bits >= 32 or value.exact:
        return Val(dtype, x, exact=True)
    if dtype.name == "f16":
        return Val(dtype, half_to_float(e, float_to_half(e, x)), exact=True)
    if dtype.name == "bf16":
        return Val(dtype, _round_bf16(e, x), exact=True)
    if dtype.name == "f8e8m0":
        return Val(dtype, _decode_exponent(e, _encode_exponent(e, x)), exact=True)
    small = SMALL_FLOATS[dtype.name]
    return Val(dtype, _decode_small(e, _encode_small(e, x, small), small), exact=True)


def float_bits(e: Emitter, x: Any) -> Any:
    """The bits of an f32 as i32."""
    return e.b.bitcast(x, vector(I32, lanes_of(x.type)))


def bits_to_float(e: Emitter, x: Any) -> Any:
    """The f32 of these i32 bits."""
    return e.b.bitcast(x, vector(F32, lanes_of(x.type)))


def float_to_int(e: Emitter, x: Any, to: DType) -> Any:
    """Truncation toward zero that saturates; NaN gives 0."""
    lanes = lanes_of(x.type)
    bits = to.bits
    low = -(1 << (bits - 1)) if to.kind == "int" else 0
    high = (1 << (bits - 1 if to.kind == "int" else bits)) - 1
    x = e.b.select(e.b.fcmp_ordered("ord", x, x), x, constant(x.type, 0.0))
    low_f, top = constant(x.type, float(low)), constant(x.type, float(high + 1))
    x = e.b.select(e.b.fcmp_ordered("<", x, low_f), low_f, x)
    if bits < 32:
        high_f = constant(x.type, float(high))
        x = e.b.select(e.b.fcmp_ordered(">", x, high_f), high_f, x)
        return e.b.trunc(e.b.fptosi(x, vector(I32, lanes)), vector(compute_type(to), lanes))
    over = e.b.fcmp_ordered(">=", x, top)
    safe = e.b.select(over, constant(x.type, 0.0), x)
    target = vector(compute_type(to), lanes)
    converted = e.b.fptosi(safe, target) if to.kind == "int" else e.b.fptoui(safe, target)
    return e.b.select(over, constant(target, high), converted)


def _extend_small(e: Emitter, x: Any, dtype: DType) -> Any:
    """An 8-bit value reduced to the 4 or 2 bits of its type and extended again; others pass."""
    if dtype.bits >= 8:
        return x
    if dtype.kind == "uint":
        return e.b.and_(x, constant(x.type, (1 << dtype.bits) - 1))
    shift = constant(x.type, 8 - dtype.bits)
    return e.b.ashr(e.b.shl(x, shift), shift)


wrap_small = _extend_small


def half_to_float(e: Emitter, raw: Any) -> Any:
    """i16 bits of f16 to f32."""
    lanes = lanes_of(raw.type)
    if "f16c" in e.target.features:
        return e.b.fpext(e.b.bitcast(raw, vector(HALF, lanes)), vector(F32, lanes))
    wide = e.b.zext(raw, vector(I32, lanes))
    t = wide.type
    sign = e.b.shl(e.b.and_(wide, constant(t, 0x8000)), constant(t, 16))
    magnitude = e.b.and_(wide, constant(t, 0x7FFF))
    # Moving the exponent by multiplication by 2^112 also makes subnormals right; infinities and NaN are set apart.
    scaled = e.b.fmul(bits_to_float(e, e.b.shl(magnitude, constant(t, 13))), constant(vector(F32, lanes), 2.0**112))
    special = e.b.icmp_unsigned(">=", magnitude, constant(t, 0x7C00))
    bits = e.b.or_(float_bits(e, scaled), e.b.select(special, constant(t, 0x7F800000), constant(t, 0)))
    return bits_to_float(e, e.b.or_(bits, sign))


def float_to_half(e: Emitter, x: Any) -> Any:
    """f32 to i16 bits of f16, rounded to nearest even."""
    lanes = lanes_of(x.type)
    if "f16c" in e.target.features:
        return e.b.bitcast(e.b.fptrunc(x, vector(HALF, lanes)), vector(I16, lanes))
    bits = float_bits(e, x)
    t = bits.type
    sign = e.b.and_(e.b.lshr(bits, constant(t, 16)), constant(t, 0x8000))
    magnitude = e.b.and_(bits, constant(t, 0x7FFFFFFF))
    odd = e.b.and_(e.b.lshr(magnitude, constant(t, 13)), constant(t, 1))
    rounded = e.b.add(e.b.add(magnitude, constant(t, 0xFFF)), odd)
    normal = e.b.lshr(e.b.sub(rounded, constant(t, 112 << 23)), constant(t, 13))
    normal = e.b.select(e.b.icmp_unsigned(">", normal, constant(t, 0x7C00)), constant(t, 0x7C00), normal)
    # Adding 0.5 aligns a subnormal's last place (2^-24) with f32's.
    shifted = e.b.fadd(bits_to_float(e, magnitude), constant(vector(F32, lanes), 0.5))
    subnormal = e.b.sub(float_bits(e, shifted), constant(t, 0x3F000000))
    out = e.b.select(e.b.icmp_unsigned("<", magnitude, constant(t, 113 << 23)), subnormal, normal)
    out = e.b.select(e.b.icmp_unsigned(">=", magnitude, constant(t, 0x7F800000)), constant(t, 0x7C00), out)
    out = e.b.select(e.b.icmp_unsigned(">", magnitude, constant(t, 0x7F800000)), constant(t, 0x7E00), out)
    return e.b.trunc(e.b.or_(out, sign), vector(I16, lanes))


def _round_bf16(e: Emitter, x: Any) -> Any:
    """f32 rounded to bf16's precision; NaN stays NaN."""
    bits = float_bits(e, x)
    t = bits.type
    odd = e.b.and_(e.b.lshr(bits, constant(t, 16)), constant(t, 1))
    rounded = e.b.add(e.b.add(bits, constant(t, 0x7FFF)), odd)
    nan = e.b.fcmp_unordered("uno", x, x)
    kept = e.b.select(nan, e.b.or_(bits, constant(t, 0x400000)), rounded)
    return bits_to_float(e, e.b.and_(kept, constant(t, 0xFFFF0000)))


def _decode_small(e: Emitter, code: Any, f: SmallFloat) -> Any:
    """i32 codes of a small float format to f32."""
    t = code.type
    width = f.exponent + f.mantissa
    magnitude = e.b.and_(code, constant(t, (1 << width) - 1))
    sign = e.b.shl(e.b.and_(e.b.lshr(code, constant(t, width)), constant(t, 1)), constant(t, 31))
    shifted = bits_to_float(e, e.b.shl(magnitude, constant(t, 23 - f.mantissa)))
    value = e.b.fmul(shifted, constant(shifted.type, 2.0 ** (127 - f.bias)))
    bits = e.b.or_(float_bits(e, value), sign)
    quiet = constant(t, 0x7FC00000)
    if f.nan is not None and not f.signed_zero:
        bits = e.b.select(e.b.icmp_unsigned("==", code, constant(t, f.nan)), quiet, bits)
    elif f.infinity is not None:
        special = e.b.select(
            e.b.icmp_unsigned("==", magnitude, constant(t, f.infinity)), constant(t, 0x7F800000), quiet
        )
        bits = e.b.select(e.b.icmp_unsigned(">=", magnitude, constant(t, f.infinity)), e.b.or_(special, sign), bits)
    elif f.nan is not None:
        bits = e.b.select(e.b.icmp_unsigned("==", magnitude, constant(t, f.nan)), quiet, bits)
    return bits_to_float(e, bits)


def _encode_small(e: Emitter, x: Any, f: SmallFloat) -> Any:
    """f32 to i32 codes of a small float format: nearest even; beyond the range the largest finite value, but an
    infinity stays one where there are any."""
    bits = float_bits(e, x)
    t, ft = bits.type, x.type
    width = f.exponent + f.mantissa
    shift = 23 - f.mantissa
    sign = e.b.shl(e.b.lshr(bits, constant(t, 31)), constant(t, width))
    magnitude = e.b.and_(bits, constant(t, 0x7FFFFFFF))
    size = bits_to_float(e, magnitude)
    top = constant(ft, f.largest)
    size = e.b.select(e.b.fcmp_ordered(">", size, top), top, size)
    raw = float_bits(e, size)
    odd = e.b.and_(e.b.lshr(raw, constant(t, shift)), constant(t, 1))
    rounded = e.b.add(e.b.add(raw, constant(t, (1 << (shift - 1)) - 1)), odd)
    normal = e.b.sub(e.b.lshr(rounded, constant(t, shift)), constant(t, (127 - f.bias) << f.mantissa))
    # A number whose last place is the format's smallest step brings subnormals into f32's last places.
    magic = 2.0 ** (1 - f.bias - f.mantissa + 23)
    aligned = float_bits(e, e.b.fadd(size, constant(ft, magic)))
    magic_bits = (127 + 1 - f.bias - f.mantissa + 23) << 23
    subnormal = e.b.sub(aligned, constant(t, magic_bits))
    small = e.b.fcmp_ordered("<", size, constant(ft, 2.0 ** (1 - f.bias)))
    code = e.b.select(small, subnormal, normal)
    if f.signed_zero:
        code = e.b.or_(code, sign)
    else:
        zero = e.b.icmp_unsigned("==", code, constant(t, 0))
        code = e.b.select(zero, constant(t, 0), e.b.or_(code, sign))
    if f.infinity is not None:
        infinite = e.b.icmp_unsigned("==", magnitude, constant(t, 0x7F800000))
        code = e.b.select(infinite, e.b.or_(constant(t, f.infinity), sign), code)
    number = 0 if f.nan is None else f.nan
    nan = e.b.or_(constant(t, number), sign) if f.nan is not None and f.signed_zero else constant(t, number)
    return e.b.select(e.b.fcmp_unordered("uno", x, x), nan, code)


def _decode_exponent(e: Emitter, code: Any) -> Any:
    """i32 codes of f8e8m0 (powers of two, 255 is NaN) to f32."""
    t = code.type
    bits = e.b.shl(code, constant(t, 23))
    bits = e.b.select(e.b.icmp_unsigned("==", code, constant(t, 0)), constant(t, 0x400000), bits)
    bits = e.b.select(e.b.icmp_unsigned("==", code, constant(t, 255)), constant(t, 0x7FC00000), bits)
    return bits_to_float(e, bits)


def _encode_exponent(e: Emitter, x: Any) -> Any:
    """f32 to i32 codes of f8e8m0: the nearest power of two (half way up), clamped; negative and NaN give NaN."""
    bits = float_bits(e, x)
    t = bits.type
    bits = e.b.and_(bits, constant(t, 0x7FFFFFFF))
    code = e.b.lshr(e.b.add(bits, constant(t, 0x400000)), constant(t, 23))
    code = e.b.select(e.b.icmp_unsigned(">", code, constant(t, 254)), constant(t, 254), code)
    # Below 2^-126 the place after the leading one is one lower.
    code = e.b.select(e.b.icmp_unsigned("<", bits, constant(t, 0x600000)), constant(t, 0), code)
    good = e.b.fcmp_ordered(">=", x, constant(x.type, 0.0))
    return e.b.select(good, code, constant(t, 255))


__all__ = ["I1", "I64", "cast", "from_storage", "literal", "round_to", "spread", "storage_type", "to_storage"]
__all__ += ["type_suffix", "wrap_small"]
