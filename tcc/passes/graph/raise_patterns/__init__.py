# SPDX-License-Identifier: Apache-2.0
"""`raise-patterns`: norms and attention that exporters spelled out become one op again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter, apply_patterns
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.raise_patterns.attention import raise_attention
from tcc.passes.graph.raise_patterns.norms import add_bias, add_scale, raise_norm


@register_pass
@dataclass(frozen=True)
class RaisePatterns(Pass):
    """Recognises layer norm, RMS norm and scaled dot-product attention, so that each gets its own kernel.

    before: reduce mean, sub, mul, reduce mean, add, sqrt, div; after: `graph.layer_norm`.
    before: matmul, mul, add, softmax, matmul; after: `graph.attention`.
    """

    name: ClassVar[str] = "raise-patterns"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        patterns = {
            "graph.div": [raise_norm],
            "graph.mul": [raise_norm, add_scale],
            "graph.add": [add_bias],
            "graph.matmul": [raise_attention],
        }
        apply_patterns(module, patterns, rewriter)
