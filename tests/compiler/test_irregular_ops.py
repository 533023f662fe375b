# SPDX-License-Identifier: Apache-2.0
"""Engines of the irregular operators against onnx.reference on fresh inputs: no host call, odd shapes, many types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import tcc
from tcc import reference
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.target import TARGET

RNG = np.random.default_rng(5)
F, D, H, I = np.float32, np.float64, np.float16, np.int64


def node_model(
    op: str, inputs: dict[str, np.ndarray], outputs: int, held: dict[str, np.ndarray], opset: int, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; `held` are initialisers."""
    names = [*inputs, *held]
    order = sorted(names)
    node = helper.make_node(op, order, [f"y{i}" for i in range(outputs)], **attributes)
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()
    ]
    graph = helper.make_graph(
        [node], op, infos, [onnx.ValueInfoProto(name=o) for o in node.output],
        [onnx.numpy_helper.from_array(v, k) for k, v in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray], host: bool = False) -> list[np.ndarray]:
    """What the engine gives; asserts whether it calls the host."""
    engine = tcc.compile(model, target=TARGET, opt_level=1)
    calls = [op for op in engine.data.schedule if op["op"] == "host_call"]
    assert bool(calls) == host
    got = engine(inputs)
    return [np.asarray(got[o.name]) for o in model.graph.output]


def normal(*shape: int, dtype: Any = F) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def grid(*shape: int) -> np.ndarray:
    return RNG.uniform(-1.4, 1.4, shape).astype(F)


