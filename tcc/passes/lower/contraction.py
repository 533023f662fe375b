# SPDX-License-Identifier: Apache-2.0
"""Groups anchored at matmul, conv and conv_transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Region, Value
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Sym, add, floordiv, mod, mul, product
from tcc.ir.graph import Conv, ConvTranspose, Matmul
from tcc.ir.graph.base import tensor_type
from tcc.ir.kernel import Contraction
from tcc.ir.kernel import Conv as KernelConv
from tcc.ir.kernel import MatMul as KernelMatMul
from tcc.ir.scalar import element
from tcc.ir.types import DType, ScalarType
from tcc.passes.lower.group import Group, Made, accumulator, lowers
from tcc.passes.lower.indexing import Index, broadcast_index, delinearize
from tcc.passes.lower.scalarize import Accesses, Scalarizer
from tcc.passes.lower.scalars import compute_dtype


class Sides:
    """The three regions of a contraction under construction."""

    def __init__(self, group: Group, domain: Domain, dtype: DType) -> None:
        self.group = group
        self.domain = domain
        self.dtype = dtype
        self.acc = accumulator(dtype)
        self.allow: tuple[str, ...] = () if group.anchor is None else tuple(group.anchor.attrs.get("tcc.allow", ()))
        self.lhs, self.rhs, self.extra = Accesses(), Accesses(), Accesses()

    def side(self, accesses: Accesses, v: Value, index: Index, padded: bool = False) -> Region:
        """The region of one factor: v at `index`, 0 out of range where `padded`."""
        s = Scalarizer(self.domain, self.group.outer, accesses)
        if not padded:
            scalar = s.value(v, index)
        elif (seen := s.seen_through(v, index)) is not None:
            scalar = s.load(seen[0], IndexMap(seen[1].results, 0.0 if self.dtype.is_float else 0))
        else:
            inside = s.inside(index, tensor_type(v).shape)
            scalar = s.value(v, index, guarded=True)
            scalar = scalar if inside is None else s.s.select(inside, scalar, s.s.like(0, scalar))
        return s.region([scalar], [self.dtype])

    def finish(
        self,
        kind: type[Contraction],
        lhs: Region,
        rhs: Region,
        out: Value,
        index: Index,
        bias: tuple[Value, Index] | None = None,
    ) -> Made:
        """The kernel, with the bias and the group's epilogue after the sum."""
        s = Scalarizer(self.domain, self.group.outer, self.extra, [ScalarType(self.acc)])
        value: Value = s.s.cast(s.leading[0], compute_dtype(self.dtype))
        if bias is not None:
            addend = s.value(*bias)
            value = s.s.add(value, s.s.cast(addend, element(value)))
        values, places = self.group.epilogue(s, [(out, value, index)])
        epilogue = s.region(values, self.group.output_dtypes)
        return self.group.finish(
            self.domain,
            [self.lhs, self.rhs, self.extra],
            places,
            lambda fields, maps, out_maps, types: kind(
                *fields, domain=self.domain, maps=maps, out_maps=out_maps, acc=self.acc, allow=self.allow,
                regions=[lhs, rhs, epilogue], result_types=types,
            ),
        )  # fmt: skip


@lowers("matmul")
def lower_matmul(group: Group) -> Made:
    """Batch dims that only the left operand has are rows of one matrix: they join m."""
    op = cast(Matmul, group.anchor)
    a, b, y = tensor_type(op.a), tensor_type(op.b), tensor_type(op.y)
    rows = a.shape[-2] if a.rank > 1 else 1
    columns = b.shape[-1] if b.rank > 1 else 1
    deep = (a.shape[-1], b.shape[-2] if b.rank > 1 else b.shape[0])
    depth = deep[1] if isinstance(deep[1], int) else deep[0]
    batch = y.shape[: y.rank - (a.rank > 1) - (b.rank > 1)]
    m, n, k = Sym("m"), Sym("n"), Sym("k")
    shared = product(b.shape[:-2]) == 1
    if shared:
        domain = Domain((("m", product((*batch, rows))), ("n", columns)), (("k", depth),))
        *at, row = delinearize(m, (*batch, rows), domain.ranges)
    else:
        named = [(f"b{i}", d) for i, d in enumerate(batch) if d != 1]
        domain = Domain((*named, ("m", rows), ("n", columns)), (("k", depth),))
        at = [0 if d == 1 else Sym(f"b{i}") for i, d in enumerate(batch)]
        row = m if rows != 1 else 0
    sides = Sides(group, domain, a.dtype)
    # Extents that data decide are taken to agree; where they do not, no read may leave a factor.
    ka, kb = (k if d == depth else broadcast_index((k,), (d,), domain.ranges)[0] for d in deep)
    left = (*broadcast_index(at, a.shape[:-2], domain.ranges), row, ka) if a.rank > 1 else (ka,)
    right = (*broadcast_index(at, b.shape[:-2], domain.ranges), kb, n) if b.rank > 1 else (kb,)
    place = (*at, *((row,) if a.rank > 1 else ()), *((n,) if b.rank > 1 else ()))
    return sides.finish(
        KernelMatMul, sides.side(sides.lhs, op.a, left), sides.side(sides.rhs, op.b, right), op.y, place
    )


def _names(rank: int) -> tuple[list[str], list[str]]:
    return {1: (["ox"], ["kx"]), 2: (["oy", "ox"], ["ky", "kx"]), 3: (["oz", "oy", "ox"], ["kz", "ky", "kx"])}[rank]


