# SPDX-License-Identifier: Apache-2.0
"""Products, convolutions and movements of com.microsoft against ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tests.compiler.contrib.peers import F16, F32, I8, U8, check, compiled, integers, normal, rng, single

PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((3, 5), (5, 7), {}),
    "scaled": ((3, 5), (5, 7), {"alpha": 0.25}),
    "transposed": ((5, 3), (7, 5), {"transA": 1, "transB": 1}),
    "batched": ((2, 5, 3), (2, 7, 5), {"transA": 1, "transB": 1, "alpha": 2.0}),
    "broadcast": ((2, 4, 3, 5), (5, 7), {}),
    "batch dims of A": ((3, 2, 5), (2, 5, 7), {"transBatchA": 1}),
    "batch dims of B": ((2, 3, 5), (5, 2, 7), {"transBatchB": 1}),
    "batch dims of both": ((5, 2, 3), (7, 2, 5), {"transBatchA": 1, "transBatchB": 1, "transA": 1, "transB": 1}),
    "four dims": ((3, 2, 4, 5), (2, 4, 5, 7), {"transBatchA": 1}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_fused_matmul(name: str) -> None:
    a, b, attributes = PRODUCTS[name]
    check("FusedMatMul", [("a", normal(0, *a)), ("b", normal(1, *b))], [F32], **attributes)


def test_fused_matmul_of_doubles() -> None:
    check("FusedMatMul", [("a", normal(0, 3, 5, dtype=np.float64)), ("b", normal(1, 5, 2, dtype=np.float64))],
          [np.float64], alpha=3.0)  # fmt: skip


GEMMS: dict[str, dict[str, Any]] = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "LeakyRelu": {"activation_alpha": 0.2}, "Softplus": {}, "Softsign": {},
    "Elu": {"activation_alpha": 0.7}, "HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.4},
    "ThresholdedRelu": {"activation_alpha": 0.6}, "Selu": {"activation_alpha": 1.5, "activation_gamma": 1.1},
}  # fmt: skip


@pytest.mark.parametrize("name", GEMMS)
def test_fused_gemm(name: str) -> None:
    operands = [("a", normal(0, 3, 5)), ("b", normal(1, 7, 5)), ("c", normal(2, 7))]
    check("FusedGemm", operands, [F32], ("b", "c"), activation=name, transB=1, alpha=0.5, beta=2.0, **GEMMS[name])


def test_gemm_fast_gelu() -> None:
    """ONNX Runtime has it on GPUs only."""
    x, w, b = normal(0, 2, 3, 5), normal(1, 5, 7), normal(2, 7)
    model, feed = single("GemmFastGelu", [("x", x), ("w", w), ("b", b)], [F32], ("w", "b"))
    v = x @ w + b
    right = 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))
    np.testing.assert_allclose(compiled(model, feed)["y0"], right, rtol=1e-4, atol=1e-4)


CONVS: dict[str, dict[str, Any]] = {
    "none": {},
    "Relu": {"activation": "Relu"},
    "Tanh": {"activation": "Tanh"},
    "Sigmoid": {"activation": "Sigmoid"},
    "LeakyRelu": {"activation": "LeakyRelu", "activation_params": [0.3]},
    "Clip": {"activation": "Clip", "activation_params": [-0.5, 0.75]},
    "HardSigmoid": {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
}


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", CONVS)
def test_fused_conv(name: str, added: bool) -> None:
    operands = [("x", normal(0, 2, 4, 7, 5)), ("w", normal(1, 6, 2, 3, 3)), ("b", normal(2, 6))]
    operands += [("z", normal(3, 2, 6, 4, 3))] if added else []
    check(
        "FusedConv", operands, [F32], ("w", "b"), group=2, strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3],
        **CONVS[name],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [U8, I8])
def test_nhwc_max_pool(dtype: np.dtype) -> None:
    x = [("x", integers(0, dtype, 2, 7, 9, 3))]
    check("NhwcMaxPool", x, [dtype], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    check("NhwcMaxPool", x, [dtype], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, dilations=[1, 2])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad(mode: str) -> None:
    pads = ("pads", np.array([1, 0, 2, 0, 1, 3], np.int64))
    check("Pad", [("x", normal(0, 3, 4, 5)), pads, ("v", np.float32([0.5]))], [F32], ("pads", "v"), mode=mode)
    check("Pad", [("x", normal(0, 3, 4, 5)), pads], [F32], ("pads",), mode=mode)


def test_trilu_and_gather_nd() -> None:
    check("Trilu", [("x", normal(0, 2, 5, 4)), ("k", np.int64(-1))], [F32], ("k",), upper=0)
    check("GatherND", [("x", normal(0, 4, 3, 2)), ("i", rng(1).integers(0, 3, (5, 2)))], [F32])
    check("ExpandDims", [("x", normal(0, 4, 3)), ("axis", np.array(-2, np.int32))], [F32], ("axis",))


@pytest.mark.parametrize("dtype", [F32, np.float64, F16])
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (2, 3, 4, 4)])
def test_inverse(shape: tuple[int, ...], dtype: Any) -> None:
    """Without a dominant diagonal, so that pivoting is needed: the first element is 0."""
    x = rng(3).uniform(-1, 1, shape) + np.roll(np.eye(shape[-1]), 1, -1) * 2
    if shape[-1] > 1:
        x[..., 0, 0] = 0
    check("Inverse", [("x", x.astype(dtype))], [dtype], tolerance=2e-2 if dtype == F16 else 1e-4)


def refused(words: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(InputError, match=words):
        load_onnx(single(*args, **kwargs)[0])


def test_what_does_not_fit_is_refused() -> None:
    a, b = ("a", normal(0, 3, 5)), ("b", normal(1, 5, 2))
    refused("its activation is Sinh", "FusedGemm", [a, b], [F32], activation="Sinh")
    refused("X is tensor<3x5xf32>, and square", "Inverse", [a], [F32])
    refused("its attribute beta is not supported", "FusedMatMul", [a, b], [F32], beta=1.0)
    conv = [("x", normal(0, 1, 2, 5, 5)), ("w", normal(1, 3, 2, 3, 3))]
    refused(r"its activation_params \[\] do not fit its activation Clip", "FusedConv", conv, [F32], activation="Clip")
