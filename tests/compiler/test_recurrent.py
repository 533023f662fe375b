# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers of ONNX, whole: imported, compiled and run, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.errors import InputError
from tests.target import TARGET

ort = pytest.importorskip("onnxruntime")

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
NAMES = (
    "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign",
    "Softplus",
)  # fmt: skip
BOUNDED = ("Tanh", "Sigmoid", "ScaledTanh", "HardSigmoid", "Softsign")
TAKES_ALPHA = ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu")
TAKES_BETA = ("Affine", "ScaledTanh", "HardSigmoid")


def layer(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray], dict[str, Any]]:
    """(a model of one recurrent node with random options, its inputs, its attributes)."""
    rng = np.random.default_rng(seed)
    kind = ("LSTM", "GRU", "RNN")[seed % 3]
    direction = ("forward", "reverse", "bidirectional")[seed // 3 % 3]
    ways = 2 if direction == "bidirectional" else 1
    steps, batch, width, hidden = (int(rng.integers(1, n)) for n in (12, 6, 9, 21))
    flip = lambda: bool(rng.integers(0, 2))  # noqa: E731
    attrs: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if flip():
        # Gates that are not bounded make states run away.
        pools = [BOUNDED, NAMES, NAMES] if kind != "RNN" else [NAMES]
        names = [str(rng.choice(pools[i])) for _ in range(ways) for i in range(FUNCTIONS[kind])]
        attrs["activations"] = names
        # ONNX Runtime takes 0 where ONNX has another default, or none.
        if flip() or {"Affine", "ThresholdedRelu", "ScaledTanh"} & {*names}:
            for key, takers in (("activation_alpha", TAKES_ALPHA), ("activation_beta", TAKES_BETA)):
                attrs[key] = [0.3 + 0.1 * i for i in range(sum(n in takers for n in names))]
                if not attrs[key]:
                    del attrs[key]
    if flip():
        attrs["clip"] = 0.5
    if kind == "GRU" and flip():
        attrs["linear_before_reset"] = 1
    scale = 0.5 / np.sqrt(hidden)
    weights = {"w": rng.standard_normal((ways, GATES[kind] * hidden, width)) * 0.5,
               "r": rng.standard_normal((ways, GATES[kind] * hidden, hidden)) * scale}  # fmt: skip
    names = ["x", "w", "r", "", "", ""]
    if flip():
        weights["b"] = rng.standard_normal((ways, 2 * GATES[kind] * hidden)) * 0.5
        names[3] = "b"
    inputs: dict[str, np.ndarray] = {"x": rng.standard_normal((steps, batch, width))}
    if flip():
        lengths = rng.integers(1, steps + 1, batch)
        lengths[0] = steps
        inputs["lengths"], names[4] = lengths.astype(np.int32), "lengths"
    if flip():
        inputs["h"], names[5] = rng.standard_normal((ways, batch, hidden)), "h"
    if kind == "LSTM":
        names += ["", ""]
        if flip():
            inputs["c"], names[6] = rng.standard_normal((ways, batch, hidden)), "c"
        if flip():
            weights["p"], names[7] = rng.standard_normal((ways, 3 * hidden)) * 0.5, "p"
    feeds = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in inputs.items()}
    outputs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    return single(kind, names, outputs, attrs, feeds, weights), feeds, attrs


