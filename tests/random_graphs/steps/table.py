# SPDX-License-Identifier: Apache-2.0
"""The table of steps, and how operands for them are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.random_graphs.gen import Gen, Refused, Step, dtype_named


@dataclass(frozen=True)
class Entry:
    """A step, what its operand is to be, and how often it is taken."""

    function: Step
    kinds: str
    ranks: range
    weight: int

    def fits(self, g: Gen, x: str) -> bool:
        return g.kind(x) in self.kinds and g.values[x].ndim in self.ranks


STEPS: list[Entry] = []


def step(kinds: str = "f", ranks: range = range(6), weight: int = 2) -> Callable[[Step], Step]:
    """Decorator: a step on a value of one of these kinds (f, i, b) and ranks. It returns a value or None."""

    def add(function: Step) -> Step:
        STEPS.append(Entry(function, kinds, ranks, weight))
        return function

    return add


def some_shape(g: Gen, ranks: range) -> tuple[int, ...]:
    """A small odd shape; extents of 1 are common."""
    rank = g.pick([r for r in (2, 3, 4, 1, 4, 3, 0, 5) if r in ranks] or [ranks[0]])
    most = {0: 1, 1: 40, 2: 17, 3: 9, 4: 7, 5: 4}.get(rank, 3)
    return tuple(1 if g.chance(0.2) else g.int(2, most) for _ in range(rank))


def some_dtype(g: Gen, kinds: str) -> np.dtype[Any]:
    kind = g.pick(kinds)
    if kind == "b":
        return np.dtype(bool)
    if kind == "i":
        return np.dtype(g.pick(["int64", "int32", "int64", "int32", "uint8", "int8", "int16", "uint16", "uint32",
                                "uint64"]))  # fmt: skip
    return dtype_named(g.pick(["float32"] * 7 + ["float16", "float64", "bfloat16"]))


def new(g: Gen, dtype: Any, shape: Sequence[int], low: int | None = None, high: int | None = None) -> str:
    """A new input or constant."""
    array = g.numbers(dtype, shape, low, high)
    return g.input(array) if g.depth == 0 and len(g.inputs) < 5 and g.chance(0.4) else g.const(array)


def operand(g: Gen, entry: Entry) -> str:
    """A value for a step: often a recent one, a new one where none fits."""
    fits = [v for v in g.alive if entry.fits(g, v)]
    if not fits or g.chance(0.04):
        x = new(g, some_dtype(g, entry.kinds), some_shape(g, entry.ranks))
        g.alive.append(x)
        return x
    return g.pick(fits[-3:]) if g.chance(0.7) else g.pick(fits)


def broadcastable(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(a[::-1], b[::-1]))


def partner(g: Gen, x: str, low: int | None = None, high: int | None = None) -> str:
    """Another operand that broadcasts with x, of its type."""
    s = g.shape(x)
    fits = [v for v in g.alive if g.dtype(v) == g.dtype(x) and broadcastable(g.shape(v), s)]
    if low is None and fits and g.chance(0.6):
        return g.pick(fits[-4:]) if g.chance(0.5) else g.pick(fits)
    how = g.pick(["same", "less", "scalar", "more"])
    if how == "scalar":
        shape: tuple[int, ...] = g.pick([(), (1,)])
    elif how == "same":
        shape = s
    else:
        shape = tuple(d if g.chance(0.5) else 1 for d in s)
        shape = shape[g.int(0, len(shape)) :] if how == "less" else shape
        if how == "more" and len(s) < 5 and g.chance(0.5):
            shape = (g.int(1, 3), *(g.int(1, 3) if d == 1 else d for d in shape))
    return new(g, g.dtype(x), shape, low, high)


def axis_of(g: Gen, x: str) -> int:
    """An axis of x, at times negative; Refused for scalars."""
    rank = len(g.shape(x))
    if rank == 0:
        raise Refused("a scalar has no axes")
    return g.int(-rank, rank - 1)


def to_float(g: Gen, x: str) -> str:
    """x as f32, for steps that go on with floats."""
    return g("Cast", x, to=1)


NETS = ("contraction", "nets", "normalization", "pointwise", "windows")


def menu(g: Gen) -> list[Entry]:
    """Some of the steps, by weight: graphs of few kinds of steps find what graphs of all kinds do not, and those of
    layers what a mixture of everything does not."""
    kind = g.pick(["some", "some", "some", "layers", "all"])
    layers = [e for e in STEPS if e.function.__module__.rsplit(".", 1)[-1] in NETS]
    chosen = g.subset(STEPS, 4) if kind == "some" else layers if kind == "layers" else STEPS
    return [e for e in chosen for _ in range(e.weight)]


def grow(g: Gen, entries: Sequence[Entry], size: int) -> None:
    """Add steps to the present graph until it has `size` more nodes."""
    wanted = len(g.nodes) + size
    for _ in range(3 * size + 3):
        if len(g.nodes) >= wanted:
            break
        entry = g.pick(entries)
        try:
            with g.attempt():
                if g.depth and any(v in g.varying for v in g.alive) and entry.function.__module__.endswith("dynamic"):
                    raise Refused("extents that differ between iterations")
                y = entry.function(g, operand(g, entry))
        except Refused:
            continue
        if y is not None:
            g.alive.append(y)
