# SPDX-License-Identifier: Apache-2.0
"""softmax(q kᵀ · scale + mask) v as `graph.attention`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim
from tcc.ir.graph import Attention, Constant, Expand, Matmul, Reshape, Softmax, Transpose
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.common import (
    constant,
    content,
    insert,
    number_like,
    shape_of,
    splat,
    static_shape,
    with_operands,
)

HIDES = -1e8
"""Numbers up to this in a mask hide a key: e to their power is 0 beside any other score."""

_ABSORBS = -1e30
"""Added to a score, a number up to this is the sum: in rows that are hidden as a whole, all keys weigh the same."""


@dataclass
class _Scores:
    """Between the product of q and kᵀ and the softmax: score = product · scale + Σ masks."""

    scale: float = 1.0
    masks: list[Value] = field(default_factory=list[Value])
    inside: list[Op] = field(default_factory=list[Op])


def raise_attention(op: Op, rewriter: Rewriter) -> None:
    """Rooted at the product with v."""
    if not isinstance(op, Matmul):
        return
    weights, guard = _unguarded(op.a)
    softmax = weights.defining_op
    if not isinstance(softmax, Softmax) or softmax.axis != tensor_type(softmax.x).rank - 1:
        return
    reason = _raise(op, softmax, guard, rewriter)
    if reason is not None:
        rewriter.remark(softmax, "raise", "not made attention", reason)


def _unguarded(v: Value) -> tuple[Value, list[Op]]:
    """w of where(isnan(w), 0, w), which guards against rows that are hidden as a whole; attention gives 0 there."""
    op = v.defining_op
    if isinstance(op, graph.Where) and splat(op.a) == 0:
        test = op.condition.defining_op
        if isinstance(test, graph.IsNan) and test.x is op.b:
            return op.b, [op, test]
    return v, []


def _raise(op: Matmul, softmax: Softmax, guard: list[Op], rewriter: Rewriter) -> str | None:
    """Replace the ops; or why not."""
    found = _Scores(inside=[*guard, softmax])
    product = _descend(softmax.x, found)
    if isinstance(product, str):
        return product
    q, kt, v = product.a, product.b, op.b
    shapes = [static_shape(x) for x in (q, kt, v)]
    if any(s is None or len(s) not in (3, 4) for s in shapes) or len({len(s or ()) for s in shapes}) != 1:
        return "q, k and v are not all of rank 3, or all of rank 4"
    if len({(s or ())[:-2] for s in shapes}) != 1:
        return "q, k and v have different batches or heads"
    inside = {*found.inside, product, op}
    for each in (*found.inside, product):
        other = next((u for r in each.results for u in r.users if u not in inside), None)
        if other is not None:
            return f"a value inside is also used by {other.name}"
    q, a = _without_scale(q, op, rewriter)
    kt, b = _without_scale(kt, op, rewriter)
    rank = len(shapes[0] or ())
    k: Value = insert(rewriter, op, Transpose(kt, perm=(*range(rank - 2), rank - 1, rank - 2))).y
    turned = kt.defining_op
    if isinstance(turned, Transpose) and turned.perm == (*range(rank - 2), rank - 1, rank - 2):
        k = turned.x
    fewer_k, fewer_v = _shared_heads(k), _shared_heads(v)
    if fewer_k is not None and fewer_v is not None and shape_of(fewer_k)[1] == shape_of(fewer_v)[1]:
        k, v = fewer_k, fewer_v
    mask, causal = _mask(found, op, rewriter)
    q4, k4, v4 = (_four(x, op, rewriter) for x in (q, k, v))
    made = insert(rewriter, op, Attention(q4, k4, v4, mask, scale=found.scale * a * b, causal=causal)).y
    out = made if rank == 4 else insert(rewriter, op, Reshape(made, shape=tensor_type(op.y).shape)).y
    rewriter.remark(op, "raise", "attention", f"{len(inside)} ops compute it")
    rewriter.replace(op, [out])
    for each in (*found.inside, product):
        if not any(r.use_count for r in each.results):
            rewriter.erase(each)
    return None


def _descend(v: Value, found: _Scores) -> Matmul | str:
    """Walk from the softmax to the product of q and kᵀ; or why it is not there."""
    while True:
        op = v.defining_op
        if isinstance(op, Matmul):
            return op
        if not isinstance(op, GraphOp):
            return "its scores are no product"
        if isinstance(op, graph.Mul | graph.Div):
            other, inner = (op.b, op.a) if splat(op.b) is not None else (op.a, op.b)
            c = splat(other)
            if c is None or _core(inner) != _core(op.y) or (isinstance(op, graph.Div) and inner is op.b):
                return f"its scores go through {op.name} of two tensors"
            found.scale *= float(c) if isinstance(op, graph.Mul) else 1.0 / float(c)
            v = inner
        elif isinstance(op, graph.Add):
            if found.scale != 1.0:
                return "its scores are scaled after the mask"
            mask, inner = (op.b, op.a) if _leads_to_product(op.a) else (op.a, op.b)
            if _core(inner) != _core(op.y) or not _leads_to_product(inner):
                return "its scores go through an addition of no mask"
            found.masks.append(mask)
            v = inner
        elif isinstance(op, graph.Where) and (splat(op.b) is not None or splat(op.a) is not None):
            if found.scale != 1.0:
                return "its scores are scaled after the mask"
            hidden, inner = (op.b, op.a) if splat(op.b) is not None else (op.a, op.b)
            c = splat(hidden)
            if c is None or float(c) > HIDES or _core(inner) != _core(op.y):
                return f"{c} in place of a score does not hide it"
            found.masks.append(op.y)
            v = inner
        elif isinstance(op, Reshape) and _core(op.x) == _core(op.y):
            v = op.x
        else:
            return f"its scores come from {op.name}"
        found.inside.append(op)


def _core(v: Value) -> tuple[Dim, ...]:
    """The shape without dims of 1 in front."""
    shape = tensor_type(v).shape
    ones = next((i for i, d in enumerate(shape) if d != 1), len(shape))
    return shape[ones:]


def _leads_to_product(v: Value) -> bool:
    """Whether a value is scores: a product, perhaps scaled and masked."""
    for _ in range(4):
        op = v.defining_op
        if isinstance(op, Matmul):
            return True
        if isinstance(op, graph.Mul | graph.Div | graph.Add | graph.Where):
            v = op.b if isinstance(op.a.defining_op, Constant) else op.a
        elif isinstance(op, Reshape) and _core(op.x) == _core(op.y):
            v = op.x
        else:
            return False
    return False


def _without_scale(v: Value, at: Op, rewriter: Rewriter) -> tuple[Value, float]:
    """(x, c) of a value that is c·x behind transposes and reshapes, which are made anew on x."""
    chain: list[Transpose | Reshape] = []
    inner = v
    while isinstance(inner.defining_op, Transpose | Reshape):
        chain.append(inner.defining_op)
        inner = inner.defining_op.x
    op = inner.defining_op
    if not isinstance(op, graph.Mul | graph.Div):
        return v, 1.0
    c = splat(op.b)
    x = op.a
    if c is None and isinstance(op, graph.Mul):
        c, x = splat(op.a), op.b
    if c is None or x.type != op.y.type:
        return v, 1.0
    for each in reversed(chain):
        x = insert(rewriter, at, with_operands(each, x), each.loc).results[0]
    return x, float(c) if isinstance(op, graph.Mul) else 1.0 / float(c)


def _shared_heads(v: Value) -> Value | None:
    """x [b, h, n, d] of a value [b, h·g, n, d] in which each of its heads stands g times (Ainslie et al., 2023)."""
    merged = v.defining_op
    repeated = merged.x.defining_op if isinstance(merged, Reshape) else None
    if not isinstance(merged, Reshape) or not isinstance(repeated, Expand) or len(merged.shape) != 4:
        return None
    split = repeated.x.defining_op
    if not isinstance(split, Reshape) or len(shape_of(split.x)) != 4 or len(repeated.shape) != 5:
        return None
    b, h, n, d = shape_of(split.x)
    if tuple(split.shape) != (b, h, 1, n, d) or (*repeated.shape[:2], *repeated.shape[3:]) != (b, h, n, d):
        return None
    return split.x


def _four(v: Value, at: Op, rewriter: Rewriter) -> Value:
    t = tensor_type(v)
    return v if t.rank == 4 else insert(rewriter, at, Reshape(v, shape=(1, *t.shape))).y


def _mask(found: _Scores, at: Op, rewriter: Rewriter) -> tuple[Value | None, bool]:
    """(the masks added up, whether they only hide later keys)."""
    total: Value | None = None
    causal = False
    for v in reversed(found.masks):
        op = v.defining_op
        part = v
        if isinstance(op, graph.Where) and op in found.inside:
            zero = number_like(rewriter, at, 0.0, tensor_type(v).dtype, op.loc)
            keeps = splat(op.b) is not None
            # The mask is added where the model has it in place of the score, which must not show behind it.
            hidden = op.b if keeps else op.a
            if float(splat(hidden) or 0.0) > _ABSORBS:
                hidden = number_like(rewriter, at, _ABSORBS, tensor_type(hidden).dtype, op.loc)
            choice = graph.Where(op.condition, *((zero, hidden) if keeps else (hidden, zero)))
            part = insert(rewriter, at, choice, op.loc).y
        elif is_causal(v):
            causal = True
            continue
        elif splat(v) == 0:
            continue
        total = part if total is None else insert(rewriter, at, graph.Add(total, part)).y
    if total is None:
        return None, causal
    t = tensor_type(total)
    if t.rank > 4:
        total = insert(rewriter, at, Reshape(total, shape=t.shape[t.rank - 4 :])).y
    array = content(total)
    if array is not None:
        total = constant(rewriter, at, array)
    return total, causal


def is_causal(v: Value) -> bool:
    """Whether a mask is a constant that hides key j from query i exactly where j > i."""
    array = content(v)
    if array is None or array.ndim < 2 or array.size != array.shape[-1] * array.shape[-2] or array.shape[-2] < 2:
        return False
    queries, keys = int(array.shape[-2]), int(array.shape[-1])
    m = np.asarray(array, np.float64).reshape(queries, keys)
    later = np.arange(keys)[None, :] > np.arange(queries)[:, None]
    return bool(np.all(m[~later] == 0) and np.all(m[later] <= HIDES))
