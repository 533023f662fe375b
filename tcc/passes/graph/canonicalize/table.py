# SPDX-License-Identifier: Apache-2.0
"""The patterns of `canonicalize` by op name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tcc.ir.rewriter import Pattern, Rewriter

PATTERNS: dict[str, list[Pattern]] = {}
Rule = Callable[[Any, Rewriter], bool]


def canonical(*names: str) -> Callable[[Rule], Rule]:
    """Function decorator: a pattern rooted at graph ops of those names; it returns whether it rewrote the op."""

    def add(rule: Rule) -> Rule:
        for n in names:
            PATTERNS.setdefault(f"graph.{n}", []).append(rule)
        return rule

    return add
