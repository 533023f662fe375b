# SPDX-License-Identifier: Apache-2.0
"""`schedule`: a template and a config for every kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tcc.compiler.emitted import emit
from tcc.ir.kernel.problem import kernels_of
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass


@register_pass
@dataclass(frozen=True)
class Schedule(Pass):
    """Gives every kernel its template and config, and what follows from them.

    `by` default: the no-search answer of the template that it costs least with; reference: the naive template; search:
    the fastest measured, as the options of the compilation say. Forced and locked choices hold whatever `by` says.

    before: `kernel.func() {sym_name = "k0"}`; after: the same with `template = "llvm.gemm"`, `config = {…}` and
    `derived = {…}`.
    """

    name: ClassVar[str] = "schedule"
    by: Literal["default", "reference", "search"] = "default"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        from tcc.compiler.search.choose import choose

        funcs = [f for f in kernels_of(module) if not f.template]
        chosen = choose(funcs, module, context, self.by)
        for f in funcs:
            template, config = chosen[f.sym_name]
            rewriter.set_attr(f, "template", template.name)
            rewriter.set_attr(f, "config", config)
            rewriter.set_attr(f, "derived", _attribute(emit(f, context.target).derived))


def _attribute(value: Any) -> Any:
    """A template's facts as attributes: tuples for lists."""
    if isinstance(value, Mapping):
        return {str(k): _attribute(v) for k, v in value.items()}
    return tuple(map(_attribute, value)) if isinstance(value, list | tuple) else value
