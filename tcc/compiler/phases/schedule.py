# SPDX-License-Identifier: Apache-2.0
"""`schedule`: a template and a config for every kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from tcc.codegen.template import Template, candidates
from tcc.compiler.emitted import emit
from tcc.errors import FailureError
from tcc.ir.kernel import Func
from tcc.ir.kernel.problem import kernels_of
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.targets import Target
from tcc.passes.base import Pass, PassContext, register_pass


@register_pass
@dataclass(frozen=True)
class Schedule(Pass):
    """Gives every kernel its template and config, and what follows from them.

    `by` default: the first template's no-search answer; reference: the naive template; search: the fastest measured,
    as the options of the compilation say.

    before: `kernel.func() {sym_name = "k0"}`; after: the same with `template = "llvm.gemm"`, `config = {…}` and
    `derived = {…}`.
    """

    name: ClassVar[str] = "schedule"
    by: Literal["default", "reference", "search"] = "default"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        funcs = [f for f in kernels_of(module) if not f.template]
        if self.by == "search":
            from tcc.compiler.search.choose import choose

            chosen = choose(funcs, module, context)
        else:
            chosen = {f.sym_name: default_choice(f, context.target, self.by == "reference") for f in funcs}
        for f in funcs:
            template, config = chosen[f.sym_name]
            rewriter.set_attr(f, "template", template.name)
            rewriter.set_attr(f, "config", config)
            rewriter.set_attr(f, "derived", dict(emit(f, context.target).derived))
            if self.by != "search":
                rewriter.decisions.add(self.name, "tactic", f, f"{template.name} {config}", "the no-search answer")


def default_choice(func: Func, target: Target, reference: bool = False) -> tuple[Template, dict[str, object]]:
    """The no-search answer: the first specialised template that takes the problem, by estimated cost; the naive one
    where none does, or for `reference`."""
    best: tuple[float, str, Template, dict[str, object]] | None = None
    for t, reason in candidates(func, target):
        naive = t.name.endswith(".naive")
        if reason is not None or (naive != reference and reference):
            continue
        config = t.default(func, target)
        if config is None:
            continue
        columns = {k: np.array([v]) for k, v in config.items()}
        seconds = float("inf") if naive else float(t.cost(func, columns, target).reshape(-1)[0])
        if best is None or (seconds, t.name) < best[:2]:
            best = (seconds, t.name, t, config)
    if best is None:
        why = "; ".join(f"{t.name}: {r or 'no default'}" for t, r in candidates(func, target))
        raise FailureError(f"no template takes @{func.sym_name} ({', '.join(func.loc)}): {why or 'none matches'}")
    return best[2], best[3]
