# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers, one direction each, on input that is already multiplied by W: LSTM, GRU and simple RNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tcc.ir.core import Value
from tcc.ir.declare import BOOLEAN, FLOAT, FLOATS, STRS, Attr, Operand, OptionalOperand, Result, register
from tcc.ir.expr import Dim, mul
from tcc.ir.graph.base import Array, GraphOp, check_equal_dim, check_length, dense, optional, present, same_dtype
from tcc.ir.graph.base import tensor_type as type_of
from tcc.ir.types import F32, I8, I16, Type
from tcc.reference.recurrent import quantized_lstm, recurrence

RECURRENT_ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "relu": (None, None),
    "tanh": (None, None),
    "sigmoid": (None, None),
    "softsign": (None, None),
    "softplus": (None, None),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
"""ONNX's activations of recurrent layers, with the default alpha and beta; None where there is no such parameter."""


class Recurrence(GraphOp):
    """Base of recurrent layers.

    x [t, b, g·h] holds, for each of the g gates in ONNX's order, the products of the input with W and all biases; r
    [g·h, h] multiplies the state of the step before. `h` [b, h] is the state before the first step (zeros without);
    `lengths` [b] (i32 or i64) the steps of each sequence: beyond them y is 0 and the states stay. `reverse` goes from
    the last step to the first. `activations` are in lower case, `alpha` and `beta` have an entry for each; what
    the gates give to theirs is clipped to ±`clip`. → y [t, b, h] and the final states [b, h].
    """

    category = "recurrence"
    kind: ClassVar[str] = ""
    gates: ClassVar[int] = 1
    functions: ClassVar[int] = 1
    x = Operand()
    r = Operand()
    h = OptionalOperand()
    lengths = OptionalOperand()
    activations = Attr(STRS)
    alpha = Attr(FLOATS)
    beta = Attr(FLOATS)
    clip = Attr(FLOAT, None)
    reverse = Attr(BOOLEAN, False)
    y = Result()
    h_n = Result()

    def infer(self) -> Sequence[Type]:
        x, r = self.operand_type(0), self.operand_type(1)
        dtype = same_dtype(self, x, r)
        if not dtype.is_float or x.rank != 3 or r.rank != 2:
            raise self.fail(f"x and r must be [t, b, gates·h] and [gates·h, h] of floats, not {x} and {r}")
        steps, batch, wide = x.shape
        hidden = r.shape[1]
        check_equal_dim(self, wide, r.shape[0], "the gates of x and r")
        check_equal_dim(self, wide, mul(hidden, self.gates), f"{self.gates} gates and r")
        state = dense((batch, hidden), dtype)
        self._check(self.h, "h", (batch, hidden))
        self._settings(batch)
        return (dense((steps, batch, hidden), dtype), state)

    def _settings(self, batch: Dim) -> None:
        """Lengths and activations must fit."""
        if self.lengths is not None:
            t = type_of(self.lengths, self)
            if t.rank != 1 or t.dtype.name not in ("i32", "i64"):
                raise self.fail(f"lengths must be i32 or i64 [b], not {t}")
            check_equal_dim(self, t.shape[0], batch, "lengths and the batch")
        for values, what in ((self.activations, "activations"), (self.alpha, "alpha"), (self.beta, "beta")):
            check_length(self, values, self.functions, what)
        for name in self.activations:
            if name not in RECURRENT_ACTIVATIONS:
                raise self.fail(f"the activation {name} is none of {', '.join(RECURRENT_ACTIVATIONS)}")

    def _check(self, value: Value | None, what: str, shape: tuple[object, ...]) -> None:
        """An optional operand must have x's element type and that shape."""
        if value is None:
            return
        t = type_of(value, self)
        same_dtype(self, self.operand_type(0), t)
        check_length(self, t.shape, len(shape), f"the shape of {what}")
        for a, b in zip(t.shape, shape, strict=True):
            check_equal_dim(self, a, b, what)  # type: ignore[arg-type]

    def _run(
        self,
        x: Array | None,
        r: Array | None,
        lengths: Array | None,
        initial: Sequence[Array | None],
        rb: Array | None = None,
        p: Array | None = None,
        variant: bool = False,
    ) -> tuple[Array, ...]:
        return recurrence(
            self.kind, present(x), present(r), rb, p, initial, lengths, activations=self.activations, alpha=self.alpha,
            beta=self.beta, clip=self.clip, reverse=self.reverse, variant=variant,
        )  # fmt: skip


