# SPDX-License-Identifier: Apache-2.0
"""The anchor of recurrent layers: a matrix that multiplies the state of every step, and the scalar work around it."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.core import Region, Value
from tcc.ir.declare import (
    BOOLEAN,
    DTYPE,
    INTS,
    Attr,
    IRError,
    Operand,
    RegionField,
    Variadic,
    VariadicRegion,
    VariadicResult,
    register,
)
from tcc.ir.kernel.anchors import Anchor, result_dtypes
from tcc.ir.scalar import element
from tcc.ir.types import F32, I8, I16, DType, ScalarType, TensorType


@register
class Recurrence(Anchor):
    """A layer that carries states from step to step: LSTM, GRU and their kin.

    Parallel dims `t` (the number of the step; steps run one after another), `b` (sequence), `h` (unit); reduce dims `g`
    (gate) and `k` (unit of the state that the weights multiply; as many as `h`). `start(scalars of init)` yields the
    states before the first step, in type `acc`. A step has one or more stages. Stage i sums, for each of its `gates[i]`
    gates, `Σ_k weights · v_k`, where v is the first state for the first stage and the first value that the stage before
    yielded for the others; its region takes (sums, states, all values that earlier stages of the step yielded,
    scalars of ins) and yields values in type `acc`. The last stage yields the new states, then the results written at
    every step, (t, b, h). After the last step `finish(states)` yields the other results, one for each (b, h).

    With `quantized` the weights are integers, and v becomes integers at every step, by the range of all its elements,
    those of all sequences, with 0 in it: scale = (max - min) / 255 (1 where that is 0, to divide by), zero = -min /
    scale rounded, and v / scale is rounded and clamped to [-zero, 255 - zero]. The region takes `scale` after the sums,
    which are of integers.

    The map of the weights is over g, h and k, those of init over b and h, those of ins over t, b and h.
    """

    name = "kernel.recurrence"
    init = Variadic()
    ins = Variadic()
    weights = Operand()
    gates = Attr(INTS)
    acc = Attr(DTYPE)
    quantized = Attr(BOOLEAN, False)
    start = RegionField()
    finish = RegionField()
    stages = VariadicRegion()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.start, self.init, False)]

    @property
    def states(self) -> int:
        """How many states are carried."""
        return len(self.start.block.terminator.operands)

    @property
    def carried(self) -> tuple[int, ...]:
        """How many values each stage but the last yields."""
        return tuple(len(s.block.terminator.operands) for s in self.stages[:-1])

    @property
    def each_step(self) -> int:
        """How many results are written at every step; they come first."""
        return len(self.results) - len(self.finish.block.terminator.operands)

    def first_gate(self, stage: int) -> int:
        """The number of a stage's first gate."""
        return sum(self.gates[:stage])

    def verify(self) -> None:
        super().verify()
        domain = self.domain
        if domain.parallel_names != ("t", "b", "h") or domain.reduce_names != ("g", "k"):
            raise IRError(f"{self.name}: the domain {domain.text()} must be t, b, h | g, k")
        if self.quantized and not isinstance(domain.extent("b"), int):
            raise IRError(f"{self.name}: quantized, it takes a number of sequences, not {domain.extent('b')}")
        if domain.extent("h") != domain.extent("k") or domain.extent("g") != sum(self.gates):
            raise IRError(f"{self.name}: the domain {domain.text()} does not fit h units and the gates {self.gates}")
        if len(self.stages) != len(self.gates) or not self.gates or min(self.gates) < 1:
            raise IRError(f"{self.name}: {len(self.stages)} stages and gates {list(self.gates)}: one entry a stage")
        weights = self.weights.type
        if self.quantized and not (isinstance(weights, TensorType) and weights.dtype in (I8, I16) and self.acc is F32):
            raise IRError(f"{self.name}: quantized, it takes weights of i8 or i16 and works in f32, not {weights}")
        allowed = [*[{"b", "h"}] * len(self.init), *[{"t", "b", "h"}] * len(self.ins), {"g", "h", "k"}]
        for access, dims in zip(self.maps, allowed, strict=True):
            wrong = set(domain.names) & access.symbols - dims
            if wrong:
                raise IRError(f"{self.name}: the map {access.text()} mentions {', '.join(sorted(wrong))}")
        self._types("start", self.start, [], self.init, [self.acc] * self.states)
        given: list[DType] = [self.acc] * self.states
        done = 0
        for i, stage in enumerate(self.stages):
            leading = [self.acc] * (self.gates[i] + self.quantized + self.states + done)
            count = len(stage.block.terminator.operands)
            done += count
            last = i == len(self.stages) - 1
            yields = given + result_dtypes(self)[: count - self.states] if last else [self.acc] * max(count, 1)
            self._types(f"stage {i}", stage, leading, self.ins, yields)
        if self.each_step != len(self.stages[-1].block.terminator.operands) - self.states:
            raise IRError(f"{self.name}: {len(self.results)} results, but its regions yield another number of them")
        self._types("finish", self.finish, given, (), result_dtypes(self)[self.each_step :])
        for access in self.out_maps[self.each_step :]:
            if "t" in access.symbols:
                raise IRError(f"{self.name}: the map {access.text()} of what is written once mentions t")

    def _types(
        self, what: str, region: Region, leading: Sequence[DType], values: Sequence[Value], yields: Sequence[DType]
    ) -> None:
        wanted = [ScalarType(d) for d in leading]
        wanted += [ScalarType(v.type.dtype) for v in values if isinstance(v.type, TensorType)]
        given = [a.type for a in region.block.args]
        if given != wanted:
            raise IRError(
                f"{self.name}: {what} takes ({', '.join(map(str, given))}), not ({', '.join(map(str, wanted))})"
            )
        made = [element(v) for v in region.block.terminator.operands]
        if made != list(yields):
            raise IRError(
                f"{self.name}: {what} yields ({', '.join(map(str, made))}), not ({', '.join(map(str, yields))})"
            )
