# SPDX-License-Identifier: Apache-2.0
"""tcc.reference against ONNX Runtime on random attributes and odd shapes: an oracle written by somebody else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.reference.onnx_graph import run_node

OPSET = 21
Rng = np.random.Generator


def runtime(node: onnx.NodeProto, inputs: list[Any], opset: int = OPSET) -> list[np.ndarray]:
    """What ONNX Runtime makes of one node."""
    kinds = [(n, v) for n, v in zip(node.input, inputs, strict=True) if n]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in kinds],
        [onnx.ValueInfoProto(name=o) for o in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(kinds))


def compare(
    op: str, inputs: list[Any], outputs: int = 1, rtol: float = 1e-4, atol: float = 1e-5, opset: int = OPSET, **kw: Any
) -> None:
    names = ["" if v is None else f"x{i}" for i, v in enumerate(inputs)]
    node = helper.make_node(
        op, names, [f"y{i}" for i in range(outputs)], **{k: v for k, v in kw.items() if v is not None}
    )
    expected = runtime(node, inputs, opset)
    actual = run_node(node, inputs)[:outputs]
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape, (kw, [np.shape(v) for v in inputs])
        assert a.dtype == e.dtype
        if e.dtype.kind in "iub":
            np.testing.assert_array_equal(a, e, err_msg=str(kw))
        else:
            np.testing.assert_allclose(a, e, rtol=rtol, atol=atol, err_msg=str(kw))


def normal(rng: Rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def pick(rng: Rng, low: int, high: int, count: int) -> list[int]:
    return rng.integers(low, high + 1, count).tolist()


@pytest.mark.parametrize("seed", range(24))
def test_conv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 3
    group = int(rng.choice([1, 1, 2, 4]))
    channels, filters = group * int(rng.integers(1, 4)), group * int(rng.integers(1, 4))
    kernel, dilations = pick(rng, 1, 3, rank), pick(rng, 1, 2, rank)
    space = [int(rng.integers(5, 9 if rank == 3 else 14)) for _ in range(rank)]
    auto = [None, None, "SAME_UPPER", "SAME_LOWER", "VALID"][int(rng.integers(0, 5))]
    compare(
        "Conv",
        [
            normal(rng, int(rng.integers(1, 3)), channels, *space),
            normal(rng, filters, channels // group, *kernel),
            normal(rng, filters) if seed % 2 else None,
        ][: 3 if seed % 2 else 2],
        strides=pick(rng, 1, 3, rank),
        dilations=dilations if auto in (None, "VALID") else [1] * rank,
        pads=None if auto else pick(rng, 0, 2, 2 * rank),
        auto_pad=auto,
        group=group,
    )


@pytest.mark.parametrize("seed", range(24))
def test_conv_transpose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 2
    group = int(rng.choice([1, 2]))
    channels, filters = group * int(rng.integers(1, 4)), int(rng.integers(1, 4))
    strides = pick(rng, 1, 3, rank)
    # Kernels of at least the stride: ONNX Runtime does not extend the output of an automatic padding below zero.
    kernel = [max(s, k) for s, k in zip(strides, pick(rng, 2, 4, rank), strict=True)]
    auto = [None, None, "SAME_UPPER", "SAME_LOWER"][seed % 4]
    compare(
        "ConvTranspose",
        [
            normal(rng, 2, channels, *pick(rng, 3, 6, rank)),
            normal(rng, channels, filters, *kernel),
            normal(rng, filters * group),
        ],
        strides=strides,
        dilations=pick(rng, 1, 2, rank) if auto is None else None,
        pads=pick(rng, 0, 1, 2 * rank) if auto is None else None,
        output_padding=[int(rng.integers(0, s)) for s in strides] if auto is None else None,
        auto_pad=auto,
        group=group,
    )


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pool(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 3
    kernel = pick(rng, 2, 3, rank)
    dilations = pick(rng, 1, 2, rank) if op != "AveragePool" else None
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations or [1] * rank, strict=True)]
    compare(
        op,
        [normal(rng, 2, 3, *[s + int(rng.integers(1, 6)) for s in spans])],
        outputs=2 if op == "MaxPool" and not any(d > 1 for d in dilations or []) else 1,
        opset=22,
        kernel_shape=kernel,
        strides=pick(rng, 1, 3, rank),
        pads=pick(rng, 0, 1, 2 * rank),
        dilations=dilations,
        ceil_mode=int(seed % 2),
        count_include_pad=int(rng.integers(0, 2)) if op == "AveragePool" else None,
        p=int(rng.integers(1, 4)) if op == "LpPool" else None,
    )


@pytest.mark.parametrize("seed", range(40))
def test_resize_linear_and_cubic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mode = ["linear", "cubic"][seed % 2]
    transform = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"][seed % 5]
    x = normal(rng, 1, 2, *pick(rng, 3, 8, 2))
    sizes = np.array([1, 2, *pick(rng, 2, 15, 2)], np.int64)
    compare(
        "Resize",
        [x, None, None, sizes],
        rtol=2e-4,
        mode=mode,
        coordinate_transformation_mode=transform,
        antialias=int(seed % 3 == 0 and transform != "half_pixel_symmetric"),
        exclude_outside=int(mode == "cubic" and seed % 4 == 1 and seed % 3 != 0),
        cubic_coeff_a=-0.5 if seed % 7 == 0 else None,
    )


@pytest.mark.parametrize("seed", range(32))
def test_resize_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = float(rng.choice([0.5, 1.5, 2.0, 2.6, 3.0]))
    compare(
        "Resize",
        [normal(rng, 1, 2, 6, 4), None, np.array([1, 1, scale, 2.0], np.float32)],
        mode="nearest",
        coordinate_transformation_mode=["half_pixel", "asymmetric"][seed % 2],
        nearest_mode=["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"][seed // 2 % 4],
    )


@pytest.mark.parametrize("seed", range(6))
def test_resize_crop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    roi = np.array([0, 0, 0.1 * seed, -0.2, 1, 1, 1.2 - 0.1 * seed, 0.9], np.float32)
    compare(
        "Resize",
        [normal(rng, 1, 2, 6, 7), roi, None, np.array([1, 2, 5, 9], np.int64)],
        mode="linear" if seed % 2 else "nearest",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.5,
    )


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (1,), (5,), (3, 1), (1, 5), (3, 5)])
def test_gemm(trans_a: int, trans_b: int, c_shape: tuple[int, ...] | None) -> None:
    rng = np.random.default_rng(0)
    a, b = normal(rng, *((7, 3) if trans_a else (3, 7))), normal(rng, *((5, 7) if trans_b else (7, 5)))
    inputs = [a, b] if c_shape is None else [a, b, normal(rng, *c_shape)]
    compare("Gemm", inputs, transA=trans_a, transB=trans_b, alpha=0.5, beta=2.0)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 1, 3, 4), (5, 4, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 3))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    compare("MatMul", [(rng.standard_normal(s) * 5).astype(dtype) for s in (a, b)])


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [None, [0], [-1], [1, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("op", ["Sum", "Mean", "Prod", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"])
def test_reduce(op: str, axes: list[int] | None, keepdims: int) -> None:
    x = np.abs(normal(np.random.default_rng(0), 2, 3, 4, 2)) + np.float32(0.1)
    inputs = [x] if axes is None else [x, np.array(axes, np.int64)]
    compare(f"Reduce{op}", inputs, keepdims=keepdims)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("last", [0, 1])
def test_arg(op: str, axis: int, last: int) -> None:
    x = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.float32)
    compare(op, [x], axis=axis, select_last_index=last, keepdims=last)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_top_k(largest: int, axis: int) -> None:
    x = np.random.default_rng(0).integers(0, 4, (5, 6)).astype(np.float32)
    compare("TopK", [x, np.array([4], np.int64)], outputs=2, largest=largest, axis=axis)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_lrn(size: int) -> None:
    compare("LRN", [normal(np.random.default_rng(0), 2, 4, 3, 5)], size=size, alpha=0.3, beta=0.6, bias=1.5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_norms(axis: int) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 3, 4, 5)
    tail = x.shape[axis if axis >= 0 else axis + 3 :]
    compare("LayerNormalization", [x, normal(rng, *tail), normal(rng, *tail)], outputs=3, axis=axis, epsilon=1e-3)
    compare("LpNormalization", [x], axis=axis, p=1 + axis % 2)
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        compare(op, [x], axis=axis)


def test_channel_norms() -> None:
    rng = np.random.default_rng(0)
    x, s, b = normal(rng, 2, 6, 3, 5), normal(rng, 6), normal(rng, 6)
    compare("BatchNormalization", [x, s, b, normal(rng, 6), np.abs(normal(rng, 6))], epsilon=1e-2)
    compare("InstanceNormalization", [x, s, b], epsilon=1e-2)
    compare("GroupNormalization", [x, s, b], num_groups=3)


UNARY = """
    Abs Neg Sign Ceil Floor Round Sqrt Reciprocal Exp Log Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh
    Erf Relu LeakyRelu ThresholdedRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Mish Softplus Softsign Gelu Shrink
