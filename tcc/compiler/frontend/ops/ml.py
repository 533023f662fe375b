# SPDX-License-Identifier: Apache-2.0
"""ai.onnx.ml operators that are arithmetic: scalers, imputers, linear models."""

from __future__ import annotations

import numpy as np

from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.ops.ml_labels import ML, label_count, labelled
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, I64, DType


@onnx_op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(n: Node) -> Value:
    """Columns of the last dim; of a vector they come as one row."""
    x, places = n.input(0), n.input(1)
    flat = n.reshape(places, (n.type(places).size,))
    found = n.op(graph.Gather, x, flat, axis=n.rank(x) - 1)
    return n.reshape(found, (1, *n.shape(found))) if n.rank(x) == 1 else found


@onnx_op("Binarizer", domain=ML)
def binarizer(n: Node) -> Value:
    """1 above the threshold, 0 elsewhere."""
    x = n.input(0)
    return n.cast(n.op(graph.Greater, x, n.like(n.attr("threshold", 0.0), x)), n.dtype(x))


@onnx_op("Scaler", domain=ML)
def scaler(n: Node) -> Value:
    """(x - offset) · scale, each one number or one a column."""
    x = n.cast(n.input(0), F32)
    if n.attr("offset", None):
        x = n.op(graph.Sub, x, n.constant(n.attr("offset"), F32))
    return n.op(graph.Mul, x, n.constant(n.attr("scale"), F32)) if n.attr("scale", None) else x


@onnx_op("FeatureVectorizer", domain=ML)
def feature_vectorizer(n: Node) -> Value:
    """The operands' columns side by side, as f32."""
    parts = [n.cast(v if n.rank(v) > 1 else n.reshape(v, (1, *n.shape(v))), F32) for v in n.inputs]
    return parts[0] if len(parts) == 1 else n.op(graph.Concat, parts, axis=1)


@onnx_op("Normalizer", domain=ML)
def normalizer(n: Node) -> Value:
    """Rows divided by their norm, MAX, L1 or L2; rows of norm 0 stay."""
    x = n.cast(n.input(0), F32)
    last = (n.rank(x) - 1,)
    norm = n.attr("norm", "MAX")
    if norm == "MAX":
        size = n.op(graph.Reduce, x, kind="max", axes=last, keepdims=True)
    elif norm == "L1":
        size = n.op(graph.Reduce, n.op(graph.Abs, x), kind="sum", axes=last, keepdims=True)
    elif norm == "L2":
        size = n.op(graph.Sqrt, n.op(graph.Reduce, n.op(graph.Mul, x, x), kind="sum", axes=last, keepdims=True))
    else:
        raise InputError(f"its norm is {norm}, and MAX, L1 and L2 are the choices")
    return n.op(graph.Where, n.op(graph.Equal, size, n.like(0, x)), x, n.op(graph.Div, x, size))


@onnx_op("Imputer", domain=ML)
def imputer(n: Node) -> Value:
    """The imputed value of the column where x is the replaced one; NaN is NaN."""
    x = n.input(0)
    floats = n.dtype(x).is_float
    values = n.attr("imputed_value_floats" if floats else "imputed_value_int64s")
    replaced = n.attr("replaced_value_float" if floats else "replaced_value_int64", 0)
    hit = n.op(graph.IsNan, x) if replaced != replaced else n.op(graph.Equal, x, n.like(replaced, x))
    return n.op(graph.Where, hit, n.constant(values if len(values) > 1 else values[0], n.dtype(x)), x)


