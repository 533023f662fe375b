# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models with extents that data decide, each with inputs that make those extents differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

Arrays = dict[str, np.ndarray]
n = helper.make_node


@dataclass(frozen=True)
class Dynamic:
    """A model and inputs to run it on, one after another on one engine."""

    model: onnx.ModelProto
    inputs: list[Arrays]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _model(nodes: list[onnx.NodeProto], like: Arrays, outputs: dict[str, int], weights: Arrays) -> onnx.ModelProto:
    """A model whose inputs are like those arrays; `outputs`: element types."""
    graph = helper.make_graph(
        nodes,
        "dynamic",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for k, a in like.items()],
        [helper.make_tensor_value_info(k, t, None) for k, t in outputs.items()],
        [numpy_helper.from_array(a, k) for k, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _mask(seed: int, size: int, count: int) -> np.ndarray:
    out = np.zeros(size, np.float32)
    out[np.random.default_rng(seed).permutation(size)[:count]] = 1
    return out


def float_ranges() -> Dynamic:
    """Ranges of floats, and of integers downwards, whose lengths data decide."""
    nodes = [
        n("NonZero", ["mask"], ["places"], "find"),
        n("Shape", ["places"], ["shape"], "shape"),
        n("Gather", ["shape", "one"], ["count"], "count"),
        n("Cast", ["count"], ["extent"], "to_float", to=T.FLOAT),
        n("Range", ["f0", "extent", "f1"], ["whole"], "whole"),
        n("Range", ["f0", "extent", "half"], ["halves"], "halves"),
        n("Range", ["extent", "f0", "down"], ["falling"], "falling"),
        n("Range", ["count", "zero", "minus"], ["back"], "back"),
        n("Tanh", ["halves"], ["y"], "tanh"),
    ]
    runs = [{"mask": _mask(i, 20, k)} for i, k in enumerate((20, 7, 1, 0))]
    weights = {
        "one": np.int64(1), "zero": np.int64(0), "minus": np.int64(-2), "f0": np.float32(0), "f1": np.float32(1),
        "half": np.float32(0.5), "down": np.float32(-1.5),
    }  # fmt: skip
    types = {"y": T.FLOAT, "whole": T.FLOAT, "falling": T.FLOAT, "back": T.INT64}
    return Dynamic(_model(nodes, runs[0], types, weights), runs)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def non_zero() -> Dynamic:
    """NonZero → Gather → MatMul → Softmax."""
    nodes = [
        n("NonZero", ["mask"], ["places"], "find"),
        n("Squeeze", ["places", "zero"], ["rows"], "row"),
        n("Gather", ["x", "rows"], ["picked"], "pick", axis=0),
        n("MatMul", ["picked", "w"], ["product"], "multiply"),
        n("Add", ["product", "b"], ["biased"], "bias"),
        n("Softmax", ["biased"], ["y"], "softmax", axis=-1),
    ]
    runs = [{"x": normal(i, 20, 8), "mask": _mask(i, 20, k)} for i, k in enumerate((20, 7, 1, 0))]
    weights = {"w": normal(8, 8, 5), "b": normal(9, 5), "zero": _ints(0)}
    return Dynamic(_model(nodes, runs[0], {"y": T.FLOAT}, weights), runs)


def detector() -> Dynamic:
    """The tail of a detector: NonMaxSuppression, boxes and scores of what is left, the best of them as one table."""
    nodes = [
        n("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "threshold"], ["kept"], "nms"),
        n("Gather", ["kept", "two"], ["place"], "place", axis=1),
        n("Gather", ["kept", "one"], ["label"], "label", axis=1),
        n("Squeeze", ["boxes", "first"], ["flat"], "flat"),
        n("Gather", ["flat", "place"], ["picked"], "boxes_of", axis=0),
        n("Reshape", ["picked", "four"], ["rows"], "rows"),
        n("Mul", ["rows", "scale"], ["scaled"], "scale_up"),
        n("Slice", ["kept", "l", "h", "ax"], ["pair"], "pair"),
        n("Slice", ["kept", "z", "o", "ax"], ["batch"], "batch"),
        n("Concat", ["batch", "pair"], ["index"], "index", axis=1),
        n("GatherND", ["scores", "index"], ["score"], "scores_of"),
        n("Unsqueeze", ["score", "axis1"], ["column"], "column"),
        n("Cast", ["label"], ["label_f"], "label_float", to=T.FLOAT),
        n("Reshape", ["label_f", "minus_one_by_one"], ["label_column"], "label_column"),
        n("Concat", ["scaled", "column", "label_column"], ["table"], "table", axis=1),
        n("ReduceMax", ["table"], ["best"], "best", axes=[1], keepdims=0),
        n("Sigmoid", ["table"], ["y"], "out"),
    ]
    rng = np.random.default_rng(5)
    corner, size = rng.uniform(0, 10, (1, 30, 2)), rng.uniform(1, 4, (1, 30, 2))
    boxes = np.concatenate([corner, corner + size], -1).astype(np.float32)
    runs: list[Arrays] = [
        {"boxes": boxes, "scores": (rng.random((1, 2, 30)) * f).astype(np.float32)} for f in (1.0, 0.7, 0.31, 0.1)
    ]
    weights = {
        "most": _ints(10), "overlap": np.float32([0.4]), "threshold": np.float32([0.3]), "two": _ints(2),
        "one": _ints(1), "first": _ints(0), "four": _ints(-1, 4), "scale": np.float32([2, 3, 2, 3]),
        "l": _ints(1), "h": _ints(3), "z": _ints(0), "o": _ints(1), "ax": _ints(1), "axis1": _ints(1),
        "minus_one_by_one": _ints(-1, 1),
    }  # fmt: skip
    return Dynamic(_model(nodes, runs[0], {"y": T.FLOAT, "best": T.FLOAT}, weights), runs)


def unique() -> Dynamic:
    """Unique → ScatterElements, and what scaled values were found."""
    nodes = [
        n("Unique", ["ids"], ["found", "first", "inverse", "counts"], "unique", sorted=1),
        n("Cast", ["found"], ["values"], "values", to=T.FLOAT),
        n("Mul", ["values", "half"], ["scaled"], "scale"),
        n("Cast", ["counts"], ["counts_f"], "counts_float", to=T.FLOAT),
        n("Mul", ["counts_f", "values"], ["weighted"], "weigh"),
        n("ScatterElements", ["x", "first", "weighted"], ["y"], "scatter", axis=0),
        n("Exp", ["scaled"], ["z"], "out"),
    ]
    rng = np.random.default_rng(3)
    runs = [{"x": normal(i, 16), "ids": rng.integers(0, m, 16).astype(np.int64)} for i, m in enumerate((16, 4, 1))]
    return Dynamic(_model(nodes, runs[0], {"y": T.FLOAT, "z": T.FLOAT}, {"half": np.float32([0.5])}), runs)


def compress() -> Dynamic:
    """Compress → LayerNorm → Gemm."""
    nodes = [
        n("Compress", ["x", "keep"], ["rows"], "keep_rows", axis=0),
        n("LayerNormalization", ["rows", "s", "b"], ["normal"], "norm", axis=-1),
        n("Gemm", ["normal", "w", "c"], ["product"], "gemm", transB=1),
        n("Relu", ["product"], ["y"], "relu"),
        n("ReduceMean", ["y"], ["mean"], "mean", axes=[0], keepdims=1),
    ]
    runs = [{"x": normal(i, 12, 24), "keep": _mask(i, 12, k) > 0} for i, k in enumerate((12, 5, 1))]
    weights = {"s": normal(5, 24) ** 2 + 0.5, "b": normal(6, 24), "w": normal(7, 10, 24), "c": normal(8, 10)}
    return Dynamic(_model(nodes, runs[0], {"y": T.FLOAT, "mean": T.FLOAT}, weights), runs)


def branches() -> Dynamic:
    """If with branches of different shapes, then ReduceSum."""
    info = helper.make_tensor_value_info
    then = helper.make_graph(
        [n("Slice", ["x", "zero", "three", "zero"], ["t0"], "part"), n("Mul", ["t0", "two"], ["t1"], "double")],
        "then", [], [info("t1", T.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [n("Concat", ["x", "x"], ["e0"], "twice", axis=0)], "else", [], [info("e0", T.FLOAT, None)]
    )
    nodes = [
        n("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        n("Greater", ["sum", "limit"], ["positive"], "positive"),
        n("If", ["positive"], ["either"], "choose", then_branch=then, else_branch=other),
        n("Relu", ["either"], ["rectified"], "relu"),
        n("ReduceSum", ["rectified", "zero"], ["y"], "sum_of", keepdims=0),
        n("Tanh", ["either"], ["z"], "out"),
    ]
    x = np.abs(normal(4, 6, 5))
    weights = {"zero": _ints(0), "three": _ints(3), "two": np.float32([2]), "limit": np.float32(0)}
    return Dynamic(_model(nodes, {"x": x}, {"y": T.FLOAT, "z": T.FLOAT}, weights), [{"x": x}, {"x": -x}, {"x": x}])


def ranges() -> Dynamic:
    """Range up to the largest of some numbers → Mul, and a reshape to a computed shape."""
    nodes = [
        n("ReduceMax", ["lengths"], ["longest"], "longest", keepdims=0),
        n("Range", ["zero", "longest", "one"], ["places"], "places"),
        n("Cast", ["places"], ["numbers"], "numbers", to=T.FLOAT),
        n("Mul", ["numbers", "half"], ["y"], "scale"),
        n("Unsqueeze", ["lengths", "axis1"], ["columns"], "columns"),
        n("Less", ["places", "columns"], ["mask"], "mask"),
        n("Unsqueeze", ["longest", "axis0"], ["size"], "size"),
        n("Concat", ["size", "minus_one"], ["shape"], "shape", axis=0),
        n("Slice", ["x", "start", "size", "axis0"], ["cut"], "cut"),
        n("Reshape", ["cut", "shape"], ["rows"], "rows"),
        n("Concat", ["two", "size", "one_by"], ["wide"], "wide", axis=0),
        n("Expand", ["rows", "wide"], ["many"], "many"),
        n("Tanh", ["many"], ["z"], "out"),
        n("ConstantOfShape", ["size"], ["fours"], "fours", value=numpy_helper.from_array(np.int64([4]))),
        n("Add", ["fours", "places"], ["w"], "add"),
    ]
    runs = [{"x": normal(i, 12, 6), "lengths": _ints(*v)} for i, v in enumerate(((3, 12, 5), (1, 1, 1), (4, 2, 6)))]
    weights = {
        "zero": np.int64(0), "one": np.int64(1), "half": np.float32([0.5]), "axis1": _ints(1), "axis0": _ints(0),
        "minus_one": _ints(-1), "start": _ints(0), "two": _ints(2), "one_by": _ints(1),
    }  # fmt: skip
    types = {"y": T.FLOAT, "mask": T.BOOL, "z": T.FLOAT, "w": T.INT64}
    return Dynamic(_model(nodes, runs[0], types, weights), runs)


def computed_operands() -> Dynamic:
    """Operands that others compute: k of TopK, repeats of Tile, pads of Pad, depth of OneHot, parts of Split."""
    nodes = [
        n("ReduceMax", ["lengths"], ["k"], "k", keepdims=1),
        n("TopK", ["x", "k"], ["best", "where"], "best", axis=1),
        n("Exp", ["best"], ["y"], "exp"),
        n("Concat", ["k", "one"], ["repeats"], "repeats", axis=0),
        n("Tile", ["x", "repeats"], ["tiled"], "tile"),
        n("ReduceSum", ["tiled"], ["z"], "sum"),
        n("Concat", ["k", "zero", "zero", "one"], ["pads"], "pads", axis=0),
        n("Pad", ["x", "pads"], ["w"], "pad"),
        n("OneHot", ["where", "k", "values"], ["hot"], "hot"),
        n("Neg", ["hot"], ["v"], "negate"),
        n("Sub", ["width", "k"], ["others"], "others"),
        n("Concat", ["k", "others"], ["parts"], "parts", axis=0),
        n("Split", ["x", "parts"], ["left", "right"], "split", axis=1),
        n("ReduceSum", ["left", "one"], ["u"], "left_sum", keepdims=0),
        n("Concat", ["right", "left"], ["t"], "swapped", axis=1),
    ]
    runs = [{"x": normal(i, 4, 9), "lengths": _ints(*v)} for i, v in enumerate(((3, 5), (1, 1), (8, 2)))]
    weights = {
        "one": _ints(1), "zero": _ints(0), "values": np.float32([0, 2]), "width": _ints(9),
    }  # fmt: skip
    types = {"y": T.FLOAT, "z": T.FLOAT, "w": T.FLOAT, "v": T.FLOAT, "u": T.FLOAT, "t": T.FLOAT}
    return Dynamic(_model(nodes, runs[0], types, weights), runs)


def heads() -> Dynamic:
    """Attention over the rows that a mask leaves, in two heads, and joins of what has different extents."""
    nodes = [
        n("Compress", ["x", "keep"], ["rows"], "keep_rows", axis=0),
        n("Reshape", ["rows", "split"], ["parts"], "parts"),
        n("Transpose", ["parts"], ["q"], "queries", perm=[1, 0, 2]),
        n("Transpose", ["parts"], ["k"], "keys", perm=[1, 2, 0]),
        n("MatMul", ["q", "k"], ["scores"], "scores"),
        n("Softmax", ["scores"], ["weights"], "softmax", axis=-1),
        n("MatMul", ["weights", "q"], ["mixed"], "mix"),
        n("Transpose", ["mixed"], ["back"], "back", perm=[1, 0, 2]),
        n("Reshape", ["back", "join"], ["y"], "join"),
        n("Concat", ["y", "x", "rows"], ["all"], "all", axis=0),
        n("ReduceMax", ["all"], ["z"], "largest", axes=[0], keepdims=0),
        n("Size", ["rows"], ["size"], "size"),
        n("Cast", ["size"], ["w"], "count", to=T.FLOAT),
    ]
    runs = [{"x": normal(i, 11, 6), "keep": _mask(i, 11, k) > 0} for i, k in enumerate((11, 3, 1))]
    weights = {"split": _ints(-1, 2, 3), "join": _ints(-1, 6)}
    return Dynamic(_model(nodes, runs[0], {"y": T.FLOAT, "z": T.FLOAT, "w": T.FLOAT}, weights), runs)


def slices() -> Dynamic:
    """Slices of all kinds of a dim that may be shorter than they say, and operators that fall back to the host."""
    kinds = {"a": (2, 5, 1), "b": (-3, 1 << 62, 1), "c": (1, -1, 1), "d": (-1, -(1 << 62), -1), "e": (0, 1 << 62, 2)}
    weights = {"axis": _ints(0), "pads": _ints(1, 0, 2, 1), "scales": np.float32([1, 1, 2, 2]), "two": _ints(0, 1)}
    nodes = [n("Compress", ["x", "keep"], ["rows"], "keep_rows", axis=0)]
    for name, (start, end, step) in kinds.items():
        weights |= {f"{name}s": _ints(start), f"{name}e": _ints(end), f"{name}p": _ints(step)}
        nodes.append(n("Slice", ["rows", f"{name}s", f"{name}e", "axis", f"{name}p"], [f"{name}0"], f"slice_{name}"))
        nodes.append(n("Exp", [f"{name}0"], [name], f"exp_{name}"))
    nodes += [
        n("Pad", ["rows", "pads"], ["f0"], "pad", mode="edge"),
        n("Neg", ["f0"], ["f"], "negate"),
        n("Unsqueeze", ["rows", "two"], ["image"], "image"),
        n("Resize", ["image", "", "scales"], ["g0"], "resize", mode="linear"),
        n("Relu", ["g0"], ["g"], "relu"),
    ]
    runs = [{"x": normal(i, 10, 6), "keep": _mask(i, 10, k) > 0} for i, k in enumerate((10, 4, 2, 1))]
    return Dynamic(_model(nodes, runs[0], dict.fromkeys([*kinds, "f", "g"], T.FLOAT), weights), runs)


MODELS: dict[str, Callable[[], Dynamic]] = {
    "non_zero": non_zero,
    "detector": detector,
    "unique": unique,
    "compress": compress,
    "branches": branches,
    "ranges": ranges,
    "computed_operands": computed_operands,
    "heads": heads,
    "slices": slices,
    "float_ranges": float_ranges,
}
