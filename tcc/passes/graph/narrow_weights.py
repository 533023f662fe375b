# SPDX-License-Identifier: Apache-2.0
"""`narrow-weights`: integer weights in the narrowest type that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.ir.core import Op
from tcc.ir.graph import Cast, Conv, Matmul
from tcc.ir.graph.base import tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import I8, I16, I32
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, constant, content, functions, insert


@register_pass
@dataclass(frozen=True)
class NarrowWeights(Pass):
    """Stores constant i32 weights of products and convolutions as i8 or i16 where no value is lost.

    before: `graph.matmul(%x, %w)` with a constant `%w` of i32, zero points taken off; after: `%1 = graph.cast(%w)` of
    an i8 constant, and the product reads it through the cast: one row times weights moves a quarter of the memory.
    For targets whose kernels widen what they read: the CPU. It runs when no more constants are folded.
    """

    name: ClassVar[str] = "narrow-weights"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        if context.target is None or context.target.is_cuda:
            return
        for function in functions(module):
            for block in list(blocks(function)):
                for op in list(block.ops):
                    _narrow(op, rewriter)


def _narrow(op: Op, rewriter: Rewriter) -> None:
    if not isinstance(op, Matmul | Conv) or (isinstance(op, Conv) and op.group != 1):
        return
    weights = op.operands[1]
    array = content(weights) if tensor_type(weights).dtype == I32 else None
    if array is None or array.size < 2:
        return
    lo, hi = int(array.min()), int(array.max())
    for dtype in (I8, I16):
        limits = np.iinfo(dtype.numpy)
        if limits.min <= lo and hi <= limits.max:
            narrow = constant(rewriter, op, array.astype(dtype.numpy))
            op.set_operand(1, insert(rewriter, op, Cast(narrow, to=I32)).y)
            rewriter.changed = True
            rewriter.remark(op, "narrow", f"weights in {dtype}", f"they lie in [{lo}, {hi}]")
            return
