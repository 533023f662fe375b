# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs should be, and how far off they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

from tests.random_graphs.evaluate import evaluate, session
from tests.random_graphs.gen import Array, Model
from tests.random_graphs.rewrite import NARROW, STEP, noisy, widened

RUNS, MORE_RUNS = 3, 24
"""Runs with random roundings: of every model, and of one whose results seem wrong."""


class Invalid(Exception):
    """Nothing can run the model."""


def whole(model: ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The model's outputs by ONNX Runtime."""
    return [np.asarray(a) for a in session(model).run(None, feeds)]


RUNTIMES = {"onnxruntime": whole, "onnx.reference": evaluate}


@dataclass
class Answer:
    """Outputs, and the largest error allowed of each element (inf: it hangs on roundings, and says nothing)."""

    by: str
    values: list[Array]
    allowed: list[Array]

    @property
    def loose(self) -> float:
        """The share of outputs that say little: undetermined, or allowed an error of 1% of the largest value."""
        bad = [
            np.mean(~(e <= 0.01 * max(1e-30, float(np.abs(wide(v)).max(initial=0)))))
            for v, e in zip(self.values, self.allowed, strict=True) if v.size
        ]  # fmt: skip
        return float(np.mean(bad)) if bad else 0.0


class Oracle:
    """A model's answers, made when asked for."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.types = [o.type.tensor_type.elem_type for o in model.proto.graph.output]
        self.plain = widened(model.proto)
        narrow = {i.name for i in model.proto.graph.input if i.type.tensor_type.elem_type in NARROW}
        self.feeds = {n: a.astype(np.float32) if n in narrow else a for n, a in model.inputs.items()}

    @cached_property
    def answer(self) -> Answer:
        """ONNX Runtime's answer, or onnx.reference's where it cannot run the model. Invalid if neither can."""
        said: list[str] = []
        for by in RUNTIMES:
            try:
                return self.asked(by)
            except Exception as e:  # a runtime says in its own ways that it lacks an op or a type
                said.append(f"{by}: {type(e).__name__}: {str(e)[:300]}")
        raise Invalid("; ".join(said))

    def asked(self, by: str, runs: int = RUNS) -> Answer:
        """A runtime's answer; what so many runs with random roundings change is allowed."""
        run = RUNTIMES[by]
        plain = run(self.plain, self.feeds)
        moved = [run(noisy(self.plain, seed), self.feeds) for seed in range(1, runs + 1)]
        rows = zip(self.types, plain, zip(*moved, strict=True), strict=True)
        allowed = [self._allowed(t, a, others) for t, a, others in rows]
        types = [helper.tensor_dtype_to_np_dtype(t) for t in self.types]
        return Answer(by, [a.astype(t) for a, t in zip(plain, types, strict=True)], allowed)

    @staticmethod
    def _allowed(kind: int, plain: Array, moved: Sequence[Array]) -> Array:
        if any(m.shape != plain.shape for m in moved):
            return np.full(plain.shape, np.inf)
        change = np.zeros(plain.shape)
        for m in moved:
            change = np.maximum(change, distance(m, plain))
        if kind not in STEP:
            return np.where(change > 0, np.inf, 0.0)
        size = np.abs(np.where(np.isfinite(wide(plain)), wide(plain), 0))
        # Three runs say little about one element, but its neighbours went the same way.
        common = float(change[np.isfinite(change)].mean()) if np.isfinite(change).any() else 0.0
        floor = STEP[kind] * (4 * size + size.max(initial=0) / 4) + 1e-30
        return 8 * change + 4 * common + floor


def wide(a: Array) -> Array:
    return a.astype(np.float64) if a.dtype.kind in "biufV" else a


def distance(a: Array, b: Array) -> Array:
    """|a - b|; 0 where both are the same infinity or NaN, infinite where only one is NaN."""
    x, y = wide(a), wide(b)
    with np.errstate(invalid="ignore"):
        d = np.abs(x - y)
    same = (a == b) | (np.isnan(x) & np.isnan(y))
    return np.where(same, 0.0, np.where(np.isnan(d), np.inf, d))


def mismatch(name: str, got: Any, wanted: Array, allowed: Array) -> str:
    """What is wrong with an output; "" if nothing."""
    got = np.asarray(got)
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return f"{name} is {got.dtype}{list(got.shape)}, not {wanted.dtype}{list(wanted.shape)}"
    error = distance(got, wanted)
    wrong = ~(error <= allowed)
    if not wrong.any():
        return ""
    at = tuple(int(i) for i in np.unravel_index(np.argmax(np.where(wrong, error, -1)), error.shape))
    return (
        f"{name}{list(at)} of {wanted.dtype}{list(wanted.shape)} is {got[at]}, not {wanted[at]} "
        f"(off by {error[at]:.3g}, {allowed[at]:.3g} allowed; {int(wrong.sum())} of {error.size} wrong)"
    )


def replay(proto: onnx.ModelProto, inputs: dict[str, Array]) -> Oracle:
    """The oracle of a model from a file."""
    return Oracle(Model(proto, inputs))