@register
class Lstm(Recurrence):
    """Long short-term memory: gates i, o, f, c; `activations` are those of i, o, f; of c; and of the cell state before
    the output gate. `c` [b, h] is the cell state before the first step, `p` [3·h] the peepholes of i, o, f;
    `input_forget` makes f = 1 - i. ONNX LSTM."""

    name = "graph.lstm"
    kind = "lstm"
    gates = 4
    functions = 3
    c = OptionalOperand()
    p = OptionalOperand()
    input_forget = Attr(BOOLEAN, False)
    c_n = Result()

    def infer(self) -> Sequence[Type]:
        y, h_n = super().infer()
        batch, hidden = type_of(self.x).shape[1], type_of(self.r).shape[1]
        self._check(self.c, "c", (batch, hidden))
        self._check(self.p, "p", (mul(hidden, 3),))
        return (y, h_n, h_n)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, r, h, lengths, c, p = (optional(arrays, i) for i in range(6))
        return self._run(x, r, lengths, (h, c), p=p, variant=self.input_forget)


@register
class QuantizedLstm(Lstm):
    """An LSTM in f32, forward, whose r is of integers (i8 or i16) that count `scale` (one, or [4·h]), and whose state
    is made integers before it is multiplied: by the range that its elements have in all sequences of the step, as
    ONNX DynamicQuantizeLinear does it. A sequence that has ended multiplies zeros. com.microsoft DynamicQuantizeLSTM.
    """

    name = "graph.quantized_lstm"
    scale = Operand()

    def infer(self) -> Sequence[Type]:
        x, r, scale = self.operand_type(0), self.operand_type(1), type_of(self.scale, self)
        if x.dtype is not F32 or scale.dtype is not F32 or r.dtype not in (I8, I16) or self.reverse:
            raise self.fail(f"x and scale must be f32, r i8 or i16, and steps go forward; not {x}, {scale} and {r}")
        check_length(self, x.shape, 3, "the shape of x")
        check_length(self, r.shape, 2, "the shape of r")
        wide, hidden = x.shape[2], r.shape[1]
        check_equal_dim(self, wide, r.shape[0], "the gates of x and r")
        check_equal_dim(self, wide, mul(hidden, self.gates), f"{self.gates} gates and r")
        if scale.size != 1:
            check_length(self, scale.shape, 1, "the shape of scale")
            check_equal_dim(self, scale.shape[0], wide, "scale and the gates")
        state = dense((x.shape[1], hidden), F32)
        for value, what, shape in ((self.h, "h", state.shape), (self.c, "c", state.shape)):
            self._check(value, what, shape)
        self._check(self.p, "p", (mul(hidden, 3),))
        self._settings(x.shape[1])
        return (dense((*x.shape[:2], hidden), F32), state, state)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, r, h, lengths, c, p, scale = (optional(arrays, i) for i in range(7))
        return quantized_lstm(
            present(x), present(r), present(scale), p, (h, c), lengths, activations=self.activations, alpha=self.alpha,
            beta=self.beta, clip=self.clip, variant=self.input_forget,
        )  # fmt: skip


@register
class Gru(Recurrence):
    """Gated recurrent unit: gates z, r, h; `activations` are those of z and r, and of h. With `linear_before_reset` the
    reset gate multiplies the product of the state with its weights and `rb` [h], the bias of that product; without it
    multiplies the state before. ONNX GRU."""

    name = "graph.gru"
    kind = "gru"
    gates = 3
    functions = 2
    rb = OptionalOperand()
    linear_before_reset = Attr(BOOLEAN, False)

    def infer(self) -> Sequence[Type]:
        types = super().infer()
        self._check(self.rb, "rb", (type_of(self.r).shape[1],))
        if self.rb is not None and not self.linear_before_reset:
            raise self.fail("rb is of layers with linear_before_reset; without, it belongs to x")
        return types

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, r, h, lengths, rb = (optional(arrays, i) for i in range(5))
        return self._run(x, r, lengths, (h,), rb=rb, variant=self.linear_before_reset)


@register
class Rnn(Recurrence):
    """h = f(x + h r'). ONNX RNN."""

    name = "graph.rnn"
    kind = "rnn"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, r, h, lengths = (optional(arrays, i) for i in range(4))
        return self._run(x, r, lengths, (h,))
