# SPDX-License-Identifier: Apache-2.0
"""ai.onnx.ml support vector machines: a matrix of kernels, and products with it.

Scores, votes and labels are those of ONNX Runtime, which follow libsvm (C.-C. Chang and C.-J. Lin, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.compiler.frontend.loops import repeat
from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.ops.ml import largest, transformed, two
from tcc.compiler.frontend.ops.ml_labels import ML, label_count, labelled
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, I64

_ITERATIONS = 100
_BODY = 1000
"""Nodes that a round of the probabilities counts as: it is not written out."""


def _numbers(n: Node, name: str) -> Array:
    return np.asarray(n.attr(name, None) or (), np.float32)


def _rows(n: Node) -> Value:
    x = n.cast(n.input(0), F32)
    return x if n.rank(x) == 2 else n.reshape(x, (1, n.type(x).size))


def _kernels(n: Node, x: Value, vectors: Array, kind: str) -> Value:
    """The kernel of each row with each vector, f32 [rows, vectors]."""
    features = n.shape(x)[1]
    if isinstance(features, int) and features != vectors.shape[1]:
        raise InputError(f"its vectors have {vectors.shape[1]} features and its rows {features}")
    gamma, coef0, degree = (*_numbers(n, "kernel_params").tolist(), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        apart = n.op(graph.Sub, n.reshape(x, (n.shape(x)[0], 1, features)), n.constant(vectors[None], F32))
        square = n.op(graph.Reduce, n.op(graph.Mul, apart, apart), kind="sum", axes=(2,), keepdims=False)
        return n.op(graph.Exp, n.op(graph.Mul, square, n.like(-gamma, x)))
    dot = n.op(graph.Matmul, x, n.constant(np.ascontiguousarray(vectors.T), F32))
    if kind == "LINEAR":
        return dot
    shifted = n.op(graph.Add, n.op(graph.Mul, dot, n.like(gamma, x)), n.like(coef0, x))
    if kind == "POLY":
        return n.op(graph.Pow, shifted, n.like(degree, x))
    if kind == "SIGMOID":
        return n.op(graph.Tanh, shifted)
    raise InputError(f"its kernel_type is {kind}, and LINEAR, POLY, RBF and SIGMOID are the choices")


def _vectors(n: Node, count: int) -> Array:
    flat = _numbers(n, "support_vectors")
    if flat.size == 0 or flat.size % count:
        raise InputError(f"its {flat.size} numbers are no {count} support vectors")
    return flat.reshape(count, -1)


@onnx_op("SVMRegressor", domain=ML)
def svm_regressor(n: Node) -> Value:
    """Σ coefficient · kernel + rho; of one class, 1 where that is positive and else -1."""
    x, count, weights = _rows(n), n.attr("n_supports", 0), _numbers(n, "coefficients")
    if count:
        kernels = _kernels(n, x, _vectors(n, count), n.attr("kernel_type", "LINEAR"))
        if weights.size != count:
            raise InputError(f"it has {weights.size} coefficients for {count} support vectors")
        scores = n.op(graph.Matmul, kernels, n.constant(weights.reshape(-1, 1), F32))
    else:
        scores = _kernels(n, x, weights.reshape(1, -1), "LINEAR")
    scores = n.op(graph.Add, scores, n.like(_rho(n)[0], x))
    if n.attr("one_class", 0):
        return n.op(graph.Where, n.op(graph.Greater, scores, n.like(0, x)), n.like(1, x), n.like(-1, x))
    return transformed(n, scores)


def _rho(n: Node) -> list[float]:
    rho = _numbers(n, "rho")
    if rho.size == 0:
        raise InputError("it has no rho")
    return rho.tolist()


@onnx_op("SVMClassifier", domain=ML)
def svm_classifier(n: Node) -> list[Value]:
    """With support vectors, each pair of classes has a score, whose sign is a vote; the class with most votes wins, and
    `prob_a` and `prob_b` make the scores probabilities. Without, each class has a linear score."""
    x, labels, of_class = _rows(n), max(label_count(n), 1), n.attr("vectors_per_class", None) or []
    rho = _rho(n)
    votes: Value | None = None
    if sum(of_class):
        scores = _pair_scores(n, x, of_class, rho)
        votes = _votes(n, scores, len(of_class))
        if len(_numbers(n, "prob_a")):
            scores = _probabilities(n, scores, len(of_class))
    else:
        weights = _numbers(n, "coefficients")
        if weights.size % labels:
            raise InputError(f"its {weights.size} coefficients do not fit {labels} classes")
        dot = _kernels(n, x, weights.reshape(labels, -1), "LINEAR")
        scores = n.op(graph.Add, dot, n.like(rho[0], x))
    ballot = scores if votes is None else votes
    places = largest(n, ballot)
    if len(rho) == 1 and labels != 2:
        top = n.op(graph.Reduce, ballot, kind="max", axes=(1,), keepdims=False)
        return [n.cast(n.op(graph.Greater, top, n.like(0, top)), I64), transformed(n, scores)]
    if len(rho) == 1 and n.shape(scores)[1] == 1:
        scores = two(n, n.op(graph.Neg, scores), scores)
    return [labelled(n, places), transformed(n, scores)]


def _pairs(classes: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def _pair_scores(n: Node, x: Value, of_class: Sequence[int], rho: Sequence[float]) -> Value:
    """[rows, pairs]: a class's vectors have a row of coefficients for each of the other classes, in order."""
    classes, count = len(of_class), sum(of_class)
    kernels = _kernels(n, x, _vectors(n, count), n.attr("kernel_type", "LINEAR"))
    given = _numbers(n, "coefficients")
    pairs = _pairs(classes)
    if given.size != (classes - 1) * count or len(rho) < len(pairs):
        raise InputError(
            f"its {given.size} coefficients and {len(rho)} rho do not fit {count} vectors of {classes} classes"
        )
    rows = given.reshape(classes - 1, count)
    ends = np.cumsum(of_class)
    weights = np.zeros((count, len(pairs)), np.float32)
    for p, (i, j) in enumerate(pairs):
        for mine, other in ((i, j - 1), (j, i)):
            at = slice(ends[mine] - of_class[mine], ends[mine])
            weights[at, p] = rows[other, at]
    scores = n.op(graph.Matmul, kernels, n.constant(weights, F32))
    return n.op(graph.Add, scores, n.constant(list(rho[: len(pairs)]), F32))


