# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: the gates' arithmetic as scalar regions of `kernel.recurrence`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from tcc.errors import InputError
from tcc.ir import math
from tcc.ir.attributes import Domain
from tcc.ir.core import Region, Value
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Sym, add, mul
from tcc.ir.graph import Gru, Lstm, QuantizedLstm
from tcc.ir.graph.base import tensor_type
from tcc.ir.graph.recurrent import Recurrence
from tcc.ir.kernel import Recurrence as KernelRecurrence
from tcc.ir.types import I64, ScalarType
from tcc.passes.lower.group import Group, Made, accumulator, lowers
from tcc.passes.lower.scalarize import Accesses, Scalarizer
from tcc.passes.lower.scalars import Scalars, compute_dtype, softplus

Activation = Callable[[Scalars, Value, float, float], Value]

_ACTIVATIONS: dict[str, Activation] = {
    "relu": lambda s, x, a, b: s.max(x, s.like(0, x)),
    "tanh": lambda s, x, a, b: s.fn(math.Tanh, x),
    "sigmoid": lambda s, x, a, b: s.fn(math.Sigmoid, x),
    "softsign": lambda s, x, a, b: s.div(x, s.add(s.like(1, x), s.fn(math.Abs, x))),
    "softplus": lambda s, x, a, b: softplus(s, x),
    "affine": lambda s, x, a, b: s.add(s.mul(x, s.like(a, x)), s.like(b, x)),
    "leakyrelu": lambda s, x, a, b: s.select(s.cmp("lt", x, s.like(0, x)), s.mul(x, s.like(a, x)), x),
    "thresholdedrelu": lambda s, x, a, b: s.select(s.cmp("ge", x, s.like(a, x)), x, s.like(0, x)),
    "scaledtanh": lambda s, x, a, b: s.mul(s.fn(math.Tanh, s.mul(x, s.like(b, x))), s.like(a, x)),
    "hardsigmoid": lambda s, x, a, b: s.min(
        s.max(s.add(s.mul(x, s.like(a, x)), s.like(b, x)), s.like(0, x)), s.like(1, x)
    ),
    "elu": lambda s, x, a, b: s.select(
        s.cmp("lt", x, s.like(0, x)), s.mul(s.fn(math.Expm1, x), s.like(a, x)), x
    ),
}  # fmt: skip


