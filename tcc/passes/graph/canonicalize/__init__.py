# SPDX-License-Identifier: Apache-2.0
"""`canonicalize`: identities and short forms, until none applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter, apply_patterns
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.canonicalize import arithmetic, control, loops, movement, places, windows
from tcc.passes.graph.canonicalize.table import PATTERNS
from tcc.passes.graph.common import functions

assert arithmetic and control and loops and movement and places and windows  # they fill PATTERNS


@register_pass
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Removes ops that do nothing, merges neighbours, and writes what remains in one way.

    before: `%1 = graph.transpose(%0) {perm = [0, 2, 1]}`, `%2 = graph.transpose(%1) {perm = [0, 2, 1]}`, `%3 =
    graph.mul(%one, %2)`; after: `%0`. Constants of pointwise ops stand on the right; chains of additions or
    multiplications of constants become one; reshapes, slices, pads, clips and casts in a row are merged; pads go into
    the convolutions that read them; an expansion that the reading op would do by broadcasting goes. Divisions become
    multiplications only where that is exact. Branches not taken go, and so do loops that make no trip and states that
    no iteration changes.
    """

    name: ClassVar[str] = "canonicalize"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            apply_patterns(function, PATTERNS, rewriter)
