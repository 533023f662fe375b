# SPDX-License-Identifier: Apache-2.0
"""Quantized models of every kind: small float models through ONNX Runtime's quantization tools, and some by hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnxruntime import quantization

from tests.compiler.contrib.peers import Array, compiled, element, model_of, normal, peer, rng

QDQ, QOPERATOR = quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator
U8, I8 = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
U16, I16 = quantization.QuantType.QUInt16, quantization.QuantType.QInt16


def feed(model: onnx.ModelProto, seed: int) -> dict[str, Array]:
    return {
        i.name: normal(seed, *(d.dim_value for d in i.type.tensor_type.shape.dim)) for i in model.graph.input
    }  # fmt: skip


class _Reader(quantization.CalibrationDataReader):
    """Four random inputs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.feeds: Iterator[dict[str, Array]] = iter([feed(model, k) for k in range(4)])

    def get_next(self) -> dict[str, Array] | None:  # type: ignore[override]
        return next(self.feeds, None)


@contextmanager
def _quietly() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def static(model: onnx.ModelProto, folder: Path, **options: Any) -> onnx.ModelProto:
    """Quantized with ranges from calibration."""
    onnx.save(model, folder / "float.onnx")
    with _quietly():
        quantization.quantize_static(folder / "float.onnx", folder / "quantized.onnx", _Reader(model), **options)
    return onnx.load(folder / "quantized.onnx")


