# SPDX-License-Identifier: Apache-2.0
"""com.microsoft DynamicQuantizeLSTM: both products are of 8-bit integers, their left sides quantized by their range.

The input is quantized once for all steps. The state is quantized in each step, over the whole batch, as
`graph.quantized_lstm` does it; that goes forward only, so a direction that does not gets its steps in reverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tcc.compiler.frontend.contrib import (
    FLOAT,
    FLOATS,
    INT,
    STRING,
    STRINGS,
    contrib_op,
    cut,
    known_dim,
    need_rank,
    positions,
    row,
    takes,
)
from tcc.compiler.frontend.loops import stack
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.quantize import dynamic_quantized
from tcc.compiler.frontend.ops.recurrent import LSTM, activations
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, I8, I16, I64


@dataclass(frozen=True)
class _Weights:
    """Of one direction: [4·h, width] integers less their zero point, i8 where they are known and fit it, else i16, and
    what they count: one, or [4·h]."""

    n: Node
    centred: Value
    scale: Value

    def times(self, x: Value) -> Value:
        """x [b, width] quantized by its range, times the weights: f32 [b, 4·h]. A sum of so few products of 8 bits is
        exact in f32, or as near to it as its rounding to f32 would be."""
        n = self.n
        q, scale, zero = dynamic_quantized(n, x)
        whole = n.op(graph.Sub, n.cast(q, F32), n.cast(zero, F32))
        known = n.known(self.centred)
        # Written out here, as what makes a constant larger is not folded later.
        w = n.cast(n.transpose(self.centred, (1, 0)), F32) if known is None else n.constant(known.T, F32)
        product = n.op(graph.Matmul, whole, w)
        return n.op(graph.Mul, product, n.op(graph.Mul, scale, self.scale))


def _weights(n: Node, first: int, index: int, d: int, count: int, columns: int) -> _Weights:
    """Those at input `first`, with the scale and zero point at `index` and behind it."""
    scale = n.input(index)
    of_one = row(n, n.reshape(scale, (count, _each(n, scale, count, columns))), 0, d)
    return _Weights(n, _centred(n, first, index, d, count, columns), of_one)


def _centred(n: Node, first: int, index: int, d: int, count: int, columns: int) -> Value:
    """The weights at input `first`, transposed, less their zero point, which is behind the scale at `index`."""
    w, zero = n.known(n.input(first)), n.known(n.input(index + 1))
    if w is not None and zero is not None:
        each = _each(n, n.input(index + 1), count, columns)
        whole = (w[d].astype(np.int16) - zero.reshape(count, each)[d].astype(np.int16)).T
        narrow = whole.size == 0 or (whole.min() >= -128 and whole.max() <= 127)
        return n.constant(np.ascontiguousarray(whole), I8 if narrow else I16)
    point = n.input(index + 1)
    point = row(n, n.reshape(point, (count, _each(n, point, count, columns))), 0, d)
    whole = n.op(graph.Sub, n.cast(row(n, n.input(first), 0, d), I16), n.cast(point, I16))
    return n.transpose(whole, (1, 0))


def _each(n: Node, value: Value, count: int, columns: int) -> int:
    size = n.type(value).size
    if size not in (count, count * columns):
        raise InputError(f"its scale or zero point is {n.type(value)}, and {count} or [{count}, {columns}] is needed")
    return columns if size == count * columns else 1


@contrib_op("DynamicQuantizeLSTM")
def dynamic_quantize_lstm(n: Node) -> Sequence[Value | None]:
    """X [t, b, i]; W [d, i, 4·h] and R [d, h, 4·h] of integers, their scales and zero points [d] or [d, 4·h]."""
    takes(
        n, direction=STRING, hidden_size=INT, input_forget=INT, clip=FLOAT, activations=STRINGS,
        activation_alpha=FLOATS, activation_beta=FLOATS,
    )  # fmt: skip
    x, w, r, bias = n.input(0), n.input(1), n.input(2), n.optional(3)
    direction = n.attr("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise InputError(f"its direction is {direction}, and forward, reverse or bidirectional are the choices")
    count = 2 if direction == "bidirectional" else 1
    steps, batch, width = need_rank(n, x, "X", 3)
    hidden = known_dim(need_rank(n, r, "R", 3)[1], "the number of its units")
    size = 4 * hidden
    if n.shape(r) != (count, hidden, size) or need_rank(n, w, "W", 3) != (count, width, size):
        raise InputError(f"W is {n.type(w)} and R {n.type(r)}, which do not fit X {n.type(x)} and {count} direction(s)")
    if n.attr("hidden_size", hidden) != hidden:
        raise InputError(f"its hidden_size is {n.attr('hidden_size')}, and R {n.type(r)} has {hidden} units")
    for i, name, wanted in (
        (3, "B", (count, 2 * size)),
        (4, "sequence_lens", (batch,)),
        (5, "initial_h", (count, batch, hidden)),
        (6, "initial_c", (count, batch, hidden)),
        (7, "P", (count, 3 * hidden)),
    ):
        given = n.optional(i)
        if given is not None and n.shape(given) != wanted:
            raise InputError(f"its {name} is {n.type(given)}, and {[str(d) for d in wanted]} is needed")
    steps = known_dim(steps, "the number of its steps")
    known = n.known(n.optional(4))
    lengths = None if known is not None and bool((known == steps).all()) else n.optional(4)
    named = activations(n, LSTM, count)
    rows: list[Value] = []
    finals: list[tuple[Value, Value]] = []
    flat = n.reshape(x, (steps * batch, width))
    for d in range(count):
        products = _weights(n, 1, 8, d, count, size).times(flat)
        if bias is not None:
            of_one = row(n, bias, 0, d)
            both = n.op(graph.Add, cut(n, of_one, 0, 0, size), cut(n, of_one, 0, size, size))
            products = n.op(graph.Add, products, both)
        backward = direction == "reverse" or d == 1
        gates = n.reshape(products, (steps, batch, size))
        inner = _weights(n, 2, 10, d, count, size)
        h, c, p = (_part(n, n.optional(i), d) for i in (5, 6, 7))
        y, h, c = n.ops(
            graph.QuantizedLstm, _reversed(n, gates, lengths) if backward else gates, inner.centred, h, lengths, c, p,
            inner.scale, input_forget=n.flag("input_forget"), **named[d],
        )  # fmt: skip
        y = _reversed(n, y, lengths) if backward else y
        rows.append(n.reshape(y, (steps, 1, batch, hidden)))
        finals.append((h, c))
    y = rows[0] if count == 1 else n.op(graph.Concat, rows, axis=1)
    return [y, *(stack(n, [f[i] for f in finals]) for i in range(2))]


def _part(n: Node, x: Value | None, d: int) -> Value | None:
    return None if x is None else row(n, x, 0, d)


def _reversed(n: Node, x: Value, lengths: Value | None) -> Value:
    """x [t, b, …] with the steps of each sequence in reverse; those beyond its length stay where they are."""
    steps, batch, width = n.shape(x)
    steps = known_dim(steps, "the number of its steps")
    if lengths is None:
        return n.op(graph.Slice, x, starts=(steps - 1, 0, 0), sizes=(steps, batch, width), steps=(-1, 1, 1))
    t = n.reshape(positions(n, steps), (steps, 1))
    ends = n.cast(lengths, I64)
    mirrored = n.op(graph.Sub, n.op(graph.Sub, ends, n.constant(1, I64)), t)
    place = n.op(graph.Where, n.op(graph.Less, t, ends), mirrored, t)
    at = n.op(graph.Expand, n.reshape(place, (steps, batch, 1)), shape=(steps, batch, width))
    return n.op(graph.GatherElements, x, at, axis=0)
