# SPDX-License-Identifier: Apache-2.0
"""What the frontend makes of graphs: functions, control flow, free dims, folding, sequences, recurrent networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tcc.compiler.frontend import free_dims, how_to_bind, import_onnx, load_onnx
from tcc.compiler.interpret import interpret
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.expr import Sym, maximum
from tcc.ir.verifier import verify
from tests.frontend.onnx_models import F, I, make, names, node, peer, same_as_peer


def test_quantized_convolution_agrees_with_onnx_runtime(rng: np.random.Generator) -> None:
    names_ = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    constants = {
        "xs": np.float32(0.02), "xz": np.uint8(7), "w": rng.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8),
        "ws": np.float32([0.01, 0.02, 0.03, 0.04]), "wz": np.zeros(4, np.int8), "ys": np.float32(0.3),
        "yz": np.uint8(100), "b": np.int32([5, -100, 200, 0]),
    }  # fmt: skip
    model = make([node("QLinearConv", names_, ["y"], pads=[1, 1, 1, 1])], {"x": ((1, 3, 5, 6), TensorProto.UINT8)},
                 ["y"], 13, constants)  # fmt: skip
    feed = {"x": rng.integers(0, 255, (1, 3, 5, 6)).astype(np.uint8)}
    got, (want,) = interpret(import_onnx(model), feed)["y"], peer(model, feed)
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1


def test_free_dims_stay_expressions() -> None:
    """Shape → Gather → Mul → Concat → Reshape of a free batch is folded to an expression."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Mul", ["n", "two"], ["n2"]),
        node("Unsqueeze", ["n2", "axes"], ["nu"]),
        node("Concat", ["nu", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "two": np.int64(2), "axes": np.int64([0]), "rest": np.int64([-1])}
    model = make(nodes, {"x": (["batch", 6], F)}, ["y"], 13, constants)
    module = import_onnx(model)
    assert names(module) == ["graph.reshape"]
    main = graph.main_function(module)
    batch = Sym("batch")
    assert graph.tensor_type(main.returned[0]).shape == (2 * batch, 3)
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(interpret(module, {"x": x})["y"], x.reshape(8, 3))
    assert graph.tensor_type(graph.main_function(import_onnx(model, {"x": (4, 6)})).returned[0]).shape == (8, 3)


def test_a_dim_param_is_one_symbol_and_binds_everywhere() -> None:
    model = make([node("Add", ["a", "b"], ["y"])], {"a": (["n", 3], F), "b": (["n", None], F)}, ["y"])
    assert free_dims(model) == {"a": ("?", "3"), "b": ("?", "?")}
    assert how_to_bind(free_dims(model)) == "bind the free dims of a, b with --shape a=?x3 --shape b=?x?"
    bound = load_onnx(model, {"a": (5, 3)})
    main = graph.main_function(bound.module)
    assert [graph.tensor_type(v).shape for v in main.block.args] == [(5, 3), (5, Sym("b_1"))]
    assert bound.free == {"b": ("5", "?")}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1,)}, '--shape names "z", and the inputs are a, b'),
        ({"a": (1,)}, "1 dims, and the model has it as ?x3"),
        ({"a": (2, 4)}, "the extent 4 where the model has 3"),
        ({"a": (2, 3), "b": (4, 3)}, 'the dim "n" of "b" 4, and that of "a" 2'),
        ({"a": (-2, 3)}, "extents are at least 0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    model = make([node("Add", ["a", "b"], ["y"])], {"a": (["n", 3], F), "b": (["n", None], F)}, ["y"])
    with pytest.raises(InputError) as error:
        import_onnx(model, shapes)
    assert message in str(error.value)


def test_of_dims_that_cannot_be_shown_equal_the_larger_is_taken() -> None:
    model = make([node("Add", ["a", "b"], ["y"])], {"a": (["n"], F), "b": (["m"], F)}, ["y"])
    (y,) = graph.main_function(import_onnx(model)).block.terminator.operands
    assert graph.tensor_type(y).shape == (maximum(Sym("n"), Sym("m")),)


def test_functions_of_the_model_are_expanded_with_their_attributes() -> None:
    inner = helper.make_function(
        "own", "Scaled", ["u"], ["v"], [node("LeakyRelu", ["u"], ["v"])], [helper.make_opsetid("", 21)], ["alpha"]
    )
    ref = inner.node[0].attribute.add()
    ref.name, ref.ref_attr_name, ref.type = "alpha", "alpha", onnx.AttributeProto.FLOAT
    outer = helper.make_function(
        "own", "Twice", ["p"], ["q"],
        [node("Scaled", ["p"], ["t"], domain="own", alpha=0.5), node("Scaled", ["t"], ["q"], domain="own", alpha=0.25)],
        [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    model = make([node("Twice", ["x"], ["y"], domain="own", name="top")], {"x": ((3,), F)}, ["y"],
                 functions=[inner, outer], domains=[helper.make_opsetid("own", 1)])  # fmt: skip
    module = import_onnx(model)
    ops = [op for op in graph.main_function(module).block.ops if isinstance(op, graph.LeakyRelu)]
    assert [op.alpha for op in ops] == [0.5, 0.25]
    assert ops[0].loc == ("top/Scaled_0/LeakyRelu_0",)
    np.testing.assert_allclose(interpret(module, [np.float32([-8, 0, 2])])["y"], [-1, 0, 2])


def test_functions_that_call_each_other_are_refused() -> None:
    a = helper.make_function("own", "A", ["u"], ["v"], [node("B", ["u"], ["v"], domain="own")],
                             [helper.make_opsetid("own", 1)])  # fmt: skip
    b = helper.make_function("own", "B", ["u"], ["v"], [node("A", ["u"], ["v"], domain="own")],
                             [helper.make_opsetid("own", 1)])  # fmt: skip
    model = make([node("A", ["x"], ["y"], domain="own")], {"x": ((3,), F)}, ["y"], functions=[a, b],
                 domains=[helper.make_opsetid("own", 1)])  # fmt: skip
    with pytest.raises(InputError, match="A → B → A"):
        import_onnx(model)


def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=output)])


