# SPDX-License-Identifier: Apache-2.0
"""The zoo's models load and give what they should under ONNX Runtime, pictures and file bytes prepared right."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import answers, weightless, zoo
from benchmarks.image import SIGNATURE, read_png, resize


def run(name: str, seed: int = 0, batch: int = 1) -> list[np.ndarray]:
    session = ort.InferenceSession(zoo.load(name).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, zoo.inputs(name, seed, batch))


def test_the_list_is_complete():
    kinds = [entry.kind for entry in zoo.models()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"pretrained": 6, "light": 9, "stock": 9, "exported": 4}


@pytest.mark.parametrize("name", [entry.name for entry in zoo.models(more=True)])
def test_shapes_and_inputs_agree_with_the_graph(name: str):
    graph = zoo.weightless(name).graph
    held = {each.name for each in graph.initializer} | set(weightless.weight_names(zoo.weightless(name)) or [])
    declared = {value.name: value.type.tensor_type for value in graph.input if value.name not in held}
    inputs = zoo.inputs(name)
    for each, shape in zoo.shapes(name).items():
        assert inputs[each].shape == shape
        assert helper.np_dtype_to_tensor_dtype(inputs[each].dtype) == declared[each].elem_type
        for size, dim in zip(shape, declared[each].shape.dim, strict=True):
            assert dim.dim_value in (size, 0, -1)
    packed = json.loads(weightless.metadata(zoo.weightless(name), weightless.PACKED) or "{}")
    assert set(declared) == set(inputs) | set(packed)


def test_the_lines_of_the_picture_are_read():
    session = ort.InferenceSession(zoo.load("ppocr_rec").SerializeToString(), providers=["CPUExecutionProvider"])
    for number, (_, written) in enumerate(zoo.LINES):
        said, confidence = answers.text(session.run(None, zoo.inputs("ppocr_rec", number))[0])
        assert said.split() == written.split() and confidence > 0.9


def test_upside_down_lines_are_noticed():
    session = ort.InferenceSession(zoo.load("ppocr_cls").SerializeToString(), providers=["CPUExecutionProvider"])
    said = [answers.upside_down(session.run(None, zoo.inputs("ppocr_cls", number))[0])[0] for number in range(4)]
    assert said == [False, True, False, True]


@pytest.mark.parametrize("name", ["ppocr_det_320x320", "ppocr_det_480x640", "ppocr_det_352x736"])
def test_text_is_found_where_it_is(name: str):
    (height, width), found = zoo.model(name).size, answers.lines_found(run(name)[0])
    assert len(found) == len(zoo.LINES)
    for (top, bottom, left, right), ((above, below, start, end), _) in zip(found, zoo.LINES, strict=True):
        assert above <= top * 480 / height < bottom * 480 / height <= below
        assert start <= left * 640 / width < right * 640 / width <= end


def test_files_are_told_apart():
    session = ort.InferenceSession(zoo.load("magika").SerializeToString(), providers=["CPUExecutionProvider"])
    for number, (_, label) in enumerate(zoo.FILES):
        assert answers.file_type(session.run(None, zoo.inputs("magika", number))[0])[0] == label


def test_short_content_is_padded_between():
    bytes_in = zoo.magika_bytes(b"  \n#!/bin/sh\n")
    assert bytes_in.shape == (2048,)
    assert bytes_in[:9].tolist() == list(b"#!/bin/sh") and (bytes_in[10:1024] == 256).all()
    assert bytes_in[-9:].tolist() == list(b"#!/bin/sh") and (bytes_in[1024:-12] == 256).all()


@pytest.mark.parametrize("name", ["light_squeezenet_stock", "light_shufflenet_stock"])
def test_stock_models_give_constants(name: str):
    assert np.ptp(run(name)[0]) < 1e-6  # why the seeded ones exist


def test_a_batch_where_it_is_free():
    assert run("mobilenetv3_large_100", batch=3)[0].shape == (3, 1000)
    with pytest.raises(ValueError, match="fixed batch of 1, not 3"):
        zoo.inputs("light_vgg19", batch=3)


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match="no model 'resnet51'"):
        zoo.load("resnet51")


def test_strip_and_unpack_are_inverse(rng: np.random.Generator):
    arrays = {"w": rng.standard_normal((8, 16)), "table": np.arange(300), "axis": np.array([1]), "mask": np.eye(16) > 0}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m", doc_string="long")]
    tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 16])],
        tensors,
    )
    small = weightless.strip(helper.make_model(graph), {"w"})
    onnx.checker.check_model(small)
    assert weightless.weight_names(small) == ["w"]
    assert [each.name for each in small.graph.initializer] == ["axis"]
    assert [each.name for each in small.graph.input] == ["x", "w", "table", "mask"]
    weightless.unpack(small)
    assert [each.name for each in small.graph.input] == ["x", "w"]
    back = {each.name: numpy_helper.to_array(each) for each in small.graph.initializer}
    assert all(np.array_equal(back[name], arrays[name]) for name in ("table", "axis", "mask"))


def paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))


@pytest.mark.parametrize("kind", range(5))
def test_every_png_filter_is_undone(kind: int, rng: np.random.Generator, tmp_path: Path):
    picture = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    lines = picture.reshape(7, 15).astype(int)
    body = bytearray()
    for row in range(7):
        body.append(kind)
        for column in range(15):
            left = lines[row, column - 3] if column >= 3 else 0
            up = lines[row - 1, column] if row else 0
            corner = lines[row - 1, column - 3] if row and column >= 3 else 0
            guess = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
            body.append(int(lines[row, column] - guess) % 256)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 5, 7, 8, 2, 0, 0, 0)
    path = tmp_path / "p.png"
    path.write_bytes(
        SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(body))) + chunk(b"IEND", b"")
    )
    assert np.array_equal(read_png(path), picture)


def test_resize_is_bilinear_between_centres():
    ramp = np.arange(4, dtype=np.uint8).reshape(1, 4, 1) * 10
    assert resize(ramp, 1, 2)[0, :, 0].tolist() == [5, 25]
    assert resize(ramp, 1, 8)[0, :, 0].tolist() == [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30]
    assert resize(ramp, 3, 4).shape == (3, 4, 1)
