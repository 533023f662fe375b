# SPDX-License-Identifier: Apache-2.0
"""Timing engines for the search, whatever their device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tcc.runtime.engine import Engine


class Timer(Protocol):
    """An engine made ready to be timed on its device."""

    repeats: int
    sets: int

    def sample(self) -> float:
        """Seconds for one run of the engine, over `repeats` runs on `sets` copies of its buffers."""
        ...

    def close(self) -> None:
        """Frees what the timer holds."""
        ...


def make_timer(
    engine: Engine,
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    rotate_bytes: int = 0,
    seconds: float = 2e-3,
    turns: Sequence[Mapping[str, Any]] | None = None,
) -> Timer:
    """A timer for a one-segment engine; raises FailureError for one with control flow or host calls.

    Runs rotate over copies of all buffers until `rotate_bytes` are touched; one sample takes about `seconds`. With
    `turns` (arrays by input name) runs rotate over these arrays instead, and all else stays where it is.
    """
    if engine.data.target["kind"] == "cuda":
        from tcc.runtime.cuda import timing as cuda

        return cuda.Timer(engine, inputs, rotate_bytes=rotate_bytes, seconds=seconds, turns=turns)
    from tcc.runtime.cpu import timing as cpu

    return cpu.Timer(engine, inputs, rotate_bytes=rotate_bytes, seconds=seconds, turns=turns)


def time_engine(
    engine: Engine,
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    rounds: int = 5,
    rotate_bytes: int = 0,
    seconds: float = 2e-3,
) -> list[float]:
    """Seconds for one run of an engine, `rounds` samples of it; see `make_timer`."""
    timer = make_timer(engine, inputs, rotate_bytes=rotate_bytes, seconds=seconds)
    try:
        return [timer.sample() for _ in range(rounds)]
    finally:
        timer.close()


def time_interleaved(timers: Sequence[Timer], rounds: int) -> list[list[float]]:
    """`rounds` samples of each timer, in turns and every second round in reverse, so that drift hits all alike."""
    samples: list[list[float]] = [[] for _ in timers]
    for turn in range(rounds):
        indices = range(len(timers)) if turn % 2 == 0 else range(len(timers) - 1, -1, -1)
        for index in indices:
            samples[index].append(timers[index].sample())
    return samples
