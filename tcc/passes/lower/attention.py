# SPDX-License-Identifier: Apache-2.0
"""Groups anchored at attention."""

from __future__ import annotations

import math as _m
from typing import cast

from tcc.ir.attributes import Domain
from tcc.ir.core import Value
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Sym, add, floordiv, mul
from tcc.ir.graph import Attention
from tcc.ir.graph.base import tensor_type
from tcc.ir.kernel import Attention as KernelAttention
from tcc.ir.scalar import element
from tcc.ir.types import ScalarType
from tcc.passes.lower.group import Group, Made, accumulator, lowers
from tcc.passes.lower.indexing import broadcast_index
from tcc.passes.lower.scalarize import Accesses, Scalarizer
from tcc.passes.lower.scalars import compute_dtype


@lowers("attention")
def lower_attention(group: Group) -> Made:
    """q, k and v may come through transposes, reshapes and slices, which become index maps."""
    op = cast(Attention, group.anchor)
    q, k, v = (tensor_type(x) for x in (op.q, op.k, op.v))
    b: Dim = 0 if q.shape[0] == 1 else Sym("b0")
    h: Dim = 0 if q.shape[1] == 1 else Sym("b1")
    shared = floordiv(h, floordiv(q.shape[1], k.shape[1])) if k.shape[1] != q.shape[1] else h
    outer = tuple((n, e) for n, e in (("b0", q.shape[0]), ("b1", q.shape[1])) if e != 1)
    domain = Domain((*outer, ("m", q.shape[2]), ("d", v.shape[3])), (("n", k.shape[2]), ("k", q.shape[3])))
    m, n, d, kk = Sym("m"), Sym("n"), Sym("d"), Sym("k")
    sides: list[Accesses] = []
    for tensor, index in ((op.q, (b, h, m, kk)), (op.k, (b, shared, n, kk)), (op.v, (b, shared, n, d))):
        accesses = Accesses()
        finder = Scalarizer(domain, group.outer, accesses)
        source, access = finder.trace(tensor, index)
        accesses.find(group.outer.get(source, source), access)
        sides.append(accesses)
    acc = accumulator(q.dtype)
    extra = Accesses()
    s = Scalarizer(domain, group.outer, extra, [ScalarType(acc)])
    score: Value = s.s.mul(s.leading[0], s.s.like(op.scale, s.leading[0]))
    if op.mask is not None:
        at = broadcast_index((b, h, m, n), tensor_type(op.mask).shape, s.ranges)
        score = s.s.add(score, s.s.cast(s.value(op.mask, at), acc))
    if op.causal:
        hidden = s.s.cmp("gt", s.expr(add(n, mul(m, -1))), s.expr(0))
        score = s.s.select(hidden, s.s.like(-_m.inf, score), score)
    score_region = s.region([score], [acc])
    none = Accesses()
    e = Scalarizer(domain, group.outer, none, [ScalarType(acc)])
    value = e.s.cast(e.leading[0], compute_dtype(q.dtype))
    values, places = group.epilogue(e, [(op.y, value, (b, h, m, d))])
    epilogue = e.region(values, group.output_dtypes)
    if none.values:
        raise IRError(f"{op.name} at {op.loc}: an epilogue of attention takes no further tensors")
    assert element(value) == compute_dtype(q.dtype)
    return group.finish(
        domain,
        [*sides, extra],
        places,
        lambda fields, maps, out_maps, types: KernelAttention(
            fields[0][0], fields[1][0], fields[2][0], fields[3], domain=domain, maps=maps, out_maps=out_maps, acc=acc,
            allow=group.allow, regions=[score_region, epilogue], result_types=types,
        ),
    )  # fmt: skip
