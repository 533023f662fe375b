# SPDX-License-Identifier: Apache-2.0
"""ai.onnx.ml operators, compiled, against ONNX Runtime on random models and data."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.runtime import Engine
from tests.target import TARGET

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def make(op: str, inputs: dict[str, Any], outputs: int, opset: int, **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op, list(inputs), [f"y{i}" for i in range(outputs)], domain="ai.onnx.ml", **attributes)
    infos = [
        helper.make_tensor_value_info(
            k, TensorProto.STRING if v.dtype == object else helper.np_dtype_to_tensor_dtype(v.dtype), v.shape
        )
        for k, v in inputs.items()
    ]
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=o) for o in node.output])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", opset)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def checked(model: onnx.ModelProto, feed: dict[str, Any], **tolerance: float) -> Engine:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    inferred = onnx.shape_inference.infer_shapes(model).SerializeToString()
    want = onnxruntime.InferenceSession(inferred, options, providers=["CPUExecutionProvider"]).run(None, feed)
    engine = tcc.compile(model, target=TARGET)
    for got, expected in zip(engine(feed).values(), want, strict=True):
        expected = np.asarray(expected)
        if expected.dtype.kind in "OUS":
            assert got.tolist() == expected.tolist()
        else:
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected.reshape(got.shape), **{"rtol": 1e-5, "atol": 1e-6, **tolerance})
    return engine


def forest(
    rng: np.random.Generator, trees: int, modes: list[str], what: str, outputs: int, positive: bool, **more: Any
):
    """Attributes of random trees on 5 features."""
    rows: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids",
                                                  "falsenodeids", "missing_value_tracks_true")}  # fmt: skip
    said: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(trees):
        fresh = iter(range(1, 1000))
        todo = [(0, 0)]
        while todo:
            node, depth = todo.pop()
            leaf = depth == 4 or (depth > 0 and rng.random() < 0.3)
            children = (0, 0) if leaf else (next(fresh), next(fresh))
            row = (tree, node, int(rng.integers(5)), float(np.round(rng.standard_normal(), 1)),
                   "LEAF" if leaf else str(rng.choice(modes)), *children, int(rng.random() < 0.3))  # fmt: skip
            for column, value in zip(rows.values(), row, strict=True):
                column.append(value)
            todo += [] if leaf else [(c, depth + 1) for c in children]
            for target in range(outputs if leaf else 0):
                weight = abs(rng.standard_normal()) if positive else rng.standard_normal()
                for column, value in zip(said.values(), (tree, node, target, weight), strict=True):
                    column.append(value)
    return {**{f"nodes_{k}": v for k, v in rows.items()}, **{f"{what}_{k}": v for k, v in said.items()}, **more}


def data(rng: np.random.Generator, rows: int = 7) -> np.ndarray:
    x = np.round(rng.standard_normal((rows, 5)), 1).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("targets", [1, 3])
def test_tree_regressors(aggregate: str, targets: int, rng: np.random.Generator):
    attributes = forest(rng, 4, MODES[:1], "target", targets, False, n_targets=targets, aggregate_function=aggregate,
                        base_values=[0.5] * targets)  # fmt: skip
    x = data(rng)
    engine = checked(make("TreeEnsembleRegressor", {"x": x}, 1, 3, **attributes), {"x": x})
    assert not [op for op in engine.data.schedule if op["op"] == "host_call"]


@pytest.mark.parametrize("mode", MODES)
def test_tree_modes(mode: str, rng: np.random.Generator):
    x = data(rng, 50)
    attributes = forest(rng, 3, [mode], "target", 1, False, n_targets=1)
    checked(make("TreeEnsembleRegressor", {"x": x}, 1, 3, **attributes), {"x": x})


def test_trees_of_doubles_and_mixed_modes(rng: np.random.Generator):
    x = data(rng).astype(np.float64)
    attributes = forest(rng, 3, MODES, "target", 1, False, n_targets=1)
    for name in ("nodes_values", "target_weights"):
        attributes[f"{name}_as_tensor"] = numpy_helper.from_array(np.array(attributes.pop(name), np.float64), name)
    checked(make("TreeEnsembleRegressor", {"x": x}, 1, 3, **attributes), {"x": x})


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("labels", [{"classlabels_int64s": [3, 1, 7]}, {"classlabels_strings": ["a", "b", "c"]}])
def test_tree_classifiers(transform: str, labels: dict[str, Any], rng: np.random.Generator):
    attributes = forest(rng, 4, MODES[:1], "class", 3, False, post_transform=transform, **labels)
    x = data(rng)
    checked(make("TreeEnsembleClassifier", {"x": x}, 2, 3, **attributes), {"x": x})


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("positive", [True, False])
def test_binary_tree_classifiers_that_speak_of_one_class(transform: str, positive: bool, rng: np.random.Generator):
    attributes = forest(rng, 2, MODES[:1], "class", 1, positive, post_transform=transform, classlabels_int64s=[5, 9])
    x = data(rng, 20)
    checked(make("TreeEnsembleClassifier", {"x": x}, 2, 3, **attributes), {"x": x})


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_linear_models(transform: str, rng: np.random.Generator):
    x = rng.standard_normal((6, 5)).astype(np.float32)
    weights, biases = rng.standard_normal(15).tolist(), rng.standard_normal(3).tolist()
    both = {"coefficients": weights, "intercepts": biases, "post_transform": transform}
    checked(make("LinearRegressor", {"x": x}, 1, 1, targets=3, **both), {"x": x})
    checked(make("LinearClassifier", {"x": x}, 2, 1, classlabels_ints=[2, 4, 6], **both), {"x": x})
    checked(make("LinearClassifier", {"x": x}, 2, 1, classlabels_strings=["p", "q", "r"], **both), {"x": x})


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
def test_linear_classifiers_of_one_row(transform: str, rng: np.random.Generator):
    x = rng.standard_normal((9, 5)).astype(np.float32)
    attributes = {"coefficients": rng.standard_normal(5).tolist(), "intercepts": [0.1], "post_transform": transform}
    checked(make("LinearClassifier", {"x": x}, 2, 1, classlabels_ints=[0, 1], **attributes), {"x": x})


X = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, 0.0], [0, 0, 0]], np.float32)


@pytest.mark.parametrize(
    ("op", "x", "attributes"),
    [
        ("Scaler", X, {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, 1.0]}),
        ("Scaler", X, {"offset": [1.0], "scale": [0.5]}),
        ("Normalizer", X, {"norm": "L1"}),
        ("Normalizer", X, {"norm": "L2"}),
        ("Normalizer", np.abs(X), {"norm": "MAX"}),
        ("Binarizer", X, {"threshold": 0.3}),
        ("Imputer", X, {"imputed_value_floats": [7.0, 8.0, 9.0], "replaced_value_float": 0.0}),
        ("Imputer", np.where(X > 0.4, X, np.nan).astype(np.float32), {"imputed_value_floats": [7.0],
                                                                      "replaced_value_float": float("nan")}),
        ("Imputer", X.astype(np.int64), {"imputed_value_int64s": [4], "replaced_value_int64": 0}),
        ("OneHotEncoder", X.astype(np.int64)[0], {"cats_int64s": [1, 0, 5], "zeros": 1}),
        ("OneHotEncoder", np.array(["a", "c"], object), {"cats_strings": ["c", "b"], "zeros": 1}),
        ("CategoryMapper", np.array(["a", "c"], object), {"cats_strings": ["c", "b"], "cats_int64s": [4, 5]}),
        ("CategoryMapper", np.array([5, 9]), {"cats_strings": ["c", "b"], "cats_int64s": [4, 5]}),
    ],
)  # fmt: skip
def test_single_operators(op: str, x: np.ndarray, attributes: dict[str, Any]):
    checked(make(op, {"x": x}, 1, 1, **attributes), {"x": x})


@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("kind", ["int64s", "floats", "strings"])
def test_label_encoders(kind: str, strings: bool):
    values = {"int64s": [10, 20, 30], "floats": [0.5, 1.5, 2.5], "strings": ["x", "yy", ""]}[kind]
    keys = {"keys_strings": ["a", "b", "a"]} if strings else {"keys_floats": [1.0, float("nan"), 2.0]}
    x = np.array([["a", "c"], ["b", "a"]], object) if strings else np.array([2.0, np.nan, 3.0, 1.0], np.float32)
    if strings:
        keys["keys_strings"][2] = "d"  # which of two equal keys counts is open
    default = {"int64s": -7, "floats": -0.25, "strings": "none"}[kind]
    attributes = {**keys, f"values_{kind}": values, f"default_{kind[:-1]}": default}
    engine = checked(make("LabelEncoder", {"x": x}, 1, 2, **attributes), {"x": x})
    assert strings or engine({"x": x})["y0"][1] == default, "before opset 4 NaN equals nothing"
    calls = [op for op in engine.data.schedule if op["op"] == "host_call"]
    assert bool(calls) == (strings or kind == "strings")


def test_features_are_taken_and_joined(rng: np.random.Generator):
    x, at = rng.standard_normal((4, 6)).astype(np.float32), np.array([5, 0, 3])
    checked(make("ArrayFeatureExtractor", {"x": x, "at": at}, 1, 1), {"x": x, "at": at})
    a, b = x[:, :2], np.arange(12).reshape(4, 3)
    model = make("FeatureVectorizer", {"a": a, "b": b}, 1, 1, inputdimensions=[2, 3])
    np.testing.assert_array_equal(tcc.compile(model, target=TARGET)({"a": a, "b": b})["y0"], np.hstack([a, b]))


def test_nan_is_a_label_since_opset_4():
    x = np.array([1, np.nan, 2], np.float32)
    keys, values = np.array([np.nan, 1], np.float32), np.array([7, 8], np.int16)
    tensors = {f"{k}_tensor": numpy_helper.from_array(v) for k, v in (("keys", keys), ("values", values),
                                                                     ("default", np.array([9], np.int16)))}  # fmt: skip
    model = make("LabelEncoder", {"x": x}, 1, 4, **tensors)
    assert tcc.compile(model, target=TARGET)({"x": x})["y0"].tolist() == [8, 7, 9]


@pytest.mark.parametrize("count", [1025, 2048, 5001])
@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_long_tables_are_searched(kind: Any, count: int, rng: np.random.Generator):
    """By kernels: every key, numbers beside and between keys, the first of equal keys, NaN as a key or not."""
    keys = np.concatenate([rng.permutation(3 * count)[: count - 3] - count, [5, -7, 5]]).astype(kind)
    values = rng.integers(-(10**12), 10**12, count)
    for with_nan in (False, True) if kind is np.float32 else (False,):
        if with_nan:
            keys[17] = np.nan
        between = [-5 * count, 5 * count, 0.5, np.nan] if kind is np.float32 else [-5 * count, 5 * count]
        x = np.concatenate([rng.permutation(keys), np.arange(-count, 2 * count), between]).astype(kind)
        given = (("keys", keys), ("values", values), ("default", np.array([-1])))
        tensors = {f"{k}_tensor": numpy_helper.from_array(v) for k, v in given}
        engine = tcc.compile(make("LabelEncoder", {"x": x}, 1, 4, **tensors), target=TARGET)
        assert not [op for op in engine.data.schedule if op["op"] == "host_call"]
        table: dict[Any, int] = {}
        for k, v in zip(keys.tolist(), values.tolist(), strict=True):
            table.setdefault("nan" if k != k else k, v)
        wanted = [table.get("nan" if k != k else k, -1) for k in x.tolist()]
        assert engine({"x": x})["y0"].tolist() == wanted
