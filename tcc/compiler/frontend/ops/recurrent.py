# SPDX-License-Identifier: Apache-2.0
"""ONNX LSTM, GRU and RNN: short sequences of known length unrolled, the others a host call.

The input's products with W are one matrix product for all steps; a step adds the product of its state with R.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.compiler.frontend.host import host_call
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.control import stack
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim

_UNROLL_STEPS = 64
"""Steps, over both directions, up to which a sequence is unrolled."""

_ACTIVATIONS: dict[str, type[Op]] = {
    "sigmoid": graph.Sigmoid,
    "tanh": graph.Tanh,
    "relu": graph.Relu,
    "softsign": graph.Softsign,
    "softplus": graph.Softplus,
}
"""Those without parameters; a node with others is a host call."""

State = tuple[Value, ...]
Step = Callable[["Cell", Value, State], State]


@dataclass(frozen=True)
class Cell:
    """One direction: R transposed [h, gates·h], the biases of R [gates·h] or none, peepholes [3·h] or none, and the
    activations."""

    n: Node
    hidden: int
    r: Value
    rb: Value | None
    p: Value | None
    f: tuple[type[Op], ...]

    def gate(self, x: Value, i: int, count: int = 1) -> Value:
        """Columns of gates i to i + count of x [batch, gates·h]."""
        shape = self.n.shape(x)
        starts = (0,) * (len(shape) - 1) + (i * self.hidden,)
        sizes = (*shape[:-1], count * self.hidden)
        return self.n.op(graph.Slice, x, starts=starts, sizes=sizes, steps=(1,) * len(shape))

    def act(self, i: int, x: Value) -> Value:
        return self.n.op(self.f[i], x)

    def add(self, a: Value, b: Value | None) -> Value:
        return a if b is None else self.n.op(graph.Add, a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.n.op(graph.Mul, a, b)

    def peep(self, x: Value, i: int, c: Value) -> Value:
        """x plus the i-th peephole of the cell state."""
        return x if self.p is None else self.add(x, self.mul(self.gate(self.p, i), c))


def _lstm(cell: Cell, x: Value, state: State) -> State:
    """Gates i, o, f, c; peepholes i, o, f."""
    h, c = state
    total = cell.add(cell.add(x, cell.n.op(graph.Matmul, h, cell.r)), cell.rb)
    i = cell.act(0, cell.peep(cell.gate(total, 0), 0, c))
    f = cell.act(0, cell.peep(cell.gate(total, 2), 2, c))
    c = cell.add(cell.mul(f, c), cell.mul(i, cell.act(1, cell.gate(total, 3))))
    o = cell.act(0, cell.peep(cell.gate(total, 1), 1, c))
    return cell.mul(o, cell.act(2, c)), c


def _gru(before_reset: bool) -> Step:
    """Gates z, r, h."""

    def step(cell: Cell, x: Value, state: State) -> State:
        (h,) = state
        n = cell.n
        if before_reset:
            inner = cell.add(n.op(graph.Matmul, h, cell.r), cell.rb)
            gates = cell.add(cell.gate(x, 0, 2), cell.gate(inner, 0, 2))
            z, r = cell.act(0, cell.gate(gates, 0)), cell.act(0, cell.gate(gates, 1))
            new = cell.act(1, cell.add(cell.gate(x, 2), cell.mul(r, cell.gate(inner, 2))))
        else:
            two = cell.gate(cell.r, 0, 2)
            gates = cell.add(cell.gate(x, 0, 2), n.op(graph.Matmul, h, two))
            gates = gates if cell.rb is None else cell.add(gates, cell.gate(cell.rb, 0, 2))
            z, r = cell.act(0, cell.gate(gates, 0)), cell.act(0, cell.gate(gates, 1))
            candidate = cell.add(cell.gate(x, 2), n.op(graph.Matmul, cell.mul(r, h), cell.gate(cell.r, 2)))
            new = cell.act(1, candidate if cell.rb is None else cell.add(candidate, cell.gate(cell.rb, 2)))
        return (cell.add(cell.mul(n.op(graph.Sub, n.like(1.0, z), z), new), cell.mul(z, h)),)

    return step


def _rnn(cell: Cell, x: Value, state: State) -> State:
    total = cell.add(cell.add(x, cell.n.op(graph.Matmul, state[0], cell.r)), cell.rb)
    return (cell.act(0, total),)


@onnx_op("LSTM")
def lstm(n: Node) -> Sequence[Value | None]:
    if n.flag("input_forget"):
        return host_call(n)
    return _recurrent(n, 4, _lstm, ["sigmoid", "tanh", "tanh"], 2)


@onnx_op("GRU")
def gru(n: Node) -> Sequence[Value | None]:
    return _recurrent(n, 3, _gru(n.flag("linear_before_reset")), ["sigmoid", "tanh"], 1)


@onnx_op("RNN")
def rnn(n: Node) -> Sequence[Value | None]:
    return _recurrent(n, 1, _rnn, ["tanh"], 1)


def _recurrent(n: Node, gates: int, step: Step, defaults: Sequence[str], states: int) -> Sequence[Value | None]:
    x, w, r = n.input(0), n.input(1), n.input(2)
    if not n.rank(x) == n.rank(w) == n.rank(r) == 3:
        raise InputError(f"x, W and R are {n.type(x)}, {n.type(w)} and {n.type(r)}; all must be of rank 3")
    direction = n.attr("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    hidden = n.shape(r)[2]
    if direction not in ("forward", "reverse", "bidirectional"):
        raise InputError(f"its direction is {direction}, and forward, reverse or bidirectional are the choices")
    if not isinstance(hidden, int) or n.shape(w)[:2] != (count, gates * hidden) or n.shape(r)[:2] != n.shape(w)[:2]:
        raise InputError(f"W is {n.type(w)} and R {n.type(r)}, which do not fit {count} direction(s) of {gates} gates")
    by_batch = n.attr("layout", 0) == 1
    if by_batch:
        x = n.transpose(x, (1, 0, 2))
    steps, batch, width = n.shape(x)
    names = [str(a).lower() for a in n.attr("activations", [])] or list(defaults) * count
    plain = (
        isinstance(steps, int)
        and 0 < steps * count <= _UNROLL_STEPS
        and _whole(n, steps)
        and not n.has("clip")
        and len(names) == len(defaults) * count
        and all(a in _ACTIVATIONS for a in names)
    )
    if not plain:
        return host_call(n)
    assert isinstance(steps, int)
    outputs: list[list[Value]] = []
    last: list[State] = []
    for d in range(count):
        part = names[d * len(defaults) : (d + 1) * len(defaults)]
        bias = _part(n, n.optional(3), d)
        size = gates * hidden
        wb = None if bias is None else _cut(n, bias, 0, size)
        rb = None if bias is None else _cut(n, bias, size, size)
        cell = Cell(
            n, hidden, n.transpose(_row(n, r, d), (1, 0)), rb, _part(n, n.optional(7), d) if gates == 4 else None,
            tuple(_ACTIVATIONS[a] for a in part),
        )  # fmt: skip
        flat = n.reshape(x, (steps * batch, width))
        products = n.op(graph.Matmul, flat, n.transpose(_row(n, w, d), (1, 0)))
        products = products if wb is None else n.op(graph.Add, products, wb)
        products = n.reshape(products, (steps, batch, size))
        state = tuple(_initial(n, 5 + i, d, batch, hidden, by_batch, x) for i in range(states))
        rows: list[Value] = []
        backward = direction == "reverse" or d == 1
        for t in range(steps)[:: -1 if backward else 1]:
            state = step(cell, _row(n, products, t), state)
            rows.append(state[0])
        outputs.append(rows[::-1] if backward else rows)
        last.append(state)
    finals = [stack(n, [s[i] for s in last]) for i in range(states)]
    if by_batch:
        finals = [n.transpose(v, (1, 0, 2)) for v in finals]
    if not n.uses(0):
        return [None, *finals]
    y = stack(n, [stack(n, list(each)) for each in zip(*outputs, strict=True)])
    return [n.transpose(y, (2, 0, 1, 3)) if by_batch else y, *finals]


def _whole(n: Node, steps: int) -> bool:
    """Whether every sequence is known to have all its steps."""
    lengths = n.optional(4)
    known = n.known(lengths)
    return lengths is None or (known is not None and bool((known == steps).all()))


def _row(n: Node, x: Value, index: int) -> Value:
    """x[index]."""
    shape = n.shape(x)
    starts = (index, *(0,) * (len(shape) - 1))
    row = n.op(graph.Slice, x, starts=starts, sizes=(1, *shape[1:]), steps=(1,) * len(shape))
    return n.reshape(row, shape[1:])


def _part(n: Node, x: Value | None, index: int) -> Value | None:
    return None if x is None else _row(n, x, index)


def _cut(n: Node, x: Value, start: int, size: int) -> Value:
    return n.op(graph.Slice, x, starts=(start,), sizes=(size,), steps=(1,))


def _initial(n: Node, index: int, d: int, batch: Dim, hidden: int, by_batch: bool, x: Value) -> Value:
    """The state before the first step, [batch, h]: zeros if it is not given."""
    value = n.optional(index)
    if value is None:
        return n.op(graph.Expand, n.like(0.0, x), shape=(batch, hidden))
    return _row(n, n.transpose(value, (1, 0, 2)) if by_batch else value, d)
