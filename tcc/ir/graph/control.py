# SPDX-License-Identifier: Apache-2.0
"""Control flow as regions, and the ops that hold a part of the graph: fusion groups and offered alternatives."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.core import Block, Region, Value
from tcc.ir.declare import Operand, OptionalOperand, RegionField, Variadic, VariadicRegion, VariadicResult, register
from tcc.ir.expr import Dim, Sym
from tcc.ir.graph.base import GraphOp, dense, tensor_type
from tcc.ir.types import BOOL, TensorType, Type, joined_element, on_host


@register
class Yield(GraphOp):
    """Ends a region of `graph.if`, `graph.loop`, `graph.fused` or `graph.choice` with its values."""

    name = "graph.yield"
    category = "control"
    pure = False
    terminator = True
    values = Variadic()

    def infer(self) -> Sequence[Type]:
        return ()


def yielded(region: Region) -> tuple[Value, ...]:
    """The values that a region ends with."""
    return region.block.terminator.operands


def own_symbol(op: GraphOp, result: int, dim: int) -> Dim:
    """The extent that data decide of a result's dim: the one it has, or a fresh symbol while the op is built."""
    if result < len(op.results):
        t = op.results[result].type
        if isinstance(t, TensorType) and dim < t.rank:
            return t.shape[dim]
    where = "_".join("".join(c if c.isascii() and c.isalnum() else "_" for c in n) for n in op.loc) or op.name[6:]
    where = where if where[0].isalpha() else f"d{where}"
    return Sym(f"{where}_{result}_{dim}" if result else f"{where}_{dim}")


def joined_type(op: GraphOp, index: int, first: Type, second: Type) -> Type:
    """The type of result `index`, which is one of two: an extent in which they differ is a symbol of its own."""
    if first == second:
        return first
    if on_host(first) and not isinstance(first, TensorType):
        either = joined_element(first, second)
        if either is None:
            raise op.fail(f"its branches give {first} and {second}")
        return either
    if not isinstance(first, TensorType) or not isinstance(second, TensorType) or first.dtype != second.dtype:
        raise op.fail(f"its branches give {first} and {second}")
    if first.rank != second.rank:
        raise op.fail(f"its branches give tensors of rank {first.rank} and {second.rank}")
    shape: list[Dim] = [
        a if a == b else own_symbol(op, index, i)
        for i, (a, b) in enumerate(zip(first.shape, second.shape, strict=True))
    ]
    return dense(shape, first.dtype)


@register
class If(GraphOp):
    """The values of one region: `then` where the one-element bool holds, else `orelse`. Regions use outer values.

    Result i has the type that both regions give; an extent in which they differ is a fresh symbol. ONNX If.
    """

    name = "graph.if"
    category = "control"
    terminated_by = "graph.yield"
    condition = Operand()
    then = RegionField()
    orelse = RegionField()
    results_ = VariadicResult()

    def infer(self) -> Sequence[Type]:
        then, orelse = yielded(self.then), yielded(self.orelse)
        if len(then) != len(orelse):
            raise self.fail(f"its branches give {len(then)} and {len(orelse)} values")
        return [joined_type(self, i, a.type, b.type) for i, (a, b) in enumerate(zip(then, orelse, strict=True))]

    def verify(self) -> None:
        t = self.operand_type(0)
        if t.dtype != BOOL or (isinstance(t.size, int) and t.size != 1):
            raise self.fail(f"the condition must be one bool, not {t}")
        if self.then.block.args or self.orelse.block.args:
            raise self.fail("its regions take no arguments")
        if len(self.results) != len(self.infer()):
            raise self.fail(f"it has {len(self.results)} results and its branches give {len(self.infer())} values")


@register
class Loop(GraphOp):
    """Runs `body` at most `trip` times (absent: no bound) while `condition` holds (absent: true).

    The body takes (i64 iteration, bool condition, carried…) and yields (condition, carried…, scanned…); results are
    the carried values after the last iteration, then the scanned values of all iterations stacked along a new first
    dim: the number of iterations, for all the same. It uses outer values. ONNX Loop.
    """

    name = "graph.loop"
    category = "control"
    terminated_by = "graph.yield"
    trip = OptionalOperand()
    condition = OptionalOperand()
    carried = Variadic()
    body = RegionField()
    results_ = VariadicResult()

    def infer(self) -> Sequence[Type]:
        carried = len(self.carried)
        values = yielded(self.body)[1:]
        out: list[Type] = [v.type for v in values[:carried]]
        for v in values[carried:]:
            t = tensor_type(v, self)
            out.append(dense((own_symbol(self, carried, 0), *t.shape), t.dtype))
        return out

    def verify(self) -> None:
        carried = len(self.carried)
        if len(self.body.block.args) != carried + 2:
            raise self.fail(f"its body takes {len(self.body.block.args)} arguments and {carried + 2} are needed")
        if len(yielded(self.body)) < carried + 1:
            raise self.fail(f"its body yields {len(yielded(self.body))} values, fewer than it carries")


class Group(GraphOp):
    """Base of ops whose isolated regions take the operands as block arguments."""

    category = "control"
    isolated = True
    terminated_by = "graph.yield"
    inputs = Variadic()

    def check_region(self, region: Region) -> None:
        args = region.block.args
        if len(args) != len(self.operands):
            raise self.fail(f"a region takes {len(args)} arguments and there are {len(self.operands)} operands")
        for i, (arg, value) in enumerate(zip(args, self.operands, strict=True)):
            if arg.type != value.type:
                raise self.fail(f"argument {i} of a region is {arg.type} and the operand {value.type}")
        values = yielded(region)
        if [v.type for v in values] != [r.type for r in self.results]:
            raise self.fail("a region yields other types than the op's results")

    def verify(self) -> None:
        for region in self.regions:
            self.check_region(region)


@register
class Fused(Group):
    """A fusion group: a part of the graph that becomes one kernel. Its region takes the operands and yields the
    results."""

    name = "graph.fused"
    body = RegionField()
    results_ = VariadicResult()

    @property
    def block(self) -> Block:
        return self.body.block

    def infer(self) -> Sequence[Type]:
        return [v.type for v in yielded(self.body)]


@register
class Choice(Group):
    """Alternatives of one signature, offered to whoever can measure; the first is the answer without a search."""

    name = "graph.choice"
    alternatives = VariadicRegion()
    results_ = VariadicResult()

    def infer(self) -> Sequence[Type]:
        if not self.regions:
            raise self.fail("it needs at least one alternative")
        return [v.type for v in yielded(self.regions[0])]
