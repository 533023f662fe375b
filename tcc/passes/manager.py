# SPDX-License-Identifier: Apache-2.0
"""Runs a pipeline over a module, and tells instruments about it.

While a pipeline runs, the module's `pipeline` attribute is what is still to run, so the module printed at any moment
is a complete program.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tcc.errors import FailureError, TccError
from tcc.ir.declare import IRError
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.verifier import verify
from tcc.passes.base import Pass, PassContext
from tcc.passes.pipeline import parse_pipeline, print_pipeline


class PassFailure(FailureError):
    """A pass crashed or left IR that is not valid: a fault of the compiler. `reproducer` is the file that shows it."""

    def __init__(self, message: str, p: Pass, reproducer: str | None = None) -> None:
        super().__init__(message)
        self.failed = p
        self.reproducer = reproducer


@dataclass(frozen=True)
class Ran:
    """One pass that has run: `number` counts from 1 over all runs of the manager; `seconds` is wall time."""

    number: int
    the_pass: Pass
    changed: bool
    seconds: float


class Instrument:
    """What watches a run. `before` and `after` may read the module and must not change it."""

    def start(self, module: ModuleOp, context: PassContext) -> None:
        """A pipeline begins."""

    def before(self, p: Pass, module: ModuleOp, context: PassContext) -> None:
        """A pass is about to run."""

    def after(self, ran: Ran, module: ModuleOp, context: PassContext) -> None:
        """A pass has run."""

    def finish(self, module: ModuleOp, context: PassContext) -> None:
        """The pipeline is through, or has failed."""


class PassManager:
    """Runs pipelines. One manager may run several, one after another: pass numbers go on."""

    def __init__(self, instruments: Sequence[Instrument] = (), verify_each: bool = False) -> None:
        self.instruments = list(instruments)
        self.verify_each = verify_each
        self.count = 0

    def run(
        self, module: ModuleOp, pipeline: str | Sequence[Pass], context: PassContext | None = None, then: str = ""
    ) -> PassContext:
        """Run the passes; `then` is the pipeline that follows later and stays in the module's `pipeline` attribute.

        IRError if the module is not valid to begin with; PassFailure if a pass crashes or leaves it not valid; a
        TccError that a pass raises (the input cannot be compiled) goes through as it is.
        """
        passes = parse_pipeline(pipeline) if isinstance(pipeline, str) else list(pipeline)
        context = PassContext() if context is None else context
        context.resources = module.resources
        _set_pipeline(module, passes, then)
        verify(module)
        for each in self.instruments:
            each.start(module, context)
        try:
            for i, p in enumerate(passes):
                self._one(p, passes[i + 1 :], module, context, then)
            if not self.verify_each and passes:
                self._verify(passes[-1], module)
        finally:
            for each in self.instruments:
                each.finish(module, context)
        return context

    def _one(self, p: Pass, rest: Sequence[Pass], module: ModuleOp, context: PassContext, then: str) -> None:
        self.count += 1
        for each in self.instruments:
            each.before(p, module, context)
        rewriter = Rewriter(p.name, context.decisions)
        begun = time.perf_counter()
        try:
            p.run(module, rewriter, context)
        except Exception as e:
            if isinstance(e, TccError) and not isinstance(e, IRError):
                raise
            raise PassFailure(f"the pass {p.name} failed: {type(e).__name__}: {e}", p) from e
        seconds = time.perf_counter() - begun
        _set_pipeline(module, rest, then)
        if self.verify_each:
            self._verify(p, module)
        for each in self.instruments:
            each.after(Ran(self.count, p, rewriter.changed, seconds), module, context)

    def _verify(self, p: Pass, module: ModuleOp) -> None:
        try:
            verify(module)
        except IRError as e:
            raise PassFailure(f"after the pass {p.name} the IR is not valid: {e}", p) from e


def _set_pipeline(module: ModuleOp, rest: Sequence[Pass], then: str) -> None:
    module.attrs["pipeline"] = ",".join(text for text in (print_pipeline(rest), then) if text)


def run_passes(module: ModuleOp, pipeline: str | Sequence[Pass], context: PassContext | None = None) -> PassContext:
    """Run a pipeline plainly, verifying after each pass: what tests and scripts want."""
    return PassManager(verify_each=True).run(module, pipeline, context)