CASES: dict[str, tuple[str, dict[str, np.ndarray], int, dict[str, np.ndarray], int, dict[str, Any]]] = {
    "cumsum": ("CumSum", {"a": normal(3, 1500)}, 1, {"b": np.array(1)}, 14, {"reverse": 1}),
    "cumsum of ints": ("CumSum", {"a": RNG.integers(-9, 9, (5, 7, 3))}, 1, {"b": np.array(-2)}, 14, {"exclusive": 1}),
    "topk": ("TopK", {"a": normal(2, 3000)}, 2, {"b": np.array([50])}, 11, {}),
    "least": ("TopK", {"a": normal(4, 9, 5, dtype=D)}, 2, {"b": np.array([3])}, 11, {"largest": 0, "axis": 1}),
    "argmax": ("ArgMax", {"a": normal(3, 50257)}, 1, {}, 13, {"axis": -1, "keepdims": 0}),
    "scatter elements": (
        "ScatterElements", {"a": normal(5, 6), "b": RNG.integers(-5, 5, (7, 6)), "c": normal(7, 6)}, 1, {}, 18,
        {"axis": 0, "reduction": "add"},
    ),
    "cache": (
        "ScatterND", {"a": normal(2, 8, 40), "b": np.array([[0, 3], [1, 7]]), "c": normal(2, 40)}, 1, {}, 16, {},
    ),
    "max pool": (
        "MaxPool", {"a": normal(2, 3, 9, 8)}, 2, {}, 12, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1] * 4},
    ),
    "grid bilinear": ("GridSample", {"a": normal(2, 3, 7, 9), "b": grid(2, 5, 4, 2)}, 1, {}, 20, {"mode": "linear"}),
    "grid border": (
        "GridSample", {"a": normal(2, 3, 7, 9), "b": grid(2, 5, 4, 2)}, 1, {}, 20,
        {"mode": "cubic", "padding_mode": "border", "align_corners": 1},
    ),
    "grid reflection": (
        "GridSample", {"a": normal(1, 2, 4, 5, 6), "b": grid(1, 3, 2, 4, 3)}, 1, {}, 20,
        {"mode": "linear", "padding_mode": "reflection"},
    ),
    "dft": ("DFT", {"a": normal(2, 30, 1)}, 1, {"b": np.array(21), "c": np.array(1)}, 20, {"onesided": 1}),
    "inverse dft": ("DFT", {"a": normal(2, 17, 3, 2)}, 1, {"b": np.array(17), "c": np.array(1)}, 20, {"inverse": 1}),
    "stft": ("STFT", {"a": normal(2, 200, 1), "c": normal(32)}, 1, {"b": np.array(10)}, 17, {}),
    "col2im": (
        "Col2Im", {"a": normal(2, 12, 12)}, 1, {"b": np.array([6, 5]), "c": np.array([2, 3])}, 18,
        {"strides": [1, 2], "pads": [0, 1, 0, 1], "dilations": [2, 1]},
    ),
    "reverse": (
        "ReverseSequence", {"a": normal(6, 4, 3), "b": np.array([6, 1, 0, 3])}, 1, {}, 10,
        {"time_axis": 0, "batch_axis": 1},
    ),
    "det": ("Det", {"a": normal(3, 2, 6, 6)}, 1, {}, 11, {}),
    "det of zeros": ("Det", {"a": np.zeros((2, 3, 3), F)}, 1, {}, 11, {}),
    "deform": (
        "DeformConv",
        {"a": normal(2, 4, 7, 6), "b": normal(6, 2, 3, 3), "c": normal(2, 36, 7, 6), "d": normal(6),
         "e": normal(2, 18, 7, 6)},
        1, {}, 19, {"group": 2, "offset_group": 2, "pads": [1] * 4, "kernel_shape": [3, 3]},
    ),
    "roi": (
        "RoiAlign",
        {"a": normal(2, 3, 12, 11), "b": np.array([[0, 0, 9, 9], [3, 2, 20, 30], [5, 5, 5, 5]], F),
         "c": np.array([0, 1, 1])},
        1, {}, 16, {"sampling_ratio": 2, "output_height": 3, "output_width": 4, "spatial_scale": 0.6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name: str) -> None:
    op, inputs, outputs, held, opset, attributes = CASES[name]
    model = node_model(op, inputs, outputs, held, opset, **attributes)
    if name == "grid border":  # onnx.reference moves the position to the border, others each of its taps
        model.ir_version = 10
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        wanted = session.run(None, inputs)
    else:
        wanted = ReferenceEvaluator(model).run(None, inputs)
    for got, want in zip(run(model, inputs), wanted, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(
    ("shape", "dtype", "shared"), [((3, 40), I, False), ((40,), np.int32, False), ((2, 2), I, False), ((4, 9), I, True)]
)
def test_n_grams(mode: str, shape: tuple[int, ...], dtype: Any, shared: bool) -> None:
    x = RNG.integers(0, 4, shape).astype(dtype)
    how = {
        "mode": mode, "min_gram_length": 1, "max_gram_length": 3, "max_skip_count": 2, "ngram_counts": [0, 3, 9],
        "pool_int64s": [2, 0, 9, 1, 1, 0, 3, 2, 2, 1, 2, 3, 0, 0, 1],
        "ngram_indexes": [5, 1, 0, 2, 2, 4, 1, 8] if shared else [5, 1, 0, 2, 3, 4, 10, 8],
        "weights": [0.5, 2, 3, 1, 0.25, 4, 1.5, 7],
    }  # fmt: skip
    model = node_model("TfIdfVectorizer", {"a": x}, 1, {}, 9, **how)
    (got,) = run(model, {"a": x})
    want = reference.tf_idf_vectorizer(x, **how)
    assert got.dtype == want.dtype and want.any()
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_grid_may_hold_anything(mode: str, padding: str) -> None:
    x = normal(1, 1, 4, 4)
    points = np.array([[[[np.nan, 0.0], [np.inf, 0.2], [5.0, -7.0], [-np.inf, np.nan]]]], F)
    model = node_model("GridSample", {"a": x, "b": points}, 1, {}, 20, mode=mode, padding_mode=padding)
    (got,) = run(model, {"a": x, "b": points})
    np.testing.assert_allclose(got, reference.grid_sample(x, points, mode=mode, padding_mode=padding), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int64, np.uint64])
def test_types_of_orders_and_scatters(dtype: Any) -> None:
    x, new = ((RNG.standard_normal(s) * 20).astype(np.int64).clip(0, 100).astype(dtype) for s in ((4, 9), (3, 9)))
    for largest in (0, 1):
        model = node_model("TopK", {"a": x}, 2, {"b": np.array([5])}, 11, largest=largest)
        for got, want in zip(run(model, {"a": x}), reference.top_k(x, 5, largest=largest), strict=True):
            np.testing.assert_array_equal(got, want)
    at = np.array([[-1], [2], [2]])
    for how in ("none", "add", "mul", "max", "min"):
        inputs = {"a": x, "b": at, "c": new}
        (got,) = run(node_model("ScatterND", inputs, 1, {}, 18, reduction=how), inputs)
        np.testing.assert_array_equal(got, reference.scatter_nd(x, at, new, reduction=how))


def test_random_numbers_follow_the_seed() -> None:
    model = node_model("RandomNormal", {}, 1, {}, 22, shape=[300, 40], mean=2.0, scale=3.0, seed=7.0)
    (first,), (again,) = run(model, {}), run(model, {})
    np.testing.assert_array_equal(first, again)
    assert abs(first.mean() - 2) < 0.1 and abs(first.std() - 3) < 0.1


def test_without_a_seed_every_call_draws_anew() -> None:
    x = np.full((200, 50), 0.3, F)
    model = node_model("Bernoulli", {"x": x}, 1, {}, 22)
    engine = tcc.compile(model, target=TARGET, opt_level=1)
    one, two = (np.asarray(engine({"x": x})["y0"]) for _ in range(2))
    assert set(np.unique(one)) == {0.0, 1.0}
    assert abs(one.mean() - 0.3) < 0.03
    assert (one != two).any()


def test_multinomial_draws_by_probability() -> None:
    x = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0001]], F))
    model = node_model("Multinomial", {"x": x}, 1, {}, 22, sample_size=4000, seed=3.0)
    (got,) = run(model, {"x": x})
    assert got.dtype == np.int32
    np.testing.assert_allclose(np.bincount(got[0], minlength=3) / 4000, [0.1, 0.2, 0.7], atol=0.03)


