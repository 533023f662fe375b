# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for tests of the whole compiler."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str] | None],
    weights: dict[str, np.ndarray] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A checked model at opset 17, IR version 10."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, dtype, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def normal(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers of unit variance, f32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cnn(batch: int | str = 1) -> onnx.ModelProto:
    """Convolutions of all kinds, batch norm, a residual, squeeze-and-excite, a concat, pooling and a classifier."""
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "w0"], ["c0"], "stem", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        n("BatchNormalization", ["c0", "s", "b", "m", "v"], ["n0"], "norm"),
        n("Relu", ["n0"], ["r0"], "relu"),
        n("Conv", ["r0", "wd"], ["d0"], "depthwise", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=16),
        n("HardSwish", ["d0"], ["h0"], "hswish"),
        n("GlobalAveragePool", ["h0"], ["g0"], "squeeze"),
        n("Conv", ["g0", "ws"], ["e0"], "excite", kernel_shape=[1, 1]),
        n("Sigmoid", ["e0"], ["e1"], "gate"),
        n("Mul", ["h0", "e1"], ["q0"], "scale"),
        n("Conv", ["q0", "w1", "b1"], ["p0"], "project", kernel_shape=[1, 1]),
        n("Add", ["p0", "r0"], ["a0"], "residual"),
        n("MaxPool", ["a0"], ["mp"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        n("Conv", ["a0", "w2"], ["c2"], "branch", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        n("Concat", ["mp", "c2"], ["cat"], "concat", axis=1),
        n("GlobalAveragePool", ["cat"], ["gap"], "average"),
        n("Flatten", ["gap"], ["flat"], "flatten"),
        n("Gemm", ["flat", "wf", "bf"], ["logits"], "classifier", transB=1),
        n("Softmax", ["logits"], ["y"], "softmax", axis=-1),
    ]
    weights = {
        "w0": normal(0, 16, 3, 3, 3) / 5, "s": normal(1, 16) ** 2 + 0.5, "b": normal(2, 16), "m": normal(3, 16),
        "v": normal(4, 16) ** 2 + 0.5, "wd": normal(5, 16, 1, 3, 3) / 3, "ws": normal(6, 16, 16, 1, 1) / 4,
        "w1": normal(7, 16, 16, 1, 1) / 4, "b1": normal(8, 16), "w2": normal(9, 24, 16, 3, 3) / 12,
        "wf": normal(10, 10, 40) / 6, "bf": normal(11, 10),
    }  # fmt: skip
    return model(nodes, {"x": [batch, 3, 33, 31]}, {"y": [batch, 10]}, weights)


def transformer(tokens: int = 13, width: int = 32, heads: int = 4) -> onnx.ModelProto:
    """One encoder layer: norm, attention with three projections, residuals, an erf GELU MLP."""
    n = helper.make_node
    depth = width // heads
    nodes = [n("LayerNormalization", ["x", "s0", "b0"], ["h"], "norm0", axis=-1)]
    for name in "qkv":
        nodes += [
            n("MatMul", ["h", f"w{name}"], [f"{name}0"], f"{name}_proj"),
            n("Add", [f"{name}0", f"b{name}"], [f"{name}1"], f"{name}_bias"),
            n("Reshape", [f"{name}1", "split"], [f"{name}2"], f"{name}_split"),
            n("Transpose", [f"{name}2"], [f"{name}3"], f"{name}_heads", perm=[0, 2, 1, 3]),
        ]
    nodes += [
        n("Transpose", ["k3"], ["kt"], "k_turned", perm=[0, 1, 3, 2]),
        n("MatMul", ["q3", "kt"], ["s1"], "scores"),
        n("Div", ["s1", "root"], ["s2"], "scale"),
        n("Softmax", ["s2"], ["p"], "softmax", axis=-1),
        n("MatMul", ["p", "v3"], ["o0"], "mix"),
        n("Transpose", ["o0"], ["o1"], "merge_heads", perm=[0, 2, 1, 3]),
        n("Reshape", ["o1", "merge"], ["o2"], "merge"),
        n("MatMul", ["o2", "wo"], ["o3"], "out_proj"),
        n("Add", ["o3", "x"], ["r0"], "residual0"),
        n("LayerNormalization", ["r0", "s1n", "b1n"], ["h1"], "norm1", axis=-1),
        n("MatMul", ["h1", "w1"], ["f0"], "fc1"),
        n("Add", ["f0", "bf1"], ["f1"], "fc1_bias"),
        n("Div", ["f1", "root2"], ["g0"], "gelu_div"),
        n("Erf", ["g0"], ["g1"], "gelu_erf"),
        n("Add", ["g1", "one"], ["g2"], "gelu_add"),
        n("Mul", ["f1", "g2"], ["g3"], "gelu_mul"),
        n("Mul", ["g3", "half"], ["g4"], "gelu_half"),
        n("MatMul", ["g4", "w2"], ["f2"], "fc2"),
        n("Add", ["f2", "r0"], ["y"], "residual1"),
    ]
    scale = 1 / np.sqrt(width).astype(np.float32)
    weights = {
        "s0": normal(0, width) ** 2 + 0.5, "b0": normal(1, width), "s1n": normal(2, width) ** 2 + 0.5,
        "b1n": normal(3, width), "wo": normal(4, width, width) * scale, "w1": normal(5, width, 4 * width) * scale,
        "bf1": normal(6, 4 * width), "w2": normal(7, 4 * width, width) * scale / 2,
        "root": np.array(np.sqrt(depth), np.float32), "root2": np.array(np.sqrt(2), np.float32),
        "one": np.array(1, np.float32), "half": np.array(0.5, np.float32),
        "split": np.array([1, tokens, heads, depth]), "merge": np.array([1, tokens, width]),
    }  # fmt: skip
    for i, name in enumerate("qkv"):
        weights |= {f"w{name}": normal(10 + i, width, width) * scale, f"b{name}": normal(20 + i, width)}
    return model(nodes, {"x": [1, tokens, width]}, {"y": [1, tokens, width]}, weights)


def branching() -> onnx.ModelProto:
    """An If on the sum of the input, whose branches are a matmul and a convolution-free chain, with captures."""
    n = helper.make_node
    value = helper.make_tensor_value_info

    def branch(name: str, nodes: list[onnx.NodeProto], out: str) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [value(out, TensorProto.FLOAT, [5, 7])])

    then = branch("then", [n("MatMul", ["x", "w"], ["t0"], "product"), n("Tanh", ["t0"], ["t1"], "tanh")], "t1")
    other = branch("other", [n("Mul", ["x", "x"], ["e0"], "square"), n("Sub", ["e0", "x"], ["e1"], "minus")], "e1")
    nodes = [
        n("ReduceSum", ["x"], ["total"], "total", keepdims=0),
        n("Greater", ["total", "zero"], ["positive"], "positive"),
        n("If", ["positive"], ["z"], "choice", then_branch=then, else_branch=other),
        n("Add", ["z", "x"], ["y"], "after"),
    ]
    weights = {"w": normal(0, 7, 7), "zero": np.array(0, np.float32)}
    return model(nodes, {"x": [5, 7]}, {"y": [5, 7]}, weights)
