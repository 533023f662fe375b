# SPDX-License-Identifier: Apache-2.0
"""The Python face of the compiler: `tcc.compile`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.driver import compile_imported
from tcc.compiler.frontend.binding import hosted_inputs, optional_inputs
from tcc.compiler.frontend.importer import load_onnx
from tcc.compiler.frontend.model import read_model
from tcc.compiler.frontend.problems import ImportFailure
from tcc.compiler.live import LiveEngines
from tcc.compiler.options import Options
from tcc.compiler.specialising import specialising_engine
from tcc.compiler.targets import resolve_target
from tcc.errors import InputError
from tcc.ir.rewriter import Decisions
from tcc.runtime.engine import Engine
from tcc.runtime.specialise import SPECIALISATIONS

PathLike = str | os.PathLike[str]
Inputs = Mapping[str, Any]
Shapes = Mapping[str, Sequence[int | None]]


def compile(
    model: Any,
    target: str = "native",
    opt_level: int = 1,
    shapes: Shapes | Sequence[Shapes] | None = None,
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
    specialisations: int = SPECIALISATIONS,
) -> Engine:
    """Compile an ONNX model (a path, its bytes, or a `ModelProto`) and load the engine.

    `target`: `native`, `cpu`, `sm_86`, … `opt_level`: 0 one reference kernel per op; 1 fusion and default schedules,
    nothing timed; 2 a pruned, timed search; 3 the wide search. `shapes` binds free dims by input name; a list of such
    mappings names several sets of shapes.

    `precision`: f32, tf32, f16 or bf16; nodes whose ONNX names match one of the patterns in `keep_f32` stay in f32.
    `accuracy` bounds the error that the precision brings on the inputs `calibration` (arrays by name, or several such):
    as many of the first products stay in f32 as that takes (`tcc.compiler.accuracy`).

    `search_seconds` bounds the search; `records` is its timing cache; `tactics` forces choices; `lock` writes the
    winners and `locked` builds from them alone.

    Where dims stay free, where a list of shapes is given, or where the values of inputs decide shapes or attributes
    (the shape of a Reshape, the axes of a reduction), the result is a `SpecialisingEngine`: it compiles an engine on
    the first call with new shapes or such values, or when `engine.prepare({"x": (8, 3, 224, 224)})` asks for it, and
    keeps the last `specialisations` of them. Shapes that are listed here are compiled now.

    Raises InputError for a model or an option that is not usable, FailureError where the work cannot be done here.
    """
    several = [] if shapes is None or isinstance(shapes, Mapping) else [dict(s) for s in shapes]
    options = Options(
        target=target,
        opt_level=opt_level,
        precision=precision,
        keep_f32=tuple(keep_f32),
        shapes=dict(shapes) if isinstance(shapes, Mapping) else {},
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
    source = read_model(model)
    decisions = Decisions()
    try:
        imported = load_onnx(source, options.shapes, decisions)
    except ImportFailure as e:
        if e.settled:
            raise ImportFailure(e.settled) from None
        imported = None
    fixed, live = None, LiveEngines()
    if imported is not None and not imported.free:
        unbound = [n for n in hosted_inputs(source.proto) if n not in options.shapes]
        try:
            content = compile_imported(imported, options, decisions)
            alone = not several and not optional_inputs(source.proto)
            fixed = live.engine(content, resolve_target(options.target), alone)
        except InputError:
            if not unbound:  # what is in a sequence may decide extents
                raise
        else:
            if alone:
                return fixed
    engine = specialising_engine(source, options, specialisations, live)
    if fixed is not None:
        engine.keep(fixed)
    for each in several:
        engine.prepare({name: tuple(d for d in dims if d is not None) for name, dims in each.items()})
    return engine


def _path(value: PathLike | None) -> Path | None:
    return None if value is None else Path(value)
