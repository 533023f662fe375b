# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions as convolutions of all phases at once.

Output position o = s·q + r - pad reads w[r + s·t] at x[q - t] only (Shi et al., "Real-time single image and video
super-resolution", CVPR 2016, appendix), so a plain convolution over q gives the s phases r of an axis as channels, and
laying them beside each other gives the output: no tap is tried in vain. Where the stride does not divide the window,
weights of zero fill it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, add, mul
from tcc.ir.graph import ConvTranspose
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import I64
from tcc.passes.graph.expand_ops.table import Before, expands


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: `taps` of each of the `stride` phases, over x from position -`before` on and `after` beyond its
    end; the output starts at `first` of what the phases give. `spread`: distance of the kernel's entries with zeros
    between them."""

    kernel: int
    taps: int
    stride: int
    dilation: int
    spread: int
    before: int
    after: int
    first: int


def _axis(op: ConvTranspose, place: int) -> _Axis | None:
    """The phases of an axis; None where its extents are no numbers apart from the stride times x's."""
    n = op.spatial
    kernel, stride, dilation, pad = op.kernel[place], op.strides[place], op.dilations[place], op.pads[place]
    at = op.spatial_axes[place]
    more = add(tensor_type(op.y).shape[at], mul(add(tensor_type(op.x).shape[at], -1), -stride))
    if not isinstance(kernel, int) or not isinstance(more, int) or kernel == 0:
        return None
    assert len(op.pads) == 2 * n
    spread = dilation if stride > 1 else 1
    dilation = 1 if stride > 1 else dilation
    taps = -(-((kernel - 1) * spread + 1) // stride)
    reach = (taps - 1) * dilation
    skipped = min(pad // stride, reach)
    after = max((pad + more - 1) // stride, 0)
    return _Axis(kernel, taps, stride, dilation, spread, reach - skipped, after, pad - skipped * stride)


@expands("conv_transpose")
def expand_conv_transpose(op: ConvTranspose, rewriter: Rewriter) -> None:
    """Windows side by side stay: they are one product."""
    disjoint = op.group == 1 and tuple(op.kernel) == op.strides and not any(op.pads) and not any(op.output_padding)
    if op.dims != "nchw" or (disjoint and all(d == 1 for d in op.dilations)):
        return
    found = [_axis(op, i) for i in range(op.spatial)]
    axes = [a for a in found if a is not None and a.first >= 0]
    w, y = tensor_type(op.w), tensor_type(op.y)
    if len(axes) < len(found) or not isinstance(w.shape[0], int) or not isinstance(w.shape[1], int):
        return
    b = Before(op, rewriter)
    groups, depth, width, n = op.group, w.shape[0] // op.group, w.shape[1], op.spatial
    phases = prod(a.stride for a in axes)
    weights = _weights(b, op, axes, (groups, depth, width))
    bias = None
    if op.b is not None:
        bias = b(graph.Expand, b.reshape(op.b, (groups, 1, width)), shape=(groups, phases, width))
        bias = b.reshape(bias, (groups * phases * width,))
    pads = (*(a.before for a in axes), *(a.after for a in axes))
    dilations = tuple(a.dilation for a in axes)
    z = b(graph.Conv, op.x, weights, bias, strides=(1,) * n, pads=pads, dilations=dilations, group=groups)
    if phases > 1:
        batch, _, *space = tensor_type(z).shape
        z = b.reshape(z, (batch, groups, *(a.stride for a in axes), width, *space))
        beside = [i for k in range(n) for i in (3 + n + k, 2 + k)]
        z = b(graph.Transpose, z, perm=(0, 1, 2 + n, *beside))
        wide = [mul(q, a.stride) for q, a in zip(space, axes, strict=True)]
        z = b.reshape(z, (batch, groups * width, *wide))
    b.done(_cut(b, z, [0, 0, *(a.first for a in axes)], y.shape))


def _weights(b: Before, op: ConvTranspose, axes: Sequence[_Axis], sizes: tuple[int, int, int]) -> Value:
    """[groups · phases · channels, depth, taps…] from [groups · depth, channels, kernel…]."""
    groups, depth, width = sizes
    n = len(axes)
    w = b.reshape(op.w, (groups, depth, width, *(a.kernel for a in axes)))
    for i, a in enumerate(axes):
        shape = list(tensor_type(w).shape)
        if a.spread > 1:
            apart = b.reshape(w, (*shape[: 4 + i], 1, *shape[4 + i :]))
            after = [0] * (len(shape) + 1)
            after[4 + i] = a.spread - 1
            w = b(graph.Pad, apart, before=(0,) * len(after), after=tuple(after))
            shape[3 + i] = a.kernel * a.spread
            w = _cut(
                b,
                b.reshape(w, shape),
                [0] * len(shape),
                [*shape[: 3 + i], (a.kernel - 1) * a.spread + 1, *shape[4 + i :]],
            )
            shape = list(tensor_type(w).shape)
        after = [0] * len(shape)
        after[3 + i] = a.taps * a.stride - (a.kernel - 1) * a.spread - 1
        if any(after):
            w = b(graph.Pad, w, before=(0,) * len(after), after=tuple(after))
    w = b.reshape(w, (groups, depth, width, *(e for a in axes for e in (a.taps, a.stride))))
    for i, a in enumerate(axes):
        if a.taps > 1:
            w = b(graph.Gather, w, b.constant(np.arange(a.taps)[::-1], I64), axis=3 + 2 * i)
    taps, phases = [3 + 2 * i for i in range(n)], [4 + 2 * i for i in range(n)]
    w = b(graph.Transpose, w, perm=(0, *phases, 2, 1, *taps))
    return b.reshape(w, (groups * prod(a.stride for a in axes) * width, depth, *(a.taps for a in axes)))


def _cut(b: Before, x: Value, first: Sequence[int], shape: Sequence[Dim]) -> Value:
    """The part of x of this shape that begins at `first`."""
    if tuple(tensor_type(x).shape) == tuple(shape):
        return x
    return b(graph.Slice, x, starts=tuple(first), sizes=tuple(shape), steps=(1,) * len(shape))
