# SPDX-License-Identifier: Apache-2.0
"""`llvm.recurrence`: recurrent layers with packed weights, a group of sequences at a time.

With `parts` 1 a task takes a group through all steps. Else a stage of a step is a wave of tasks, each for a part of
the units, so that few sequences use all workers, and the weights of a part may stay in a core's own cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import Body, Int, KernelEmitter, Point, address, cast
from tcc.codegen.llvm.emit.values import compute_type, vector
from tcc.codegen.llvm.templates.recurrence_quantized import QuantizedSteps
from tcc.codegen.llvm.templates.recurrence_write import Steps, Weight
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Packing, Space, Template, template
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import BlockArgument
from tcc.ir.expr import Dim, Sym, add, ceildiv, mul, substitute
from tcc.ir.kernel import Func, Recurrence
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

VECTORS = [1, 2, 4]
ROWS = [1, 2, 3, 4, 6, 8]
PARTS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
BARRIER_SECONDS = 5e-5
"""Between two waves: a hundred times what it is where nothing else runs, as a worker that must wait for a core costs
far more still. The search measures what it is."""
STACK = 2 << 20
REGION_CYCLES = 150.0
"""The scalar work of a stage for a vector of units."""


def lanes_of(problem: Func, target: Target) -> int:
    """Elements of the accumulator's type in a vector."""
    return max(1, target.vector_bytes // problem.anchor.attrs["acc"].bytes)


def _blocks(columns: Columns, problem: Func, target: Target) -> Any:
    return -(-problem.anchor.domain.int_extent("h") // (lanes_of(problem, target) * columns["vectors"]))


def _registers(columns: Columns, problem: Func, target: Target) -> Any:
    anchor = problem.anchor
    assert isinstance(anchor, Recurrence)
    available = 32 if "avx512" in target.features else 16
    sums = max(anchor.gates) * columns["vectors"] * columns["rows"]
    return sums + columns["rows"] + (columns["rows"] > 1) <= available


def _useful_rows(columns: Columns, problem: Func, target: Target) -> Any:
    batch = problem.anchor.domain.extent("b")
    return columns["rows"] <= (max(1, batch) if isinstance(batch, int) else 1)


def _stack(columns: Columns, problem: Func, target: Target) -> Any:
    anchor = problem.anchor
    assert isinstance(anchor, Recurrence)
    width = _blocks(columns, problem, target) * columns["vectors"] * lanes_of(problem, target)
    places = anchor.states + 1 + sum(anchor.carried)
    if anchor.quantized:
        return columns["rows"] * width * 2 <= STACK
    return (columns["parts"] > 1) | (columns["rows"] * places * width * anchor.acc.bytes <= STACK)


def _useful_parts(columns: Columns, problem: Func, target: Target) -> Any:
    steps, batch = (problem.anchor.domain.extent(n) for n in "tb")
    if not isinstance(steps, int) or not isinstance(batch, int):
        return columns["parts"] == 1
    return (columns["parts"] == 1) | ((columns["parts"] <= _blocks(columns, problem, target)) & (steps * batch > 0))


@template
class RecurrenceBlocks(Template):
    """`rows` sequences together, `vectors` vectors of units of every gate in registers."""

    name = "llvm.recurrence"
    kind = "cpu"
    matches = (Recurrence,)
    space = Space(vectors=VECTORS, rows=ROWS, parts=PARTS)
    legal = (
        Constraint("registers", _registers, "the sums of a block do not fit in the vector registers"),
        Constraint("rows", _useful_rows, "there are not so many sequences, as far as is known"),
        Constraint("parts", _useful_parts, "there are not so many blocks of units, or a run decides how many steps"),
        Constraint("stack", _stack, "the states of a group fit the stack"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        if not isinstance(problem.anchor.domain.extent("h"), int):
            return "the number of units is an argument, and it takes a number only"
        return None if len(self.legal_columns(problem, target)[0]["rows"]) else "its states do not fit the stack"

    def default(self, problem: Func, target: Target) -> Config | None:
        columns, _ = self.legal_columns(problem, target)
        best = int(np.argmin(self.cost(problem, columns, target)))
        return {k: v[best].item() for k, v in columns.items()}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        problem = typical(problem)
        anchor = problem.anchor
        assert isinstance(anchor, Recurrence)
        size = {n: anchor.domain.int_extent(n) for n in anchor.domain.names}
        lanes, c = lanes_of(problem, target), configs
        vectors, rows, parts = c["vectors"], np.minimum(c["rows"], max(size["b"], 1)), c["parts"]
        blocks = _blocks(configs, problem, target)
        groups = -(-size["b"] // rows)
        # Workers side by side, each with a share of groups and parts; the weights that one streams at every step.
        tasks = groups * parts
        rounds = np.ceil(tasks / target.cores)
        share = np.ceil(blocks / parts)
        weights = anchor.weights.type
        assert isinstance(weights, TensorType)
        bytes_each = weights.dtype.bytes if anchor.quantized else anchor.acc.bytes
        held = size["g"] * size["k"] * share * vectors * lanes * bytes_each * np.ceil(parts / target.cores)
        load = np.where(held < target.l1_bytes, 0.6, np.where(held < 0.8 * target.l2_bytes, 1.6, 3.5))
        sums = size["g"] * vectors
        product = np.maximum(rows * sums / 2.0, np.maximum(load * sums, 4.0)) + 0.5 * rows
        # Integers go in pairs, with an instruction more for each.
        depth = size["k"] * 0.75 if anchor.quantized else size["k"]
        cycles = share * (depth * product + len(anchor.stages) * rows * vectors * REGION_CYCLES)
        if anchor.quantized:
            rounds = np.where(parts > 1, rounds, groups)
            cycles = cycles + len(anchor.stages) * (size["b"] + 3 * rows) * 3.0 * blocks * vectors
        waves = np.where(parts > 1, size["t"] * len(anchor.stages) * BARRIER_SECONDS, 0.0)
        return target.launch_seconds + rounds * size["t"] * cycles / 3.0e9 + waves

    def pack(self, problem: Func, config: Config, target: Target) -> list[Packing]:
        if not _packs(problem):
            return []
        width = lanes_of(problem, target) * config["vectors"]
        return [_paired(problem, width) if problem.anchor.attrs["quantized"] else _packing(problem, width)]

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        e = KernelEmitter(problem, self.name, config, target)
        if problem.anchor.attrs["quantized"]:
            q = QuantizedSteps(e, lanes_of(problem, target), config["vectors"], config["rows"], _packs(problem))
            quantized(q, config["parts"])
            how = "16-bit pairs" if q.pairs else "32-bit integers"
            return e.emitted(instruction=how, block=f"{q.rows} sequences, {q.block} units, {config['parts']} parts")
        s = Steps(e, lanes_of(problem, target), config["vectors"], config["rows"])
        packed = -1 if _packs(problem) else e.workspace(max(1, s.gates * s.units * s.width) * s.acc.bytes)

        def weight(body: Body, block: Int, gate: int, k: Int, v: int) -> Any:
            base = body.operands[-1].pointer if packed < 0 else body.workspaces[packed]
            row = e.add(e.mul(e.add(e.mul(block, s.gates), gate), s.units), k)
            at = address(e, base, e.add(e.mul(row, s.block), v * s.lanes), s.acc)
            return e.b.load(at, typ=vector(compute_type(s.acc), s.lanes), align=s.acc.bytes)

        read = () if packed < 0 else (packed,)
        if packed >= 0:
            _pack_launch(e, s, packed)
        if config["parts"] == 1:
            with e.launch(s.groups, scratch_read=read, heavy=True) as body:
                s.enter(body, None)
                with e.tasks(body.first, body.last) as task:
                    s.whole(body, weight, task)
        else:
            states = begin(s)
            waves(s, config["parts"], weight, states, read)
        return e.emitted(
            instruction="FMA" if "fma" in target.features else "multiply and add",
            block=f"{s.rows} sequences, {s.block} units, {config['parts']} parts",
        )


def begin(s: Steps) -> int:
    """A launch for the states before the first step; the workspace that they lie in."""
    e = s.e
    batch = s.anchor.domain.int_extent("b")
    states = e.workspace(max(1, batch) * s.row_bytes)
    with e.launch(batch, writes=(), scratch_written=(states,)) as body:
        s.enter(body, states)
        with e.tasks(body.first, body.last) as b:
            s.begin(body, b)
    return states


def waves(s: Steps, parts: int, weight: Weight, states: int, read: tuple[int, ...]) -> None:
    """A wave a stage."""
    e, stages = s.e, len(s.anchor.stages)
    count = s.anchor.domain.int_extent("t") * stages
    tasks = mul(s.groups, count * parts)
    with e.launch(tasks, scratch_written=(states,), scratch_read=(states, *read), waves=count) as body:
        s.enter(body, states)
        with e.tasks(body.first, body.last) as task:
            _wave(s, body, task, parts, weight)


def _wave(s: Steps, body: Body, task: Int, parts: int, weight: Weight) -> None:
    """One part of one group's stage."""
    e, stages = s.e, len(s.anchor.stages)
    assert isinstance(s.groups, int) and isinstance(s.steps, int)
    t, stage, group, part = e.unflatten(task, [s.steps, stages, s.groups, parts])
    first = e.mul(group, s.rows)
    low = e.floordiv(e.mul(part, s.blocks), parts, nonnegative=True)
    high = e.floordiv(e.mul(e.add(part, 1), s.blocks), parts, nonnegative=True)
    for i in range(stages):
        with e.when(e.equal(stage, i)):

            def rows(count: int, i: int = i) -> None:
                s.prepare(i, t, first, count)
                with s.every(low, high) as block:
                    s.stage(body, weight, i, t, first, count, block)

            s.groups_of(group, rows)


def quantized(s: QuantizedSteps, parts: int) -> None:
    """A layer whose state is quantized."""
    e = s.e
    weights = s.anchor.weights.type
    assert isinstance(weights, TensorType)
    dtype = weights.dtype

    def weight(body: Body, block: Int, gate: int, k: Int, v: int) -> Any:
        return s.weight(body, block, gate, k, v, dtype)

    states = begin(s)
    if parts > 1:
        waves(s, parts, weight, states, ())
        return
    with e.launch(1, scratch_written=(states,), scratch_read=(states,), heavy=True) as body:
        s.enter(body, states)
        with e.tasks(body.first, body.last):
            s.layer(body, weight)


def _packs(problem: Func) -> bool:
    """Whether the weights are a constant that nothing else of the kernel reads."""
    value = problem.anchor.operands[-1]
    assert isinstance(value, BlockArgument)
    return problem.is_const(value.index) and problem.anchor.operands.count(value) == 1


def _packing(problem: Func, width: int) -> Packing:
    """The weights as [block, gate, k, unit of the block], of the accumulator's type."""
    anchor = problem.anchor
    assert isinstance(anchor, Recurrence)
    value = anchor.operands[-1]
    assert isinstance(value, BlockArgument)
    size = {n: anchor.domain.int_extent(n) for n in "hgk"}
    dims = {"block": -(-size["h"] // width), "g": size["g"], "k": size["k"], "inside": width}
    ranges = {n: (0, max(d - 1, 0)) for n, d in dims.items()}
    env: dict[str, Dim] = {"h": add(mul(Sym("block"), width), Sym("inside"))}
    old = anchor.maps[-1]
    results = tuple(substitute(r, env, ranges) for r in old.results)
    return Packing(value.index, Domain(tuple(dims.items())), IndexMap(results, 0.0), anchor.acc)


def _paired(problem: Func, width: int) -> Packing:
    """The weights as [block, gate, k / 2, unit of the block, k mod 2], as they are."""
    plain = _packing(problem, width)
    anchor = problem.anchor
    value = anchor.operands[-1]
    assert isinstance(value.type, TensorType)
    (block, gates, (_, depth), inside) = plain.domain.parallel
    dims = (block, gates, ("k2", ceildiv(depth, 2)), inside, ("odd", 2))
    k = add(mul(Sym("k2"), 2), Sym("odd"))
    results = tuple(substitute(r, {"k": k}) for r in plain.map.results)
    return Packing(plain.operand, Domain(dims), IndexMap(results, 0), value.type.dtype)


def _pack_launch(e: KernelEmitter, s: Steps, packed: int) -> None:
    """Weights that only a run knows, packed by a launch of their own."""
    launch = e.launch(s.blocks * s.gates, writes=(), scratch_written=(packed,))
    with launch as body, e.tasks(body.first, body.last) as task:
        s.symbols = body.symbols
        block, gate = e.unflatten(task, [max(s.blocks, 1), s.gates])
        row = e.mul(task, s.units)
        with e.loop(0, s.units, name="k", unroll=False) as k:
            for v in range(s.vectors):
                unit = e.add(e.mul(block, s.block), v * s.lanes)
                at = s.at(0, unit)
                point = Point({**body.symbols, "g": gate, "k": k}).along("h", unit, s.lanes, at.mask)
                value = cast(e, body.operands[-1].load(e, point), s.acc)
                to = e.add(e.mul(e.add(row, k), s.block), v * s.lanes)
                e.b.store(value.ir, address(e, body.workspaces[packed], to, s.acc), align=s.acc.bytes)
