# SPDX-License-Identifier: Apache-2.0
"""Groups anchored at running totals, top-k and scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Block, Region, Value
from tcc.ir.expr import Dim, Sym, mod
from tcc.ir.graph import Cumprod, Cumsum
from tcc.ir.graph import ScatterElements as GraphScatterElements
from tcc.ir.graph import ScatterNd as GraphScatterNd
from tcc.ir.graph import TopK as GraphTopK
from tcc.ir.graph.base import tensor_type
from tcc.ir.kernel import Func, Return, Scan, Scatter, TopK
from tcc.ir.kernel.build import identity_map, scalar_region
from tcc.ir.types import I64, ScalarType, TensorType, Type
from tcc.passes.lower.group import Group, Made, accumulator, is_constant, lowers
from tcc.passes.lower.indexing import Index, compact
from tcc.passes.lower.scalarize import Accesses, Scalarizer
from tcc.passes.lower.scalars import compute_dtype


def _row_domain(t: TensorType, axis: int, reduce: Sequence[tuple[str, Dim]]) -> tuple[Domain, Index]:
    """(a domain of the rows along `axis`, the index of a row with the place `reduce[0]` along it)."""
    index = tuple(Sym(reduce[0][0]) if i == axis else 0 if d == 1 else Sym(f"d{i}") for i, d in enumerate(t.shape))
    rows = tuple((f"d{i}", d) for i, d in enumerate(t.shape) if i != axis and d != 1)
    return Domain(rows or (("one", 1),), tuple(reduce)), index


@lowers("cumsum", "cumprod")
def lower_cumulative(group: Group) -> Made:
    """Running totals in the accumulator's type."""
    op = cast("Cumsum | Cumprod", group.anchor)
    t = tensor_type(op.x)
    domain, index = _row_domain(t, op.axis, [("s", t.shape[op.axis])])
    acc = accumulator(t.dtype)
    accesses, extra = Accesses(), Accesses()
    s = Scalarizer(domain, group.outer, accesses)
    body = s.region([s.value(op.x, index)], [acc])
    after = Scalarizer(domain, group.outer, extra, [ScalarType(acc)])
    total = after.s.cast(after.leading[0], compute_dtype(t.dtype))
    values, places = group.epilogue(after, [(op.y, total, index)])
    epilogue = after.region(values, group.output_dtypes)
    return group.finish(
        domain,
        [accesses, extra],
        places,
        lambda fields, maps, out_maps, types: Scan(
            *fields, domain=domain, maps=maps, out_maps=out_maps, combine="sum" if isinstance(op, Cumsum) else "prod",
            acc=acc, exclusive=op.exclusive, reverse=op.reverse, regions=[body, epilogue], result_types=types,
        ),
    )  # fmt: skip


@lowers("topk")
def lower_topk(group: Group) -> Made:
    """Keys and places, in order even where any order would do."""
    op = cast(GraphTopK, group.anchor)
    t = tensor_type(op.x)
    domain, index = _row_domain(t, op.axis, [("s", t.shape[op.axis]), ("r", op.k)])
    accesses, none = Accesses(), Accesses()
    s = Scalarizer(domain, group.outer, accesses)
    body = s.region([s.value(op.x, index)], [t.dtype])
    place = tuple(Sym("r") if i == op.axis else e for i, e in enumerate(index))
    after = Scalarizer(domain, group.outer, none, [ScalarType(t.dtype), ScalarType(I64)])
    key = after.s.cast(after.leading[0], compute_dtype(t.dtype))
    values, places = group.epilogue(after, [(op.y, key, place), (op.indices, after.leading[1], place)])
    epilogue = after.region(values, group.output_dtypes)
    return group.finish(
        domain,
        [accesses],
        places,
        lambda fields, maps, out_maps, types: TopK(
            *fields, domain=domain, maps=maps, out_maps=out_maps, largest=op.largest, regions=[body, epilogue],
            result_types=types,
        ),
    )  # fmt: skip


