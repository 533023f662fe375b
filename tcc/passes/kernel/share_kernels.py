# SPDX-License-Identifier: Apache-2.0
"""`share-kernels`: launches of equal kernels call one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.core import union_loc
from tcc.ir.kernel import Func, LaunchOp
from tcc.ir.kernel.problem import kernel_key, kernels_of
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass


@register_pass
@dataclass(frozen=True)
class ShareKernels(Pass):
    """Keeps the first of each set of kernels that are equal up to names and locs.

    before: `@k0` and `@k4` equal, one launch each; after: both launches call `@k0`, whose loc names both nodes.
    """

    name: ClassVar[str] = "share-kernels"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        first: dict[str, Func] = {}
        instead: dict[str, Func] = {}
        for f in kernels_of(module):
            known = first.setdefault(kernel_key(f), f)
            if known is not f:
                instead[f.sym_name] = known
        for op in module.walk():
            if isinstance(op, LaunchOp) and op.callee in instead:
                rewriter.set_attr(op, "callee", instead[op.callee].sym_name)
        for f in kernels_of(module):
            if f.sym_name in instead:
                known = instead[f.sym_name]
                known.loc = union_loc(known.loc, f.loc)
                rewriter.erase(f)
