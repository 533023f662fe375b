# SPDX-License-Identifier: Apache-2.0
"""Matrix products in register tiles over packed panels."""

from __future__ import annotations

from tcc.codegen.llvm.templates.contraction import ContractionTiles
from tcc.codegen.template import template
from tcc.ir.kernel import MatMul


@template
class Gemm(ContractionTiles):
    """m × n tiles in registers over panels of the right factor."""

    name = "llvm.gemm"
    matches = (MatMul,)
