# SPDX-License-Identifier: Apache-2.0
"""Engines that compile for the shapes, and for the values that decide shapes, of each call."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.compiler import specialising
from tcc.errors import InputError
from tcc.runtime.engine import Engine
from tcc.runtime.specialise import SpecialisingEngine
from tests.target import TARGET

F, I = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node
Dims = list[int | str]


def make(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, Dims]], weights: dict[str, Any] | None = None
) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(n, t, d) for n, (t, d) in inputs.items()]
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name="y")], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def engine_of(model: onnx.ModelProto, **options: Any) -> SpecialisingEngine:
    engine = tcc.compile(model, TARGET, **options)
    assert isinstance(engine, SpecialisingEngine)
    return engine


def affine(n: str = "n") -> onnx.ModelProto:
    """y = x · w + b, x [n, 5]."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(5, 7)).astype(np.float32), "b": rng.normal(size=7).astype(np.float32)}
    return make([node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"])], {"x": (F, [n, 5])}, weights)


def affine_of(x: np.ndarray) -> np.ndarray:
    held = {t.name: numpy_helper.to_array(t) for t in affine().graph.initializer}
    return x @ held["w"] + held["b"]


def test_a_new_shape_makes_a_new_engine_once() -> None:
    engine = engine_of(affine())
    assert "n,5" in str(engine) and not engine.engines
    for n in (3, 1, 3, 0, 1):
        x = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
        np.testing.assert_allclose(engine(x)["y"], affine_of(x), rtol=1e-5)
    assert len(engine.engines) == 3
    bound = engine.bind([np.ones((3, 5), np.float32)])
    np.testing.assert_allclose(bound()["y"], affine_of(np.ones((3, 5), np.float32)), rtol=1e-5)
    assert engine.profile({"x": np.ones((3, 5), np.float32)})
    assert len(engine.engines) == 3 and engine.kernels
    engine.close()
    assert not engine.engines


def test_the_cache_is_bounded_and_the_least_recently_used_goes() -> None:
    engine = engine_of(affine(), specialisations=2)
    one, two = (engine.prepare({"x": (n, 5)}) for n in (1, 2))
    engine(np.zeros((1, 5), np.float32))
    engine(np.zeros((3, 5), np.float32))
    assert one in engine.engines and two not in engine.engines and len(engine.engines) == 2
    np.testing.assert_array_equal(two(np.zeros((2, 5), np.float32))["y"], affine_of(np.zeros((2, 5), np.float32)))
    with pytest.raises(InputError, match="at least 1"):
        tcc.compile(affine(), TARGET, specialisations=0)


def test_shapes_told_ahead(tmp_path: Path) -> None:
    engine = engine_of(affine(), shapes=[{"x": (1, 5)}, {"x": (4, 5)}])
    assert [e.inputs[0].shape for e in engine.engines] == [(1, 5), (4, 5)]
    special = engine.prepare({"x": (4, 5)})
    assert isinstance(special, Engine) and len(engine.engines) == 2
    special.save(tmp_path / "four.tcc")
    x = np.ones((4, 5), np.float32)
    loaded = tcc.load(tmp_path / "four.tcc")
    np.testing.assert_array_equal(loaded(x)["y"], special(x)["y"])
    with pytest.raises(InputError, match="compile one for this shape"):
        loaded(x[:2])
    with pytest.raises(InputError, match="a file holds one: save what its prepare"):
        engine.save(tmp_path / "all.tcc")
    for shapes, message in (
        ({}, r"the input x: f32\[n,5\] is not given"),
        ({"x": (4, 6)}, "has the shape 4x6 and the engine takes nx5"),
        ({"z": (4, 6)}, "no input 'z'"),
    ):
        with pytest.raises(InputError, match=message):
            engine.prepare(shapes)


def test_inputs_that_do_not_fit_are_refused_before_anything_is_compiled() -> None:
    model = make([node("Add", ["x", "z"], ["y"])], {"x": (F, ["n", 3]), "z": (F, ["n", 3])})
    engine = engine_of(model)
    x = np.zeros((2, 3), np.float32)
    for inputs, message in (
        ([x, x[:1]], "the dim n of the input 'z' is 1 and that of 'x' is 2"),
        ([x, x[0]], "'z' has the shape 3 and the engine takes nx3"),
        ([x, x.astype(np.float64)], "'z' is f64 and the engine takes f32"),
        ([x], "1 inputs are given"),
        ({"x": x, "q": x}, "no input 'q'"),
    ):
        with pytest.raises(InputError, match=message):
            engine.run(inputs)
    assert not engine.engines


def test_values_are_read_only_where_they_decide() -> None:
    """The sum of `t` is computed from every call's `t`; only the shape is fixed by it."""
    nodes = [
        node("Shape", ["x"], ["n"], end=1),
        node("Concat", ["n", "t"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["r"]),
        node("Cast", ["t"], ["f"], to=F),
        node("ReduceSum", ["f"], ["s"], keepdims=0),
        node("Mul", ["r", "k"], ["m"]),
        node("Add", ["m", "s"], ["y"]),
    ]
    engine = engine_of(make(nodes, {"x": (F, ["n", 6]), "t": (I, [2]), "k": (F, [1])}))
    for n, t, k in ((2, (2, 3), 1), (2, (3, 2), 1), (2, (2, 3), 5), (4, (6, 1), 2)):
        x = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
        y = engine(x, np.array(t), np.array([k], np.float32))["y"]
        np.testing.assert_allclose(y, x.reshape(n, *t) * np.float32(k) + sum(t), rtol=1e-6)
    assert len(engine.engines) == 3  # a new k makes none
    assert [spec.name for spec in engine.engines[0].inputs] == ["x", "t", "k"]
    assert engine.prepare({"x": (2, 6)}, {"t": np.array([2, 3]), "k": np.zeros(1, np.float32)}) in engine.engines
    with pytest.raises(InputError, match="the value of the input 't' decides a shape"):
        engine.prepare({"x": (2, 6), "t": (2,), "k": (1,)})
    with pytest.raises(InputError, match="2x6 does not reshape to 2x5x1"):
        engine(np.zeros((2, 6), np.float32), np.array([5, 1]), np.ones(1, np.float32))


ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)


@pytest.mark.parametrize(
    ("nodes", "values", "expected"),
    [
        ([node("Slice", ["x", "a", "b", "c"], ["y"])], [[1], [5], [1]], ROWS[:, 1:5]),
        ([node("ReduceSum", ["x", "a"], ["y"], keepdims=0)], [[1]], ROWS.sum(1)),
        ([node("Expand", ["x", "a"], ["y"])], [[3, 1, 1]], np.broadcast_to(ROWS, (3, 2, 6))),
        ([node("Tile", ["x", "a"], ["y"])], [[2, 1]], np.tile(ROWS, (2, 1))),
        ([node("Pad", ["x", "a"], ["y"])], [[0, 1, 0, 2]], np.pad(ROWS, ((0, 0), (1, 2)))),
        ([node("TopK", ["x", "a"], ["y", "i"])], [[2]], ROWS[:, :3:-1]),
        ([node("Unsqueeze", ["x", "a"], ["y"])], [[1]], ROWS[:, None]),
        ([node("Split", ["x", "a"], ["y", "z"], axis=1)], [[2, 4]], ROWS[:, :2]),
        ([node("Cast", ["x"], ["i"], to=I), node("OneHot", ["i", "a", "b"], ["y"])], [[12], [0, 1]],
         (ROWS[..., None] == np.arange(12)).astype(np.int64)),
        ([node("Unsqueeze", ["x", "p"], ["u"]), node("Resize", ["u", "", "", "a"], ["y"], mode="nearest")],
         [[1, 1, 2, 12]], ROWS.repeat(2, -1)[None, None]),
        ([node("ConstantOfShape", ["a"], ["z"]), node("Sub", ["z", "x"], ["y"])], [[2, 1]], -ROWS),
        ([node("Squeeze", ["a"], ["s"]), node("Range", ["o", "s", "o2"], ["r"]), node("Cast", ["r"], ["f"], to=F),
          node("Mul", ["x", "f"], ["y"])], [[6]], ROWS * np.arange(6, dtype=np.float32)),
    ],
)  # fmt: skip
def test_operands_that_decide_shapes(
    nodes: list[onnx.NodeProto], values: list[list[int]], expected: np.ndarray
) -> None:
    names = ["a", "b", "c"][: len(values)]
    inputs: dict[str, tuple[int, Dims]] = {
        "x": (F, [2, 6]),
        **{n: (I, [len(v)]) for n, v in zip(names, values, strict=True)},
    }
    weights = {"p": np.array([0, 1]), "o": np.array(0), "o2": np.array(1)}
    engine = engine_of(make(nodes, inputs, weights))
    out = engine(ROWS, *(np.array(v) for v in values))["y"]
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == expected.dtype


def test_an_initialiser_that_is_an_input_is_a_default() -> None:
    model = affine("n")
    model.graph.input.append(helper.make_tensor_value_info("b", F, [7]))
    engine = engine_of(model)
    x, b = np.ones((2, 5), np.float32), np.arange(7, dtype=np.float32)
    default = engine(x)["y"]
    np.testing.assert_allclose(default, affine_of(x), rtol=1e-5)
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_allclose(engine({"x": x, "b": b})["y"], default - held["b"] + b, rtol=1e-5)
    np.testing.assert_allclose(engine({"x": x, "b": b + 1})["y"], default - held["b"] + b + 1, rtol=1e-5)
    assert len(engine.engines) == 2
    model.ir_version = 3  # before version 4 every initialiser was listed among the inputs
    with pytest.raises(InputError, match="no input 'b'"):
        tcc.compile(model, TARGET)({"x": x, "b": b})


def test_what_shapes_cannot_mend_is_told_at_once() -> None:
    model = make([node("Relu", ["x"], ["a"]), node("Frobnicate", ["a"], ["y"])], {"x": (F, ["n"])})
    with pytest.raises(InputError, match="Frobnicate"):
        tcc.compile(model, TARGET)


def test_specialisations_share_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = {
        "k": rng.normal(size=(64, 8, 3, 3)).astype(np.float32),
        "w": rng.normal(size=(64, 512)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    model = make(nodes, {"x": (F, ["n", 8, "h", "w_"])}, weights)
    engine = engine_of(model)
    alone = tcc.compile(model, TARGET, shapes={"x": (1, 8, 16, 16)})
    for n, side in ((1, 16), (2, 16), (1, 20)):
        engine(np.zeros((n, 8, side, side), np.float32))
    assert len(engine.engines) == 3
    assert alone.weight_bytes <= engine.weight_bytes < 1.7 * alone.weight_bytes
    # A file of one of them is the file that a compilation for its shapes gives.
    engine.prepare({"x": (1, 8, 16, 16)}).save(tmp_path / "a.tcc")
    alone.save(tmp_path / "b.tcc")
    assert (tmp_path / "a.tcc").read_bytes() == (tmp_path / "b.tcc").read_bytes()


def test_two_threads_make_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    compile_imported = specialising.compile_imported

    def counted(*args: Any) -> Any:
        made.append(1)
        return compile_imported(*args)

    monkeypatch.setattr(specialising, "compile_imported", counted)
    engine = engine_of(affine())
    x = np.ones((6, 5), np.float32)
    start, bad = threading.Barrier(4), list[Exception]()

    def work() -> None:
        try:
            start.wait()
            for _ in range(20):
                np.testing.assert_allclose(engine(x)["y"], affine_of(x), rtol=1e-5)
        except Exception as e:
            bad.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad and len(made) == 1
