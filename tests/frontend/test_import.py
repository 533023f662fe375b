# SPDX-License-Identifier: Apache-2.0
"""What the frontend makes of graphs: old operator forms, functions, control flow, free dims, folding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tcc.compiler.frontend import free_dims, how_to_bind, import_onnx, load_onnx
from tcc.compiler.interpret import interpret
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.expr import Sym
from tcc.ir.module import ModuleOp
from tcc.ir.verifier import verify


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[Sequence[int | str | None], int]],
    outputs: Sequence[str],
    opset: int = 21,
    constants: dict[str, Any] | None = None,
    **kwargs: Any,
) -> onnx.ModelProto:
    """A model; inputs are name → (shape, element type)."""
    infos = [helper.make_tensor_value_info(n, t, s) for n, (s, t) in inputs.items()]
    outs = [onnx.ValueInfoProto(name=o) for o in outputs]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    g = helper.make_graph(nodes, "g", infos, outs, held)
    imports = [helper.make_opsetid("", opset), *kwargs.pop("domains", [])]
    model = helper.make_model(g, opset_imports=imports, **kwargs)
    model.ir_version = 10 if opset > 12 else 6
    return model


def names(module: ModuleOp) -> list[str]:
    """Names of the ops of main, without constants and the end."""
    skipped = ("graph.constant", "graph.return")
    return [op.name for op in graph.main_function(module).block.ops if op.name not in skipped]


def peer(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime gives; it wants declared output types."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    inferred = onnx.shape_inference.infer_shapes(model)
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def same_as_peer(model: onnx.ModelProto, feed: dict[str, np.ndarray], shapes: Any = None) -> ModuleOp:
    module = import_onnx(model, shapes)
    verify(module)
    got = interpret(module, feed)
    for name, want in zip([o.name for o in model.graph.output], peer(model, feed), strict=True):
        assert got[name].shape == want.shape
        assert got[name].dtype == want.dtype
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)
    return module


F, I = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node

OLD_FORMS: dict[str, tuple[int, list[onnx.NodeProto], tuple[int, ...], dict[str, Any]]] = {
    "softmax-11 over several dims": (11, [node("Softmax", ["x"], ["y"], axis=1)], (2, 3, 4), {}),
    "log-softmax-11, last dim": (11, [node("LogSoftmax", ["x"], ["y"], axis=-1)], (2, 3, 4), {}),
    "hardmax-11": (11, [node("Hardmax", ["x"], ["y"], axis=1)], (2, 3, 4), {}),
    "softmax-13": (13, [node("Softmax", ["x"], ["y"], axis=1)], (2, 3, 4), {}),
    "clip-6": (10, [node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], (5, 4), {}),
    "clip-11, one bound": (11, [node("Clip", ["x", "", "hi"], ["y"])], (5, 4), {"hi": np.float32(0.1)}),
    "clip-11, no bounds": (11, [node("Clip", ["x"], ["y"])], (5, 4), {}),
    "slice-1": (9, [node("Slice", ["x"], ["y"], starts=[1, -3], ends=[3, 9999], axes=[0, 2])], (4, 2, 5), {}),
    "slice-10, backwards": (
        10,
        [node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        (4, 5),
        {"s": np.int64([-1]), "e": np.int64([-99]), "a": np.int64([1]), "t": np.int64([-2])},
    ),
    "slice-10, empty": (10, [node("Slice", ["x", "s", "e"], ["y"])], (4, 5), {"s": np.int64([3]), "e": np.int64([1])}),
    "squeeze-1": (11, [node("Squeeze", ["x"], ["y"], axes=[0, -1])], (1, 3, 1), {}),
    "squeeze-13, all": (13, [node("Squeeze", ["x"], ["y"])], (1, 3, 1), {}),
    "unsqueeze-1": (11, [node("Unsqueeze", ["x"], ["y"], axes=[0, 3])], (2, 3), {}),
    "unsqueeze-13, unordered": (13, [node("Unsqueeze", ["x", "a"], ["y"])], (2, 3), {"a": np.int64([3, 0])}),
    "split-2": (11, [node("Split", ["x"], ["y", "z"], axis=1, split=[2, 3])], (2, 5), {}),
    "split-13": (13, [node("Split", ["x", "p"], ["y", "z"], axis=-1)], (2, 5), {"p": np.int64([1, 4])}),
    "split-18, uneven": (18, [node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2)], (2, 5), {}),
    "pad-2": (10, [node("Pad", ["x"], ["y"], pads=[1, 0, 0, 2], value=0.5)], (2, 3), {}),
    "pad-11, reflect": (11, [node("Pad", ["x", "p"], ["y"], mode="reflect")], (4, 5), {"p": np.int64([1, 2, 3, 0])}),
    "pad-11, crops": (11, [node("Pad", ["x", "p"], ["y"])], (4, 5), {"p": np.int64([-1, 2, 0, -2])}),
    "pad-18, axes": (
        18,
        [node("Pad", ["x", "p", "v", "a"], ["y"])],
        (4, 5),
        {"p": np.int64([1, 2]), "v": np.float32(3), "a": np.int64([-1])},
    ),
    "reduce-sum-11": (11, [node("ReduceSum", ["x"], ["y"], axes=[-1], keepdims=0)], (2, 3, 4), {}),
    "reduce-sum-13, no-op": (13, [node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)], (2, 3), {}),
    "reduce-log-sum-exp-13": (13, [node("ReduceLogSumExp", ["x"], ["y"], axes=[1])], (2, 3, 4), {}),
    "reduce-l2-18": (18, [node("ReduceL2", ["x", "a"], ["y"], keepdims=0)], (2, 3, 4), {"a": np.int64([0, 2])}),
    "gemm-9, transposed": (
        9,
        [node("Gemm", ["x", "w", "c"], ["y"], alpha=0.5, beta=2.0, transB=1)],
        (3, 4),
        {"w": np.arange(8, dtype=np.float32).reshape(2, 4), "c": np.float32([1, 2])},
    ),
    "gemm-11, no C": (11, [node("Gemm", ["x", "w"], ["y"])], (3, 4), {"w": np.ones((4, 2), np.float32)}),
    "top-k-1": (9, [node("TopK", ["x"], ["y", "z"], axis=1, k=2)], (3, 5), {}),
    "top-k-11, smallest": (
        11,
        [node("TopK", ["x", "k"], ["y", "z"], axis=0, largest=0)],
        (5, 3),
        {"k": np.int64([2])},
    ),
    "batch-normalization-7": (
        8,
        [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])],
        (2, 3, 4, 4),
        {k: np.float32([0.5, 1, 2]) for k in "sbmv"},
    ),
    "max-pool, ceil": (12, [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 3], ceil_mode=1)],
                       (1, 2, 6, 7), {}),
    "max-pool with indices": (12, [node("MaxPool", ["x"], ["y", "z"], kernel_shape=[2, 2], strides=[2, 2])],
                              (2, 2, 6, 6), {}),
    "average-pool, ceil, padded": (
        19,
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
              count_include_pad=1)],
        (1, 2, 6, 7),
        {},
    ),
    "average-pool, same": (
        11, [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        (1, 2, 5, 6), {},
    ),
    "lp-pool": (18, [node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=2)], (1, 2, 5, 6), {}),
    "conv, same lower": (
        11,
        [node("Conv", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_LOWER")],
        (1, 2, 6, 5),
        {"w": np.linspace(-1, 1, 36, dtype=np.float32).reshape(2, 2, 3, 3)},
    ),
    "conv, 1-D grouped dilated": (
        11,
        [node("Conv", ["x", "w", "b"], ["y"], group=2, dilations=[2], pads=[2, 1])],
        (2, 4, 9),
        {"w": np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 2, 3), "b": np.arange(6, dtype=np.float32)},
    ),
    "conv-transpose, output shape": (
        11,
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[3, 2], output_shape=[10, 8])],
        (1, 2, 3, 3),
        {"w": np.linspace(-1, 1, 36, dtype=np.float32).reshape(2, 2, 3, 3)},
    ),
    "conv-transpose, same upper": (
        11,
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER")],
        (1, 2, 3, 3),
        {"w": np.linspace(-1, 1, 36, dtype=np.float32).reshape(2, 2, 3, 3)},
    ),
    "upsample-7": (7, [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 3.0])], (1, 2, 3, 4), {}),
    "upsample-9, linear": (9, [node("Upsample", ["x", "s"], ["y"], mode="linear")], (1, 2, 3, 4),
                           {"s": np.float32([1, 1, 2, 2])}),
    "resize-10, nearest, larger": (10, [node("Resize", ["x", "s"], ["y"])], (1, 1, 3, 4),
                                   {"s": np.float32([1, 1, 1.7, 2.3])}),
    "resize-10, nearest, smaller": (10, [node("Resize", ["x", "s"], ["y"])], (1, 1, 6, 8),
                                    {"s": np.float32([1, 1, 0.6, 0.7])}),
    "resize-11, align corners": (
        11,
        [node("Resize", ["x", "r", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners")],
        (1, 1, 3, 4),
        {"r": np.float32([]), "s": np.float32([1, 1, 2, 2])},
    ),
    "resize-13, sizes, cubic": (
        13,
        [node("Resize", ["x", "", "", "z"], ["y"], mode="cubic", cubic_coeff_a=-0.5)],
        (1, 1, 5, 4),
        {"z": np.int64([1, 1, 8, 9])},
    ),
    "resize-18, axes, antialias": (
        18,
        [node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1, axes=[2, 3])],
        (1, 1, 8, 8),
        {"s": np.float32([0.5, 0.6])},
    ),
    "reshape with 0 and -1": (13, [node("Reshape", ["x", "s"], ["y"])], (2, 3, 4), {"s": np.int64([0, -1])}),
    "flatten, axis 0": (13, [node("Flatten", ["x"], ["y"], axis=0)], (2, 3, 4), {}),
    "depth-to-space, crd": (13, [node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], (1, 8, 2, 3), {}),
    "space-to-depth": (13, [node("SpaceToDepth", ["x"], ["y"], blocksize=2)], (1, 2, 4, 6), {}),
    "lrn": (13, [node("LRN", ["x"], ["y"], size=3, alpha=0.5, beta=0.6, bias=2.0)], (1, 5, 2, 2), {}),
    "mean-variance": (13, [node("MeanVarianceNormalization", ["x"], ["y"])], (2, 3, 4, 4), {}),
    "instance-normalization": (
        13, [node("InstanceNormalization", ["x", "s", "b"], ["y"])], (2, 3, 4, 4),
        {"s": np.float32([0.5, 1, 2]), "b": np.float32([0, 1, -1])},
    ),
    "group-normalization-18": (
        18, [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)], (2, 4, 3, 3),
        {"s": np.float32([0.5, 2]), "b": np.float32([1, -1])},
    ),
    "group-normalization-21": (
        21, [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)], (2, 4, 3, 3),
        {"s": np.float32([0.5, 2, 1, 3]), "b": np.float32([1, -1, 0, 2])},
    ),
    "layer-normalization, middle axis": (
        17, [node("LayerNormalization", ["x", "s"], ["y", "m", "v"], axis=1)], (2, 3, 4),
        {"s": np.linspace(0.5, 2, 12, dtype=np.float32).reshape(3, 4)},
    ),
    "cum-sum, reverse exclusive": (14, [node("CumSum", ["x", "a"], ["y"], reverse=1, exclusive=1)], (2, 4),
                                   {"a": np.int64(1)}),
    "one-hot": (
        13, [node("ArgMax", ["x"], ["i"], axis=1, keepdims=0), node("OneHot", ["i", "d", "v"], ["y"], axis=0)], (3, 5),
        {"d": np.int64(5), "v": np.float32([-1, 2])},
    ),
    "sum and mean of many": (13, [node("Sum", ["x", "x", "w"], ["y"]), node("Mean", ["x", "w"], ["z"])], (2, 3),
                             {"w": np.float32([[1], [2]])}),
    "einsum": (13, [node("Einsum", ["x", "w"], ["y"], equation="...ij,kj->...ki")], (2, 3, 4),
               {"w": np.linspace(0, 1, 20, dtype=np.float32).reshape(5, 4)}),
    "einsum, diagonal": (13, [node("Einsum", ["x"], ["y"], equation="bii->ib")], (2, 4, 4), {}),
    "integer division and power": (
        13, [node("Cast", ["x"], ["i"], to=TensorProto.INT32), node("Div", ["i", "w"], ["y"]),
             node("Pow", ["i", "e"], ["z"])],
        (3, 4), {"w": np.int32([2]), "e": np.float32(2)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD_FORMS)
def test_operator_forms_agree_with_onnx_runtime(name: str, rng: np.random.Generator) -> None:
    opset, nodes, shape, constants = OLD_FORMS[name]
    outputs = [o for n in nodes for o in n.output if o != "i"]
    model = make(nodes, {"x": (shape, F)}, outputs, opset, constants)
    same_as_peer(model, {"x": (rng.standard_normal(shape) * 3).astype(np.float32)})


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


def test_dims_that_cannot_be_shown_equal_ask_to_be_bound() -> None:
    model = make([node("Add", ["a", "b"], ["y"])], {"a": (["n"], F), "b": (["m"], F)}, ["y"])
    with pytest.raises(InputError, match=r"--shape a=\? --shape b=\?"):
        import_onnx(model)


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
    model = make([node("Relu", ["x"], ["y"])], {"x": ((2,), F)}, ["x", "y", "y"])
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
    lstm = node("LSTM", ["x", "w", "r"], ["", "h", "c"], hidden_size=3)
    constants = {"w": rng.standard_normal((1, 12, 4)), "r": rng.standard_normal((1, 12, 3))}
    model = make([lstm], {"x": ((5, 2, 4), F)}, ["h", "c"], 14, {k: v.astype(np.float32) for k, v in constants.items()})
    same_as_peer(model, {"x": rng.standard_normal((5, 2, 4)).astype(np.float32)})
