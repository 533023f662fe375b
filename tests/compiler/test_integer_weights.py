# SPDX-License-Identifier: Apache-2.0
"""Products and convolutions of 8-bit integers with constant weights: right, and the engine holds the weights narrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import tcc
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.compiler.control_models import FLOAT, GO_ON, GOING, INT, body, head, model, n, value
from tests.compiler.test_control_flow import right

U8, I8, I32 = onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT32
Array = np.ndarray[Any, Any]


def integers(seed: int, dtype: Any, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


def check(made: onnx.ModelProto, feeds: dict[str, Array], level: int) -> Any:
    engine: Any = tcc.compile(made, target="cpu", opt_level=level, random_seed=3 if level == 3 else None)
    for name, want in right(made, feeds).items():
        np.testing.assert_allclose(engine(feeds)[name], want, rtol=1e-5)
    return engine


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("zero", [None, 0, 7])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 96, 80), (13, 33, 47)])
def test_products(rows: int, depth: int, columns: int, dtype: Any, zero: int | None, level: int) -> None:
    weights: dict[str, Any] = {"w": integers(1, dtype, depth, columns), "az": np.uint8(9)}
    operands = ["a", "w", "az"]
    if zero is not None:
        weights["wz"] = dtype(zero)
        operands.append("wz")
    made = model(
        [n("MatMulInteger", operands, ["y"])], [value("a", (rows, depth), U8)], [value("y", (rows, columns), I32)],
        weights,
    )  # fmt: skip
    engine = check(made, {"a": integers(2, np.uint8, rows, depth)}, level)
    if level == 1:
        bytes_each = 1 if dtype is np.int8 and not zero else 2
        padded = -(-columns // 16) * 16
        assert engine.weight_bytes <= bytes_each * depth * (padded + 64) + 4096


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("group", [1, 4])
def test_convolutions(group: int, level: int) -> None:
    made = model(
        [n("ConvInteger", ["x", "w", "xz", "wz"], ["y"], pads=[1, 1, 1, 1], group=group)],
        [value("x", (1, 8, 9, 11), U8)], [value("y", (1, 12, 9, 11), I32)],
        {"w": integers(1, np.int8, 12, 8 // group, 3, 3), "xz": np.uint8(128), "wz": np.int8(0)},
    )  # fmt: skip
    check(made, {"x": integers(2, np.uint8, 1, 8, 9, 11)}, level)


@pytest.mark.parametrize("level", [0, 1])
def test_weights_of_a_loop(level: int) -> None:
    inside = body(
        [
            GO_ON, n("QuantizeLinear", ["h", "s", "z"], ["q"]), n("MatMulInteger", ["q", "w", "z"], ["p"]),
            n("Cast", ["p"], ["f"], to=FLOAT), n("Mul", ["f", "small"], ["t"]),
            n("Tanh", ["t"], ["hn"]),
        ],
        head(value("h", (1, 64))), [GOING, value("hn", (1, 64))],
    )  # fmt: skip
    made = model(
        [n("Loop", ["n", "", "h0"], ["y"], body=inside)], [value("n", (), INT), value("h0", (1, 64))],
        [value("y", (1, 64))], {
            "w": integers(1, np.int8, 64, 64), "small": np.float32(1e-4), "s": np.float32(0.01), "z": np.uint8(128),
        },
    )  # fmt: skip
    start = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    check(made, {"n": np.array(3), "h0": start}, level)


def test_a_gpu_takes_them_as_they_are() -> None:
    made = model(
        [n("MatMulInteger", ["a", "w"], ["y"])], [value("a", (5, 32), U8)], [value("y", (5, 48), I32)],
        {"w": integers(1, np.int8, 32, 48)},
    )  # fmt: skip
    kernels = compile_model(made, Options(target="sm_86")).kernels
    assert not [k for k in kernels.values() if "naive" in k["template"]]
