# SPDX-License-Identifier: Apache-2.0
"""`precision`: tensors and arithmetic in 16 bits, or products in tf32."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from tcc.ir.core import Op
from tcc.ir.graph.base import tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import BF16, F16, F32
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import functions
from tcc.passes.graph.precision.narrow import Narrower

PRODUCTS = ("graph.matmul", "graph.conv", "graph.conv_transpose", "graph.attention")


@register_pass
@dataclass(frozen=True)
class Precision(Pass):
    """Keeps f32 tensors in f16 or bf16, or lets f32 products use tf32.

    before: `%1 = graph.conv(%x, %w)`, `%2 = graph.relu(%1)` in f32; after `to=f16`: `%c = graph.cast(%x) {to = f16}`,
    the two ops in f16, and a cast back where the function returns. Inputs, outputs, integers and f64 keep their types;
    in f32 stay, each with a remark: sums, exponentials, logarithms, powers, roots and squares outside of a norm, what
    comes from integers, and ops with constants that 16 bits do not hold. Numbers that hide scores in a mask are clamped
    to the least that is finite. After `to=tf32` products of f32 tensors have the attribute `tcc.allow = ["tf32"]`,
    which lowering gives to their kernels. Nodes that the module's option `keep_f32` names (patterns of ONNX node names)
    keep f32 in either case, and so does what follows them up to the next product.
    """

    name: ClassVar[str] = "precision"
    to: Literal["f16", "bf16", "tf32"] = "f16"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        kept = Kept(tuple(context.options.get("keep_f32", ())))
        for function in functions(module):
            if self.to != "tf32":
                Narrower(F16 if self.to == "f16" else BF16, rewriter, kept).run(function.block)
                continue
            for op in function.walk():
                if op.name in PRODUCTS and tensor_type(op.operands[0]).dtype is F32 and not kept(op):
                    rewriter.set_attr(op, "tcc.allow", ("tf32",))


@dataclass(frozen=True)
class Kept:
    """Whether an op comes from a node that one of the patterns names."""

    patterns: tuple[str, ...]

    def __call__(self, op: Op) -> bool:
        return any(self.names(name) for name in op.loc)

    def names(self, node: str) -> bool:
        """Whether a pattern is the node's name, or matches it as a file name."""
        return any(node == p or fnmatchcase(node, p) for p in self.patterns)
