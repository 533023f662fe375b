# SPDX-License-Identifier: Apache-2.0
"""`fold-batch-norm`: scales and shifts by constants go into the weights and bias of a contraction beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Loc, Op, Value, union_loc
from tcc.ir.graph import BatchNorm, Conv, ConvTranspose, Matmul
from tcc.ir.graph.base import Array, GraphOp, tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import blocks, constant, content, functions, insert, with_operands
from tcc.passes.graph.expand_ops.normalize import scale_and_shift

Contraction = Conv | ConvTranspose | Matmul


@register_pass
@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Folds per-channel scales and shifts by constants into the contraction that makes, or takes, the tensor.

    before: `%1 = graph.conv(%x, %w)`, `%2 = graph.batch_norm(%1, ...)`, `%3 = graph.mul(%2, %c)`; after: `%3 =
    graph.conv(%x, %w2, %b2)` with w2 = w·a and b2 = b·a + d, one a and d a channel. Before a convolution the shift is
    folded only where nothing is padded, as pads are zeros that it must not reach. What has other users, or constants
    that differ along other dims, is left with a remark.
    """

    name: ClassVar[str] = "fold-batch-norm"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            for block in list(blocks(function)):
                for op in list(block.ops):
                    if isinstance(op, Contraction) and op.parent is block:
                        _fold_before(_fold_after(op, rewriter), rewriter)


@dataclass
class _Affine:
    """a·x + d, one value a channel (or one for all), in float64; the ops that say so and their names."""

    a: Array
    d: Array
    ops: list[Op]

    @property
    def loc(self) -> Loc:
        return union_loc(*(op.loc for op in self.ops))

    def then(self, a: Array, d: Array, op: Op) -> None:
        self.a, self.d = self.a * a, self.d * a + d
        self.ops.append(op)

    def whole(self, channels: int) -> tuple[Array, Array]:
        return np.broadcast_to(self.a, (channels,)), np.broadcast_to(self.d, (channels,))


def _channel_axis(op: Contraction, of_input: bool) -> int:
    if isinstance(op, Matmul):
        return tensor_type(op.a if of_input else op.y).rank - 1
    return op.channel_axis


def _step(op: Op, x: Value, axis: int) -> tuple[Array, Array] | None:
    """(a, d) of an op that computes a·x + d with constants along `axis`; None for other ops."""
    one, zero = np.ones(1), np.zeros(1)
    t = tensor_type(x)
    if isinstance(op, BatchNorm):
        return scale_and_shift(op) if op.x is x and op.channel_axis == axis else None
    if not isinstance(op, graph.Add | graph.Sub | graph.Mul | graph.Div) or op.y.type != x.type:
        return None
    other = op.b if op.a is x else op.a
    array = content(other)
    if array is None or other is x:
        return None
    lead = t.rank - array.ndim
    if lead < 0 or any(n != 1 and lead + i != axis for i, n in enumerate(array.shape)):
        return None
    v = np.asarray(array, np.float64).reshape(-1)
    if isinstance(op, graph.Add):
        return one, v
    if isinstance(op, graph.Mul):
        return v, zero
    if op.a is not x:
        return (-one, v) if isinstance(op, graph.Sub) else None
    with np.errstate(divide="ignore"):
        return (one, -v) if isinstance(op, graph.Sub) else (1.0 / v, zero)


def _fold_after(op: Contraction, rewriter: Rewriter) -> Contraction:
    """Fold what follows; the contraction that stands there now."""
    if not tensor_type(op.y).dtype.is_float:
        return op
    axis = _channel_axis(op, of_input=False)
    found = _Affine(np.ones(1), np.zeros(1), [])
    value: Value = op.y
    while value.use_count == 1:
        user = value.uses[0][0]
        step = _step(user, value, axis)
        if step is None or user.parent is not op.parent:
            break
        found.then(*step, user)
        value = user.results[0]
    weights = op.b if isinstance(op, Matmul) else op.w
    scaled = not bool(np.all(found.a == 1))
    if not found.ops or (isinstance(op, Matmul) and not scaled):
        _remark_declined(op, op.y, axis, rewriter)
        return op
    w = content(weights)
    bias = None if isinstance(op, Matmul) or op.b is None else content(op.b)
    channels = tensor_type(op.y).shape[axis]
    if w is None or not isinstance(channels, int) or (not isinstance(op, Matmul) and op.b is not None and bias is None):
        rewriter.remark(found.ops[0], "fold", "not folded", f"the weights of {op.name} are no constants")
        return op
    a, d = found.whole(channels)
    if not np.isfinite(a).all():
        rewriter.remark(found.ops[0], "fold", "not folded", "its scale is not finite")
        return op
    new_w = _scaled_outputs(op, w, a) if scaled else w
    last = found.ops[-1]
    at: Op = op
    made_w = constant(rewriter, at, new_w.astype(w.dtype)) if scaled else weights
    if isinstance(op, Matmul):
        made = insert(rewriter, at, with_operands(op, op.a, made_w), op.loc)
        out: Value = made.results[0]
        if np.any(d != 0):
            shift = constant(rewriter, last, d.astype(w.dtype), found.loc)
            out = insert(rewriter, last, graph.Add(out, shift), found.loc).y
    else:
        full = (np.zeros(channels) if bias is None else np.asarray(bias, np.float64)) * a + d
        made = insert(
            rewriter, at, with_operands(op, op.x, made_w, constant(rewriter, at, full.astype(w.dtype))),
            union_loc(op.loc, found.loc),
        )  # fmt: skip
        out = made.results[0]
    rewriter.replace_value(last.results[0], out)
    for each in reversed(found.ops):
        rewriter.erase(each)
    rewriter.erase(op)
    assert isinstance(made, Contraction)
    return made