def if_model() -> onnx.ModelProto:
    then = branch("t", [node("Mul", ["x", "w"], ["a"], name="inner")], "a")
    other = branch("e", [node("Relu", ["x"], ["r"]), node("Sub", ["r", "w"], ["b"])], "b")
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other, name="choose"),
    ]
    return make(nodes, {"x": ((4,), F)}, ["y"], 13, {"zero": np.float32(0), "w": np.float32([1, 2, 3, 4])})


def test_if_becomes_regions_that_use_outer_values() -> None:
    module = same_as_peer(if_model(), {"x": np.float32([1, 2, -1, 5])})
    same_as_peer(if_model(), {"x": np.float32([1, 2, -9, 5])})
    (op,) = [o for o in graph.main_function(module).block.ops if isinstance(o, graph.If)]
    inner = next(op.then.block.ops)
    assert inner.loc == ("choose/inner",)


def test_an_if_that_is_known_leaves_its_branch() -> None:
    model = if_model()
    model.graph.node[1].CopyFrom(node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(False))))
    assert names(import_onnx(model)) == ["graph.relu", "graph.sub"]


def loop_model(trips: bool) -> onnx.ModelProto:
    """y = x · 2 ** trips, and all the steps."""
    body = helper.make_graph(
        [node("Add", ["v", "v"], ["w"]), node("Identity", ["c"], ["c2"]), node("Identity", ["w"], ["scan"])],
        "body",
        [helper.make_tensor_value_info("i", I, ()), helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
         helper.make_tensor_value_info("v", F, (2,))],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, ()), helper.make_tensor_value_info("w", F, (2,)),
         helper.make_tensor_value_info("scan", F, (2,))],
    )  # fmt: skip
    inputs: dict[str, Any] = {"x": ((2,), F)}
    constants = {"n": np.int64(3)} if trips else {}
    if not trips:
        inputs["n"] = ((), I)
    return make([node("Loop", ["n", "", "x"], ["y", "all"], body=body)], inputs, ["y", "all"], 13, constants)


def test_a_loop_of_known_length_is_unrolled() -> None:
    module = same_as_peer(loop_model(True), {"x": np.float32([1, 2])})
    assert "graph.loop" not in names(module)


def test_a_loop_of_unknown_length_is_a_region() -> None:
    module = import_onnx(loop_model(False))
    verify(module)
    assert names(module) == ["graph.loop"]
    got = interpret(module, {"x": np.float32([1, 2]), "n": np.array(4)})
    np.testing.assert_array_equal(got["y"], [16, 32])
    assert got["all"].shape == (4, 2)


def test_nodes_may_come_in_any_order() -> None:
    nodes = [node("Relu", ["b"], ["y"]), node("Neg", ["a"], ["b"]), node("Abs", ["x"], ["a"])]
    model = make(nodes, {"x": ((2,), F)}, ["y"])
    assert names(import_onnx(model)) == ["graph.abs", "graph.neg", "graph.relu"]


def test_initialisers_are_named_by_content_and_known_to_be_in_the_file() -> None:
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["x", "w_again"], ["b"]), node("Add", ["a", "b"], ["y"])]
    model = make(nodes, {"x": ((4, 2), F)}, ["y"], constants={"w": w, "w_again": w, "unused": np.ones(99)})
    imported = load_onnx(model)
    constants = [op for op in imported.module.walk() if isinstance(op, graph.Constant)]
    assert len({c.value for c in constants}) == 1
    assert imported.in_file == {constants[0].value.sha256}
    np.testing.assert_array_equal(constants[0].array(), w)


def test_initialisers_that_are_also_inputs_are_constants() -> None:
    model = make([node("Add", ["x", "w"], ["y"])], {"x": ((2,), F), "w": ((2,), F)}, ["y"],
                 constants={"w": np.float32([1, 2])})  # fmt: skip
    assert graph.main_function(import_onnx(model)).arg_names == ("x",)


