# SPDX-License-Identifier: Apache-2.0
"""Pointwise identities and merges."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.declare import OPS
from tcc.ir.graph import Cast, Clip, Expand, Reshape
from tcc.ir.graph.base import GraphOp, broadcast, tensor_type
from tcc.ir.graph.pointwise import Binary, Pointwise
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import DType
from tcc.passes.graph.canonicalize.table import PATTERNS, Rule, canonical
from tcc.passes.graph.common import constant, content, insert, is_constant, number_like, only_user, producer, splat

LARGEST_MERGE = 1 << 16
"""Constants of more elements are not merged with each other: the result would be stored beside them."""


@canonical("add", "mul", "min", "max", "and", "or", "xor", "equal", "bitwise_and", "bitwise_or", "bitwise_xor")
def constant_right(op: Binary, rewriter: Rewriter) -> bool:
    if not is_constant(op.a) or is_constant(op.b):
        return False
    a, b = op.a, op.b
    rewriter.set_operand(op, 0, b)
    rewriter.set_operand(op, 1, a)
    return True


_NEUTRAL: dict[str, float] = {"graph.add": 0, "graph.sub": 0, "graph.mul": 1, "graph.div": 1, "graph.pow": 1}


@canonical("add", "sub", "mul", "div", "pow")
def neutral(op: Binary, rewriter: Rewriter) -> bool:
    """x + 0, x - 0, x · 1, x / 1, x to the power 1."""
    value = splat(op.b)
    if op.a.type != op.y.type or value is None or float(value) != _NEUTRAL[op.name]:
        return False
    rewriter.replace(op, op.a)
    return True


@canonical("or", "and")
def neutral_bool(op: Binary, rewriter: Rewriter) -> bool:
    if op.a.type != op.y.type or splat(op.b) is not (op.name == "graph.and"):
        return False
    rewriter.replace(op, op.a)
    return True


@canonical("sub")
def subtract_constant(op: Binary, rewriter: Rewriter) -> bool:
    """x - c is x + (-c), exactly."""
    array = content(op.b)
    if array is None or not tensor_type(op.b).dtype.is_float or array.size > LARGEST_MERGE:
        return False
    negative = constant(rewriter, op, -array, op.loc)
    rewriter.replace(op, graph.Add(op.a, negative))
    return True


@canonical("div")
def divide_by_power_of_two(op: Binary, rewriter: Rewriter) -> bool:
    """x / c is x · (1/c) where 1/c is exact."""
    c = splat(op.b)
    dtype = tensor_type(op.b).dtype
    if not isinstance(c, float) or not dtype.is_float or not c or not math.isfinite(c) or math.frexp(abs(c))[0] != 0.5:
        return False
    inverse = np.asarray(1.0 / c).astype(dtype.numpy)
    if not np.isfinite(np.float64(inverse)) or float(inverse) * c != 1.0 or abs(float(inverse)) < 1e-30:
        return False
    factor = constant(rewriter, op, np.full(tensor_type(op.b).static_shape, inverse, dtype.numpy), op.loc)
    rewriter.replace(op, graph.Mul(op.a, factor))
    return True


@canonical("pow")
def square(op: Binary, rewriter: Rewriter) -> bool:
    if splat(op.b) != 2 or op.a.type != op.y.type:
        return False
    rewriter.replace(op, graph.Mul(op.a, op.a))
    return True


@canonical("add", "mul")
def merge_constants(op: Binary, rewriter: Rewriter) -> bool:
    """(x + c) + d is x + (c + d), and so for products; floats round once less."""
    inner = op.a.defining_op
    if inner is None or inner.name != op.name or op.a.use_count != 1 or not isinstance(inner, Binary):
        return False
    c, d = content(inner.b), content(op.b)
    if c is None or d is None or is_constant(inner.a):
        return False
    if not _broadcastable(c.shape, d.shape) or int(np.prod(np.broadcast_shapes(c.shape, d.shape))) > LARGEST_MERGE:
        return False
    both = op.evaluate(c, d)[0]
    if tensor_type(op.a).dtype.is_float and not np.isfinite(np.asarray(both, np.float64)).all():
        return False
    rewriter.replace(op, type(op)(inner.a, constant(rewriter, op, both, op.loc), loc=inner.loc))
    return True


def _broadcastable(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


@canonical("neg", "not")
def involution(op: Any, rewriter: Rewriter) -> bool:
    """-(-x), not not x."""
    inner = op.x.defining_op
    if inner is None or inner.name != op.name:
        return False
    rewriter.replace(op, inner.operands[0])
    return True


@canonical("relu", "abs", "floor", "ceil", "round", "sign")
def idempotent(op: Any, rewriter: Rewriter) -> bool:
    inner = op.x.defining_op
    if inner is None:
        return False
    whole = op.name in ("graph.floor", "graph.ceil", "graph.round") and inner.name in (
        "graph.floor", "graph.ceil", "graph.round"
    )  # fmt: skip
    positive = op.name in ("graph.relu", "graph.abs") and inner.name in ("graph.relu", "graph.abs")
    if inner.name != op.name and not whole and not positive:
        return False
    rewriter.replace(op, op.x)
    return True


Bound = float | int | None


def limits(op: Clip) -> tuple[Bound, Bound]:
    """(lo, hi) of a clip; None where it does not bind."""
    return op.attrs["lo"], op.attrs["hi"]


def bounds_of(op: Op | None) -> tuple[Value, Bound, Bound] | None:
    """(x, lo, hi) of an op that clamps x by numbers; None for other ops."""
    if isinstance(op, Clip):
        return (op.x, *limits(op))
    if isinstance(op, graph.Relu):
        return op.x, 0, None
    if isinstance(op, graph.Min | graph.Max) and op.a.type == op.y.type:
        c = splat(op.b)
        if c is not None and not isinstance(c, bool) and c == c:
            return (op.a, None, c) if isinstance(op, graph.Min) else (op.a, c, None)
    return None


@canonical("min", "max")
def clip_of_extreme(op: Binary, rewriter: Rewriter) -> bool:
    """min(x, c) and max(x, c) are clips."""
    found = bounds_of(op)
    if found is None or tensor_type(op.y).dtype.kind not in ("float", "int", "uint"):
        return False
    x, lo, hi = found
    rewriter.replace(op, graph.Clip(x, lo=_typed(lo, op), hi=_typed(hi, op)))
    return True


@canonical("clip")
def merge_clips(op: Clip, rewriter: Rewriter) -> bool:
    """clip(clip(x)), clip(relu(x)), and clips that are a relu or nothing."""
    low, high = limits(op)
    if low is None and high is None:
        rewriter.replace(op, op.x)
        return True
    if low == 0 and high is None:
        rewriter.replace(op, graph.Relu(op.x))
        return True
    inner = op.x.defining_op
    found = bounds_of(inner)
    if found is None or inner is None or op.x.use_count != 1:
        return False
    x, lo, hi = found
    both_lo = low if lo is None else lo if low is None else max(lo, low)
    both_hi = high if hi is None else hi if high is None else min(hi, high)
    if both_lo is not None and both_hi is not None and both_lo > both_hi:
        return False
    rewriter.replace(op, graph.Clip(x, lo=_typed(both_lo, op), hi=_typed(both_hi, op), loc=inner.loc))
    return True


@canonical("relu")
def relu_of_clip(op: graph.Relu, rewriter: Rewriter) -> bool:
    inner = op.x.defining_op
    if not isinstance(inner, Clip) or op.x.use_count != 1:
        return False
    lo, hi = limits(inner)
    if hi is not None and hi < 0:
        return False
    low = 0 if lo is None else max(lo, 0)
    rewriter.replace(op, graph.Clip(inner.x, lo=_typed(low, op), hi=hi, loc=inner.loc))
    return True


def _typed(bound: Bound, op: GraphOp) -> Bound:
    if bound is None:
        return None
    return float(bound) if tensor_type(op.operands[0]).dtype.is_float else int(bound)


@canonical("cast")
def merge_casts(op: Cast, rewriter: Rewriter) -> bool:
    if tensor_type(op.x).dtype == op.to:
        rewriter.replace(op, op.x)
        return True
    inner = producer(op.x, Cast)
    if inner is None or not holds(inner.to, tensor_type(inner.x).dtype):
        return False
    rewriter.replace(op, Cast(inner.x, to=op.to, saturate=op.saturate, loc=inner.loc))
    return True


_DIGITS = {"f64": (53, 1024), "f32": (24, 128), "f16": (11, 16), "bf16": (8, 128)}


def holds(wide: DType, narrow: DType) -> bool:
    """Whether `wide` has every value of `narrow` exactly."""
    if wide == narrow:
        return True
    if narrow.kind == "bool":
        return wide.kind in ("int", "uint") or wide.name in _DIGITS
    if wide.is_float and narrow.is_float:
        if wide.name not in _DIGITS or narrow.name not in _DIGITS:
            return False
        return all(w >= n for w, n in zip(_DIGITS[wide.name], _DIGITS[narrow.name], strict=True))
    if wide.is_float and narrow.is_int:
        return wide.name in _DIGITS and narrow.bits <= _DIGITS[wide.name][0] and wide.name != "f16"
    if wide.is_int and narrow.is_int:
        if wide.kind == narrow.kind:
            return wide.bits >= narrow.bits
        return narrow.kind == "uint" and wide.bits > narrow.bits
    return False


@canonical("where")
def known_condition(op: graph.Where, rewriter: Rewriter) -> bool:
    """where(true, a, b), where(c, a, a)."""
    c = splat(op.condition)
    chosen = op.a if c is True or op.a is op.b else op.b if c is False else None
    if chosen is None or chosen.type != op.y.type:
        return False
    rewriter.replace(op, chosen)
    return True


def unbroadcast(op: Pointwise, rewriter: Rewriter) -> bool:
    """An operand that is an expansion, where broadcasting does it."""
    shapes = [tensor_type(v).shape for v in op.operands]
    for i, v in enumerate(op.operands):
        inner = producer(v, Expand)
        if inner is None:
            continue
        shapes[i] = tensor_type(inner.x).shape
        if broadcast(op, shapes) == tensor_type(op.results[0]).shape:
            rewriter.set_operand(op, i, inner.x)
            return True
        shapes[i] = tensor_type(v).shape
    return False


for _cls in OPS.values():
    if issubclass(_cls, Pointwise) and len(_cls.spec.operands) > 1:
        PATTERNS.setdefault(_cls.name, []).append(cast(Rule, unbroadcast))


@canonical("mul")
def add_then_scale(op: Binary, rewriter: Rewriter) -> bool:
    """(x · c + d) · e is x · (c · e) + d · e, where constants are small: it ends in one scale and one shift."""
    e = content(op.b)
    inner = producer(op.a, graph.Add)
    if e is None or inner is None or only_user(op.a) is not op:
        return False
    scaled = producer(inner.a, graph.Mul)
    d = content(inner.b)
    if d is None or scaled is None or content(scaled.b) is None or only_user(inner.a) is not inner:
        return False
    dtype = tensor_type(op.y).dtype
    if not dtype.is_float or not _broadcastable(d.shape, e.shape) or is_constant(scaled.a):
        return False
    shift = op.evaluate(d, e)[0]
    if shift.size > LARGEST_MERGE or not np.isfinite(np.asarray(shift, np.float64)).all():
        return False
    if tensor_type(inner.a).shape != tensor_type(op.y).shape:
        return False
    first = insert(rewriter, op, graph.Mul(inner.a, op.b), scaled.loc)
    rewriter.replace(op, graph.Add(first.y, constant(rewriter, op, shift, op.loc), loc=inner.loc))
    return True


@canonical("mul")
def twice(op: Binary, rewriter: Rewriter) -> bool:
    """(-x) · c is x · (-c)."""
    inner = producer(op.a, graph.Neg)
    c = splat(op.b)
    if inner is None or not isinstance(c, float) or tensor_type(op.b).size != 1 or op.a.use_count != 1:
        return False
    factor = number_like(rewriter, op, -c, tensor_type(op.b).dtype, op.loc)
    if tensor_type(op.b).rank:
        factor = insert(rewriter, op, Reshape(factor, shape=tensor_type(op.b).shape)).y
    rewriter.replace(op, graph.Mul(inner.x, factor, loc=inner.loc))
    return True
