# SPDX-License-Identifier: Apache-2.0
"""The steps of a recurrent layer whose state is quantized before it is multiplied.

The scale of a step is that of all sequences, so their states lie side by side in a workspace: one task takes all of
them through all steps, or a stage is a wave of tasks that each find the scale for themselves. Integers are multiplied
in pairs of 16 bits whose products are added in 32, or, where the weights are not packed for that, one by one.
"""

from __future__ import annotations

from typing import Any

from tcc.codegen.llvm.emit import Body, Int, KernelEmitter, Point, Val, address, cast, combine, constant, vector
from tcc.codegen.llvm.emit.values import F32, I8, I16, I32
from tcc.codegen.llvm.templates.recurrence_write import Steps, Weight
from tcc.ir.types import I8 as BYTE
from tcc.ir.types import I16 as SHORT
from tcc.ir.types import I32 as WORD
from tcc.ir.types import DType

_ADD_PAIRS = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}


class QuantizedSteps(Steps):
    """Emits the parts of a step. `pairs`: weights arrive as [block, gate, k / 2, unit of the block, k mod 2]."""

    def __init__(self, e: KernelEmitter, lanes: int, vectors: int, rows: int, pairs: bool) -> None:
        super().__init__(e, lanes, vectors, rows)
        self.pairs = pairs
        self.room = self.width + self.width % 2
        self.depth = -(-self.units // 2) if pairs else self.units
        self.integers: Any = None
        self.scale: Any = None

    def enter(self, body: Body, workspace: int | None) -> None:
        super().enter(body, workspace)
        self.integers = self.e.alloca(I16, max(1, self.rows * self.room), self.e.target.vector_bytes)

    def weight(self, body: Body, block: Int, gate: int, k: Int, v: int, dtype: DType) -> Any:
        """The weights of a vector of units, as packed or as they are: 16-bit pairs, or 32-bit integers."""
        e = self.e
        if not self.pairs:
            unit = e.add(e.mul(block, self.block), v * self.lanes)
            point = Point({**self.symbols, "g": gate, "k": k}).along("h", unit, self.lanes, self.at(0, unit).mask)
            value = cast(e, body.operands[-1].load(e, point), WORD)
            return e.splat(value.ir, self.lanes)
        row = e.add(e.mul(e.add(e.mul(block, self.gates), gate), self.depth), k)
        at = address(e, body.operands[-1].pointer, e.mul(e.add(e.mul(row, self.block), v * self.lanes), 2), dtype)
        narrow = dtype is BYTE
        raw = e.b.load(at, typ=vector(I8 if narrow else I16, 2 * self.lanes), align=2 * dtype.bytes)
        return e.b.sext(raw, vector(I16, 2 * self.lanes)) if narrow else raw

    def _slot(self, r: int, k: Int) -> Any:
        return address(self.e, self.integers, self.e.add(r * self.room, k), SHORT)

    def _multiplied(self, b: Int, place: Int, unit: Int) -> Any:
        """A vector of what is multiplied; 0 where there are no units."""
        value = self.read(b, place, unit, self.lanes)
        mask = self.at(b, unit).mask
        return value if mask is None else self.e.select(mask, value, constant(value.type, 0.0))

    def _pick(self, combiner: str, a: Any, b: Any) -> Any:
        return combine(self.e, combiner, Val(self.acc, a), Val(self.acc, b)).ir

    def source(self, i: int, t: Int) -> Int:
        """The place of what stage i multiplies."""
        return self.place_of(0, t) if i == 0 else self.carried_place(i - 1)

    def prepare(self, i: int, t: Int, first: Int, rows: int) -> None:
        self._quantize(first, rows, self.source(i, t), *self._limits(self.source(i, t)))

    def _limits(self, place: Int) -> tuple[Any, Any]:
        """(what to divide by, the zero point) of all sequences; sets `scale`."""
        e = self.e
        nothing = constant(vector(F32, self.lanes), 0.0)
        ends = {"min": e.var(nothing), "max": e.var(nothing)}
        with (
            e.loop(0, self.batch, name="b", unroll=False) as b,
            e.loop(0, self.width, self.lanes, name="h", unroll=False) as unit,
        ):
            value = self._multiplied(b, place, unit)
            for combiner, end in ends.items():
                end.set(self._pick(combiner, end.get(), value))
        low, high = (e.fold(v.get(), lambda a, b, c=c: self._pick(c, a, b)) for c, v in ends.items())
        self.scale = e.b.fdiv(e.b.fsub(high, low), constant(F32, 255.0))
        none = e.b.fcmp_ordered("==", self.scale, constant(F32, 0.0))
        divisor = e.b.select(none, constant(F32, 1.0), self.scale)
        start = self._clamped(e.b.fdiv(e.b.fneg(low), divisor))
        return divisor, e.overloaded("rint", start)

    def _clamped(self, x: Any) -> Any:
        return self._pick("min", self._pick("max", x, constant(x.type, 0.0)), constant(x.type, 255.0))

    def _quantize(self, first: Int, rows: int, place: Int, divisor: Any, zero: Any) -> None:
        """What is multiplied of some sequences, as integers."""
        e = self.e
        divisor, zero = e.splat(divisor, self.lanes), e.splat(zero, self.lanes)
        for r in range(rows):
            with e.loop(0, self.width, self.lanes, name="h", unroll=False) as unit:
                y = e.b.fdiv(self._multiplied(e.add(first, r), place, unit), divisor)
                y = self._clamped(e.b.fadd(e.overloaded("rint", y), zero))
                word = e.b.fptosi(e.b.fsub(y, zero), vector(I32, self.lanes))
                e.b.store(e.b.trunc(word, vector(I16, self.lanes)), self._slot(r, unit), align=2)

    def stage(self, body: Body, weight: Weight, i: int, t: Int, first: Int, rows: int, block: Int) -> None:
        e, anchor = self.e, self.anchor
        gates = anchor.gates[i]
        zero = constant(vector(I32, self.lanes), 0)
        sums = [[[e.var(zero) for _ in range(self.vectors)] for _ in range(gates)] for _ in range(rows)]
        with e.loop(0, self.depth, name="k", unroll=2) as k:
            values = [self._state(r, k) for r in range(rows)]
            for g in range(gates):
                for v in range(self.vectors):
                    w = weight(body, block, anchor.first_gate(i) + g, k, v)
                    for r in range(rows):
                        total = sums[r][g][v]
                        total.set(e.b.add(total.get(), self._product(values[r], w)))
        scale = Val(self.acc, e.splat(self.scale, self.lanes))
        for r in range(rows):
            for v in range(self.vectors):
                given = [Val(self.acc, e.b.sitofp(sums[r][g][v].get(), vector(F32, self.lanes))) for g in range(gates)]
                unit = e.add(e.mul(block, self.block), v * self.lanes)
                self.scalars(body, i, t, e.add(first, r), unit, [*given, scale])

    def _state(self, r: int, k: Int) -> Any:
        """The k-th integer of a sequence, or the k-th pair, in every lane."""
        e = self.e
        if not self.pairs:
            return e.splat(e.b.sext(e.b.load(self._slot(r, k), typ=I16, align=2), I32), self.lanes)
        pair = e.b.load(self._slot(r, e.mul(k, 2)), typ=I32, align=4)
        return e.b.bitcast(e.splat(pair, self.lanes), vector(I16, 2 * self.lanes))

    def _product(self, value: Any, w: Any) -> Any:
        if not self.pairs:
            return self.e.b.mul(value, w)
        return self.e.call(f"llvm.x86.{_ADD_PAIRS[self.lanes]}", vector(I32, self.lanes), [value, w])

    def layer(self, body: Body, weight: Weight) -> None:
        """All steps of all sequences."""
        e = self.e
        with e.loop(0, self.steps, name="t", unroll=False) as t:
            for i in range(len(self.anchor.stages)):
                self._whole_stage(body, weight, i, t)

    def _whole_stage(self, body: Body, weight: Weight, i: int, t: Int) -> None:
        """Stage i of step t of all sequences."""
        e = self.e
        place = self.source(i, t)
        divisor, zero = self._limits(place)
        with e.loop(0, e.of(self.groups), name="group", unroll=False) as group:
            first = e.mul(group, self.rows)

            def each(rows: int) -> None:
                self._quantize(first, rows, place, divisor, zero)
                with self.every(0, self.blocks) as block:
                    self.stage(body, weight, i, t, first, rows, block)

            self.groups_of(group, each)
