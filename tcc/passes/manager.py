# SPDX-License-Identifier: Apache-2.0
"""Runs a pipeline over a module, and tells instruments about it.

While a pipeline runs, the module's `pipeline` attribute is what is still to run, so the module printed at any moment
is a complete program.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.errors import FailureError, TccError
from tcc.ir.declare import IRError
from tcc.ir.module import ModuleOp
from tcc.ir.printer import print_op
from tcc.ir.rewriter import Decisions, Rewriter
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
    """Runs pipelines. One manager may run several, one after another: pass numbers go on.

    `verify_each` verifies after every pass instead of once at the end, and holds a pass to its word when it says that
    it changed nothing. `crash_dir` is where the reproducer of a failure goes (None: a new folder of the system's
    temporary one); `reproduce` False writes none.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument] = (),
        verify_each: bool = False,
        crash_dir: Path | None = None,
        reproduce: bool = True,
    ) -> None:
        self.instruments = list(instruments)
        self.verify_each = verify_each
        self.crash_dir = crash_dir
        self.reproduce = reproduce
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
        # A failure is replayed from this copy, so that no text is made while all goes well.
        kept = _copy(module) if self.reproduce and passes else None
        for each in self.instruments:
            each.start(module, context)
        try:
            for i, p in enumerate(passes):
                self._one(p, passes[i + 1 :], module, context, then)
            if not self.verify_each and passes:
                self._verify(passes[-1], module)
        except PassFailure as e:
            if kept is None:
                raise
            raise self._reproduced(e, kept, passes, context, then) from e.__cause__
        finally:
            for each in self.instruments:
                each.finish(module, context)
        return context

    def _one(self, p: Pass, rest: Sequence[Pass], module: ModuleOp, context: PassContext, then: str) -> None:
        self.count += 1
        for each in self.instruments:
            each.before(p, module, context)
        text = print_op(module) if self.verify_each else ""
        seconds, changed = _apply(p, module, context)
        if self.verify_each:
            self._verify(p, module)
            if not changed and print_op(module) != text:
                raise PassFailure(f"the pass {p.name} changed the IR behind its rewriter's back", p)
        _set_pipeline(module, rest, then)
        for each in self.instruments:
            each.after(Ran(self.count, p, changed, seconds), module, context)

    def _verify(self, p: Pass, module: ModuleOp) -> None:
        try:
            verify(module)
        except IRError as e:
            raise PassFailure(f"after the pass {p.name} the IR is not valid: {e}", p) from e

    def _reproduced(
        self, error: PassFailure, kept: ModuleOp, passes: Sequence[Pass], context: PassContext, then: str
    ) -> PassFailure:
        """The failure with the path of a reproducer, written to the crash folder."""
        from tcc.passes.dump import write_reproducer

        module, at = _replay(kept, passes, replace(context, decisions=Decisions()))
        _set_pipeline(module, passes[at:], then)
        folder = self.crash_dir or Path(tempfile.mkdtemp(prefix="tcc-crash-"))
        path = write_reproducer(module, folder, passes[at].name, str(error))
        return PassFailure(f"{error}; replay it with `tcc-opt --run-reproducer {path}`", error.failed, str(path))


def _apply(p: Pass, module: ModuleOp, context: PassContext) -> tuple[float, bool]:
    """Run one pass: (seconds, whether it changed something). PassFailure if it crashes."""
    rewriter = Rewriter(p.name, context.decisions)
    begun = time.perf_counter()
    try:
        p.run(module, rewriter, context)
    except Exception as e:
        if isinstance(e, TccError) and not isinstance(e, IRError):
            raise
        raise PassFailure(f"the pass {p.name} failed: {type(e).__name__}: {e}", p) from e
    return time.perf_counter() - begun, rewriter.changed


def _replay(kept: ModuleOp, passes: Sequence[Pass], context: PassContext) -> tuple[ModuleOp, int]:
    """The IR before the first pass that crashes or leaves it not valid, and that pass's place; where the failure
    does not come again, what went in and 0. Passes are deterministic, so running them again costs only time, and
    only when something has failed already."""
    work = _copy(kept)
    for i, p in enumerate(passes):
        before = _copy(work)
        try:
            _apply(p, work, context)
            verify(work)
        except TccError:
            return before, i
    return kept, 0


def _copy(module: ModuleOp) -> ModuleOp:
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    copy.resources = module.resources
    return copy


def _set_pipeline(module: ModuleOp, rest: Sequence[Pass], then: str) -> None:
    module.attrs["pipeline"] = ",".join(text for text in (print_pipeline(rest), then) if text)


def run_passes(module: ModuleOp, pipeline: str | Sequence[Pass], context: PassContext | None = None) -> PassContext:
    """Run a pipeline plainly, verifying after each pass and without reproducers: what tests and scripts want."""
    return PassManager(verify_each=True, reproduce=False).run(module, pipeline, context)
