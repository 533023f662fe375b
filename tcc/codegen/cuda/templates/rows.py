# SPDX-License-Identifier: Apache-2.0
"""`cuda.rows`: softmax, norms and their like: a warp, part of one or a block for each row, the row in registers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tcc.codegen.cuda.emit import Unit, codec, register
from tcc.codegen.cuda.emit.combine import identity, step
from tcc.codegen.cuda.emit.order import by_stride
from tcc.codegen.cuda.emit.scalar import used_arguments
from tcc.codegen.cuda.emit.unit import function, loop
from tcc.codegen.cuda.templates.common import (
    BLOCK_SECONDS,
    ceil_div,
    cheapest,
    clock,
    free_beside,
    memory_seconds,
    parallel_size,
    reduce_size,
)
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.core import Region
from tcc.ir.kernel import Func, Rows
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target

MOST_CACHED = 64
"""Elements of all cached operands that a thread may hold."""


def rows_unit(problem: Func, target: Target, entry: str = "unnamed") -> Unit:
    """A unit over fp (rows, in the first result's order) and fr (places in a row, in the first operand's order)."""
    anchor = problem.anchor
    plain = Unit(problem, target, entry)
    keep = by_stride(plain.result(0), anchor.domain.parallel_names)
    return Unit(problem, target, entry, {"fp": keep, "fr": by_stride(plain.operand(0), anchor.domain.reduce_names)})


def _cached(unit: Unit) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(operands that stages share along the row, operands that are one scalar for the row)."""
    anchor = unit.anchor
    assert isinstance(anchor, Rows)
    along: list[int] = []
    whole: list[int] = []
    for i in range(len(anchor.ins)):
        access = unit.operand(i)
        varies = access.uses("fr") or any(unit.operand(j).uses("fr") for j in access.indirect)
        uses = [used_arguments(r)[i] for r in anchor.stages]
        if not varies:
            whole.append(i)
        elif sum(uses) > 1:
            along.append(i)
    return tuple(along), tuple(whole)


def _width(unit: Unit) -> int:
    """The widest vector along the row of the first operand and the first result."""
    size = max(unit.operand(0).dtype.bytes, unit.result(0).dtype.bytes)
    width = 16 // size if size <= 16 else 1
    while width > 1 and (
        unit.extents["fr"] % width
        or unit.operand(0).pattern("fr", width) != "vector"
        or unit.result(0).pattern("fr", width) != "vector"
    ):
        width //= 2
    return width


def _vector_fits(c: Columns, problem: Func, target: Target) -> Any:
    return c["vector"] <= _width(rows_unit(problem, target))


def _cache_fits(c: Columns, problem: Func, target: Target) -> Any:
    operands = max(1, len(_cached(rows_unit(problem, target))[0]))
    chunks = ceil_div(reduce_size(problem), c["lanes"] * c["vector"])
    return ~c["cached"] | (chunks * c["vector"] * operands <= MOST_CACHED)


def _lanes_used(c: Columns, problem: Func, target: Target) -> Any:
    return (c["lanes"] == 1) | (c["lanes"] * c["vector"] < 2 * reduce_size(problem))


def _threads_fit(c: Columns, problem: Func, target: Target) -> Any:
    threads = c["lanes"] * c["rows"]
    return (threads >= 32) & (threads <= 1024) & ((c["along"] == "row") | (c["rows"] >= 8))


RULES = (
    Constraint("vector", _vector_fits, "V places in a row are V aligned elements of operand and result"),
    Constraint("cached", _cache_fits, f"a thread's part of the row is at most {MOST_CACHED} elements"),
    Constraint("lanes", _lanes_used, "every thread has a part of the row"),
    Constraint("threads", _threads_fit, "a block has 32 to 1024 threads, 8 neighbouring rows where those are apart"),
    Constraint(
        "across", lambda c, p, t: (c["along"] == "row") | ((c["vector"] == 1) & (c["lanes"] <= 32)),
        "neighbouring rows are read an element at a time by at most 32 threads a row",
    ),
    Constraint(
        "neighbours", lambda c, p, t: (c["along"] == "row") | rows_unit(p, t).operand(0).neighbours("fp"),
        "rows lie next to each other",
    ),
)  # fmt: skip