@lowers("scatter_elements")
def lower_scatter_elements(group: Group) -> Made:
    """Lines along the axis are independent; within one, updates are applied in order."""
    op = cast(GraphScatterElements, group.anchor)
    x, at = tensor_type(op.x), tensor_type(op.indices)
    names = [f"u{i}" for i in range(at.rank)]
    lines = tuple((n, d) for i, (n, d) in enumerate(zip(names, at.shape, strict=True)) if i != op.axis)
    domain = Domain(lines or (("one", 1),), ((names[op.axis], at.shape[op.axis]),))
    index = tuple(Sym(n) for n in names)
    place = tuple(_wrapped(1, x.shape[op.axis]) if i == op.axis else n for i, n in enumerate(index))
    return _scatter(group, domain, [(op.indices, index)], (op.updates, index), place, op.reduction)


@lowers("scatter_nd")
def lower_scatter_nd(group: Group) -> Made:
    """The elements of a slice are independent; the slices are applied in order."""
    op = cast(GraphScatterNd, group.anchor)
    x, at = tensor_type(op.x), tensor_type(op.indices)
    depth = at.shape[-1]
    assert isinstance(depth, int)
    tuples = tuple((f"u{i}", d) for i, d in enumerate(at.shape[:-1]))
    inner = tuple((f"d{i}", d) for i, d in enumerate(x.shape) if i >= depth)
    domain = Domain(inner or (("one", 1),), tuples or (("u", 1),))
    lead, rest = tuple(Sym(n) for n, _ in tuples), tuple(Sym(n) for n, _ in inner)
    indices = [(op.indices, (*lead, i)) for i in range(depth)]
    place = (*(_wrapped(i + 1, x.shape[i]) for i in range(depth)), *rest)
    return _scatter(group, domain, indices, (op.updates, (*lead, *rest)), place, op.reduction)


def _wrapped(operand: int, extent: Dim) -> Dim:
    """The place that an operand names in a dim: negative ones count from the end, and none leaves the tensor."""
    return mod(Sym(f"${operand}"), 1 if extent == 0 else extent)


def _scatter(
    group: Group, domain: Domain, indices: Sequence[tuple[Value, Index]], updates: tuple[Value, Index],
    place: Index, reduction: str,
) -> Made:  # fmt: skip
    """The kernel: x, then an operand for each index, then the updates."""
    (out,) = group.outputs
    t = tensor_type(out)
    frame = Domain(tuple((f"o{i}", d) for i, d in enumerate(t.shape)))
    assert group.anchor is not None
    reads: list[tuple[Value, Index | IndexMap]] = [(group.anchor.operands[0], identity_map(frame)), *indices, updates]
    ranges = [frame.ranges, *[domain.ranges] * (len(reads) - 1)]
    block = Block()
    operands: list[Value] = []
    fields: list[Value] = []
    maps: list[IndexMap] = []
    for i, ((inner, index), limits) in enumerate(zip(reads, ranges, strict=True)):
        value = group.outer.get(inner, inner)
        access = index if isinstance(index, IndexMap) else IndexMap(index)
        kind = tensor_type(value)
        # x keeps the result's dims, so that a copy of it is seen to be one.
        kind, access = (kind, access) if i == 0 else compact(kind, access, limits)
        known = [j for j, v in enumerate(operands) if v is value and block.args[j].type == kind]
        if not known:
            operands.append(value)
            block.add_arg(kind)
        fields.append(block.args[known[0] if known else len(operands) - 1])
        maps.append(access)
    types: list[Type] = [t]
    scalars = [tensor_type(v).dtype for v in fields[1:]]
    body = scalar_region(scalars, lambda b, args: args[-1])
    anchor = block.append(
        Scatter(
            fields[0], fields[1:], domain=domain, maps=tuple(maps), out_maps=(IndexMap(place).simplify(domain.ranges),),
            frame=frame, reduction=reduction, regions=[body], result_types=types, loc=group.fused.loc,
        )
    )  # fmt: skip
    block.append(Return(list(anchor.results)))
    const = tuple(is_constant(v) for v in operands)
    return Made(Func(regions=[Region(block)], result_types=[], sym_name="", const=const), operands)
