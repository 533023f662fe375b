# SPDX-License-Identifier: Apache-2.0
"""Groups anchored at reductions over rectangles that data decide."""

from __future__ import annotations

from typing import cast

from tcc.ir.attributes import Domain
from tcc.ir.core import Value
from tcc.ir.expr import Dim, Sym
from tcc.ir.graph import RegionReduce
from tcc.ir.graph.base import tensor_type
from tcc.ir.kernel import Ragged
from tcc.ir.types import I64, ScalarType
from tcc.passes.lower.group import Group, Made, accumulator, lowers
from tcc.passes.lower.scalarize import Accesses, Scalarizer
from tcc.passes.lower.scalars import compute_dtype


@lowers("region_reduce")
def lower_region_reduce(group: Group) -> Made:
    """Points (k, i, j, c) over the rows p and columns q of a picture."""
    op = cast(RegionReduce, group.anchor)
    x, y = tensor_type(op.x), tensor_type(op.y)
    k, i, j, c, p, q = (Sym(n) for n in ("k", "i", "j", "c", "p", "q"))
    domain = Domain(tuple(zip(("k", "i", "j", "c"), y.shape, strict=True)), (("p", x.shape[1]), ("q", x.shape[2])))
    acc = accumulator(x.dtype)
    limits, accesses, extra = Accesses(), Accesses(), Accesses()
    begins: list[tuple[Value, tuple[Dim, ...]]] = [
        (bounds, (k, at, end)) for bounds, at in ((op.rows, i), (op.columns, j)) for end in range(2)
    ]
    reading = Scalarizer(domain, group.outer, limits)
    for bounds, index in begins:
        # Not shared where two are alike: the anchor takes two for each dim.
        source, access = reading.trace(bounds, index)
        limits.values.append(group.outer.get(source, source))
        limits.maps.append(access)
    body = Scalarizer(domain, group.outer, accesses)
    value = body.s.cast(body.value(op.x, (body.place(op.batch, (k,), x.shape[0], False), p, q, c)), acc)
    for weights, index in ((op.row_weights, (k, i, p)), (op.column_weights, (k, j, q))):
        if weights is not None:
            value = body.s.mul(value, body.s.cast(body.value(weights, index), acc))
    inside = body.region([value], [acc])
    after = Scalarizer(domain, group.outer, extra, [ScalarType(acc)])
    total = after.leading[0]
    if op.kind == "max":
        # The largest of nothing would be the least number that there is.
        ends = [after.s.cast(after.value(bounds, index), I64) for bounds, index in begins]
        for (begin, end), name in zip((ends[:2], ends[2:]), ("p", "q"), strict=True):
            begin = after.s.max(begin, after.s.like(0, begin))
            end = after.s.min(end, after.expr(domain.extent(name)))
            total = after.s.select(after.s.cmp("lt", begin, end), total, after.s.like(0, total))
    total = after.s.cast(total, compute_dtype(x.dtype))
    values, places = group.epilogue(after, [(op.y, total, (k, i, j, c))])
    epilogue = after.region(values, group.output_dtypes)
    return group.finish(
        domain,
        [limits, accesses, extra],
        places,
        lambda fields, maps, out_maps, types: Ragged(
            *fields, domain=domain, maps=maps, out_maps=out_maps, combine=(op.kind,), acc=acc,
            regions=[inside, epilogue], result_types=types,
        ),
    )  # fmt: skip
