# SPDX-License-Identifier: Apache-2.0
"""Mixed precision by measurement: how much of a network must stay in f32 for its outputs to hold an accuracy.

Rounding near the inputs is what the layers after it amplify, so the products (convolutions, matrix products,
attention) are kept in f32 from the front, with what stands between them, as few as the accuracy allows. Bisection finds
their number with one engine a step; the inputs are the caller's, since noise would not excite what real data does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import escape
from typing import Any

import numpy as np

from tcc.compiler.driver import compile_model, import_model
from tcc.compiler.engine_writer import to_bytes
from tcc.compiler.options import Options
from tcc.compiler.targets import resolve_target
from tcc.errors import InputError
from tcc.ir.rewriter import Decisions
from tcc.passes.base import PassContext
from tcc.passes.graph.precision import PRODUCTS
from tcc.runtime import load

Arrays = Mapping[str, np.ndarray[Any, Any]]

PERCENTILE = 99.9
"""The error held is this percentile of |difference|: a share of one in a thousand elements may be worse."""


def hold_accuracy(
    source: Any, options: Options, accuracy: float, calibration: Sequence[Arrays], decisions: Decisions
) -> Options:
    """The options with the fewest leading products in `keep_f32` for which every float output holds `accuracy`: the
    99.9th percentile of its error, relative to its largest f32 value, is at most that on each calibration input.

    Measured at -O1 on the target where this machine has it, else on its CPU, which rounds at the same places.
    """
    if options.precision == "f32":
        raise InputError("an accuracy is held by leaving nodes in f32; give a lower precision with it")
    if not 0 < accuracy < 1:
        raise InputError(f"the accuracy is an error relative to the largest value, between 0 and 1, not {accuracy:g}")
    if not calibration:
        raise InputError("an accuracy is measured on inputs: give some, as real as can be, with calibration")
    trial = replace(
        options, target=_measurable(options.target), opt_level=min(1, options.opt_level), records=None, tactics=None,
        lock=None, locked=None, random_seed=None,
    )  # fmt: skip
    wanted = _outputs(source, replace(trial, precision="f32", keep_f32=()), calibration)
    names = _products(source, trial)

    def kept(count: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*options.keep_f32, *(escape(n) for loc in names[:count] for n in loc)]))

    def error(count: int) -> float:
        return _error(_outputs(source, replace(trial, keep_f32=kept(count)), calibration), wanted)

    low, high = 0, len(names)  # `high` holds the accuracy: with every product in f32 there is nothing to lose
    found = first = error(0)
    if first <= accuracy:
        high = 0
    while low + 1 < high:
        middle = (low + high) // 2
        now = error(middle)
        if now <= accuracy:
            high, found = middle, now
        else:
            low = middle
    decisions.add(
        "import", "accuracy", "main", f"the first {high} of {len(names)} products stay in f32",
        f"error {found:.2e}, {accuracy:g} wanted" + ("" if high == 0 else f"; {first:.2e} with none"),
    )  # fmt: skip
    return replace(options, keep_f32=kept(high))


def _measurable(target: str) -> str:
    here = resolve_target("native")
    return "native" if resolve_target(target).name == here.name else "cpu"


def _products(source: Any, options: Options) -> list[tuple[str, ...]]:
    """The node names of each product, in the order they are computed."""
    module = import_model(source, options, PassContext())
    return [op.loc for op in module.walk() if op.name in PRODUCTS and op.loc]


def _outputs(source: Any, options: Options, calibration: Sequence[Arrays]) -> list[dict[str, Any]]:
    engine = load(to_bytes(compile_model(source, options)))
    try:
        return [{n: np.asarray(a) for n, a in engine(dict(inputs)).items()} for inputs in calibration]
    finally:
        engine.close()


def _error(given: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> float:
    worst = 0.0
    for mine, theirs in zip(given, wanted, strict=True):
        for name, right in theirs.items():
            if right.dtype.kind != "f" or right.size == 0:
                continue
            with np.errstate(invalid="ignore"):
                off = np.abs(mine[name].astype(np.float64) - right.astype(np.float64))
            off = np.where((mine[name] == right) | (np.isnan(mine[name]) & np.isnan(right)), 0.0, off)
            largest = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
            far = float(np.percentile(np.nan_to_num(off, nan=np.inf), PERCENTILE))
            worst = max(worst, 0.0 if far == 0.0 else far / largest if largest else float("inf"))
    return worst