def test_sparse_initialisers_and_every_form_of_constant() -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([5, 7]), "w"), numpy_helper.from_array(np.int64([[0, 1], [1, 2]])), [2, 3]
    )
    nodes = [
        node("Constant", [], ["f"], value_float=2.0),
        node("Constant", [], ["fs"], value_floats=[1.0, 2.0, 3.0]),
        node("Constant", [], ["i"], value_ints=[0, 1]),
        node("Mul", ["w", "f"], ["a"]),
        node("Add", ["a", "fs"], ["b"]),
        node("Add", ["b", "x"], ["c"]),
        node("Gather", ["c", "i"], ["y"], axis=1),
    ]
    model = make(nodes, {"x": ((2, 3), F)}, ["y"])
    model.graph.sparse_initializer.append(sparse)
    got = interpret(import_onnx(model), [np.zeros((2, 3), np.float32)])["y"]
    np.testing.assert_array_equal(got, [[1, 12], [1, 2]])


def test_names_may_be_any_text() -> None:
    relu = node("Relu", ["图像 x"], ["结果/y:0"], name='Ünï\n"q"')
    model = make([relu], {"图像 x": (["批 1", 2], F)}, ["结果/y:0"])
    module = import_onnx(model)
    verify(module)
    main = graph.main_function(module)
    assert main.arg_names == ("图像 x",)
    assert main.result_names == ("结果/y:0",)
    assert next(main.block.ops).loc == ('Ünï\n"q"',)


def test_an_input_may_be_an_output() -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": ((2,), F)}, ["x", "y"])
    x = np.float32([-1, 1])
    assert set(interpret(import_onnx(model), [x])) == {"x", "y"}


def test_sequences_of_known_length_vanish(rng: np.random.Generator) -> None:
    nodes = [
        node("SplitToSequence", ["x", "sizes"], ["s"], axis=1),
        node("SequenceAt", ["s", "one"], ["a"]),
        node("SequenceConstruct", ["a", "a"], ["t"]),
        node("SequenceInsert", ["t", "a"], ["u"]),
        node("ConcatFromSequence", ["u"], ["y"], axis=0, new_axis=1),
    ]
    model = make(nodes, {"x": ((2, 5), F)}, ["y"], 13, {"sizes": np.int64([2, 3]), "one": np.int64(-1)})
    same_as_peer(model, {"x": rng.standard_normal((2, 5)).astype(np.float32)})


def test_what_no_kernel_computes_is_called_on_the_host(rng: np.random.Generator) -> None:
    model = make([node("NonZero", ["x"], ["i"]), node("Transpose", ["i"], ["y"])], {"x": ((3, 4), F)}, ["y"])
    module = same_as_peer(model, {"x": (rng.standard_normal((3, 4)) > 0).astype(np.float32)})
    assert names(module) == ["graph.host", "graph.transpose"]


@pytest.mark.parametrize("steps", [1, 5, 40])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU, before reset", "RNN"])
def test_recurrent_networks_agree_with_onnx_runtime(
    kind: str, direction: str, steps: int, rng: np.random.Generator
) -> None:
    op = kind.split(",")[0]
    gates, ways, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction == "bidirectional" else 1, 3
    shapes = {"w": (ways, gates * hidden, 4), "r": (ways, gates * hidden, hidden), "b": (ways, 2 * gates * hidden),
              "h": (ways, 2, hidden)}  # fmt: skip
    inputs, outputs = ["x", "w", "r", "b", "", "h"], ["y", "yh"]
    if op == "LSTM":
        shapes |= {"c": (ways, 2, hidden), "p": (ways, 3 * hidden)}
        inputs, outputs = [*inputs, "c", "p"], [*outputs, "yc"]
    attributes = {"linear_before_reset": 1} if "before" in kind else {}
    network = node(op, inputs, outputs, hidden_size=hidden, direction=direction, **attributes)
    constants = {k: rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()}
    model = make([network], {"x": ((steps, 2, 4), F)}, outputs, 14, constants)
    module = same_as_peer(model, {"x": rng.standard_normal((steps, 2, 4)).astype(np.float32)})
    assert names(module).count(f"graph.{op.lower()}") == ways
    assert names(module).count("graph.matmul") == 1


def test_branches_of_other_ranks_ask_for_the_dims_behind_their_condition() -> None:
    """What exporters make of a squeeze: where the extent is 1, or the value as it is."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Equal", ["n", "one"], ["c"]),
        node("If", ["c"], ["y"], name="choose", then_branch=branch("t", [node("Squeeze", ["x", "axes"], ["a"])], "a"),
             else_branch=branch("e", [node("Identity", ["x"], ["b"])], "b")),
    ]  # fmt: skip
    constants = {"zero": np.int64(0), "one": np.int64(1), "axes": np.int64([0])}
    model = make(nodes, {"x": (["n", 3], F)}, ["y"], 13, constants)
    with pytest.raises(InputError, match=r"rank 1 and 2; bind the free dims of x with --shape x=\?x3"):
        import_onnx(model)
    assert names(import_onnx(model, {"x": (1, 3)})) == ["graph.reshape"]
    assert names(import_onnx(model, {"x": (4, 3)})) == []
