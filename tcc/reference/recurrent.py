# SPDX-License-Identifier: Apache-2.0
"""RNN, GRU and LSTM: every direction, layout, activation, clip and sequence length. Time is the only Python loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, widen
from tcc.reference.activation import logistic
from tcc.reference.quantize import dynamic_quantize_linear

Activation = Callable[[Array], Array]

# Default alpha and beta; None where the function has no such parameter.
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
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


def _activation(name: str, alpha: float, beta: float) -> Activation:
    table: dict[str, Activation] = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "sigmoid": logistic,
        "softsign": lambda x: x / (1 + np.abs(x)),
        "softplus": lambda x: np.logaddexp(x, 0, dtype=x.dtype),
        "affine": lambda x: alpha * x + beta,
        "leakyrelu": lambda x: np.where(x < 0, alpha * x, x),
        "thresholdedrelu": lambda x: np.where(x >= alpha, x, 0),
        "scaledtanh": lambda x: alpha * np.tanh(beta * x),
        "hardsigmoid": lambda x: np.clip(alpha * x + beta, 0, 1),
        "elu": lambda x: np.where(x < 0, alpha * np.expm1(x), x),
    }
    return table[name]


def _activations(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None, clip: float | None
) -> list[Activation]:
    """The named functions, alphas and betas consumed in order by the functions that take them, inputs clipped."""
    alpha_values, beta_values = list(alphas or ()), list(betas or ())
    result: list[Activation] = []
    for name in names:
        key = name.lower()
        if key not in _PARAMETERS:
            raise ValueError(f"activation '{name}' is not one of ONNX's recurrent activations.")
        alpha, beta = _PARAMETERS[key]
        if alpha is not None and alpha_values:
            alpha = alpha_values.pop(0)
        if beta is not None and beta_values:
            beta = beta_values.pop(0)
        f = _activation(key, alpha or 0.0, beta or 0.0)
        result.append(f if clip is None else _clipped(f, clip))
    return result


def _clipped(f: Activation, limit: float) -> Activation:
    return lambda x: f(np.clip(x, -limit, limit))


@dataclass(frozen=True)
class _Cell:
    """One direction's parameters, wide: R [g h, h], Rb [g h], P [3 h], activations, and `out`: the last of them,
    unclipped, for the cell state of an LSTM."""

    r: Array
    rb: Array
    p: Array
    f: list[Activation]
    out: Activation
    hidden: int


Step = Callable[[_Cell, Array, tuple[Array, ...]], tuple[Array, ...]]


def _run(
    step: Step, cell: _Cell, gates: Array, lens: Array | None, states: tuple[Array, ...], reverse: bool
) -> tuple[Array, tuple[Array, ...]]:
    """Y [t, b, h] and the final states of gates [t, b, g h], the input's products with W and their biases; past a
    sequence's length the output is 0 and the states stay."""
    steps, batch = gates.shape[:2]
    y = np.zeros((steps, batch, cell.hidden), gates.dtype)
    for t in reversed(range(steps)) if reverse else range(steps):
        new = step(cell, gates[t], states)
        if lens is None:
            states = new
            y[t] = new[0]
        else:
            # A reversed sequence starts at its own last element, so the same mask serves both directions.
            live = (t < lens)[:, None]
            states = tuple(np.where(live, n, o) for n, o in zip(new, states, strict=True))
            y[t] = np.where(live, new[0], 0)
    return y, states


