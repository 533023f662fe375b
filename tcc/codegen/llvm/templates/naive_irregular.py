# SPDX-License-Identifier: Apache-2.0
"""What `llvm.naive` does at a point of the irregular anchors: a row of a scan, a row of a top-k, a scatter's line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tcc.codegen.llvm.emit import (
    Access,
    Address,
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    cast,
    combine,
    emit_region,
    identity,
    indices,
    literal,
    load_all,
    operand_addresses,
    scalar_expr,
)
from tcc.codegen.llvm.emit.order import Packed
from tcc.ir.expr import ceildiv, product
from tcc.ir.kernel import Scan, Scatter, TopK
from tcc.ir.types import I64


def scan_row(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    """The places of a row one after another."""
    anchor = e.anchor
    assert isinstance(anchor, Scan)
    (dim,) = anchor.domain.reduce_names
    acc, count = anchor.acc, len(anchor.ins)
    total = e.var(literal(acc, identity(anchor.combine, acc)).ir)
    with e.loop(0, size[dim], name=dim) as i:
        here = point.moved(**{dim: e.sub(e.sub(size[dim], 1), i) if anchor.reverse else i})
        (value,) = emit_region(e, anchor.body, load_all(e, body.operands, here, range(count)), indices(e, here))
        before = Val(acc, total.get())
        after = combine(e, anchor.combine, before, cast(e, value, acc))
        total.set(after.ir)
        extra = load_all(e, body.operands, here, range(count, len(body.operands)))
        out = [before if anchor.exclusive else after, *extra]
        for access, result in zip(body.results, emit_region(e, anchor.epilogue, out, indices(e, here)), strict=True):
            access.store(e, here, result)


def key_at(e: KernelEmitter, body: Body, point: Point, place: Int) -> Val:
    """The key of a place of a row."""
    anchor = e.anchor
    assert isinstance(anchor, TopK)
    here = point.moved(s=place)
    (key,) = emit_region(e, anchor.body, load_all(e, body.operands, here), indices(e, here))
    return key


def put_rank(e: KernelEmitter, body: Body, point: Point, rank: Int, place: Int) -> None:
    """The results at a rank."""
    anchor = e.anchor
    assert isinstance(anchor, TopK)
    here = point.moved(r=rank)
    args = [key_at(e, body, point, place), Val(I64, e.i64(place))]
    for access, result in zip(body.results, emit_region(e, anchor.epilogue, args, indices(e, here)), strict=True):
        access.store(e, here, result)


def topk_row(e: KernelEmitter, body: Body, point: Point, size: dict[str, Int]) -> None:
    """For each rank, the greatest of what comes after the last one: the places times the ranks, and no memory."""
    anchor = e.anchor
    assert isinstance(anchor, TopK)
    packed = Packed(e, anchor)
    last = e.var(packed.highest)
    with e.loop(0, size["r"], name="r") as rank:
        best = e.var(packed.lowest)
        best.set(packed.lowest)
        with e.loop(0, size["s"], name="s") as place:
            mine = packed.pack(key_at(e, body, point, place), place)
            fits = e.b.and_(e.b.icmp_unsigned("<=", mine, last.get()), e.b.icmp_unsigned(">", mine, best.get()))
            best.set(e.b.select(fits, mine, best.get()))
        last.set(packed.below(best.get()))
        put_rank(e, body, point, rank, packed.place(best.get()))


def scatter_addresses(e: KernelEmitter) -> list[Address]:
    """The addresses of a scatter's operands: x's is over the frame."""
    anchor = e.anchor
    assert isinstance(anchor, Scatter)
    first = Address.of(anchor.x.type, anchor.maps[0], anchor.frame.ranges)  # pyright: ignore[reportArgumentType]
    return [first, *operand_addresses(e.problem)[1:]]


def copy_points(e: KernelEmitter, body: Body, start: Int, stop: Int) -> None:
    """x's elements at flat places of the frame to the result."""
    anchor = e.anchor
    assert isinstance(anchor, Scatter)
    frame = anchor.frame
    extents = [scalar_expr(e, frame.extent(n), body.symbols, frame.ranges) for n in frame.names]
    target = frame_result(e, body)
    with e.points(start, stop, extents, "element") as at:
        here = Point({**body.symbols, **dict(zip(frame.names, at, strict=True))})
        target.store(e, here, body.operands[0].load(e, here))


def frame_result(e: KernelEmitter, body: Body) -> Access:
    """The result over the frame."""
    anchor = e.anchor
    assert isinstance(anchor, Scatter)
    from tcc.ir.kernel.build import identity_map

    where = Address.of(anchor.outs[0].type, identity_map(anchor.frame), anchor.frame.ranges)  # pyright: ignore[reportArgumentType]
    return Access(body.results[0].pointer, where)


def update(e: KernelEmitter, body: Body, point: Point, known: dict[int, Val] | None = None) -> None:
    """One update; `known`: operands read before, by index."""
    anchor = e.anchor
    assert isinstance(anchor, Scatter)
    which = range(1, len(body.operands))
    scalars = load_all(e, body.operands, point, which, known)
    (value,) = emit_region(e, anchor.body, scalars, indices(e, point))
    here = replace(point, given={f"${i}": v for i, v in zip(which, scalars, strict=True)})
    (result,) = body.results
    if anchor.reduction != "none":
        value = combine(e, COMBINE[anchor.reduction], result.load(e, here), value)
    result.store(e, here, value)


COMBINE = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}


def update_line(e: KernelEmitter, body: Body, point: Point, dims: Sequence[str], size: dict[str, Int]) -> None:
    """The updates of one parallel point, in order."""
    if not dims:
        update(e, body, point)
        return
    with e.loop(0, size[dims[0]], name=dims[0]) as i:
        update_line(e, body, point.moved(**{dims[0]: i}), dims[1:], size)


def scatter(e: KernelEmitter, chunk: int) -> None:
    """Two launches: the copy, in tasks of `chunk` elements, and the updates, in tasks of lines."""
    anchor = e.anchor
    assert isinstance(anchor, Scatter)
    addresses = scatter_addresses(e)
    frame, domain = anchor.frame, anchor.domain
    total = product(frame.extent(n) for n in frame.names)
    with e.launch(ceildiv(total, chunk), addresses) as body, e.tasks(body.first, body.last) as task:
        start = e.mul(task, chunk)
        copy_points(e, body, start, e.minimum(e.add(start, chunk), scalar_expr(e, total, body.symbols, frame.ranges)))
    names = domain.parallel_names
    lines = product(domain.extent(n) for n in names)
    steps = product(domain.extent(n) for n in domain.reduce_names)
    each = max(1, chunk // max(1, steps)) if isinstance(steps, int) else 16
    with e.launch(ceildiv(lines, each), addresses) as body, e.tasks(body.first, body.last) as task:
        size = {n: e.of(e.anchor.domain.extent(n)) for n in e.anchor.domain.names}
        start = e.mul(task, each)
        stop = e.minimum(e.add(start, each), scalar_expr(e, lines, body.symbols, domain.ranges))
        with e.points(start, stop, [size[n] for n in names], "line") as at:
            point = Point({**body.symbols, **dict(zip(names, at, strict=True))})
            update_line(e, body, point, domain.reduce_names, size)
