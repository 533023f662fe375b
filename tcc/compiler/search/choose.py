# SPDX-License-Identifier: Apache-2.0
"""Chooses a template and a config for every kernel: forced, locked, random, measured, recorded or estimated."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.codegen.template import Template
from tcc.compiler.search import lock as locks
from tcc.compiler.search.devices import measuring_context
from tcc.compiler.search.enumerate import Candidate, Listing, enumerate_problem, random_candidate, shortlist
from tcc.compiler.search.measure import Measurement, measure
from tcc.compiler.search.records import TIE, Context, Records, Row, medians
from tcc.compiler.search.tactics import read_tactics
from tcc.ir.core import union_loc
from tcc.ir.kernel import Constant, Func, LaunchOp
from tcc.ir.kernel.problem import problem_key
from tcc.ir.module import ModuleOp
from tcc.ir.targets import Target
from tcc.ir.types import TensorType
from tcc.passes.base import PassContext

Choice = tuple[Template, dict[str, Any]]
CANDIDATES = {2: 6, 3: 16}
"""How many candidates of a problem are tried at a level."""


@dataclass
class Problem:
    """One distinct problem of a model: its first kernel, the names of all, how often they are launched, and what is
    known of its candidates."""

    key: str
    func: Func
    names: list[str] = field(default_factory=list[str])
    loc: tuple[str, ...] = ()
    launches: int = 0
    listing: Listing = field(default_factory=Listing)

    @property
    def weight(self) -> float:
        """Estimated seconds a run spends in it."""
        best = self.listing.ranked[0].cost if self.listing.ranked else 0.0
        return best * max(1, self.launches)


def default_records() -> Path:
    """Where measurements are kept unless a file is named."""
    return Path(os.environ.get("TCC_CACHE_DIR") or Path.home() / ".cache" / "tcc") / "records.jsonl"


def choose(funcs: Sequence[Func], module: ModuleOp, context: PassContext) -> dict[str, Choice]:
    """The choice for each kernel by name; decisions say why."""
    target: Target = context.target
    options = context.options
    problems = find_problems(funcs, module)
    if options.get("locked") is not None:
        chosen = locks.read_locked(options["locked"], problems, target)
        for p in problems:
            _decide(context, p, chosen[p.key], "it is locked", [])
        return _by_name(problems, chosen)
    forced = read_tactics(options.get("tactics"), problems, target)
    chosen: dict[str, Candidate] = dict(forced)
    for p in problems:
        if p.key in forced:
            _decide(context, p, forced[p.key], "it is forced", [])
    rest = [p for p in problems if p.key not in forced]
    if options.get("random_seed") is not None:
        for p in rest:
            chosen[p.key] = random_candidate(p.func, target, int(options["random_seed"]), p.key)
            _decide(context, p, chosen[p.key], f"it is drawn with seed {options['random_seed']}", [])
    else:
        chosen |= _search(rest, module, context)
    if options.get("lock") is not None:
        locks.write_lock(options["lock"], chosen, target)
    return _by_name(problems, chosen)


def find_problems(funcs: Sequence[Func], module: ModuleOp) -> list[Problem]:
    """The distinct problems, in order."""
    launches: dict[str, int] = {}
    for op in module.walk():
        if isinstance(op, LaunchOp):
            launches[op.callee] = launches.get(op.callee, 0) + 1
    found: dict[str, Problem] = {}
    for f in funcs:
        key = problem_key(f)
        p = found.setdefault(key, Problem(key, f))
        p.names.append(f.sym_name)
        p.loc = union_loc(p.loc, f.loc)
        p.launches += launches.get(f.sym_name, 0)
    return list(found.values())


def _search(problems: list[Problem], module: ModuleOp, context: PassContext) -> dict[str, Candidate]:
    target: Target = context.target
    options = context.options
    for p in problems:
        p.listing = enumerate_problem(p.func, target)
    records = Records.load(options.get("records") or default_records())
    device = measuring_context(target)
    budget = float(options.get("search_seconds") or 0.0)
    problems_by_weight = sorted(problems, key=lambda p: (-p.weight, p.key))
    if device is not None and budget > 0:
        total = sum(p.weight for p in problems) or 1.0
        most = CANDIDATES.get(context.opt_level, 16)
        work: list[tuple[Problem, list[Candidate]]] = []
        for p in problems_by_weight:
            count = most if p.weight >= 0.004 * total else max(3, most // 4)
            known = {r.key for r in records.of(p.key, device)}
            todo = [c for c in shortlist(p.listing, count) if candidate_key(c) not in known]
            if todo:
                work.append((p, todo))
        measure(work, target, device, records, budget, weight_bytes(module))
    return {p.key: _winner(p, records, device, context) for p in problems}


def candidate_key(c: Candidate) -> tuple[str, str, str]:
    """The key of the candidate's rows."""
    return (c.template.name, c.template.source_hash(), json.dumps(c.config, sort_keys=True))


