# SPDX-License-Identifier: Apache-2.0
"""`cuda.recurrence_grid`: a recurrent layer by a grid of blocks that live through all steps and meet after each.

Every block has some of the units for all its life, so its rows of the weights may stay in its shared memory, and the
cells' states near it; what blocks tell each other at a step is the new state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tcc.codegen.cuda.emit import codec
from tcc.codegen.cuda.templates.common import ceil_div, clock, free_extent
from tcc.codegen.cuda.templates.recurrence_unit import RecurrenceUnit
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, rows_of, template
from tcc.ir.kernel import Func, Recurrence
from tcc.ir.targets import Target
from tcc.ir.types import I32, TensorType

STATIC = 48 << 10
MEET_SECONDS = 1.3e-6
"""All blocks of a group meeting once, by a counter in the L2 cache."""
SURE_BLOCKS = 16
"""Blocks that every GPU has room for at once; more only where they are measured on the device itself."""


def _weight_bytes(p: Func) -> int:
    t = p.anchor.operands[-1].type
    assert isinstance(t, TensorType)
    return t.dtype.bytes


def _slice(c: Columns, p: Func) -> Any:
    """Bytes of shared memory that a block's rows of the weights take."""
    d = p.anchor.domain
    return c["resident"] * d.int_extent("g") * c["units"] * d.int_extent("k") * _weight_bytes(p)


def _sums(c: Columns, p: Func) -> Any:
    anchor = p.anchor
    assert isinstance(anchor, Recurrence)
    return c["rows"] * max(anchor.gates) * c["units"] * anchor.acc.bytes


def _blocks(c: Columns, p: Func) -> Any:
    return ceil_div(p.anchor.domain.int_extent("h"), c["units"])


def _registers(c: Columns, p: Func, t: Target) -> Any:
    words = p.anchor.attrs["acc"].bytes // 4
    chunks = ceil_div(p.anchor.domain.int_extent("h"), 32)
    held = (c["rows"] * (chunks + 1)) * words
    return (held <= 128) & (c["warps"] * 32 * np.minimum(255, held + 56) <= t.registers)


@template
class RecurrenceGrid(Template):
    """`units` units a block, `groups` groups of sequences, `rows` of them at a time."""

    name = "cuda.recurrence_grid"
    kind = "cuda"
    matches = (Recurrence,)
    space = Space(
        units=[2, 4, 8, 16, 32, 64, 128, 256], warps=[4, 8, 16], rows=[1, 2, 4, 8], groups=[1, 2, 4, 8, 16],
        resident=[0, 1],
    )  # fmt: skip
    legal = (
        Constraint("units", lambda c, p, t: c["units"] < 2 * p.anchor.domain.int_extent("h"),
                   "a block has fewer than twice the units"),
        Constraint("groups", lambda c, p, t: c["groups"] <= np.maximum(p.anchor.domain.int_extent("b"), 1),
                   "there are not so many sequences"),
        Constraint("scale", lambda c, p, t: (c["groups"] == 1) | (not p.anchor.attrs["quantized"]),
                   "sequences that are quantized together are one group"),
        Constraint("rows", lambda c, p, t: c["rows"] * c["groups"] < 2 * np.maximum(p.anchor.domain.int_extent("b"), 1),
                   "fewer than twice the sequences of a group are done at a time"),
        Constraint("together", lambda c, p, t: _blocks(c, p) * c["groups"] <= t.cores,
                   "all blocks run at once, one on an SM"),
        Constraint("shared", lambda c, p, t: (_sums(c, p) <= STATIC // 2)
                   & (_slice(c, p) + _sums(c, p) <= t.shared_bytes - 1024),
                   "a block's weights and sums fit shared memory"),
        Constraint("registers", _registers, "the states that a warp multiplies fit its registers"),
    )  # fmt: skip

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        d = problem.anchor.domain
        if 0 in (d.int_extent("t"), d.int_extent("b"), d.int_extent("h")):
            return "a layer without steps, sequences or units"
        if d.int_extent("t") * len(problem.anchor.regions) * target.cores >= 1 << 31:
            return "more steps than the counter of meetings holds"
        if not len(self.legal_columns(problem, target)[0]["units"]):
            return "the state before does not fit the registers of a warp"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        columns, _ = self.legal_columns(problem, target)
        sure = _blocks(columns, problem) * columns["groups"] <= SURE_BLOCKS
        if not sure.any():
            return None
        few = {k: v[sure] for k, v in columns.items()}
        return rows_of(few)[int(np.argmin(self.cost(problem, few, target)))]

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        anchor, c = problem.anchor, configs
        assert isinstance(anchor, Recurrence)
        size = {n: anchor.domain.int_extent(n) for n in anchor.domain.names}
        chunks = ceil_div(size["h"], 32)
        passes = ceil_div(ceil_div(size["b"], c["groups"]), c["rows"])
        sums = ceil_div(size["g"] * c["units"], c["warps"])
        issue = chunks * (1.5 + c["rows"]) + 12.0 * c["rows"] + 20.0
        product = sums * issue * np.maximum(c["warps"] / 4.0, 2.5)
        streamed = size["g"] * c["units"] * size["k"] * _weight_bytes(problem) / 48.0
        product = np.where(c["resident"] == 1, product, np.maximum(product, streamed) + 300.0)
        scalars = np.ceil(c["rows"] * c["units"] / (32.0 * c["warps"])) * 250.0 + 700.0
        cycles = size["t"] * passes * (product + scalars * len(anchor.stages))
        blocks = _blocks(c, problem)
        meets = np.where(blocks > 1, size["t"] * len(anchor.stages) * MEET_SECONDS, 0.0)
        unsure = np.where(blocks * c["groups"] > SURE_BLOCKS, 2.0, 1.0)
        return target.launch_seconds + (cycles / clock(target) + meets) * unsure

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        u, c = RecurrenceUnit(problem, target, entry_name(problem, self.name, config)), config
        unit = u.unit
        unit.pdl = False  # blocks that wait for each other must not wait for places that other kernels hold
        blocks = ceil_div(u.hidden, c["units"])
        weights = unit.operand(len(u.anchor.operands) - 1)
        u.define()
        unit.define(
            BLOCKS=blocks, UNITS_HERE=c["units"], WARPS=c["warps"], ROWS=c["rows"], GROUPS=c["groups"],
            RESIDENT=bool(c["resident"]), WeightCodec=codec(weights.dtype),
        )  # fmt: skip
        address = weights.address({d: f"x_{d}" for d in "ghk"})
        unit.add(
            f"TCC_FN const {codec(weights.dtype)}::mem* tcc_weight_at(const Args& args, {unit.parameters('ghk')}) "
            f"{{\n  return {address};\n}}\n"
        )
        assert isinstance(u.batch, int)
        unit.workspace(u.acc, u.batch * (u.states + 1 + u.carried) * u.hidden)
        unit.workspace(I32, 32 * c["groups"], zeroed=True)
        shared = int(_slice({k: np.array(v) for k, v in c.items()}, problem))
        launch = unit.launch((blocks, c["groups"], 1), c["warps"] * 32, shared=shared, writes_work=True)
        launch = replace(launch, cooperative=blocks > 1)
        return unit.emitted(
            unit.source(*u.templates, "recurrence_grid.cuh"), [launch], instruction="FMA", grid=[blocks, c["groups"]],
            block=c["warps"] * 32, placement={"weights": "shared" if c["resident"] else "global", "states": "global"},
        )  # fmt: skip
