# SPDX-License-Identifier: Apache-2.0
"""Bad input to the commands: one clear sentence on stderr, the right exit code, no traceback, no output file."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tcc.compiler.cli.bench import main as tcc_bench
from tcc.compiler.cli.opt import main as tcc_opt
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
    ("shape", "words"),
    [
        ("x", ("'='",)),
        ("=1x2", ("no name",)),
        ("x=", ("0 dims", "?x3x33x31")),
        ("x=1x-3x33x31", ("-3",)),
        ("x=1x3x33x31x1", ("5 dims",)),
        ("x=1x3x33x32", ("32", "31")),
        ("x=1e3x3x33x31", ("1e3",)),
        ("x=?x3x33x31", ("x", "batch")),
    ],
)
def test_odd_shapes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path, shape: str, words: tuple[str, ...]
) -> None:
    compile_refused(capsys, tmp_path, str(cnn), "--target", "cpu", "--shape", shape, words=words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--search-seconds", "nan"), ("nan",)),
        (("--search-seconds=-1",), ("-1",)),
        (("--random-seed", "x"), ("--random-seed",)),
        (("--tactics", "none.json"), ("none.json",)),
        (("--locked", "none.json"), ("none.json",)),
        (("--emit", "ptx"), ("ptx", "llvm")),
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
    target = () if "--target" in flags else ("--target", "cpu")
    compile_refused(capsys, tmp_path, str(cnn), "--shape", "x=1x3x33x31", *target, *flags, words=words)


BOUND = ("--shape", "x=1x3x33x31", "--target", "cpu")


def test_unwritable_outputs(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "none" / "e.tcc", tmp_path, tmp_path / "file" / "e.tcc"):
        for more in ((), ("--emit", "llvm")):
            assert tcc_main([str(cnn), *BOUND, *more, "-o", str(out)]) == 1
            refused(capsys, 1, "cannot write", str(out))
    assert tcc_main([str(cnn), *BOUND, "--dump-dir", str(tmp_path / "file"), "-o", str(tmp_path / "e.tcc")]) == 1
    refused(capsys, 1, "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cnn.onnx", "file"]


def test_what_is_no_file_is_written_to(tmp_path: Path, cnn: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        assert tcc_main([str(cnn), *BOUND, "-o", str(pipe)]) == 0
    assert pipe.is_fifo()
    assert tcc.load(read.result()).inputs[0].name == "x"


def test_ir_text(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    text = tmp_path / "k.mlir"
    assert tcc_main([str(cnn), *BOUND, "--compile-to=kernel", "-o", str(text)]) == 0
    whole = text.read_text()
    broken = {
        "empty": ("", ("target",)),
        "cut": (whole[: len(whole) // 2], ("broken.mlir",)),
        "op": (whole.replace("kernel.conv(", "kernel.cnv("), ("kernel.cnv",)),
        "target": (whole.replace('target = "cpu"', 'target = "moon"'), ("moon",)),
        "level": (whole.replace("opt_level = 1", 'opt_level = "x"'), ("optimisation level",)),
        "pass": (whole.replace('pipeline = "', 'pipeline = "shedule,'), ("shedule", "schedule")),
        "model": (whole.replace("cnn.onnx", "gone.onnx"), ("gone.onnx",)),
    }
    broken_path = tmp_path / "broken.mlir"
    for content, words in broken.values():
        broken_path.write_text(content)
        compile_refused(capsys, tmp_path, str(broken_path), "--compile-from=kernel", words=words)
        assert tcc_opt([str(broken_path), "--finish", "-o", str(tmp_path / "out.tcc")]) == 2
        refused(capsys, 2, *words)
    for flags, words in {
        ("--target", "sm_86"): ("sm_86", "cpu"),
        ("-O3",): ("-O", "3"),
        ("--precision", "f16"): ("f16", "f32"),
        ("--shape", "x=1x3x33x31"): ("--shape",),
        ("--compile-to=graph",): ("graph",),
    }.items():
        compile_refused(capsys, tmp_path, str(text), "--compile-from=kernel", *flags, words=words)


def test_tcc_opt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = tmp_path / "m.mlir"
    text.write_text("builtin.module() ({\n^bb0:\n}) : () -> ()\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for args, words in {
        ("none.mlir",): ("none.mlir",),
        (str(tmp_path),): (str(tmp_path),),
        (str(tmp_path / "binary"),): ("binary", "UTF-8"),
        (str(text), "-p", "fuze"): ("fuze", "fuse"),
        (str(text), "-p", "fuse{max-ops=abc}"): ("max-ops", "abc"),
        (str(text), "-p", "fuse{"): ("pipeline",),
        (str(text), "-p", "schedule{by=luck}"): ("luck",),
        (str(text), "--finish"): ("-o",),
        (str(text), "--emit", "llvm"): ("--finish",),
    }.items():
        assert tcc_opt(list(args)) == 2
        refused(capsys, 2, *words)
    assert tcc_opt([str(text), "-o", str(tmp_path / "none" / "out.mlir")]) == 1
    refused(capsys, 1, "cannot write")


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
    (tmp_path / "text").write_text("no array")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    for args, words in {
        ("--input", "x=none.npy"): ("none.npy",),
        ("--input", f"x={tmp_path / 'text'}"): ("text",),
        ("--input", f"x={tmp_path / 'object.npy'}"): ("object.npy",),
        ("--input", f"x={tmp_path}"): (str(tmp_path),),
        ("--seed", "-1"): ("--seed",),
        ("--check",): ("--model",),
        ("--frobnicate",): ("--frobnicate",),
    }.items():
        assert tcc_run([str(engine), *args]) == 2
        refused(capsys, 2, *words)
    assert tcc_run([str(engine), "-o", str(tmp_path / "none" / "y.npz")]) == 1
    refused(capsys, 1, "cannot write")
    assert tcc_run([str(engine), "--check", "--model", str(tmp_path / "text")]) == 1
    refused(capsys, 1, "ONNX Runtime")
    for args in (("--seconds", "nan"), ("--warmup", "-1"), ("--top", "0"), ("--seed", "-1")):
        assert tcc_bench([str(engine), *args]) == 2
        refused(capsys, 2, args[0])


def test_files_that_are_no_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "zip.tcc").write_bytes(b"PK\3\4 and no more")
    (tmp_path / "text.tcc").write_text("hello")
    (tmp_path / "empty.tcc").write_bytes(b"")
    for command in (tcc_run, tcc_bench):
        for name in ("zip.tcc", "text.tcc", "empty.tcc", "none.tcc"):
            code = command([str(tmp_path / name)])
            assert code == (1 if name == "zip.tcc" else 2)
            refused(capsys, code, name)
        assert command([str(tmp_path)]) == 1
        refused(capsys, 1, str(tmp_path))


def test_json_is_json(capsys: pytest.CaptureFixture[str], tmp_path: Path, cnn: Path) -> None:
    engine = str(tmp_path / "cnn.tcc")
    for command, args in (
        (tcc_main, [str(cnn), *BOUND, "--json", "-o", engine]),
        (tcc_main, [str(cnn), *BOUND, "--json", "--list-space"]),
        (tcc_run, [engine, "--json"]),
        (tcc_run, [engine, "--json", "--check", "--model", str(cnn)]),
        (tcc_bench, [engine, "--json", "--seconds", "0.01"]),
        (tcc_opt, ["--list-passes", "--json"]),
    ):
        assert command(args) == 0
        json.loads(capsys.readouterr().out)


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
