# SPDX-License-Identifier: Apache-2.0
"""Dump directories and reproducers: IR as files that are complete programs.

A dump directory holds `000-input.mlir` and one `012-fuse.mlir` for each pass that changed something (numbered by its
place in the run), `constants/` with the constants they name that the user's model files do not hold, `remarks.jsonl`
with one decision a line, and `timing.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from tcc.ir.attributes import Attribute, Resource
from tcc.ir.core import Op
from tcc.ir.files import write_file
from tcc.ir.module import ModuleOp
from tcc.ir.printer import print_op
from tcc.passes.base import PassContext
from tcc.passes.manager import Instrument, Ran
from tcc.passes.pipeline import print_pass

CONSTANTS = "constants"
"""The folder of constants beside a dumped file."""


def named_resources(op: Op) -> set[Resource]:
    """Every resource that the text of an op names."""
    return {r for each in op.walk() for value in each.attrs.values() for r in _resources(value)}


def _resources(value: Attribute) -> Iterator[Resource]:
    if isinstance(value, Resource):
        yield value
    elif isinstance(value, tuple):
        for item in cast("tuple[Any, ...]", value):
            yield from _resources(item)
    elif isinstance(value, dict):
        for item in cast("dict[str, Any]", value).values():
            yield from _resources(item)


def save_constants(module: ModuleOp, folder: Path, all_of_them: bool = False) -> None:
    """Write the constants that a module names into `constants/` of a folder, unless they are there.

    Those that `module.resources.origins` says are in a model file are left out, unless `all_of_them`.
    """
    store = module.resources
    for resource in sorted(named_resources(module), key=lambda r: r.sha256):
        if all_of_them or resource.sha256 not in store.origins:
            store.save(resource, folder / CONSTANTS)


def write_module(module: ModuleOp, path: Path, comment: str = "", all_constants: bool = False) -> None:
    """Write a module as text, a comment first, and its constants beside it as `save_constants` does."""
    head = "".join(f"// {line}\n" for line in comment.splitlines())
    save_constants(module, path.parent, all_constants)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, head + print_op(module))


class Dump(Instrument):
    """Writes a dump directory while pipelines run; one instrument serves all runs of a compilation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Ran] = []
        self._begun = False

    def start(self, module: ModuleOp, context: PassContext) -> None:
        if not self._begun:
            self._begun = True
            write_module(module, self.folder / "000-input.mlir", "what goes in")

    def after(self, ran: Ran, module: ModuleOp, context: PassContext) -> None:
        self.rows.append(ran)
        if ran.changed:
            name = f"{ran.number:03d}-{ran.the_pass.name}.mlir"
            write_module(module, self.folder / name, f"after {print_pass(ran.the_pass)}")

    def finish(self, module: ModuleOp, context: PassContext) -> None:
        remarks = [json.dumps(row.to_json(), ensure_ascii=False) for row in context.decisions.rows]
        write_file(self.folder / "remarks.jsonl", "".join(f"{line}\n" for line in remarks))
        passes = [
            {"number": r.number, "pass": print_pass(r.the_pass), "changed": r.changed, "seconds": r.seconds}
            for r in self.rows
        ]
        timing = {"passes": passes, "seconds": sum(r.seconds for r in self.rows)}
        write_file(self.folder / "timing.json", json.dumps(timing, indent=1) + "\n")


def write_reproducer(module: ModuleOp, folder: Path, name: str, comment: str) -> Path:
    """Write the one file (and its constants, all of them) that replays a failure, and return its path.

    The module's `pipeline` begins with the pass that fails; `tcc-opt --run-reproducer FILE` runs it.
    """
    path = folder / f"crash-{name}.mlir"
    command = f"replay: tcc-opt --run-reproducer {path.name}"
    write_module(module, path, f"{comment}\n{command}", all_constants=True)
    return path.resolve()
