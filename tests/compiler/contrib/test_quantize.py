# SPDX-License-Identifier: Apache-2.0
"""Operators on quantized tensors against ONNX Runtime: at most a tiny share of results one quantum off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tests.compiler.contrib.peers import F32, I8, U8, Array, check, compiled, integers, normal, peer, rng, single

TYPES = pytest.mark.parametrize("dtype", [U8, I8])
Operands = list[tuple[str, Array] | None]


def held(operands: Operands, *not_held: str) -> list[str]:
    return [o[0] for o in operands if o is not None and o[0] not in not_held]


def scaled(name: str, x: Array, scale: float, zero: int | None) -> Operands:
    return [
        (name, x),
        (f"{name}_scale", np.float32(scale)),
        (f"{name}_zero", x.dtype.type(zero)) if zero is not None else None,
    ]


def middle(dtype: np.dtype) -> int:
    return 121 if dtype == U8 else -3


@TYPES
@pytest.mark.parametrize("shape", [(3, 5, 7), (5, 1), (1,)])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    a = scaled("a", integers(0, dtype, 3, 5, 7), 0.03137, middle(dtype))
    b = scaled("b", integers(1, dtype, *shape), 0.05231, middle(dtype) + 4)
    c = [("c_scale", np.float32(0.06 if op == "QLinearAdd" else 0.11)), ("c_zero", dtype.type(middle(dtype) - 3))]
    check(op, [*a, *b, *c], [dtype], held([*a, *b, *c], "a", "b"))


@TYPES
@pytest.mark.parametrize("odd", [0, 1])
def test_ties(odd: int, dtype: np.dtype) -> None:
    """Scales that put many results in the middle between two quanta: each operator's own rounding decides."""
    zero = dtype.type(middle(dtype) + odd)
    a = scaled("a", integers(0, dtype, 3, 5, 7), 0.5, middle(dtype))
    b = scaled("b", integers(1, dtype, 3, 5, 7), 0.5, middle(dtype))
    x = scaled("x", integers(2, dtype, 2, 9, 4, 4), 0.5, middle(dtype))
    for op, scale, front, back, attributes in (
        ("QLinearAdd", 1, [], [*a, *b], {}),
        ("QLinearMul", 32, [], [*a, *b], {}),
        ("QLinearWhere", 1, [("test", rng(3).random((3, 5, 7)) < 0.5)], [*a, *b], {}),
        ("QLinearLeakyRelu", 1, [], a, {"alpha": 0.5}),
        ("QLinearGlobalAveragePool", 0.125, [], x, {}),
        ("QLinearAveragePool", 0.125, [], x, {"kernel_shape": [4, 4]}),
    ):
        operands: Operands = [*front, *back, ("s", np.float32(scale)), ("z", zero)]
        model, feed = single(op, operands, [dtype], held(operands, "a", "b", "x", "test"), **attributes)
        assert (compiled(model, feed)["y0"] == peer(model, feed)["y0"]).all(), op


def test_zero_points_may_be_absent() -> None:
    """They are 0 then. ONNX Runtime's type inference refuses the first zero point to be absent."""
    a, b = integers(0, I8, 4, 9), integers(1, I8, 9)
    model, feed = single("QLinearAdd", [*scaled("a", a, 0.25, None), *scaled("b", b, 0.5, None),
                                        ("c_scale", np.float32(0.75))], [I8])  # fmt: skip
    wanted = np.clip(np.rint((a * 0.25 + b * 0.5) / 0.75), -128, 127)
    assert (compiled(model, feed)["y0"] == wanted).all()


@TYPES
def test_where(dtype: np.dtype) -> None:
    operands: Operands = [
        ("condition", rng(2).random((3, 1, 7)) < 0.5),
        *scaled("x", integers(0, dtype, 3, 5, 7), 0.03, middle(dtype)),
        *scaled("y", integers(1, dtype, 7), 0.05, middle(dtype) + 4),
        ("z_scale", np.float32(0.06)),
        ("z_zero", dtype.type(middle(dtype))),
    ]
    check("QLinearWhere", operands, [dtype], held(operands, "condition", "x", "y"))


