# SPDX-License-Identifier: Apache-2.0
"""Matrix products: MatMul, Gemm, Einsum, Det."""

from __future__ import annotations

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, widen


def exact_matmul(a: Array, b: Array) -> Array:
    """np.matmul of integers that stays exact and fast: through float64 where no sum can reach 2**53, else in int64.

    The result is float64 or int64 and holds the exact integer, or its low 64 bits where that overflows.
    """
    inner = a.shape[-1]
    if a.size and b.size:
        if _peak(a) * _peak(b) * inner < 2**53:
            return np.matmul(a.astype(np.float64), b.astype(np.float64))
    return np.matmul(a.astype(np.int64), b.astype(np.int64))


def _peak(x: Array) -> int:
    """The largest magnitude of an integer array as a Python int (so that the least int64 does not wrap)."""
    return max(-int(x.min()), int(x.max()), 0)


def wide_matmul(a: Array, b: Array) -> Array:
    """np.matmul in the wide type of the operands; integer operands are exact modulo their width."""
    a, b = widen(a), widen(b)
    if a.dtype.kind in "iu":
        product = exact_matmul(a, b)
        return (
            product.astype(np.int64, copy=False).astype(a.dtype)
            if product.dtype.kind == "f"
            else product.astype(a.dtype)
        )
    return np.matmul(a, b)


@ieee
def matmul(a: Array, b: Array) -> Array:
    """numpy.matmul: [.., m, k] x [.., k, n] -> [.., m, n], batch dims broadcast, 1-D operands promoted. ONNX MatMul."""
    return narrow(wide_matmul(a, b), np.asarray(a).dtype)


@ieee
def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha * A' B' + beta * C: A' [m, k], B' [k, n], C broadcast to [m, n] in one direction. ONNX Gemm.

    For integer types alpha and beta scale in float64 and the result truncates.
    """
    dtype = np.asarray(a).dtype
    product = wide_matmul(np.asarray(a).T if transA else a, np.asarray(b).T if transB else b)
    y = product if alpha == 1 else product * alpha
    if c is not None and beta != 0:
        addend = widen(c)
        y = y + (addend if beta == 1 else addend * beta)
    return narrow(y, dtype)


@ieee
def einsum(*inputs: Array, equation: str) -> Array:
    """Einstein summation as numpy.einsum reads it, spaces ignored. ONNX Einsum."""
    wide = [widen(x) for x in inputs]
    dtype = np.asarray(inputs[0]).dtype
    path = np.einsum_path(equation, *wide, optimize="optimal" if len(wide) < 5 else "greedy")[0]
    return narrow(np.einsum(equation, *wide, optimize=path), dtype)


@ieee
def det(x: Array) -> Array:
    """Determinants of the matrices in the last two dims: [.., m, m] -> [..]. ONNX Det."""
    return narrow(np.linalg.det(widen(x)), np.asarray(x).dtype)