def _recurrent(
    step: Step,
    gates: int,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    sequence_lens: Array | None,
    initial: tuple[Array | None, ...],
    p: Array | None,
    names: Sequence[str],
    *,
    direction: str,
    layout: int,
    hidden_size: int | None,
    activations: Sequence[str] | None,
    activation_alpha: Sequence[float] | None,
    activation_beta: Sequence[float] | None,
    clip: float | None,
) -> tuple[Array, ...]:
    """All directions of one recurrence: (Y, final states ..) in the asked layout."""
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"direction '{direction}' is none of forward, reverse, bidirectional.")
    dtype = np.asarray(x).dtype
    count = 2 if direction == "bidirectional" else 1
    hidden = np.shape(r)[-1]
    if hidden_size is not None and hidden_size != hidden:
        raise ValueError(f"hidden_size {hidden_size} disagrees with R of shape {list(np.shape(r))}.")
    if np.shape(w)[0] != count or np.shape(w)[1] != gates * hidden:
        raise ValueError(f"W of shape {list(np.shape(w))} where [{count}, {gates * hidden}, ..] is needed.")
    chosen = list(activations) if activations else list(names) * count
    if len(chosen) != len(names) * count:
        raise ValueError(f"{len(chosen)} activations where {len(names) * count} are needed.")
    functions = _activations(chosen, activation_alpha, activation_beta, clip)
    plain = _activations(chosen, activation_alpha, activation_beta, None)
    wide = widen(x)
    wide = wide.swapaxes(0, 1) if layout else wide
    batch = wide.shape[1]
    lens = None if sequence_lens is None else np.asarray(sequence_lens)
    starts = [np.zeros((count, batch, hidden), wide.dtype) if s is None else widen(s) for s in initial]
    if layout:
        starts = [s if i is None else s.swapaxes(0, 1) for s, i in zip(starts, initial, strict=True)]
    bias = np.zeros((count, 2 * gates * hidden), wide.dtype) if b is None else widen(b)
    peep = np.zeros((count, 3 * hidden), wide.dtype) if p is None else widen(p)
    ys: list[Array] = []
    finals: list[tuple[Array, ...]] = []
    for d in range(count):
        wb, rb = np.split(bias[d], 2)
        f = functions[d * len(names) : (d + 1) * len(names)]
        cell = _Cell(widen(r)[d], rb, peep[d], f, plain[(d + 1) * len(names) - 1], hidden)
        products = wide.reshape(wide.shape[0] * batch, -1) @ widen(w)[d].T + wb
        products = products.reshape(wide.shape[0], batch, gates * hidden)
        y, final = _run(step, cell, products, lens, tuple(s[d] for s in starts), direction == "reverse" or d == 1)
        ys.append(y)
        finals.append(final)
    stacked = np.stack(ys, axis=1)
    states = [np.stack(s) for s in zip(*finals, strict=True)]
    if layout:
        stacked, states = stacked.transpose(2, 0, 1, 3), [s.swapaxes(0, 1) for s in states]
    return tuple(narrow(v, dtype) for v in (stacked, *states))


def _rnn_step(cell: _Cell, xw: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
    (h,) = states
    return (cell.f[0](xw + h @ cell.r.T + cell.rb),)


@ieee
def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    hidden_size: int | None = None,
    direction: str = "forward",
    layout: int = 0,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
) -> tuple[Array, Array]:
    """Ht = f(Xt W' + Ht-1 R' + Wb + Rb): (Y, Y_h). ONNX RNN.

    layout 0: X [t, b, i], Y [t, directions, b, h], states [directions, b, h]; layout 1 has the batch first.
    """
    y, h = _recurrent(
        _rnn_step,
        1,
        x,
        w,
        r,
        b,
        sequence_lens,
        (initial_h,),
        None,
        ["Tanh"],
        direction=direction,
        layout=layout,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
    )
    return y, h


def _gru_step(linear_before_reset: int) -> Step:
    def step(cell: _Cell, xw: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        (h,) = states
        n = cell.hidden
        f, g = cell.f
        hr = h @ cell.r[: 2 * n].T + cell.rb[: 2 * n]
        z, reset = f(xw[:, :n] + hr[:, :n]), f(xw[:, n : 2 * n] + hr[:, n:])
        rh, rb = cell.r[2 * n :], cell.rb[2 * n :]
        linear = reset * (h @ rh.T + rb) if linear_before_reset else (reset * h) @ rh.T + rb
        candidate = g(xw[:, 2 * n :] + linear)
        return ((1 - z) * candidate + z * h,)

    return step


@ieee
def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    hidden_size: int | None = None,
    direction: str = "forward",
    layout: int = 0,
    linear_before_reset: int = 0,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
) -> tuple[Array, Array]:
    """Gated recurrent unit, gates in the order z, r, h: (Y, Y_h), shapes as in rnn. ONNX GRU."""
    y, h = _recurrent(
        _gru_step(linear_before_reset),
        3,
        x,
        w,
        r,
        b,
        sequence_lens,
        (initial_h,),
        None,
        ["Sigmoid", "Tanh"],
        direction=direction,
        layout=layout,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
    )
    return y, h


def _lstm_step(input_forget: int) -> Step:
    def step(cell: _Cell, xw: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        h, c = states
        f, g, _ = cell.f
        i, o, forget, candidate = np.split(xw + h @ cell.r.T + cell.rb, 4, axis=1)
        pi, po, pf = np.split(cell.p, 3)
        i = f(i + pi * c)
        forget = 1 - i if input_forget else f(forget + pf * c)
        c = forget * c + i * g(candidate)
        o = f(o + po * c)
        return o * cell.out(c), c

    return step


@ieee
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    hidden_size: int | None = None,
    direction: str = "forward",
    layout: int = 0,
    input_forget: int = 0,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
) -> tuple[Any, Any, Any]:
    """Long short-term memory, gates in the order i, o, f, c, peepholes i, o, f: (Y, Y_h, Y_c), shapes as in rnn.

    input_forget couples the gates as f = 1 - i. clip bounds the gates before their activations, and not the cell state
    before its own, as in ONNX Runtime. ONNX LSTM.
    """
    y, h, c = _recurrent(
        _lstm_step(input_forget),
        4,
        x,
        w,
        r,
        b,
        sequence_lens,
        (initial_h, initial_c),
        p,
        ["Sigmoid", "Tanh", "Tanh"],
        direction=direction,
        layout=layout,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
    )
    return y, h, c


