# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (RoFormer, arXiv:2104.09864) as pointwise arithmetic on a reshaped tensor."""

from __future__ import annotations

import numpy as np

from tcc.compiler.frontend.contrib import known_dim, parts
from tcc.compiler.frontend.node import Node
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim


def rotate(n: Node, x: Value, cosine: Value, sine: Value, interleaved: bool) -> Value:
    """x [b, h, s, d] with its first r elements rotated by pairs; cosine and sine are [b or 1, s, r/2].

    Pair i is elements i and i + r/2, or, interleaved, elements 2i and 2i + 1: (u, v) becomes (u cos - v sin,
    v cos + u sin). The pairs' dim is walked backwards for the second product, so no element is moved by itself.
    """
    b, h, s, depth = n.shape(x)
    half = known_dim(n.shape(cosine)[2], "the width of its cos_cache")
    width = known_dim(depth, "the depth of its heads")
    if 2 * half > width:
        raise InputError(f"its cos_cache rotates {2 * half} elements, and its heads have {width}")
    turned, *rest = parts(n, x, 3, (2 * half, width - 2 * half)) if 2 * half < width else [x]
    pair = 4 if interleaved else 3
    folded: tuple[Dim, ...] = (b, h, s, half, 2) if interleaved else (b, h, s, 2, half)
    both = n.reshape(turned, folded)
    starts = tuple(1 if i == pair else 0 for i in range(5))
    steps = tuple(-1 if i == pair else 1 for i in range(5))
    swapped = n.op(graph.Slice, both, starts=starts, sizes=folded, steps=steps)
    sign = np.array([-1.0, 1.0]).reshape((1, 2) if interleaved else (2, 1))
    c, w = (n.reshape(v, _spread(n, v, interleaved)) for v in (cosine, sine))
    signed = n.op(graph.Mul, w, n.constant(sign, n.dtype(w)))
    out = n.op(graph.Add, n.op(graph.Mul, both, c), n.op(graph.Mul, swapped, signed))
    flat = n.reshape(out, (b, h, s, 2 * half))
    return n.op(graph.Concat, [flat, *rest], axis=3) if rest else flat


def _spread(n: Node, v: Value, interleaved: bool) -> tuple[Dim, ...]:
    b, s, half = n.shape(v)
    return (b, 1, s, half, 1) if interleaved else (b, 1, s, 1, half)
