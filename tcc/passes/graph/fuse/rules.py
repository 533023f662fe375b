# SPDX-License-Identifier: Apache-2.0
"""What one kernel can hold: what may follow an anchor, what may come before it, and why not."""

from __future__ import annotations

from tcc.ir.attributes import IndexMap
from tcc.ir.core import Block, BlockArgument, Op, Region, Value
from tcc.ir.expr import Binary, Dim, Sum, coefficient
from tcc.ir.graph import (
    Cast,
    Concat,
    Constant,
    Fused,
    Gather,
    GatherElements,
    GatherNd,
    Pad,
    Reshape,
    Transpose,
    Yield,
)
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.kernel import Index as KernelIndex
from tcc.ir.types import TensorType
from tcc.passes.lower import attention, contraction, recurrence, reduction
from tcc.passes.lower.group import LOWERINGS
from tcc.passes.lower.group import Group as LoweredGroup
from tcc.passes.lower.scalarize import GATHERS, INDEX_OPS, VIEWS, is_place_arithmetic
from tcc.passes.lower.scalars import TABLE

assert attention and contraction and recurrence and reduction  # they fill LOWERINGS

COSTLY = frozenset(
    f"graph.{n}" for n in (
        "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
        "erf", "sigmoid", "sqrt", "pow", "elu", "selu", "celu", "softplus", "mish", "swish", "gelu", "div", "mod",
        "reciprocal",
    )
)  # fmt: skip
"""Pointwise ops that cost many instructions an element: not computed several times over."""

CONTRACTIONS = ("graph.matmul", "graph.conv", "graph.conv_transpose")


def is_anchor(op: Op) -> bool:
    """Whether an op becomes an anchor of its own."""
    return op.name in LOWERINGS and op.name != "" and not (isinstance(op, GraphOp) and op.category == "irregular")


def is_pointwise(op: Op) -> bool:
    return op.name in TABLE and all(_plain(v) for v in (*op.operands, *op.results))


def is_index(op: Op) -> bool:
    if isinstance(op, Pad) and op.mode != "constant":
        return False
    return isinstance(op, INDEX_OPS) and all(_plain(v) for v in (*op.operands, *op.results))


def is_view(op: Op | None) -> bool:
    return isinstance(op, VIEWS)


def _plain(v: Value) -> bool:
    return isinstance(v.type, TensorType) and v.type.dtype.kind != "string" and v.type.size != 0


def is_widened_constant(op: Cast) -> bool:
    """Whether an op makes the integers of a constant wide: a contraction reads such weights through it."""
    to, of = tensor_type(op.y).dtype, tensor_type(op.x).dtype
    return isinstance(op.x.defining_op, Constant) and to.is_int and of.is_int and of.bits < to.bits


def short(op: Op) -> str:
    """`conv` of `graph.conv`."""
    return op.name.removeprefix("graph.")


def is_literal(v: Value) -> bool:
    """Whether a value is a constant of one element, which a kernel holds as a number."""
    op = v.defining_op
    return isinstance(op, Constant) and tensor_type(v).size == 1


def indices_of(op: Op) -> Value | None:
    """The operand of a gather that names places; None for other ops."""
    return op.indices if isinstance(op, Gather | GatherElements | GatherNd) else None


def leads_to_indices(op: Op, members: object) -> bool:
    """Whether an op gives the indices of a gather in a cluster, directly or through views in it."""
    for user in op.results[0].users if op.results else ():
        if user not in members:  # type: ignore[operator]
            continue
        if isinstance(user, GATHERS) and indices_of(user) is op.results[0]:
            return True
        if (is_view(user) or is_place_arithmetic(user)) and leads_to_indices(user, members):
            return True
    return False


