# SPDX-License-Identifier: Apache-2.0
"""`cuda.recurrence`: a block for some sequences of a recurrent layer, for all steps. It fits every layer; `cuda.naive`
is it with one sequence a block and the weights as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import ceil_div, cheapest, clock
from tcc.codegen.cuda.templates.recurrence_unit import RecurrenceUnit, packing, packs
from tcc.codegen.template import (
    Columns,
    Config,
    Constraint,
    Emitted,
    Packing,
    Space,
    Template,
    entry_name,
    template,
)
from tcc.ir.expr import Dim, ceildiv, mul
from tcc.ir.kernel import Func, Recurrence
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target

ORDER = "kgh"
"""Neighbouring threads have neighbouring units."""
SHARED = 48 << 10


def row_bytes(u: RecurrenceUnit) -> int:
    """Shared memory for the states and sums of a sequence."""
    return (u.states + 1 + u.carried + max(u.anchor.gates) + u.anchor.quantized) * u.hidden * u.acc.bytes


def block_refuses(problem: Func, target: Target) -> str | None:
    """Why the kernel of `recurrence.cuh` cannot do a layer, or None."""
    domain = problem.anchor.domain
    if not isinstance(domain.extent("h"), int):
        return "the number of units is an argument, and it takes a number only"
    if not isinstance(domain.extent("b"), int) and row_bytes(RecurrenceUnit(problem, target)) > SHARED:
        return "the states do not fit 48 KiB of shared memory, and how many sequences there are is an argument"
    return None


def emit_block(problem: Func, target: Target, entry: str, threads: int, rows: int, packed: bool) -> Emitted:
    """The kernel of `recurrence.cuh`."""
    u = RecurrenceUnit(problem, target, entry, ORDER if packed else "")
    grid = ceildiv(u.batch, rows)
    held: Dim = rows
    if u.anchor.quantized:  # one block has all sequences
        grid, held = 1, mul(grid, rows)
    inside = isinstance(held, int) and held * row_bytes(u) <= SHARED
    u.define()
    u.unit.define(THREADS=threads, ROWS=rows)
    u.unit.macro(IN_SHARED=int(inside))
    if inside:
        assert isinstance(held, int)
        u.unit.define(HELD_ROWS=held)
    else:
        assert isinstance(grid, int) and isinstance(held, int)
        u.unit.workspace(u.acc, max(grid * held, 1) * row_bytes(u) // u.acc.bytes)
    launch = u.unit.launch((grid, 1, 1), threads, writes_work=not inside)
    return u.unit.emitted(
        u.unit.source(*u.templates, "recurrence.cuh"), [launch], instruction="FMA", grid=grid, block=threads,
        placement={"states": "shared" if inside else "global", "weights": "global"},
    )  # fmt: skip


@template
class RecurrenceBlock(Template):
    """`rows` sequences a block."""

    name = "cuda.recurrence"
    kind = "cuda"
    matches = (Recurrence,)
    space = Space(threads=[64, 128, 256, 512, 1024], rows=[1, 2, 4, 8])
    legal = (
        Constraint("rows",
                   lambda c, p, t: (c["rows"] == 1) | (c["rows"] < 2 * typical(p).anchor.domain.int_extent("b")),
                   "a block has fewer than twice the sequences"),
        Constraint("shared", lambda c, p, t: (c["rows"] == 1) | (c["rows"] * row_bytes(RecurrenceUnit(p, t)) <= SHARED),
                   "the states and sums of several sequences fit 48 KiB of shared memory"),
        Constraint("registers", lambda c, p, t: c["threads"] * (64 + 2 * c["rows"]) <= t.registers,
                   "the registers of a block's threads fit"),
    )  # fmt: skip

    def accepts(self, problem: Func, target: Target) -> str | None:
        return block_refuses(problem, target)

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # A step streams the weights from the L2 cache through one SM, then meets twice a stage.
        u, c = RecurrenceUnit(typical(problem), target), configs
        assert isinstance(u.batch, int) and isinstance(u.steps, int)
        outputs = max(u.gates * u.hidden, 1)
        # One block has all sequences that are quantized together.
        waves = np.ceil(ceil_div(u.batch, c["rows"]) / (1 if u.anchor.quantized else target.cores))
        turns = np.ceil(outputs / c["threads"])
        each = turns * c["threads"] * u.hidden * (0.03 + c["rows"] / 128.0) + turns * u.hidden * 4.0
        region = np.ceil(u.hidden * c["rows"] / c["threads"]) * 200.0
        cycles = u.steps * (each + region + 200.0 * len(u.anchor.stages))
        return target.launch_seconds + waves * cycles / clock(target)

    def pack(self, problem: Func, config: Config, target: Target) -> list[Packing]:
        return [packing(problem, ORDER)] if packs(problem) else []

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        entry = entry_name(problem, self.name, config)
        return emit_block(problem, target, entry, config["threads"], config["rows"], packs(problem))