@ieee
def recurrence(
    kind: str,
    x: Array,
    r: Array,
    rb: Array | None = None,
    p: Array | None = None,
    initial: Sequence[Array | None] = (),
    lengths: Array | None = None,
    *,
    activations: Sequence[str],
    alpha: Sequence[float],
    beta: Sequence[float],
    clip: float | None = None,
    reverse: bool = False,
    variant: bool = False,
) -> tuple[Array, ...]:
    """One direction of "lstm", "gru" or "rnn" on projected input: (Y [t, b, h], final states [b, h] ..).

    x [t, b, g h] holds the input's products with W and all biases, but rb [h], that of the GRU's third gate. `alpha`
    and `beta` have an entry for each activation; `variant` is input_forget of an LSTM, linear_before_reset of a GRU.
    """
    dtype, hidden = np.asarray(x).dtype, np.shape(r)[-1]
    wide = widen(x)
    gates = wide.shape[-1] // hidden
    biases = np.zeros(gates * hidden, wide.dtype)
    if rb is not None:
        biases[-hidden:] = widen(rb)
    peep = np.zeros(3 * hidden, wide.dtype) if p is None else widen(p)
    plain = [_activation(n.lower(), a, b) for n, a, b in zip(activations, alpha, beta, strict=True)]
    functions = plain if clip is None else [_clipped(f, clip) for f in plain]
    step = {"lstm": _lstm_step, "gru": _gru_step, "rnn": lambda _: _rnn_step}[kind](int(variant))
    count = 2 if kind == "lstm" else 1
    states = [None] * count if not initial else list(initial)
    zero = np.zeros((wide.shape[1], hidden), wide.dtype)
    starts = tuple(zero if s is None else widen(s) for s in states)
    cell = _Cell(widen(r), biases, peep, functions, plain[-1], hidden)
    y, final = _run(step, cell, wide, None if lengths is None else np.asarray(lengths), starts, reverse)
    return tuple(narrow(v, dtype) for v in (y, *final))


@ieee
def quantized_lstm(
    x: Array,
    r: Array,
    scale: Array,
    p: Array | None = None,
    initial: Sequence[Array | None] = (None, None),
    lengths: Array | None = None,
    *,
    activations: Sequence[str],
    alpha: Sequence[float],
    beta: Sequence[float],
    clip: float | None = None,
    variant: bool = False,
) -> tuple[Array, ...]:
    """An LSTM on projected input x [t, b, 4 h] in float32 whose state is quantized before it is multiplied, by the
    range of all its elements: (Y [t, b, h], final h and c [b, h]).

    r [4 h, h] holds integers, `scale` (one, or [4 h]) what they count. A sequence that has ended gives zeros, and these
    are what is quantized. com.microsoft DynamicQuantizeLSTM.
    """
    x = widen(x)
    kind = x.dtype.type
    steps, batch = x.shape[:2]
    hidden = np.shape(r)[-1]
    plain = [_activation(n.lower(), a, b) for n, a, b in zip(activations, alpha, beta, strict=True)]
    functions = plain if clip is None else [_clipped(f, clip) for f in plain]
    peep = np.zeros(3 * hidden, kind) if p is None else p
    cell = _Cell(np.zeros((4 * hidden, hidden), kind), np.zeros(4 * hidden, kind), peep, functions, plain[-1], hidden)
    step, lens = _lstm_step(int(variant)), None if lengths is None else np.asarray(lengths)
    h, c = (np.zeros((batch, hidden), kind) if s is None else s for s in initial)
    kept, y = h, np.zeros((steps, batch, hidden), kind)
    for t in range(steps):
        q, state_scale, zero = dynamic_quantize_linear(h)
        products = (q.astype(np.int64) - int(zero)) @ r.astype(np.int64).T
        gates = x[t] + products.astype(kind) * (state_scale * scale)
        new, cells = step(cell, gates, (h, c))
        live = np.ones((batch, 1), bool) if lens is None else (t < lens)[:, None]
        h, c, kept = np.where(live, new, kind(0)), np.where(live, cells, c), np.where(live, new, kept)
        y[t] = h
    return y, kept, c
