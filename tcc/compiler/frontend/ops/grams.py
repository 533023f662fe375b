# SPDX-License-Identifier: Apache-2.0
"""TfIdfVectorizer over integers: every n-gram compared with every place, and the matches counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.host import host_call
from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, I64


@onnx_op("TfIdfVectorizer")
def tf_idf_vectorizer(n: Node) -> Value | Sequence[Value]:
    """Counts (TF), weights of what occurs (IDF), or both (TFIDF), each in the column that ngram_indexes names."""
    x = n.input(0)
    pool = np.asarray(n.attr("pool_int64s", []), np.int64)
    if not n.dtype(x).is_int or not isinstance(n.shape(x)[-1], int) or not pool.size:
        return host_call(n)
    mode = n.attr("mode")
    if mode not in ("TF", "IDF", "TFIDF"):
        raise InputError(f"its mode is {mode}, and TF, IDF and TFIDF are the choices")
    f = Formula(n)
    tables = _tables(pool, n.attr("ngram_counts"))
    total = sum(len(t) for t in tables)
    columns = np.asarray(n.attr("ngram_indexes"), np.int64)
    weights = np.asarray(n.attr("weights", [1.0] * total), np.float32)
    if len(columns) != total or len(weights) != total or columns.min() < 0:
        raise InputError(f"its ngram_indexes or weights do not fit the {total} n-grams of its pool")
    rows = n.cast(n.reshape(x, (1, *n.shape(x))) if n.rank(x) < 2 else x, I64)
    wanted = range(n.attr("min_gram_length"), n.attr("max_gram_length") + 1)
    counts: list[Value] = []
    kept: list[int] = []
    first = 0
    for length, table in enumerate(tables, 1):
        skips = n.attr("max_skip_count") + 1 if length > 1 else 1
        found = [_occurrences(f, rows, table, s + 1) for s in range(skips)] if length in wanted and len(table) else []
        for i, v in enumerate(v for v in found if v is not None):
            if i:
                counts[-1] = f.add(counts[-1], v)
            else:
                counts.append(v)
                kept += range(first, first + len(table))
        first += len(table)
    width = int(columns.max()) + 1
    batch = n.shape(rows)[0]
    y = f.expand(n.constant(0.0, F32), (batch, width))
    if counts:
        values = f.concat(counts, 1)
        if mode != "TFIDF":
            values = values if mode == "TF" else n.cast(f.less(0.0, values), F32)
        if mode != "TF":
            values = f.mul(values, n.constant(weights[kept].reshape(1, -1), F32))
        y = _placed(f, values, columns[kept], y, width)
    return n.reshape(y, (width,)) if n.rank(x) < 2 else y


def _tables(pool: Array, starts: Sequence[int]) -> list[Array]:
    """The n-grams of length 1, 2, …: [count, length] each."""
    bounds = [*starts, len(pool)]
    if sorted(bounds) != bounds or bounds[0] < 0 or any((b - a) % i for i, (a, b) in enumerate(pairwise(bounds), 1)):
        raise InputError(f"its ngram_counts {list(starts)} do not divide a pool of {len(pool)} into n-grams")
    return [pool[a:b].reshape(-1, i) for i, (a, b) in enumerate(pairwise(bounds), 1)]


def _occurrences(f: Formula, rows: Value, table: Array, step: int) -> Value | None:
    """How often each n-gram [g, length] stands in each row [n, c], its tokens `step` apart: f32 [n, g]; None where no
    row is long enough."""
    n = f.n
    batch, length = n.shape(rows)
    assert isinstance(length, int)
    places = length - (table.shape[1] - 1) * step
    if places < 1:
        return None
    match: Value | None = None
    for j in range(table.shape[1]):
        token = n.reshape(f.part(rows, 1, j * step, places), (batch, 1, places))
        here = f.equal(token, n.constant(table[:, j].reshape(1, -1, 1), I64))
        match = here if match is None else f.both(match, here)
    assert match is not None
    return f.reduce(n.cast(match, F32), "sum", 2)


def _placed(f: Formula, values: Value, columns: Array, zeros: Value, width: int) -> Value:
    """Column i of the values added to column columns[i] of zeros."""
    n = f.n
    batch = n.shape(zeros)[0]
    if len(set(columns.tolist())) == len(columns):
        source = np.full(width, len(columns), np.int64)
        source[columns] = np.arange(len(columns))
        blank = f.expand(n.constant(0.0, F32), (batch, 1))
        return n.op(graph.Gather, f.concat([values, blank], 1), n.constant(source, I64), axis=1)
    at = f.expand(n.constant(columns.reshape(1, -1), I64), (batch, len(columns)))
    return n.op(graph.ScatterElements, zeros, at, values, axis=1, reduction="add")
