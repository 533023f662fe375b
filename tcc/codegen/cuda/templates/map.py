# SPDX-License-Identifier: Apache-2.0
"""`cuda.map`: pointwise kernels with accesses of up to 16 bytes, and tiles in shared memory where operands are
transposed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.codegen.cuda.emit import Unit, register
from tcc.codegen.cuda.emit.order import by_stride, mergeable
from tcc.codegen.cuda.emit.unit import function
from tcc.codegen.cuda.templates.common import (
    BLOCK_SECONDS,
    ceil_div,
    cheapest,
    free_extent,
    instruction_rate,
    parallel_size,
)
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Func, Map
from tcc.ir.targets import Target


def flat_unit(problem: Func, target: Target, entry: str = "unnamed") -> Unit:
    """A unit over fp: all parallel dims, in the order of the first result's memory."""
    plain = Unit(problem, target, entry)
    order = by_stride(plain.result(0), problem.anchor.domain.parallel_names)
    return Unit(problem, target, entry, {"fp": order})


@dataclass(frozen=True)
class Transposition:
    """Operands `operands` are consecutive along dims `p`, the first result along `q`; `outer` are the others."""

    operands: tuple[int, ...]
    outer: tuple[str, ...]
    p: tuple[str, ...]
    q: tuple[str, ...]

    @property
    def flat(self) -> dict[str, tuple[str, ...]]:
        return {"fo": self.outer, "fp": self.p, "fq": self.q}


def transposition(problem: Func, target: Target) -> Transposition | None:
    """How the problem transposes, None if no operand lies across the first result."""
    unit = Unit(problem, target, "unnamed")
    dims = [d for d in problem.anchor.domain.parallel_names if unit.extents[d] > 1]
    result = unit.result(0)
    order = by_stride(result, dims)
    if not order or result.stride(order[-1]) != 1:
        return None
    across: dict[str, list[int]] = {}
    for i, access in enumerate(unit.operands):
        own = [d for d in dims if access.stride(d) == 1 and not access.indirect]
        if own and own[0] != order[-1] and access.uses(order[-1]):
            across.setdefault(own[0], []).append(i)
    if not across:
        return None
    inner, operands = max(across.items(), key=lambda item: len(item[1]))
    both = [result, *(unit.operand(i) for i in operands)]
    q = _grow(order, order[-1], both, unit, {inner})
    p = _grow(by_stride(unit.operand(operands[0]), dims), inner, both, unit, set(q))
    outer = tuple(d for d in problem.anchor.domain.parallel_names if d not in p and d not in q)
    sizes = {name: int(np.prod([unit.extents[d] for d in members], dtype=np.int64)) for name, members in
             (("p", p), ("q", q))}  # fmt: skip
    return Transposition(tuple(operands), outer, p, q) if min(sizes.values()) >= 8 else None


def _grow(order: tuple[str, ...], inner: str, accesses: list[Any], unit: Unit, taken: set[str]) -> tuple[str, ...]:
    """`inner` and the dims outside of it that all accesses walk as one with it."""
    group = [inner]
    at = order.index(inner)
    for d in reversed(order[:at]):
        if d in taken or not mergeable(accesses, d, group[0], unit.extents[group[0]]):
            break
        group.insert(0, d)
    return tuple(group)


def _vector_fits(c: Columns, problem: Func, target: Target) -> Any:
    unit = flat_unit(problem, target)
    widths = {int(v) for v in c["vector"]}
    whole = unit.result(0).dtype.bytes
    fits = {
        v: v == 1 or (v * whole <= 32 and unit.result(0).pattern("fp", v) == "vector") for v in widths
    }  # fmt: skip
    return np.array([fits[int(v)] for v in c["vector"]])


RULES = (
    Constraint("vector", _vector_fits, "V consecutive points are V aligned elements of the result, at most 32 bytes"),
    Constraint(
        "tile", lambda c, p, t: (c["tile"] == 0) | ((c["vector"] == 1) & (c["items"] == 1)),
        "a tiled transpose does one element at a time",
    ),
    Constraint(
        "transposed", lambda c, p, t: (c["tile"] == 0) | (transposition(p, t) is not None),
        "no operand is transposed, so a tile has no use",
    ),
    Constraint("shared", lambda c, p, t: _tile_bytes(c, p, t) <= 48 << 10, "the tile fits 48 KiB of shared memory"),
)  # fmt: skip


def _tile_bytes(c: Columns, problem: Func, target: Target) -> Any:
    how = transposition(problem, target)
    size = sum(max(4, Unit(problem, target, "").operand(i).dtype.bytes) for i in how.operands) if how else 0
    return c["tile"] * (c["tile"] + 1) * size


