# SPDX-License-Identifier: Apache-2.0
"""Every graph op is lowered: after `expand-ops` it is kernels, views or calls of the host that compute what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tcc.compiler.interpret import interpret
from tcc.compiler.phases.pipelines import pipelines
from tcc.ir import graph
from tcc.ir.core import Block, Region, Value
from tcc.ir.declare import OPS
from tcc.ir.dialects import load_all
from tcc.ir.expr import Sym
from tcc.ir.graph.base import GraphOp, dense
from tcc.ir.graph.pointwise import Compare, Pointwise
from tcc.ir.graph.unary import Test as FloatTest
from tcc.ir.types import BOOL, F16, F32, I32, I64
from tcc.passes.manager import run_passes
from tests.passes.kernel_interpret import run_kernels
from tests.passes.random_graphs import Build, feeds, program
from tests.passes.test_graph_random import assert_close

load_all()
CONTROL = ("func", "return", "yield", "constant", "if", "loop", "fused", "choice")
Body = Callable[[Build, list[Value]], "Value | Sequence[Value]"]
PICTURE = (1, 4, 5, 6)
WINDOW = {"strides": (1, 2), "pads": (0, 1, 1, 0), "dilations": (1, 1)}


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def positive(b: Build, x: Value) -> Value:
    return b(graph.Add, b(graph.Abs, x), b.constant(np.float32(1.25)))


def integers(b: Build, x: Value) -> Value:
    return b(graph.Cast, b(graph.Mul, x, b.constant(np.float32(3))), to=I32)


def op(cls: type[GraphOp], **attrs: Any) -> Body:
    """The op on all inputs."""
    return lambda b, xs: b(cls, *xs, **attrs)


def recurrent(cls: type[GraphOp], *activations: str, alpha: float = 0.0, beta: float = 0.0, **attrs: Any) -> Body:
    """A recurrent layer with those activations."""
    count = len(activations)
    return lambda b, xs: b(cls, *xs, activations=activations, alpha=(alpha,) * count, beta=(beta,) * count, **attrs)


def norm(cls: type[GraphOp], count: int, channels: int, **attrs: Any) -> Body:
    return lambda b, xs: b(
        cls, xs[0], *(b.constant(np.abs(some(channels, seed=i)) + 0.5) for i in range(count)), **attrs
    )


def conv(cls: type[GraphOp], weights: tuple[int, ...], bias: int, dims: str = "nchw", **attrs: Any) -> Body:
    return lambda b, xs: b(cls, xs[0], b.constant(some(*weights)), b.constant(some(bias)), dims=dims, **attrs)


def resize(cls: type[GraphOp], **attrs: Any) -> Body:
    return lambda b, xs: b(cls, xs[0], axes=(2, 3), **attrs)


def bound_extent(b: Build, xs: list[Value]) -> Value:
    """The first elements of x, as many as a sum says."""
    count = b(graph.Reduce, b.constant(np.array([1, 2])), kind="sum", axes=(0,), keepdims=True)
    b.block.append(graph.Bind(count, symbols=("count",), places=(0,)))
    cut = b(graph.Slice, xs[0], starts=(0, 0), sizes=(Sym("count"), 3), steps=(1, 1))
    return b(graph.Reduce, b(graph.Exp, cut), kind="sum", axes=(0,), keepdims=True)


CASES: dict[str, list[tuple[Sequence[tuple[int, ...]], Body]]] = {
    "dims": [([(4,)], lambda b, xs: b(graph.Add, xs[0], b(graph.Cast, b(graph.Dims, values=(1, 2, 3, 4)), to=F32)))],
    "where": [([(2, 3), (3,)], lambda b, xs: b(graph.Where, b(graph.Less, xs[0], xs[1]), *xs))],
    "mod": [
        ([(2, 3), (3,)], lambda b, xs: b(graph.Mod, xs[0], positive(b, xs[1]), fmod=True)),
        ([(2, 3), (3,)], lambda b, xs: b(graph.Mod, integers(b, xs[0]), b.constant(np.int32(3)))),
    ],
    "pow": [
        ([(2, 3), (3,)], lambda b, xs: b(graph.Pow, positive(b, xs[0]), xs[1])),
        ([(2, 3)], lambda b, xs: b(graph.Pow, integers(b, xs[0]), b.constant(np.int32(3)))),
    ],
    "div": [([(2, 3), (3,)], lambda b, xs: b(graph.Div, xs[0], positive(b, xs[1])))],
    "cast": [([(2, 3)], lambda b, xs: b(graph.Cast, b(graph.Cast, xs[0], to=F16), to=I64))],
    "prelu": [([(2, 3), (3,)], op(graph.Prelu))],
    "clip": [([(2, 3)], op(graph.Clip, lo=-0.5, hi=0.25)), ([(2, 3)], op(graph.Clip, hi=0.25))],
    "gelu": [([(2, 3)], op(graph.Gelu)), ([(2, 3)], op(graph.Gelu, approximate="tanh"))],
    "transpose": [([(2, 3, 4)], op(graph.Transpose, perm=(2, 0, 1)))],
    "reshape": [([(2, 3, 4)], op(graph.Reshape, shape=(6, 4)))],
    "expand": [([(3, 1)], op(graph.Expand, shape=(2, 3, 4)))],
    "slice": [
        ([(4, 6)], op(graph.Slice, starts=(1, 5), sizes=(2, 3), steps=(1, -2))),
        ([(4, 6)], op(graph.Slice, starts=(1, 0), sizes=(2, 6), steps=(1, 1))),
        ([(1, 6)], op(graph.Slice, starts=(0, 2), sizes=(1, 3), steps=(1, 1))),
    ],
    "concat": [([(2, 3), (2, 4)], lambda b, xs: b(graph.Concat, xs, axis=1))],
    "pad": [
        ([(3, 4)], lambda b, xs: b(graph.Pad, xs[0], None, before=(1, 0), after=(0, 2), value=2.5)),
        ([(3, 4)], lambda b, xs: b(graph.Pad, xs[0], None, before=(1, -1), after=(-1, 2), value=2.5)),
        ([(3, 4), ()], lambda b, xs: b(graph.Pad, xs[0], xs[1], before=(1, 0), after=(0, 2))),
        *(
            ([(3, 4)], lambda b, xs, mode=mode: b(graph.Pad, xs[0], None, before=(1, 2), after=(2, -1), mode=mode))
            for mode in ("edge", "reflect", "wrap")
        ),
    ],
    "tile": [([(2, 3)], op(graph.Tile, repeats=(2, 3)))],
    "gather": [
        ([(4, 3)], lambda b, xs: b(graph.Gather, xs[0], b.constant(np.array([[1, -1], [0, 2]])), axis=0)),
        ([(4, 3)], lambda b, xs: b(graph.Gather, xs[0], b.constant(np.array([0, 0, 1, 1])), axis=1)),
        ([(4, 3)], lambda b, xs: b(graph.Gather, xs[0], b.constant(np.array(-2)), axis=1)),
        (
            [(4, 3), (5,)],
            lambda b, xs: b(graph.Gather, xs[0], b(graph.Clip, integers(b, xs[1]), lo=-4, hi=3), axis=0),
        ),
    ],
    "gather_elements": [
        (
            [(4, 3), (2, 3)],
            lambda b, xs: b(graph.GatherElements, xs[0], b(graph.Clip, integers(b, xs[1]), lo=-4, hi=3), axis=0),
        ),
        ([(4, 3)], lambda b, xs: b(graph.GatherElements, xs[0], b.constant(np.array([[-1], [0], [2], [1]])), axis=1)),
    ],
    "gather_nd": [
        ([(4, 3, 2)], lambda b, xs: b(graph.GatherNd, xs[0], b.constant(np.array([[1, -1], [0, 2]])))),
        ([(2, 3, 2)], lambda b, xs: b(graph.GatherNd, xs[0], b.constant(np.array([[[1]], [[-1]]])), batch_dims=1)),
    ],
    "trilu": [([(2, 4, 3)], op(graph.Trilu, k=1)), ([(2, 4, 3)], op(graph.Trilu, k=-1, part="lower"))],
    "matmul": [
        ([(2, 3, 4), (4, 5)], op(graph.Matmul)), ([(2, 1, 3, 4), (5, 4, 2)], op(graph.Matmul)),
        ([(4,), (2, 4, 5)], op(graph.Matmul)), ([(3, 4), (4,)], op(graph.Matmul)), ([(4,), (4,)], op(graph.Matmul)),
    ],
    "conv": [
        ([PICTURE], conv(graph.Conv, (6, 2, 2, 3), 6, group=2, **WINDOW)),
        ([(1, 5, 6, 4)], conv(graph.Conv, (4, 3, 2, 1), 4, "nhwc", group=4, **WINDOW)),
        ([(2, 3, 7)], conv(graph.Conv, (4, 3, 3), 4, strides=(2,), pads=(1, 1), dilations=(2,))),
        ([(1, 2, 3, 4, 3)], conv(graph.Conv, (2, 2, 2, 2, 2), 2, strides=(1,) * 3, pads=(0,) * 6, dilations=(1,) * 3)),
    ],
    "conv_transpose": [
        ([PICTURE], conv(graph.ConvTranspose, (4, 2, 2, 3), 4, group=2, output_padding=(0, 1), **WINDOW)),
        ([(1, 5, 6, 4)], conv(graph.ConvTranspose, (4, 2, 3, 2), 2, "nhwc", output_padding=(0, 0), **WINDOW)),
        (
            [PICTURE],
            conv(graph.ConvTranspose, (4, 3, 2, 2), 3, strides=(2, 2), pads=(0,) * 4, dilations=(1, 1),
                 output_padding=(0, 0)),
        ),
    ],
    "reduce": [
        ([(2, 3, 4)], op(graph.Reduce, kind="mean", axes=(0, 2))),
        ([(2, 3, 4)], op(graph.Reduce, kind="max", axes=(1,), keepdims=False)),
        ([(2, 3)], op(graph.Reduce, kind="prod", axes=(0, 1), keepdims=False)),
        ([(2, 3)], lambda b, xs: b(graph.Reduce, integers(b, xs[0]), kind="sum", axes=(1,))),
    ],
    "arg_reduce": [
        ([(3, 5)], op(graph.ArgReduce, kind="max", axis=1)),
        ([(3, 5)], op(graph.ArgReduce, kind="min", axis=0, keepdims=False, last=True)),
        ([(3, 5)], lambda b, xs: b(graph.ArgReduce, integers(b, xs[0]), kind="max", axis=1, last=True)),
    ],
    "softmax": [([(2, 3, 4)], op(graph.Softmax, axis=1))],
    "log_softmax": [([(2, 3, 4)], op(graph.LogSoftmax, axis=2))],
    "layer_norm": [
        ([(2, 3, 4)], norm(graph.LayerNorm, 2, 4, axis=2)), ([(2, 3, 4)], norm(graph.LayerNorm, 0, 4, axis=1)),
    ],
    "rms_norm": [([(2, 3, 4)], norm(graph.RmsNorm, 1, 4, axis=2))],
    "group_norm": [
        ([PICTURE], norm(graph.GroupNorm, 2, 4, groups=2)),
        ([(1, 5, 6, 4)], norm(graph.GroupNorm, 2, 4, groups=4, dims="nhwc")),
    ],
    "batch_norm": [
        ([PICTURE], norm(graph.BatchNorm, 4, 4)), ([(1, 5, 6, 4)], norm(graph.BatchNorm, 4, 4, dims="nhwc")),
        ([PICTURE, (4,), (4,), (4,), (4,)], lambda b, xs: b(graph.BatchNorm, *xs[:4], positive(b, xs[4]))),
    ],
    "lrn": [([PICTURE], op(graph.Lrn, size=3)), ([(1, 5, 6, 4)], op(graph.Lrn, size=2, dims="nhwc"))],
    "max_pool": [
        ([PICTURE], op(graph.MaxPool, kernel=(2, 3), **WINDOW)),
        ([(1, 5, 6, 4)], op(graph.MaxPool, kernel=(2, 2), dims="nhwc", ceil_mode=True, **WINDOW)),
    ],
    "max_pool_indices": [([PICTURE], op(graph.MaxPoolIndices, kernel=(2, 2), **WINDOW))],
    "average_pool": [
        ([PICTURE], op(graph.AveragePool, kernel=(2, 3), **WINDOW)),
        ([PICTURE], op(graph.AveragePool, kernel=(2, 3), count_include_pad=True, ceil_mode=True, **WINDOW)),
        ([PICTURE], op(graph.AveragePool, kernel=(2, 2), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(2, 2))),
    ],
    "lp_pool": [
        ([PICTURE], op(graph.LpPool, kernel=(2, 3), p=p, ceil_mode=p == 3, **WINDOW)) for p in (1, 2, 3)
    ],
    "resize_nearest": [
        ([PICTURE], resize(graph.ResizeNearest, sizes=(7, 12))),
        ([PICTURE], resize(graph.ResizeNearest, scales=(2.0, 0.6), coordinate_mode="asymmetric", nearest_mode="floor")),
        (
            [PICTURE],
            resize(graph.ResizeNearest, sizes=(4, 4), coordinate_mode="tf_crop_and_resize", roi=(-0.2, 0.1, 0.8, 1.2),
                   extrapolation=2.5),
        ),
    ],
    "resize": [
        ([PICTURE], resize(graph.Resize, mode="linear", sizes=(9, 4), coordinate_mode="align_corners")),
        ([PICTURE], resize(graph.Resize, mode="cubic", scales=(1.7, 1.3), exclude_outside=True)),
        ([PICTURE], resize(graph.Resize, mode="linear", sizes=(2, 3), antialias=True)),
        (
            [PICTURE],
            resize(graph.Resize, mode="linear", sizes=(4, 4), coordinate_mode="tf_crop_and_resize",
                   roi=(-0.2, 0.1, 0.8, 1.2), extrapolation=2.5),
        ),
        ([PICTURE], lambda b, xs: b(graph.Resize, integers(b, xs[0]), axes=(2, 3), mode="linear", sizes=(7, 9))),
    ],
    "attention": [
        ([(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 3)], lambda b, xs: b(graph.Attention, *xs, None, scale=0.5)),
        (
            [(2, 4, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4)],
            lambda b, xs: b(graph.Attention, *xs, None, scale=0.5, causal=True),
        ),
        ([(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (3, 5)], op(graph.Attention, scale=0.5)),
    ],
    "lstm": [
        ([(3, 2, 20), (20, 5)], recurrent(graph.Lstm, "sigmoid", "tanh", "tanh")),
        (
            [(4, 3, 12), (12, 3), (3, 3), (3, 3), (9,)],
            lambda b, xs: b(
                graph.Lstm, xs[0], xs[1], xs[2], b.constant(np.array([4, 1, 2], np.int32)), xs[3], xs[4],
                activations=("hardsigmoid", "softsign", "scaledtanh"), alpha=(0.3, 0.0, 1.5), beta=(0.4, 0.0, 0.5),
                clip=0.8, reverse=True, input_forget=True,
            ),
        ),
    ],
    "gru": [
        ([(3, 2, 15), (15, 5)], recurrent(graph.Gru, "sigmoid", "tanh")),
        ([(3, 2, 15), (15, 5)], recurrent(graph.Gru, "sigmoid", "tanh", reverse=True, linear_before_reset=True)),
        (
            [(4, 3, 12), (12, 4), (3, 4), (4,)],
            lambda b, xs: b(
                graph.Gru, xs[0], xs[1], xs[2], b.constant(np.array([4, 0, 2])), xs[3], activations=("affine", "elu"),
                alpha=(0.3, 0.7), beta=(0.1, 0.0), linear_before_reset=True,
            ),
        ),
    ],
    "rnn": [
        ([(3, 2, 5), (5, 5)], recurrent(graph.Rnn, "tanh")),
        *(
            ([(2, 1, 3), (3, 3)], recurrent(graph.Rnn, name, alpha=0.4, beta=0.3))
            for name in ("relu", "softplus", "leakyrelu", "thresholdedrelu")
        ),
    ],
    "iota": [([(4,)], lambda b, xs: b(graph.Add, xs[0], b(graph.Cast, b(graph.Iota, size=(4,)), to=F32)))],
    "bind": [([(4, 3)], bound_extent)],
    "cumsum": [
        ([(3, 4)], op(graph.Cumsum, axis=1)), ([(3, 4)], op(graph.Cumsum, axis=0, exclusive=True, reverse=True)),
        ([(1500,)], op(graph.Cumsum, axis=0)),
    ],
    "cumprod": [([(3, 4)], op(graph.Cumprod, axis=1, reverse=True))],
    "quantized_lstm": [
        (
            [(3, 2, 20), (2, 5), (2, 5), (15,)],
            lambda b, xs: b(
                graph.QuantizedLstm, xs[0],
                b.constant(np.random.default_rng(0).integers(-127, 128, (20, 5)).astype(np.int8)), xs[1], None,
                xs[2], xs[3], b.constant(np.float32(0.003)), activations=("sigmoid", "tanh", "tanh"),
                alpha=(0.0,) * 3, beta=(0.0,) * 3,
            ),
        )
    ],
    "bit_cast": [
        (
            [(2, 3)],
            lambda b, xs: b(
                graph.BitCast, b(graph.BitwiseXor, b(graph.BitCast, b(graph.Abs, xs[0]), to=I32),
                                 b.constant(np.int32(1 << 22))), to=F32,
            ),
        )
    ],
    "region_reduce": [
        (
            [(2, 5, 6, 3), *weights],
            lambda b, xs, kind=kind: b(
                graph.RegionReduce, xs[0], b.constant(np.array([1, -2, 0])),
                b.constant(np.array([[[0, 3], [2, 9]]] * 3)), b.constant(np.array([[[-4, 2], [3, 3]]] * 3)), *xs[1:],
                kind=kind,
            ),
        )
        for kind, weights in (("sum", [(3, 2, 5), (3, 2, 6)]), ("max", []))
    ],
    "topk": [([(3, 6)], lambda b, xs: (b(graph.TopK, xs[0], k=2, axis=1),))],
    "scatter_elements": [
        (
            [(3, 4), (2, 4)],
            lambda b, xs: b(
                graph.ScatterElements, xs[0], b.constant(np.array([[0, 1, 2, 0]] * 2)), xs[1], reduction="add"
            ),
        ),
    ],
    "scatter_nd": [
        ([(3, 4), (2, 4)], lambda b, xs: b(graph.ScatterNd, xs[0], b.constant(np.array([[2], [0]])), xs[1])),
    ],
    "host": [
        (
            [(3, 4)],
            lambda b, xs: b(graph.Host, [xs[0]], function="hardmax", given=(1,),
                            types=(xs[0].type,)),
        ),
    ],
}  # fmt: skip


def simple(name: str) -> list[tuple[Sequence[tuple[int, ...]], Body]]:
    """Cases of a pointwise op that has no operands but its own kind."""
    cls = OPS[f"graph.{name}"]
    assert issubclass(cls, Pointwise), f"{name} has no case"
    count = len(cls.spec.operands)
    domain = getattr(cls, "domain", "number")

    def body(b: Build, xs: list[Value]) -> Value:
        zero = b.constant(np.float32(0))
        if domain == "bool":
            xs = [b(graph.Less, x, zero) for x in xs]
        elif domain == "int":
            xs = [b(graph.Abs, integers(b, x)) for x in xs]
        elif name in ("log", "sqrt", "reciprocal"):
            xs = [positive(b, x) for x in xs]
        elif name in ("asin", "acos", "atanh"):
            xs = [b(graph.Mul, b(graph.Tanh, x), b.constant(np.float32(0.9))) for x in xs]
        elif name == "acosh":
            xs = [positive(b, x) for x in xs]
        y = b(cls, *xs)
        return b(graph.Cast, y, to=F32) if issubclass(cls, Compare | FloatTest) else y

    return [([(2, 3), (3,)][:count], body)]


NAMES = sorted(n.removeprefix("graph.") for n, c in OPS.items() if issubclass(c, GraphOp))
ALL = [
    pytest.param(shapes, body, id=f"{name}-{i}")
    for name in NAMES if name not in CONTROL
    for i, (shapes, body) in enumerate(CASES.get(name) or simple(name))
]  # fmt: skip


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize(("shapes", "body"), ALL)
def test_lowers(shapes: Sequence[tuple[int, ...]], body: Body, level: int) -> None:
    def outputs(b: Build, xs: list[Value]) -> Sequence[Value]:
        y = body(b, xs)
        values = list(y) if isinstance(y, Sequence) else [y]
        maker = values[0].defining_op
        return list(maker.results) if maker is not None and len(maker.results) > 1 else values

    made = program(shapes, outputs)
    x = feeds(made, 3)
    want = interpret(made, x)
    run_passes(made, pipelines("graph", "kernel", level, "f32"))
    assert_close(run_kernels(made, x), want)


def test_bools_from_and_to_numbers() -> None:
    made = program([(4,)], lambda b, xs: [b(graph.Cast, b(graph.Cast, xs[0], to=BOOL), to=F32)])
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, pipelines("graph", "kernel", 1, "f32"))
    assert_close(run_kernels(made, x), want)


def test_a_loop_of_known_trips_is_written_out() -> None:
    """A running product with the squares before each step stacked."""

    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        block = Block([dense((), I64), dense((), BOOL), dense((3,), F32)])
        inner = Build(block, b.program)
        i, going, carried = block.args
        step = inner(graph.Add, inner(graph.Cast, i, to=F32), xs[0])
        following = inner(graph.Mul, carried, step)
        block.append(graph.Yield([going, following, inner(graph.Mul, carried, carried)]))
        loop = graph.Loop(
            b.constant(np.int64(4)), None, [xs[0]], regions=[Region(block)],
            result_types=[dense((3,), F32), dense((4, 3), F32)],
        )  # fmt: skip
        return b.block.append(loop).results

    made = program([(3,)], body)
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, pipelines("graph", "kernel", 0, "f32"))
    assert_close(run_kernels(made, x), want)


def test_a_loop_that_data_end_is_left_with_a_remark() -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        block = Block([dense((), I64), dense((), BOOL), dense((3,), F32)])
        inner = Build(block, b.program)
        total = inner(graph.Reduce, block.args[2], kind="sum", axes=(0,), keepdims=False)
        going = inner(graph.Less, total, inner.constant(np.float32(100)))
        block.append(graph.Yield([going, inner(graph.Add, block.args[2], xs[0])]))
        loop = graph.Loop(
            b.constant(np.int64(4)), None, [xs[0]], regions=[Region(block)], result_types=[dense((3,), F32)]
        )
        return b.block.append(loop).results

    made = program([(3,)], body)
    context = run_passes(made, "expand-ops")
    assert any(row.reason == "data decide when it ends" for row in context.decisions.rows)
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "lower-to-kernel")
    assert_close(run_kernels(made, x), want)
