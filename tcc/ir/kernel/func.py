# SPDX-License-Identifier: Apache-2.0
"""Kernels and the host function that launches them.

At this level a model is one `kernel.host` that calls `kernel.func`s through `kernel.launch`; values are tensors in
SSA form, and where their bytes lie is told by the attributes that `alias` and `plan-memory` add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tcc.ir.core import Op
from tcc.ir.declare import (
    ANY,
    DICT,
    DIMS,
    DOMAIN,
    INT,
    INTS,
    MAP,
    RESOURCE,
    STR,
    STRS,
    Attr,
    IRError,
    Kind,
    Operand,
    RegionField,
    Result,
    Variadic,
    VariadicResult,
    register,
)
from tcc.ir.expr import symbols as symbols_of
from tcc.ir.kernel.anchors import Anchor
from tcc.ir.types import I64, ScalarType, TensorType, Type


def is_symbol(name: str) -> bool:
    """Whether a name is that of a symbol of a kernel."""
    return name[:1] == "s" and name[1:].isdecimal()


def _are_bools(v: Any) -> bool:
    return isinstance(v, tuple) and all(isinstance(x, bool) for x in cast("tuple[Any, ...]", v))


BOOLS: Kind[tuple[bool, ...]] = Kind("bools", _are_bools)


@register
class Func(Op):
    """One kernel: a DAG of anchors (usually one) from argument tensors to returned tensors.

    `const[i]`: argument i is a constant of the model, so a template may ask for it packed. `template` and `config`
    are the schedule; `derived` is what follows from them (grid, block, instruction, placement), printed with them.
    `symbols`: the extents that it takes as arguments, `s0`, `s1`, … in the order of first use; its types, domains and
    maps are expressions over these, and `kernel.index` of one gives its value.
    """

    name = "kernel.func"
    isolated = True
    terminated_by = "kernel.return"
    sym_name = Attr(STR)
    symbols = Attr(STRS, ())
    const = Attr(BOOLS, ())
    template = Attr(STR, "")
    config = Attr(DICT, {})
    derived = Attr(DICT, {})
    body = RegionField()

    def anchors(self) -> list[Anchor]:
        """The anchors in order."""
        return [op for op in self.body.block.ops if isinstance(op, Anchor)]

    @property
    def anchor(self) -> Anchor:
        """The only anchor."""
        found = self.anchors()
        assert len(found) == 1, f"@{self.sym_name} has {len(found)} anchors"
        return found[0]

    @property
    def arg_types(self) -> list[TensorType]:
        return [a.type for a in self.body.block.args if isinstance(a.type, TensorType)]

    @property
    def result_types(self) -> list[TensorType]:
        return [v.type for v in self.body.block.terminator.operands if isinstance(v.type, TensorType)]

    def is_const(self, index: int) -> bool:
        """Whether argument `index` is a constant of the model."""
        return index < len(self.const) and self.const[index]

    def verify(self) -> None:
        if self.const and len(self.const) != len(self.body.block.args):
            raise IRError(f"{self.name} @{self.sym_name}: const has {len(self.const)} entries")
        from_here = set(self.symbols)
        for t in (*self.arg_types, *self.result_types):
            unknown = {s for d in (*t.shape, *(t.strides or ())) for s in symbols_of(d)} - from_here
            if unknown:
                raise IRError(f"{self.name} @{self.sym_name}: {t} mentions {min(unknown)}, which is no symbol of it")
        for anchor in self.anchors():
            unknown = anchor.free_names - from_here
            if unknown:
                raise IRError(f"{self.name} @{self.sym_name}: {anchor.name} mentions {min(unknown)}")


@register
class Return(Op):
    """The results of a kernel or of the host function."""

    name = "kernel.return"
    terminator = True
    values = Variadic()

    def infer(self) -> Sequence[Type]:
        return []


@register
class Yield(Op):
    """The values of a region."""

    name = "kernel.yield"
    terminator = True
    values = Variadic()

    def infer(self) -> Sequence[Type]:
        return []


@register
class Index(Op):
    """The point's coordinate along a domain dim, or the value of a symbol of the kernel, as i64; only in regions of
    anchors."""

    name = "kernel.index"
    dim = Attr(STR)
    y = Result()

    def infer(self) -> Sequence[Type]:
        return [ScalarType(I64)]


@register
class Host(Op):
    """The program: arguments are the model's inputs, `kernel.return` its outputs.

    `arena` is the size in bytes that `plan-memory` needs, `lower_bound` the most bytes alive at once.
    """

    name = "kernel.host"
    isolated = True
    terminated_by = "kernel.return"
    sym_name = Attr(STR, "main")
    arg_names = Attr(STRS)
    result_names = Attr(STRS)
    arena = Attr(ANY, None)
    lower_bound = Attr(ANY, None)
    body = RegionField()


@register
class Constant(Op):
    """A constant of the model."""

    name = "kernel.constant"
    value = Attr(RESOURCE)
    y = Result()


@register
class Pack(Op):
    """A constant in another layout: `y[d…] = x[map(d…)]` over the domain of y's dims, cast to y's type.

    Templates ask for it (`pack`), and the engine holds only its result.
    """

    name = "kernel.pack"
    x = Operand()
    domain = Attr(DOMAIN)
    map = Attr(MAP)
    y = Result()


@register
class LaunchOp(Op):
    """One call of kernel `callee`. `extents`: what each of its symbols stands for, over the program's symbols.
    `places`, added by `alias` and `plan-memory`, says where each result lies."""

    name = "kernel.launch"
    ins = Variadic()
    callee = Attr(STR)
    extents = Attr(DIMS, ())
    places = Attr(ANY, None)
    workspace = Attr(ANY, None)
    outs = VariadicResult()


@register
class BindOp(Op):
    """Makes extents of what was computed: the symbol symbols[i] is x[places[i]] of a vector of i64 in memory. What is
    below `least` is an error when the program runs."""

    name = "kernel.bind"
    x = Operand()
    symbols = Attr(STRS)
    places = Attr(INTS)
    least = Attr(INT, 0)

    def infer(self) -> Sequence[Type]:
        return []


@register
class ViewOp(Op):
    """A view of x's bytes: the result's type says shape and strides, `offset` the first element, in elements of x.
    With `offset` 0 and dense types it is a reshape."""

    name = "kernel.view"
    x = Operand()
    offset = Attr(ANY, 0)
    y = Result()


@register
class Assemble(Op):
    """A tensor whose disjoint parts are the operands (concat): part i starts at `offsets[i]` (in elements of the
    result) and is laid out with the result's strides. Parts are written in place by their producers after `alias`."""

    name = "kernel.assemble"
    parts = Variadic()
    axis = Attr(INT)
    offsets = Attr(INTS)
    y = Result()


@register
class HostCall(Op):
    """An op done on the host by the function of that name in `tcc.reference`, with `attrs` as keyword arguments."""

    name = "kernel.host_call"
    ins = Variadic()
    function = Attr(STR)
    arguments = Attr(DICT, {})
    reason = Attr(STR, "")
    places = Attr(ANY, None)
    outs = VariadicResult()
