# SPDX-License-Identifier: Apache-2.0
"""ONNX signal processing: transforms as products with constant cosines and sines, windows."""

from __future__ import annotations

import math

import numpy as np

from tcc import reference
from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F64, DType


def _number(n: Node, index: int, what: str) -> int:
    return n.ints(index, what)[0]


def _angles(rows: int, columns: int, length: int) -> np.ndarray:
    """2π·i·j / length, the product reduced first, so that no digits are lost."""
    return 2 * math.pi * ((np.arange(rows)[:, None] * np.arange(columns)[None, :]) % length) / length


def _fourier(f: Formula, parts: list[Value], bins: int, length: int, inverse: bool) -> tuple[Value, Value]:
    """(real, imaginary) of the transform along the last axis of signals [.., length] (real part, imaginary part)."""
    n = f.n
    dtype = n.dtype(parts[0])
    angle = _angles(length, bins, length)
    scale = 1.0 / length if inverse else 1.0
    sign = 1.0 if inverse else -1.0
    cos, sin = (n.constant(m, dtype) for m in (np.cos(angle) * scale, sign * np.sin(angle) * scale))
    real, imaginary = n.op(graph.Matmul, parts[0], cos), n.op(graph.Matmul, parts[0], sin)
    if len(parts) == 2:
        real = f.sub(real, n.op(graph.Matmul, parts[1], sin))
        imaginary = f.add(imaginary, n.op(graph.Matmul, parts[1], cos))
    return real, imaginary


def _fitted(f: Formula, x: Value, length: int) -> Value:
    """x cut or padded with zeros to `length` along the last axis."""
    shape = f.static(x)
    if shape[-1] > length:
        return f.part(x, len(shape) - 1, 0, length)
    after = tuple(length - d if i == len(shape) - 1 else 0 for i, d in enumerate(shape))
    return x if shape[-1] == length else f.n.op(graph.Pad, x, before=(0,) * len(shape), after=after, value=0.0)


@onnx_op("DFT")
def dft(n: Node) -> Value:
    """Along `axis` of [.., 1 or 2]; axis is an attribute before opset 20, and an operand since."""
    f = Formula(n)
    x = n.input(0)
    rank = n.rank(x)
    if n.opset < 20:
        given = int(n.attr("axis", 1))
    else:
        given = _number(n, 2, "axis") if n.optional(2) is not None else -2
    axis = n.axis(given, rank)
    if axis == rank - 1:
        raise InputError("its axis is the last, which holds real and imaginary parts")
    inverse, onesided = n.flag("inverse"), n.flag("onesided")
    shape = f.static(x)
    if shape[-1] not in (1, 2):
        raise InputError(f"x is {n.type(x)}, and its last extent must be 1 (real) or 2 (complex)")
    if onesided and not inverse and shape[-1] == 2:
        raise InputError("a onesided transform takes a real signal")
    wide = f.wide(x)
    dtype = n.dtype(wide)
    perm = [i for i in range(rank - 1) if i != axis] + [axis]
    parts = []
    for i in range(shape[-1]):
        part = n.reshape(f.part(wide, rank - 1, i), shape[:-1])
        parts.append(n.transpose(part, perm))
    length = _number(n, 1, "dft_length") if n.optional(1) is not None else None
    back = [perm.index(i) for i in range(rank - 1)]

    def finish(*made: Value) -> Value:
        columns = [n.transpose(m, back) for m in made]
        wide_shape = (*f.static(columns[0]), 1)
        return n.cast(f.concat([n.reshape(c, wide_shape) for c in columns], rank - 1), n.dtype(x))

    if onesided and inverse:
        length = 2 * (shape[axis] - 1) if length is None else length
        return finish(_real_inverse(f, parts, length, dtype))
    length = shape[axis] if length is None else length
    parts = [_fitted(f, p, length) for p in parts]
    bins = length // 2 + 1 if onesided else length
    return finish(*_fourier(f, parts, bins, length, inverse))


def _real_inverse(f: Formula, parts: list[Value], length: int, dtype: DType) -> Value:
    """The real signal of which bins 0 … length / 2 are given."""
    n = f.n
    bins = length // 2 + 1
    parts = [_fitted(f, p, bins) for p in parts]
    weight = np.full(bins, 2.0)
    weight[0] = 1.0
    if length % 2 == 0:
        weight[-1] = 1.0
    angle = _angles(bins, length, length)
    cos = n.constant(np.cos(angle) * weight[:, None] / length, dtype)
    out = n.op(graph.Matmul, parts[0], cos)
    if len(parts) == 2:
        sin = n.constant(np.sin(angle) * weight[:, None] / length, dtype)
        out = f.sub(out, n.op(graph.Matmul, parts[1], sin))
    return out


