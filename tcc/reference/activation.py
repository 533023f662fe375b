# SPDX-License-Identifier: Apache-2.0
"""Activation functions: elementwise, computed wide and rounded once. Shapes: the output has the shape of x."""

from __future__ import annotations

import math

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, widen
from tcc.reference.elementwise import erf_float64


def relu(x: Array) -> Array:
    """max(x, 0). ONNX Relu."""
    return narrow(np.maximum(widen(x), 0), np.asarray(x).dtype)


@ieee
def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    """x where x >= 0, else alpha * x. ONNX LeakyRelu."""
    wide = widen(x)
    return narrow(np.where(wide < 0, wide.dtype.type(alpha) * wide, wide), np.asarray(x).dtype)


@ieee
def prelu(x: Array, slope: Array) -> Array:
    """x where x >= 0, else slope * x; slope broadcasts to x in one direction. ONNX PRelu."""
    wide = widen(x)
    return narrow(np.where(wide < 0, widen(slope) * wide, wide), np.asarray(x).dtype)


@ieee
def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x > alpha, else 0. ONNX ThresholdedRelu."""
    wide = widen(x)
    return narrow(np.where(wide > alpha, wide, 0), np.asarray(x).dtype)


@ieee
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x >= 0, else alpha * (exp(x) - 1). ONNX Elu."""
    wide = widen(x)
    return narrow(np.where(wide < 0, alpha * np.expm1(wide), wide), np.asarray(x).dtype)


@ieee
def selu(x: Array, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Array:
    """gamma * x where x > 0, else gamma * alpha * (exp(x) - 1). ONNX Selu."""
    wide = widen(x)
    return narrow(gamma * np.where(wide > 0, wide, alpha * np.expm1(wide)), np.asarray(x).dtype)


@ieee
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)). ONNX Celu."""
    wide = widen(x)
    return narrow(np.maximum(wide, 0) + np.minimum(0, alpha * np.expm1(wide / alpha)), np.asarray(x).dtype)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) in the type of x, without overflow at either end."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, np.ones((), x.dtype)) / (1 + small)


@ieee
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)). ONNX Sigmoid."""
    return narrow(logistic(widen(x)), np.asarray(x).dtype)


@ieee
def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """max(0, min(1, alpha * x + beta)). ONNX HardSigmoid."""
    return narrow(np.clip(alpha * widen(x) + beta, 0, 1), np.asarray(x).dtype)


@ieee
def hard_swish(x: Array) -> Array:
    """x * max(0, min(1, x / 6 + 0.5)). ONNX HardSwish."""
    wide = widen(x)
    return narrow(wide * np.clip(wide / 6 + 0.5, 0, 1), np.asarray(x).dtype)


@ieee
def swish(x: Array, *, alpha: float = 1.0) -> Array:
    """x * sigmoid(alpha * x). ONNX Swish."""
    wide = widen(x)
    return narrow(wide * logistic(alpha * wide), np.asarray(x).dtype)


@ieee
def swi_glu(a: Array, b: Array, *, alpha: float = 1.0) -> Array:
    """swish(a) * b, equal shapes. ONNX SwiGLU. Raises ValueError where the shapes differ."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"SwiGLU needs equal shapes, got {list(np.shape(a))} and {list(np.shape(b))}.")
    gate = widen(a)
    return narrow(gate * logistic(alpha * gate) * widen(b), np.asarray(a).dtype)


@ieee
def mish(x: Array) -> Array:
    """x * tanh(softplus(x)). ONNX Mish."""
    wide = widen(x)
    return narrow(wide * np.tanh(np.logaddexp(wide, 0, dtype=wide.dtype)), np.asarray(x).dtype)


@ieee
def softplus(x: Array) -> Array:
    """log(exp(x) + 1), without overflow. ONNX Softplus."""
    wide = widen(x)
    return narrow(np.logaddexp(wide, 0, dtype=wide.dtype), np.asarray(x).dtype)


@ieee
def softsign(x: Array) -> Array:
    """x / (1 + |x|). ONNX Softsign."""
    wide = widen(x)
    return narrow(wide / (1 + np.abs(wide)), np.asarray(x).dtype)


@ieee
def gelu(x: Array, *, approximate: str = "none") -> Array:
    """Gaussian error linear unit: 0.5 x (1 + erf(x / sqrt 2)), or the tanh form. ONNX Gelu.

    approximate="tanh": 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))). Raises ValueError on another value.
    """
    wide = widen(x)
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide * wide * wide)
        return narrow(0.5 * wide * (1 + np.tanh(inner)), np.asarray(x).dtype)
    if approximate != "none":
        raise ValueError(f"approximate '{approximate}' is neither none nor tanh.")
    phi = narrow(erf_float64(wide.astype(np.float64) / math.sqrt(2)), wide.dtype)
    return narrow(0.5 * wide * (1 + phi), np.asarray(x).dtype)


@ieee
def shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x + bias below -lambd, x - bias above lambd, else 0. ONNX Shrink."""
    wide = widen(x)
    shifted = np.where(wide < -lambd, wide + bias, np.where(wide > lambd, wide - bias, 0))
    return narrow(shifted, np.asarray(x).dtype)