class _Layer:
    """One layer being lowered: its domain, and what its regions read."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.op = cast(Recurrence, group.anchor)
        self.wanted = [r in group.outputs for r in self.op.results]
        """Which of y and the final states the kernel gives."""
        if group.outputs != tuple(r for r in self.op.results if r in group.outputs):
            raise IRError(f"{self.op.name} at {self.op.loc}: its kernel gives its own results and nothing else")
        x, r = tensor_type(self.op.x), tensor_type(self.op.r)
        self.hidden: Dim = r.shape[1]
        steps, batch = x.shape[0], x.shape[1]
        self.domain = Domain(
            (("t", steps), ("b", batch), ("h", self.hidden)), (("g", self.op.gates), ("k", self.hidden))
        )
        self.t: Dim = add(add(steps, -1), mul(Sym("t"), -1)) if self.op.reverse else Sym("t")
        self.dtype = x.dtype
        self.acc = accumulator(x.dtype)
        self.init, self.ins = Accesses(), Accesses()
        self.kept: tuple[int, ...] | None = None
        """Which states are the final ones; None: all."""

    def begin(self, accesses: Accesses, count: int, fixed: bool) -> tuple[Scalarizer, list[Value]]:
        """A region that takes `count` values before the scalars of `accesses`. The second time, when all of these are
        known (`fixed`), they become arguments at once."""
        s = Scalarizer(self.domain, self.group.outer, accesses, [ScalarType(self.acc)] * count)
        if fixed and accesses.values:
            s.arg(len(accesses.values) - 1)
        return s, list(s.leading)

    # Scalars.

    def read(self, s: Scalarizer, value: Value, index: tuple[Dim, ...]) -> Value:
        return s.s.cast(s.value(value, index), self.acc)

    def gate(self, s: Scalarizer, i: int) -> Value:
        """What x holds for gate i."""
        return self.read(s, self.op.x, (self.t, Sym("b"), add(mul(self.hidden, i), Sym("h"))))

    def act(self, s: Scalarizer, i: int, x: Value, clipped: bool = True) -> Value:
        op, clip = self.op, cast("float | None", self.op.clip)
        if clip is not None and clipped:
            x = s.s.min(s.s.max(x, s.s.like(-clip, x)), s.s.like(clip, x))
        return _ACTIVATIONS[op.activations[i]](s.s, x, op.alpha[i], op.beta[i])

    def peep(self, s: Scalarizer, x: Value, i: int, c: Value) -> Value:
        """x plus the i-th peephole of the cell state."""
        p = cast(Lstm, self.op).p
        if p is None:
            return x
        return s.s.add(x, s.s.mul(self.read(s, p, (add(mul(self.hidden, i), Sym("h")),)), c))

    # Regions.

    def start(self, fixed: bool) -> Region:
        """The states before the first step."""
        s, _ = self.begin(self.init, 0, fixed)
        given = [self.op.h, *([self.op.c] if isinstance(self.op, Lstm) else [])]
        index = (Sym("b"), Sym("h"))
        if isinstance(self.op, QuantizedLstm) and self.op.lengths is not None:
            given.append(self.op.h)
        values = [s.s.const(0, self.acc) if v is None else self.read(s, v, index) for v in given]
        return s.region(values, [self.acc] * len(values))

    def finish(self, count: int) -> Region:
        """The states that are results."""
        s, states = self.begin(Accesses(), count, False)
        final = states if self.kept is None else [states[i] for i in self.kept]
        wanted = [v for v, w in zip(final, self.wanted[1:], strict=True) if w]
        return s.region([s.s.cast(v, compute_dtype(self.dtype)) for v in wanted], [self.dtype] * len(wanted))

    def last(self, s: Scalarizer, old: Sequence[Value], new: Sequence[Value]) -> Region:
        """The end of a step: the new states, and the first of them as the result; past a sequence's end the states
        stay, and the result is 0."""
        y = new[0]
        if self.op.lengths is not None:
            length = s.s.cast(s.value(self.op.lengths, (Sym("b"),)), I64)
            live = s.s.cmp("lt", s.expr(self.t), length)
            y = s.s.select(live, y, s.s.like(0, y))
            new = [s.s.select(live, n, o) for n, o in zip(new, old, strict=True)]
        if not self.wanted[0]:
            return s.region(new, [self.acc] * len(new))
        y = s.s.cast(y, compute_dtype(self.dtype))
        return s.region([*new, y], [*[self.acc] * len(new), self.dtype])

    def made(self, gates: tuple[int, ...], stages: Callable[[bool], list[Region]], states: int) -> Made:
        """The kernel; `stages(fixed)` makes the stages' regions."""
        self.start(False)
        stages(False)
        weights = Accesses()
        finder = Scalarizer(self.domain, self.group.outer, weights)
        index = (add(mul(Sym("g"), self.hidden), Sym("h")), Sym("k"))
        source, access = finder.trace(self.op.r, index)
        weights.find(self.group.outer.get(source, source), access)
        regions = [self.start(True), self.finish(states), *stages(True)]
        final = (Sym("b"), Sym("h"))
        places = [(self.t, *final), *[final] * (len(self.wanted) - 1)]
        return self.group.finish(
            self.domain,
            [self.init, self.ins, weights],
            [p for p, w in zip(places, self.wanted, strict=True) if w],
            lambda fields, maps, out_maps, types: KernelRecurrence(
                fields[0], fields[1], fields[2][0], domain=self.domain, maps=maps, out_maps=out_maps, gates=gates,
                quantized=isinstance(self.op, QuantizedLstm), acc=self.acc, allow=self.group.allow, regions=regions,
                result_types=types,
            ),
        )  # fmt: skip


@lowers("lstm")
def lower_lstm(group: Group) -> Made:
    """Hochreiter & Schmidhuber, 1997; peepholes: Gers & Schmidhuber, 2000."""
    layer = _Layer(group)

    def stages(fixed: bool) -> list[Region]:
        s, given = layer.begin(layer.ins, 4 + 2, fixed)
        *sums, h, c = given
        return [layer.last(s, [h, c], _cell(layer, s, sums, c))]

    return layer.made((4,), stages, 2)


def _cell(layer: _Layer, s: Scalarizer, sums: Sequence[Value], c: Value) -> list[Value]:
    """The new state and cell state of an LSTM."""
    op = cast(Lstm, layer.op)
    i, o, f, g = (s.s.add(layer.gate(s, n), sums[n]) for n in range(4))
    i = layer.act(s, 0, layer.peep(s, i, 0, c))
    f = s.s.sub(s.s.like(1, i), i) if op.input_forget else layer.act(s, 0, layer.peep(s, f, 2, c))
    cell = s.s.add(s.s.mul(f, c), s.s.mul(i, layer.act(s, 1, g)))
    o = layer.act(s, 0, layer.peep(s, o, 1, cell))
    return [s.s.mul(o, layer.act(s, 2, cell, clipped=False)), cell]


