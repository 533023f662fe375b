# SPDX-License-Identifier: Apache-2.0
"""Casts to 8-bit floats that do not saturate are compiled: NaN where rounding passes the largest value."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tcc import reference
from tests.target import TARGET

TYPES = [
    (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn), (TensorProto.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
    (TensorProto.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz), (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
]  # fmt: skip


@pytest.mark.parametrize(("code", "to"), TYPES, ids=lambda t: getattr(t, "__name__", ""))
@pytest.mark.parametrize("source", [np.float32, np.float16, np.int32])
def test_without_saturation(code: int, to: type, source: type, rng: np.random.Generator):
    edges = [0, 240, 247, 248, 249, 448, 463, 464, 465, 57344, 61439, 61440, 61441, 65504]
    x = np.concatenate([edges, np.negative(edges), rng.standard_normal(40) * 300]).astype(source)
    if source is not np.int32:
        x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan], source)])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=code, saturate=0)], "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [onnx.ValueInfoProto(name="y")],
    )  # fmt: skip
    engine = tcc.compile(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), target=TARGET
    )
    got, want = engine({"x": x})["y"], reference.cast(x, to=to, saturate=0)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
    assert bool(engine.kernels) == (code != TensorProto.FLOAT8E5M2)
