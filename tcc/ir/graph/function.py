# SPDX-License-Identifier: Apache-2.0
"""Functions and constants: `graph.func`, `graph.return`, `graph.constant`."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.declare import RESOURCE, STR, STRS, Attr, IRError, RegionField, Result, Variadic, register
from tcc.ir.graph.base import Array, GraphOp
from tcc.ir.module import ModuleOp
from tcc.ir.types import Type


@register
class Func(GraphOp):
    """A function: the block arguments are its inputs, `graph.return` gives its outputs.

    `arg_names` and `result_names` are the names that a caller of the engine uses, one for each.
    """

    name = "graph.func"
    category = "control"
    pure = False
    isolated = True
    terminated_by = "graph.return"
    sym_name = Attr(STR)
    arg_names = Attr(STRS)
    result_names = Attr(STRS)
    body = RegionField()

    @property
    def block(self) -> Block:
        return self.body.block

    @property
    def arg_types(self) -> tuple[Type, ...]:
        return tuple(a.type for a in self.block.args)

    @property
    def returned(self) -> tuple[Value, ...]:
        """The values that the function returns."""
        return self.block.terminator.operands

    def infer(self) -> Sequence[Type]:
        return ()

    def verify(self) -> None:
        if len(self.body.blocks) != 1:
            raise self.fail(f"@{self.sym_name} must have one block")
        if len(self.arg_names) != len(self.block.args):
            raise self.fail(f"@{self.sym_name} has {len(self.block.args)} arguments and {len(self.arg_names)} names")
        if len(self.result_names) != len(self.returned):
            raise self.fail(
                f"@{self.sym_name} returns {len(self.returned)} values, with {len(self.result_names)} names"
            )


@register
class Return(GraphOp):
    """Ends a function with its results."""

    name = "graph.return"
    category = "control"
    pure = False
    terminator = True
    values = Variadic()

    def infer(self) -> Sequence[Type]:
        return ()


@register
class Constant(GraphOp):
    """A constant of the result's type, named by its content. ONNX initialiser, Constant."""

    name = "graph.constant"
    category = "constant"
    value = Attr(RESOURCE)
    y = Result()

    def array(self) -> Array:
        """The content, from the store of the module that holds the op; IRError if it is not to be had."""
        at: Op | None = self
        while at is not None and not isinstance(at, ModuleOp):
            at = at.parent_op
        if at is None:
            raise self.fail("a constant outside a module has no content")
        return at.resources.get(self.value)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (self.array(),)


def func(name: str, arg_types: Sequence[Type], arg_names: Sequence[str]) -> Func:
    """A function without a body; append ops to `.block` and end it with `finish`."""
    block = Block(arg_types, list(arg_names))
    return Func(regions=[Region(block)], sym_name=name, arg_names=tuple(arg_names), result_names=())


def finish(function: Func, values: Sequence[Value], names: Sequence[str]) -> Func:
    """End a function with its results."""
    function.block.append(Return(values))
    function.result_names = tuple(names)
    return function


def main_function(module: ModuleOp) -> Func:
    """The function `main`, or the only one of the module; IRError if there is neither."""
    functions = [op for op in module.ops if isinstance(op, Func)]
    for f in functions:
        if f.sym_name == "main":
            return f
    if len(functions) != 1:
        raise IRError(f"the module has {len(functions)} graph functions and none is named main")
    return functions[0]