@onnx_op("STFT")
def stft(n: Node) -> Value:
    """Frames gathered from the signal, times the window, transformed."""
    f = Formula(n)
    signal, weights = n.input(0), n.optional(2)
    step = _number(n, 1, "frame_step")
    shape = f.static(signal)
    if n.optional(3) is not None:
        length = _number(n, 3, "frame_length")
    else:
        length = shape[1] if weights is None else f.static(weights)[0]
    if weights is not None and f.static(weights) != (length,):
        raise InputError(f"a window {n.type(weights)} does not fit frames of {length}")
    if step <= 0 or not 0 < length <= shape[1]:
        raise InputError(f"frames of {length} every {step} do not fit a signal of {shape[1]}")
    onesided = n.flag("onesided", True)
    components = shape[2] if len(shape) == 3 else 1
    if onesided and components == 2:
        raise InputError("a onesided transform takes a real signal")
    frames = (shape[1] - length) // step + 1
    wide = n.reshape(f.wide(signal), (*shape[:2], components))
    places = n.constant(np.arange(frames)[:, None] * step + np.arange(length)[None, :], None)
    parts = []
    for i in range(components):
        part = n.reshape(f.part(wide, 2, i), shape[:2])
        part = n.op(graph.Gather, part, places, axis=1)
        parts.append(part if weights is None else f.mul(part, n.cast(weights, n.dtype(wide))))
    bins = length // 2 + 1 if onesided else length
    made = _fourier(f, parts, bins, length, False)
    whole = f.concat([n.reshape(m, (shape[0], frames, bins, 1)) for m in made], 3)
    return n.cast(whole, n.dtype(signal))


_WINDOWS = {"HannWindow": (0.5, 0.5), "HammingWindow": (25 / 46, 21 / 46), "BlackmanWindow": (0.42, 0.5, 0.08)}


@onnx_op(*_WINDOWS)
def window_function(n: Node) -> Value:
    """Σ ±w·cos(i·2π·k / span) at k < size, in f64."""
    dtype = element_type(n.attr("output_datatype", 1), "its result")
    size = _number(n, 0, "size")
    name = {"HannWindow": "hann", "HammingWindow": "hamming", "BlackmanWindow": "blackman"}[n.proto.op_type]
    made = getattr(reference, f"{name}_window")(size, output_datatype=F64.numpy, periodic=int(n.flag("periodic", True)))
    return n.constant(made, dtype)


@onnx_op("MelWeightMatrix")
def mel_weight_matrix(n: Node) -> Value:
    """Triangles over the bins of a transform, in f64 from the rate and the edges; the two sizes decide the shape and
    are read ahead."""
    dtype = element_type(n.attr("output_datatype", 1), "its result")
    bins, length = _number(n, 0, "num_mel_bins"), _number(n, 1, "dft_length")
    rate, first, last = (n.reshape(n.cast(n.input(i), F64), ()) for i in (2, 3, 4))
    f = Formula(n)
    per_mel = math.log(10) / 2595
    low, high = (f.mul(n.op(graph.Log, f.add(f.div(hertz, 700.0), 1.0)), 1 / per_mel) for hertz in (first, last))
    mels = f.add(low, f.mul(n.constant(np.arange(bins + 2.0), F64), f.div(f.sub(high, low), bins + 2.0)))
    hertz = f.mul(f.sub(n.op(graph.Exp, f.mul(mels, per_mel)), 1.0), 700.0)
    edges = f.floor(f.div(f.mul(hertz, length + 1.0), rate))
    left, centre, right = (f.part(edges, 0, i, bins) for i in range(3))
    row = n.constant(np.arange(length // 2 + 1.0)[:, None], F64)
    # An edge that coincides with the centre leaves a step there, and the centre itself always weighs 1.
    rise = f.where(f.less(left, centre), f.div(f.sub(row, left), f.most(f.sub(centre, left), 1.0)), 1.0)
    fall = f.div(f.sub(right, row), f.most(f.sub(right, centre), 1.0))
    falling = f.both(f.less(centre, row), f.less(row, right))
    rising = f.both(f.at_most(left, row), f.at_most(row, centre))
    return n.cast(f.where(rising, rise, f.where(falling, fall, f.zeros((), F64))), dtype)
