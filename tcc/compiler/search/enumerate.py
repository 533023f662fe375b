# SPDX-License-Identifier: Apache-2.0
"""The candidates of a problem: every legal config of every template, ranked by estimated cost."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tcc.codegen.template import Columns, Template, candidates
from tcc.ir.kernel import Func
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target

Key = tuple[str, str, str]

SAMENESS = 0.25
"""By how much a config's cost counts more when all its values are in those taken before it: a cost model is no more
exact than this, and configs that differ teach more."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A template with one config; `cost` is the model's estimate in seconds, `steps` how many parameters differ from
    the template's default."""

    template: Template
    config: dict[str, Any]
    cost: float = float("inf")
    steps: int = 0

    @functools.cached_property
    def label(self) -> str:
        """`llvm.gemm mr=6 nr=64`."""
        return " ".join([self.template.name, *(f"{k}={v}" for k, v in self.config.items())])

    @functools.cached_property
    def key(self) -> Key:
        """(template, source hash, config as JSON): what names the candidate in records."""
        return (self.template.name, self.template.source_hash(), json.dumps(self.config, sort_keys=True))

    @property
    def simplicity(self) -> tuple[int, float, str, str]:
        """The order that settles ties: nearest to a template's default first, then by estimated cost, then by name."""
        return (self.steps, self.cost, self.template.name, self.key[2])


