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
from tcc.runtime import load
from tcc.runtime.engine import Engine

PathLike = str | os.PathLike[str]


def compile(
    model: Any,
    target: str = "native",
    opt_level: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    precision: str = "f32",
    *,
    search_seconds: float | None = None,
    records: PathLike | None = None,
    tactics: PathLike | None = None,
    lock: PathLike | None = None,
    locked: PathLike | None = None,
    random_seed: int | None = None,
) -> Engine:
    """Compile an ONNX model (a path, its bytes, or a `ModelProto`) and load the engine.

    `target`: `native`, `cpu`, `sm_86`, … `opt_level`: 0 one reference kernel per op; 1 fusion and default schedules,
    nothing timed; 2 a pruned, timed search; 3 the wide search. `shapes` binds free dims by input name. `precision`:
    f32, tf32, f16 or bf16. `search_seconds` bounds the search; `records` is its timing cache; `tactics` forces choices;
    `lock` writes the winners and `locked` builds from them alone.

    Raises InputError for a model or an option that is not usable, FailureError where the work cannot be done here.
    """
    options = Options(
        target=target,
        opt_level=opt_level,
        precision=precision,
        shapes=dict(shapes or {}),
        search_seconds=search_seconds,
        records=_path(records),
        tactics=_path(tactics),
        lock=_path(lock),
        locked=_path(locked),
        random_seed=random_seed,
    )
    return load(to_bytes(compile_model(model, options)))


def _path(value: PathLike | None) -> Path | None:
    return None if value is None else Path(value)
