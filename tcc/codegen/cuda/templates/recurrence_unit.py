# SPDX-License-Identifier: Apache-2.0
"""What the templates of recurrent layers share: the generated functions of `recurrence.cuh` and `recurrence_grid.cuh`.

`tcc_weight(args, g, h, k)`; `tcc_begin(args, b, h, states)`; `Stage<I>` with its numbers of gates, of values it takes
and of values it makes, and `run(args, t, b, h, sums, held, made)`, which writes the results of the last stage;
`tcc_finish(args, b, h, states)`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.cuda.emit import Unit, codec
from tcc.codegen.cuda.emit.scalar import used_arguments
from tcc.codegen.template import Packing
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import BlockArgument, Region
from tcc.ir.expr import Sym
from tcc.ir.kernel import Func, Recurrence
from tcc.ir.targets import Target
from tcc.ir.types import I32, TensorType


class RecurrenceUnit:
    """A unit over t, b, h, g, k."""

    def __init__(self, problem: Func, target: Target, entry: str = "unnamed", order: str = "") -> None:
        """`order`: the dims g, h and k in the order in which the weights arrive packed; empty: as they are."""
        anchor = problem.anchor
        assert isinstance(anchor, Recurrence)
        self.anchor = anchor
        self.unit = Unit(problem, target, entry)
        self.steps, self.batch = self.unit.sizes["t"], self.unit.sizes["b"]
        self.hidden, self.gates = self.unit.extents["h"], self.unit.extents["g"]
        self.states, self.carried = anchor.states, sum(anchor.carried)
        self.acc = anchor.acc
        if order:
            p = packing(problem, order)
            self.unit.replace_operand(
                len(anchor.operands) - 1, TensorType(p.shape, p.dtype), IndexMap(tuple(Sym(d) for d in order))
            )

    def define(self) -> None:
        """All functions and constants."""
        unit, anchor = self.unit, self.anchor
        unit.define(
            UNITS=self.hidden, GATES=self.gates, STATES=self.states, CARRIED=self.carried, STAGES=len(anchor.stages),
            MOST_GATES=max(anchor.gates), AccCodec=codec(self.acc), Acc="AccCodec::reg",
            SumCodec=codec(I32 if anchor.quantized else self.acc), Sum="SumCodec::reg",
        )  # fmt: skip
        unit.macro(STEPS=unit.size("t"), BATCH=unit.size("b"), QUANTIZED=int(anchor.quantized))
        weights = unit.operand(len(anchor.operands) - 1)
        read = weights.read({d: f"x_{d}" for d in "ghk"})
        cast = f"tcc::cast<SumCodec, {codec(weights.dtype)}>({read})"
        unit.add(f"TCC_FN Sum tcc_weight(const Args& args, {unit.parameters('ghk')}) {{\n  return {cast};\n}}\n")
        lines, values = self._region(anchor.start, [], range(len(anchor.init)), "bh")
        lines += [f"states[{i}] = {v};" for i, v in enumerate(values)]
        unit.add(self._function("tcc_begin", "bh", f"Acc (&states)[{self.states}]", lines))
        first = len(anchor.init)
        ins = range(first, first + len(anchor.ins))
        held, begun = self.states, 0
        unit.add("template <int I>\nstruct Stage;\n")
        for i, stage in enumerate(anchor.stages):
            last = i == len(anchor.stages) - 1
            sums = anchor.gates[i] + anchor.quantized
            given = [*(f"sums[{n}]" for n in range(sums)), *(f"held[{n}]" for n in range(held))]
            lines, values = self._region(stage, given, ins, "tbh")
            made = self.states if last else len(values)
            lines += [f"made[{n}] = {v};" for n, v in enumerate(values[:made])]
            lines += self._stores(values[made:], 0, "tbh")
            params = f"const Acc (&sums)[{sums}], const Acc (&held)[{held}], Acc (&made)[{made}]"
            run = self._function("run", "tbh", params, lines)
            unit.add(
                f"template <>\nstruct Stage<{i}> {{\n  static constexpr int GATES = {anchor.gates[i]}, "
                f"FIRST = {begun}, HELD = {held}, MADE = {made};\n  static {run}}};\n"
            )
            held += made
            begun += anchor.gates[i]
        given = [f"states[{n}]" for n in range(self.states)]
        lines, values = self._region(anchor.finish, given, (), "bh")
        lines += self._stores(values, anchor.each_step, "bh")
        unit.add(self._function("tcc_finish", "bh", f"const Acc (&states)[{self.states}]", lines))

    @property
    def templates(self) -> tuple[str, ...]:
        """What stands before the template's own text."""
        return ("recurrence_quanta.cuh",) if self.anchor.quantized else ()

    def _region(
        self, region: Region, given: Sequence[str], operands: Sequence[int], dims: str
    ) -> tuple[list[str], list[str]]:
        """(statements, values) of a region at a point."""
        env = {d: f"x_{d}" for d in dims}
        used = used_arguments(region)[len(given) :]
        lines, names = self.unit.loads([i for i, u in zip(operands, used, strict=True) if u], env)
        more, values, _ = self.unit.apply(region, [*given, *(names.get(i, "0") for i in operands)], env)
        return [*lines, *more], values

    def _stores(self, values: Sequence[str], first: int, dims: str) -> list[str]:
        env = {d: f"x_{d}" for d in dims}
        out: list[str] = []
        for k, value in enumerate(values):
            access = self.unit.result(first + k)
            out.append(f"tcc::write<{codec(access.dtype)}>({access.address(env)}, {value});")
        return out

    def _function(self, name: str, dims: str, params: str, lines: Sequence[str]) -> str:
        body = "\n".join(f"  {line}" for line in lines)
        return f"TCC_FN void {name}(const Args& args, {self.unit.parameters(dims)}, {params}) {{\n{body}\n}}\n"


def packing(problem: Func, order: str) -> Packing:
    """The weights with their dims g, h and k in that order."""
    anchor = problem.anchor
    value = anchor.operands[-1]
    assert isinstance(value, BlockArgument) and isinstance(value.type, TensorType)
    domain = Domain(tuple((d, anchor.domain.extent(d)) for d in order))
    return Packing(value.index, domain, anchor.maps[-1], value.type.dtype)


def packs(problem: Func) -> bool:
    """Whether the weights are a constant that nothing else of the kernel reads."""
    value = problem.anchor.operands[-1]
    assert isinstance(value, BlockArgument)
    return problem.is_const(value.index) and problem.anchor.operands.count(value) == 1
