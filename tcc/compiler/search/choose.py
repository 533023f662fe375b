# SPDX-License-Identifier: Apache-2.0
"""Chooses a template and a config for every kernel: forced, locked, random, measured, recorded or estimated."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.codegen.template import Template, candidates
from tcc.compiler.search import lock as locks
from tcc.compiler.search.devices import measuring_context
from tcc.compiler.search.enumerate import (
    Candidate,
    Listing,
    enumerate_problem,
    estimate,
    is_naive,
    neighbours,
    random_candidate,
    shortlist,
)
from tcc.compiler.search.measure import Measurer
from tcc.compiler.search.progress import Progress
from tcc.compiler.search.records import Context, Key, Records, Row, Time, tied, times
from tcc.compiler.search.tactics import read_tactics
from tcc.errors import FailureError
from tcc.ir.core import union_loc
from tcc.ir.kernel import Constant, Func, LaunchOp
from tcc.ir.kernel.problem import problem_key
from tcc.ir.module import ModuleOp
from tcc.ir.targets import Target
from tcc.ir.types import TensorType
from tcc.passes.base import PassContext

Choice = tuple[Template, dict[str, Any]]
CANDIDATES = {2: 6, 3: 16}
"""How many candidates of a problem are tried at a level, before those near the best of them."""
WALKS = {2: 0, 3: 3}
"""How many times the neighbours of the best so far are tried."""
NEIGHBOURS = 6
SMALL, LARGE = 0.004, 0.05
"""A problem with less than the first share of the estimated time gets a quarter of the candidates and no walk; one with
more than the second half as many again."""
SECONDS_EACH = 0.3
"""About what a candidate costs to try; decides whether the budget allows all of them in one pass."""
SHOWN = 12
"""How many alternatives a decision lists where nothing was measured."""

Other = tuple[str, str, float | None]


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
    measured: float | None = None

    @property
    def weight(self) -> float:
        """About how many seconds a run spends in it: by what was measured, else by estimate."""
        best = self.listing.best.cost if self.measured is None else self.measured
        return best * max(1, self.launches)

    @property
    def title(self) -> str:
        """What to call it in a line of progress."""
        return self.func.anchors()[0].name.removeprefix("kernel.")

    @property
    def where(self) -> str:
        """Its ONNX nodes, for messages."""
        return ", ".join(self.loc) or self.names[0]


def default_records() -> Path:
    """Where measurements are kept unless a file is named."""
    return Path(os.environ.get("TCC_CACHE_DIR") or Path.home() / ".cache" / "tcc") / "records.jsonl"


def choose(
    funcs: Sequence[Func], module: ModuleOp, context: PassContext, by: str = "search"
) -> dict[str, Choice]:  # fmt: skip
    """The choice for each kernel by name; decisions say why.

    What no file and no seed decides is searched for, or gets the no-search answer (`by` default, reference). Of the
    context's options it obeys `tactics`, `locked`, `lock`, `records` (paths), `search_seconds` and `random_seed`.
    InputError for a file that is not usable, FailureError for a problem that no template takes.
    """
    target: Target = context.target
    options = context.options
    problems = find_problems(funcs, module)
    chosen: dict[str, Candidate] = {}
    if options.get("locked") is not None:
        chosen = locks.read_locked(Path(options["locked"]), problems, target)
        _decide_all(context, problems, chosen, "it is locked")
    else:
        forced = read_tactics(options.get("tactics"), problems, target)
        _decide_all(context, problems, forced, "it is forced")
        rest = [p for p in problems if p.key not in forced]
        if options.get("random_seed") is not None:
            seed = int(options["random_seed"])
            drawn = {p.key: random_candidate(p.func, target, seed, p.key) for p in rest}
            _decide_all(context, rest, drawn, f"it is drawn with the seed {seed}")
            chosen = forced | drawn
        elif by == "search":
            chosen = forced | _search(rest, module, context)
        else:
            chosen = forced | {p.key: _default(p, context, by == "reference") for p in rest}
    if options.get("lock") is not None:
        locks.write_lock(Path(options["lock"]), problems, chosen, target)
    return {n: (chosen[p.key].template, chosen[p.key].config) for p in problems for n in p.names}


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


def _default(p: Problem, context: PassContext, reference: bool) -> Candidate:
    """The no-search answer: the default that is estimated least; the naive one where there is no other, or for
    `reference`."""
    found: list[Candidate] = []
    refused: list[Other] = []
    for t, reason in candidates(p.func, context.target):
        config = t.default(p.func, context.target) if reason is None and is_naive(t) >= reference else None
        if config is None:
            refused.append((t.name, reason or "it leaves this to another", None))
            continue
        cost = float("inf") if is_naive(t) else estimate(t, p.func, config, context.target)
        found.append(Candidate(t, dict(config), cost))
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason, _ in refused) or "none matches"
        raise FailureError(f"no template takes @{p.func.sym_name} ({p.where}): {why}")
    found.sort(key=lambda c: (c.cost, c.template.name))
    others = [(c.label, f"estimated {c.cost * 1e6:.2f} µs", None) for c in found[1:] if not is_naive(c.template)]
    _decide(context, p, found[0], "the no-search answer", [*others, *refused])
    return found[0]


def _search(problems: list[Problem], module: ModuleOp, context: PassContext) -> dict[str, Candidate]:
    target: Target = context.target
    options = context.options
    begun = time.monotonic()
    for p in problems:
        p.listing = enumerate_problem(p.func, target)
        if not p.listing.spaces:
            why = "; ".join(reason for _, reason, _ in p.listing.dropped) or "none matches"
            raise FailureError(f"no template takes @{p.func.sym_name} ({p.where}): {why}")
    given = options.get("records")
    records = Records.load(default_records() if given is None else Path(given), {p.key for p in problems})
    device = measuring_context(target)
    budget = float(options.get("search_seconds") or 0.0)
    if device is not None and budget > 0 and problems:
        _measure(problems, module, context.opt_level, target, device, records, begun + budget)
    return {p.key: _winner(p, records, device, context) for p in problems}


def _measure(
    problems: Sequence[Problem], module: ModuleOp, level: int, target: Target, device: Context, records: Records,
    deadline: float,
) -> None:  # fmt: skip
    """Try candidates of all problems, those first where most time is to be won."""
    most, walks = CANDIDATES.get(level, 16), WALKS.get(level, 0)
    total = sum(p.weight for p in problems) or 1.0
    tried: dict[str, set[Key]] = {p.key: {r.key for r in records.of(p.key, device)} for p in problems}

    def first(p: Problem, count: int) -> list[Candidate]:
        share = p.weight / total
        count = max(3, count // 4) if share < SMALL else count + count // 2 if share > LARGE else count
        return shortlist(p.listing, count, tried[p.key])

    def near(p: Problem) -> list[Candidate]:
        found = _timed(p, records.of(p.key, device))
        if not found or p.weight < SMALL * total:
            return []
        return neighbours(p.listing, _simplest(found), NEIGHBOURS, tried[p.key])

    counts = [most]
    if sum(len(first(p, most)) for p in problems) * SECONDS_EACH > deadline - time.monotonic():
        counts = [2, most]
    with (
        Progress(deadline - time.monotonic(), target.name) as progress,
        Measurer(target, device, records, progress, weight_bytes(module)) as measurer,
    ):
        for turn in range(len(counts) + walks):
            work: list[tuple[Problem, list[Candidate]]] = []
            for p in sorted(problems, key=lambda p: (-p.weight, p.key)):
                candidates = first(p, counts[turn]) if turn < len(counts) else near(p)
                if candidates:
                    work.append((p, candidates))
            if not work or time.monotonic() >= deadline:
                continue
            measurer.measure(work, deadline)
            for p in problems:
                rows = records.of(p.key, device)
                tried[p.key] = {r.key for r in rows}
                found = _timed(p, rows)
                p.measured = min((t.seconds for t in found.values()), default=None)


def _timed(p: Problem, rows: Sequence[Row]) -> dict[Candidate, Time]:
    """The candidates of a problem that rows have times of, and that are legal as the templates are now."""
    out: dict[Candidate, Time] = {}
    configs = {r.key: r.config for r in rows}
    for key, t in sorted(times(rows).items()):
        c = p.listing.candidate(key[0], configs[key])
        if c is not None and c.key == key:
            out[c] = t
    return out


def _simplest(found: dict[Candidate, Time]) -> Candidate:
    """The fastest; of those that are as fast the simplest."""
    return min(tied(found), key=lambda c: c.simplicity)


def _winner(p: Problem, records: Records, device: Context | None, context: PassContext) -> Candidate:
    """The fastest recorded candidate; without records the one of the least estimated cost."""
    rows = records.foreign(p.key, context.target.name) if device is None else records.of(p.key, device)
    found = _timed(p, rows)
    others: list[Other] = []
    if found:
        chosen = _simplest(found)
        equal, best = set(tied(found)), min(t.seconds for t in found.values())
        others = [
            (c.label, "as fast, and less simple" if c in equal else f"{t.seconds / best:.2f} times as slow", t.seconds)
            for c, t in sorted(found.items(), key=lambda i: (i[1].seconds, i[0].simplicity))
            if c is not chosen
        ]
        where = "measured" if device is not None else f"recorded on {rows[0].context.get('device')}"
        reason = f"{where}: {found[chosen].seconds * 1e6:.2f} µs, of {len(found)} candidates"
    else:
        chosen = p.listing.best
        reason = "the least estimated cost, for nothing was measured"
        if device is None:
            reason = f"the least estimated cost: there is no {context.target.name} here and no record of one"
        others = [
            (c.label, f"estimated {c.cost * 1e6:.2f} µs", None)
            for c in shortlist(p.listing, SHOWN) if c.key != chosen.key
        ]  # fmt: skip
    failed = [
        (f"{r.template} {' '.join(f'{k}={v}' for k, v in r.config.items())}".strip(), f"{r.status}: {r.message}", None)
        for r in sorted(rows, key=lambda r: r.key) if r.status != "ok"
    ]  # fmt: skip
    _decide(context, p, chosen, reason, [*others, *failed, *p.listing.dropped])
    return chosen


def weight_bytes(module: ModuleOp) -> int:
    """Bytes of the constants that the model reads in one run."""
    total = 0
    for op in module.walk():
        if isinstance(op, Constant) and isinstance(op.y.type, TensorType):
            n = op.y.type.nbytes
            total += n if isinstance(n, int) else 0
    return total


def _decide_all(context: PassContext, problems: Sequence[Problem], chosen: dict[str, Candidate], reason: str) -> None:
    for p in problems:
        if p.key in chosen:
            _decide(context, p, chosen[p.key], reason, [])


def _decide(context: PassContext, p: Problem, c: Candidate, reason: str, others: Sequence[Other]) -> None:
    context.decisions.add("schedule", "tactic", decision_name(p.func, p.key), c.label, reason, others, p.loc)


def decision_name(func: Func, key: str) -> str:
    """What a problem is called in decisions: its anchor and the first digits of its key."""
    return f"{func.anchors()[0].name} {key[:12]}"
