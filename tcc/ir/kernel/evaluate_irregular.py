# SPDX-License-Identifier: Apache-2.0
"""The oracle's part for scans, the first k in order, and scatters (see `evaluate`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np

from tcc.ir.expr import evaluate as eval_expr
from tcc.ir.kernel.anchors import Anchor
from tcc.ir.kernel.anchors_irregular import Scan, Scatter, TopK
from tcc.ir.kernel.approx import Approx, rounding, run_region, ulp
from tcc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]


class Place(Protocol):
    """What these rules need of an anchor under evaluation: parallel dims are arrays [points, 1], reduce dims [1, n]."""

    op: Anchor
    count: int
    index: dict[str, Array]
    extents: dict[str, int]

    def load(self, i: int, index: dict[str, Array] | None = None) -> Approx: ...


def spread(a: Approx, shape: tuple[int, ...]) -> Approx:
    """A value broadcast to a shape."""
    return Approx(np.broadcast_to(a.exact, shape), None if a.error is None else np.broadcast_to(a.error, shape))


def scan(at: Place, op: Scan) -> list[Approx]:
    """Every place of the chosen rows."""
    (value,) = run_region(op.body, [at.load(i) for i in range(len(op.ins))], at.index)
    (dim,) = op.domain.reduce_names
    whole = spread(value, (at.count, at.extents[dim]))
    total = running(op.combine, whole, op.acc, op.exclusive, op.reverse)
    extra = [at.load(i) for i in range(len(op.ins), len(op.operands))]
    return run_region(op.epilogue, [total, *extra], at.index)


def running(combiner: str, a: Approx, acc: DType, exclusive: bool, reverse: bool) -> Approx:
    """The running combination along the last axis."""
    ufunc = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[combiner]
    x = a.exact.astype(np.float64 if acc.is_float else acc.numpy)
    first = identity(combiner, acc)

    def accumulate(v: Array, start: Any, f: np.ufunc) -> Array:
        v = v[..., ::-1] if reverse else v
        out = f.accumulate(v, axis=-1, dtype=v.dtype) if v.shape[-1] else v
        if exclusive and v.shape[-1]:
            out = np.concatenate([np.full((*v.shape[:-1], 1), start, v.dtype), out[..., :-1]], -1)
        return out[..., ::-1] if reverse else out

    with np.errstate(all="ignore"):
        total = accumulate(x, first, ufunc)
        if not acc.is_float:
            return Approx(total)
        error: Any = np.zeros(x.shape) if a.error is None else np.asarray(a.error, np.float64)
        terms = cast(Array, np.arange(1, x.shape[-1] + 1))
        terms = terms[::-1] if reverse else terms
        if combiner == "sum":
            size = accumulate(np.abs(x), 0.0, np.add)
            error = accumulate(error, 0.0, np.add) + rounding(acc) * 2 * np.sqrt(terms) * size
        elif combiner == "prod":
            relative = np.where(x == 0, 0.0, error / np.where(x == 0, 1.0, np.abs(x)))
            error = np.abs(total) * (accumulate(relative, 0.0, np.add) + rounding(acc) * 2 * terms)
        else:
            error = accumulate(error, 0.0, np.maximum)
    return Approx(total, error)


def identity(combiner: str, acc: DType) -> float | int:
    """What changes nothing when it is combined."""
    if combiner in ("sum", "prod"):
        return int(combiner == "prod")
    if acc.is_float:
        return -np.inf if combiner == "max" else np.inf
    info = np.iinfo(acc.numpy)
    return int(info.min if combiner == "max" else info.max)


def topk(at: Place, op: TopK) -> list[Approx]:
    """Every rank of the chosen rows. Keys are compared as computed exactly, so they should be loaded or integers."""
    index = {n: a for n, a in at.index.items() if n not in ("s", "r")}
    inside = {**index, "s": np.arange(at.extents["s"], dtype=np.int64).reshape(1, -1)}
    loads = [at.load(i, inside) for i in range(len(op.ins))]
    (key,) = run_region(op.body, loads, inside)
    whole = spread(key, (at.count, at.extents["s"]))
    order = first_places(whole.exact, at.extents["r"], op.largest)
    keys = Approx(
        np.take_along_axis(whole.exact, order, 1),
        None if whole.error is None else np.take_along_axis(whole.error, order, 1),
    )
    # The points of the result are (row, rank).
    at.index = {**index, "r": np.arange(at.extents["r"], dtype=np.int64).reshape(1, -1)}
    return run_region(op.epilogue, [keys, Approx(order)], at.index)


def first_places(keys: Array, count: int, largest: bool) -> Array:
    """First `count` places along the last axis: larger (or smaller) keys first, NaN above all; lower places first."""
    n = keys.shape[-1]
    if largest:
        order = n - 1 - np.argsort(keys[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(keys, axis=-1, kind="stable")
    return order[..., :count].astype(np.int64)


_UPDATES: Mapping[str, Callable[[Array, Array], Array]] = {
    "none": lambda old, new: new,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def scatter(at: Place, op: Scatter, every: dict[str, Array]) -> tuple[Approx, tuple[Array, ...]]:
    """(the whole result, the index of each of its elements). `every`: all points of the domain, as [points, 1] and
    [1, reduced] arrays."""
    shape = tuple(op.frame.int_extent(n) for n in op.frame.names)
    grid = np.indices(shape, dtype=np.int64)
    frame = dict(zip(op.frame.names, grid, strict=True))
    start = at.load(0, frame)
    out_type = op.outs[0].type
    assert isinstance(out_type, TensorType)
    dtype = out_type.dtype
    exact = np.array(np.broadcast_to(start.exact, shape))
    error = np.zeros(shape) if start.error is None else np.array(np.broadcast_to(start.error, shape))
    scalars = {f"${i}": at.load(i, every).exact for i in range(1, len(op.operands))}
    (update,) = run_region(op.body, [at.load(i, every) for i in range(1, len(op.operands))], every)
    rows, columns = (
        int(np.prod([at.extents[n] for n in names], dtype=np.int64))
        for names in (op.domain.parallel_names, op.domain.reduce_names)
    )
    new = spread(update, (rows, columns))
    places = [
        np.broadcast_to(np.asarray(eval_expr(e, {**every, **scalars}), np.int64), (rows, columns))
        for e in op.out_maps[0].results
    ]
    combine = _UPDATES[op.reduction]
    with np.errstate(all="ignore"):
        for step in range(columns):
            where = tuple(p[:, step] for p in places)
            value = new.exact[:, step].astype(exact.dtype)
            slack = np.zeros(rows) if new.error is None else new.error[:, step]
            old = exact[where]
            exact[where] = combine(old, value)
            if not dtype.is_float or op.reduction == "none":
                error[where] = slack
            elif op.reduction == "mul":
                error[where] = error[where] * np.abs(value) + slack * np.abs(old) + ulp(exact[where], dtype)
            elif op.reduction == "add":
                error[where] = error[where] + slack + ulp(exact[where], dtype)
            else:
                error[where] = np.maximum(error[where], slack)
    return Approx(exact.reshape(-1, 1), error.reshape(-1, 1)), tuple(i.reshape(-1, 1) for i in grid)