def transformed(n: Node, scores: Value) -> Value:
    """Scores [rows, classes] after post_transform."""
    kind = n.attr("post_transform", "NONE")
    kind = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")[kind] if isinstance(kind, int) else kind
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return n.op(graph.Sigmoid, scores)
    if kind == "SOFTMAX":
        return n.op(graph.Softmax, scores, axis=1)
    if kind == "SOFTMAX_ZERO":
        # Scores of 0 stay 0: the softmax of the others.
        present = n.op(graph.Greater, n.op(graph.Abs, scores), n.like(1e-7, scores))
        top = n.op(graph.Reduce, scores, kind="max", axes=(1,), keepdims=True)
        powers = n.op(graph.Where, present, n.op(graph.Exp, n.op(graph.Sub, scores, top)), n.like(0, scores))
        total = n.op(graph.Reduce, powers, kind="sum", axes=(1,), keepdims=True)
        return n.op(graph.Div, powers, n.op(graph.Max, total, n.like(1e-30, scores)))
    if kind == "PROBIT":
        return _probit(n, scores)
    raise InputError(f"its post_transform is {kind}")


def _probit(n: Node, p: Value) -> Value:
    """√2 · erfinv(2p - 1), erfinv by its closed form (S. Winitzki, 2008, a = 0.147)."""
    x = n.op(graph.Sub, n.op(graph.Mul, p, n.like(2, p)), n.like(1, p))
    log = n.op(graph.Log, n.op(graph.Sub, n.like(1, p), n.op(graph.Mul, x, x)))
    v = n.op(graph.Add, n.op(graph.Mul, log, n.like(0.5, p)), n.like(2 / (np.pi * 0.147), p))
    inner = n.op(graph.Sub, n.op(graph.Mul, v, v), n.op(graph.Div, log, n.like(0.147, p)))
    size = n.op(graph.Sqrt, n.op(graph.Sub, n.op(graph.Sqrt, inner), v))
    return n.op(graph.Mul, n.op(graph.Mul, n.op(graph.Sign, x), size), n.like(2**0.5, p))


def _linear(n: Node, rows: int, dtype: DType) -> Value:
    x = n.cast(n.input(0), dtype)
    x = x if n.rank(x) == 2 else n.reshape(x, (1, n.type(x).size))
    weights: Array = np.asarray(n.attr("coefficients"), np.float32)
    if rows < 1 or weights.size % rows:
        raise InputError(f"its {weights.size} coefficients do not fit {rows} rows")
    scores = n.op(graph.Matmul, x, n.constant(np.ascontiguousarray(weights.reshape(rows, -1).T), dtype))
    biases = n.attr("intercepts", None)
    return n.op(graph.Add, scores, n.constant(biases, dtype)) if biases else scores


@onnx_op("LinearRegressor", domain=ML)
def linear_regressor(n: Node) -> Value:
    return transformed(n, _linear(n, n.attr("targets", 1), F32))


@onnx_op("LinearClassifier", domain=ML)
def linear_classifier(n: Node) -> list[Value]:
    """The label of the largest score; of one row of coefficients for two labels, the second where it is positive. The
    other label's score is then 1 minus its own, as in ONNX Runtime."""
    labels = label_count(n)
    rows = len(n.attr("intercepts", None) or ()) or labels
    scores = _linear(n, rows, F32)
    if rows == 1 and labels == 2:
        positive = n.op(graph.Greater, n.reshape(scores, n.shape(scores)[:1]), n.like(0, scores))
        places = n.cast(positive, I64)
        if n.attr("post_transform", "NONE") == "LOGISTIC":
            return [
                labelled(n, places),
                two(n, n.op(graph.Sigmoid, n.op(graph.Neg, scores)), n.op(graph.Sigmoid, scores)),
            ]
        return [labelled(n, places), two(n, n.op(graph.Sub, n.like(1, scores), scores), scores)]
    return [labelled(n, largest(n, scores)), transformed(n, scores)]


def two(n: Node, negative: Value, positive: Value) -> Value:
    """The scores of the two classes, [rows, 1] each, side by side."""
    return n.op(graph.Concat, [negative, positive], axis=1)


def largest(n: Node, scores: Value) -> Value:
    """The place of each row's largest score, int64."""
    return n.op(graph.ArgReduce, scores, kind="max", axis=1, keepdims=False, last=False)