@template
class MapTemplate(Template):
    """Pointwise kernels."""

    name = "cuda.map"
    kind = "cuda"
    matches = (Map,)
    space = Space(vector=[1, 2, 4, 8, 16], items=[1, 2, 4], threads=[64, 128, 256, 512], tile=[0, 32, 64])
    legal = RULES

    def accepts(self, problem: Func, target: Target) -> str | None:
        return free_extent(problem) or (
            "2^34 points or more are too many for one launch" if parallel_size(problem) >= 1 << 34 else None
        )

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        c = configs
        points = max(parallel_size(problem), 1)
        tiled = c["tile"] > 0
        unit = flat_unit(problem, target)
        how = transposition(problem, target)
        moved = np.zeros(len(tiled))
        instructions = 12.0 + 6.0 * sum(1 for _ in problem.anchor.regions[0].block.ops)
        for i, access in enumerate((*unit.operands, *unit.results)):
            size = access.dtype.bytes
            transposed = how is not None and i in how.operands
            near = access.pattern("fp", 2, anywhere=True) != "scalar" or points < 4
            # Where neighbours are apart, a 32-byte sector for each element; half of it is used while it is in the L1.
            moved += np.where(tiled, size, size if near and not transposed else 16)
            wide = near and not transposed
            loads = np.where(tiled | (not wide), 1.0, 1.0 / np.minimum(c["vector"], max(1, 16 // size)))
            instructions = instructions + loads * (14.0 if tiled.any() or not wide else 8.0)
        per_thread = np.where(tiled, c["tile"] * c["tile"] // c["threads"], c["vector"] * c["items"])
        blocks = np.ceil(points / (per_thread * c["threads"]))
        resident = 2048 // c["threads"] * target.cores
        running = np.minimum(blocks, resident) * c["threads"]
        in_flight = np.maximum(running * np.minimum(per_thread, 8) * moved / max(len(unit.operands), 1), 1.0)
        rate = np.minimum(target.memory_rate, in_flight / 7e-7)
        seconds = np.maximum(moved * points / rate, instructions * points / (0.6 * instruction_rate(target)))
        seconds = np.maximum(seconds, BLOCK_SECONDS * blocks)
        steep = np.where(tiled, 1.0 + 0.06 * np.abs(np.log2(per_thread / 16.0)), 1.0)
        uneven = np.maximum(1.0, np.ceil(blocks / target.cores) * target.cores / blocks)
        serial = 2e-7 + 1.5e-8 * per_thread
        return (
            target.launch_seconds
            + np.maximum(seconds * steep * np.minimum(uneven, 1.3), serial)
            + 0.15 * BLOCK_SECONDS * blocks
        )

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        entry = entry_name(problem, self.name, config)
        return (_emit_tiled if config["tile"] else _emit_flat)(problem, config, target, entry)


def _emit_flat(problem: Func, config: Config, target: Target, entry: str) -> Emitted:
    anchor = problem.anchor
    assert isinstance(anchor, Map)
    unit = flat_unit(problem, target, entry)
    vector, items, threads = config["vector"], config["items"], config["threads"]
    ins = range(len(anchor.ins))
    unit.writer("tcc_point", anchor.body, [], ins, ("fp",))
    unit.writer("tcc_points", anchor.body, [], ins, ("fp",), ("fp", vector) if vector > 1 else None)
    points = unit.extents["fp"]
    unit.define(V=vector, ITEMS=items, THREADS=threads, POINTS=points)
    # The block that reaches past the end counts too.
    unit.define(Coordinate="int" if points < (1 << 31) - (1 << 20) else "long long")
    blocks = ceil_div(points, vector * items * threads)
    return unit.emitted(
        unit.source("map.cuh"), [unit.launch((blocks, 1, 1), threads)], grid=blocks, block=threads, vector=vector
    )


def _emit_tiled(problem: Func, config: Config, target: Target, entry: str) -> Emitted:
    anchor = problem.anchor
    how = transposition(problem, target)
    assert isinstance(anchor, Map) and how is not None
    unit = Unit(problem, target, entry, how.flat)
    dims = ("fo", "fp", "fq")
    env = {d: f"x_{d}" for d in dims}
    fields = "\n".join(f"  {register(unit.operand(i).dtype)} t{i};" for i in how.operands)
    unit.add(f"struct Tiled {{\n{fields}\n}};\n")
    lines, names = unit.loads(how.operands, env)
    params = f"const Args& args, {unit.parameters(dims)}"
    stores = [f"tile.t{i} = {names[i]};" for i in how.operands]
    unit.add(function("tcc_read_tiled", f"{params}, Tiled& tile", [*lines, *stores]))
    direct = [i for i in range(len(anchor.ins)) if i not in how.operands]
    lines, names = unit.loads(direct, env)
    names |= {i: f"tile.t{i}" for i in how.operands}
    more, values, _ = unit.apply(anchor.body, [names[i] for i in range(len(anchor.ins))], env, stored=True)
    _, stores, _ = unit.stores(values, env)
    unit.add(function("tcc_write_tiled", f"{params}, const Tiled& tile", [*lines, *more, *stores]))
    tile, threads = config["tile"], config["threads"]
    unit.define(TILE=tile, THREADS=threads, P=unit.extents["fp"], Q=unit.extents["fq"])
    blocks = ceil_div(unit.extents["fp"], tile) * ceil_div(unit.extents["fq"], tile) * unit.extents["fo"]
    return unit.emitted(
        unit.source("map_tile.cuh"),
        [unit.launch((blocks, 1, 1), threads)],
        grid=blocks,
        block=threads,
        placement={"transposed": "shared"},
    )
