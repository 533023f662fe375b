# SPDX-License-Identifier: Apache-2.0
"""The engine file: same bytes every time, readable by other tools, and every damage noticed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors

from tcc.compiler import engine_writer
from tcc.compiler.engine_writer import EngineContent, to_bytes, weight_offsets, write
from tcc.errors import FailureError, InputError
from tcc.runtime import container
from tcc.runtime.container import read

WEIGHTS = (
    np.arange(7, dtype=np.float32),
    np.zeros((3, 0), np.int64),
    np.arange(300).astype(ml_dtypes.bfloat16).reshape(3, 100),
    np.array(3.5),
    np.arange(5, dtype=np.complex64),
)


def small(**changes: object) -> EngineContent:
    """An engine without a program, but with files and weights of every awkward kind."""
    names = {"float32": "f32", "int64": "i64", "bfloat16": "bf16", "float64": "f64", "complex64": "c64"}
    buffers = [
        {
            "space": "weight", "name": f"w{i}", "offset": offset, "bytes": w.nbytes,
            "dtype": names[w.dtype.name], "shape": list(w.shape),
        }
        for i, (w, offset) in enumerate(zip(WEIGHTS, weight_offsets([w.nbytes for w in WEIGHTS]), strict=True))
    ]  # fmt: skip
    target = {"kind": "cpu", "name": "x86-64", "features": [], "triple": "x86_64-unknown-linux-gnu"}
    fields: dict[str, object] = {
        "model": "small", "target": target, "inputs": [], "outputs": [], "buffers": buffers, "schedule": [],
        "files": {"kernels/b.ll": b"; text", "kernels/a.o": bytes(range(200))}, "weights": WEIGHTS,
    }  # fmt: skip
    return EngineContent(**{**fields, **changes})  # type: ignore[arg-type]


def test_same_content_same_bytes() -> None:
    reordered = small(files=dict(reversed(list(small().files.items()))))
    assert to_bytes(small()) == to_bytes(small()) == to_bytes(reordered)


def test_file_and_memory_are_the_same(tmp_path: Path) -> None:
    write(small(), tmp_path / "e.tcc")
    assert (tmp_path / "e.tcc").read_bytes() == to_bytes(small())
    assert list(tmp_path.iterdir()) == [tmp_path / "e.tcc"]


def test_other_tools_read_it(tmp_path: Path) -> None:
    path = tmp_path / "e.tcc"
    write(small(), path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == ["manifest.json", "kernels/a.o", "kernels/b.ll", "weights.safetensors"]
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("manifest.json"))["format"] == 1
        tensors = dict(safetensors.deserialize(archive.read("weights.safetensors")))
    assert tensors["w0"]["data"] == WEIGHTS[0].tobytes()
    assert (tensors["w2"]["dtype"], tensors["w2"]["shape"]) == ("BF16", [3, 100])
    assert (tensors["w4"]["dtype"], tensors["w4"]["shape"]) == ("U8", [40])


@pytest.mark.parametrize("source", ["path", "bytes"])
def test_alignment(tmp_path: Path, source: str) -> None:
    path = tmp_path / "e.tcc"
    write(small(), path)
    data = read(path if source == "path" else path.read_bytes())
    assert data.weights_address % 256 == 0
    start = path.read_bytes().index(data.entry("weights.safetensors")[:64])
    assert start % 4096 == 0
    for i, weight in enumerate(WEIGHTS):
        back = data.weight(f"w{i}")
        assert back.dtype == weight.dtype
        np.testing.assert_array_equal(back, weight)
        if weight.nbytes:
            assert (back.ctypes.data - data.weights_address) == data.buffers[i]["offset"]
            assert data.buffers[i]["offset"] % 256 == 0
        assert not back.flags.writeable


def test_every_flipped_bit_is_noticed(rng: np.random.Generator) -> None:
    good = to_bytes(small())
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(FailureError) as caught:
            read(bad)
        assert "\n" not in str(caught.value)


def test_every_truncation_is_noticed() -> None:
    good = to_bytes(small())
    for size in range(0, len(good), 7):
        with pytest.raises(FailureError):
            read(good[:size])
    with pytest.raises(FailureError):
        read(good + b"\0")


def test_damage_names_the_entry(tmp_path: Path) -> None:
    good = bytearray(to_bytes(small()))
    good[good.index(b"; text")] ^= 1
    path = tmp_path / "bad.tcc"
    path.write_bytes(good)
    with pytest.raises(FailureError, match=r"bad\.tcc' is damaged: the entry 'kernels/b\.ll' does not match its hash"):
        read(path)


def test_newer_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_writer, "FORMAT", 2)
    with pytest.raises(FailureError, match=r"has format 2 and this tcc reads up to 1: update tcc"):
        read(to_bytes(small()))


def test_not_an_engine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the engine '.*nothing\.tcc': No such file"):
        read(tmp_path / "nothing.tcc")
    (tmp_path / "text.tcc").write_text("hello")
    with pytest.raises(FailureError, match="is not a tcc engine"):
        read(tmp_path / "text.tcc")
    (tmp_path / "empty.tcc").touch()
    with pytest.raises(FailureError, match="is empty"):
        read(tmp_path / "empty.tcc")
    with zipfile.ZipFile(tmp_path / "other.tcc", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(FailureError, match="zip archive but not a tcc engine"):
        read(tmp_path / "other.tcc")


def test_unknown_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a newer writer might leave them without a newer format number."""
    monkeypatch.setattr(engine_writer, "check_content", lambda content: None)
    with pytest.raises(FailureError, match="schedule op 'teleport'"):
        read(to_bytes(small(schedule=[{"op": "teleport"}])))
    with pytest.raises(FailureError, match="schedule op 'launch'"):
        read(to_bytes(small(schedule=[{"op": "launch", "kernel": "k"}])))
    buffer = {"space": "attic", "bytes": 4, "dtype": "f32", "shape": [1]}
    with pytest.raises(FailureError, match="memory space 'attic'"):
        read(to_bytes(small(buffers=[buffer])))
    with pytest.raises(FailureError, match="element type 'f31'"):
        read(to_bytes(small(buffers=[{**buffer, "space": "arena", "dtype": "f31"}])))
    with pytest.raises(FailureError, match="pow"):
        read(to_bytes(small(buffers=[{**buffer, "space": "arena", "bytes": ["pow", 2, "n"]}])))