@lowers("quantized_lstm")
def lower_quantized_lstm(group: Group) -> Made:
    """Sums of integers, scaled. Where sequences have lengths, what the next step multiplies is 0 past them, and a third
    state keeps the last one."""
    layer = _Layer(group)
    op = cast(QuantizedLstm, layer.op)
    if not isinstance(tensor_type(op.x).shape[1], int):
        raise InputError(
            f'{op.name} at "{", ".join(op.loc)}" quantizes {tensor_type(op.x).shape[1]} sequences together, and data '
            "decide how many that is; give the model an input of a known extent there"
        )
    single = tensor_type(op.scale).size == 1
    masked = op.lengths is not None
    layer.kept = (2, 1) if masked else None
    states = 3 if masked else 2

    def stages(fixed: bool) -> list[Region]:
        s, given = layer.begin(layer.ins, 4 + 1 + states, fixed)
        sums, scale, old = given[:4], given[4], given[5:]
        for n in range(4):
            index = (0,) * tensor_type(op.scale).rank if single else (add(mul(layer.hidden, n), Sym("h")),)
            sums[n] = s.s.mul(sums[n], s.s.mul(scale, layer.read(s, op.scale, index)))
        new = _cell(layer, s, sums, old[1])
        if op.lengths is not None:
            length = s.s.cast(s.value(op.lengths, (Sym("b"),)), I64)
            live = s.s.cmp("lt", s.expr(layer.t), length)
            h, c = new
            new = [s.s.select(live, a, b) for a, b in ((h, s.s.like(0, h)), (c, old[1]), (h, old[2]))]
        out = [s.s.cast(new[0], compute_dtype(layer.dtype))] if layer.wanted[0] else []
        return [s.region([*new, *out], [*[layer.acc] * states, *[layer.dtype] * len(out)])]

    return layer.made((4,), stages, states)


@lowers("gru")
def lower_gru(group: Group) -> Made:
    """Cho et al., 2014. Without linear_before_reset the reset gate multiplies the state before its product with the
    weights of the third gate: a second stage."""
    layer = _Layer(group)
    op = cast(Gru, layer.op)

    def mixed(s: Scalarizer, z: Value, new: Value, h: Value) -> Value:
        return s.s.add(s.s.mul(s.s.sub(s.s.like(1, z), z), new), s.s.mul(z, h))

    def one(fixed: bool) -> list[Region]:
        s, given = layer.begin(layer.ins, 3 + 1, fixed)
        *sums, h = given
        z, r = (layer.act(s, 0, s.s.add(layer.gate(s, n), sums[n])) for n in range(2))
        inner = sums[2] if op.rb is None else s.s.add(sums[2], layer.read(s, op.rb, (Sym("h"),)))
        new = layer.act(s, 1, s.s.add(layer.gate(s, 2), s.s.mul(r, inner)))
        return [layer.last(s, [h], [mixed(s, z, new, h)])]

    def two(fixed: bool) -> list[Region]:
        s, given = layer.begin(layer.ins, 2 + 1, fixed)
        z, r = (layer.act(s, 0, s.s.add(layer.gate(s, n), given[n])) for n in range(2))
        first = s.region([s.s.mul(r, given[2]), z], [layer.acc] * 2)
        s, given = layer.begin(layer.ins, 1 + 1 + 2, fixed)
        total, h, _, z = given
        new = layer.act(s, 1, s.s.add(layer.gate(s, 2), total))
        return [first, layer.last(s, [h], [mixed(s, z, new, h)])]

    return layer.made((3,), one, 1) if op.linear_before_reset else layer.made((2, 1), two, 1)


@lowers("rnn")
def lower_rnn(group: Group) -> Made:
    """Elman, 1990."""
    layer = _Layer(group)

    def stages(fixed: bool) -> list[Region]:
        s, given = layer.begin(layer.ins, 1 + 1, fixed)
        new = layer.act(s, 0, s.s.add(layer.gate(s, 0), given[0]))
        return [layer.last(s, [given[1]], [new])]

    return layer.made((1,), stages, 1)
