# SPDX-License-Identifier: Apache-2.0
"""ONNX Einsum as transposes, products, sums and one matrix product a pair of operands."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, product
from tcc.ir.types import I64


@dataclass(frozen=True)
class Term:
    """An operand and the label of each of its dims."""

    value: Value
    labels: tuple[str, ...]


@onnx_op("Einsum")
def einsum(n: Node) -> Value:
    """Any equation: repeated labels (diagonals), ellipses, an implicit output; operands are joined left to right."""
    equation = re.sub(r"\s", "", n.attr("equation"))
    left, arrow, right = equation.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(n.values) or not re.fullmatch(r"[A-Za-z.,]*(->[A-Za-z.]*)?", equation):
        raise InputError(f'its equation "{equation}" does not fit {len(n.values)} operands')
    terms = [_labelled(n, v, text, equation) for v, text in zip(n.inputs, inputs, strict=True)]
    width = max((sum(x.startswith(".") for x in t.labels) for t in terms), default=0)
    dots = tuple(f".{i}" for i in reversed(range(width)))
    if arrow:
        out = _expand(right, dots, equation)
    else:
        letters = [x for x in left if x.isalpha()]
        out = dots + tuple(sorted(x for x in set(letters) if letters.count(x) == 1))
    known = {x for t in terms for x in t.labels}
    if len(set(out)) != len(out) or not set(out) <= known:
        raise InputError(f'its equation "{equation}" has an output label twice, or one that no operand has')
    terms = [_diagonal(n, t) for t in terms]
    result = terms[0]
    for i, term in enumerate(terms[1:], 2):
        later = {x for t in terms[i:] for x in t.labels}
        result = _join(n, result, term, set(out) | later)
    result = _sum_out(n, result, set(out))
    perm = [result.labels.index(x) for x in out]
    return n.transpose(result.value, perm)


def _expand(text: str, dots: tuple[str, ...], equation: str) -> tuple[str, ...]:
    before, mark, after = text.partition("...")
    if "." in before + after:
        raise InputError(f'its equation "{equation}" has a stray dot')
    return (*before, *(dots if mark else ()), *after)


def _labelled(n: Node, value: Value, text: str, equation: str) -> Term:
    rank = n.rank(value)
    hidden = rank - len(text.replace("...", ""))
    if hidden < 0 or ("..." not in text and hidden):
        raise InputError(f'its operand {n.type(value)} does not fit "{text}" of the equation "{equation}"')
    # Ellipsis dims align at the end, so they are numbered from the end.
    return Term(value, _expand(text, tuple(f".{i}" for i in reversed(range(hidden))), equation))


def _diagonal(n: Node, term: Term) -> Term:
    """A term in which no label repeats."""
    value, labels = term.value, list(term.labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            shape = n.shape(value)
            extent = shape[first]
            if extent != shape[second]:
                raise InputError(f"its label {label} stands for the extents {extent} and {shape[second]}")
            rest = [i for i in range(len(labels)) if i not in (first, second)]
            value = n.transpose(value, [first, second, *rest])
            flat = n.reshape(value, (extent * extent, *(shape[i] for i in rest)))
            if not isinstance(extent, int):
                raise InputError(f"its label {label} is the free dim {extent}, which must be bound")
            places = n.constant([i * (extent + 1) for i in range(extent)], I64)
            value = n.op(graph.Gather, flat, places, axis=0)
            labels = [label, *(labels[i] for i in rest)]
    return Term(value, tuple(labels))


def _sum_out(n: Node, term: Term, keep: set[str]) -> Term:
    axes = tuple(i for i, x in enumerate(term.labels) if x not in keep)
    if not axes:
        return term
    value = n.op(graph.Reduce, term.value, kind="sum", axes=axes, keepdims=False)
    return Term(value, tuple(x for x in term.labels if x in keep))


def _join(n: Node, a: Term, b: Term, keep: set[str]) -> Term:
    """The product of two terms, labels that nothing later needs summed over: a batched matrix product."""
    a = _sum_out(n, a, keep | set(b.labels))
    b = _sum_out(n, b, keep | set(a.labels))
    extents_a = dict(zip(a.labels, n.shape(a.value), strict=True))
    extents_b = dict(zip(b.labels, n.shape(b.value), strict=True))
    shared = [x for x in a.labels if x in extents_b]
    # A dim of extent 1 that broadcasts is not shared: it belongs to the other operand alone.
    squeeze_a = [x for x in shared if extents_a[x] == 1 and extents_b[x] != 1]
    squeeze_b = [x for x in shared if extents_b[x] == 1 and extents_a[x] != 1]
    a, b = _without(n, a, squeeze_a), _without(n, b, squeeze_b)
    a, b = _sum_out(n, a, keep | set(b.labels)), _sum_out(n, b, keep | set(a.labels))
    shared = [x for x in a.labels if x in b.labels]
    batch = [x for x in shared if x in keep]
    inner = [x for x in shared if x not in keep]
    rows = [x for x in a.labels if x not in shared]
    columns = [x for x in b.labels if x not in shared]
    if not inner:
        wide_a = _aligned(n, a, [*batch, *rows, *columns])
        wide_b = _aligned(n, b, [*batch, *rows, *columns])
        return Term(n.op(graph.Mul, wide_a, wide_b), (*batch, *rows, *columns))
    extents = {**extents_a, **{k: v for k, v in extents_b.items() if v != 1 or k not in extents_a}}

    def shape(labels: list[str]) -> list[Dim]:
        return [extents[x] for x in labels]

    left = n.transpose(a.value, [a.labels.index(x) for x in [*batch, *rows, *inner]])
    right = n.transpose(b.value, [b.labels.index(x) for x in [*batch, *inner, *columns]])
    depth = product(shape(inner))
    left = n.reshape(left, (*shape(batch), product(shape(rows)), depth))
    right = n.reshape(right, (*shape(batch), depth, product(shape(columns))))
    y = n.op(graph.Matmul, left, right)
    return Term(n.reshape(y, (*shape(batch), *shape(rows), *shape(columns))), (*batch, *rows, *columns))


def _without(n: Node, term: Term, labels: list[str]) -> Term:
    if not labels:
        return term
    kept = [(x, d) for x, d in zip(term.labels, n.shape(term.value), strict=True) if x not in labels]
    return Term(n.reshape(term.value, [d for _, d in kept]), tuple(x for x, _ in kept))


def _aligned(n: Node, term: Term, order: list[str]) -> Value:
    """The term with its dims in `order`, of extent 1 where it has none."""
    present = [x for x in order if x in term.labels]
    value = n.transpose(term.value, [term.labels.index(x) for x in present])
    extents = dict(zip(present, n.shape(value), strict=True))
    return n.reshape(value, [extents.get(x, 1) for x in order])
