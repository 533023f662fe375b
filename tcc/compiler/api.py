# SPDX-License-Identifier: Apache-2.0
"""The Python face of the compiler: `tcc.compile`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.driver import compile_model
from tcc.compiler.engine_writer import to_bytes
from tcc.compiler.options import Options
from tcc.errors import InputError
from tcc.ir.rewriter import Decisions
from tcc.runtime import load
from tcc.runtime.engine import Engine

PathLike = str | os.PathLike[str]
Inputs = Mapping[str, Any]


def compile(
    model: Any,
    target: str = "native",
    opt_level: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    precision: str = "f32",
    *,
    keep_f32: Sequence[str] = (),
    accuracy: float | None = None,
    calibration: Inputs | Sequence[Inputs] = (),
    search_seconds: float | None = None,
    records: PathLike | None = None,
    tactics: PathLike | None = None,
    lock: PathLike | None = None,
    locked: PathLike | None = None,
    random_seed: int | None = None,
) -> Engine:
    """Compile an ONNX model (a path, its bytes, or a `ModelProto`) and load the engine.

    `target`: `native`, `cpu`, `sm_86`, … `opt_level`: 0 one reference kernel per op; 1 fusion and default schedules,
    nothing timed; 2 a pruned, timed search; 3 the wide search. `shapes` binds free dims by input name.

    `precision`: f32, tf32, f16 or bf16; nodes whose ONNX names match one of the patterns in `keep_f32` stay in f32.
    `accuracy` bounds the error that the precision brings on the inputs `calibration` (arrays by name, or several such):
    as many of the first products stay in f32 as that takes (`tcc.compiler.accuracy`).

    `search_seconds` bounds the search; `records` is its timing cache; `tactics` forces choices; `lock` writes the
    winners and `locked` builds from them alone.

    Raises InputError for a model or an option that is not usable, FailureError where the work cannot be done here.
    """
    options = Options(
        target=target,
        opt_level=opt_level,
        precision=precision,
        keep_f32=tuple(keep_f32),
        shapes=dict(shapes or {}),
        search_seconds=search_seconds,
        records=_path(records),
        tactics=_path(tactics),
        lock=_path(lock),
        locked=_path(locked),
        random_seed=random_seed,
    )
    if accuracy is not None:
        from tcc.compiler.accuracy import hold_accuracy

        given = [calibration] if isinstance(calibration, Mapping) else list(calibration)
        options = hold_accuracy(model, options, accuracy, given, Decisions())
    elif calibration:
        raise InputError("calibration inputs are what an accuracy is measured on; give accuracy with them")
    return load(to_bytes(compile_model(model, options)))


def _path(value: PathLike | None) -> Path | None:
    return None if value is None else Path(value)
