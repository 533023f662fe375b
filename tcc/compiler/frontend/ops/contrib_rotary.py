# SPDX-License-Identifier: Apache-2.0
"""com.microsoft RotaryEmbedding."""

from __future__ import annotations

from tcc.compiler.frontend.contrib import (
    FLOAT,
    INT,
    contrib_op,
    from_heads,
    known_dim,
    need_rank,
    positions,
    refuse,
    takes,
    to_heads,
)
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.rotary import rotate
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import I64


@contrib_op("RotaryEmbedding")
def rotary_embedding(n: Node) -> Value:
    """x [b, s, h·d] or [b, h, s, d]; position_ids [b, s], or [1], the position of the first token of every row."""
    takes(n, interleaved=INT, is_packed_batching=INT, num_heads=INT, rotary_embedding_dim=INT, scale=FLOAT)
    refuse(n, "rows of several lengths in one batch", "is_packed_batching")
    if n.attr("scale", 1.0) != 1.0:
        raise InputError(f"its attribute scale is {n.attr('scale')}, and 1 is supported")
    x, places, cosine, sine = (n.input(i) for i in range(4))
    need_rank(n, x, "input", 3, 4)
    if need_rank(n, cosine, "cos_cache", 2) != need_rank(n, sine, "sin_cache", 2):
        raise InputError(f"its caches are {n.type(cosine)} and {n.type(sine)}, and must be of one shape")
    half = known_dim(n.shape(cosine)[1], "the width of its cos_cache")
    rotated, heads = n.attr("rotary_embedding_dim", 0), n.attr("num_heads", 0)
    if rotated and (rotated != 2 * half or (n.rank(x) == 3 and not heads)):
        raise InputError(
            f"its rotary_embedding_dim {rotated} needs num_heads, and caches of {rotated // 2} columns, not {half}"
        )
    packed = n.rank(x) == 3
    if packed:
        width = known_dim(n.shape(x)[2], "its hidden size")
        x = to_heads(n, x, heads or max(1, width // (2 * half)), "its hidden size")
    batch, _, length, _ = n.shape(x)
    if need_rank(n, places, "position_ids", 1, 2) == (1,):
        places = n.reshape(n.op(graph.Add, positions(n, length), n.cast(places, I64)), (1, length))
    elif n.shape(places) != (batch, length):
        raise InputError(f"its position_ids are {n.type(places)}, and [1] or [{batch}, {length}] is needed")
    known = n.known(places)
    rows = n.shape(cosine)[0]
    if known is not None and isinstance(rows, int) and known.size and not 0 <= known.min() <= known.max() < rows:
        raise InputError(f"its position_ids go to {known.max()}, and its caches have {rows} rows")
    out = rotate(
        n, x, n.op(graph.Gather, cosine, places, axis=0), n.op(graph.Gather, sine, places, axis=0),
        n.flag("interleaved"),
    )  # fmt: skip
    return from_heads(n, out) if packed else out
