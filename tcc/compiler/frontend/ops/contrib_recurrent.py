# SPDX-License-Identifier: Apache-2.0
"""com.microsoft DynamicQuantizeLSTM: both products are of 8-bit integers, their left sides quantized by their range.

The input is quantized once for all steps. The state is quantized in each step, over the whole batch, so a step needs
all of the step before it: the steps are laid out one after another, or, where there are many, are the body of a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
from tcc.compiler.frontend.ops.quantize import dynamic_quantized, matmul_of_integers
from tcc.compiler.frontend.ops.recurrent import LSTM, activations
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.expr import Dim
from tcc.ir.types import BOOL, F32, I64

LAID_OUT = 16
"""Steps, of both directions together, up to which no loop is made: a loop waits at the end of each step, but steps
laid out are kernels of their own, each to be compiled."""


@dataclass(frozen=True)
class _Weights:
    """Of one direction: [width, 4·h] integers, and their scale and zero point."""

    n: Node
    w: Value
    scale: Value
    zero: Value

    def times(self, x: Value) -> Value:
        """x [b, width] quantized by its range, times the weights: f32 [b, 4·h]."""
        n = self.n
        q, scale, zero = dynamic_quantized(n, x)
        product = matmul_of_integers(n, q, zero, self.w, self.zero)
        return n.op(graph.Mul, n.cast(product, F32), n.op(graph.Mul, scale, self.scale))


def _weights(n: Node, first: int, index: int, d: int, count: int, columns: int) -> _Weights:
    """Those at input `first`, with the scale and zero point at `index` and behind it."""
    w, scale, zero = n.input(first), n.input(index), n.input(index + 1)
    of_one = row(n, n.reshape(scale, (count, _each(n, scale, count, columns))), 0, d)
    point = row(n, n.reshape(zero, (count, _each(n, zero, count, columns))), 0, d)
    # One zero point serves all columns, so one scalar is enough where there are many.
    return _Weights(n, row(n, w, 0, d), of_one, point)


def _each(n: Node, value: Value, count: int, columns: int) -> int:
    size = n.type(value).size
    if size not in (count, count * columns):
        raise InputError(f"its scale or zero point is {n.type(value)}, and {count} or [{count}, {columns}] is needed")
    return columns if size == count * columns else 1


@dataclass(frozen=True)
class _Cell:
    """One direction of the layer; p is [3·h], the peepholes of i, o and f; `functions` are of the gates, of c and of
    the cell state."""

    n: Node
    hidden: int
    r: _Weights
    p: Value | None
    functions: tuple[Callable[[Value], Value], ...]
    coupled: bool

    def _peep(self, x: Value, i: int, c: Value) -> Value:
        if self.p is None:
            return x
        weight = cut(self.n, self.p, 0, i * self.hidden, self.hidden)
        return self.n.op(graph.Add, x, self.n.op(graph.Mul, weight, c))

    def step(self, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
        """x [b, 4·h] holds the products of the input with W and the biases, in the order i, o, f, c."""
        n = self.n
        total = n.op(graph.Add, x, self.r.times(h))
        i, o, f, new = (cut(n, total, 1, k * self.hidden, self.hidden) for k in range(4))
        gate, inner, outer = self.functions
        i = gate(self._peep(i, 0, c))
        f = n.op(graph.Sub, n.like(1.0, i), i) if self.coupled else gate(self._peep(f, 2, c))
        c = n.op(graph.Add, n.op(graph.Mul, f, c), n.op(graph.Mul, i, inner(new)))
        return n.op(graph.Mul, gate(self._peep(o, 1, c)), outer(c)), c


_OPS: dict[str, tuple[type[Op], tuple[str, ...]]] = {
    "relu": (graph.Relu, ()), "tanh": (graph.Tanh, ()), "sigmoid": (graph.Sigmoid, ()),
    "softsign": (graph.Softsign, ()), "softplus": (graph.Softplus, ()), "leakyrelu": (graph.LeakyRelu, ("alpha",)),
    "thresholdedrelu": (graph.ThresholdedRelu, ("alpha",)), "elu": (graph.Elu, ("alpha",)),
    "hardsigmoid": (graph.HardSigmoid, ("alpha", "beta")),
}  # fmt: skip


def _function(n: Node, name: str, alpha: float, beta: float, clip: float | None) -> Callable[[Value], Value]:
    def apply(x: Value) -> Value:
        if clip is not None:
            x = n.op(graph.Clip, x, lo=-clip, hi=clip)
        if name == "affine":
            return n.op(graph.Add, n.op(graph.Mul, x, n.like(alpha, x)), n.like(beta, x))
        if name == "scaledtanh":
            return n.op(graph.Mul, n.op(graph.Tanh, n.op(graph.Mul, x, n.like(beta, x))), n.like(alpha, x))
        op, parameters = _OPS[name]
        values = {"alpha": alpha, "beta": beta}
        return n.op(op, x, **{p: values[p] for p in parameters})

    return apply


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
        cell = _Cell(
            n, hidden, _weights(n, 2, 10, d, count, size), _part(n, n.optional(7), d),
            tuple(_functions(n, named[d])), n.flag("input_forget"),
        )  # fmt: skip
        start = tuple(_initial(n, i, d, batch, hidden) for i in (5, 6))
        backward = direction == "reverse" or d == 1
        looped = steps * count > LAID_OUT
        y, h, c = _run(cell, n.reshape(products, (steps, batch, size)), start, lengths, backward, looped)
        rows.append(n.reshape(y, (steps, 1, batch, hidden)))
        finals.append((h, c))
    y = rows[0] if count == 1 else n.op(graph.Concat, rows, axis=1)
    return [y, *(stack(n, [f[i] for f in finals]) for i in range(2))]


def _functions(n: Node, named: dict[str, Any]) -> list[Callable[[Value], Value]]:
    """What is clipped is the input of the gates and of c; the cell state is not, as in ONNX Runtime."""
    clips = (named["clip"], named["clip"], None)
    columns = zip(named["activations"], named["alpha"], named["beta"], clips, strict=True)
    return [_function(n, name, alpha, beta, clip) for name, alpha, beta, clip in columns]


def _part(n: Node, x: Value | None, d: int) -> Value | None:
    return None if x is None else row(n, x, 0, d)


def _initial(n: Node, index: int, d: int, batch: Dim, hidden: int) -> Value:
    value = _part(n, n.optional(index), d)
    return n.op(graph.Expand, n.constant(0.0, F32), shape=(batch, hidden)) if value is None else value


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


def _run(
    cell: _Cell, x: Value, start: Sequence[Value], lengths: Value | None, backward: bool, looped: bool
) -> tuple[Value, Value, Value]:
    """(y [t, b, h], the last state, the last cell state) of a direction; y is 0 beyond a sequence's length."""
    n = cell.n
    if backward:
        x = _reversed(n, x, lengths)
    # What a step multiplies is its row of y, so 0 in a sequence that has ended; the last state is kept beside it.
    state = [start[0], start[1]] if lengths is None else [start[0], start[1], start[0]]
    y, *state = (_looped if looped else _laid_out)(cell, x, state, lengths)
    return _reversed(n, y, lengths) if backward else y, state[-1] if lengths is not None else state[0], state[1]


