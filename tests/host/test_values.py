# SPDX-License-Identifier: Apache-2.0
"""Strings, sequences and optionals as inputs, values and outputs of engines, compared with onnx.reference."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tcc
from tcc.compiler.driver import compile_model, finish, import_model
from tcc.compiler.engine_writer import to_bytes
from tcc.compiler.frontend import import_onnx
from tcc.compiler.options import Options
from tcc.errors import FailureError, InputError
from tcc.ir.parser import parse
from tcc.ir.printer import print_op
from tcc.passes.base import PassContext
from tcc.runtime import Engine
from tests.target import TARGET

F, I, S = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
node = helper.make_node


def tensor(dtype: int, shape: Any) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(dtype, shape)


def sequence(dtype: int, shape: Any = None) -> onnx.TypeProto:
    return helper.make_sequence_type_proto(tensor(dtype, shape))


def make(
    nodes: list[onnx.NodeProto], inputs: dict[str, onnx.TypeProto], outputs: list[str], constants: Any = None
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    infos = [helper.make_value_info(n, t) for n, t in inputs.items()]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name=o) for o in outputs], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def same(a: Any, b: Any) -> None:
    if isinstance(b, list):
        assert isinstance(a, list)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif b is None:
        assert a is None
    elif np.asarray(b).dtype.kind in "OUT":
        assert np.asarray(a).tolist() == np.asarray(b).tolist()
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-5)


def checked(model: onnx.ModelProto, feed: dict[str, Any], **options: Any) -> Engine:
    """The engine, whose outputs are those of onnx.reference at every level, twice."""
    want = ReferenceEvaluator(model).run(None, feed)
    for level in (1, 0):
        engine = tcc.compile(model, target=TARGET, opt_level=level, **options)
        for _ in range(2):
            for info, expected in zip(model.graph.output, want, strict=True):
                same(engine(feed)[info.name], expected)
    return engine


WORDS = np.array([["to be", "or"], ["not to be", "größe"]], object)


def test_strings_in_and_out_with_a_constant_between():
    model = make(
        [node("StringConcat", ["x", "c"], ["y"]), node("Equal", ["y", "x"], ["e"])], {"x": tensor(S, [2, 2])},
        ["y", "e"], {"c": np.array(["!", ""], object)},
    )  # fmt: skip
    engine = checked(model, {"x": WORDS})
    assert str(engine.inputs[0]) == "x: str[2,2]"
    assert engine({"x": WORDS.astype(str)})["y"].tolist() == engine({"x": WORDS.tolist()})["y"].tolist()
    assert any("string" in r["message"] for r in engine.report if r["kind"] == "host-op")


def test_strings_moved_about():
    model = make(
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Reshape", ["t", "flat"], ["f"]),
            node("Gather", ["f", "at"], ["g"]), node("Concat", ["g", "f"], ["y"], axis=0),
            node("Identity", ["y"], ["z"]),
        ],
        {"x": tensor(S, [2, 2])}, ["z"], {"flat": np.array([-1]), "at": np.array([3, 0])},
    )  # fmt: skip
    checked(model, {"x": WORDS})


def test_split_strings_have_a_shape_that_data_decide():
    model = make([node("StringSplit", ["x"], ["y", "n"], delimiter=" ")], {"x": tensor(S, [2, 2])}, ["y", "n"])
    checked(model, {"x": WORDS})


def test_a_string_that_is_no_utf8_and_a_scalar_and_no_string_at_all():
    weird = helper.make_tensor("c", S, [], [b"\xff!"])
    model = make([node("StringConcat", ["x", "c"], ["y"])], {"x": tensor(S, [0, 3])}, ["y", "c"])
    model.graph.initializer.append(weird)
    got = tcc.compile(model, target=TARGET)({"x": np.empty((0, 3), object)})
    assert got["y"].shape == (0, 3)
    assert got["y"].dtype == object
    assert got["c"].item().encode("utf-8", "surrogateescape") == b"\xff!"


def test_outputs_are_the_callers_own():
    model = make([node("Identity", ["x"], ["y"]), node("Identity", ["s"], ["t"])],
                 {"x": tensor(S, [1]), "s": sequence(F)}, ["y", "t"])  # fmt: skip
    engine = tcc.compile(model, target=TARGET)
    given = {"x": np.array(["a"], object), "s": [np.zeros(2, np.float32)]}
    first = engine(given)
    first["y"][0], first["t"][0][0] = "changed", 9
    assert given["x"][0] == "a"
    assert given["s"][0][0] == 0
    assert engine(given)["y"][0] == "a"


ITEMS = [np.arange(6, dtype=np.float32).reshape(2, 3), -np.ones((1, 3), np.float32)]


def sequence_nodes() -> list[onnx.NodeProto]:
    return [
        node("SequenceAt", ["s", "first"], ["a"]), node("Relu", ["a"], ["r"]),
        node("SequenceInsert", ["s", "r"], ["more"]),
        node("SequenceErase", ["more", "first"], ["left"]), node("SequenceLength", ["left"], ["n"]),
        node("ConcatFromSequence", ["left"], ["joined"], axis=0),
    ]  # fmt: skip


def test_a_sequence_of_bound_length_is_resolved():
    model = make(sequence_nodes(), {"s": sequence(F)}, ["r", "left", "n", "joined"], {"first": np.array(0)})
    engine = checked(model, {"s": ITEMS}, shapes={"s": [(2, 3), (1, 3)]})
    assert engine.kernels
    calls = [op["function"] for op in engine.data.schedule if op["op"] == "host_call"]
    assert calls == ["sequence_items", "sequence_construct"]
    with pytest.raises(InputError, match=r"'s' holds 1 values and the engine was compiled for 2"):
        engine({"s": ITEMS[:1]})
    with pytest.raises(FailureError, match="gave the shape 1x3 where the engine expects 2x3"):
        engine({"s": ITEMS[::-1]})


def test_a_sequence_of_any_length_stays_on_the_host():
    model = make(
        [
            node("SequenceAt", ["s", "first"], ["r"]), *sequence_nodes()[2:5],
            node("SplitToSequence", ["x", "by"], ["p"]),
        ],
        {"s": sequence(F, [None, 3]), "x": tensor(F, [5, 2]), "by": tensor(I, [])},
        ["left", "n", "p"], {"first": np.array(0)},
    )  # fmt: skip
    for n in (1, 2):
        checked(model, {"s": ITEMS[:n], "x": np.ones((5, 2), np.float32), "by": np.array(2 * n)})


def branches() -> onnx.ModelProto:
    """A sequence of one or of two tensors, an optional, and a string, as the condition says."""

    def branch(name: str, nodes: list[onnx.NodeProto], outputs: list[str]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=o) for o in outputs])

    kind = sequence(F)
    yes = branch("yes", [node("SequenceConstruct", ["x"], ["s1"]), node("Optional", ["s1"], ["o1"]),
                         node("Constant", [], ["t1"], value_strings=["yes"])], ["s1", "o1", "t1"])  # fmt: skip
    no = branch("no", [node("SequenceConstruct", ["x", "x"], ["s2"]), node("Optional", [], ["o2"], type=kind),
                       node("Constant", [], ["t2"], value_strings=["no"])], ["s2", "o2", "t2"])  # fmt: skip
    return make(
        [
            node("If", ["c"], ["s", "o", "t"], then_branch=yes, else_branch=no),
            node("OptionalHasElement", ["o"], ["has"]), node("SequenceLength", ["s"], ["n"]),
        ],
        {"c": tensor(TensorProto.BOOL, []), "x": tensor(F, [2])}, ["s", "t", "n", "has", "o"],
    )  # fmt: skip


def test_branches_give_host_values():
    model, x = branches(), np.array([1, 2], np.float32)
    for c in (True, False):
        got = tcc.compile(model, target=TARGET)({"c": np.array(c), "x": x})
        # onnx.reference wraps an optional's value in a list of its own, also where there is none.
        same(got["o"], [x] if c else None)
        assert bool(got["has"]) == c
    del model.graph.output[-2:]
    for c in (True, False):
        checked(model, {"c": np.array(c), "x": x})


def test_optionals_as_inputs():
    kind = helper.make_optional_type_proto(tensor(F, [2]))
    model = make([node("OptionalHasElement", ["o"], ["y"]), node("Identity", ["o"], ["z"])], {"o": kind}, ["y", "z"])
    engine = tcc.compile(model, target=TARGET)
    assert engine({"o": None}) == {"y": np.array(False), "z": None}
    assert engine({"o": np.ones(2, np.float32)})["y"]
    empty = tcc.compile(model, target=TARGET, shapes={"o": None})
    assert not empty({"o": None})["y"]
    with pytest.raises(InputError, match="'o' has a value, and the engine was compiled for an empty one"):
        empty({"o": np.ones(2, np.float32)})
    assert tcc.compile(model, target=TARGET, shapes={"o": (2,)})({"o": np.ones(2, np.float32)})["z"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1], "item 0 of the input 's' is i64 and the engine takes f32"),
        (np.ones(3, np.float32), r"'s' is a ndarray and the engine takes seq\(f32\[\?,3\]\): give a list"),
        ([np.ones(3, np.float32)], "item 0 of the input 's' has the shape 3 and the engine takes [?]x3"),
        (None, "'s' is None"),
    ],
)
def test_wrong_sequences(value: Any, sentence: str):
    model = make([node("SequenceLength", ["s"], ["n"])], {"s": sequence(F, [None, 3])}, ["n"])
    with pytest.raises(InputError, match=sentence):
        tcc.compile(model, target=TARGET)({"s": value})


def test_wrong_strings():
    model = make([node("StringConcat", ["x", "x"], ["y"])], {"x": tensor(S, [2])}, ["y"])
    engine = tcc.compile(model, target=TARGET)
    for value, sentence in ((np.ones(2), "is f64 and the engine takes strings"), (["a", 3], "holds a int"),
                            (["a"], "has the shape 1 and the engine takes 2")):  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            engine({"x": value})
    with pytest.raises(InputError, match="lives on the host and cannot be written"):
        engine.run({"x": ["a", "b"]}, out={"y": np.empty(2, object)})


def test_text_reads_back_and_makes_the_same_engine():
    model = branches()
    module = import_model(model, Options(target="cpu"), PassContext())
    text = print_op(module)
    again = parse(text)
    assert print_op(again) == text
    again.resources.merge(module.resources)
    assert finish(again, {}) == to_bytes(compile_model(model, Options(target="cpu")))


def test_bound_calls_and_profiles():
    model = make([node("StringConcat", ["x", "x"], ["y"]), node("Neg", ["v"], ["w"])],
                 {"x": tensor(S, [1]), "v": tensor(F, [4])}, ["y", "w"])  # fmt: skip
    engine = tcc.compile(model, target=TARGET)
    v = np.ones(4, np.float32)
    bound = engine.bind({"x": np.array(["ab"], object), "v": v})
    for k in range(2):
        v[:] = k
        assert bound()["y"].tolist() == ["abab"]
        np.testing.assert_array_equal(bound()["w"], -v)
    assert {t.op for t in engine.profile({"x": ["ab"], "v": v})} == {"host_call", "launch"}


def test_maps_are_refused_by_name():
    model = make([node("Identity", ["m"], ["y"])], {"m": helper.make_map_type_proto(I, tensor(F, []))}, ["y"])
    with pytest.raises(InputError, match='the input "m" is of the kind map_type'):
        import_onnx(model)
