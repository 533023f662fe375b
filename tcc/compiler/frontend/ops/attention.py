# SPDX-License-Identifier: Apache-2.0
"""ONNX Attention: graph.attention where it is plain, else the function that ONNX defines."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import floordiv
from tcc.ir.types import BOOL


@onnx_op("Attention")
def attention(n: Node) -> Sequence[Value | None]:
    """q, k, v as [b, h, m, d], or [b, m, h·d] with the head counts; masks: bool (may attend) or added."""
    q, k, v, mask = n.input(0), n.input(1), n.input(2), n.optional(3)
    if n.rank(q) not in (3, 4) or not n.rank(q) == n.rank(k) == n.rank(v):
        raise InputError(
            f"q, k and v are {n.type(q)}, {n.type(k)} and {n.type(v)}; all must be of rank 3, or of rank 4"
        )
    plain = (
        n.optional(4) is None
        and n.optional(5) is None
        and n.optional(6) is None
        and not any(n.uses(i) for i in (1, 2, 3))
        and n.attr("softcap", 0.0) == 0.0
        and not any(n.attr(a, -1) >= 0 for a in ("left_window_size", "right_window_size"))
        and not n.has("softmax_precision")
        and (mask is None or (n.rank(mask) >= 1 and n.shape(mask)[-1] in (n.shape(k)[-2], 1)))
    )
    if not plain:
        return n.expand()
    packed = n.rank(q) == 3
    if packed:
        heads, groups = n.attr("q_num_heads"), n.attr("kv_num_heads")
        q, k, v = _heads(n, q, heads), _heads(n, k, groups), _heads(n, v, groups)
    depth = n.shape(q)[-1]
    if not n.has("scale") and (not isinstance(depth, int) or depth == 0):
        raise InputError(f"its depth is {depth}, and a known number is needed")
    scale = n.attr("scale", 1.0 / sqrt(depth) if isinstance(depth, int) else 1.0)
    y = n.op(graph.Attention, q, k, v, _mask(n, mask, q), scale=scale, causal=n.flag("is_causal"))
    if packed:
        b, h, m, e = n.shape(y)
        y = n.reshape(n.transpose(y, (0, 2, 1, 3)), (b, m, h * e))
    return [y]


def _heads(n: Node, x: Value, heads: int) -> Value:
    """[b, m, h·d] → [b, h, m, d]."""
    b, m, width = n.shape(x)
    if heads < 1 or (isinstance(width, int) and width % heads):
        raise InputError(f"its width {width} does not split into {heads} heads")
    return n.transpose(n.op(graph.Reshape, x, shape=(b, m, heads, floordiv(width, heads))), (0, 2, 1, 3))


def _mask(n: Node, mask: Value | None, q: Value) -> Value | None:
    """The mask as something to add to the scores."""
    if mask is None or n.dtype(mask) != BOOL:
        return None if mask is None else n.cast(mask, n.dtype(q))
    return n.op(graph.Where, mask, n.like(0.0, q), n.like(-np.inf, q))