def single(
    kind: str, names: list[str], outputs: list[str], attrs: dict[str, Any], feeds: dict[str, np.ndarray],
    weights: dict[str, np.ndarray], dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:  # fmt: skip
    """A model of one node."""
    kinds = {np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, "layer", **attrs)],
        "one",
        [helper.make_tensor_value_info(k, kinds.get(v.dtype, dtype), v.shape) for k, v in feeds.items()],
        [helper.make_tensor_value_info(k, dtype, None) for k in outputs],
        [numpy_helper.from_array(v.astype(helper.tensor_dtype_to_np_dtype(dtype)), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def peer(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime says."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def ours(model: onnx.ModelProto, feeds: dict[str, np.ndarray], level: int, **options: Any) -> list[np.ndarray]:
    return list(tcc.compile(model, TARGET, opt_level=level, **options)(feeds).values())


@pytest.mark.parametrize("seed", range(36))
def test_random_options(seed: int) -> None:
    model, feeds, attrs = layer(seed)
    for got, want in zip(ours(model, feeds, seed % 2, random_seed=seed or None), peer(model, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=str(attrs))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_steps_that_data_decide(kind: str, direction: str) -> None:
    """Silence is taken out of the input first: kernels take the number of steps as an argument."""
    rng = np.random.default_rng(0)
    ways = 2 if direction == "bidirectional" else 1
    weights = {
        "w": rng.standard_normal((ways, GATES[kind] * 9, 5)),
        "r": rng.standard_normal((ways, GATES[kind] * 9, 9)) / 3,
    }
    model = single(kind, ["loud", "w", "r"], ["y", "yh"], {"hidden_size": 9, "direction": direction}, {}, weights)
    keep = helper.make_node("Compress", ["x", "keep"], ["loud"], "keep", axis=0)
    model.graph.node.insert(0, keep)
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [12, 2, 5]))
    model.graph.input.append(helper.make_tensor_value_info("keep", TensorProto.BOOL, [12]))
    engine = tcc.compile(model, TARGET)
    for count in (12, 7, 1):
        feeds = {"x": rng.standard_normal((12, 2, 5)).astype(np.float32), "keep": np.arange(12) < count}
        for got, want in zip(engine(feeds).values(), peer(model, feeds), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_batch_first() -> None:
    """ONNX Runtime has no layout 1: it gets the transposed layer."""
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((2, 28, 3)), "r": rng.standard_normal((2, 28, 7)) / 3}
    x, h, c = (rng.standard_normal(s).astype(np.float32) for s in ((4, 6, 3), (4, 2, 7), (4, 2, 7)))
    names, attrs = ["x", "w", "r", "", "", "h", "c"], {"hidden_size": 7, "direction": "bidirectional"}
    mine, other = {"x": x, "h": h, "c": c}, {k: v.swapaxes(0, 1) for k, v in {"x": x, "h": h, "c": c}.items()}
    outputs = ["y", "yh", "yc"]
    y, yh, yc = peer(single("LSTM", names, outputs, attrs, other, weights), other)
    wanted = (y.transpose(2, 0, 1, 3), yh.swapaxes(0, 1), yc.swapaxes(0, 1))
    model = single("LSTM", names, outputs, {**attrs, "layout": 1}, mine, weights)
    for got, want in zip(ours(model, mine, 1), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("kind", GATES)
def test_other_types(kind: str, dtype: int) -> None:
    rng = np.random.default_rng(2)
    weights = {
        "w": rng.standard_normal((1, GATES[kind] * 6, 4)) / 2,
        "r": rng.standard_normal((1, GATES[kind] * 6, 6)) / 3,
    }
    feeds = {"x": rng.standard_normal((5, 2, 4)).astype(helper.tensor_dtype_to_np_dtype(dtype))}
    narrow = single(kind, ["x", "w", "r"], ["y", "yh"], {"hidden_size": 6}, feeds, weights, dtype)
    exact = {k: v.astype(feeds["x"].dtype).astype(np.float32) for k, v in {**feeds, **weights}.items()}
    wide = single(kind, ["x", "w", "r"], ["y", "yh"], {"hidden_size": 6}, {"x": exact["x"]}, exact | weights)
    slack = 4e-3 if dtype == TensorProto.FLOAT16 else 1e-5
    for got, want in zip(ours(narrow, feeds, 1), peer(wide, {"x": exact["x"]}), strict=True):
        assert got.dtype == feeds["x"].dtype
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=slack, atol=slack)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"hidden_size": 5}, "its hidden_size is 5"),
        ({"activations": ["Tanh", "Swish"]}, "its activation swish is none of relu"),
        ({"activations": ["Tanh"]}, "need 2 each"),
        ({"direction": "both"}, "its direction is both"),
    ],
)
def test_what_is_refused(attrs: dict[str, Any], message: str) -> None:
    weights = {"w": np.ones((1, 18, 4)), "r": np.ones((1, 18, 6))}
    feeds = {"x": np.zeros((5, 2, 4), np.float32)}
    model = single("GRU", ["x", "w", "r"], ["y", "yh"], attrs, feeds, weights)
    with pytest.raises(InputError, match=message):
        tcc.compile(model, TARGET)
