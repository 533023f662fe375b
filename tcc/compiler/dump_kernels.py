# SPDX-License-Identifier: Apache-2.0
"""The last part of a dump directory: the kernels' sources, and `kernels.json`, which says what each is for.

`kernels/<id>.cu` and `.ptx`, or `.ll`; on the CPU also `kernels/native.ll`, the function that runs the segments. A row
of `kernels.json` maps a kernel to its ONNX nodes, template, config and problem, with the decision that chose them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.engine_writer import EngineContent
from tcc.ir.files import write_file
from tcc.ir.rewriter import Decision

Json = dict[str, Any]


def dump_kernels(content: EngineContent, decisions: Sequence[Decision], folder: Path) -> None:
    """Write the kernels of an engine and `kernels.json` into a dump directory."""
    (folder / "kernels").mkdir(parents=True, exist_ok=True)
    for name, data in sorted(content.files.items()):
        if Path(name).suffix in (".cu", ".ll"):
            write_file(folder / name, data)
    if content.target["kind"] == "cuda":
        _write_ptx(content, folder)
    rows = kernel_rows(content, decisions)
    write_file(folder / "kernels.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def kernel_rows(content: EngineContent, decisions: Sequence[Decision]) -> list[Json]:
    """A row for each kernel, in the order of their first launches."""
    launches = [op for op in _ops(content.schedule) if op["op"] == "launch"]
    tactics = {d.op.rpartition(" ")[2]: d for d in decisions if d.kind == "tactic"}
    rows: list[Json] = []
    for key in dict.fromkeys(op["kernel"] for op in launches):
        about = content.kernels[key]
        mine = [op for op in launches if op["kernel"] == key]
        row: Json = {
            "kernel": key, "entry": about["entry"], "nodes": about["loc"], "launches": len(mine),
            "template": about["template"], "config": about["config"], "problem": about["problem"],
            "derived": about.get("derived", {}), "files": about["files"],
        }  # fmt: skip
        for part in ("grid", "block", "shared", "tasks"):
            if part in mine[0]:
                row[part] = mine[0][part]
        decision = tactics.get(str(about["problem"])[:12])
        if decision is not None:
            facts = decision.to_json()
            row["tactic"] = {k: facts[k] for k in ("id", "chosen", "reason", "alternatives")}
        rows.append(row)
    return rows


def _ops(ops: Sequence[Json]) -> Iterator[Json]:
    for op in ops:
        yield op
        for part in ("body", "then", "else"):
            yield from _ops(op.get(part, ()))


def _write_ptx(content: EngineContent, folder: Path) -> None:
    from tcc.codegen.cuda.compile import compile_cuda

    written: set[str] = set()
    for about in content.kernels.values():
        source = about["files"]["source"]
        if source not in written:
            written.add(source)
            arch = str(about.get("arch", content.target["name"]))
            ptx = compile_cuda(content.files[source].decode(), arch).ptx
            write_file(folder / Path(source).with_suffix(".ptx"), ptx)
