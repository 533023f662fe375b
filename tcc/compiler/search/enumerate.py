# SPDX-License-Identifier: Apache-2.0
"""The candidates of a problem: every legal config of every template, ranked by estimated cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tcc.codegen.template import Template, candidates, rows_of
from tcc.ir.kernel import Func
from tcc.ir.targets import Target


@dataclass(frozen=True)
class Candidate:
    """A template with one config; `cost` is the model's estimate in seconds."""

    template: Template
    config: dict[str, Any]
    cost: float = float("inf")

    @property
    def label(self) -> str:
        """`llvm.gemm mr=6 nr=64`."""
        return " ".join([self.template.name, *(f"{k}={v}" for k, v in self.config.items())])

    @property
    def order(self) -> tuple[float, str, str]:
        """The order that settles ties: by estimated cost, then by name."""
        return (self.cost, self.template.name, json.dumps(self.config, sort_keys=True))


@dataclass
class Listing:
    """What `enumerate_problem` found: candidates by cost, each template's default, and what was dropped and why."""

    ranked: list[Candidate] = field(default_factory=list[Candidate])
    defaults: list[Candidate] = field(default_factory=list[Candidate])
    dropped: list[str] = field(default_factory=list[str])
    counts: dict[str, int] = field(default_factory=dict[str, int])


def is_naive(t: Template) -> bool:
    """Whether a template is the one that fits everything and is fast at nothing."""
    return t.name.endswith(".naive")


def enumerate_problem(func: Func, target: Target) -> Listing:
    """All candidates. The naive template's are listed only where nothing else takes the problem."""
    out = Listing()
    naive: list[Template] = []
    for t, reason in candidates(func, target):
        if reason is not None:
            out.dropped.append(reason)
        elif is_naive(t):
            naive.append(t)
        else:
            _add(out, t, func, target)
    if not out.ranked:
        for t in naive:
            _add(out, t, func, target)
    out.ranked.sort(key=lambda c: c.order)
    return out


def _add(out: Listing, t: Template, func: Func, target: Target) -> None:
    columns, gone = t.legal_columns(func, target)
    rows = rows_of(columns)
    out.dropped += [f"{t.name}: {n} configs: {why}" for why, n in gone]
    out.counts[t.name] = len(rows)
    if rows:
        costs = np.broadcast_to(np.asarray(t.cost(func, columns, target), np.float64).reshape(-1), (len(rows),))
        out.ranked += [Candidate(t, row, float(c)) for row, c in zip(rows, costs, strict=True)]
    config = t.default(func, target)
    if config is not None:
        one = {k: np.array([v]) for k, v in config.items()}
        cost = (
            float(np.asarray(t.cost(func, one, target), np.float64).reshape(-1)[0])
            if one
            else float(out.ranked[-1].cost if rows else 0.0)
        )
        out.defaults.append(Candidate(t, dict(config), cost))


def shortlist(listing: Listing, count: int) -> list[Candidate]:
    """The `count` best by cost, with every template's default and best config among them."""
    wanted: list[Candidate] = list(listing.defaults)
    seen_templates: set[str] = set()
    for c in listing.ranked:
        if c.template.name not in seen_templates:
            seen_templates.add(c.template.name)
            wanted.append(c)
    wanted += listing.ranked
    out: dict[str, Candidate] = {}
    for c in _until(wanted, count, len(listing.defaults) + len(seen_templates)):
        out.setdefault(c.label, c)
        if len(out) >= max(count, len(listing.defaults)):
            break
    return list(out.values())


def _until(items: list[Candidate], count: int, forced: int) -> Iterator[Candidate]:
    yield from items[: max(count + forced, forced)]


def random_candidate(func: Func, target: Target, seed: int, key: str) -> Candidate:
    """A legal config of a usable template, drawn evenly from all of them; the same for the same seed and problem."""
    listing = enumerate_problem(func, target)
    digest = hashlib.sha256(f"{seed}|{key}".encode()).digest()
    ordered = sorted(listing.ranked, key=lambda c: (c.template.name, json.dumps(c.config, sort_keys=True)))
    return ordered[int.from_bytes(digest[:8], "little") % len(ordered)]
