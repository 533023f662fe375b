# SPDX-License-Identifier: Apache-2.0
"""Replaces the chosen ops by their twins on channels-last tensors, with transposes between the forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir.core import Block, Op, Value
from tcc.ir.expr import Dim
from tcc.ir.graph import Reshape, Transpose
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.assign_layout.choose import Labels
from tcc.passes.graph.assign_layout.rules import (
    is_source,
    permuted_operands,
    shuffle_of,
    to_first,
    to_last,
    twin_of,
)
from tcc.passes.graph.common import constant, content, insert, with_operands


def convert(block: Block, labels: Labels, rewriter: Rewriter) -> None:
    """Ops in order; a plain form of each result is made too, and goes in `dce` where nothing reads it."""
    known: dict[tuple[Value, int], Value] = {}
    for op in list(block.ops):
        if op not in labels.channels_last or not isinstance(op, GraphOp):
            continue
        made = _twin(op, known, rewriter)
        rank = tensor_type(op.results[0]).rank
        back = insert(rewriter, op, Transpose(made, perm=to_first(rank)))
        known[back.y, rank] = made
        made.hint = op.results[0].hint
        rewriter.replace(op, [back.y])


def _twin(op: GraphOp, known: dict[tuple[Value, int], Value], rewriter: Rewriter) -> Value:
    shuffle = shuffle_of(op)
    if shuffle is not None:
        return _shuffle(op, *shuffle, known, rewriter)
    rank = tensor_type(op.operands[0]).rank if not permuted_operands(op) else _rank(op)
    operands = [_last(v, rank, op, known, rewriter) for v in permuted_operands(op)]
    if is_source(op):
        weights = _moved(op.operands[1], to_last(tensor_type(op.operands[1]).rank), op, rewriter)
        bias = op.operands[2] if len(op.operands) > 2 else None
        return insert(rewriter, op, with_operands(op, operands[0], weights, bias, dims="nhwc")).results[0]
    twin = twin_of(op)
    assert twin is not None
    return insert(rewriter, op, twin(op, operands)).results[0]


def _rank(op: GraphOp) -> int:
    """The rank that operands are permuted in: broadcast operands of lower rank get dims of 1 in front."""
    if op.category == "pointwise" or op.name == "graph.expand":
        return tensor_type(op.results[0]).rank
    return tensor_type(op.operands[0]).rank


def _last(value: Value, rank: int, at: Op, known: dict[tuple[Value, int], Value], rewriter: Rewriter) -> Value:
    """A value permuted, as a tensor of that rank."""
    key = (value, rank)
    if key not in known:
        t = tensor_type(value)
        if t.rank == 0 and t.size == 1:
            known[key] = value
            return value
        wide = value
        if t.rank < rank:
            shape: tuple[Dim, ...] = (*(1,) * (rank - t.rank), *t.shape)
            wide = _shaped(value, shape, at, rewriter)
        known[key] = _moved(wide, to_last(rank), at, rewriter)
    return known[key]


def _shaped(value: Value, shape: tuple[Dim, ...], at: Op, rewriter: Rewriter) -> Value:
    array = content(value)
    if array is not None:
        return constant(rewriter, at, array.reshape([d if isinstance(d, int) else -1 for d in shape]))
    return insert(rewriter, at, Reshape(value, shape=shape)).y


def _moved(value: Value, perm: Sequence[int], at: Op, rewriter: Rewriter) -> Value:
    """A value transposed; a constant at once."""
    array = content(value)
    if array is not None:
        return constant(rewriter, at, np.ascontiguousarray(np.transpose(array, perm)))
    return insert(rewriter, at, Transpose(value, perm=tuple(perm))).y


def _shuffle(op: GraphOp, split: Op, moved: Op, known: dict[tuple[Value, int], Value], rewriter: Rewriter) -> Value:
    """A channel shuffle of a permuted tensor: the same exchange at the end of the dims."""
    assert isinstance(split, Reshape) and isinstance(moved, Transpose)
    before = tensor_type(split.x).shape
    rank = len(before)
    parts = len(split.shape) - rank + 1
    x = _last(split.x, rank, op, known, rewriter)
    space = before[2:]
    cut = insert(rewriter, op, Reshape(x, shape=(before[0], *space, *split.shape[1 : 1 + parts])))
    first = 1 + len(space)
    order = (*range(first), *(first + p - 1 for p in moved.perm[1 : 1 + parts]))
    turned = insert(rewriter, op, Transpose(cut.y, perm=order))
    return insert(rewriter, op, Reshape(turned.y, shape=(before[0], *space, before[1]))).y
