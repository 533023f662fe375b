# SPDX-License-Identifier: Apache-2.0
"""`cuda.mma_conv`: convolutions as implicit GEMM on tensor cores.

Rows are the result's pixels, columns output channels, K the window and input channels; groups are the batch. Tiles of
the input are gathered pixel by pixel, 16 bytes of channels at a time where a group has a multiple of 8 of them;
padding gives zeros. Weights whose rows are no multiple of 16 bytes are packed so.
"""

from __future__ import annotations

from tcc.codegen.cuda.templates.mma_gemm import Mma
from tcc.codegen.template import template
from tcc.ir.kernel import Conv, Func
from tcc.ir.targets import Target

FEWEST_CHANNELS = 16


@template
class MmaConv(Mma):
    """Convolutions on tensor cores."""

    name = "cuda.mma_conv"
    matches = (Conv,)

    def accepts(self, problem: Func, target: Target) -> str | None:
        domain = problem.anchor.domain
        if not all(isinstance(domain.extent(n), int) for n in ("g", "co", "ci")):
            return "a number of channels is free; bind it with --shape"
        groups, co, ci = (domain.int_extent(n) for n in ("g", "co", "ci"))
        if groups > 1 and min(co, ci) < FEWEST_CHANNELS:
            return f"its {groups} groups have {ci} input and {co} output channels: fewer than {FEWEST_CHANNELS}"
        return super().accepts(problem, target)
