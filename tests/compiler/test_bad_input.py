# SPDX-License-Identifier: Apache-2.0
"""Bad input to the commands: one clear sentence on stderr, the right exit code, no traceback, no output file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tcc.compiler.cli.run import main as tcc_run
from tcc.compiler.cli.tcc import main as tcc_main
from tests.compiler import small_models


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    path = tmp_path / "cnn.onnx"
    onnx.save(small_models.cnn("batch"), path)
    return path


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> None:
    """The last command ended in one sentence with all the words."""
    err = capsys.readouterr().err
    assert code in (1, 2)
    assert "Traceback" not in err
    assert len([line for line in err.strip().splitlines() if ": error: " in line]) == 1, err
    for word in words:
        assert word in err, err


def compile_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *args: str, words: tuple[str, ...], code: int = 2
) -> None:
    out = tmp_path / "out.tcc"
    assert tcc_main([*args, "-o", str(out)]) == code
    refused(capsys, code, *words)
    assert not list(tmp_path.glob("*out.tcc*"))


def test_no_onnx(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is a letter, not a model")
    compile_refused(capsys, tmp_path, str(path), words=("text.onnx",))


def test_missing_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    compile_refused(capsys, tmp_path, str(tmp_path / "none.onnx"), words=("none.onnx",))


def test_truncated(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    data = cnn.read_bytes()
    cnn.write_bytes(data[: len(data) // 2])
    compile_refused(capsys, tmp_path, str(cnn), "--shape", "x=1x3x33x31", words=("cnn.onnx",))


def test_unknown_ops_are_named_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "fine"),
        helper.make_node("Quux", ["b"], ["y"], "second", domain="org.example"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [2])], [value("y", TensorProto.FLOAT, [2])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    path = tmp_path / "odd.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())
    compile_refused(capsys, tmp_path, str(path), words=("Frobnicate", "first", "Quux", "second", "17"))


def test_missing_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    compile_refused(capsys, tmp_path, str(cnn), "--target", "cpu", words=("x", "--shape"))


def test_unknown_shape_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    compile_refused(capsys, tmp_path, str(cnn), "--shape", "z=1x3x33x31", words=("z",))


def test_malformed_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    compile_refused(capsys, tmp_path, str(cnn), "--shape", "x=1,3", words=("--shape",))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--target", "sm_87"), ("sm_87", "sm_86")),
        (("--target", "pentium"), ("pentium",)),
        (("-O", "7"), ("7",)),
        (("--precision", "f8"), ("f8", "f16")),
        (("--frobnicate",), ("--frobnicate",)),
        (("--print-ir-after=fuze",), ("fuze", "fuse")),
        (("--compile-to=moon",), ("moon",)),
    ],
)
def test_unknown_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    compile_refused(capsys, tmp_path, str(cnn), "--shape", "x=1x3x33x31", *flags, words=words)


def test_wrong_inputs_at_run_time(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    engine = tmp_path / "cnn.tcc"
    assert tcc_main([str(cnn), "--shape", "x=1x3x33x31", "--target", "cpu", "-o", str(engine)]) == 0
    capsys.readouterr()
    cases = {
        "shape": (np.zeros((1, 3, 33, 30), np.float32), ("33", "30", "31")),
        "dtype": (np.zeros((1, 3, 33, 31), np.float64), ("f64", "f32")),
    }
    for name, (array, words) in cases.items():
        path = tmp_path / f"{name}.npy"
        np.save(path, array)
        assert tcc_run([str(engine), "--input", f"x={path}"]) == 2
        refused(capsys, 2, *words)
    assert tcc_run([str(engine), "--input", f"nope={path}"]) == 2
    refused(capsys, 2, "nope", "x")


def test_a_damaged_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    engine = tmp_path / "cnn.tcc"
    assert tcc_main([str(cnn), "--shape", "x=1x3x33x31", "--target", "cpu", "-o", str(engine)]) == 0
    data = bytearray(engine.read_bytes())
    capsys.readouterr()
    for name, bad in (
        ("cut", data[: len(data) // 2]),
        ("flipped", data[:-4000] + bytes([data[-4000] ^ 1]) + data[-3999:]),
    ):
        path = tmp_path / f"{name}.tcc"
        path.write_bytes(bytes(bad))
        assert tcc_run([str(path)]) == 1
        refused(capsys, 1, name)


def test_an_engine_for_a_gpu_that_is_not_here(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    from tcc.runtime.cuda.device import devices

    if devices():
        pytest.skip("there is a GPU here")
    engine = tmp_path / "gpu.tcc"
    assert tcc_main([str(cnn), "--shape", "x=1x3x33x31", "--target", "sm_86", "-o", str(engine)]) == 0
    capsys.readouterr()
    assert tcc_run([str(engine)]) == 1
    refused(capsys, 1, "GPU")