@TYPES
def test_concat(dtype: np.dtype) -> None:
    operands: Operands = [("y_scale", np.float32(0.04)), ("y_zero", dtype.type(middle(dtype)))]
    for i, (width, scale) in enumerate(((3, 0.04), (1, 0.09), (5, 0.011))):
        operands += scaled(f"x{i}", integers(i, dtype, 2, width, 3), scale, middle(dtype) + i)
    check("QLinearConcat", operands, [dtype], held(operands, "x0", "x1", "x2"), axis=1)


@TYPES
@pytest.mark.parametrize(
    ("op", "scale", "attributes"),
    [
        ("QLinearSigmoid", 1 / 256, {}),
        ("QLinearLeakyRelu", 0.05, {"alpha": 0.2}),
        ("QLinearSoftmax", 1 / 256, {"opset": 13, "axis": 1}),
        ("QLinearSoftmax", 1 / 256, {"opset": 13, "axis": -1}),
        ("QLinearSoftmax", 1 / 256, {"opset": 12, "axis": 1}),
        ("QLinearSoftmax", 1 / 255, {"opset": 13}),
    ],
)
def test_functions(op: str, scale: float, attributes: dict[str, Any], dtype: np.dtype) -> None:
    zero = 0 if dtype == U8 else -128
    operands = [*scaled("x", integers(0, dtype, 3, 5, 7), 0.02, middle(dtype)), ("s", np.float32(scale)),
                ("z", dtype.type(zero if op != "QLinearLeakyRelu" else middle(dtype)))]  # fmt: skip
    check(op, operands, [dtype], held(operands, "x"), **attributes)


@TYPES
@pytest.mark.parametrize("last", [0, 1])
def test_pools(last: int, dtype: np.dtype) -> None:
    shape = (2, 6, 7, 5) if last else (2, 5, 6, 7)
    operands = [*scaled("x", integers(0, dtype, *shape), 0.05137, middle(dtype)), ("s", np.float32(0.0231)),
                ("z", dtype.type(middle(dtype)))]  # fmt: skip
    fixed = held(operands, "x")
    check("QLinearGlobalAveragePool", operands, [dtype], fixed, channels_last=last)
    for attributes in (
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ):
        check("QLinearAveragePool", operands, [dtype], fixed, channels_last=last, **attributes)


@TYPES
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("last", [0, 1])
def test_convolutions(last: int, per_channel: bool, dtype: np.dtype) -> None:
    x = integers(0, dtype, 2, 4, 9, 7)
    count = (6,) if per_channel else ()
    weights = rng(1).integers(-127, 128, (6, 2, 3, 3)).astype(np.int8)
    operands: Operands = [
        *scaled("x", np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x, 0.02, middle(dtype)),
        ("w", weights),
        ("w_scale", rng(2).uniform(0.005, 0.01, count).astype(np.float32)),
        ("w_zero", np.zeros(count, np.int8)),
        ("y_scale", np.float32(0.1)),
        ("y_zero", dtype.type(middle(dtype))),
        ("bias", rng(3).integers(-900, 900, 6).astype(np.int32)),
    ]
    check(
        "QLinearConv", operands, [dtype], held(operands, "x"), channels_last=last, group=2, strides=[2, 1],
        pads=[1, 1, 1, 0], kernel_shape=[3, 3],
    )  # fmt: skip


@TYPES
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("per_column", [False, True])
def test_gemm(per_column: bool, whole: bool, dtype: np.dtype) -> None:
    """Whole: with a quantized result; otherwise in f32."""
    columns = (7,) if per_column else ()
    operands: Operands = [
        *scaled("a", integers(0, dtype, 5, 3), 0.02, middle(dtype)),
        ("b", integers(1, I8, 7, 5)),
        ("b_scale", rng(2).uniform(0.005, 0.01, columns).astype(np.float32)),
        ("b_zero", np.zeros(columns, np.int8)),
        ("c", rng(3).integers(-900, 900, 7).astype(np.int32)),
    ]
    if whole:
        operands += [("y_scale", np.float32(0.05)), ("y_zero", dtype.type(middle(dtype)))]
    check("QGemm", operands, [dtype if whole else F32], held(operands, "a"), transA=1, transB=1, alpha=0.7)