def _remark_declined(op: Contraction, value: Value, axis: int, rewriter: Rewriter) -> None:
    """Say why a scale or shift after a contraction was not folded."""
    for user in value.users:
        if isinstance(user, BatchNorm):
            if value.use_count > 1:
                reason = f"the result of {op.name} has {value.use_count} users"
            elif scale_and_shift(user) is None:
                reason = "its parameters are no constants"
            else:
                continue
            rewriter.remark(user, "fold", "not folded", reason)


def _scaled_outputs(op: Contraction, w: Array, a: Array) -> Array:
    """Weights with output channel c multiplied by a[c]."""
    wide = np.asarray(w, np.float64)
    if isinstance(op, Matmul):
        return wide * a
    if isinstance(op, Conv):
        return wide * a.reshape(-1, *[1] * (w.ndim - 1))
    group = op.group
    split = wide.reshape(group, w.shape[0] // group, *w.shape[1:])
    each = a.reshape(group, 1, *([-1] + [1] * (w.ndim - 2) if op.dims == "nchw" else [1] * (w.ndim - 2) + [-1]))
    return (split * each).reshape(w.shape)


def _fold_before(op: Contraction, rewriter: Rewriter) -> None:
    """Fold what comes before the input."""
    if not isinstance(op, Conv | Matmul) or not tensor_type(op.y).dtype.is_float:
        return
    w = content(op.b if isinstance(op, Matmul) else op.w)
    if w is None or (isinstance(op, Matmul) and (w.ndim != 2 or tensor_type(op.a).rank < 2)):
        return
    if isinstance(op, Conv) and op.b is not None and content(op.b) is None:
        return
    axis = _channel_axis(op, of_input=True)
    steps: list[tuple[Op, Array, Array]] = []
    value: Value = op.a if isinstance(op, Matmul) else op.x
    while value.use_count == 1:
        source = value.defining_op
        if not isinstance(source, GraphOp) or source.parent is not op.parent or not source.operands:
            break
        x = next((v for v in source.operands if content(v) is None), None)
        step = None if x is None else _step(source, x, axis)
        if x is None or step is None:
            break
        steps.append((source, *step))
        value = x
    if not steps:
        return
    found = _Affine(np.ones(1), np.zeros(1), [])
    for source, a, d in reversed(steps):
        found.then(a, d, source)
    channels = tensor_type(value).shape[axis]
    if not isinstance(channels, int):
        return
    a, d = found.whole(channels)
    if not np.isfinite(a).all():
        return
    if isinstance(op, Conv) and np.any(d != 0) and any(op.pads):
        rewriter.remark(
            found.ops[0], "fold", "not folded", f"{op.name} pads with zeros, which its shift must not reach"
        )
        return
    _replace_before(op, value, w, a, d, found, rewriter)


def _replace_before(
    op: Conv | Matmul, x: Value, w: Array, a: Array, d: Array, found: _Affine, rewriter: Rewriter
) -> None:
    wide = np.asarray(w, np.float64)
    loc = union_loc(found.loc, op.loc)
    if isinstance(op, Matmul):
        made = insert(
            rewriter, op, with_operands(op, x, constant(rewriter, op, (wide * a[:, None]).astype(w.dtype))), loc
        )
        out: Value = made.results[0]
        if np.any(d != 0):
            shift = constant(rewriter, op, (d @ wide).astype(w.dtype), found.loc)
            out = insert(rewriter, op, graph.Add(out, shift), loc).y
    else:
        co, depth = w.shape[0], a.size // op.group
        of_output = np.repeat(np.arange(op.group), co // op.group)  # the group of each output channel
        per = [v.reshape(op.group, depth)[of_output] for v in (a, d)]  # [co, ci / group]
        shape = (co, depth, *[1] * op.spatial) if op.dims == "nchw" else (co, *[1] * op.spatial, depth)
        bias = content(op.b)
        shift = (wide * per[1].reshape(shape)).reshape(co, -1).sum(1)
        full = shift + (0.0 if bias is None else np.asarray(bias, np.float64))
        weights = constant(rewriter, op, (wide * per[0].reshape(shape)).astype(w.dtype))
        b = op.b if not np.any(d != 0) else constant(rewriter, op, full.astype(w.dtype))
        out = insert(rewriter, op, with_operands(op, x, weights, b), loc).results[0]
    rewriter.replace_value(op.y, out)
    rewriter.erase(op)
    for each in reversed(found.ops):
        rewriter.erase(each)
