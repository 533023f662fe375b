# SPDX-License-Identifier: Apache-2.0
"""From a model to an engine: the phases in order, each of which can be the first or the last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tcc.compiler import phases
from tcc.compiler.dump_kernels import dump_kernels
from tcc.compiler.emit_engine import build_engine
from tcc.compiler.engine_writer import EngineContent, to_bytes
from tcc.compiler.frontend.constants import read_constants
from tcc.compiler.frontend.importer import Imported, load_onnx
from tcc.compiler.options import Options
from tcc.compiler.phases.pipelines import pipelines
from tcc.compiler.targets import resolve_target
from tcc.errors import InputError
from tcc.ir.module import ModuleOp
from tcc.ir.resources import ResourceStore
from tcc.ir.rewriter import Decisions
from tcc.passes.base import PassContext
from tcc.passes.dump import Dump, named_resources
from tcc.passes.graph.precision import Kept
from tcc.passes.manager import PassManager

assert phases  # registers the passes that need the code generators


def import_model(source: Any, options: Options, context: PassContext) -> ModuleOp:
    """The module of an ONNX model (path, bytes or ModelProto), with its target, options and whole pipeline."""
    return ready(load_onnx(source, options.shapes, context.decisions), options)


def ready(imported: Imported, options: Options) -> ModuleOp:
    """The module of an imported model, with its target, options and whole pipeline."""
    module = imported.module
    module.resources.origins = module.resources.origins | imported.in_file
    module.attrs["target"] = resolve_target(options.target).name
    module.attrs["options"] = options.for_module()
    module.attrs["pipeline"] = pipelines("graph", "schedule", options.opt_level, options.precision)
    nodes = {name for op in module.walk() for name in op.loc} if options.keep_f32 else set[str]()
    for pattern in options.keep_f32:
        if not any(Kept((pattern,)).names(n) for n in nodes):
            raise InputError(
                f"keep_f32 names {pattern}, and the model has no such node; tcc --emit=graph shows the names"
            )
    if imported.path is not None:
        module.attrs["meta"] = {"model": os.path.abspath(imported.path), "name": imported.path.stem}
    return module


def context_for(module: ModuleOp, options: Options | None = None) -> PassContext:
    """What passes may ask, from what the module carries and the search options."""
    carried: dict[str, Any] = dict(module.options)
    level, _ = carried_options(module)
    target = resolve_target(module.target) if module.target else None
    search = Options().for_search() if options is None else options.for_search()
    return PassContext(
        target=target, opt_level=level, options={**search, **carried},
        resources=module.resources,
    )  # fmt: skip


def carried_options(module: ModuleOp) -> tuple[int, str]:
    """(optimisation level, precision) that a module was imported with; InputError if they are none."""
    options = Options(
        opt_level=module.options.get("opt_level", 1), precision=module.options.get("precision", "f32")
    )  # fmt: skip
    return options.opt_level, options.precision


def run_to(module: ModuleOp, last: str, context: PassContext, manager: PassManager) -> None:
    """Run what is left of the module's pipeline up to the end of phase `last`."""
    level, precision = carried_options(module)
    rest = str(module.pipeline)
    after = ""
    if last in ("graph", "fuse", "kernel"):
        following = {"graph": "fuse", "fuse": "kernel", "kernel": "schedule"}[last]
        after = pipelines(following, "schedule", level, precision)
        if after and rest.endswith(after):
            rest = rest.removesuffix(after).rstrip(",")
        elif after:
            raise InputError(f"the module is past the phase {last}: what is left is {rest or 'nothing'}")
    manager.run(module, rest, context, then=after)


def engine_content(module: ModuleOp, context: PassContext, manager: PassManager) -> EngineContent:
    """The engine of a module at any phase."""
    if context.target is None:
        raise InputError('the module names no target: give it one, as in builtin.module() {target = "cpu"}')
    run_to(module, "schedule", context, manager)
    meta: Mapping[str, Any] = module.meta or {}
    content = build_engine(module, context.target, str(meta.get("name", "model")))
    for each in manager.instruments:
        if isinstance(each, Dump):
            dump_kernels(content, context.decisions.rows, each.folder)
    return content


def compile_model(
    source: Any, options: Options, manager: PassManager | None = None, decisions: Decisions | None = None
) -> EngineContent:
    """The engine of an ONNX model; what was decided on the way is added to `decisions`."""
    context = PassContext(decisions=Decisions() if decisions is None else decisions)
    imported = load_onnx(source, options.shapes, context.decisions)
    return compile_imported(imported, options, context.decisions, manager)


def compile_imported(
    imported: Imported, options: Options, decisions: Decisions, manager: PassManager | None = None
) -> EngineContent:
    """The engine of an imported model, whose constants are let go: caches of plans may hold its kernels for longer."""
    module = ready(imported, options)
    context = context_for(module, options)
    context.decisions = decisions
    content = engine_content(module, context, manager or PassManager())
    module.resources = ResourceStore()
    return content


def finish(module: ModuleOp, options: Mapping[str, Any]) -> bytes:
    """The engine file of a module read from text; what it names and has not is taken from the model it came from."""
    restore_constants(module)
    return to_bytes(engine_content(module, context_for(module), PassManager()))


def restore_constants(module: ModuleOp) -> None:
    """Find the constants that a dump left in the model file (`meta` names it)."""
    missing = [r for r in named_resources(module) if r not in module.resources]
    meta: Mapping[str, Any] = module.meta or {}
    path = meta.get("model")
    if not missing or not path:
        return
    if not Path(path).exists():
        raise InputError(
            f"the module names {len(missing)} constants of {path}, which is gone; put it back or give --constants"
        )
    module.resources.merge(read_constants(path))
