# SPDX-License-Identifier: Apache-2.0
"""Convolutions as implicit matrix products: rows are output pixels, whose taps are found as they are needed."""

from __future__ import annotations

from tcc.codegen.llvm.templates.contraction import ContractionTiles
from tcc.codegen.template import template
from tcc.ir.kernel import Conv


@template
class ConvTiles(ContractionTiles):
    """Output pixels × channels tiles in registers over panels of the weights."""

    name = "llvm.conv"
    matches = (Conv,)