@pytest.mark.parametrize(("a", "b"), [(U8, U8), (U8, I8), (I8, I8)])
@pytest.mark.parametrize("per_column", [False, True])
def test_matmul_to_float(per_column: bool, a: np.dtype, b: np.dtype) -> None:
    """ONNX Runtime has no kernel of i8 by u8."""
    columns = (7,) if per_column else ()
    scale = rng(2).uniform(0.005, 0.01, columns).astype(np.float32)
    zero = rng(3).integers(-3, 4, columns).astype(I8) if b == I8 else rng(3).integers(120, 130, columns).astype(U8)
    operands: Operands = [
        ("a", integers(0, a, 2, 3, 5)), ("b", integers(1, b, 5, 7)), ("as", np.float32(0.02)), ("bs", scale),
        ("az", a.type(middle(a))), ("bz", zero), ("bias", normal(4, 7)),
    ]  # fmt: skip
    check("MatMulIntegerToFloat", operands, [F32], held(operands, "a"))
    check("MatMulIntegerToFloat", operands[:4], [F32], held(operands[:4], "a"))


@pytest.mark.parametrize("b", [U8, I8])
@pytest.mark.parametrize("per_column", [False, True])
def test_dynamic_matmul(per_column: bool, b: np.dtype) -> None:
    columns = (7,) if per_column else ()
    operands: Operands = [
        ("a", normal(0, 2, 3, 5)),
        ("b", integers(1, b, 5, 7)),
        ("bs", rng(2).uniform(0.005, 0.01, columns).astype(np.float32)),
        ("bz", rng(3).integers(0, 4, columns).astype(b)),
        ("bias", normal(4, 7)),
    ]
    check("DynamicQuantizeMatMul", operands, [F32], held(operands, "a"))
    check("DynamicQuantizeMatMul", operands[:3], [F32], held(operands[:3], "a"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantize_and_dequantize(dtype: Any) -> None:
    """Of a whole tensor and by axis, 16-bit types too, whose results agree to the last bit."""
    low = np.iinfo(dtype).min
    x, whole, by_axis = normal(0, 3, 5, 7), np.float32(0.013), rng(1).uniform(0.001, 0.1, 5).astype(np.float32)
    zeros = (rng(2).integers(0, 90, 5) + max(low, -40)).astype(dtype)
    for scale, zero, attributes in ((whole, dtype(3), {}), (by_axis, zeros, {"axis": 1})):
        check("QuantizeLinear", [("x", x), ("s", scale), ("z", zero)], [dtype], ("s", "z"), **attributes)
        q = [("x", integers(3, dtype, 3, 5, 7)), ("s", scale), ("z", zero)]
        check("DequantizeLinear", q, [F32], ("s", "z"), **attributes)


def test_mul_integer() -> None:
    """ONNX Runtime has a declaration of it and no kernel."""
    a, b = integers(0, U8, 3, 5), integers(1, U8, 5)
    model, feed = single("MulInteger", [("a", a), ("az", np.uint8(7)), ("b", b)], [np.int32], ("az",))
    assert (compiled(model, feed)["y0"] == (a.astype(np.int32) - 7) * b).all()


def test_what_does_not_fit_is_refused() -> None:
    operands = [*scaled("a", integers(0, U8, 4), 0.03, 1), *scaled("b", integers(1, U8, 4), 0.02, 1)]
    two = [*operands, ("c_scale", np.float32([1, 2]))]
    with pytest.raises(InputError, match="its scale of C is tensor<2xf32>, and one number is needed"):
        load_onnx(single("QLinearAdd", two, [U8])[0])
    with pytest.raises(InputError, match="it has 6 inputs, and 2"):
        load_onnx(single("QLinearConcat", operands, [U8], axis=0)[0])
