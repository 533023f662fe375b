# SPDX-License-Identifier: Apache-2.0
"""Tactics files: choices forced by kernel name, ONNX node or problem key.

    {"Conv_12": {"template": "llvm.conv", "config": {...}}, "9f3a…": {"template": "llvm.naive"}}

Parameters that are not given are those of the template's default. A node may have become several kernels: the choice
holds for those whose anchor the template is for, and so for every layer that has the same problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.codegen.template import candidates
from tcc.compiler.search.enumerate import Candidate
from tcc.compiler.search.lock import legal_candidate, read_json
from tcc.errors import InputError
from tcc.ir.targets import Target

if TYPE_CHECKING:
    from tcc.compiler.search.choose import Problem


def read_tactics(path: Path | None, problems: Sequence[Problem], target: Target) -> dict[str, Candidate]:
    """Problem key → forced candidate. InputError for a name that is nothing in the model, or a choice that is not
    legal."""
    if path is None:
        return {}
    out: dict[str, Candidate] = {}
    for name, row in read_json(path, "tactics file").items():
        if not isinstance(row, dict) or not isinstance(row.get("template"), str):
            raise InputError(f'{path}: {name} needs an object with a template, as in {{"template": "llvm.naive"}}')
        hits = [p for p in problems if _names(p, name)]
        if not hits:
            raise InputError(f"{path}: {name} is no kernel, ONNX node or problem of this model")
        fits = [p for p in hits if any(t.name == row["template"] for t, _ in candidates(p.func, target))]
        for p in fits or hits:
            c = _forced(p, row, target, str(path))
            if p.key in out and out[p.key].key != c.key:
                raise InputError(f"{path}: {name} asks for {c.label} where another row asks for {out[p.key].label}")
            out[p.key] = c
    return out


def _names(p: Problem, name: str) -> bool:
    return name in p.names or name in p.loc or (len(name) >= 8 and p.key.startswith(name))


def _forced(p: Problem, row: dict[str, Any], target: Target, path: str) -> Candidate:
    given = row.get("config", {})
    if not isinstance(given, dict):
        raise InputError(f"{path} for {p.where}: the config is no object")
    base: dict[str, Any] = {}
    for t, reason in candidates(p.func, target):
        if t.name == row["template"] and reason is None:
            base = t.default(p.func, target) or {}
    return legal_candidate(p, row["template"], {**base, **given}, target, path)
