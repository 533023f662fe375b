# SPDX-License-Identifier: Apache-2.0
"""Instruments that print: IR around passes, and the time passes take. Text is made only when it is to be shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

from tcc.ir.module import ModuleOp
from tcc.ir.printer import print_op
from tcc.passes.base import Pass, PassContext, lookup
from tcc.passes.manager import Instrument, Ran
from tcc.passes.pipeline import print_pass


def known_names(text: str) -> frozenset[str]:
    """The pass names of a comma-separated list; InputError names an unknown one."""
    return frozenset(lookup(name.strip()).name for name in text.split(",") if name.strip())


@dataclass
class PrintIR(Instrument):
    """Prints the module before or after passes, each under a line `// ----- IR after fuse{max-ops=16} (3) -----`.

    `before` and `after` are pass names; `after_all` prints after every pass, `on_change` after every pass that changed
    something (and what goes in, first).
    """

    before_names: frozenset[str] = frozenset()
    after_names: frozenset[str] = frozenset()
    before_all: bool = False
    after_all: bool = False
    on_change: bool = False
    generic: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def start(self, module: ModuleOp, context: PassContext) -> None:
        if self.on_change:
            self._show("IR that goes in", module)

    def before(self, p: Pass, module: ModuleOp, context: PassContext) -> None:
        if self.before_all or p.name in self.before_names:
            self._show(f"IR before {print_pass(p)}", module)

    def after(self, ran: Ran, module: ModuleOp, context: PassContext) -> None:
        p = ran.the_pass
        if self.after_all or p.name in self.after_names or (self.on_change and ran.changed):
            self._show(f"IR after {print_pass(p)} ({ran.number})", module)

    def _show(self, title: str, module: ModuleOp) -> None:
        print(f"// ----- {title} -----\n{print_op(module, self.generic)}", file=self.stream, flush=True)


@dataclass
class TimePasses(Instrument):
    """Prints a table of wall time by pass, slowest first, when the pipeline ends."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    rows: list[Ran] = field(default_factory=list[Ran])

    def after(self, ran: Ran, module: ModuleOp, context: PassContext) -> None:
        self.rows.append(ran)

    def finish(self, module: ModuleOp, context: PassContext) -> None:
        print(timing_table(self.rows), file=self.stream, flush=True)
        self.rows = []


def timing_table(rows: Iterable[Ran]) -> str:
    """Seconds, share, runs and changes by pass, slowest first, and the total."""
    seconds: dict[str, float] = {}
    runs: dict[str, int] = {}
    changes: dict[str, int] = {}
    for row in rows:
        name = row.the_pass.name
        seconds[name] = seconds.get(name, 0.0) + row.seconds
        runs[name] = runs.get(name, 0) + 1
        changes[name] = changes.get(name, 0) + row.changed
    total = sum(seconds.values())
    lines = ["     seconds   share  runs  changed  pass"]
    for name in sorted(seconds, key=lambda n: -seconds[n]):
        share = 100 * seconds[name] / total if total else 0.0
        lines.append(f"{seconds[name]:12.6f} {share:6.1f}% {runs[name]:5d} {changes[name]:8d}  {name}")
    lines.append(f"{total:12.6f} {100.0 if total else 0.0:6.1f}% {sum(runs.values()):5d}           total")
    return "\n".join(lines)