def _spatial_index(dims: str, n: Dim, space: Sequence[Dim], c: Dim) -> Index:
    return (n, c, *space) if dims == "nchw" else (n, *space, c)


def _conv_domain(op: Conv | ConvTranspose, co: Dim, ci: Dim) -> tuple[Domain, list[str], list[str]]:
    y = tensor_type(op.y)
    o, k = _names(op.spatial)
    space = dict(zip(o, (y.shape[i] for i in op.spatial_axes), strict=True))
    window = dict(zip(k, op.kernel, strict=True))
    if op.spatial == 1:
        space, window = {"oy": 1, **space}, {"ky": 1, **window}
    parallel = (("n", y.shape[0]), *space.items(), ("g", op.group), ("co", co))
    return Domain(parallel, (*window.items(), ("ci", ci))), o, k


def _syms(domain: Domain, names: Sequence[str]) -> list[Dim]:
    return [0 if domain.extent(n) == 1 else Sym(n) for n in names]


@lowers("conv")
def lower_conv(group: Group) -> Made:
    op = cast(Conv, group.anchor)
    x, w = tensor_type(op.x), tensor_type(op.w)
    per_group = floordiv(w.shape[0], op.group)
    depth = w.shape[1] if op.dims == "nchw" else w.shape[-1]
    domain, o, k = _conv_domain(op, per_group, depth)
    sides = Sides(group, domain, x.dtype)
    space = [
        add(add(mul(i, op.strides[d]), mul(j, op.dilations[d])), -op.pads[d])
        for d, (i, j) in enumerate(zip(_syms(domain, o), _syms(domain, k), strict=True))
    ]
    (n, g, co, ci) = _syms(domain, ["n", "g", "co", "ci"])
    channel = add(mul(g, per_group), co)
    window = _syms(domain, k)
    lhs = sides.side(sides.lhs, op.x, _spatial_index(op.dims, n, space, add(mul(g, depth), ci)), padded=True)
    rhs = sides.side(sides.rhs, op.w, _spatial_index(op.dims, channel, window, ci))
    place = _spatial_index(op.dims, n, _syms(domain, o), channel)
    bias = None if op.b is None else (op.b, (channel,))
    return sides.finish(KernelConv, lhs, rhs, op.y, place, bias)


@lowers("conv_transpose")
def lower_conv_transpose(group: Group) -> Made:
    """Windows that do not overlap make it a matmul whose result is scattered; else a convolution that reads x only
    where the stride divides (Dumoulin & Visin, 2016, ch. 4)."""
    op = cast(ConvTranspose, group.anchor)
    x, w, y = tensor_type(op.x), tensor_type(op.w), tensor_type(op.y)
    per_group = w.shape[1] if op.dims == "nchw" else w.shape[-1]
    depth = floordiv(x.shape[op.channel_axis], op.group)
    tiles = (
        op.group == 1 and tuple(op.kernel) == op.strides and not any(op.pads) and not any(op.output_padding)
        and all(d == 1 for d in op.dilations)
    )  # fmt: skip
    if tiles:
        space = [x.shape[i] for i in op.spatial_axes]
        domain = Domain(
            (("m", product((x.shape[0], *space))), ("n", product((*op.kernel, per_group)))), (("k", depth),)
        )
        sides = Sides(group, domain, x.dtype)
        at, *cell = delinearize(Sym("m"), (x.shape[0], *space), domain.ranges)
        *window, co = delinearize(Sym("n"), (*op.kernel, per_group), domain.ranges)
        lhs = sides.side(sides.lhs, op.x, _spatial_index(op.dims, at, cell, Sym("k")))
        rhs = sides.side(sides.rhs, op.w, _spatial_index(op.dims, Sym("k"), window, co))
        where = [add(mul(i, s), j) for i, s, j in zip(cell, op.strides, window, strict=True)]
        place = _spatial_index(op.dims, at, where, co)
        return sides.finish(KernelMatMul, lhs, rhs, op.y, place, None if op.b is None else (op.b, (co,)))
    domain, o, k = _conv_domain(op, per_group, depth)
    sides = Sides(group, domain, x.dtype)
    n, g, co, ci = _syms(domain, ["n", "g", "co", "ci"])
    window = _syms(domain, k)
    position = [
        add(add(i, op.pads[d]), mul(j, -op.dilations[d]))
        for d, (i, j) in enumerate(zip(_syms(domain, o), window, strict=True))
    ]
    space = [floordiv(p, s, domain.ranges) for p, s in zip(position, op.strides, strict=True)]
    zero = tuple(mod(p, s, domain.ranges) for p, s in zip(position, op.strides, strict=True) if s != 1)
    s = Scalarizer(domain, group.outer, sides.lhs)
    index = _spatial_index(op.dims, n, space, add(mul(g, depth), ci))
    if not s.is_input(op.x):
        raise IRError(f"{op.name} at {op.loc}: its input must be a tensor in memory, not a prologue")
    scalar = s.load(op.x, IndexMap(index, 0.0, tuple(z for z in zero if z != 0)))
    lhs = s.region([scalar], [x.dtype])
    rhs = sides.side(sides.rhs, op.w, _spatial_index(op.dims, add(mul(g, depth), ci), window, co))
    channel = add(mul(g, per_group), co)
    place = _spatial_index(op.dims, n, _syms(domain, o), channel)
    assert y.rank == len(place)
    return sides.finish(KernelConv, lhs, rhs, op.y, place, None if op.b is None else (op.b, (channel,)))
