# SPDX-License-Identifier: Apache-2.0
"""Comparisons, boolean logic, bits, and selection, with numpy-style broadcasting."""

from __future__ import annotations

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, widen


def equal(a: Array, b: Array) -> Array:
    """a == b as bool; NaN equals nothing; strings compare whole. ONNX Equal."""
    return np.asarray(np.equal(widen(a), widen(b))).astype(bool)


def greater(a: Array, b: Array) -> Array:
    """a > b as bool. ONNX Greater."""
    return np.asarray(np.greater(widen(a), widen(b)))


def greater_or_equal(a: Array, b: Array) -> Array:
    """a >= b as bool. ONNX GreaterOrEqual."""
    return np.asarray(np.greater_equal(widen(a), widen(b)))


def less(a: Array, b: Array) -> Array:
    """a < b as bool. ONNX Less."""
    return np.asarray(np.less(widen(a), widen(b)))


def less_or_equal(a: Array, b: Array) -> Array:
    """a <= b as bool. ONNX LessOrEqual."""
    return np.asarray(np.less_equal(widen(a), widen(b)))


def and_(a: Array, b: Array) -> Array:
    """Logical and of bools. ONNX And."""
    return np.asarray(np.logical_and(a, b))


def or_(a: Array, b: Array) -> Array:
    """Logical or of bools. ONNX Or."""
    return np.asarray(np.logical_or(a, b))


def xor(a: Array, b: Array) -> Array:
    """Logical exclusive or of bools. ONNX Xor."""
    return np.asarray(np.logical_xor(a, b))


def not_(x: Array) -> Array:
    """Logical not of bools. ONNX Not."""
    return np.asarray(np.logical_not(x))


def bitwise_and(a: Array, b: Array) -> Array:
    """Bitwise and of integers. ONNX BitwiseAnd."""
    return np.asarray(np.bitwise_and(a, b))


def bitwise_or(a: Array, b: Array) -> Array:
    """Bitwise or of integers. ONNX BitwiseOr."""
    return np.asarray(np.bitwise_or(a, b))


def bitwise_xor(a: Array, b: Array) -> Array:
    """Bitwise exclusive or of integers. ONNX BitwiseXor."""
    return np.asarray(np.bitwise_xor(a, b))


def bitwise_not(x: Array) -> Array:
    """Bitwise complement of integers. ONNX BitwiseNot."""
    return np.asarray(np.bitwise_not(x))


@ieee
def bit_shift(x: Array, y: Array, *, direction: str) -> Array:
    """x shifted by y bits, `direction` LEFT or RIGHT (arithmetic for signed types). ONNX BitShift.

    A shift by a negative amount or by the width or more leaves the sign fill alone: -1 for a right shift of a negative
    x, else 0. Raises ValueError on another direction.
    """
    if direction not in ("LEFT", "RIGHT"):
        raise ValueError(f"direction '{direction}' is neither LEFT nor RIGHT.")
    x, y = np.asarray(x), np.asarray(y)
    width = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < width)
    amount = np.where(inside, y, 0).astype(x.dtype)
    if direction == "LEFT":
        return np.where(inside, np.left_shift(x, amount), 0).astype(x.dtype)
    fill = np.where(x < 0, -1, 0) if x.dtype.kind == "i" else np.zeros_like(x)
    return np.where(inside, np.right_shift(x, amount), fill).astype(x.dtype)


def is_nan(x: Array) -> Array:
    """Whether each element is NaN. ONNX IsNaN."""
    return np.asarray(np.isnan(widen(x)))


def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Whether each element is an infinity of a detected sign. ONNX IsInf."""
    wide = widen(x)
    found = np.isinf(wide)
    if not detect_negative:
        found &= wide > 0
    if not detect_positive:
        found &= wide < 0
    return np.asarray(found)


def where(condition: Array, x: Array, y: Array) -> Array:
    """x where the condition holds, else y, broadcast together. ONNX Where."""
    return narrow(np.where(condition, x, y), np.asarray(x).dtype)