def _held(cell: _Cell, x: Value, state: Sequence[Value], lengths: Value | None, t: Value) -> list[Value]:
    """The states after step t: h, c and, where sequences have lengths, the h of each one's last step so far."""
    n = cell.n
    h, c = cell.step(x, state[0], state[1])
    if lengths is None:
        return [h, c]
    alive = n.op(graph.Less, t, n.reshape(n.cast(lengths, I64), (*n.shape(lengths), 1)))
    return [
        n.op(graph.Where, alive, h, n.like(0.0, h)),
        n.op(graph.Where, alive, c, state[1]),
        n.op(graph.Where, alive, h, state[2]),
    ]


def _laid_out(cell: _Cell, x: Value, state: Sequence[Value], lengths: Value | None) -> list[Value]:
    n = cell.n
    out: list[Value] = []
    for t in range(known_dim(n.shape(x)[0], "the number of its steps")):
        state = _held(cell, row(n, x, 0, t), state, lengths, n.constant(t, I64))
        out.append(state[0])
    return [stack(n, out), *state]


def _looped(cell: _Cell, x: Value, state: Sequence[Value], lengths: Value | None) -> list[Value]:
    n = cell.n
    steps, batch, _ = n.shape(x)
    block = Block([graph.dense((), I64), graph.dense((), BOOL), *(v.type for v in state)])
    with n.builder.into(block):
        t, going, *inside = block.args
        after = _held(cell, n.op(graph.Gather, x, t, axis=0), inside, lengths, t)
    block.append(graph.Yield([going, *after, after[0]]))
    trip = n.constant(known_dim(steps, "the number of its steps"), I64)
    op = graph.Loop(trip, None, list(state), regions=[Region(block)], loc=n.builder.loc)
    *last, rows = n.builder.block.append(op).results
    # The loop runs all its steps, as it has no condition: their number is known.
    return [n.op(graph.Reshape, rows, shape=(steps, batch, cell.hidden)), *last]