"""


@pytest.mark.parametrize("op", UNARY.split())
def test_unary(op: str) -> None:
    x = np.concatenate([np.linspace(-4, 4, 33), [0.5, 1.5, 2.5, -0.0, np.inf, -np.inf, np.nan, 80.0, -80.0]])
    compare(op, [x.astype(np.float32)], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_binary(op: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    if dtype in (np.float32, np.float64):
        a, b = rng.standard_normal((3, 1, 5)).astype(dtype), np.abs(rng.standard_normal((4, 1))).astype(dtype)
        compare(op, [a if op != "Pow" else np.abs(a), b], fmod=1 if op == "Mod" else None)
    else:
        a, b = rng.integers(-9, 10, (3, 1, 5)).astype(dtype), rng.integers(1, 5, (4, 1)).astype(dtype)
        compare(op, [a, b if op == "Pow" else b * np.array([[1], [-1], [1], [-1]], dtype)])


@pytest.mark.parametrize("seed", range(30))
def test_slice_and_pad(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = normal(rng, 5, 6, 4)
    axes = rng.permutation([0, -2, 2])[: 1 + seed % 3].astype(np.int64)
    n = len(axes)
    steps = rng.choice([-3, -2, -1, 1, 2, 3], n).astype(np.int64)
    compare("Slice", [x, rng.integers(-9, 9, n), rng.integers(-9, 9, n), axes, steps])
    mode = ["constant", "reflect", "edge", "wrap"][seed % 4]
    pads = rng.integers(-1 if mode == "constant" else 0, 4, 2 * n)
    compare("Pad", [x, pads, np.array(3.5, np.float32) if seed % 8 == 0 else None, axes], mode=mode)


@pytest.mark.parametrize("seed", range(12))
def test_gather_and_scatter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-3, 3))
    x = normal(rng, 4, 5, 6)
    n = x.shape[axis]
    compare("Gather", [x, rng.integers(-n, n, (2, 3))], axis=axis)
    indices = rng.integers(-n, n, tuple(pick(rng, 1, 4, 3)))
    compare("GatherElements", [x, indices], axis=axis)
    compare("ScatterElements", [x, indices, normal(rng, *indices.shape)], axis=axis, reduction=["add", "max"][seed % 2])
    depth = 1 + seed % 3
    tuples = np.stack([rng.integers(-x.shape[i], x.shape[i], (2, 3)) for i in range(depth)], axis=-1)
    compare("GatherND", [x, tuples])
    compare("ScatterND", [x, tuples, normal(rng, 2, 3, *x.shape[depth:])], reduction=["add", "mul"][seed % 2])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("lens", [None, [4, 2, 3]])
def test_recurrent(op: str, direction: str, lens: list[int] | None) -> None:
    rng = np.random.default_rng(0)
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    d, h = (2 if direction == "bidirectional" else 1), 5
    inputs: list[Any] = [
        normal(rng, 4, 3, 6),
        normal(rng, d, gates * h, 6),
        normal(rng, d, gates * h, h),
        normal(rng, d, 2 * gates * h),
        None if lens is None else np.array(lens, np.int32),
        normal(rng, d, 3, h),
    ]
    if op == "LSTM":
        inputs += [normal(rng, d, 3, h), normal(rng, d, 3 * h)]
    extra = {"linear_before_reset": 1} if op == "GRU" and lens else {}
    names = {"RNN": ["Affine"], "GRU": ["HardSigmoid", "LeakyRelu"], "LSTM": ["HardSigmoid", "ScaledTanh", "Softsign"]}
    if op != "LSTM":
        extra["clip"] = 2.0  # ONNX Runtime also clips the LSTM's cell state itself, beyond the operator's text
    if lens:
        # Bounded: products of unbounded activations grow past any tolerance.
        extra |= {"activations": names[op] * d, "activation_alpha": [0.3, 0.4] * d, "activation_beta": [0.6, 0.7] * d}
    compare(op, inputs, outputs=3 if op == "LSTM" else 2, hidden_size=h, direction=direction, **extra)


@pytest.mark.parametrize("seed", range(12))
def test_quantised(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 256, (1, 4, 6, 5)).astype(np.uint8), rng.integers(-128, 128, (6, 2, 3, 2)).astype(np.int8)
    pads, zero = pick(rng, 0, 1, 4), np.array(117, np.uint8)
    compare("ConvInteger", [x, w.view(np.uint8), zero, np.array(9, np.uint8)], group=2, pads=pads)
    scales = [np.float32(0.02), np.abs(normal(rng, 6)) * np.float32(0.01), np.float32(0.7)]
    w_zero = np.zeros(6, np.int8)
    quantised = [x, np.array(scales[0]), zero, w, scales[1], w_zero, np.array(scales[2]), np.array(100, np.uint8)]
    compare("QLinearConv", [*quantised, rng.integers(-999, 999, 6).astype(np.int32)], group=2, pads=pads)
    a, b = rng.integers(0, 256, (3, 7)).astype(np.uint8), rng.integers(0, 256, (7, 4)).astype(np.uint8)
    compare("MatMulInteger", [a, b, np.array(12, np.uint8), np.array(130, np.uint8)])
    v = normal(rng, 3, 4, 5) * 3
    axis = seed % 3
    scale, offset = (
        np.abs(normal(rng, v.shape[axis])) + np.float32(0.01),
        rng.integers(0, 255, v.shape[axis]).astype(np.uint8),
    )
    compare("QuantizeLinear", [v, scale, offset], axis=axis)
    compare("DequantizeLinear", [rng.integers(0, 256, v.shape).astype(np.uint8), scale, offset], axis=axis)
    compare("DynamicQuantizeLinear", [v], outputs=3)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    rng = np.random.default_rng(0)
    x, grid = normal(rng, 2, 3, 5, 7), (rng.random((2, 4, 6, 2)) * 2.4 - 1.2).astype(np.float32)
    compare("GridSample", [x, grid], mode=mode, padding_mode=padding, align_corners=align)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_roi(ratio: int, transform: str) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, 9, 11)
    corners = rng.random((5, 4)) * 8
    rois = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] + 0.5], axis=1).astype(np.float32)
    batch = np.array([0, 1, 1, 0, 1], np.int64)
    compare(
        "RoiAlign",
        [x, rois, batch],
        output_height=3,
        output_width=2,
        sampling_ratio=ratio,
        spatial_scale=0.9,
        coordinate_transformation_mode=transform,
    )
    boxes = np.concatenate([batch[:, None], rois], axis=1).astype(np.float32)
    compare("MaxRoiPool", [x, boxes], pooled_shape=[3, 2], spatial_scale=0.9)


@pytest.mark.parametrize("centre", [0, 1])
@pytest.mark.parametrize("limit", [0, 2, 50])
def test_non_max_suppression(centre: int, limit: int) -> None:
    rng = np.random.default_rng(0)
    boxes, scores = rng.random((2, 30, 4)).astype(np.float32), rng.random((2, 3, 30)).astype(np.float32)
    limits = [np.array([limit], np.int64), np.array([0.3], np.float32), np.array([0.2], np.float32)]
    compare("NonMaxSuppression", [boxes, scores, *limits], center_point_box=centre)


@pytest.mark.parametrize(
    "equation", ["ij,jk->ik", "bij,bjk", "...ij->...ji", "ii->i", "i,j->ij", "bhqd,bhkd->bhqk", "ij->", "abc,cd->abd"]
)
def test_einsum(equation: str) -> None:
    rng = np.random.default_rng(0)
    size = dict(zip("abcdhijkq", [2, 3, 4, 5, 2, 4, 4, 3, 5], strict=True))
    terms = equation.split("->")[0].split(",")
    shapes = [[2, 3, 4, 4] if "..." in t else [size[c] for c in t] for t in terms]
    compare("Einsum", [normal(rng, *s) for s in shapes], equation=equation)


@pytest.mark.parametrize("op", ["CumSum", "Trilu", "Tile", "Expand", "OneHot", "ReverseSequence", "Compress", "Unique"])
def test_movement(op: str) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 3, 4, 5)
    if op == "CumSum":
        for reverse, exclusive in ((0, 0), (0, 1), (1, 0), (1, 1)):
            compare(op, [x, np.array(-2, np.int64)], reverse=reverse, exclusive=exclusive)
    elif op == "Trilu":
        for k in (-3, -1, 0, 2, 6):
            compare(op, [x, np.array(k, np.int64)], upper=k % 2)
    elif op == "Tile":
        compare(op, [x, np.array([2, 1, 3], np.int64)])
    elif op == "Expand":
        compare(op, [normal(rng, 3, 1, 5), np.array([2, 1, 4, 1], np.int64)])
    elif op == "OneHot":
        values = [np.array(6, np.int64), np.array([2, 7], np.float32)]
        compare(op, [rng.integers(-8, 8, (3, 4)), *values], axis=1)
    elif op == "ReverseSequence":
        compare(op, [x, np.array([2, 4, 1], np.int64)], batch_axis=0, time_axis=1)
    elif op == "Compress":
        compare(op, [x, np.array([True, False, True])], axis=1)
    else:
        y = rng.integers(0, 4, (6, 2)).astype(np.float32)
        for ordered in (0, 1):
            compare(op, [y], outputs=4, sorted=ordered)
            compare(op, [y], outputs=4, sorted=ordered, axis=0)