def _votes(n: Node, scores: Value, classes: int) -> Value:
    """How many of its pairs each class wins, f32 [rows, classes]."""
    pairs = _pairs(classes)
    first, second = (np.zeros((len(pairs), classes), np.float32) for _ in range(2))
    for p, (i, j) in enumerate(pairs):
        first[p, i] = second[p, j] = 1
    won = n.cast(n.op(graph.Greater, scores, n.like(0, scores)), F32)
    gained = n.op(graph.Matmul, won, n.constant(first - second, F32))
    return n.op(graph.Add, gained, n.constant(second.sum(0), F32))


def _probabilities(n: Node, scores: Value, classes: int) -> Value:
    """Probabilities of the classes from those of the pairs (T.-F. Wu, C.-J. Lin and R. C. Weng, 2004, algorithm 2), a
    row's rounds ending where libsvm ends them."""
    pairs = _pairs(classes)
    a, b = (_numbers(n, name) for name in ("prob_a", "prob_b"))
    if not a.size == b.size == len(pairs):
        raise InputError(f"it has {a.size} prob_a and {b.size} prob_b for {len(pairs)} pairs of classes")
    scaled = n.op(graph.Add, n.op(graph.Mul, scores, n.constant(-a, F32)), n.constant(-b, F32))
    r = n.op(graph.Clip, n.op(graph.Sigmoid, scaled), lo=1e-7, hi=1 - 1e-7)
    upper, lower = (np.zeros((len(pairs), classes, classes), np.float32) for _ in range(2))
    for p, (i, j) in enumerate(pairs):
        upper[p, i, j] = lower[p, j, i] = 1
    rows = n.shape(r)[0]

    def square(x: Value, places: Array) -> Value:
        flat = n.op(graph.Matmul, x, n.constant(places.reshape(len(pairs), -1), F32))
        return n.reshape(flat, (rows, classes, classes))

    rest = n.op(graph.Sub, n.like(1, r), r)
    left = n.op(graph.Add, square(r, upper), square(rest, lower))
    right = n.op(graph.Add, square(r, lower), square(rest, upper))
    product = n.op(graph.Neg, n.op(graph.Mul, left, right))
    sums = n.op(graph.Reduce, n.op(graph.Mul, left, left), kind="sum", axes=(1,), keepdims=False)
    eye = np.eye(classes, dtype=np.float32)
    diagonal = n.op(graph.Mul, n.reshape(sums, (rows, classes, 1)), n.constant(eye[None], F32))
    q = n.op(graph.Add, product, diagonal)

    def total(x: Value) -> Value:
        return n.op(graph.Reduce, x, kind="sum", axes=(1,), keepdims=True)

    def step(_: Value, going: Value, carried: Sequence[Value]) -> list[Value]:
        (p,) = carried
        qp = n.op(
            graph.Reduce, n.op(graph.Mul, q, n.reshape(p, (rows, 1, classes))), kind="sum", axes=(2,), keepdims=False
        )
        pqp = total(n.op(graph.Mul, p, qp))
        error = n.op(graph.Reduce, n.op(graph.Abs, n.op(graph.Sub, qp, pqp)), kind="max", axes=(1,), keepdims=True)
        ends = n.op(graph.Less, error, n.like(0.005 / classes, error))
        after = p
        for t in range(classes):
            own = n.op(graph.Slice, q, starts=(0, t, 0), sizes=(rows, 1, classes), steps=(1, 1, 1))
            own = n.reshape(own, (rows, classes))
            qtt, qpt = (n.op(graph.Slice, v, starts=(0, t), sizes=(rows, 1), steps=(1, 1)) for v in (own, qp))
            d = n.op(graph.Div, n.op(graph.Sub, pqp, qpt), qtt)
            by = n.op(graph.Add, d, n.like(1, d))
            grown = n.op(graph.Add, n.op(graph.Mul, d, qtt), n.op(graph.Add, qpt, qpt))
            pqp = n.op(graph.Div, n.op(graph.Add, pqp, n.op(graph.Mul, d, grown)), n.op(graph.Mul, by, by))
            after = n.op(graph.Div, n.op(graph.Add, after, n.op(graph.Mul, d, n.constant(eye[t], F32))), by)
            qp = n.op(graph.Div, n.op(graph.Add, qp, n.op(graph.Mul, d, own)), by)
        kept = n.op(graph.Where, ends, p, after)
        open_rows = n.cast(n.op(graph.Not, ends), I64)
        left_over = n.op(graph.Reduce, open_rows, kind="sum", axes=(0, 1), keepdims=False)
        return [n.op(graph.Greater, left_over, n.constant(0, I64)), kept]

    start = n.op(graph.Expand, n.constant(1 / classes, F32), shape=(rows, classes))
    rounds = n.constant(max(_ITERATIONS, classes), I64)
    return repeat(n, rounds, None, [start], step, _BODY)[0]