def _winner(p: Problem, records: Records, device: Context | None, context: PassContext) -> Candidate:
    """The fastest recorded candidate; ties go to the lower estimate. Without records, the best default."""
    by_key = {candidate_key(c): c for c in (*p.listing.ranked, *p.listing.defaults)}
    rows = [
        r for r in records.of(p.key, device) if device is not None or r.context.get("target") == context.target.name
    ]
    timed = {by_key[k]: s for k, s in _items(medians(rows), by_key)}
    failed = [
        (by_key[r.key].label, f"{r.status}: {r.message}", None) for r in rows if r.status != "ok" and r.key in by_key
    ]
    if timed:
        best = min(timed.values())
        tied = [c for c, s in timed.items() if s <= best * TIE]
        chosen = min(tied, key=lambda c: c.order)
        others: list[tuple[str, str, float | None]] = [
            (c.label, "as fast within 2%" if c in tied else f"{s / best:.2f} times as slow", s)
            for c, s in sorted(timed.items(), key=lambda i: i[1])
            if c is not chosen
        ]
        where = "measured" if device is not None else "recorded"
        _decide(context, p, chosen, f"{where}: {timed[chosen] * 1e6:.2f} µs", others + failed)
        return chosen
    pool = p.listing.defaults or p.listing.ranked
    chosen = min(pool, key=lambda c: c.order)
    why = "the cost model's choice: nothing was measured" + (
        "" if device is not None else f" and there is no {context.target.name} here"
    )
    others = [
        (c.label, f"estimated {c.cost * 1e6:.2f} µs", None) for c in p.listing.ranked[:8] if c.label != chosen.label
    ]
    _decide(context, p, chosen, why, others + failed)
    return chosen


def _items(
    found: dict[tuple[str, str, str], float], by_key: dict[tuple[str, str, str], Candidate]
) -> list[tuple[tuple[str, str, str], float]]:
    return [(k, s) for k, s in sorted(found.items()) if k in by_key]


def weight_bytes(module: ModuleOp) -> int:
    """Bytes of the constants that the model reads in one run."""
    total = 0
    for op in module.walk():
        if isinstance(op, Constant) and isinstance(op.y.type, TensorType):
            n = op.y.type.nbytes
            total += n if isinstance(n, int) else 0
    return total


def _decide(
    context: PassContext, p: Problem, c: Candidate, reason: str, others: Sequence[tuple[str, str, float | None]]
) -> None:
    context.decisions.add("schedule", "tactic", p.func.anchors()[0].name, c.label, reason, others, p.loc)


def _by_name(problems: Sequence[Problem], chosen: dict[str, Candidate]) -> dict[str, Choice]:
    return {n: (chosen[p.key].template, chosen[p.key].config) for p in problems for n in p.names}


__all__ = ["Measurement", "Problem", "Row", "choose", "find_problems"]
