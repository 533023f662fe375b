# SPDX-License-Identifier: Apache-2.0
"""Softmax, layer and RMS normalisation by value, and the scale and shift after a norm as its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.graph import Constant, LayerNorm, Reduce, RmsNorm, Softmax, Transpose
from tcc.ir.graph.base import Array, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.common import compute, content, insert, number_like, splat, static_shape
from tcc.passes.graph.raise_patterns.cone import Cone, cone, ends, rowwise, sources

LARGEST_SAMPLE = 1 << 22
"""Tensors of more elements are not tried."""


SPREADS = (1.0, 2.0, 1e-2, 1e-4, 1e-6)
"""Spreads of the samples of a norm: small ones tell one ε from another."""


def _sample(shape: Sequence[int], seed: int, spread: float = 1.0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(tuple(shape)) + 0.3 * seed) * spread


def _reductions(found: Cone) -> tuple[int, ...] | None:
    """The axes of x that all reductions of a cone are over; None if they differ or there are none."""
    axes = {op.axes for op in found.ops if isinstance(op, Reduce) and tensor_type(op.x).shape == _shape(found.x)}
    return next(iter(axes)) if len(axes) == 1 else None


def _shape(v: Value) -> tuple[int, ...] | None:
    return static_shape(v)


def _candidates(op: Op, before: int, after: int) -> list[Cone]:
    """Cones through `op` between tensors of one type, the longest first."""
    out: list[Cone] = []
    starts = [v for v in sources(op, rowwise, before) if _shape(v) is not None]
    for root in ends(op, rowwise, after):
        for x in starts:
            if x.type != root.type or tensor_type(x).rank == 0:
                continue
            size = tensor_type(x).size
            if not isinstance(size, int) or not 1 < size <= LARGEST_SAMPLE:
                continue
            found = cone(root, x, rowwise)
            if found is not None and op in found.ops and _reductions(found) is not None:
                out.append(found)
    return sorted(out, key=lambda c: -len(c.ops))


def _matches(found: Cone, expected: list[tuple[Array, Array]]) -> bool:
    """Whether a cone gives the expected results of samples."""
    for x, y in expected:
        try:
            got = found.evaluate(x)
        except ValueError:
            return False
        if got.shape != y.shape or not np.allclose(got, y, rtol=1e-5, atol=1e-6):
            return False
    return True


def _replace(found: Cone, new: Value, rewriter: Rewriter) -> None:
    last = found.root.owner
    assert isinstance(last, Op)
    rewriter.replace(last, [new])
    for op in reversed(found.ops):
        if op is not last and op.parent is not None and not any(r.use_count for r in op.results):
            rewriter.erase(op)


def _last(found: Cone) -> Op:
    op = found.root.owner
    assert isinstance(op, Op)
    return op


def raise_softmax(op: Op, rewriter: Rewriter) -> None:
    """exp over its sum along one axis, with or without the maximum taken off first."""
    if op.name != "graph.exp":
        return
    for found in _candidates(op, 6, 4):
        axes, shape = _reductions(found), _shape(found.x)
        if axes is None or len(axes) != 1 or shape is None:
            continue
        samples = [_sample(shape, s) for s in (0, 1)]
        if not _matches(found, [(x, compute(Softmax, x, axis=axes[0])) for x in samples]):
            continue
        if found.closed(rewriter, "softmax"):
            rewriter.remark(op, "raise", "softmax", f"{len(found.ops)} ops compute it")
            made = insert(rewriter, _last(found), Softmax(found.x, axis=axes[0]))
            _replace(found, made.y, rewriter)
        return


def raise_norm(op: Op, rewriter: Rewriter) -> None:
    """(x - mean) / √(variance + ε) and x / √(mean of x² + ε), with a scale and a shift by constants or without."""
    root_of_mean = op.name == "graph.sqrt" or (op.name == "graph.pow" and splat(op.operands[1]) in (0.5, -0.5))
    if not root_of_mean or not rowwise(op):
        return
    for found in _candidates(op, 9, 7):
        if _raise_norm(found, rewriter):
            return


def _raise_norm(found: Cone, rewriter: Rewriter) -> bool:
    axes, shape = _reductions(found), _shape(found.x)
    if axes is None or shape is None:
        return False
    numbers = [(v, splat(v)) for v in found.constants]
    epsilons = {float(n) for _, n in numbers if n is not None and 0 <= n <= 1e-2} | {0.0}
    samples = [_sample(shape, i, spread) for i, spread in enumerate(SPREADS)]
    got = [found.evaluate(x) for x in samples]
    if any(g.shape != shape or not np.isfinite(g).all() for g in got):
        return False
    for kind in (LayerNorm, RmsNorm):
        for epsilon in sorted(epsilons):
            normal = [_normal(x, axes, epsilon, centred=kind is LayerNorm) for x in samples]
            fit = _affine(found, normal, got, shape)
            if fit is None or (fit[1] is not None and kind is RmsNorm):
                continue
            name = kind.name.removeprefix("graph.")
            if found.closed(rewriter, name):
                rewriter.remark(_last(found), "raise", name, f"{len(found.ops)} ops compute it")
                _replace(found, _norm(found, kind, axes, epsilon, fit, rewriter), rewriter)
            return True
    return False


def _normal(x: Array, axes: tuple[int, ...], epsilon: float, centred: bool) -> Array:
    d = x - x.mean(axes, keepdims=True) if centred else x
    return d / np.sqrt((d * d).mean(axes, keepdims=True) + epsilon)


def _affine(
    found: Cone, normal: list[Array], got: list[Array], shape: tuple[int, ...]
) -> tuple[Value | None, Value | None] | None:
    """(scale, bias) among the constants with which the samples are normal · scale + bias; None if there are none."""
    with np.errstate(all="ignore"):
        slope = np.where(normal[0] != normal[1], (got[0] - got[1]) / (normal[0] - normal[1]), np.nan)
    if not np.isfinite(slope).any():
        return None
    offset = got[0] - slope * normal[0]
    options = [v for v in found.constants if _broadcasts(v, shape)]
    scale = _equal_to(slope, 1.0, options)
    if scale is _NOT:
        return None
    bias = _equal_to(offset, 0.0, options)
    if bias is _NOT:
        return None
    a = np.ones(()) if scale is None else np.asarray(content(scale), np.float64)
    b = np.zeros(()) if bias is None else np.asarray(content(bias), np.float64)
    if all(np.allclose(g, n * a + b, rtol=2e-6, atol=2e-6) for g, n in zip(got, normal, strict=True)):
        return scale, bias
    return None


_NOT = Value.__new__(Value)


def _equal_to(values: Array, neutral: float, options: list[Value]) -> Value | None:
    """The constant that values are equal to where they are known; None if they are the neutral number."""
    known = np.isfinite(values)
    if np.allclose(values[known], neutral, rtol=1e-4, atol=1e-5):
        return None
    for v in options:
        array = np.broadcast_to(np.asarray(content(v), np.float64), values.shape)
        if np.allclose(values[known], array[known], rtol=1e-4, atol=1e-5):
            return v
    return _NOT


def _broadcasts(v: Value, shape: tuple[int, ...]) -> bool:
    mine = tensor_type(v).static_shape
    return len(mine) <= len(shape) and all(a in (1, b) for a, b in zip(mine[::-1], shape[::-1], strict=False))


def _norm(
    found: Cone, kind: type[Op], axes: tuple[int, ...], epsilon: float, fit: tuple[Value | None, Value | None],
    rewriter: Rewriter,
) -> Value:  # fmt: skip
    """The norm, with its rows moved to the end where they are not there; parameters that only such a move fits follow
    as a multiplication and an addition."""
    last = _last(found)
    shape = _shape(found.x)
    assert shape is not None
    rank = len(shape)
    first = rank - len(axes)
    trailing = axes == tuple(range(first, rank))
    perm = (*(i for i in range(rank) if i not in axes), *axes)
    x = found.x if trailing else insert(rewriter, last, Transpose(found.x, perm=perm)).y
    scale, bias = fit
    params: list[Value | None] = [scale, bias] if trailing else [None, None]
    if params[0] is None and params[1] is not None:
        params[0] = number_like(rewriter, last, 1.0, tensor_type(found.x).dtype)
    if kind is LayerNorm:
        made = insert(rewriter, last, LayerNorm(x, params[0], params[1], axis=first, epsilon=epsilon)).y
    else:
        made = insert(rewriter, last, RmsNorm(x, params[0], axis=first, epsilon=epsilon)).y
    if trailing:
        return made
    back = tuple(perm.index(i) for i in range(rank))
    out: Value = insert(rewriter, last, Transpose(made, perm=back)).y
    if scale is not None:
        out = insert(rewriter, last, graph.Mul(out, scale)).y
    if bias is not None:
        out = insert(rewriter, last, graph.Add(out, bias)).y
    return out


def take_affine(op: Op, rewriter: Rewriter) -> None:
    """A scale after a norm without one, then a shift after a layer norm, become its parameters."""
    if not isinstance(op, LayerNorm | RmsNorm):
        return
    norm: LayerNorm | RmsNorm = op
    while norm.y.use_count == 1:
        user = norm.y.uses[0][0]
        if not isinstance(user, graph.Mul | graph.Add) or user.y.type != norm.y.type or user.parent is not norm.parent:
            return
        other = user.b if user.a is norm.y else user.a
        if not isinstance(other.defining_op, Constant):
            return
        bias = norm.bias if isinstance(norm, LayerNorm) else None
        if isinstance(user, graph.Mul) and norm.scale is None and bias is None:
            made = _with(norm, other, None)
        elif isinstance(user, graph.Add) and isinstance(norm, LayerNorm) and bias is None:
            made = _with(norm, norm.scale, other)
        else:
            return
        insert(rewriter, user, made, norm.loc)
        rewriter.replace(user, made)
        rewriter.erase(norm)
        norm = made


def _with(norm: LayerNorm | RmsNorm, scale: Value | None, bias: Value | None) -> LayerNorm | RmsNorm:
    if isinstance(norm, LayerNorm):
        return LayerNorm(norm.x, scale, bias, axis=norm.axis, epsilon=norm.epsilon)
    return RmsNorm(norm.x, scale, axis=norm.axis, epsilon=norm.epsilon)
