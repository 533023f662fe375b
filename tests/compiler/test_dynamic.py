# SPDX-License-Identifier: Apache-2.0
"""Models with extents that data decide: what follows them is compiled too, and right for every extent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tcc
from tcc.compiler.cli.opt import main as tcc_opt
from tcc.compiler.cli.tcc import main as tcc_main
from tests.compiler.dynamic_models import MODELS
from tests.compiler.test_driver import reference


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_right_for_every_extent(name: str, level: int) -> None:
    made = MODELS[name]()
    engine = tcc.compile(made.model, target="cpu", opt_level=level)
    assert engine.kernels
    for given in made.inputs:
        got, right = engine(given), reference(made.model, given)
        for key, wanted in right.items():
            assert got[key].shape == wanted.shape, key
            np.testing.assert_allclose(got[key], wanted, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_every_dump_resumes_to_the_same_engine(name: str, tmp_path: Path) -> None:
    path, direct, dump = tmp_path / "m.onnx", tmp_path / "direct.tcc", tmp_path / "dump"
    onnx.save(MODELS[name]().model, path)
    assert tcc_main([str(path), "-O1", "--target", "cpu", "-o", str(direct), "--dump-dir", str(dump)]) == 0
    for f in sorted(dump.glob("*.mlir")):
        out = tmp_path / f"{f.stem}.tcc"
        assert tcc_opt([str(f), "--finish", "-o", str(out)]) == 0
        assert out.read_bytes() == direct.read_bytes(), f.name


@pytest.mark.parametrize("name", MODELS)
def test_cuda_engines_build(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.tcc"
    onnx.save(MODELS[name]().model, path)
    assert tcc_main([str(path), "-O1", "--target", "sm_86", "-o", str(out)]) == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_random_configs_are_right(name: str, seed: int) -> None:
    made = MODELS[name]()
    engine = tcc.compile(made.model, target="cpu", opt_level=3, random_seed=seed)
    for given in made.inputs:
        got, right = engine(given), reference(made.model, given)
        for key, wanted in right.items():
            np.testing.assert_allclose(got[key], wanted, rtol=1e-4, atol=1e-5, err_msg=key)
