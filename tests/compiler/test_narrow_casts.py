# SPDX-License-Identifier: Apache-2.0
"""Casts to 8-bit floats by every rule, and bit casts, are compiled."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tcc import reference
from tcc.runtime.engine import Engine
from tests.target import TARGET

TYPES = [
    (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn), (TensorProto.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
    (TensorProto.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz), (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
]  # fmt: skip


def cast_engine(x: np.ndarray, op: str, **attributes: Any) -> Engine:
    """The engine of one cast, which calls no host."""
    info = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [info], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=13)
    engine = tcc.compile(model, target=TARGET)
    assert not [row for row in engine.data.schedule if row["op"] == "host_call"]
    return engine


@pytest.mark.parametrize(("code", "to"), TYPES, ids=lambda t: getattr(t, "__name__", ""))
@pytest.mark.parametrize("source", [np.float32, np.float16, np.int32])
@pytest.mark.parametrize("saturate", [0, 1])
def test_saturation(code: int, to: type, source: type, saturate: int, rng: np.random.Generator):
    edges = [0, 240, 247, 248, 249, 448, 463, 464, 465, 57344, 61439, 61440, 61441, 65504]
    x = np.concatenate([edges, np.negative(edges), rng.standard_normal(40) * 300]).astype(source)
    if source is not np.int32:
        x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan], source)])
    engine = cast_engine(x, "Cast", to=code, saturate=saturate)
    got, want = engine({"x": x})["y"], reference.cast(x, to=to, saturate=saturate)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
    assert engine.kernels


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("source", [np.float32, np.float16, np.float64, np.int32])
def test_powers_of_two(mode: str, saturate: int, source: type, rng: np.random.Generator):
    exact = np.ldexp(1.0, np.arange(-130, 129, 3))
    with np.errstate(over="ignore"):
        x = np.concatenate([exact, exact * 1.25, exact * 1.5, exact * (1 + 1e-7), rng.standard_normal(20) * 100, [0]])
        x = x[np.abs(x) < 2**31].astype(source) if source is np.int32 else x.astype(source)
    if source is not np.int32:
        x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan, -0.0], source)])
    engine = cast_engine(x, "Cast", to=TensorProto.FLOAT8E8M0, saturate=saturate, round_mode=mode)
    want = reference.cast(x, to=ml_dtypes.float8_e8m0fnu, saturate=saturate, round_mode=mode)
    np.testing.assert_array_equal(engine({"x": x})["y"].view(np.uint8), want.view(np.uint8))
    assert engine.kernels


@pytest.mark.parametrize(
    ("source", "to"),
    [(np.float32, np.int32), (np.uint64, np.float64), (np.float16, np.int16), (np.uint16, ml_dtypes.bfloat16),
     (ml_dtypes.float8_e5m2, np.uint8), (np.int8, ml_dtypes.float8_e4m3fn), (np.int32, np.uint32)],
)  # fmt: skip
def test_bits_stay(source: Any, to: Any, rng: np.random.Generator):
    """Every pattern of bits, those of NaNs too."""
    width = np.dtype(source).itemsize
    x = rng.integers(0, 256, (3, 50 * width), dtype=np.uint8).view(source)
    engine = cast_engine(x, "BitCast", to=helper.np_dtype_to_tensor_dtype(np.dtype(to)))
    got = np.asarray(engine({"x": x})["y"])
    assert got.dtype == to and got.shape == x.shape
    np.testing.assert_array_equal(got.view(np.uint8), x.view(np.uint8))


def test_bits_between_kernels(rng: np.random.Generator):
    """The quick reciprocal square root: arithmetic on the bits of floats, and with fewer of them."""
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("BitCast", ["a"], ["i"], to=TensorProto.INT32),
        helper.make_node("Div", ["i", "two"], ["half"]),
        helper.make_node("Sub", ["magic", "half"], ["guess"]),
        helper.make_node("BitCast", ["guess"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["y", "a"], ["z"], axis=1),
    ]
    held = [onnx.numpy_helper.from_array(np.int32(v), n) for n, v in (("two", 2), ("magic", 0x5F3759DF))]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, (7, 33))
    graph = helper.make_graph(nodes, "g", [info], [onnx.ValueInfoProto(name="z")], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=13)
    x = rng.standard_normal((7, 33)).astype(np.float32)
    got = np.asarray(tcc.compile(model, target=TARGET)({"x": x})["z"])
    guess = (np.int32(0x5F3759DF) - np.abs(x).view(np.int32) // 2).view(np.float32)
    np.testing.assert_array_equal(got, np.concatenate([guess, np.abs(x)], 1))
