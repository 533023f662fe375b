# SPDX-License-Identifier: Apache-2.0
"""Old and new forms of operators, and their attributes, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.frontend.onnx_models import F, make, node, same_as_peer

TF_PIXELS = "tf_half_pixel_for_nn"  # of opset 11 alone

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
    "resize-11, tf half pixel": (
        11,
        [node("Resize", ["x", "r", "s"], ["y"], nearest_mode="floor", coordinate_transformation_mode=TF_PIXELS)],
        (1, 2, 5, 4),
        {"r": np.float32([]), "s": np.float32([1, 1, 2.5, 0.7])},
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
