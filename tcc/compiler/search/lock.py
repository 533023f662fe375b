# SPDX-License-Identifier: Apache-2.0
"""Lock files: the winners of a compilation, from which the same engine is built without measuring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.codegen.template import candidates
from tcc.compiler.search.enumerate import Candidate
from tcc.errors import InputError
from tcc.ir.files import write_file
from tcc.ir.targets import Target

if TYPE_CHECKING:
    from tcc.compiler.search.choose import Problem

FORMAT = 1


def write_lock(path: Path, problems: Sequence[Problem], chosen: Mapping[str, Candidate], target: Target) -> None:
    """Write the winners, sorted by problem; `nodes` is for people."""
    rows = {
        p.key: {"template": chosen[p.key].template.name, "config": chosen[p.key].config, "nodes": list(p.loc)}
        for p in problems
    }
    data = {"format": FORMAT, "target": target.name, "tactics": rows}
    try:
        write_file(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    except OSError as e:
        raise InputError(f"cannot write the lock file {path}: {e.strerror}") from None


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file; InputError if it is not there or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(f"cannot read the {what} {path}: {e.strerror}") from None
    except ValueError as e:
        raise InputError(f"the {what} {path} is no JSON: {e}") from None
    if not isinstance(data, dict):
        raise InputError(f"the {what} {path} holds no object")
    return data


def legal_candidate(p: Problem, template: str, config: dict[str, Any], target: Target, source: str) -> Candidate:
    """The candidate that a file names for a problem; InputError with the rule that it breaks."""
    where = f"{source} for {p.where}"
    found = {t.name: (t, reason) for t, reason in candidates(p.func, target)}
    if template not in found:
        raise InputError(f"{where}: there is no template {template} for it; there are {', '.join(found)}")
    t, reason = found[template]
    if reason is not None:
        raise InputError(f"{where}: {template} does not take it: {reason}")
    reason = t.why_illegal(p.func, config, target)
    if reason is not None:
        raise InputError(f"{where}: {reason}")
    return Candidate(t, config)


def _is_choice(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("template"), str) and isinstance(row.get("config"), dict)


def read_locked(path: Path, problems: Sequence[Problem], target: Target) -> dict[str, Candidate]:
    """The choice of every problem from a lock file; InputError names those it lacks."""
    data = read_json(path, "lock file")
    if data.get("format") != FORMAT or not isinstance(data.get("tactics"), dict):
        raise InputError(f"{path} is no lock file of format {FORMAT}")
    if data.get("target") != target.name:
        raise InputError(f"the lock file {path} is for {data.get('target')}, not {target.name}")
    rows: dict[str, Any] = data["tactics"]
    missing = [p for p in problems if p.key not in rows]
    if missing:
        nodes = "; ".join(p.where for p in missing[:8]) + ("; …" if len(missing) > 8 else "")
        raise InputError(f"the lock file {path} lacks {len(missing)} problems: {nodes}; make it anew with --lock")
    broken = [p for p in problems if not _is_choice(rows[p.key])]
    if broken:
        raise InputError(f"{path}: the row of {broken[0].where} needs a template and a config")
    return {
        p.key: legal_candidate(p, rows[p.key]["template"], rows[p.key]["config"], target, str(path)) for p in problems
    }
