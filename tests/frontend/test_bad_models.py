# SPDX-License-Identifier: Apache-2.0
"""Models that cannot be imported: one sentence each, that names what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tcc.compiler.frontend import import_onnx, read_constants
from tcc.compiler.interpret import interpret
from tcc.errors import InputError

F = TensorProto.FLOAT
node = helper.make_node


def make(nodes: list[onnx.NodeProto], outputs: list[str], opset: int = 21) -> onnx.ModelProto:
    """A model of x [2, 3] f32."""
    g = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", F, (2, 3))],
                          [onnx.ValueInfoProto(name=o) for o in outputs])  # fmt: skip
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def report(source: object) -> str:
    with pytest.raises(InputError) as error:
        import_onnx(source)  # type: ignore[arg-type]
    return str(error.value)


def refusal(source: object) -> str:
    text = report(source)
    assert "\n" not in text
    return text


def test_files_that_are_no_models(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "absent.onnx")
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    assert "is empty" in refusal(empty)
    for content in (b"\x89PNG\r\n\x1a\n" + bytes(100), b"not a model at all", os.urandom(64), b"{}"):
        path = tmp_path / "other.onnx"
        path.write_bytes(content)
        assert "ONNX" in refusal(path)


def test_truncated_models(tmp_path: Path) -> None:
    model = make([node("Add", ["x", "w"], ["y"])], ["y"])
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3, dtype=np.float32), "w"))
    data = model.SerializeToString()
    path = tmp_path / "m.onnx"
    for cut in range(1, len(data) - 1):
        path.write_bytes(data[:cut])
        try:
            import_onnx(path)
        except InputError as error:
            assert str(error)


def test_unknown_operators_are_reported_all_at_once() -> None:
    inner = helper.make_graph([node("Inside", ["x"], ["t"], name="deep")], "t", [], [onnx.ValueInfoProto(name="t")])
    nodes = [
        node("Frobnicate", ["x"], ["a"], name="first"),
        node("Relu", ["a"], ["b"]),
        node("Gadget", ["b"], ["c"], domain="com.example"),
        node("If", ["flag"], ["d"], then_branch=inner, else_branch=inner, name="choose"),
    ]
    text = report(make(nodes, ["c"], 17))
    assert [line.strip() for line in text.splitlines()] == [
        "the model has 4 things that tcc cannot import:",
        '1. node "first" (Frobnicate): tcc has no import for Frobnicate of ai.onnx, opset 17',
        '2. node "Gadget_2" (Gadget): the domain com.example has no opset in the model',
        '3. node "choose" (If) reads "flag", which nothing produces',
        '4. node "choose/deep" (Inside): tcc has no import for Inside of ai.onnx, opset 17',
    ]


def test_opsets_outside_the_range() -> None:
    assert "is of opset 99" in refusal(make([node("Relu", ["x"], ["y"])], ["y"], 99))


def test_broken_graphs() -> None:
    assert '"Relu_0" (Relu) reads "absent", which nothing produces' in refusal(
        make([node("Relu", ["absent"], ["y"])], ["y"])
    )
    assert 'output "z" is not produced' in refusal(make([node("Relu", ["x"], ["y"])], ["z"]))
    assert "depends on its own result" in refusal(
        make([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], ["b"])
    )
    assert 'produces "y", which the graph already has' in refusal(
        make([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], ["y"])
    )


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [node("Reshape", ["x", "s"], ["y"], name="r")],
            'node "r" (Reshape): its input 1 ("s", shape)',
        ),
        ([node("MatMul", ["x", "x"], ["y"], name="m")], 'graph.matmul at "m": tensor<2x3xf32> and tensor<2x3xf32>'),
        ([node("Softmax", ["x"], ["y"], axis=5, name="s")], "its axis 5 is outside [-2, 1]"),
        ([node("Concat", ["x", "x"], ["y"], name="c")], "its attribute axis is missing"),
        ([node("Cast", ["x"], ["y"], to=14, name="c")], "COMPLEX64, which tcc does not have"),
        ([node("Add", ["x"], ["y"], name="a")], "its input 1 is missing"),
        ([node("Conv", ["x", "x"], ["y"], name="c")], "at least 3"),
        ([node("Transpose", ["x"], ["y"], perm=[0, 0], name="t")], "no permutation"),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[9], name="p")], "which a window of [9] does not fit"),
        ([node("Not", ["x"], ["y"], name="n")], "it takes bool elements, not float"),
        ([node("Dropout", ["x"], ["y", "m", "extra"], name="d")], "does not give its output(s) extra"),
    ],
)
def test_nodes_that_do_not_fit(nodes: list[onnx.NodeProto], message: str) -> None:
    model = make(nodes, ["y"])
    if any("s" in n.input for n in nodes):
        model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, (2,)))
    assert message in refusal(model)


def test_damaged_initialisers() -> None:
    model = make([node("Add", ["x", "w"], ["y"])], ["y"])
    w = numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")
    w.raw_data = w.raw_data[:-1]
    model.graph.initializer.append(w)
    assert '"w" has 11 bytes where the shape [3] needs 12' in refusal(model)
    w.ClearField("raw_data")
    w.float_data.extend([1.0])
    model.graph.initializer[0].CopyFrom(w)
    assert '"w"' in refusal(model)
    w.dims[0] = -3
    model.graph.initializer[0].CopyFrom(w)
    assert "negative extent" in refusal(model)
    w.data_type = 99
    model.graph.initializer[0].CopyFrom(w)
    assert "element type 99" in refusal(model)


def external(folder: Path, location: str, **fields: str) -> Path:
    """A model whose w is [3] f32 in another file."""
    model = make([node("Add", ["x", "w"], ["y"])], ["y"])
    w = TensorProto(name="w", data_type=F, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **fields}.items():
        w.external_data.add(key=key, value=value)
    model.graph.initializer.append(w)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_from_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"skip" + np.float32([1, 2, 3]).tobytes() + b"tail")
    path = external(tmp_path, "sub/w.bin", offset="4", length="12")
    got = interpret(import_onnx(path), [np.zeros((2, 3), np.float32)])["y"]
    np.testing.assert_array_equal(got, [[1, 2, 3], [1, 2, 3]])
    assert "not its bytes" in refusal(path.read_bytes())


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.float32([1, 2, 3]).tobytes())
    for location in ("../secret.bin", str(secret), "sub/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", ""):
        assert "not inside the model's folder" in refusal(external(inside, location))
    (inside / "link.bin").symlink_to(secret)
    assert "symbolic link" in refusal(external(inside, "link.bin"))
    (inside / "up").symlink_to(tmp_path)
    assert "symbolic link" in refusal(external(inside, "up/secret.bin"))
    os.link(secret, inside / "hard.bin")
    assert "hard links" in refusal(external(inside, "hard.bin"))
    os.mkfifo(inside / "pipe")
    assert "no regular file" in refusal(external(inside, "pipe"))


def test_external_data_that_is_short_or_gone(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(external(tmp_path, "w.bin"))
    (tmp_path / "w.bin").write_bytes(bytes(8))
    assert "has 8 bytes where the shape [3] needs 12" in refusal(external(tmp_path, "w.bin"))
    assert "needs bytes 4 to 16" in refusal(external(tmp_path, "w.bin", offset="4", length="12"))
    assert "no number" in refusal(external(tmp_path, "w.bin", offset="many"))
    assert "needs bytes" in refusal(external(tmp_path, "w.bin", offset="-4", length="12"))


def test_constants_of_a_model_are_found_without_importing_it() -> None:
    model = make([node("Frobnicate", ["x", "w"], ["y"]),
                  node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([7])))], ["y"])  # fmt: skip
    w = np.arange(3, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    store = read_constants(model)
    for array in (w, np.float32([7])):
        assert store.add(array) in store


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_bytes_are_an_input_error_or_another_model(rng: np.random.Generator) -> None:
    """Models with a few bytes changed, gone or new: nothing but InputError may come out."""
    inner = helper.make_graph([node("Relu", ["x"], ["t"], name="deep")], "t", [], [onnx.ValueInfoProto(name="t")])
    nodes = [
        node("Conv", ["p", "k"], ["a"], strides=[2], pads=[1, 1], name="conv"),
        node("Reshape", ["a", "s"], ["b"], name="reshape"),
        node("Softmax", ["b"], ["c"], axis=-1),
        node("Unsqueeze", ["x", "axes"], ["p"]),
        node("If", ["flag"], ["d"], then_branch=inner, else_branch=inner),
        node("Gelu", ["c"], ["y"], approximate="tanh"),
    ]
    model = make(nodes, ["y", "d"])
    for name, array in {
        "k": np.ones((4, 2, 3), np.float32), "s": np.int64([0, -1]), "axes": np.int64([0]), "flag": np.array(True),
    }.items():  # fmt: skip
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    whole = model.SerializeToString()
    import_onnx(whole)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            at, kind = int(rng.integers(len(data))), rng.random()
            if kind < 0.6:
                data[at] = int(rng.integers(256))
            elif kind < 0.8:
                del data[at : at + int(rng.integers(1, 4))]
            else:
                data[at:at] = bytes([int(rng.integers(256))])
        try:
            import_onnx(bytes(data))
        except InputError:
            continue


def test_attributes_of_another_type_are_refused() -> None:
    relu = node("LeakyRelu", ["x"], ["y"], alpha=1, name="n")
    assert "its attribute alpha is of type INT, and FLOAT is needed" in refusal(make([relu], ["y"]))
