# SPDX-License-Identifier: Apache-2.0
"""What a compilation is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.errors import InputError

PRECISIONS = ("f32", "tf32", "f16", "bf16")
OPT_LEVELS = (0, 1, 2, 3)
SEARCH_SECONDS = {0: 0.0, 1: 0.0, 2: 60.0, 3: 240.0}
"""The default budget of a cold search, in seconds a model."""


@dataclass(frozen=True)
class Options:
    """Options of a compilation. Those that decide what the kernels are travel with the module (`for_module`); the rest
    (budgets, files) say how the search goes about it.

    `keep_f32`: patterns of names of ONNX nodes that `precision` leaves in f32.
    `search_seconds`: wall time the search may take (None: by level; 0: no timing, the cost model or records decide).
    `records`: a records file to read and append to. `tactics`: forced choices. `lock`: where the winners are written.
    `locked`: winners to build from, without measuring. `random_seed`: a random legal config per kernel (tests).
    """

    target: str = "native"
    opt_level: int = 1
    precision: str = "f32"
    keep_f32: tuple[str, ...] = ()
    shapes: Mapping[str, Sequence[int | None]] = field(default_factory=dict[str, "Sequence[int | None]"])
    search_seconds: float | None = None
    records: Path | None = None
    tactics: Path | None = None
    lock: Path | None = None
    locked: Path | None = None
    random_seed: int | None = None

    def __post_init__(self) -> None:
        if self.opt_level not in OPT_LEVELS:
            raise InputError(f"the optimisation level is 0, 1, 2 or 3, not {self.opt_level}")
        if self.precision not in PRECISIONS:
            raise InputError(f"the precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.keep_f32 and self.precision == "f32":
            raise InputError("keep_f32 says what a lower precision leaves in f32; give a precision with it")
        if self.search_seconds is not None and not 0 <= self.search_seconds < float("inf"):
            raise InputError(f"the search may take 0 seconds or more, not {self.search_seconds:g}")

    @property
    def budget(self) -> float:
        """Seconds the search may take."""
        return SEARCH_SECONDS[self.opt_level] if self.search_seconds is None else self.search_seconds

    def for_module(self) -> dict[str, Any]:
        """The options that a module carries in its text."""
        out: dict[str, Any] = {"opt_level": self.opt_level, "precision": self.precision}
        if self.keep_f32:
            out["keep_f32"] = self.keep_f32
        if self.random_seed is not None:
            out["random_seed"] = self.random_seed
        return out

    def for_search(self) -> dict[str, Any]:
        """The options that only the search reads; they travel in the pass context."""
        return {
            "search_seconds": self.budget, "records": self.records, "tactics": self.tactics, "lock": self.lock,
            "locked": self.locked,
        }  # fmt: skip
