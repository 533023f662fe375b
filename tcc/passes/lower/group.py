# SPDX-License-Identifier: Apache-2.0
"""A fusion group on its way to a kernel: its ops, its anchor, and the steps that every anchor's lowering shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Block, Region, Value
from tcc.ir.declare import IRError
from tcc.ir.graph import Constant, Fused, Reshape, Transpose
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.kernel import Anchor, Func, Return
from tcc.ir.types import F32, F64, I32, I64, DType, TensorType, Type
from tcc.passes.lower.indexing import Index, broadcast_index, compact, reshape_index
from tcc.passes.lower.scalarize import Accesses, Scalarizer, shift_indirect
from tcc.passes.lower.scalars import TABLE

FREE = ("pointwise", "index", "constant")
"""Categories that need no anchor."""


def accumulator(d: DType) -> DType:
    """The type that sums of elements of type d are kept in."""
    if d.is_float:
        return F64 if d is F64 else F32
    return I64 if d.bits == 64 else I32


@dataclass
class Made:
    """A kernel with the outer values it takes. Result i of the kernel has the group's result type up to a reshape."""

    func: Func
    operands: list[Value]


class Group:
    """One `graph.fused` with the mapping from its arguments to outer values."""

    def __init__(self, fused: Fused) -> None:
        self.fused = fused
        self.outer: dict[Value, Value] = dict(zip(fused.block.args, fused.operands, strict=True))
        ops = [op for op in fused.block.ops if isinstance(op, GraphOp)]
        self.ops = ops[:-1]
        self.outputs: tuple[Value, ...] = tuple(ops[-1].operands)
        anchors = [op for op in self.ops if op.category not in FREE]
        if len(anchors) > 1:
            names = ", ".join(a.name for a in anchors)
            raise IRError(f"a fusion group holds {len(anchors)} anchors ({names}); one kernel takes one")
        self.anchor: GraphOp | None = anchors[0] if anchors else None

    @property
    def allow(self) -> tuple[str, ...]:
        """What the kernel may do beyond exact arithmetic in its types: the anchor's attribute `tcc.allow`."""
        return () if self.anchor is None else tuple(self.anchor.attrs.get("tcc.allow", ()))

    def epilogue(self, s: Scalarizer, results: Sequence[tuple[Value, Value, Index]]) -> tuple[list[Value], list[Index]]:
        """(scalars, indices) of the group's outputs. `results`: the anchor's tensors with the scalar of each and the
        index at which it stands; what follows keeps that place through pointwise ops, transposes and reshapes."""
        place: dict[Value, Index] = {}
        for tensor, scalar, index in results:
            s.known[tensor] = scalar
            place[tensor] = index
        for op in self.ops:
            main = [o for o in op.operands if o in place]
            if not main or op is self.anchor:
                continue
            shape = tensor_type(op.results[0]).shape
            if op.name in TABLE:
                whole = [o for o in main if tensor_type(o).shape == shape]
                if not whole:
                    raise IRError(f"{op.name} at {op.loc} broadcasts the anchor's result, which an epilogue cannot")
                index = place[whole[0]]
                args = [s.value(o, broadcast_index(index, tensor_type(o).shape, s.ranges)) for o in op.operands]
                s.known[op.results[0]] = TABLE[op.name](s.s, op, args)
            elif isinstance(op, Transpose):
                index = tuple(place[op.x][p] for p in op.perm)
                s.known[op.y] = s.known[op.x]
            elif isinstance(op, Reshape):
                index = reshape_index(place[op.x], tensor_type(op.x).shape, shape, s.ranges)
                s.known[op.y] = s.known[op.x]
            else:
                raise IRError(f"{op.name} at {op.loc} cannot follow an anchor in its kernel")
            place[op.results[0]] = index
        for out in self.outputs:
            if out not in place:
                raise IRError("a group yields a tensor that does not depend on its anchor")
        return [s.known[o] for o in self.outputs], [place[o] for o in self.outputs]

    @property
    def output_dtypes(self) -> list[DType]:
        return [tensor_type(o).dtype for o in self.outputs]

    def finish(
        self,
        domain: Domain,
        groups: Sequence[Accesses],
        out_index: Sequence[Index],
        build: Callable[[list[list[Value]], tuple[IndexMap, ...], tuple[IndexMap, ...], list[Type]], Anchor],
    ) -> Made:
        """The kernel: operands made compact, arguments shared between equal uses, and `build` called with
        (values per operand field, maps, out_maps, result types)."""
        ranges = domain.ranges
        args: list[tuple[Value, TensorType]] = []
        block = Block()
        fields: list[list[Value]] = []
        maps: list[IndexMap] = []
        operands: list[Value] = []
        offset = 0
        for accesses in groups:
            field_values: list[Value] = []
            for value, access in zip(accesses.values, accesses.maps, strict=True):
                t, access = compact(tensor_type(value), access, ranges)
                known = next((i for i, a in enumerate(args) if a == (value, t)), None)
                if known is None:
                    known = len(args)
                    args.append((value, t))
                    operands.append(value)
                    block.add_arg(t)
                field_values.append(block.args[known])
                maps.append(shift_indirect(access, offset))
            fields.append(field_values)
            offset += len(field_values)
        types: list[Type] = []
        out_maps: list[IndexMap] = []
        for out, index in zip(self.outputs, out_index, strict=True):
            t, access = compact(tensor_type(out), IndexMap(tuple(index)), ranges)
            types.append(t)
            out_maps.append(access)
        anchor = block.append(build(fields, tuple(maps), tuple(out_maps), types))
        anchor.loc = self.fused.loc
        block.append(Return(list(anchor.results)))
        const = tuple(is_constant(v) for v in operands)
        func = Func(regions=[Region(block)], result_types=[], sym_name="", const=const)
        return Made(func, operands)


def is_constant(v: Value) -> bool:
    """Whether a value is a constant of the model."""
    return isinstance(v.defining_op, Constant)


Lowering = Callable[[Group], Made]
LOWERINGS: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Function decorator: the lowering of groups anchored at graph ops of those names ("" for groups without one)."""

    def add(f: Lowering) -> Lowering:
        for n in names:
            LOWERINGS[f"graph.{n}" if n else ""] = f
        return f

    return add
