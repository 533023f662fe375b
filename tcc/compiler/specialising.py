# SPDX-License-Identifier: Apache-2.0
"""The compiler behind a `SpecialisingEngine`: imports the model again for the shapes, and the values, of a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from tcc.compiler.driver import compile_imported
from tcc.compiler.emit_host import type_json
from tcc.compiler.frontend.binding import DimNames, Shapes, bind_inputs, declared_dims, optional_inputs, real_inputs
from tcc.compiler.frontend.importer import load_onnx
from tcc.compiler.frontend.model import Model
from tcc.compiler.frontend.problems import ImportFailure
from tcc.compiler.frontend.tensors import Array, element_type
from tcc.compiler.live import LiveEngines
from tcc.compiler.options import Options
from tcc.compiler.targets import resolve_target
from tcc.errors import InputError
from tcc.ir.expr import to_json
from tcc.ir.rewriter import Decisions
from tcc.ir.types import STRING, TensorType, Type
from tcc.runtime.engine import Engine
from tcc.runtime.specialise import Declared, Request, SpecialisingEngine


def specialising_engine(model: Model, options: Options, limit: int, live: LiveEngines) -> SpecialisingEngine:
    """An engine of a model that compiles for the shapes of each call; its specialisations share their weights."""

    def specialise(request: Request) -> tuple[Engine, Sequence[str]]:
        return _specialise(model, options, request, live)

    outputs = [_declared(o) for o in model.proto.graph.output]
    return SpecialisingEngine(
        model.name, _inputs(model, options.shapes), outputs, specialise, limit,
        [_declared(i) for i in optional_inputs(model.proto)],
    )  # fmt: skip


def _specialise(model: Model, options: Options, request: Request, live: LiveEngines) -> tuple[Engine, Sequence[str]]:
    """The engine for a request: values are asked for as the import turns out to need them."""
    bound = replace(options, shapes=dict(request.shapes))
    values: dict[str, Array] = {}
    while True:
        decisions = Decisions()
        try:
            imported = load_onnx(model, bound.shapes, decisions, values, request.given)
        except ImportFailure as e:
            missing = [name for name in e.inputs if name not in values]
            if not missing or e.settled:
                raise
            values.update((name, request.value(name)) for name in missing)
            continue
        content = compile_imported(imported, bound, decisions)
        return live.engine(content, resolve_target(bound.target)), imported.deciding


def _inputs(model: Model, shapes: Shapes) -> list[Declared]:
    """The inputs as the model and the given shapes have them; one name for dims that must agree."""
    infos = real_inputs(model.proto)
    known = [i for i in infos if _has_rank(i) or i.name in shapes]
    names = {i.name for i in known}
    part = onnx.ModelProto()
    part.graph.input.extend(known)
    types = bind_inputs(part, {n: s for n, s in shapes.items() if n in names}, DimNames()).types
    return [_of_type(i.name, types[i.name]) if i.name in types else _declared(i) for i in infos]


def _has_rank(info: onnx.ValueInfoProto) -> bool:
    return not info.type.HasField("tensor_type") or declared_dims(info) is not None


def _of_type(name: str, t: Type) -> Declared:
    if not isinstance(t, TensorType):
        return Declared(name, "", (), type_json(t), ranked=False)
    shape = tuple(to_json(d) for d in t.shape)
    return Declared(name, t.dtype.name, shape, type_json(t) if t.dtype == STRING else None)


def _declared(info: onnx.ValueInfoProto) -> Declared:
    """A value by its declaration alone, from which no shape is taken."""
    try:
        dtype = element_type(info.type.tensor_type.elem_type, info.name).name
    except InputError:
        dtype = "?"
    return Declared(info.name, dtype, (), ranked=False)
