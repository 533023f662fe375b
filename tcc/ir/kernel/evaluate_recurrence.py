# SPDX-License-Identifier: Apache-2.0
"""The oracle of `kernel.recurrence`: all steps and units, of all or some sequences.

Errors of a state are independent of each other to first order, so those of a sum over units add up as squares do; the
plain sum of their bounds would grow without end over the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.attributes import IndexMap
from tcc.ir.expr import evaluate as eval_expr
from tcc.ir.kernel.approx import Approx, rounding, run_region
from tcc.ir.kernel.recurrence import Recurrence

Array = np.ndarray[Any, Any]
Load = Callable[[int, dict[str, Array]], Approx]
Row = tuple[tuple[Array, ...], Approx]
"""Where some elements of a result stand (one array a dim), and what they are; flat."""

MOST_WORK = 3e9
"""Multiply-adds up to which further sequences are evaluated."""


def recurrence(op: Recurrence, extents: dict[str, int], load: Load, points: int | None, seed: int) -> list[Row]:
    """Every result at all steps and units of sequences worth `points` elements. `load(i, index)` reads operand i."""
    steps, batch, units = extents["t"], extents["b"], extents["h"]
    picked = np.arange(batch)
    if points is not None and batch > 1 and not op.quantized:
        room = MOST_WORK / max(1.0, float(steps) * units * units * extents["g"])
        count = int(min(batch, max(1, min(points // max(1, steps * units) + 1, room))))
        rng = np.random.default_rng(seed)
        picked = np.unique(np.concatenate([[batch - 1], rng.permutation(batch)[: count - 1]])).astype(np.int64)
    shape = (len(picked), units)
    here = {"b": picked.reshape(-1, 1), "h": np.arange(units, dtype=np.int64).reshape(1, -1)}
    ins = range(len(op.init), len(op.init) + len(op.ins))
    dims = {n: np.arange(extents[n], dtype=np.int64) for n in ("g", "h", "k")}
    index = {n: a.reshape([-1 if i == j else 1 for j in range(3)]) for i, (n, a) in enumerate(dims.items())}
    matrix = load(len(op.operands) - 1, index).exact.astype(np.float64)
    weights = np.broadcast_to(matrix, (extents["g"], units, extents["k"]))

    states = _whole(run_region(op.start, [load(i, here) for i in range(len(op.init))], here), shape)
    rows: list[list[Row]] = [[] for _ in op.results]
    for t in range(steps):
        at = {"t": np.full((1, 1), t, np.int64), **here}
        scalars = [load(i, at) for i in ins]
        carried: list[Approx] = []
        vector, made = states[0], list[Approx]()
        for i, stage in enumerate(op.stages):
            first = op.first_gate(i)
            scale: list[Approx] = []
            if op.quantized:
                vector, of_all = _quantized(vector)
                scale = [of_all]
            sums = [_product(vector, weights[first + j], op) for j in range(op.gates[i])] + scale
            made = _whole(run_region(stage, [*sums, *states, *carried, *scalars], at), shape)
            if i < len(op.stages) - 1:
                carried += made
                vector = made[0]
        states = made[: op.states]
        for k, value in enumerate(made[op.states :]):
            rows[k].append((_where(op.out_maps[k], at, shape), value))
    for k, value in enumerate(_whole(run_region(op.finish, states, here), shape)):
        rows[op.each_step + k].append((_where(op.out_maps[op.each_step + k], here, shape), value))
    return [_joined(r, access) for r, access in zip(rows, op.out_maps, strict=True)]


def _product(v: Approx, w: Array, op: Recurrence) -> Approx:
    """Σ_k v[b, k]·w[h, k]."""
    # Not matmul: BLAS threads that wait for each other on busy cores take far longer than these small products.
    size = np.einsum("bk,hk->bh", np.abs(v.exact), np.abs(w))
    error = size * rounding(op.acc) * 2 * np.sqrt(max(w.shape[-1], 1))
    if v.error is not None:
        error = error + np.sqrt(np.einsum("bk,hk->bh", v.error**2, w**2))
    return Approx(np.einsum("bk,hk->bh", v.exact, w), error)


def _quantized(v: Approx) -> tuple[Approx, Approx]:
    """(v as integers by its range, their scale). Where a number may be on either side of the middle of two, its integer
    may be either."""
    error = np.zeros(v.exact.shape) if v.error is None else v.error
    low, high = float(v.exact.min(initial=0.0)), float(v.exact.max(initial=0.0))
    scale = (high - low) / 255.0
    by = scale or 1.0
    # How far off the scale may be: as far as the extremes, and a few roundings.
    relative = 2.0 * float(error.max(initial=0.0)) / 255.0 / by + 2.0**-22
    start = min(max(-low / by, 0.0), 255.0)
    zero = np.rint(start)
    y = v.exact / by
    slack = error / by + (np.abs(y) + 1.0) * relative
    unsure: Array = np.where(np.abs(y - np.floor(y) - 0.5) <= slack, np.maximum(np.ceil(slack), 1.0), np.floor(slack))
    ends = (np.rint(y) + zero <= 0.0) | (np.rint(y) + zero >= 255.0)
    if abs(start - np.floor(start) - 0.5) <= 256.0 * relative:
        unsure = unsure + ends
    whole = np.clip(np.rint(y) + zero, 0.0, 255.0) - zero
    return Approx(whole, unsure), Approx(np.full((1, 1), scale), np.full((1, 1), by * relative))


def _whole(values: Sequence[Approx], shape: tuple[int, int]) -> list[Approx]:
    """The values at every sequence and unit."""
    return [
        Approx(np.broadcast_to(v.exact, shape), None if v.error is None else np.broadcast_to(v.error, shape))
        for v in values
    ]


def _where(access: IndexMap, index: dict[str, Array], shape: tuple[int, int]) -> tuple[Array, ...]:
    return tuple(np.broadcast_to(np.asarray(eval_expr(e, index)), shape).ravel() for e in access.results)


def _joined(rows: Sequence[Row], access: IndexMap) -> Row:
    if not rows:
        empty = np.zeros(0, np.int64)
        return tuple(empty for _ in access.results), Approx(np.zeros(0), np.zeros(0))
    where = tuple(np.concatenate([r[0][d] for r in rows]) for d in range(len(access.results)))
    exact = np.concatenate([r[1].exact.ravel() for r in rows])
    errors = [np.zeros(r[1].exact.size) if r[1].error is None else r[1].error.ravel() for r in rows]
    return where, Approx(exact, np.concatenate(errors))
