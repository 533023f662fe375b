# SPDX-License-Identifier: Apache-2.0
"""`raise-patterns`: what exporters spell in small ops, as the one op that it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, functions
from tcc.passes.graph.raise_patterns.activations import raise_activation
from tcc.passes.graph.raise_patterns.attention import raise_attention
from tcc.passes.graph.raise_patterns.lookup import raise_lookup
from tcc.passes.graph.raise_patterns.rows import raise_norm, raise_softmax, take_affine


@register_pass
@dataclass(frozen=True)
class RaisePatterns(Pass):
    """Recognises activations, softmax, layer and RMS normalisation, attention and one-hot lookups.

    before: `%1 = graph.matmul(%q, %kt)`, `%2 = graph.mul(%1, %scale)`, `%3 = graph.add(%2, %mask)`, `%4 =
    graph.softmax(%3)`, `%5 = graph.matmul(%4, %v)`; after: `%5 = graph.attention(%q, %k, %v, %mask) {scale = ...}`.
    Activations, softmax and norms are recognised by value: the ops between a tensor and what may be the result are run
    on samples and compared with the candidates, so every spelling of one function is found. A candidate with other
    users inside, or a mask that is no mask, is left with a remark.
    """

    name: ClassVar[str] = "raise-patterns"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for rule in (raise_activation, raise_softmax, raise_norm, take_affine, raise_lookup, raise_attention):
            for function in functions(module):
                for block in list(blocks(function)):
                    for op in list(block.ops):
                        if op.parent is block:
                            rule(op, rewriter)
