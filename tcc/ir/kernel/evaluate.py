# SPDX-License-Identifier: Apache-2.0
"""The oracle: what a kernel must compute, in float64, and how far it may be off.

`evaluate(func, operands)` gives every output; with `points` it gives a sample of them that covers corners and tails,
at a cost of points × reduce extent. Works for every anchor, so templates are checked against one definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.ir.attributes import IndexMap
from tcc.ir.core import Value
from tcc.ir.expr import evaluate as eval_expr
from tcc.ir.kernel.anchors import Anchor, Attention, Contraction, Map, Reduce, Rows
from tcc.ir.kernel.anchors_irregular import Scan, Scatter, TopK
from tcc.ir.kernel.approx import Approx, apply, rounding, run_region, ulp
from tcc.ir.kernel.evaluate_irregular import identity, scan, scatter, topk
from tcc.ir.kernel.evaluate_recurrence import recurrence
from tcc.ir.kernel.func import Func
from tcc.ir.kernel.ragged import Ragged
from tcc.ir.kernel.recurrence import Recurrence
from tcc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Expected:
    """Exact values (float64, or the result's own integer or bool type) of some elements of one result.

    `index`: a tuple of int arrays, one per dim; `allowance`: the largest |difference| that is right, per element.
    """

    index: tuple[Array, ...]
    value: Array
    allowance: Array
    dtype: DType

    def worst(self, got: Array) -> float:
        """The largest |got - value| / allowance over the elements: ≤ 1 is right, NaN never is (unless expected)."""
        with np.errstate(all="ignore"):
            mine = np.asarray(got[self.index])
            if not self.dtype.is_float:
                return (
                    0.0
                    if np.array_equal(mine, self.value)
                    or not np.any(np.abs(mine.astype(np.float64) - self.value.astype(np.float64)) > self.allowance)
                    else float("inf")
                )
            x = mine.astype(np.float64)
            ratio = np.abs(x - self.value) / np.maximum(self.allowance, 1e-300)
            same = (x == self.value) | (np.isnan(x) & np.isnan(self.value))
            overflow = np.isinf(x) & (np.abs(self.value) + self.allowance >= largest(self.dtype))
            ratio = np.where(same | (overflow & (np.sign(x) == np.sign(self.value))), 0.0, ratio)
            ratio = np.where(np.isnan(ratio), np.inf, ratio)
            return float(ratio.max()) if ratio.size else 0.0


def largest(dtype: DType) -> float:
    """The largest finite value of an element type."""
    return {"f16": 65504.0, "f32": 3.4028234663852886e38, "bf16": 3.3895313892515355e38}.get(dtype.name, 1.7e308)


def evaluate(func: Func, operands: Sequence[Array], points: int | None = None, seed: int = 0) -> list[Expected]:
    """The expected results of a kernel with integer extents.

    `operands`: arrays of the arguments' types and shapes. `points`: about how many elements of each result to
    compute (None: all). Kernels of several anchors compute the inner tensors whole.
    """
    env: dict[Value, Approx] = {}
    for arg, array in zip(func.body.block.args, operands, strict=True):
        env[arg] = Approx(array)
    returned = func.body.block.terminator.operands
    expected: dict[Value, Expected] = {}
    for op in func.anchors():
        last = all(r in returned for r in op.results)
        for r, e in zip(op.results, _Anchor(op, env, points if last else None, seed).results(), strict=True):
            expected[r] = e
            if not last:
                assert isinstance(r.type, TensorType)
                shape = r.type.static_shape
                exact = np.zeros(shape, e.value.dtype)
                exact[e.index] = e.value
                error = np.zeros(shape)
                error[e.index] = e.allowance
                env[r] = Approx(exact, error)
    return [expected[v] for v in returned]


class _Anchor:
    """One anchor at chosen parallel points: arrays are [points, 1] for parallel and [1, reduce] for reduce dims."""

    def __init__(self, op: Anchor, env: dict[Value, Approx], points: int | None, seed: int) -> None:
        self.op = op
        self.env = env
        domain = op.domain
        self.extents = {n: domain.int_extent(n) for n in domain.names}
        total = int(np.prod([self.extents[n] for n in domain.parallel_names], dtype=np.int64))
        # The ranks of a top-k are no points to gather.
        self.reduce = ("s",) if isinstance(op, TopK) else domain.reduce_names
        self.reduce_size = int(np.prod([self.extents[n] for n in self.reduce], dtype=np.int64))
        if points is not None:
            width = self.reduce_size if isinstance(op, Rows | Scan | TopK) else 1
            points = max(8, points // max(1, width))
        self.points = points
        self.seed = seed
        # The whole reduction of every point is gathered at once: not too many of them then.
        fits = None if points is None else min(points, max(8, 4_000_000 // max(1, self.reduce_size)))
        self.place(spread_dims(self.extents, domain.parallel_names, fits, seed))
        self.sampled = points is not None and self.count < total

    def place(self, parallel: dict[str, Array]) -> None:
        """Take these parallel points: flat arrays of equal length by dim."""
        self.count = len(next(iter(parallel.values()))) if parallel else 1
        self.index: dict[str, Array] = {n: a.reshape(-1, 1) for n, a in parallel.items()}
        reduce = spread_dims(self.extents, self.reduce, None, 0)
        self.index |= {n: a.reshape(1, -1) for n, a in reduce.items()}

    def load(self, i: int, index: dict[str, Array] | None = None) -> Approx:
        """Operand i at every point of `index`."""
        index = dict(self.index if index is None else index)
        access = self.op.maps[i]
        for s in access.symbols:
            if s.startswith("$"):
                index[s] = self.load(int(s[1:]), index).exact
        operand = self.op.operands[i]
        got = read(self.env[operand], access, index)
        assert isinstance(operand.type, TensorType)
        # Made float64 here and not before: a constant may have a hundred million elements.
        return Approx(got.exact.astype(np.float64), got.error) if operand.type.dtype.is_float else got

    def loads(self, values: Sequence[Value], start: int, index: dict[str, Array] | None = None) -> list[Approx]:
        return [self.load(start + i, index) for i in range(len(values))]

    def mentioned(self, operands: range) -> set[str]:
        """The dims that the maps of these operands mention, through other operands too."""
        names: set[str] = set()
        todo = list(operands)
        while todo:
            symbols = self.op.maps[todo.pop()].symbols
            names |= symbols
            todo += [int(s[1:]) for s in symbols if s.startswith("$")]
        return names

    def results(self) -> list[Expected]:
        op = self.op
        if isinstance(op, Map):
            return self.finish(run_region(op.body, self.loads(op.ins, 0), self.index))
        if isinstance(op, Reduce):
            values = run_region(op.body, self.loads(op.ins, 0), self.index)
            shape = (self.count, self.reduce_size)
            acc = [combine(c, _spread(v, shape), op.acc) for c, v in zip(op.combine, values, strict=True)]
            return self.finish(run_region(op.epilogue, acc + self.loads(op.extra, len(op.ins)), self.index))
        if isinstance(op, Ragged):
            return self.finish(ragged(self, op))
        if isinstance(op, Contraction):
            acc = contraction_blocks(self, op) if self.sampled else None
            if acc is None:
                (a,) = run_region(op.lhs_body, self.loads(op.lhs, 0), self.index)
                (b,) = run_region(op.rhs_body, self.loads(op.rhs, len(op.lhs)), self.index)
                acc = contract(a, b, (self.count, self.reduce_size), op.acc, "tf32" in op.allow)
            extra = self.loads(op.extra, len(op.lhs) + len(op.rhs))
            return self.finish(run_region(op.epilogue, [acc, *extra], self.index))
        if isinstance(op, Scan):
            return self.finish(scan(self, op))
        if isinstance(op, TopK):
            return self.finish(topk(self, op))
        if isinstance(op, Scatter):
            return self.scattered(op)
        if isinstance(op, Rows):
            ins = self.loads(op.ins, 0)
            stages: list[Approx] = []
            for c, region in zip(op.combine, op.stages[:-1], strict=True):
                (v,) = run_region(region, [*ins, *stages], self.index)
                stages.append(combine(c, _spread(v, (self.count, self.reduce_size)), op.acc))
            return self.finish(run_region(op.stages[-1], [*ins, *stages], self.index))
        if isinstance(op, Recurrence):
            return self.of_recurrence(op)
        assert isinstance(op, Attention)
        return self.finish(attention(self, op))

    def of_recurrence(self, op: Recurrence) -> list[Expected]:
        out: list[Expected] = []
        rows = recurrence(op, self.extents, self.load, self.points, self.seed)
        for (where, value), r in zip(rows, op.results, strict=True):
            assert isinstance(r.type, TensorType)
            error = np.zeros(value.exact.shape) if value.error is None else value.error
            out.append(Expected(where, value.exact, error + ulp(value.exact, r.type.dtype), r.type.dtype))
        return out

    def scattered(self, op: Scatter) -> list[Expected]:
        """The whole result: any update may go anywhere."""
        every = {n: a.reshape(-1, 1) for n, a in spread_dims(self.extents, op.domain.parallel_names, None, 0).items()}
        reduced = spread_dims(self.extents, op.domain.reduce_names, None, 0)
        value, index = scatter(self, op, every | {n: a.reshape(1, -1) for n, a in reduced.items()})
        dtype = op.outs[0].type
        assert isinstance(dtype, TensorType) and value.error is not None
        allowance = value.error.ravel()
        if dtype.dtype.is_float:
            allowance = allowance + ulp(value.exact.ravel(), dtype.dtype)
        return [Expected(tuple(i.ravel() for i in index), value.exact.ravel(), allowance, dtype.dtype)]

    def finish(self, values: Sequence[Approx]) -> list[Expected]:
        out: list[Expected] = []
        for value, access, r in zip(values, self.op.out_maps, self.op.results, strict=True):
            assert isinstance(r.type, TensorType)
            d = r.type.dtype
            where = [np.asarray(eval_expr(e, self.index)) for e in access.results]
            shape = np.broadcast_shapes(value.exact.shape, (self.count, 1), *(w.shape for w in where))
            exact = np.broadcast_to(value.exact, shape).ravel()
            allowance = np.zeros(exact.shape) if value.error is None else np.broadcast_to(value.error, shape).ravel()
            if d.is_float:
                allowance = allowance + ulp(exact, d)
            index = tuple(np.broadcast_to(w, shape).ravel() for w in where)
            out.append(Expected(index, exact, allowance, d))
        return out


def read(source: Approx, access: IndexMap, index: dict[str, Array]) -> Approx:
    """The elements of a tensor at the points of `index`, `fill` where out of range."""
    shape = source.exact.shape
    where: list[Array] = []
    inside: Any = True
    for e, extent in zip(access.results, shape, strict=True):
        i = np.asarray(eval_expr(e, index))
        if access.fill is not None:
            inside = inside & (i >= 0) & (i < extent)
            i = np.clip(i, 0, max(extent - 1, 0))
        where.append(i)
    for z in access.zero:
        inside = inside & (np.asarray(eval_expr(z, index)) == 0)
    at = tuple(where)
    if access.fill is not None and 0 in shape:
        full = np.full(np.broadcast_shapes(*(w.shape for w in where)), access.fill, source.exact.dtype)
        return Approx(full)
    exact = source.exact[at]
    error = None if source.error is None else source.error[at]
    if access.fill is not None:
        exact = np.where(inside, exact, np.asarray(access.fill).astype(exact.dtype))
        error = None if error is None else np.where(inside, error, 0.0)
    return Approx(exact, error)


def spread_dims(extents: dict[str, int], names: Sequence[str], count: int | None, seed: int) -> dict[str, Array]:
    """Points of some dims, flat arrays by dim: all of them, or about `count`, corners and tails among them."""
    if not names:
        return {}
    shape = [extents[n] for n in names]
    at = np.unravel_index(_sample(int(np.prod(shape, dtype=np.int64)), count, seed), shape)
    return {n: a.astype(np.int64) for n, a in zip(names, at, strict=True)}


def _sample(total: int, points: int | None, seed: int) -> Array:
    """Flat indices: all, or corners, tails and random ones."""
    if points is None or points >= total:
        return np.arange(total)
    rng = np.random.default_rng(seed)
    edge = min(64, points // 4)
    picks = np.concatenate(
        [np.arange(edge), np.arange(total - edge, total), rng.integers(0, total, max(1, points - 2 * edge))]
    )
    return np.unique(picks)


def _spread(a: Approx, shape: tuple[int, ...]) -> Approx:
    return Approx(np.broadcast_to(a.exact, shape), None if a.error is None else np.broadcast_to(a.error, shape))


def combine(combiner: str, a: Approx, acc: DType) -> Approx:
    """Reduce the last axis (kept with extent 1)."""
    x = a.exact
    count = x.shape[-1]
    if combiner == "sum":
        total = x.sum(-1, keepdims=True, dtype=x.dtype if x.dtype.kind != "b" else np.int64)
        if not acc.is_float:
            return Approx(total.astype(acc.numpy))
        error = rounding(acc) * 2 * np.sqrt(max(count, 1)) * np.abs(x).sum(-1, keepdims=True)
        if a.error is not None:
            error = error + a.error.sum(-1, keepdims=True)
        return Approx(total, error)
    if combiner == "prod":
        total = x.prod(-1, keepdims=True, dtype=x.dtype)
        if not acc.is_float:
            return Approx(total.astype(acc.numpy))
        error = np.abs(total) * rounding(acc) * 2 * max(count, 1)
        if a.error is not None:
            with np.errstate(all="ignore"):
                relative = np.where(x == 0, 0, a.error / np.where(x == 0, 1, np.abs(x)))
            error = error + np.abs(total) * relative.sum(-1, keepdims=True)
        return Approx(total, error)
    if count == 0:
        least = -np.inf if combiner == "max" else np.inf
        if not acc.is_float:
            info = np.iinfo(acc.numpy)
            least = info.min if combiner == "max" else info.max
        return Approx(np.full((*x.shape[:-1], 1), least, x.dtype))
    value = x.max(-1, keepdims=True) if combiner == "max" else x.min(-1, keepdims=True)
    return Approx(value, None if a.error is None else a.error.max(-1, keepdims=True))


def ragged(at: _Anchor, op: Ragged) -> list[Approx]:
    """The values of all points of the reduce dims, and the combiner's identity in place of those outside the part."""
    inside: Any = True
    for i, name in enumerate(op.domain.reduce_names):
        begin, end = (at.load(2 * i + k).exact.astype(np.int64) for k in range(2))
        inside = inside & (at.index[name] >= begin) & (at.index[name] < end)
    values = run_region(op.body, [at.load(i) for i in op.inside], at.index)
    shape = (at.count, at.reduce_size)
    totals: list[Approx] = []
    for combiner, value in zip(op.combine, values, strict=True):
        whole = _spread(value, shape)
        exact = np.where(inside, whole.exact, np.asarray(identity(combiner, op.acc)).astype(whole.exact.dtype))
        error = None if whole.error is None else np.where(inside, whole.error, 0.0)
        totals.append(combine(combiner, Approx(exact, error), op.acc))
    return run_region(op.epilogue, [*totals, *(at.load(i) for i in op.after)], at.index)


def contract(a: Approx, b: Approx, shape: tuple[int, ...], acc: DType, tf32: bool) -> Approx:
    """Σ a·b over the last axis (kept with extent 1), with the accumulation allowance."""
    x, y = np.broadcast_to(a.exact, shape), np.broadcast_to(b.exact, shape)
    if not acc.is_float:
        return Approx((x.astype(acc.numpy) * y.astype(acc.numpy)).sum(-1, keepdims=True, dtype=acc.numpy))
    size = (np.abs(x) * np.abs(y)).sum(-1, keepdims=True)
    error = size * rounding(acc) * 2 * np.sqrt(max(shape[-1], 1))
    if tf32:
        error = error + size * 2.0**-10
    if a.error is not None:
        error = error + (np.broadcast_to(a.error, shape) * np.abs(y)).sum(-1, keepdims=True)
    if b.error is not None:
        error = error + (np.broadcast_to(b.error, shape) * np.abs(x)).sum(-1, keepdims=True)
    return Approx((x * y).sum(-1, keepdims=True), error)


def contraction_blocks(at: _Anchor, op: Contraction) -> Approx | None:
    """The sums of a contraction at sampled points that form blocks: all pairs of some rows of lhs and some columns of
    rhs, so that thousands of sums need few elements of either and one product in float64. Sets the points of `at`;
    None where a side depends on dims of the other.
    """
    assert at.points is not None
    names = op.domain.parallel_names
    left, right = at.mentioned(range(len(op.lhs))), at.mentioned(range(len(op.lhs), len(op.lhs) + len(op.rhs)))
    rows = [n for n in names if n in left and n not in right]
    columns = [n for n in names if n in right and n not in left]
    outer = [n for n in names if n not in rows and n not in columns]
    total = [int(np.prod([at.extents[n] for n in group], dtype=np.int64)) for group in (outer, rows, columns)]
    blocks = min(total[0], 16)
    width = min(total[2], max(1, int((at.points / blocks) ** 0.5)))
    height = min(total[1], max(1, at.points // (blocks * width)))
    width = min(total[2], max(1, at.points // (blocks * height)))
    most = max(4, 8_000_000 // max(1, blocks * at.reduce_size))
    height, width = min(height, most), min(width, most)
    picked: list[dict[str, Array]] = [
        spread_dims(at.extents, group, count, at.seed + i)
        for i, (group, count) in enumerate(((outer, blocks), (rows, height), (columns, width)))
    ]
    sizes = [len(next(iter(p.values()))) if p else 1 for p in picked]
    index: dict[str, Array] = {}
    for axis, group in enumerate([*picked, spread_dims(at.extents, op.domain.reduce_names, None, 0)]):
        index |= {n: a.reshape([-1 if i == axis else 1 for i in range(4)]) for n, a in group.items()}
    (a,) = run_region(op.lhs_body, at.loads(op.lhs, 0, index), index)
    (b,) = run_region(op.rhs_body, at.loads(op.rhs, len(op.lhs), index), index)
    if (a.exact.ndim == 4 and a.exact.shape[2] != 1) or (b.exact.ndim == 4 and b.exact.shape[1] != 1):
        return None
    x = _side(a, (sizes[0], sizes[1], 1, at.reduce_size), 2)
    y = _side(b, (sizes[0], 1, sizes[2], at.reduce_size), 1)
    at.place({
        n: np.broadcast_to(index[n], (*sizes, 1)).ravel() for n in names
    })  # fmt: skip

    def product(p: Array, q: Array) -> Array:
        # Not matmul: BLAS threads that wait for each other on busy cores take far longer than these small products.
        return np.einsum("bik,bjk->bij", p, q).reshape(-1, 1)

    if not op.acc.is_float:
        return Approx(product(x.exact.astype(op.acc.numpy), y.exact.astype(op.acc.numpy)))
    p, q = np.abs(x.exact), np.abs(y.exact)
    size = product(p, q)
    error = size * rounding(op.acc) * 2 * np.sqrt(max(at.reduce_size, 1))
    if "tf32" in op.allow:
        error = error + size * 2.0**-10
    if x.error is not None:
        error = error + product(x.error, q)
    if y.error is not None:
        error = error + product(p, y.error)
    return Approx(product(x.exact, y.exact), error)


def _side(a: Approx, shape: tuple[int, ...], axis: int) -> Approx:
    """An operand as [blocks, rows or columns, reduce]."""
    whole = _spread(a, shape)
    error = None if whole.error is None else np.ascontiguousarray(whole.error.squeeze(axis))
    return Approx(np.ascontiguousarray(whole.exact.squeeze(axis)), error)


def attention(at: _Anchor, op: Attention) -> list[Approx]:
    """Attention for some rows (batch…, m) and all channels d of each; sets the points of `at`."""
    keys, depth, channels = at.extents["n"], at.extents["k"], at.extents["d"]
    outer = [name for name in op.domain.parallel_names if name != "d"]
    wanted = None if at.points is None else max(8, min(at.points // channels, 4_000_000 // max(1, at.reduce_size)))
    picked = spread_dims(at.extents, outer, wanted, at.seed)
    count = len(picked[outer[0]])
    at.place({
        **{name: np.repeat(a, channels) for name, a in picked.items()}, "d": np.tile(np.arange(channels), count)
    })  # fmt: skip
    n = np.arange(keys, dtype=np.int64)
    index = {**{name: a.reshape(-1, 1, 1) for name, a in picked.items()}, "n": n.reshape(1, -1, 1)}
    index |= {"k": np.arange(depth, dtype=np.int64).reshape(1, 1, -1)}
    flat = {**{name: a.reshape(-1, 1) for name, a in picked.items()}, "n": n.reshape(1, -1)}
    dot = contract(at.load(0, index), at.load(1, index), (count, keys, depth), op.acc, "tf32" in op.allow)
    raw = Approx(dot.exact[..., 0], None if dot.error is None else dot.error[..., 0])
    extra = [_spread(at.load(3 + i, flat), (count, keys)) for i in range(len(op.extra))]
    (score,) = run_region(op.score, [raw, *extra], flat)
    s = np.broadcast_to(score.exact, (count, keys))
    err = np.broadcast_to(score.error if score.error is not None else np.zeros(()), (count, keys))
    top = s.max(-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    weight = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    v_type = op.v.type
    assert isinstance(v_type, TensorType)
    relative = 2 * np.where(np.isfinite(err), err, 0.0) + 16 * rounding(op.acc) + 2 * rounding(v_type.dtype)
    values = {**index, "d": np.arange(channels, dtype=np.int64).reshape(1, 1, -1)}
    del values["k"]
    v = _spread(at.load(2, values), (count, keys, channels))
    out = np.einsum("bk,bkd->bd", weight, v.exact)
    spread = np.abs(v.exact)
    slack = weight * (relative + (weight * relative).sum(-1, keepdims=True) + rounding(op.acc) * 4 * np.sqrt(keys))
    error = np.einsum("bk,bkd->bd", slack, spread)
    return run_region(op.epilogue, [Approx(out.reshape(-1, 1), error.reshape(-1, 1))], at.index)


__all__ = ["Expected", "apply", "evaluate", "read"]
