# SPDX-License-Identifier: Apache-2.0
"""Index arithmetic of lowering: reshapes as index expressions, and operands in their simplest form."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Binary, Dim, Ranges, Sum, add, below, floordiv, minimum, mod, mul, product, simplify, within
from tcc.ir.types import TensorType

Index = tuple[Dim, ...]


def linearize(index: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """The row-major position of an index."""
    out: Dim = 0
    for i, d in zip(index, shape, strict=True):
        out = add(mul(out, d), i)
    return out


def delinearize(position: Dim, shape: Sequence[Dim], ranges: Ranges) -> Index:
    """The index at a row-major position that is in range."""
    out: list[Dim] = []
    for i in range(len(shape) - 1, -1, -1):
        if i == 0:
            out.append(position)
        else:
            out.append(mod(position, shape[i], ranges))
            position = floordiv(position, shape[i], ranges)
    return tuple(reversed(out))


def reshape_index(index: Sequence[Dim], shape: Sequence[Dim], to: Sequence[Dim], ranges: Ranges) -> Index:
    """The index in a tensor reshaped to `to` of the element at `index` of one of `shape`.

    Runs of dims with equal products are handled one by one, so untouched dims keep their expressions.
    """
    out: list[Dim] = []
    i = j = 0
    while i < len(shape) or j < len(to):
        i0, j0 = i, j
        i, j = min(i + 1, len(shape)), min(j + 1, len(to))
        while product(shape[i0:i]) != product(to[j0:j]):
            if not _grow(shape, to, i0, i, j0, j):
                i, j = len(shape), len(to)
                break
            left, right = product(shape[i0:i]), product(to[j0:j])
            if i < len(shape) and (j == len(to) or (isinstance(left, int) and isinstance(right, int) and left < right)):
                i += 1
            elif j < len(to):
                j += 1
            else:
                i += 1
        part = to[j0:j]
        if not part:
            continue
        if i0 == i:
            out += [0] * len(part)
        elif i - i0 == 1 and len(part) == 1:
            out.append(index[i0])
        else:
            out += delinearize(linearize(index[i0:i], shape[i0:i]), part, ranges)
    return tuple(0 if d == 1 else e for e, d in zip(out, to, strict=True))


def _grow(shape: Sequence[Dim], to: Sequence[Dim], i0: int, i: int, j0: int, j: int) -> bool:
    left, right = product(shape[i0:i]), product(to[j0:j])
    known = isinstance(left, int) and isinstance(right, int)
    return (known or (i < len(shape) or j < len(to))) and (i < len(shape) or j < len(to)) and known


def broadcast_index(index: Sequence[Dim], shape: Sequence[Dim], ranges: Ranges) -> Index:
    """The index in an operand of `shape` that numpy broadcasting pairs with `index`. An extent that data decide may
    turn out to be 1: then every index is cut to 0."""
    tail = index[len(index) - len(shape) :]
    return tuple(_paired(i, d, ranges) for i, d in zip(tail, shape, strict=True))


def _paired(i: Dim, d: Dim, ranges: Ranges) -> Dim:
    if isinstance(d, int) or below(i, d, ranges):
        return 0 if d == 1 else i
    return minimum(i, add(d, -1), ranges)


def _complexity(e: Dim) -> int:
    if isinstance(e, Binary):
        return 4 + _complexity(e.lhs) + _complexity(e.rhs)
    if isinstance(e, Sum):
        return sum(1 + sum(_complexity(a) for a in atoms) for atoms, _ in e.terms)
    return 0


def compact(t: TensorType, access: IndexMap, ranges: Ranges) -> tuple[TensorType, IndexMap]:
    """The same bytes and accesses with fewer dims: unit dims go, and neighbours merge where that makes their
    expressions simpler. Dims whose range checks matter stay."""
    if t.strides is not None:
        return t, access
    shape = list(t.shape)
    index = [simplify(e, ranges) for e in access.results]
    kept = [i for i in range(len(shape)) if not (shape[i] == 1 and index[i] == 0)]
    shape, index = [shape[i] for i in kept], [index[i] for i in kept]
    i = 0
    while i + 1 < len(shape):
        if access.fill is not None and not (
            _inside(index[i], shape[i], ranges) and _inside(index[i + 1], shape[i + 1], ranges)
        ):
            i += 1
            continue
        merged = simplify(add(mul(index[i], shape[i + 1]), index[i + 1]), ranges)
        if _complexity(merged) < _complexity(index[i]) + _complexity(index[i + 1]):
            shape[i : i + 2] = [mul(shape[i], shape[i + 1])]
            index[i : i + 2] = [merged]
            i = max(i - 1, 0)
        else:
            i += 1
    fill = access.fill
    if fill is not None and not access.zero and all(_inside(e, d, ranges) for e, d in zip(index, shape, strict=True)):
        fill = None
    return t.with_(shape=tuple(shape)), IndexMap(tuple(index), fill, access.zero)


def _inside(e: Dim, extent: Dim, ranges: Ranges) -> bool:
    return within(e, extent, ranges)


def fit_affine(table: Sequence[int], ranges: Ranges, at: Dim) -> Dim | None:
    """An expression `(a·at + b) floordiv c` that gives table[at] for every place, or None."""
    n = len(table)
    if n == 0:
        return None
    if n == 1:
        return table[0]
    for c in range(1, 9):
        span = table[-1] - table[0]
        for a in {round(span * c / (n - 1)) + d for d in (-1, 0, 1)}:
            for b in range(table[0] * c, table[0] * c + c):
                if all((a * i + b) // c == v for i, v in enumerate(table)):
                    return floordiv(add(mul(at, a), b), c, ranges)
    return None
