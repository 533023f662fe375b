# SPDX-License-Identifier: Apache-2.0
"""One model through the compiler at several levels, against the oracle."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import tcc
from tcc.errors import InputError
from tests.random_graphs.gen import Model
from tests.random_graphs.oracle import MORE_RUNS, Invalid, Oracle, mismatch

LEVELS = (0, 3)


@dataclass
class Outcome:
    """`verdict`: pass, wrong, refused (tcc said no to a valid model), crash, or invalid (nothing can run the model)."""

    seed: int
    verdict: str
    message: str = ""
    by: str = ""
    loose: float = 0.0
    disputes: list[str] = field(default_factory=list)
    """Outputs where ONNX Runtime differs and onnx.reference agrees with tcc."""


def check(
    model: Model, seed: int, target: str = "cpu", levels: Sequence[int] = LEVELS,
    stage: Callable[[str], object] = lambda _: None,
) -> Outcome:  # fmt: skip
    """Compare every level with the oracle. -O3 takes a random legal config for every kernel from the seed. `stage` is
    told what is about to be done."""
    oracle = Oracle(model)
    stage("oracle")
    try:
        answer = oracle.answer
    except Invalid as e:
        return Outcome(seed, "invalid", str(e))
    disputes: list[str] = []
    for level in levels:
        stage(f"-O{level}")
        random_config = {"random_seed": seed} if level == 3 else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                engine = tcc.compile(model.proto, target=target, opt_level=level, **random_config)
                got = [np.asarray(a) for a in engine(model.inputs).values()]
                engine.close()
        except InputError as e:
            return Outcome(seed, "refused", f"-O{level}: {e}", answer.by)
        except Exception as e:
            last = traceback.extract_tb(e.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            return Outcome(seed, "crash", f"-O{level}: {type(e).__name__} at {where}: {str(e)[:500]}", answer.by)
        for i, o in enumerate(model.proto.graph.output):
            why = mismatch(o.name, got[i], answer.values[i], answer.allowed[i])
            if why:
                # Places in an order of nearly equal numbers: few roundings change each.
                stage("oracle")
                answer = oracle.asked(answer.by, MORE_RUNS)
                why = mismatch(o.name, got[i], answer.values[i], answer.allowed[i])
            if why and answer.by == "onnxruntime":
                stage("arbiter")
                try:
                    other = oracle.asked("onnx.reference")
                    agreed = not mismatch(o.name, got[i], other.values[i], other.allowed[i])
                except Exception as e:  # the reference lacks something: ONNX Runtime's word stands
                    agreed, why = False, f"{why}; onnx.reference has no answer: {str(e)[:80]}"
                if agreed:
                    disputes.append(f"-O{level}: {why}")
                    why = ""
            if why:
                return Outcome(seed, "wrong", f"-O{level}: {why}", answer.by, answer.loose)
    return Outcome(seed, "pass", "", answer.by, answer.loose, disputes)
