# SPDX-License-Identifier: Apache-2.0
"""Loops that carry sequences, optionals and strings, with a number of trips that only the call says."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
from tcc.runtime import Engine
from tests.host.test_values import F, I, S, make, node, same, sequence, tensor
from tests.target import TARGET

TRIPS, GOING = helper.make_tensor_type_proto(I, []), helper.make_tensor_type_proto(TensorProto.BOOL, [])


def loop(nodes: list[onnx.NodeProto], carried: dict[str, onnx.TypeProto], given: list[str], results: list[str]):
    """A loop over a body of (i, go, carried…), which gives (go, given…)."""
    infos = [helper.make_value_info(n, t) for n, t in {"i": TRIPS, "go": GOING, **carried}.items()]
    keep = node("Identity", ["go"], ["going"])
    body = helper.make_graph([keep, *nodes], "body", infos, [onnx.ValueInfoProto(name=o) for o in ["going", *given]])
    return node("Loop", ["n", "", *(f"{c}0" for c in carried)], results, body=body)


def compiled(model: onnx.ModelProto, **options: Any) -> Engine:
    """An engine whose schedule has a loop."""
    engine = tcc.compile(model, target=TARGET, **options)
    assert any(op["op"] == "loop" for op in engine.data.schedule)
    return engine


def prefixes() -> list[onnx.NodeProto]:
    """The first i + 1 elements of x, appended to s."""
    return [
        node("Constant", [], ["one"], value_int=1), node("Constant", [], ["zero"], value_ints=[0]),
        node("Add", ["i", "one"], ["end"]), node("Reshape", ["end", "flat"], ["ends"]),
        node("Slice", ["x", "zero", "ends"], ["part"]), node("SequenceInsert", ["s", "part"], ["more"]),
    ]  # fmt: skip


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_a_sequence_grows(trips: int):
    inputs = {"n": TRIPS, "s0": sequence(F), "x": tensor(F, [5])}
    count = node("SequenceLength", ["y"], ["count"])
    model = make([loop(prefixes(), {"s": sequence(F)}, ["more"], ["y"]), count], inputs, ["y", "count"],
                 {"flat": np.array([1])})  # fmt: skip
    x = np.arange(5, dtype=np.float32)
    engine = compiled(model)
    for first in ([], [x[:2]]):
        got = engine({"n": np.array(trips), "s0": first, "x": x})
        same(got["y"], [*first, *(x[: i + 1] for i in range(trips))])
        assert int(got["count"]) == trips + len(first)


def test_an_optional_becomes_a_sequence():
    def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=output)])

    begin = branch("begin", [node("SequenceConstruct", ["x"], ["s1"])], "s1")
    go_on = branch("on", [node("OptionalGetElement", ["o"], ["s2"])], "s2")
    kind = helper.make_optional_type_proto(sequence(F))
    body = [
        node("OptionalHasElement", ["o"], ["has"]), node("If", ["has"], ["s"], then_branch=go_on, else_branch=begin),
        *prefixes(),
    ]  # fmt: skip
    model = make([loop(body, {"o": kind}, ["more"], ["y"])], {"n": TRIPS, "o0": kind, "x": tensor(F, [3])}, ["y"],
                 {"flat": np.array([1])})  # fmt: skip
    x = np.arange(3, dtype=np.float32)
    engine = compiled(model)
    same(engine({"n": np.array(2), "o0": None, "x": x})["y"], [x, x[:1], x[:2]])
    same(engine({"n": np.array(1), "o0": [x, x], "x": x})["y"], [x, x, x[:1]])
    assert engine({"n": np.array(0), "o0": None, "x": x})["y"] is None


def test_a_string_grows():
    body = [node("StringConcat", ["s", "c"], ["more"])]
    model = make([loop(body, {"s": tensor(S, [2])}, ["more"], ["y"])], {"n": TRIPS, "s0": tensor(S, [2])}, ["y"],
                 {"c": np.array(["-", "+"], object)})  # fmt: skip
    engine = compiled(model)
    for trips in (0, 3):
        got = engine({"n": np.array(trips), "s0": ["a", "b"]})["y"]
        assert got.tolist() == [f"a{'-' * trips}", f"b{'+' * trips}"]


def test_sequences_take_each_others_places():
    body = [node("Identity", ["a"], ["x"]), node("Identity", ["b"], ["y"])]
    kinds = {"a": sequence(F), "b": sequence(F)}
    model = make(
        [loop(body, kinds, ["b", "a"], ["p", "q"])], {"n": TRIPS, "a0": kinds["a"], "b0": kinds["b"]}, ["p", "q"]
    )
    a, b = [np.zeros(1, np.float32)], [np.ones(2, np.float32), np.ones(3, np.float32)]
    engine = compiled(model)
    for trips in (2, 3):
        got = engine({"n": np.array(trips), "a0": a, "b0": b})
        same(got["p"], b if trips % 2 else a)
        same(got["q"], a if trips % 2 else b)


def test_a_map_over_a_sequence_of_any_length():
    body = helper.make_graph(
        [node("Shape", ["e"], ["d"]), node("Relu", ["e"], ["r"]), node("Add", ["r", "c"], ["z"])], "body",
        [helper.make_value_info("e", tensor(F, [None, 3]))], [onnx.ValueInfoProto(name=o) for o in ("d", "z")],
    )  # fmt: skip
    mapped = node("SequenceMap", ["s"], ["shapes", "y"], body=body)
    model = make([mapped], {"s": sequence(F, [None, 3])}, ["shapes", "y"], {"c": np.ones(3, np.float32)})
    engine = compiled(model)
    assert engine.kernels
    for rows in ([], [2], [1, 4, 0]):
        given = [np.arange(-3, 3 * n - 3, dtype=np.float32).reshape(n, 3) for n in rows]
        got = engine({"s": given})
        same(got["y"], [np.maximum(v, 0) + 1 for v in given])
        same(got["shapes"], [np.array(v.shape) for v in given])


CASTS: list[tuple[int, int, np.ndarray, Any]] = [
    (F, S, np.array([1.5, -2, 1e20, 0.47892547], np.float32), ["1.5", "-2.0", "1e+20", "0.47892547"]),
    (I, S, np.array([[1, -5]]), [["1", "-5"]]),
    (TensorProto.DOUBLE, S, np.array([1 / 3]), ["0.3333333333333333"]),
    (S, F, np.array(["1.5", "-inf", "1e3", "3"], object), [1.5, -np.inf, 1000, 3]),
    (S, I, np.array(["15", "-3"], object), [15, -3]),
]


@pytest.mark.parametrize(("source", "to", "x", "want"), CASTS)
def test_casts_of_strings(source: int, to: int, x: np.ndarray, want: Any):
    model = make([node("Cast", ["x"], ["y"], to=to)], {"x": tensor(source, x.shape)}, ["y"])
    assert tcc.compile(model, target=TARGET)({"x": x})["y"].tolist() == want


def test_an_extent_of_what_nothing_reads():
    model = make([node("NonZero", ["x"], ["at"]), node("Shape", ["at"], ["y"])], {"x": tensor(F, [6])}, ["y"])
    engine = tcc.compile(model, target=TARGET)
    for count in (0, 4):
        assert engine({"x": np.array([1] * count + [0] * (6 - count), np.float32)})["y"].tolist() == [1, count]