def test_training_dropout_keeps_the_mean() -> None:
    x = np.ones((400, 50), F)
    held = {"y_ratio": np.array(0.25, F), "z_mode": np.array(True)}
    model = node_model("Dropout", {"x": x}, 2, held, 22, seed=1)
    got, mask = run(model, {"x": x})
    np.testing.assert_array_equal(got != 0, mask)
    assert abs(got.mean() - 1) < 0.03 and abs(mask.mean() - 0.75) < 0.02


@pytest.mark.parametrize(("start", "whole"), [(0, 1), (1, 0)])
def test_what_begins_within_a_vector_is_not_copied_by_vectors(start: int, whole: int) -> None:
    """A scatter copies its operand first, in steps of 16 bytes where it can; rows of 9 floats begin anywhere."""
    nodes = [
        helper.make_node("Slice", ["x", "start", "end"], ["part"]),
        helper.make_node("ScatterND", ["part", "places", "rows"], ["y"]),
    ]
    held = {"start": np.array([start]), "end": np.array([start + 8]), "places": np.array([[1]])}
    given = {"x": normal(10, 9), "rows": normal(1, 9)}
    infos = [helper.make_tensor_value_info(k, 1, v.shape) for k, v in given.items()]
    weights = [onnx.numpy_helper.from_array(v, k) for k, v in held.items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", 1, [8, 9])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    want = given["x"][start : start + 8].copy()
    want[1] = given["rows"][0]
    np.testing.assert_array_equal(tcc.compile(model, target=TARGET)(given)["y"], want)
    files = compile_model(model, Options(target="sm_86")).files
    (source,) = [text.decode() for name, text in files.items() if name.endswith(".cu")]
    assert f"#define TCC_VECTOR_COPY {whole}\n" in source