@template
class RowsTemplate(Template):
    """`lanes` threads a row, `rows` rows a block."""

    name = "cuda.rows"
    kind = "cuda"
    matches = (Rows,)
    space = Space(
        along=["row", "rows"],
        cached=[True, False],
        lanes=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
        rows=[1, 2, 4, 8, 16, 32, 64, 128],
        vector=[1, 2, 4, 8],
    )
    legal = RULES

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_beside(problem, problem.anchor.domain.parallel_names)) is not None:
            return sentence
        problem = typical(problem)
        if not len(problem.anchor.operands):
            return "there is no operand"
        if max(parallel_size(problem), reduce_size(problem)) >= 1 << 30:
            return "2^30 points or more"
        return None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (3.85, 6.37, 3.75, 11.5, 2.47, 1.91e-07, 3.97e-07, 8.0, 3.39)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles of a warp: a read or a store, an element in a stage, a step of a reduction, a thread's frame; how many
        # warps a scheduler needs to issue every cycle; seconds of a load's latency, of a block; use of the memory's
        # rate (above 1: data in the L2); cycles of a part of a row that another warp leaves in shared memory.
        read, element, tree, frame, hide, latency, around, use, part = self.weights
        c = configs
        rows, width = max(parallel_size(problem), 1), max(reduce_size(problem), 1)
        unit = rows_unit(problem, target)
        anchor = unit.anchor
        assert isinstance(anchor, Rows)
        size, stages = unit.operand(0).dtype.bytes, len(anchor.stages)
        along = c["along"] == "row"
        threads = c["lanes"] * c["rows"]
        blocks = ceil_div(rows, c["rows"])
        chunks = ceil_div(width, c["lanes"] * c["vector"])
        cached = max(1, len(_cached(unit)[0]))
        held = np.where(c["cached"], chunks * c["vector"] * cached, 8) + 40
        resident = np.maximum(1, np.minimum(2048, 65536 // np.minimum(held, 255)) // threads)
        near = np.where(along, unit.operand(0).neighbours("fr"), True)
        neighbours = np.where(near, np.where(along, c["lanes"] * c["vector"], c["rows"]) * size, size)
        wasted = np.maximum(1.0, 32.0 / np.minimum(neighbours, 32))
        passes = np.where(c["cached"], 1, stages)
        issue = chunks * (read * (passes * len(anchor.ins) + len(anchor.outs)) + stages * c["vector"] * element)
        parts = np.where(along, ceil_div(c["lanes"], 32), c["lanes"]) - 1
        meet = np.where(along, np.log2(np.minimum(c["lanes"], 32)), 0) * tree + parts * part
        issue = issue + (stages - 1) * meet + frame
        together = np.minimum(resident, ceil_div(blocks, target.cores))
        waves = np.maximum(1.0, blocks / (resident * target.cores))
        cycles = issue * np.maximum(together * threads / 128.0, hide)
        loads = passes * np.where(c["cached"], 1.0, chunks / 2.0) * latency
        serial = waves * (np.maximum(cycles / clock(target), loads) + around)
        moved = memory_seconds(problem, target) * wasted / use
        crowd = np.maximum(moved, BLOCK_SECONDS * blocks)
        return target.launch_seconds + np.maximum(crowd, serial) + threads * 1e-11

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        unit = rows_unit(problem, target, entry_name(problem, self.name, config))
        _Generator(unit, config).define()
        lanes, rows, vector = config["lanes"], config["rows"], config["vector"]
        points, width = unit.sizes["fp"], unit.extents["fr"]
        chunks = ceil_div(width, lanes * vector) if config["cached"] else 1
        unit.define(
            LANES=lanes, ROWS=rows, V=vector, CACHED=config["cached"], LANE_FASTEST=config["along"] == "row",
            CHUNKS=chunks, WIDTH=width, Coordinate=unit.coordinate_type("fp"), Acc=codec(unit.anchor.attrs["acc"]),
        )  # fmt: skip
        unit.macro(POINTS=unit.size("fp"))
        grid = ceil_div(points, rows)
        return unit.emitted(
            unit.source("rows.cuh"),
            [unit.launch((grid, 1, 1), lanes * rows)],
            grid=grid,
            block=lanes * rows,
            placement={"row": "registers" if config["cached"] else "global"},
        )


class _Generator:
    """The generated functions of `rows.cuh`."""

    def __init__(self, unit: Unit, config: Config) -> None:
        self.unit = unit
        anchor = unit.anchor
        assert isinstance(anchor, Rows)
        self.anchor = anchor
        self.cached = bool(config["cached"])
        self.width = int(config["vector"])
        self.vector = ("fr", self.width) if self.width > 1 else None
        along, self.whole = _cached(unit)
        self.along = along if self.cached else ()
        self.env = {"fp": "x_fp", "fr": "x_fr"}

    def define(self) -> None:
        unit = self.unit
        fields = [f"{register(unit.operand(i).dtype)} c{i}[CHUNKS][V];" for i in self.along]
        fields += [f"{register(unit.operand(i).dtype)} s{i};" for i in self.whole]
        unit.add("struct Row {\n" + "\n".join(f"  {f}" for f in fields) + "\n};\n")
        point = unit.parameters(("fp",))
        lines, names = unit.loads(self.whole, self.env)
        unit.add(
            function("tcc_load_row", f"const Args& args, {point}, Row& row",
                     [*lines, *(f"row.s{i} = {names[i]};" for i in self.whole)])
        )  # fmt: skip
        lines, names = unit.loads(self.along, self.env, self.vector)
        keep = [f"row.c{i}[chunk][j] = {names[i]};" for i in self.along]
        unit.add(
            function("tcc_load", f"const Args& args, {point}, const int x_fr, Row& row, const int chunk",
                     [*lines, *loop(self.width, keep)])
        )  # fmt: skip
        unit.insert("rows.cuh", self.stages())

    def region(
        self, region: Region, stages: list[str], stored: bool = False
    ) -> tuple[list[str], list[str], list[str], list[Any]]:
        """(statements before the loop over j, inside it, the values, their types) of a region at V places."""
        unit = self.unit
        used = used_arguments(region)
        direct = [
            i for i in range(len(self.anchor.ins)) if used[i] and i not in self.along and i not in self.whole
        ]  # fmt: skip
        lines, names = unit.loads(direct, self.env, self.vector)
        names |= {i: f"row.c{i}[chunk][j]" for i in self.along} | {i: f"row.s{i}" for i in self.whole}
        args = [names.get(i, "0") for i in range(len(self.anchor.ins))] + stages
        inside = dict(self.env) if self.vector is None else {**self.env, "fr": "(x_fr + j)"}
        inner, values, types = unit.apply(region, args, inside, stored=stored)
        return lines, inner, values, types

    def stages(self) -> str:
        """tcc_stages: each reduction over the row, then the results."""
        anchor, unit = self.anchor, self.unit
        acc = anchor.acc
        kind = register(acc)
        lines: list[str] = []
        stages: list[str] = []
        for i, (combiner, region) in enumerate(zip(anchor.combine, anchor.stages[:-1], strict=True)):
            before, inner, (value,), (t,) = self.region(region, stages)
            name = f"stage{i}"
            add = step(combiner, name, f"tcc::cast<{codec(acc)}, {codec(t)}>({value})", acc)
            body = [*before, *loop(self.width, [*inner, f"{name} = {add};"])]
            lines.append(f"{kind} {name} = {identity(combiner, acc)};")
            lines += self.each(body)
            both = step(combiner, "a", "b", acc)
            lines.append(
                f"{name} = reduce_lanes({name}, lane, slot, "
                f"[](const {kind} a, const {kind} b) -> {kind} {{ return {both}; }});"
            )
            stages.append(name)
        before, inner, values, _ = self.region(anchor.stages[-1], stages, stored=True)
        head, stored, tail = unit.stores(values, self.env, self.vector)
        body = [*before, *head, *loop(self.width, [*inner, *stored]), *tail]
        lines += ["if (!mine) return;", *self.each(body)]
        params = (
            f"const Args& args, {unit.parameters(('fp',))}, const int lane, const int slot, Row& row, const bool mine"
        )
        return function("tcc_stages", params, lines)

    def each(self, body: list[str]) -> list[str]:
        text = "\n".join(f"  {part}" for line in body for part in line.split("\n"))
        return [f"each_chunk(lane, [&](const int x_fr, const int chunk) {{\n{text}\n}});"]
