# SPDX-License-Identifier: Apache-2.0
"""Models with extents that data decide: what follows them is compiled too, and right for every extent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tcc
from tcc.compiler.cli.opt import main as tcc_opt
from tcc.compiler.cli.tcc import main as tcc_main
from tcc.errors import FailureError
from tests.compiler.dynamic_models import MODELS
from tests.compiler.test_driver import reference
from tests.target import TARGET


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_right_for_every_extent(name: str, level: int) -> None:
    made = MODELS[name]()
    engine = tcc.compile(made.model, target=TARGET, opt_level=level)
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


def test_operands_that_do_not_fit_are_refused() -> None:
    made = MODELS["ranges"]()
    engine = tcc.compile(made.model, target=TARGET)
    given = made.inputs[0] | {"lengths": np.array([5, 5, 1], np.int64)}
    engine(given)
    with pytest.raises(FailureError, match="do not fit: an extent comes out as -3"):
        engine(given | {"lengths": np.array([-5, -3, -4], np.int64)})


def test_a_shape_of_another_size_is_refused() -> None:
    nodes = [
        helper.make_node("Compress", ["x", "keep"], ["rows"], "pick", axis=0),
        helper.make_node("ReduceMax", ["sizes"], ["most"], "most", keepdims=1),
        helper.make_node("Concat", ["most", "two"], ["shape"], "shape", axis=0),
        helper.make_node("Reshape", ["rows", "shape"], ["y0"], "arrange"),
        helper.make_node("Exp", ["y0"], ["y"], "exp"),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("x", 1, [6, 4]), info("keep", 9, [6]), info("sizes", 7, [2])]
    weights = [numpy_helper.from_array(np.array([2], np.int64), "two")]
    graph = helper.make_graph(nodes, "g", inputs, [info("y", 1, None)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = tcc.compile(model, target=TARGET)
    x, keep = np.ones((6, 4), np.float32), np.arange(6) < 3
    assert engine({"x": x, "keep": keep, "sizes": np.array([6, 1], np.int64)})["y"].shape == (6, 2)
    with pytest.raises(FailureError, match="the operands of arrange do not fit"):
        engine({"x": x, "keep": keep, "sizes": np.array([7, 1], np.int64)})


def test_what_is_found_twice_is_looked_for_once() -> None:
    """Two NonZero of one tensor have extents that are known to be equal."""
    nodes = [helper.make_node("NonZero", ["x"], [f"p{i}"], f"find{i}") for i in range(2)]
    nodes += [
        helper.make_node("Cast", ["p0"], ["a"], "left", to=1),
        helper.make_node("Cast", ["p1"], ["b"], "right", to=1),
        helper.make_node("Exp", ["b"], ["e"], "exp"),
        helper.make_node("Transpose", ["e"], ["t"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["y"], "product"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", 1, [5, 4])], [info("y", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = tcc.compile(model, target=TARGET)
    assert len([r for r in engine.report if r["kind"] == "host-op"]) <= 1
    x = np.random.default_rng(0).integers(0, 2, (5, 4)).astype(np.float32)
    a = np.stack(np.nonzero(x)).astype(np.float32)
    np.testing.assert_allclose(engine({"x": x})["y"], a @ np.exp(a).T, rtol=1e-5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_random_configs_are_right(name: str, seed: int) -> None:
    made = MODELS[name]()
    engine = tcc.compile(made.model, target=TARGET, opt_level=3, random_seed=seed)
    for given in made.inputs:
        got, right = engine(given), reference(made.model, given)
        for key, wanted in right.items():
            np.testing.assert_allclose(got[key], wanted, rtol=1e-4, atol=1e-5, err_msg=key)
