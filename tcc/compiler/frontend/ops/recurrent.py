# SPDX-License-Identifier: Apache-2.0
"""ONNX LSTM, GRU and RNN: the input's products with W are one matrix product for all steps and directions, and each
direction is a recurrence on its part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tcc.compiler.frontend.loops import stack
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim


@dataclass(frozen=True)
class Kind:
    """A kind of layer: its op, how many states it carries, and ONNX's default activations."""

    op: type[Op]
    gates: int
    states: int
    activations: tuple[str, ...]


LSTM = Kind(graph.Lstm, 4, 2, ("sigmoid", "tanh", "tanh"))
GRU = Kind(graph.Gru, 3, 1, ("sigmoid", "tanh"))
RNN = Kind(graph.Rnn, 1, 1, ("tanh",))


@onnx_op("LSTM")
def lstm(n: Node) -> Sequence[Value | None]:
    return _recurrent(n, LSTM)


@onnx_op("GRU")
def gru(n: Node) -> Sequence[Value | None]:
    return _recurrent(n, GRU)


@onnx_op("RNN")
def rnn(n: Node) -> Sequence[Value | None]:
    return _recurrent(n, RNN)


def _recurrent(n: Node, kind: Kind) -> Sequence[Value | None]:
    x, w, r = n.input(0), n.input(1), n.input(2)
    if not n.rank(x) == n.rank(w) == n.rank(r) == 3:
        raise InputError(f"X, W and R are {n.type(x)}, {n.type(w)} and {n.type(r)}; all must be of rank 3")
    direction = n.attr("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    hidden = n.shape(r)[2]
    if direction not in ("forward", "reverse", "bidirectional"):
        raise InputError(f"its direction is {direction}, and forward, reverse or bidirectional are the choices")
    size = kind.gates * hidden
    if not isinstance(hidden, int) or n.shape(w)[:2] != (count, size) or n.shape(r)[:2] != n.shape(w)[:2]:
        raise InputError(
            f"W is {n.type(w)} and R {n.type(r)}, which do not fit {count} direction(s) of {kind.gates} gates"
        )
    if n.attr("hidden_size", hidden) != hidden:
        raise InputError(f"its hidden_size is {n.attr('hidden_size')}, and R {n.type(r)} has {hidden} units")
    by_batch = n.attr("layout", 0) == 1
    products, inner = _projected(n, x, w, n.optional(3), kind, count, hidden)
    if by_batch:
        products = n.transpose(products, (1, 0, 2))
    steps, batch, _ = n.shape(products)
    lengths = n.optional(4)
    known = n.known(lengths)
    if known is not None and bool((known == steps).all()):
        lengths = None
    functions = activations(n, kind, count)
    rows: list[Value] = []
    finals: list[list[Value]] = []
    for d in range(count):
        backward = direction == "reverse" or d == 1
        states = [_initial(n, 5 + i, d, by_batch) for i in range(kind.states)]
        further: list[Value | None] = list(states[1:])
        attrs: dict[str, Any] = {**functions[d], "reverse": backward}
        if kind is LSTM:
            further.append(_part(n, n.optional(7), d))
            attrs["input_forget"] = n.flag("input_forget")
        if kind is GRU:
            further.append(inner[d])
            attrs["linear_before_reset"] = n.flag("linear_before_reset")
        mine = products if count == 1 else _columns(n, products, d * size, size)
        part = _part(n, r, d)
        y, *last = n.ops(kind.op, mine, part, states[0], lengths, *further, **attrs)
        rows.append(n.reshape(y, (steps, 1, batch, hidden)))
        finals.append(last)
    final = [stack(n, [f[i] for f in finals]) for i in range(kind.states)]
    if by_batch:
        final = [n.transpose(v, (1, 0, 2)) for v in final]
    if not n.uses(0):
        return [None, *final]
    y = rows[0] if count == 1 else n.op(graph.Concat, rows, axis=1)
    return [n.transpose(y, (2, 0, 1, 3)) if by_batch else y, *final]


def _projected(
    n: Node, x: Value, w: Value, bias: Value | None, kind: Kind, count: int, hidden: int
) -> tuple[Value, list[Value | None]]:
    """(x W' plus the biases, in the order of x; for each direction the bias that cannot be added before the step)."""
    size, width = kind.gates * hidden, n.shape(w)[2]
    flat = n.reshape(x, (n.shape(x)[0] * n.shape(x)[1], width))
    weights = n.transpose(n.reshape(w, (count * size, width)), (1, 0))
    products = n.op(graph.Matmul, flat, weights)
    inner: list[Value | None] = [None] * 2
    if bias is not None:
        if n.shape(bias) != (count, 2 * size):
            raise InputError(f"its biases are {n.type(bias)}, and {count} direction(s) have {2 * size} each")
        of_input, of_state = _columns(n, bias, 0, size), _columns(n, bias, size, size)
        if kind is GRU and n.flag("linear_before_reset"):
            # The reset gate multiplies the third gate's bias too.
            third = _columns(n, of_state, 2 * hidden, hidden)
            inner = [_part(n, third, d) for d in range(count)]
            zeros = n.op(graph.Expand, n.like(0.0, bias), shape=(count, hidden))
            of_state = n.op(graph.Concat, [_columns(n, of_state, 0, 2 * hidden), zeros], axis=1)
        whole = n.reshape(n.op(graph.Add, of_input, of_state), (count * size,))
        products = n.op(graph.Add, products, whole)
    return n.reshape(products, (*n.shape(x)[:2], count * size)), inner


def activations(n: Node, kind: Kind, count: int) -> list[dict[str, Any]]:
    """The attributes that name each direction's activations; alphas and betas go in order to those that take them."""
    each = len(kind.activations)
    names = [str(a).lower() for a in n.attr("activations", [])] or [*kind.activations] * count
    if len(names) != each * count:
        raise InputError(f"it has {len(names)} activations, and {count} direction(s) need {each} each")
    given = {"alpha": list(n.attr("activation_alpha", [])), "beta": list(n.attr("activation_beta", []))}
    values: dict[str, list[float]] = {"alpha": [], "beta": []}
    for name in names:
        if name not in graph.RECURRENT_ACTIVATIONS:
            choices = ", ".join(graph.RECURRENT_ACTIVATIONS)
            raise InputError(f"its activation {name} is none of {choices}")
        for key, default in zip(("alpha", "beta"), graph.RECURRENT_ACTIVATIONS[name], strict=True):
            left = given[key]
            values[key].append(0.0 if default is None else float(left.pop(0)) if left else default)
    clip = n.attr("clip", None)
    return [
        {
            "activations": tuple(names[d * each : (d + 1) * each]),
            "alpha": tuple(values["alpha"][d * each : (d + 1) * each]),
            "beta": tuple(values["beta"][d * each : (d + 1) * each]),
            "clip": None if clip is None else float(clip),
        }
        for d in range(count)
    ]


def _part(n: Node, x: Value | None, index: int) -> Value | None:
    """x[index]."""
    if x is None:
        return None
    shape = n.shape(x)
    if shape[0] != 1:
        starts = (index, *(0,) * (len(shape) - 1))
        x = n.op(graph.Slice, x, starts=starts, sizes=(1, *shape[1:]), steps=(1,) * len(shape))
    return n.reshape(x, shape[1:])


def _columns(n: Node, x: Value, start: Dim, size: Dim) -> Value:
    """Some of the last dim."""
    shape = n.shape(x)
    starts = (*[0] * (len(shape) - 1), start)
    return n.op(graph.Slice, x, starts=starts, sizes=(*shape[:-1], size), steps=(1,) * len(shape))


def _initial(n: Node, index: int, d: int, by_batch: bool) -> Value | None:
    """The state before the first step, [batch, h], if it is given."""
    value = n.optional(index)
    if value is None:
        return None
    return _part(n, n.transpose(value, (1, 0, 2)) if by_batch else value, d)