def test_sizes_beyond_four_gigabytes_use_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_writer, "_ZIP64_FROM", 100)
    write(small(), tmp_path / "e.tcc")
    with zipfile.ZipFile(tmp_path / "e.tcc") as archive:
        assert archive.testzip() is None
    data = read(tmp_path / "e.tcc")
    np.testing.assert_array_equal(data.weight("w2"), WEIGHTS[2])
    assert data.weights_address % 256 == 0


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match="cannot write"):
        write(small(), tmp_path / "no" / "e.tcc")
    buffers = [{**small().buffers[0], "offset": 1}]
    path = tmp_path / "e.tcc"
    path.write_text("before")
    with pytest.raises(ValueError, match="another offset"):
        write(small(buffers=buffers), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_save_gives_the_same_file(tmp_path: Path) -> None:
    write(small(), tmp_path / "a.tcc")
    read(tmp_path / "a.tcc").save(tmp_path / "b.tcc")
    assert (tmp_path / "a.tcc").read_bytes() == (tmp_path / "b.tcc").read_bytes()


def test_reading_needs_no_compiler(tmp_path: Path) -> None:
    write(small(), tmp_path / "a.tcc")
    script = (
        "import sys; from tcc.runtime.container import read; read(sys.argv[1]);"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('onnx', 'llvmlite', 'lark', 'networkx')"
        " or m.startswith(('tcc.ir', 'tcc.compiler', 'tcc.passes', 'tcc.codegen'))]; assert not bad, bad"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.tcc")], check=True, cwd=Path(container.__file__).parents[2]
    )
