# SPDX-License-Identifier: Apache-2.0
"""Softmax and its kin along one axis. Shapes: the output has the shape of x."""

from __future__ import annotations

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, one_axis, widen


def softmax_wide(x: Array, axis: int) -> Array:
    """Softmax in the type of x, the maximum subtracted first; an empty axis gives an empty result."""
    if x.size == 0:
        return x
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@ieee
def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) over its sum along `axis`. ONNX Softmax."""
    return narrow(softmax_wide(widen(x), one_axis(axis, np.ndim(x))), np.asarray(x).dtype)


@ieee
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """log(softmax(x)) along `axis`, without cancellation. ONNX LogSoftmax."""
    wide, axis = widen(x), one_axis(axis, np.ndim(x))
    if wide.size:
        shifted = wide - wide.max(axis=axis, keepdims=True)
        wide = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return narrow(wide, np.asarray(x).dtype)


def hardmax(x: Array, *, axis: int = -1) -> Array:
    """1 at the first maximum along `axis`, 0 elsewhere. ONNX Hardmax."""
    wide, axis = widen(x), one_axis(axis, np.ndim(x))
    result = np.zeros(wide.shape, wide.dtype)
    if wide.size:
        np.put_along_axis(result, np.expand_dims(wide.argmax(axis=axis), axis), 1, axis=axis)
    return narrow(result, np.asarray(x).dtype)
