# SPDX-License-Identifier: Apache-2.0
"""Launches that write a contraction's factors out before it is done: the right one in panels of columns, the left one
with its padding, prologue and conversions applied."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tcc.codegen.llvm.emit import (
    Access,
    Address,
    Body,
    Int,
    KernelEmitter,
    Point,
    Val,
    cast,
    constant,
    emit_region,
    literal,
    load_all,
    spread,
    transpose,
    vector,
    vector_loop,
)
from tcc.codegen.llvm.emit.memory import address, load_raw, store
from tcc.codegen.llvm.emit.values import compute_type
from tcc.codegen.llvm.templates.contraction_plan import Copy, Plan, is_cast
from tcc.ir.core import Region
from tcc.ir.expr import Dim, Sym, add, mul

_GRAIN = 16384
"""Elements that a task of these launches writes, about."""


def dense_offset(dims: dict[str, int]) -> Dim:
    """The row-major offset of a point of these dims."""
    offset: Dim = 0
    stride = 1
    for name, size in reversed(list(dims.items())):
        offset = add(offset, mul(Sym(name), stride))
        stride *= size
    return offset


def _factor(
    e: KernelEmitter, plan: Plan, region: Region, operands: Sequence[Access], which: range, point: Point
) -> Val:
    values = load_all(e, operands, point, which)
    (value,) = emit_region(e, region, values)
    return cast(e, value, plan.acc)


def copy_left(e: KernelEmitter, plan: Plan, copy: Copy, scratch: int) -> None:
    """The launch that writes the left factor to a workspace."""
    dims = dict(copy.dims)
    if not dims:
        dims = {"one": 1}
    inner = list(dims)[-1]
    if len(dims) > 1 and all(a.stride_along(inner) not in (0, 1) for a in copy.operands):
        along = [n for n in dims if any(a.stride_along(n) == 1 for a in copy.operands) and dims[n] >= plan.lanes // 2]
        inner = along[-1] if along else inner
    outer = {n: size for n, size in dims.items() if n != inner}
    lines, length = prod(outer.values()), dims[inner]
    each = max(1, _GRAIN // max(1, length))
    operands = [*copy.operands, *plan.nest.operands[len(copy.operands) :]]
    target = Address(plan.acc, dense_offset(dims), {n: (0, size - 1) for n, size in dims.items()})
    with e.launch(
        -(-lines // each), operands, plan.nest.results, writes=(), scratch_written=(scratch,)
    ) as body, e.tasks(body.first, body.last) as task:  # fmt: skip
        out = Access(body.workspaces[scratch], target)
        start = e.mul(task, each)
        with e.loop(start, e.minimum(e.add(start, each), lines), name="line", unroll=False) as line:
            here = Point(dict(zip(outer, e.unflatten(line, list(outer.values())), strict=True)))

            def step(vectors: list[tuple[Int, int, object]]) -> None:
                for at, lanes, mask in vectors:
                    point = here.along(inner, at, lanes, mask)
                    value = _factor(e, plan, plan.anchor.lhs_body, body.operands, range(len(copy.operands)), point)
                    out.store(e, point, value)

            vector_loop(e, 0, length, plan.lanes, 1, step)


def pack_right(e: KernelEmitter, plan: Plan, width: int, scratch: int) -> None:
    """The launch that writes the right factor to a workspace, in panels of `width` columns; columns beyond the last are
    zeros."""
    panels, depth, lanes = plan.panels(width), dict(plan.depth), plan.lanes
    sizes = [*plan.batch.values(), panels]
    run_dim = list(depth)[-1] if depth else ""
    run = depth.pop(run_dim, 1)
    block = max(lanes, min(run, -(-_GRAIN // (width * lanes)) * lanes))
    blocks = -(-run // block)
    taps = prod(depth.values())
    operands, results = plan.nest.operands, plan.nest.results
    turned = _is_turned(plan, run_dim) and run >= lanes
    with e.launch(
        prod(sizes) * taps * blocks, operands, results, writes=(), scratch_written=(scratch,)
    ) as body, e.tasks(body.first, body.last) as task:  # fmt: skip
        *outer, panel, tap, part = e.unflatten(task, [*sizes, taps, blocks])
        at = dict(zip(plan.batch, outer, strict=True))
        at |= dict(zip(depth, e.unflatten(tap, list(depth.values())), strict=True))
        column = e.mul(panel, width)
        start = e.mul(part, block)
        stop = run if blocks == 1 else e.minimum(e.add(start, block), run)
        flat = e.floordiv(task, blocks, nonnegative=True)
        base = e.mul(flat, run * width)
        out = address(e, body.workspaces[scratch], base, plan.acc)
        for first in range(0, width, lanes):
            here = e.add(column, first)
            left = e.sub(plan.columns, here)
            place = address(e, out, first, plan.acc)
            whole = isinstance(left, int) or (plan.columns % lanes == 0 and plan.columns % width == 0)
            if turned:
                if whole:
                    _turn(e, plan, body, at, here, run_dim, start, stop, place, width)
                    continue
                with e.either(e.less(lanes - 1, left)) as (then, otherwise):
                    with then:
                        _turn(e, plan, body, at, here, run_dim, start, stop, place, width)
                    with otherwise:
                        _lines(e, plan, body, at, here, left, run_dim, start, stop, place, width)
                continue
            _lines(e, plan, body, at, here, None if whole else left, run_dim, start, stop, place, width)


def _is_turned(plan: Plan, run_dim: str) -> bool:
    """Whether the right factor is contiguous along the depth, so that squares of it are transposed in registers."""
    if len(plan.right) != 1:
        return False
    a = plan.nest.operands[plan.right.start]
    return (
        is_cast(plan.anchor.rhs_body, plan.acc) and a.dtype == plan.acc and plan.lanes >= 4
        and not a.is_guarded and not a.indirect and a.stride_along(run_dim) == 1
        and a.stride_along(plan.column) not in (None, 0, 1)
    )  # fmt: skip


def _lines(
    e: KernelEmitter, plan: Plan, body: Body, at: dict[str, Int], column: Int, left: Int | None, run_dim: str,
    start: Int, stop: Int, place: object, width: int,
) -> None:  # fmt: skip
    """Vectors along the columns, one depth after another; `left`: columns there are from here on (None: enough)."""
    lanes = plan.lanes
    zero = constant(vector(compute_type(plan.acc), lanes), 0)
    mask = None if left is None else e.first_lanes(left, lanes)
    with e.loop(start, stop, name="k", unroll=False) as k:
        point = Point({**at, run_dim: k}).along(plan.column, column, lanes, mask)
        value = spread(e, _factor(e, plan, plan.anchor.rhs_body, body.operands, plan.right, point), lanes)
        if mask is not None:
            value = Val(plan.acc, e.b.select(mask, value.ir, zero))
        store(e, value, address(e, place, e.mul(k, width), plan.acc))


def _turn(
    e: KernelEmitter, plan: Plan, body: Body, at: dict[str, Int], column: Int, run_dim: str, start: Int, stop: Int,
    place: object, width: int,
) -> None:  # fmt: skip
    """Squares of depth × columns, transposed in registers; what is left of the depth line by line."""
    lanes = plan.lanes
    access = body.operands[plan.right.start]
    whole = e.mul(e.floordiv(e.sub(stop, start), lanes, nonnegative=True), lanes)
    middle = e.add(start, whole)
    with e.loop(start, middle, lanes, name="square", unroll=False) as k:
        lines = [
            load_raw(e, access.place(e, Point({**at, run_dim: k, plan.column: e.add(column, j)})), plan.acc, lanes)
            for j in range(lanes)
        ]
        for j, line in enumerate(transpose(e, lines)):
            store(e, Val(plan.acc, line), address(e, place, e.mul(e.add(k, j), width), plan.acc))
    if not (isinstance(middle, int) and isinstance(stop, int) and middle == stop):
        _lines(e, plan, body, at, column, None, run_dim, middle, stop, place, width)


def zero_row(e: KernelEmitter, plan: Plan, length: int, fill: float | int | None) -> object:
    """A constant row of the fill value, which rows out of range are read from."""
    from llvmlite import ir

    element = compute_type(plan.acc)
    array = ir.ArrayType(element, length)
    row: Any = ir.GlobalVariable(e.module, array, "fill")
    row.linkage = "internal"
    row.global_constant = True
    row.align = 64
    value = literal(plan.acc, fill or 0)
    if not fill:
        row.initializer = ir.Constant(array, None)
    else:
        row.initializer = ir.Constant(array, [value.ir] * length)
    return row
