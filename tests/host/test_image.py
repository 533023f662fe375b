# SPDX-License-Identifier: Apache-2.0
"""ImageDecoder: pixels of files whose size only the data say, and kernels that go on with them."""

import io
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tcc.errors import FailureError
from tests.target import TARGET


def model(form: str, size: int) -> onnx.ModelProto:
    """The image and its floats in [0, 1]."""
    nodes = [
        helper.make_node("ImageDecoder", ["x"], ["y"], "decode", pixel_format=form),
        helper.make_node("Cast", ["y"], ["f"], to=TensorProto.FLOAT), helper.make_node("Div", ["f", "c"], ["z"]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [size])
    held = [onnx.numpy_helper.from_array(np.float32(255).reshape(()), "c")]
    graph = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name=n) for n in "yz"], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def file_of(pixels: np.ndarray, kind: str) -> np.ndarray:
    pillow: Any = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    pillow.fromarray(pixels).save(stream, kind)
    return np.frombuffer(stream.getvalue(), np.uint8)


@pytest.mark.parametrize("kind", ["png", "bmp", "ppm", "tiff"])
@pytest.mark.parametrize("form", ["RGB", "BGR", "Grayscale"])
def test_pixels(kind: str, form: str, rng: np.random.Generator):
    pixels = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    data = file_of(pixels, kind)
    engine = tcc.compile(model(form, data.size), target=TARGET)
    got = engine({"x": data})
    if form == "Grayscale":
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(got["y"][:, :, 0], luma, atol=1)
    else:
        np.testing.assert_array_equal(got["y"], pixels if form == "RGB" else pixels[:, :, ::-1])
    np.testing.assert_array_equal(got["z"], got["y"].astype(np.float32) / 255)


def test_damaged_files():
    pytest.importorskip("PIL.Image")
    engine = tcc.compile(model("RGB", 8), target="cpu")
    with pytest.raises(FailureError, match=r"image_decoder' \(of decode\) .* no image that Pillow reads"):
        engine({"x": np.arange(8, dtype=np.uint8)})


def test_without_pillow(monkeypatch: pytest.MonkeyPatch):
    engine = tcc.compile(model("RGB", 8), target="cpu")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(FailureError, match=r"ImageDecoder needs Pillow; install it with pip install 'tcc\[images\]'"):
        engine({"x": np.arange(8, dtype=np.uint8)})