def dynamic(model: onnx.ModelProto, folder: Path, **options: Any) -> onnx.ModelProto:
    """Quantized weights; activations are quantized as they come."""
    onnx.save(model, folder / "float.onnx")
    with _quietly():
        quantization.quantize_dynamic(folder / "float.onnx", folder / "quantized.onnx", **options)
    return onnx.load(folder / "quantized.onnx")


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """As ONNX Runtime rewrites it for any CPU: with its fused operators."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def operators(model: onnx.ModelProto) -> set[str]:
    return {n.op_type for n in model.graph.node}


def right(model: onnx.ModelProto, given: Mapping[str, Array], level: int = 1) -> None:
    """The engine's error is at most max(1e-4 × max|reference|, 3 × the difference that ONNX Runtime's own
    optimisations make): where a number lies beside the middle of two quanta, the order of a sum decides, and ONNX
    Runtime itself decides both ways."""
    mine, plain, fast = compiled(model, given, level), peer(model, given), peer(model, given, optimised=True)
    assert list(mine) == list(plain)
    for name, wanted in plain.items():
        assert (mine[name].dtype, mine[name].shape) == (wanted.dtype, wanted.shape)
        wide = wanted.astype(np.float64)
        own = np.abs(fast[name].astype(np.float64) - wide).max()
        error = np.abs(mine[name].astype(np.float64) - wide).max()
        allowed = max(1e-4 * np.abs(wide).max(), 3 * own)
        assert error <= allowed, f"{name} is off by {error}, and {allowed} is allowed"


def mlp() -> onnx.ModelProto:
    """Two layers with biases, a residual and a softmax."""
    n = helper.make_node
    nodes = [
        n("MatMul", ["x", "w0"], ["a"], "first"),
        n("Add", ["a", "b0"], ["b"], "bias0"),
        n("Relu", ["b"], ["c"], "relu"),
        n("MatMul", ["c", "w1"], ["d"], "second"),
        n("Add", ["d", "b1"], ["e"], "bias1"),
        n("Add", ["e", "x"], ["f"], "sum"),
        n("Gemm", ["f", "w2", "b2"], ["g"], "third", transB=1),
        n("Softmax", ["g"], ["y"], "softmax"),
    ]
    weights = {
        "w0": normal(0, 19, 33) / 5, "b0": normal(1, 33), "w1": normal(2, 33, 19) / 6, "b1": normal(3, 19),
        "w2": normal(4, 7, 19) / 4, "b2": normal(5, 7),
    }  # fmt: skip
    return model_of(nodes, {"x": normal(0, 5, 19)}, {"y": np.float32}, weights)


def lstm(direction: str = "bidirectional") -> onnx.ModelProto:
    """A recurrent layer between two products: the shape of a small speech model."""
    n, count, hidden, width = helper.make_node, 2 if direction == "bidirectional" else 1, 12, 10
    nodes = [
        n("MatMul", ["x", "w0"], ["a"], "in"),
        n("LSTM", ["a", "w", "r", "b"], ["h", "", "c"], "lstm", hidden_size=hidden, direction=direction),
        n("Transpose", ["h"], ["t"], "order", perm=[0, 2, 1, 3]),
        n("Reshape", ["t", "shape"], ["f"], "flat"),
        n("MatMul", ["f", "w1"], ["y"], "out"),
    ]
    weights = {
        "w0": normal(0, 7, width) / 3, "w": normal(1, count, 4 * hidden, width) / 3,
        "r": normal(2, count, 4 * hidden, hidden) / 4, "b": normal(3, count, 8 * hidden) / 3,
        "shape": np.array([0, 0, -1], np.int64), "w1": normal(4, count * hidden, 5) / 3,
    }  # fmt: skip
    return model_of(nodes, {"x": normal(0, 9, 2, 7)}, {"y": np.float32, "c": np.float32}, weights)


def blocks_of_four_bits() -> onnx.ModelProto:
    """Two layers whose weights are i4 with a scale and zero point for every 16 rows of a column."""
    n, r = helper.make_node, rng(6)
    nodes, weights = [], {}
    value = "x"
    for i, (depth, width) in enumerate(((48, 35), (35, 9))):
        blocks = -(-depth // 16)
        weights[f"w{i}"] = r.integers(-8, 8, (depth, width)).astype(ml_dtypes.int4)
        weights[f"s{i}"] = r.uniform(0.02, 0.06, (blocks, width)).astype(np.float32)
        weights[f"z{i}"] = r.integers(-2, 3, (blocks, width)).astype(ml_dtypes.int4)
        nodes += [
            n("DequantizeLinear", [f"w{i}", f"s{i}", f"z{i}"], [f"d{i}"], f"weights{i}", axis=0, block_size=16),
            n("MatMul", [value, f"d{i}"], [f"m{i}"], f"product{i}"),
            n("Tanh", [f"m{i}"], [f"t{i}"], f"tanh{i}"),
        ]
        value = f"t{i}"
    nodes.append(n("Identity", [value], ["y"], "end"))
    return model_of(nodes, {"x": normal(0, 5, 48)}, {"y": np.float32}, weights, opset=21)


def integers_only() -> onnx.ModelProto:
    """u8 in, i32 and u8 out: ConvInteger, MatMulInteger and QLinearMatMul without a float in between."""
    n, r = helper.make_node, rng(7)
    nodes = [
        n("ConvInteger", ["x", "k", "xz", "kz"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        n("Cast", ["c"], ["f"], "float", to=element(np.float32)),
        n("Mul", ["f", "scale"], ["m"], "scale"),
        n("QuantizeLinear", ["m", "ys", "yz"], ["q"], "quantize"),
        n("Reshape", ["q", "shape"], ["flat"], "flat"),
        n("MatMulInteger", ["flat", "w", "yz", "wz"], ["i"], "product"),
        n("QLinearMatMul", ["flat", "ys", "yz", "w", "ws", "wz", "ys", "yz"], ["j"], "scaled"),
    ]
    weights = {
        "k": r.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8), "xz": np.uint8(117),
        "kz": np.int8(3), "scale": r.uniform(1e-4, 3e-4, (1, 6, 1, 1)).astype(np.float32),
        "ys": np.float32(0.0371), "yz": np.uint8(121), "shape": np.array([2, -1], np.int64),
        "w": r.integers(-127, 128, (6 * 4 * 5, 8)).astype(np.int8), "wz": np.zeros(8, np.int8),
        "ws": r.uniform(0.002, 0.004, 8).astype(np.float32),
    }  # fmt: skip
    x = {"x": r.integers(0, 256, (2, 3, 7, 9)).astype(np.uint8)}
    return model_of(nodes, x, {"i": np.int32, "j": np.uint8}, weights)
