# SPDX-License-Identifier: Apache-2.0
"""Models that are valid and unusual: names, functions, initialisers, external data, nesting."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tcc
from tcc.compiler.driver import finish, import_model
from tcc.compiler.frontend import import_onnx
from tcc.compiler.frontend.importer import load_onnx
from tcc.compiler.interpret import interpret
from tcc.compiler.options import Options
from tcc.errors import InputError
from tcc.ir.parser import parse
from tcc.ir.printer import print_op
from tcc.passes.base import PassContext

F = TensorProto.FLOAT
node = helper.make_node
value = helper.make_tensor_value_info
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def make(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[str] = ("y",), weights: dict[str, Any] | None = None, **more: Any
) -> onnx.ModelProto:
    """A model of x [2, 3] f32."""
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    infos = [value("x", F, [2, 3])]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name=o) for o in outputs], held)
    imports = more.pop("imports", [helper.make_opsetid("", 21)])
    return helper.make_model(graph, **{"opset_imports": imports, "ir_version": 10, **more})


def run(model: onnx.ModelProto | Path, x: np.ndarray = X) -> dict[str, np.ndarray]:
    return interpret(import_onnx(model), [x])


NAMES = [
    'q"uote', "back\\slash", "new\nline", "tab\tbell\x07", "snow☃ 雪", "%d{0}$(x)`", "a b", "*/ int main() {", "'); --",
    "\u202eright to left", "e\u0301", "é", "x" * 3000, "0", "-", "()", "#", "//",
]  # fmt: skip


def test_any_text_is_a_name_and_none_reaches_the_sources(tmp_path: Path) -> None:
    nodes: list[onnx.NodeProto] = []
    last = "x"
    for i, name in enumerate(NAMES):
        nodes.append(node(("Neg", "Exp", "Tanh")[i % 3], [last], [name], name=f"node {name}"))
        last = name
    nodes.append(node("Add", [last, 'w"☃\n'], ["out\n☃"], name="end"))
    weight = np.float32([1, 2, 3])
    model = make(nodes, ["out\n☃", NAMES[2]], {'w"☃\n': weight})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = 'batch ☃\n"'
    path = tmp_path / "модель.onnx"
    onnx.save(model, path)
    expected = X
    for i in range(len(NAMES)):
        expected = (np.negative, np.exp, np.tanh)[i % 3](expected)
    engine = tcc.compile(path, "cpu", shapes={"x": (2, 3)})
    np.testing.assert_allclose(engine(X)["out\n☃"], expected + weight, rtol=1e-5)
    for entry in engine.data.entries():
        if entry.endswith((".ll", ".cu")):
            text = bytes(engine.data.entry(entry)).decode()
            assert [n for n in NAMES if len(n) > 3 and n in text] == []
    options = Options(target="cpu", shapes={"x": (2, 3)})
    text = print_op(import_model(path, options, PassContext()))
    module = parse(text)
    assert print_op(module) == text
    engine.save(tmp_path / "direct.tcc")
    assert finish(module, {}) == (tmp_path / "direct.tcc").read_bytes()


def test_nodes_in_any_order_unused_and_repeated_initialisers() -> None:
    nodes = [node("Add", ["b", "w"], ["y"]), node("Neg", ["a"], ["b"]), node("Exp", ["x"], ["a"])]
    model = make(nodes, weights={"w": np.float32(1), "unused": np.zeros(1000)})
    model.graph.initializer.append(numpy_helper.from_array(np.float32(5), "w"))  # the later one counts
    model.graph.initializer.append(TensorProto(data_type=99))  # nothing can read it
    np.testing.assert_allclose(run(model)["y"], 5 - np.exp(X), rtol=1e-6)


def test_outputs_that_nothing_computes() -> None:
    model = make([], ["x", "w"], {"w": np.float32([7])})
    engine = tcc.compile(model, "cpu")
    out = engine(X)
    np.testing.assert_array_equal(out["x"], X)
    np.testing.assert_array_equal(out["w"], [7])


def test_declarations_that_lie_are_not_believed() -> None:
    model = make([node("Transpose", ["x"], ["t"]), node("Neg", ["t"], ["y"])])
    model.graph.value_info.append(value("t", TensorProto.INT64, [9, 9]))
    model.graph.output[0].CopyFrom(value("y", TensorProto.DOUBLE, [1]))
    np.testing.assert_array_equal(run(model)["y"], -X.T)


@pytest.mark.parametrize("version", [3, 4, 7, 8, 9, 10, 11, 12, 13, 14])
def test_versions_of_the_representation(version: int) -> None:
    model = make([node("Add", ["x", "w"], ["y"])], weights={"w": np.float32(1)}, ir_version=version)
    model.graph.input.append(value("w", F, []))
    np.testing.assert_array_equal(run(model)["y"], X + 1)


def test_opset_imports() -> None:
    twice = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx", 21), helper.make_opsetid("com.x", 3)]
    np.testing.assert_array_equal(run(make([node("Neg", ["x"], ["y"])], imports=twice))["y"], -X)
    with pytest.raises(InputError, match=r"two opsets of ai\.onnx, 21 and 17"):
        run(
            make([node("Neg", ["x"], ["y"])], imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx", 17)])
        )
    with pytest.raises(InputError, match=r"ai\.onnx has no opset"):
        run(make([node("Neg", ["x"], ["y"])], imports=[helper.make_opsetid("com.x", 1)]))


def function(name: str, nodes: list[onnx.NodeProto], **more: Any) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("my", 1)]
    return helper.make_function("my", name, ["a"], ["b"], nodes, imports, **more)


def test_functions_with_overloads_defaults_and_calls() -> None:
    def scaled() -> list[onnx.NodeProto]:
        leaky = node("LeakyRelu", ["a"], ["b"])
        leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
        return [leaky]

    slope = helper.make_attribute("slope", 0.5)
    first = function("F", scaled(), attribute_protos=[slope])
    other = function("F", [node("Neg", ["a"], ["b"])])
    other.overload = "negative"
    outer = function("G", [node("F", ["a"], ["x"], domain="my", slope=0.25), node("Exp", ["x"], ["b"])])
    negative = node("F", ["x"], ["n"], domain="my")
    negative.overload = "negative"
    nodes = [negative, node("F", ["n"], ["d"], domain="my"), node("G", ["n"], ["y"], domain="my")]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("my", 1)]
    got = run(make(nodes, ["d", "y"], functions=[first, other, outer], imports=imports))
    np.testing.assert_allclose(got["d"], -X * 0.5)
    np.testing.assert_allclose(got["y"], np.exp(-X * 0.25), rtol=1e-6)


def test_functions_that_never_end() -> None:
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("my", 1)]
    f = function("F", [node("G", ["a"], ["b"], domain="my")])
    g = function("G", [node("F", ["a"], ["b"], domain="my")])
    with pytest.raises(InputError, match="circle: F → G → F"):
        run(make([node("F", ["x"], ["y"], domain="my")], functions=[f, g], imports=imports))
    # Twenty functions, each of ten calls of the next.
    calls = [("a" if j == 0 else f"v{j}", "b" if j == 9 else f"v{j + 1}") for j in range(10)]
    many = [
        function(f"F{i}", [node(f"F{i + 1}", [source], [result], domain="my") for source, result in calls])
        for i in range(20)
    ]
    last = function("F20", [node("Neg", ["a"], ["b"])])
    with pytest.raises(InputError, match="stand for 100000000000000000000 nodes"):
        run(make([node("F0", ["x"], ["y"], domain="my")], functions=[*many, last], imports=imports))
    deep = [function(f"F{i}", [node(f"F{i + 1}", ["a"], ["b"], domain="my")]) for i in range(200)]
    last.name = "F200"
    with pytest.raises(InputError, match="more than 60 levels"):
        run(make([node("F0", ["x"], ["y"], domain="my")], functions=[*deep, last], imports=imports))


def nested(depth: int, condition: str) -> onnx.GraphProto:
    body = [node("Neg", ["x"], ["t"])]
    if depth:
        body = [node("If", [condition], ["t"], then_branch=nested(depth - 1, condition), else_branch=other())]
    return helper.make_graph(body, "b", [], [onnx.ValueInfoProto(name="t")])


def other() -> onnx.GraphProto:
    return helper.make_graph([node("Exp", ["x"], ["t"])], "b", [], [onnx.ValueInfoProto(name="t")])


@pytest.mark.parametrize("known", [True, False])
def test_deeply_nested_branches(known: bool) -> None:
    model = make([node("If", ["c"], ["y"], then_branch=nested(28, "c"), else_branch=other())])
    if known:
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    else:
        model.graph.input.append(value("c", TensorProto.BOOL, []))
    engine = tcc.compile(model.SerializeToString(), "cpu")
    np.testing.assert_array_equal(engine({"x": X} if known else {"x": X, "c": np.array(True)})["y"], -X)


def test_branches_nested_too_deep() -> None:
    model = make([])
    graph = model.graph
    for _ in range(60):  # in place: protobuf copies nothing that is nested so deep
        attribute = graph.node.add(op_type="If", input=["c"], output=["y"]).attribute.add(name="then_branch")
        attribute.type = onnx.AttributeProto.GRAPH
        graph = attribute.g
        graph.name = "b"
    with pytest.raises(InputError, match="more than 40 deep"):
        load_onnx(model)


def test_names_of_a_branch_hide_those_outside() -> None:
    body = [node("Exp", ["x"], ["a"]), node("Add", ["a", "w"], ["t"])]
    branch = helper.make_graph(
        body, "b", [], [onnx.ValueInfoProto(name="t")], [numpy_helper.from_array(np.float32(9), "w")]
    )
    nodes = [
        node("Neg", ["x"], ["a"]),
        node("If", ["c"], ["t"], then_branch=branch, else_branch=branch),
        node("Add", ["a", "w"], ["z"]),
        node("Sub", ["t", "z"], ["y"]),
    ]
    got = run(make(nodes, weights={"w": np.float32(1), "c": np.array(True)}))["y"]
    np.testing.assert_allclose(got, np.exp(X) + 9 - (1 - X), rtol=1e-6)


def sparse(indices: np.ndarray, dims: Sequence[int], values: Sequence[float] = (5, 7)) -> onnx.ModelProto:
    model = make([node("Add", ["x", "s"], ["y"])])
    held = numpy_helper.from_array(np.array(values, np.float32), "s")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(held, numpy_helper.from_array(indices), dims))
    return model


def test_sparse_initialisers(tmp_path: Path) -> None:
    expected = X + np.float32([[0, 5, 0], [0, 0, 7]])
    for indices in (np.array([1, 5]), np.array([[0, 1], [1, 2]])):
        np.testing.assert_array_equal(run(sparse(indices, [2, 3]))["y"], expected)
    np.testing.assert_array_equal(run(sparse(np.zeros(0, np.int64), [2, 3], ()))["y"], X)
    model = sparse(np.array([1, 5]), [2, 3])
    indices = model.graph.sparse_initializer[0].indices
    (tmp_path / "i.bin").write_bytes(indices.raw_data)
    indices.ClearField("raw_data")
    indices.data_location = TensorProto.EXTERNAL
    indices.external_data.add(key="location", value="i.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(run(path)["y"], expected)
    for bad, dims in (
        (np.array([1, 6]), [2, 3]), (np.array([-1, 1]), [2, 3]), (np.array([[0, 1], [2, 0]]), [2, 3]),
        (np.array([1]), [2, 3]), (np.array([1, 5]), [-2, 3]), (np.array([1, 5]), [1 << 40, 1 << 40]),
        (np.array([[0, 1, 0], [1, 2, 0]]), [2, 3]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="the sparse tensor"):
            run(sparse(bad, dims))


def external(folder: Path, count: int, elements: int = 3) -> Path:
    """A model that sums x and `count` weights of one file beside it."""
    nodes = [node("Sum", ["x", *(f"w{i}" for i in range(count))], ["y"])]
    model = make(nodes)
    for i in range(count):
        w = TensorProto(name=f"w{i}", data_type=F, dims=[elements], data_location=TensorProto.EXTERNAL)
        for key, text in {"location": "w.bin", "offset": str(4 * elements * i), "length": str(4 * elements)}.items():
            w.external_data.add(key=key, value=text)
        model.graph.initializer.append(w)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (folder / "w.bin").write_bytes(np.arange(elements * count, dtype=np.float32).tobytes())
    return path


def test_a_file_of_many_weights_is_opened_once(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    module = import_onnx(external(tmp_path, 200))
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    np.testing.assert_allclose(interpret(module, [X])["y"], X + np.arange(600).reshape(200, 3).sum(0), rtol=1e-6)


def test_links_made_while_reading_lead_nowhere(tmp_path: Path) -> None:
    """A folder that is replaced by a link again and again never gives what is outside."""
    inside, outside = tmp_path / "model", tmp_path / "outside"
    for folder in (inside / "sub", outside):
        folder.mkdir(parents=True)
    (inside / "sub" / "w.bin").write_bytes(np.float32([1, 2, 3]).tobytes())
    (outside / "w.bin").write_bytes(np.float32([6, 6, 6]).tobytes())
    model = onnx.load(external(inside, 1), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "sub/w.bin"
    path = inside / "m.onnx"
    path.write_bytes(model.SerializeToString())
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(inside / "sub", inside / "kept")
            os.symlink(outside, inside / "sub")
            os.unlink(inside / "sub")
            os.rename(inside / "kept", inside / "sub")
            stop.wait(0.0005)

    thread = threading.Thread(target=swap)
    thread.start()
    read = 0
    try:
        for _ in range(400):
            try:
                got = run(path)["y"]
            except InputError:
                continue
            np.testing.assert_array_equal(got, X + np.float32([1, 2, 3]))
            read += 1
    finally:
        stop.set()
        thread.join()
    assert read


def test_a_model_of_more_than_two_gibibytes(tmp_path: Path) -> None:
    """Weights beside the model are mapped: a sparse file of 3 GiB of which little is used costs little."""
    path = external(tmp_path, 1)
    model = onnx.load(path, load_external_data=False)
    entry = {e.key: e for e in model.graph.initializer[0].external_data}
    entry["offset"].value = str(3 << 30)
    with open(tmp_path / "w.bin", "r+b") as f:
        f.seek(3 << 30)
        f.write(np.float32([1, 2, 3]).tobytes())
    path.write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(run(path)["y"], X + np.float32([1, 2, 3]))
    huge = tmp_path / "huge.onnx"
    with open(huge, "wb") as f:
        f.truncate(3 << 30)
    with pytest.raises(InputError, match="as external data"):
        run(huge)


def test_dims_named_alike_are_one_dim() -> None:
    nodes = [node("Add", ["x", "z"], ["y"])]
    infos = [value("x", F, ["n", 3]), value("z", F, ["n", 3])]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    imported = load_onnx(model, {"x": (2, 3)})
    assert not imported.free
    with pytest.raises(InputError, match='the dim "n"'):
        load_onnx(model, {"x": (2, 3), "z": (4, 3)})


def test_a_thousand_attributes() -> None:
    many = node("Constant", [], ["w"], value_floats=[float(i) for i in range(100_000)])
    odd = node("ReduceSum", ["w"], ["s"], keepdims=0)
    nodes = [many, odd, node("Add", ["x", "s"], ["y"])]
    np.testing.assert_allclose(run(make(nodes))["y"], X + np.float32(sum(range(100_000))), rtol=1e-6)
