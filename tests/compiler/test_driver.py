# SPDX-License-Identifier: Apache-2.0
"""The whole compiler on small models: right answers at every level, resuming from every phase, equal bytes."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import tcc
from tcc.compiler.cli.opt import main as tcc_opt
from tcc.compiler.cli.tcc import main as tcc_main
from tests.compiler import small_models
from tests.target import TARGET


def reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return {n: np.asarray(a) for n, a in zip(names, session.run(None, inputs), strict=True)}


def close(mine: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(mine) == list(right)
    for name, wanted in right.items():
        error = np.abs(mine[name].astype(np.float64) - wanted).max()
        assert error <= 1e-4 * np.abs(wanted).max(), f"{name} is off by {error}"


MODELS = {"cnn": small_models.cnn, "transformer": small_models.transformer, "branching": small_models.branching}


def inputs_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    held = {w.name for w in model.graph.initializer}
    out: dict[str, np.ndarray] = {}
    for i in model.graph.input:
        if i.name not in held:
            shape = [d.dim_value for d in i.type.tensor_type.shape.dim]
            out[i.name] = small_models.normal(seed, *shape)
    return out


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_right_at_every_level(name: str, level: int) -> None:
    model = MODELS[name]()
    engine = tcc.compile(model, target=TARGET, opt_level=level, search_seconds=0)
    for seed in range(2):
        given = inputs_of(model, seed)
        close(engine(given), reference(model, given))


def test_both_branches_run() -> None:
    model = small_models.branching()
    engine = tcc.compile(model, target=TARGET)
    x = np.abs(small_models.normal(3, 5, 7))
    for given in ({"x": x}, {"x": -x}):
        close(engine(given), reference(model, given))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MODELS)
def test_random_configs_are_right(name: str, seed: int) -> None:
    model = MODELS[name]()
    given = inputs_of(model, seed)
    engine = tcc.compile(model, target=TARGET, opt_level=3, random_seed=seed)
    close(engine(given), reference(model, given))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "cnn.onnx"
    onnx.save(small_models.cnn(), path)
    return path


def test_two_builds_are_equal(saved: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert tcc_main([str(saved), "-O1", "--target", "cpu", "-o", str(tmp_path / f"{name}.tcc")]) == 0
    assert (tmp_path / "a.tcc").read_bytes() == (tmp_path / "b.tcc").read_bytes()


def test_every_dump_resumes_to_the_same_engine(saved: Path, tmp_path: Path) -> None:
    direct = tmp_path / "direct.tcc"
    dump = tmp_path / "dump"
    assert tcc_main([str(saved), "-O1", "--target", "cpu", "-o", str(direct), "--dump-dir", str(dump)]) == 0
    files = sorted(dump.glob("*.mlir"))
    assert len(files) > 6
    for f in files:
        out = tmp_path / f"{f.stem}.tcc"
        assert tcc_opt([str(f), "--finish", "-o", str(out)]) == 0
        assert out.read_bytes() == direct.read_bytes(), f.name


@pytest.mark.parametrize("phase", ["import", "graph", "fuse", "kernel", "schedule"])
def test_compile_to_and_from_a_phase(saved: Path, tmp_path: Path, phase: str) -> None:
    direct, text, resumed = tmp_path / "direct.tcc", tmp_path / "text.mlir", tmp_path / "resumed.tcc"
    assert tcc_main([str(saved), "-O1", "--target", "cpu", "-o", str(direct)]) == 0
    assert tcc_main([str(saved), "-O1", "--target", "cpu", f"--compile-to={phase}", "-o", str(text)]) == 0
    assert tcc_main([str(text), f"--compile-from={phase}", "-o", str(resumed)]) == 0
    assert resumed.read_bytes() == direct.read_bytes()


def test_cuda_engines_without_a_gpu(saved: Path, tmp_path: Path) -> None:
    from tcc.codegen.cuda.elf import cubin_arch

    for sm in (75, 86, 90):
        out = tmp_path / f"sm{sm}.tcc"
        assert tcc_main([str(saved), "-O1", "--target", f"sm_{sm}", "-o", str(out)]) == 0
        with zipfile.ZipFile(out) as archive:
            cubins = [archive.read(name) for name in archive.namelist() if name.endswith(".cubin")]
        assert cubins
        assert {cubin_arch(c).rstrip("a") for c in cubins} == {f"sm_{sm}"}


def test_an_engine_runs_without_the_compiler(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "cnn.tcc"
    assert tcc_main([str(saved), "-O1", "--target", "cpu", "-o", str(out)]) == 0
    code = f"""
import sys, numpy as np, tcc
engine = tcc.load({str(out)!r})
engine({{"x": np.zeros((1, 3, 33, 31), np.float32)}})
rooms = ("tcc.compiler", "tcc.ir", "tcc.passes", "tcc.codegen", "onnx")
loaded = [m for m in sys.modules if m.startswith(rooms)]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
