# SPDX-License-Identifier: Apache-2.0
"""Control flow of the host function: regions that the engine's schedule program runs."""

from __future__ import annotations

from tcc.ir.core import BlockArgument, Op, Value
from tcc.ir.declare import (
    ANY,
    INT,
    Attr,
    IRError,
    Operand,
    OptionalOperand,
    RegionField,
    Variadic,
    VariadicResult,
    register,
)


@register
class If(Op):
    """Runs one of two regions, which capture host values and end in kernel.yield of the results."""

    name = "kernel.if"
    terminated_by = "kernel.yield"
    condition = Operand()
    places = Attr(ANY, None)
    then = RegionField()
    otherwise = RegionField()
    outs = VariadicResult()


@register
class Loop(Op):
    """Runs `body` `trips` times (or as often as the i64 `trip` says), as long as a carried bool holds.

    The body takes (i64 iteration, carried…), captures host values, and ends in kernel.yield of (carried…, scanned…).
    Results are the carried values after the last iteration, then each scanned value of all iterations, stacked along a
    new first dim; a symbol there counts the iterations. `test` is the index of the carried value that is read before
    every iteration and ends the loop where it is false; -1: none. Variable i of the body lies where result i does.
    """

    name = "kernel.loop"
    terminated_by = "kernel.yield"
    trip = OptionalOperand()
    carried = Variadic()
    trips = Attr(ANY, None)
    test = Attr(INT, -1)
    body = RegionField()
    outs = VariadicResult()

    @property
    def iteration(self) -> BlockArgument:
        """The number of the iteration, from 0."""
        return self.body.block.args[0]

    @property
    def variables(self) -> list[BlockArgument]:
        """The carried values as the body gets them."""
        return self.body.block.args[1:]

    @property
    def following(self) -> tuple[Value, ...]:
        """The carried values that the body gives for the next iteration."""
        return self.body.block.terminator.operands[: len(self.carried)]

    @property
    def scanned(self) -> tuple[Value, ...]:
        """What the body gives to be stacked."""
        return self.body.block.terminator.operands[len(self.carried) :]

    def verify(self) -> None:
        where = f'{self.name} at "{", ".join(self.loc)}"'
        if self.trips is not None and self.trip is not None:
            raise IRError(f"{where}: it has both a number of trips and an operand that gives one")
        if not -1 <= self.test < len(self.carried):
            raise IRError(f"{where}: test is {self.test} and it carries {len(self.carried)} values")
        if len(self.body.block.args) != len(self.carried) + 1:
            raise IRError(f"{where}: its body takes {len(self.body.block.args)} values, not {len(self.carried) + 1}")
        if len(self.body.block.terminator.operands) != len(self.results):
            raise IRError(f"{where}: its body yields {len(self.body.block.terminator.operands)} values for its results")