def follow_reason(op: Op, views: dict[Value, int], attention: bool) -> str | None:
    """Why an op cannot be in the epilogue whose values are `views` (value → number of its view), or None.

    Values of one view stand at one place of the domain: a pointwise op keeps the view of its operands, a transpose or
    reshape begins another.
    """
    mine = [v for v in op.operands if v in views]
    if isinstance(op, Transpose | Reshape):
        return None if is_index(op) else "it has free dims"
    if not is_pointwise(op):
        return f"{short(op)} is neither pointwise nor a transpose or reshape"
    if len({views[v] for v in mine}) != 1:
        return "it reads the result in two layouts"
    shape = tensor_type(op.results[0]).shape
    if any(tensor_type(v).shape != shape for v in mine):
        return "it broadcasts the result"
    if attention and any(v not in views and not is_literal(v) for v in op.operands):
        return "an epilogue of attention takes no further tensors"
    return None


def prologue_reason(op: Op, anchor: GraphOp | None, members: object) -> str | None:
    """Why an op cannot be computed where a cluster reads it, or None; its users are looked at elsewhere."""
    if not is_pointwise(op) and not is_index(op):
        return f"{short(op)} is neither pointwise nor an index op"
    if not is_view(op) and not is_place_arithmetic(op) and leads_to_indices(op, members):
        return "it computes indices"
    if isinstance(op, Concat) and anchor is not None:
        return "a concat is written in place by what it joins"
    return None


def anchor_operands(op: GraphOp) -> tuple[Value, ...]:
    """The operands of a contraction or attention that may be read through index ops."""
    if op.name == "graph.matmul":
        return op.operands[:2]
    if op.name == "graph.conv":
        return op.operands[:1]
    if op.name == "graph.attention":
        return op.operands[:3]
    return ()


def overlaps(op: GraphOp) -> bool:
    """Whether an anchor reads elements of its first operand several times."""
    if op.name in ("graph.max_pool", "graph.average_pool"):
        kernel, strides = op.attrs["kernel"], op.attrs["strides"]
        return any(k > s for k, s in zip(kernel, strides, strict=True))
    return op.name == "graph.lrn"


def reads_well(anchor: GraphOp, chain: list[GraphOp]) -> str | None:
    """Why a contraction or attention should not read an operand through the index ops of `chain` (nearest first), or
    None: its index must be affine, and neighbours in memory must be neighbours in the loops."""
    fused = grouped([*reversed(chain), anchor])
    made = LOWERINGS[anchor.name](LoweredGroup(fused))
    fused.drop_operands()
    found = made.func.anchor
    if any(isinstance(inside, KernelIndex) for inside in found.regions[0].block.ops):
        return "its padding would be a test of every element"
    source = chain[-1].operands[0]
    inner = {"ci", "g"} if anchor.name == "graph.conv" else {"m", "n", "k", "d"}
    for value, access in zip(found.operands, found.maps, strict=True):
        assert isinstance(value, BlockArgument)
        if made.operands[value.index] is source:
            reason = _unfit(access, inner)
            if reason is not None:
                return reason
    return None


def _unfit(access: IndexMap, inner: set[str]) -> str | None:
    if any(_has_division(e) for e in (*access.results, *access.zero)):
        return "its elements lie in no regular order for it"
    last: Dim = access.results[-1] if access.results else 0
    if not isinstance(last, int) and not any(coefficient(last, n) == 1 for n in inner):
        return "it would be read across the order in memory"
    return None


def _has_division(e: Dim) -> bool:
    if isinstance(e, Binary):
        return True
    return isinstance(e, Sum) and any(_has_division(a) for atoms, _ in e.terms for a in atoms)


def grouped(ops: list[GraphOp]) -> Fused:
    """A detached group of copies of ops in order, yielding the last one's results."""
    inside = {r for op in ops for r in op.results}
    inputs = list(dict.fromkeys(v for op in ops for v in op.operands if v not in inside))
    block = Block([v.type for v in inputs])
    values: dict[Value, Value] = dict(zip(inputs, block.args, strict=True))
    for op in ops:
        block.append(op.clone(values))
    block.append(Yield([values[r] for r in ops[-1].results]))
    return Fused(inputs, regions=[Region(block)], loc=ops[-1].loc)
