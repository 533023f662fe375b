# SPDX-License-Identifier: Apache-2.0
"""Random models through the whole compiler against ONNX Runtime: default kernels and random legal configs.

A failing seed N is `random_model(N)`; `python -m tests.compiler.test_random_models FIRST LAST` tries a range.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort
import pytest

import tcc
from tests.compiler.random_models import Model, random_model


def reference(model: Model, level: ort.GraphOptimizationLevel) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    session = ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(a) for a in session.run(None, model.inputs)]


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|; 0 where both are the same infinity or NaN, infinite where only one is NaN."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        d = np.abs(a - b)
    d[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    return np.where(np.isnan(d), np.inf, d)


def check(model: Model, seed: int, level: int) -> None:
    """Compile and compare: errors up to 1e-4 of the largest value, or 3 times what ONNX Runtime's own levels differ."""
    options = {"opt_level": level, **({"random_seed": seed} if level == 3 else {})}
    engine = tcc.compile(model.proto, target="cpu", **options)
    got = engine(model.inputs)
    plain = reference(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    own = reference(model, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    for o, a, b in zip(model.proto.graph.output, plain, own, strict=True):
        mine = got[o.name]
        assert (mine.dtype, mine.shape) == (a.dtype, a.shape), o.name
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(mine, a, o.name)
            continue
        finite = np.abs(a[np.isfinite(a)].astype(np.float64))
        allowed = max(1e-4 * finite.max(initial=0.0), 3 * distance(b, a).max(initial=0.0), 1e-6)
        error = distance(mine, a).max(initial=0.0)
        assert error <= allowed, f"seed {seed} -O{level}: {o.name} is off by {error:.3g}, {allowed:.3g} is allowed"


@pytest.mark.parametrize("seed", range(40))
def test_random_models(seed: int) -> None:
    check(random_model(seed), seed, (1, 3, 1, 0)[seed // 2 % 4])


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        for each in (0, 1, 3):
            try:
                check(random_model(number), number, each)
            except Exception as e:
                print(f"seed {number} -O{each}: {type(e).__name__}: {e}", flush=True)
