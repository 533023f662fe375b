# SPDX-License-Identifier: Apache-2.0
"""Layer norm and RMS norm, spelled out."""

from __future__ import annotations

from dataclasses import dataclass

from tcc.ir.core import Op, Value, union_loc
from tcc.ir.graph import Constant, LayerNorm, Reduce, RmsNorm
from tcc.ir.graph.base import tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.raise_patterns.match import made_by, once, scalar, sides, with_scalar


@dataclass
class _Deviation:
    """√(mean of squares of `of` + epsilon) over the dims from `axis` on, and the ops that made it."""

    of: Value
    axis: int
    epsilon: float
    ops: list[Op]


def raise_norm(op: Op, rewriter: Rewriter) -> bool:
    """x / √(…) or x · (1/√(…)), where x may be what a mean was taken from."""
    found = _quotient(op)
    if found is None:
        return False
    x, deviation = found
    if deviation.of is not x:
        return False
    centre = made_by(x, "graph.sub")
    mean = None if centre is None else _mean(centre.operands[1])
    loc = union_loc(*(o.loc for o in deviation.ops))
    if centre is not None and mean is not None and mean[0] is centre.operands[0] and mean[1] == deviation.axis:
        source = centre.operands[0]
        made: Op = LayerNorm(
            source, axis=deviation.axis, epsilon=deviation.epsilon, loc=union_loc(centre.loc, loc, op.loc)
        )
    else:
        made = RmsNorm(x, axis=deviation.axis, epsilon=deviation.epsilon, loc=union_loc(loc, op.loc))
    rewriter.replace(op, made)
    return True


def _quotient(op: Op) -> tuple[Value, _Deviation] | None:
    if op.name == "graph.div":
        deviation = _deviation(op.operands[1])
        return None if deviation is None else (op.operands[0], deviation)
    for x, factor in sides(op):
        inverse = made_by(factor, "graph.reciprocal")
        if inverse is not None:
            deviation = _deviation(inverse.operands[0])
            if deviation is not None:
                return x, deviation
        quotient = made_by(factor, "graph.div")
        if quotient is not None and scalar(quotient.operands[0]) == 1.0:
            deviation = _deviation(quotient.operands[1])
            if deviation is not None:
                return x, deviation
        power = made_by(factor, "graph.pow")
        if power is not None and scalar(power.operands[1]) == -0.5:
            deviation = _variance(power.operands[0], [power])
            if deviation is not None:
                return x, deviation
    return None


def _deviation(v: Value) -> _Deviation | None:
    root = made_by(v, "graph.sqrt")
    if root is not None:
        return _variance(root.operands[0], [root])
    power = made_by(v, "graph.pow")
    if power is not None and scalar(power.operands[1]) == 0.5:
        return _variance(power.operands[0], [power])
    return None


def _variance(v: Value, ops: list[Op]) -> _Deviation | None:
    """mean(x²) + epsilon."""
    sum_ = with_scalar(v, "graph.add")
    if sum_ is None:
        return None
    squares, epsilon = sum_
    mean = _mean(squares)
    if mean is None or epsilon < 0:
        return None
    x = _squared(mean[0])
    if x is None:
        return None
    made = squares.defining_op
    assert made is not None
    return _Deviation(x, mean[1], epsilon, [made, *ops])


def _squared(v: Value) -> Value | None:
    product = made_by(v, "graph.mul")
    if product is not None and product.operands[0] is product.operands[1]:
        return product.operands[0]
    power = made_by(v, "graph.pow")
    if power is not None and scalar(power.operands[1]) == 2.0:
        return power.operands[0]
    return None


def _mean(v: Value) -> tuple[Value, int] | None:
    """(x, first axis) where v is the mean of x over its last dims, kept as dims of 1."""
    op = v.defining_op
    if not isinstance(op, Reduce) or op.kind != "mean" or not op.keepdims or not op.axes:
        return None
    rank = tensor_type(op.x).rank
    if op.axes != tuple(range(op.axes[0], rank)) or not tensor_type(op.x).dtype.is_float:
        return None
    return op.x, op.axes[0]


def add_scale(op: Op, rewriter: Rewriter) -> bool:
    """A norm without a scale, times a constant of the row's shape."""
    for x, factor in sides(op):
        norm = x.defining_op
        if isinstance(norm, LayerNorm | RmsNorm) and norm.scale is None and once(x) and _is_param(factor, norm):
            if isinstance(norm, LayerNorm):
                if norm.bias is not None:
                    continue
                new: Op = LayerNorm(norm.x, factor, axis=norm.axis, epsilon=norm.epsilon, loc=norm.loc)
            else:
                new = RmsNorm(norm.x, factor, axis=norm.axis, epsilon=norm.epsilon, loc=norm.loc)
            rewriter.replace(op, new)
            rewriter.erase(norm)
            return True
    return False


def add_bias(op: Op, rewriter: Rewriter) -> bool:
    """A layer norm without a bias, plus a constant of the row's shape."""
    for x, addend in sides(op):
        norm = x.defining_op
        if isinstance(norm, LayerNorm) and norm.bias is None and once(x) and _is_param(addend, norm):
            new = LayerNorm(norm.x, norm.scale, addend, axis=norm.axis, epsilon=norm.epsilon, loc=norm.loc)
            rewriter.replace(op, new)
            rewriter.erase(norm)
            return True
    return False


def _is_param(v: Value, norm: LayerNorm | RmsNorm) -> bool:
    """Whether a constant has the shape of the row (or of its last dims)."""
    row = tensor_type(norm.x).shape[norm.axis :]
    shape = tensor_type(v).shape
    return isinstance(v.defining_op, Constant) and 0 < len(shape) <= len(row) and shape == row[len(row) - len(shape) :]