@dataclass
class TemplateSpace:
    """The legal configs of one template as columns, their estimated costs, and its default."""

    template: Template
    columns: Columns
    costs: np.ndarray[Any, Any]
    default: Candidate | None

    def at(self, index: int) -> Candidate:
        """The candidate of a row."""
        return self.make({k: v[index].item() for k, v in self.columns.items()}, float(self.costs[index]))

    def make(self, config: dict[str, Any], cost: float) -> Candidate:
        """A candidate of this template."""
        base = None if self.default is None else self.default.config
        steps = 0 if base is None else sum(config.get(k) != v for k, v in base.items())
        return Candidate(self.template, config, cost, steps)

    def equal_parts(self, config: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """For each row the number of parameters that have the config's value."""
        same = np.zeros(len(self.costs), np.int64)
        for name, column in self.columns.items():
            same += column == config[name]
        return same


@dataclass
class Listing:
    """What `enumerate_problem` found: the spaces of the templates that take the problem; what was dropped, and why."""

    spaces: list[TemplateSpace] = field(default_factory=list[TemplateSpace])
    dropped: list[tuple[str, str, float | None]] = field(default_factory=list[tuple[str, str, float | None]])
    """(what: a template, or how many of its configs; the sentence why; None), as decisions list alternatives."""

    @property
    def counts(self) -> dict[str, int]:
        """Legal configs by template."""
        return {s.template.name: len(s.costs) for s in self.spaces}

    @property
    def defaults(self) -> list[Candidate]:
        """Every template's no-search answer, by estimated cost."""
        return sorted((s.default for s in self.spaces if s.default is not None), key=lambda c: (c.cost, c.key))

    @functools.cached_property
    def best(self) -> Candidate:
        """The candidate of the least estimated cost; of equal ones the simplest."""
        return min((c for s in self.spaces for c in _cheapest(s)), key=lambda c: (c.cost, *c.simplicity))

    def candidate(self, template: str, config: Mapping[str, Any]) -> Candidate | None:
        """The candidate with that template and config, if it is one of the legal ones."""
        for s in self.spaces:
            if s.template.name == template and set(config) == set(s.columns):
                found = np.flatnonzero(s.equal_parts(config) == len(s.columns))
                if len(found):
                    return s.at(int(found[0]))
        return None


def is_naive(t: Template) -> bool:
    """Whether a template is the one that fits everything and is fast at nothing."""
    return t.name.endswith(".naive")


def enumerate_problem(func: Func, target: Target, naive: bool = False) -> Listing:
    """All candidates. The naive template's are listed only where nothing else takes the problem, or for `naive`."""
    out = Listing()
    plain: list[Template] = []
    for t, reason in candidates(func, target):
        if reason is not None:
            out.dropped.append((t.name, reason, None))
        elif is_naive(t):
            plain.append(t)
        else:
            _add(out, t, func, target)
    if naive or not out.spaces:
        for t in plain:
            _add(out, t, func, target)
    return out


def _add(out: Listing, t: Template, func: Func, target: Target) -> None:
    columns, gone = t.legal_columns(func, target)
    out.dropped += [(f"{n} configs of {t.name}", why, None) for why, n in gone]
    count = len(next(iter(columns.values()))) if columns else 1
    config = t.default(func, target)
    if not count and config is None:
        return
    default = None
    if config is not None:
        default = Candidate(t, dict(config), estimate(t, func, config, target))
    costs = _costs(t, func, columns, target) if count else np.zeros(0)
    out.spaces.append(TemplateSpace(t, columns, costs, default))


def estimate(t: Template, func: Func, config: Mapping[str, Any], target: Target) -> float:
    """The cost model's seconds of one config."""
    return float(_costs(t, func, {k: np.array([v]) for k, v in config.items()}, target)[0])


def _costs(t: Template, func: Func, columns: Columns, target: Target) -> np.ndarray[Any, Any]:
    count = len(next(iter(columns.values()))) if columns else 1
    costs = np.asarray(t.cost(typical(func), columns, target), np.float64).reshape(-1)
    return np.broadcast_to(costs, (count,))


def _cheapest(s: TemplateSpace) -> list[Candidate]:
    """The rows of the least cost, and the default; not more than a few dozen of them."""
    out = [s.default] if s.default is not None else []
    if len(s.costs):
        out += [s.at(int(i)) for i in np.flatnonzero(s.costs == s.costs.min())[:32]]
    return out


def shortlist(listing: Listing, count: int, skip: Container[Key] = ()) -> list[Candidate]:
    """About `count` candidates to try: every template's default first, then by cost, of near costs those first that
    have values not taken yet. What `skip` holds counts as tried."""
    out = list(listing.defaults)
    pools = [_Pool(s) for s in listing.spaces if len(s.costs)]
    for pool in pools:
        for c in out:
            if c.template is pool.space.template:
                pool.take(c.config)
    while len(out) < count and pools:
        pool = min(pools, key=lambda p: p.least)
        if pool.least == float("inf"):
            break
        c = pool.space.at(pool.first)
        pool.take(c.config)
        out.append(c)
    return [c for c in out if c.key not in skip]


class _Pool:
    """A space from which configs are taken one by one."""

    MOST = 2048

    def __init__(self, space: TemplateSpace) -> None:
        order = np.argsort(space.costs, kind="stable")[: self.MOST]
        columns = {k: v[order] for k, v in space.columns.items()}
        self.space = TemplateSpace(space.template, columns, space.costs[order], space.default)
        self.codes = [np.unique(v, return_inverse=True)[1] for v in columns.values()]
        self.uses = [np.zeros(int(c.max()) + 1) for c in self.codes]
        self.gone = np.zeros(len(order), bool)
        self.taken = 0
        self._score()

    def take(self, config: Mapping[str, Any]) -> None:
        """Count a config as taken."""
        rows = np.flatnonzero(self.space.equal_parts(config) == len(self.codes))
        self.gone[rows] = True
        self.taken += 1
        for i in rows[:1]:
            for codes, uses in zip(self.codes, self.uses, strict=True):
                uses[codes[i]] += 1
        self._score()

    def _score(self) -> None:
        score = self.space.costs.copy()
        if self.taken and self.codes:
            shared = np.mean([u[c] for c, u in zip(self.codes, self.uses, strict=True)], axis=0) / self.taken
            score *= 1 + SAMENESS * shared
        score[self.gone] = np.inf
        self.first = int(np.argmin(score))
        self.least = float(score[self.first])


def neighbours(listing: Listing, c: Candidate, count: int, skip: Container[Key] = ()) -> list[Candidate]:
    """The cheapest legal configs that differ from a candidate's in one parameter."""
    out: list[Candidate] = []
    for s in listing.spaces:
        if s.template is not c.template or not s.columns:
            continue
        near = np.flatnonzero(s.equal_parts(c.config) == len(s.columns) - 1)
        for i in near[np.argsort(s.costs[near], kind="stable")]:
            found = s.at(int(i))
            if found.key not in skip:
                out.append(found)
            if len(out) == count:
                break
    return out


def random_candidate(func: Func, target: Target, seed: int, key: str) -> Candidate:
    """A legal config of a usable template: the template drawn first, then its config; the same for the same seed and
    problem."""
    spaces: Sequence[TemplateSpace] = [s for s in enumerate_problem(func, target).spaces if len(s.costs)]
    digest = hashlib.sha256(f"{seed}|{key}".encode()).digest()
    space = spaces[int.from_bytes(digest[:8], "little") % len(spaces)]
    return space.at(int.from_bytes(digest[8:16], "little") % len(space.costs))
