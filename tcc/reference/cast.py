# SPDX-License-Identifier: Apache-2.0
"""Type changes: Cast with every ONNX rounding and saturation rule, CastLike, BitCast."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import (
    FLOAT4,
    FLOAT8,
    FLOAT8_E8M0,
    SMALL_INTS,
    Array,
    ieee,
    int_bounds,
    is_float,
    is_integer,
    widen,
)


def _to_string(x: Array) -> Array:
    def text(v: Any) -> str:
        if isinstance(v, (float, np.floating)) and np.isinf(v):
            return "INF" if v > 0 else "-INF"
        return "NaN" if v != v else str(v)

    wide = widen(x)
    return np.array([text(v) for v in wide.reshape(-1)], dtype=object).reshape(wide.shape)


def _from_string(x: Array, to: np.dtype[Any]) -> Array:
    flat = [str(v) for v in x.reshape(-1)]
    if is_float(to):
        return cast(np.array([float(v) for v in flat], np.float64).reshape(x.shape), to=to)
    if to.kind == "b":
        return np.array([float(v) != 0 for v in flat], bool).reshape(x.shape)
    # Through Python ints where the literal allows it: float64 would lose the low bits of large int64 values.
    values = [int(v) if v.strip().lstrip("+-").isdigit() else int(float(v)) for v in flat]
    return np.array(values, dtype=object).reshape(x.shape).astype(np.int64 if to.kind != "u" else np.uint64).astype(to)


def _to_float8(x: Array, to: np.dtype[Any], saturate: bool) -> Array:
    wide = widen(x)
    if saturate:
        top = np.asarray(ml_dtypes.finfo(to).max).astype(np.float32)
        wide = np.clip(wide, -top, top)
    return wide.astype(to)


def _to_e8m0(x: Array, saturate: bool, round_mode: str) -> Array:
    """Powers of two 2**-127 .. 2**127: the exponent is rounded as `round_mode` says, byte 255 is NaN."""
    if round_mode not in ("up", "down", "nearest"):
        raise ValueError(f"round_mode '{round_mode}' is none of up, down, nearest.")
    wide = np.asarray(x).astype(np.float64)
    mantissa, exponent = np.frexp(wide)  # wide = mantissa * 2**exponent, mantissa in [0.5, 1)
    low = exponent - 1
    up = {"up": mantissa > 0.5, "down": np.zeros(wide.shape, bool), "nearest": mantissa >= 0.75}[round_mode]
    power = low + up
    finite = np.isfinite(wide) & (wide != 0)
    power = np.where(finite, power, np.where(np.isinf(wide), 1000, -1000))
    bad = np.isnan(wide) | (wide < 0)
    if saturate:
        power = np.clip(power, -127, 127)
    else:
        bad |= (power < -127) | (power > 127)
    return np.where(bad, 255, power + 127).astype(np.uint8).view(FLOAT8_E8M0)


def _to_integer(x: Array, to: np.dtype[Any]) -> Array:
    """Truncation toward zero; out of range saturates and NaN gives 0, where ONNX leaves the result open."""
    low, high = int_bounds(to)
    wide = np.trunc(widen(x).astype(np.float64, copy=False))
    wide = np.where(np.isnan(wide), 0.0, wide)
    # float(high) of a 64-bit type rounds up to a value outside it, so the top is set after the conversion.
    inside = np.where((wide >= low) & (wide < float(high)), wide, 0.0)
    middle = inside.astype(np.uint64 if to == np.uint64 else np.int64)
    result = np.where(wide >= float(high), np.array(high, middle.dtype), middle)
    return np.where(wide < low, np.array(low, middle.dtype), result).astype(to)


@ieee
def cast(x: Array, *, to: DTypeLike, saturate: int = 1, round_mode: str = "up") -> Array:
    """x in the numpy type `to`. ONNX Cast.

    Float to integer truncates toward zero; out of range saturates and NaN gives 0 (ONNX leaves both open), save that
    2- and 4-bit integers keep the low bits, as the conformance data has it. Integer to integer keeps the low bits. To
    bool: zero is False. To an 8-bit float, `saturate` clamps to the largest finite value; to float8_e8m0fnu
    `round_mode` (up, down, nearest) rounds the exponent. Strings are object arrays of str.
    """
    x, to = np.asarray(x), np.dtype(to)
    if x.dtype == to:
        return x
    if x.dtype.kind in "OUT":
        return x if to.kind in "OUT" else _from_string(x, to)
    if to.kind in "OUT":
        return _to_string(x)
    if to.kind == "b":
        return np.asarray(widen(x) != 0)
    if to in FLOAT8:
        return _to_float8(x, to, bool(saturate))
    if to == FLOAT8_E8M0:
        return _to_e8m0(widen(x), bool(saturate), round_mode)
    if to == FLOAT4:
        return np.clip(widen(x), -6.0, 6.0).astype(to)
    if is_integer(to) and is_float(x.dtype):
        return _to_integer(x, np.dtype(np.int64)).astype(to) if to in SMALL_INTS else _to_integer(x, to)
    if to in SMALL_INTS:
        return widen(x).astype(np.int64).astype(to)
    return widen(x).astype(to)


def cast_like(x: Array, target_type: Array, *, saturate: int = 1, round_mode: str = "up") -> Array:
    """x in the type of `target_type`, by the rules of cast. ONNX CastLike."""
    return cast(x, to=np.asarray(target_type).dtype, saturate=saturate, round_mode=round_mode)


def bit_cast(x: Array, *, to: DTypeLike) -> Array:
    """The bits of x read as the type `to`, of equal width. ONNX BitCast. Raises ValueError on another width."""
    x, to = np.asarray(x), np.dtype(to)
    if x.dtype == to:
        return x
    small = {d: 2 if "2" in d.name and "4" not in d.name else 4 for d in SMALL_INTS} | {FLOAT4: 4}
    bits = [small.get(d, d.itemsize * 8) for d in (x.dtype, to)]
    if bits[0] != bits[1]:
        raise ValueError(f"bit cast from {x.dtype} ({bits[0]} bits) to {to} ({bits[1]} bits) changes the width.")
    if to in SMALL_INTS or x.dtype in SMALL_INTS:
        # ml_dtypes keeps one value a byte, sign-extended for signed types: go through the low bits.
        raw = (np.ascontiguousarray(x).view(np.uint8) & ((1 << bits[0]) - 1)).reshape(x.shape)
        return raw.astype(np.int64).astype(to) if to in SMALL_INTS else raw.view(to)
    return np.ascontiguousarray(x).view(to).reshape(x.shape)
