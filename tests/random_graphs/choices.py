# SPDX-License-Identifier: Apache-2.0
"""Where a random graph's choices come from: a seed, or hypothesis, which shrinks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]


class Choices(Protocol):
    """Integers in [low, high]; everything else is made of them. Smaller is simpler."""

    def integer(self, low: int, high: int) -> int: ...


class Seeded:
    """The choices of a seed: the same in every run."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))


class Drawn:
    """The choices of hypothesis' `draw`."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return low if low == high else int(self._draw(st.integers(low, high)))


class Random:
    """The choices that graphs are made of."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._values = np.random.default_rng(choices.integer(0, 2**20))

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self._choices.integer(0, len(items) - 1)]

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self._choices.integer(0, 99) >= 100 - round(100 * p)

    def int(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return self._choices.integer(low, high)

    def ints(self, low: int, high: int, count: int) -> list[int]:
        """`count` integers in [low, high]."""
        return [self._choices.integer(low, high) for _ in range(count)]

    def permutation(self, count: int) -> list[int]:
        left = list(range(count))
        return [left.pop(self._choices.integer(0, len(left) - 1)) for _ in range(count)]

    def subset(self, items: Sequence[Any], least: int = 0) -> list[Any]:
        """Some items in their order, at least `least`."""
        kept = [self.chance(0.5) for _ in items]
        for i in self.permutation(len(items)) if sum(kept) < least else []:
            kept[i] = kept[i] or sum(kept) < least
        return [item for item, k in zip(items, kept, strict=True) if k]

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Normal numbers in f32; they are no choices, so they do not shrink."""
        return (self._values.standard_normal(shape) * scale).astype(np.float32)

    def numbers(self, dtype: Any, shape: Sequence[int], low: int | None = None, high: int | None = None) -> Array:
        """Values of a type. Floats: normal, or halves in [-4, 4], which tie; integers in [low, high], or small."""
        dtype = np.dtype(dtype)
        if dtype == np.bool_:
            return self._values.random(shape) < 0.5
        if dtype.kind in "iu":
            least = 0 if dtype.kind == "u" else -8
            low, high = least if low is None else low, 8 if high is None else high
            return np.asarray(self._values.integers(low, high + 1, shape)).astype(dtype)
        if self.chance(0.2):
            return np.asarray(self._values.integers(-8, 9, shape) / 2).astype(dtype)
        return np.asarray(self._values.standard_normal(shape)).astype(dtype)
