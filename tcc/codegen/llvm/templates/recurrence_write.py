# SPDX-License-Identifier: Apache-2.0
"""The code of a recurrent layer on the CPU, for one or several sequences, units and gates at a time.

A block is `vectors` vectors of units. The sums of a block's gates stay in registers while the loop over the state's
units streams the weights, packed as [block, gate, k, unit of the block], once for a group of sequences. States lie in
scratch memory, [sequence][state][unit]; the first, which every unit of the next step reads, has two places. The numbers
of steps and sequences may be arguments of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.codegen.llvm.emit import (
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    address,
    emit_region,
    indices,
    load_all,
    spread,
)
from tcc.codegen.llvm.emit.values import compute_type, constant, vector
from tcc.ir.expr import ceildiv
from tcc.ir.kernel import Recurrence

Weight = Callable[[Body, Int, int, Int, int], Any]
"""(body, block, gate, k, vector of the block) → the weights of the vector's units."""


class Steps:
    """Emits the parts of a step."""

    def __init__(self, e: KernelEmitter, lanes: int, vectors: int, rows: int) -> None:
        anchor = e.anchor
        assert isinstance(anchor, Recurrence)
        self.e = e
        self.anchor = anchor
        self.lanes = lanes
        self.vectors = vectors
        self.rows = rows
        self.block = lanes * vectors
        domain = anchor.domain
        self.units, self.gates = domain.int_extent("h"), domain.int_extent("g")
        self.steps: Int = 0
        self.batch: Int = 0
        self.symbols: dict[str, Any] = {}
        self.blocks = -(-self.units // self.block)
        self.width = self.blocks * self.block
        self.groups = ceildiv(domain.extent("b"), rows)
        self.acc = anchor.acc
        self.places = anchor.states + 1 + sum(anchor.carried)
        self.scratch: Any = None
        self.first: Int = 0

    @property
    def row_bytes(self) -> int:
        """Scratch memory for one sequence."""
        return max(1, self.places * self.width) * self.acc.bytes

    def enter(self, body: Body, workspace: int | None) -> None:
        """Work in the function of `body`, with the states in a workspace, or else on its stack: of one group then."""
        domain = self.anchor.domain
        self.steps, self.batch = (self.e.of(domain.extent(n)) for n in "tb")
        self.symbols = body.symbols
        if workspace is not None:
            self.scratch, self.first = body.workspaces[workspace], 0
        else:
            count = self.rows * self.row_bytes // self.acc.bytes
            self.scratch = self.e.alloca(compute_type(self.acc), count, self.e.target.vector_bytes)

    # Scratch memory.

    def slot(self, b: Int, place: Int, unit: Int) -> Any:
        e = self.e
        row = e.add(e.mul(e.sub(b, self.first), self.places), place)
        return address(e, self.scratch, e.add(e.mul(row, self.width), unit), self.acc)

    def read(self, b: Int, place: Int, unit: Int, lanes: int) -> Any:
        t = vector(compute_type(self.acc), lanes)
        return self.e.b.load(self.slot(b, place, unit), typ=t, align=self.acc.bytes)

    def keep(self, value: Val, b: Int, place: Int, unit: Int) -> None:
        whole = spread(self.e, value, self.lanes)
        self.e.b.store(whole.ir, self.slot(b, place, unit), align=self.acc.bytes)

    def place_of(self, state: int, t: Int) -> Int:
        """Where a state lies before step t: the first one alternates between places 0 and 1."""
        return self.e.mod(t, 2, nonnegative=True) if state == 0 else state + 1

    # Points.

    def at(self, b: Int, unit: Int, **more: Int) -> Point:
        """A vector of units, those that there are."""
        e = self.e
        mask = None
        if self.width != self.units:
            left = e.sub(self.units, unit)
            mask = e.first_lanes(left, self.lanes)
            mask = None if mask is True else mask
        return Point({**self.symbols, "b": b, **more}).along("h", unit, self.lanes, mask)

    def every(self, first: Int, last: Int) -> Any:
        """The loop over blocks."""
        return self.e.loop(first, last, name="block", unroll=False)

    # Parts of a layer.

    def prepare(self, i: int, t: Int, first: Int, rows: int) -> None:
        """What stage i needs before its blocks of units, of `rows` sequences from `first` on: here nothing."""

    def begin(self, body: Body, b: Int) -> None:
        """The states of one sequence before the first step."""
        e = self.e
        with e.loop(0, self.width, self.lanes, name="h", unroll=False) as unit:
            point = self.at(b, unit)
            scalars = load_all(e, body.operands, point, range(len(self.anchor.init)))
            values = emit_region(e, self.anchor.start, scalars, indices(e, point))
            for i, value in enumerate(values):
                self.keep(value, b, self.place_of(i, 0), unit)
            with e.when(e.equal(self.steps, 0)):
                self.finish(body, point, [spread(e, v, self.lanes) for v in values])

    def finish(self, body: Body, point: Point, states: Sequence[Val]) -> None:
        """What is written once."""
        e = self.e
        values = emit_region(e, self.anchor.finish, states, indices(e, point))
        for access, value in zip(body.results[self.anchor.each_step :], values, strict=True):
            access.store(e, point, value)

    def stage(self, body: Body, weight: Weight, i: int, t: Int, first: Int, rows: int, block: Int) -> None:
        """Stage i of step t for a block of units of `rows` sequences from `first` on."""
        e, anchor = self.e, self.anchor
        gates = anchor.gates[i]
        zero = constant(vector(compute_type(self.acc), self.lanes), 0.0)
        sums = [[[e.var(zero) for _ in range(self.vectors)] for _ in range(gates)] for _ in range(rows)]
        source = self.place_of(0, t) if i == 0 else self.carried_place(i - 1)
        with e.loop(0, self.units, name="k", unroll=2) as k:
            values = [self.read(e.add(first, r), source, k, 1) for r in range(rows)]
            for g in range(gates):
                for v in range(self.vectors):
                    w = weight(body, block, anchor.first_gate(i) + g, k, v)
                    for r in range(rows):
                        total = sums[r][g][v]
                        total.set(e.fma(values[r], w, total.get()))
        for r in range(rows):
            for v in range(self.vectors):
                given = [Val(self.acc, sums[r][g][v].get()) for g in range(gates)]
                unit = e.add(e.mul(block, self.block), v * self.lanes)
                self.scalars(body, i, t, e.add(first, r), unit, given)

    def carried_place(self, stage: int) -> int:
        """Where the first value that a stage yields lies."""
        return self.anchor.states + 1 + sum(self.anchor.carried[:stage])

    def scalars(self, body: Body, i: int, t: Int, b: Int, unit: Int, sums: list[Val]) -> None:
        """The region of a stage for one vector of units, and what it yields put where it belongs."""
        e, anchor = self.e, self.anchor
        point = self.at(b, unit, t=t)
        places = [self.place_of(s, t) for s in range(anchor.states)]
        places += [self.carried_place(0) + n for n in range(sum(anchor.carried[:i]))]
        held = [Val(self.acc, self.read(b, p, unit, self.lanes)) for p in places]
        first = len(anchor.init)
        ins = load_all(e, body.operands, point, range(first, first + len(anchor.ins)))
        made = emit_region(e, anchor.stages[i], [*sums, *held, *ins], indices(e, point))
        if i < len(anchor.stages) - 1:
            for n, value in enumerate(made):
                self.keep(value, b, self.carried_place(i) + n, unit)
            return
        states = [spread(e, v, self.lanes) for v in made[: anchor.states]]
        for s, value in enumerate(states):
            self.keep(value, b, self.place_of(s, e.add(t, 1)), unit)
        for access, value in zip(body.results[: anchor.each_step], made[anchor.states :], strict=True):
            access.store(e, point, value)
        with e.when(e.equal(t, e.sub(self.steps, 1))):
            self.finish(body, point, states)

    def groups_of(self, group: Int, each: Callable[[int], None]) -> None:
        """`each(rows)` for a group of sequences: the last one may have fewer."""
        e = self.e
        if self.rows == 1:
            each(1)
            return
        assert isinstance(self.batch, int) and isinstance(self.groups, int)
        rest = self.batch % self.rows
        if rest == 0:
            each(self.rows)
        elif self.groups == 1:
            each(rest)
        else:
            with e.either(e.less(group, self.groups - 1)) as (then, otherwise):
                with then:
                    each(self.rows)
                with otherwise:
                    each(rest)

    def whole(self, body: Body, weight: Weight, group: Int) -> None:
        """All steps of a group of sequences, whose states are on the stack."""
        e = self.e
        first = self.first = e.mul(group, self.rows)

        def each(rows: int) -> None:
            for r in range(rows):
                self.begin(body, e.add(first, r))
            with e.loop(0, self.steps, name="t", unroll=False) as t:
                for i in range(len(self.anchor.stages)):
                    with self.every(0, self.blocks) as block:
                        self.stage(body, weight, i, t, first, rows, block)

        self.groups_of(group, each)
