# SPDX-License-Identifier: Apache-2.0
"""Reverse-mode differentiation of what has been imported so far: gradients are graph ops, compiled as all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.compiler.frontend.node import Node
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim

Rule = Callable[["Reverse", Any, Value], Sequence["Value | None"]]
_RULES: dict[type[Op], Rule] = {}


def rule(*kinds: type[Op]) -> Callable[[Rule], Rule]:
    """Decorator: the function gives, for an op and the gradient of its result, those of its operands (None: none)."""

    def add(function: Rule) -> Rule:
        for kind in kinds:
            _RULES[kind] = function
        return function

    return add


def gradients(n: Node, y: Value, xs: Sequence[Value]) -> list[Value]:
    """dΣy/dx of each x, in its type. InputError names the ops on the way that tcc cannot differentiate."""
    if not n.dtype(y).is_float or not all(n.dtype(x).is_float for x in xs):
        raise InputError("it differentiates floats only")
    return Reverse(n).run(y, xs)


def cone(y: Value, xs: Sequence[Value]) -> list[Op]:
    """The ops that lead from the xs to y, in their order."""
    reached: dict[Value, bool] = dict.fromkeys(xs, True)
    found: dict[Op, None] = {}
    stack = [y]
    while stack:
        v = stack[-1]
        op = v.defining_op
        if v in reached:
            stack.pop()
            continue
        needs = [] if op is None else _needs(op)
        waiting = [o for o in needs if o not in reached]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        reached[v] = any(reached[o] for o in needs)
        if op is not None and reached[v]:
            found[op] = None
    return list(found)


def _needs(op: Op) -> list[Value]:
    """The values that an op reads, those that its regions capture included."""
    inner = list(op.walk())
    own = {r for each in inner for r in each.results}
    own |= {a for each in inner for region in each.regions for b in region.blocks for a in b.args}
    return [v for each in inner for v in each.operands if v not in own]


class Reverse:
    """Walks a cone backwards and adds up gradients. Its short methods append ops."""

    def __init__(self, n: Node) -> None:
        self.n = n

    def run(self, y: Value, xs: Sequence[Value]) -> list[Value]:
        """The gradients of the sum of y."""
        n = self.n
        ops = cone(y, xs)
        foreign = [op for op in ops if type(op) not in _RULES or len(op.results) != 1]
        if foreign:
            names = ", ".join(f'{op.name.removeprefix("graph.")} at "{", ".join(op.loc)}"' for op in foreign)
            raise InputError(f"tcc cannot differentiate {names}")
        total: dict[Value, Value] = {y: n.op(graph.Expand, n.like(1, y), shape=n.shape(y))}
        leading = {r for op in ops for r in op.results} | set(xs)
        for op in reversed(ops):
            seed = total.get(op.results[0])
            if seed is None:
                continue
            parts = _RULES[type(op)](self, op, seed)
            for operand, part in zip(op.operands, parts, strict=True):
                if part is not None and operand in leading:
                    part = self.fit(part, operand)
                    known = total.get(operand)
                    total[operand] = part if known is None else self.add(known, part)
        return [total[x] if x in total else n.op(graph.Expand, n.like(0, x), shape=n.shape(x)) for x in xs]

    def fit(self, v: Value, operand: Value) -> Value:
        """The sum over what a broadcast repeated, in the operand's shape."""
        n = self.n
        have, want = n.shape(v), n.shape(operand)
        padded: tuple[Dim, ...] = (*[1] * (len(have) - len(want)), *want)
        axes = tuple(i for i, (a, b) in enumerate(zip(have, padded, strict=True)) if a != b)
        if axes:
            v = n.op(graph.Reduce, v, kind="sum", axes=axes, keepdims=True)
        return n.reshape(v, want)

    def add(self, a: Value, b: Value) -> Value:
        return self.n.op(graph.Add, a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.n.op(graph.Sub, a, b)

    def mul(self, a: Value, b: Value | float) -> Value:
        return self.n.op(graph.Mul, a, b if isinstance(b, Value) else self.n.like(b, a))

    def div(self, a: Value, b: Value) -> Value:
        return self.n.op(graph.Div, a, b)

    def neg(self, a: Value) -> Value:
        return self.n.op(graph.Neg, a)

    def one_minus(self, a: Value) -> Value:
        return self.sub(self.n.like(1, a), a)

    def chosen(self, where: Value, v: Value) -> Value:
        """v where a bool holds, 0 elsewhere."""
        return self.n.op(graph.Where, where, v, self.n.like(0, v))

    def swapped(self, v: Value) -> Value:
        """A matrix, or a stack of them, transposed."""
        rank = self.n.rank(v)
        return self.n.transpose(v, (*range(rank - 2), rank - 1, rank - 2))


@rule(graph.Add)
def _add(r: Reverse, op: graph.Add, dy: Value) -> Sequence[Value]:
    return dy, dy


@rule(graph.Sub)
def _sub(r: Reverse, op: graph.Sub, dy: Value) -> Sequence[Value]:
    return dy, r.neg(dy)


@rule(graph.Mul)
def _mul(r: Reverse, op: graph.Mul, dy: Value) -> Sequence[Value]:
    return r.mul(dy, op.b), r.mul(dy, op.a)


@rule(graph.Div)
def _div(r: Reverse, op: graph.Div, dy: Value) -> Sequence[Value]:
    return r.div(dy, op.b), r.neg(r.div(r.mul(dy, op.y), op.b))


@rule(graph.Pow)
def _pow(r: Reverse, op: graph.Pow, dy: Value) -> Sequence[Value]:
    """The exponent's gradient is that of positive bases; at a base of 0 it is 0."""
    n, base = r.n, op.a
    lower = n.op(graph.Pow, base, r.sub(op.b, n.like(1, op.b)))
    positive = n.op(graph.Greater, base, n.like(0, base))
    log = n.op(graph.Log, n.op(graph.Where, positive, base, n.like(1, base)))
    return r.mul(dy, r.mul(op.b, lower)), r.mul(dy, r.mul(op.y, log))


@rule(graph.Max, graph.Min)
def _extreme(r: Reverse, op: graph.Max, dy: Value) -> Sequence[Value]:
    """To the operand that is the result; both get half where they are equal."""
    half, equal = r.mul(dy, 0.5), r.n.op(graph.Equal, op.a, op.b)
    return tuple(r.n.op(graph.Where, equal, half, r.chosen(r.n.op(graph.Equal, v, op.y), dy)) for v in (op.a, op.b))


@rule(graph.Where)
def _where(r: Reverse, op: graph.Where, dy: Value) -> Sequence[Value | None]:
    return None, r.chosen(op.condition, dy), r.chosen(r.n.op(graph.Not, op.condition), dy)


@rule(graph.Clip)
def _clip(r: Reverse, op: graph.Clip, dy: Value) -> Sequence[Value]:
    return (r.chosen(r.n.op(graph.Equal, op.x, op.y), dy),)


_SLOPES: dict[type[Op], Callable[[Reverse, Any], Value]] = {
    graph.Neg: lambda r, op: r.n.like(-1, op.x),
    graph.Abs: lambda r, op: r.n.op(graph.Sign, op.x),
    graph.Exp: lambda r, op: op.y,
    graph.Log: lambda r, op: r.div(r.n.like(1, op.x), op.x),
    graph.Sqrt: lambda r, op: r.div(r.n.like(0.5, op.x), op.y),
    graph.Reciprocal: lambda r, op: r.neg(r.mul(op.y, op.y)),
    graph.Sin: lambda r, op: r.n.op(graph.Cos, op.x),
    graph.Cos: lambda r, op: r.neg(r.n.op(graph.Sin, op.x)),
    graph.Tanh: lambda r, op: r.one_minus(r.mul(op.y, op.y)),
    graph.Sigmoid: lambda r, op: r.mul(op.y, r.one_minus(op.y)),
    graph.Softplus: lambda r, op: r.n.op(graph.Sigmoid, op.x),
    graph.Erf: lambda r, op: r.mul(r.n.op(graph.Exp, r.neg(r.mul(op.x, op.x))), 2 / np.sqrt(np.pi)),
    graph.Relu: lambda r, op: _step(r, op.x, 0.0),
    graph.LeakyRelu: lambda r, op: _step(r, op.x, op.alpha),
}


def _step(r: Reverse, x: Value, below: float) -> Value:
    n = r.n
    return n.op(graph.Where, n.op(graph.Greater, x, n.like(0, x)), n.like(1, x), n.like(below, x))


@rule(*_SLOPES)
def _unary(r: Reverse, op: Any, dy: Value) -> Sequence[Value]:
    return (r.mul(dy, _SLOPES[type(op)](r, op)),)


@rule(graph.Cast)
def _cast(r: Reverse, op: graph.Cast, dy: Value) -> Sequence[Value | None]:
    dtype = r.n.dtype(op.x)
    return (r.n.cast(dy, dtype) if dtype.is_float else None,)


@rule(graph.Reshape)
def _reshape(r: Reverse, op: graph.Reshape, dy: Value) -> Sequence[Value]:
    return (r.n.reshape(dy, r.n.shape(op.x)),)


@rule(graph.Expand)
def _expand(r: Reverse, op: graph.Expand, dy: Value) -> Sequence[Value]:
    return (dy,)


@rule(graph.Transpose)
def _transpose(r: Reverse, op: graph.Transpose, dy: Value) -> Sequence[Value]:
    return (r.n.transpose(dy, [int(i) for i in np.argsort(op.perm)]),)


@rule(graph.Concat)
def _concat(r: Reverse, op: graph.Concat, dy: Value) -> Sequence[Value]:
    n, at = r.n, 0
    parts: list[Value] = []
    for v in op.operands:
        shape = n.shape(v)
        starts = tuple(at if i == op.axis else 0 for i in range(len(shape)))
        parts.append(n.op(graph.Slice, dy, starts=starts, sizes=shape, steps=(1,) * len(shape)))
        at = at + shape[op.axis]
    return parts


@rule(graph.Slice)
def _slice(r: Reverse, op: graph.Slice, dy: Value) -> Sequence[Value]:
    """Zeros around the slice."""
    whole = r.n.shape(op.x)
    plain = all(s == 1 for s in op.steps) and all(isinstance(d, int) for d in (*op.starts, *op.sizes, *whole))
    if not plain:
        raise InputError(f'tcc cannot differentiate slice at "{", ".join(op.loc)}" with steps or free dims')
    after = tuple(d - s - n for d, s, n in zip(whole, op.starts, op.sizes, strict=True))
    return (r.n.op(graph.Pad, dy, before=op.starts, after=after, value=0),)


@rule(graph.Matmul)
def _matmul(r: Reverse, op: graph.Matmul, dy: Value) -> Sequence[Value]:
    """Vectors are matrices of one row or column."""
    n, a, b = r.n, op.a, op.b
    rows, columns = n.rank(a) == 1, n.rank(b) == 1
    a = n.reshape(a, (1, *n.shape(a))) if rows else a
    b = n.reshape(b, (*n.shape(b), 1)) if columns else b
    shape = list(n.shape(dy))
    if columns:
        shape.append(1)
    if rows:
        shape.insert(len(shape) - 1, 1)
    dy = n.reshape(dy, shape)
    da, db = n.op(graph.Matmul, dy, r.swapped(b)), n.op(graph.Matmul, r.swapped(a), dy)
    # Batch dims that broadcast are summed before the dim that was added goes.
    return n.reshape(r.fit(da, a), n.shape(op.a)), n.reshape(r.fit(db, b), n.shape(op.b))


@rule(graph.Reduce)
def _reduce(r: Reverse, op: graph.Reduce, dy: Value) -> Sequence[Value]:
    n, shape = r.n, n_shape(r, op.x)
    kept = tuple(1 if i in op.axes else d for i, d in enumerate(shape))
    dy, y = n.reshape(dy, kept), n.reshape(op.y, kept)
    if op.kind in ("max", "min"):
        # Shared equally by the elements that are the extreme.
        hit = n.cast(n.op(graph.Equal, op.x, y), n.dtype(op.x))
        count = n.op(graph.Reduce, hit, kind="sum", axes=op.axes, keepdims=True)
        return (r.mul(hit, r.div(dy, count)),)
    if op.kind == "prod":
        return (r.div(r.mul(dy, y), op.x),)
    if op.kind == "mean":
        dy = r.mul(dy, 1.0 / float(np.prod([int(str(shape[i])) for i in op.axes])))
    return (n.op(graph.Expand, dy, shape=shape),)


def n_shape(r: Reverse, v: Value) -> tuple[Dim, ...]:
    """The shape of a value, which must be known; InputError if it is not."""
    shape = r.n.shape(v)
    if not all(isinstance(d, int) for d in shape):
        raise InputError("it differentiates a reduction over free dims; bind them with --shape")
    return shape


@rule(graph.Softmax)
def _softmax(r: Reverse, op: graph.Softmax, dy: Value) -> Sequence[Value]:
    weighted = r.mul(dy, op.y)
    total = r.n.op(graph.Reduce, weighted, kind="sum", axes=(op.axis,), keepdims=True)
    return (r.sub(weighted, r.mul(op.y, total)),)


@rule(graph.LogSoftmax)
def _log_softmax(r: Reverse, op: graph.LogSoftmax, dy: Value) -> Sequence[Value]:
    total = r.n.op(graph.Reduce, dy, kind="sum", axes=(op.axis,), keepdims=True)
    return (r.sub(dy, r.mul(r.n.op(graph.Exp, op.y), total)),)
