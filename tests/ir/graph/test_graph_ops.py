# SPDX-License-Identifier: Apache-2.0
"""The graph dialect: types that ops infer, what they refuse, and what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir import graph
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.declare import OPS, IRError
from tcc.ir.expr import Sym, maximum
from tcc.ir.module import ModuleOp, module
from tcc.ir.types import BOOL, F16, F32, I64, DType, TensorType
from tcc.ir.verifier import verify

N = Sym("n")


def value(*shape: Any, dtype: DType = F32) -> Value:
    return Block([TensorType(shape, dtype)]).args[0]


def shape_of(op: Op) -> tuple[Any, ...]:
    return graph.tensor_type(op.results[0]).shape


def test_every_op_says_what_it_is() -> None:
    classes = [cls for name, cls in OPS.items() if name.startswith("graph.")]
    assert len(classes) > 100
    for cls in classes:
        assert issubclass(cls, graph.GraphOp)
        assert cls.category in graph.CATEGORIES
        assert cls.__doc__
        if cls.category != "control":
            assert cls.evaluate is not graph.GraphOp.evaluate, f"{cls.name} cannot be evaluated"


@pytest.mark.parametrize(
    ("a", "b", "y"),
    [
        ((2, 3), (3,), (2, 3)),
        ((2, 1), (1, 3), (2, 3)),
        ((N, 3), (3,), (N, 3)),
        ((N, 1), (N, 4), (N, 4)),
        ((N,), (5,), (5,)),
        ((), (2,), (2,)),
        ((0, 3), (1, 3), (0, 3)),
        ((N, 3), (Sym("m"), 3), (maximum(N, Sym("m")), 3)),
    ],
)
def test_broadcasting(a: tuple[Any, ...], b: tuple[Any, ...], y: tuple[Any, ...]) -> None:
    assert shape_of(graph.Add(value(*a), value(*b))) == y
    assert shape_of(graph.Mul(value(*b), value(*a))) == y


REFUSED: dict[str, tuple[Any, str]] = {
    "extents": (lambda: graph.Add(value(2), value(3)), "the extents 2 and 3 do not broadcast"),
    "types": (lambda: graph.Add(value(2), value(2, dtype=F16)), "one element type, not f32 and f16"),
    "bools": (lambda: graph.And(value(2), value(2)), "it takes bool elements, not float"),
    "floats": (lambda: graph.Exp(value(2, dtype=I64)), "it takes float elements, not int"),
    "where": (lambda: graph.Where(value(2), value(2), value(2)), "the condition must be bool"),
    "matmul": (lambda: graph.Matmul(value(2, 3), value(4, 5)), "3 and 4 differ"),
    "matmul scalar": (lambda: graph.Matmul(value(), value(4)), "an operand is a scalar"),
    "conv channels": (
        lambda: graph.Conv(value(1, 3, 8, 8), value(4, 2, 3, 3), strides=[1, 1], pads=[0] * 4, dilations=[1, 1]),
        "3 and 2 differ",
    ),
    "conv window": (
        lambda: graph.Conv(value(1, 3, 2, 8), value(4, 3, 3, 3), strides=[1, 1], pads=[0] * 4, dilations=[1, 1]),
        "a window of 3, dilation 1, does not fit 2 padded by 0, 0",
    ),
    "conv pads": (
        lambda: graph.Conv(value(1, 3, 8, 8), value(4, 3, 3, 3), strides=[1, 1], pads=[0, 0], dilations=[1, 1]),
        "pads [0, 0] has 2 entries and 4 are needed",
    ),
    "conv group": (
        lambda: graph.Conv(value(1, 4, 8), value(3, 2, 3), strides=[1], pads=[0, 0], dilations=[1], group=2),
        "3 output channels do not split into 2 groups",
    ),
    "reshape": (lambda: graph.Reshape(value(2, 3), shape=(4,)), "2x3 does not reshape to 4"),
    "expand": (lambda: graph.Expand(value(2, 3), shape=(2, 4)), "2x3 does not expand to 2x4"),
    "transpose": (lambda: graph.Transpose(value(2, 3), perm=[0, 2]), "no permutation of the 2 dims"),
    "slice": (lambda: graph.Slice(value(4), starts=[2], sizes=[3], steps=[1]), "has no element 4"),
    "slice back": (lambda: graph.Slice(value(4), starts=[2], sizes=[4], steps=[-1]), "has no element -1"),
    "concat": (lambda: graph.Concat([value(2, 3), value(2, 4)], axis=0), "3 and 4 differ"),
    "gather": (lambda: graph.Gather(value(2), value(3)), "indices must be integers"),
    "reduce axes": (lambda: graph.Reduce(value(2, 3), kind="sum", axes=[1, 0]), "ascending"),
    "reduce kind": (lambda: graph.Reduce(value(2, 3), kind="median", axes=[1]), "sum | mean | max | min | prod"),
    "softmax axis": (lambda: graph.Softmax(value(2, 3), axis=2), "axis 2 is outside [0, 2)"),
    "layer norm": (lambda: graph.LayerNorm(value(2, 3), value(4), axis=1), "the extents 3 and 4 do not broadcast"),
    "group norm": (lambda: graph.GroupNorm(value(1, 6, 2), groups=4), "6 channels do not split into 4 groups"),
    "batch norm": (lambda: graph.BatchNorm(value(1, 6, 2), *[value(5)] * 4), "5 and 6 differ"),
    "pool": (
        lambda: graph.MaxPool(value(1, 1, 4), kernel=[5], strides=[1], pads=[0, 0], dilations=[1]),
        "a window of 5, dilation 1, does not fit 4",
    ),
    "attention": (
        lambda: graph.Attention(value(1, 3, 4, 8), value(1, 2, 4, 8), value(1, 2, 4, 8), scale=1.0),
        "3 query heads do not share 2 key heads",
    ),
    "lstm gates": (
        lambda: graph.Lstm(value(3, 2, 20), value(16, 4), activations=("tanh",) * 3, alpha=(0.0,) * 3, beta=(0.0,) * 3),
        "the gates of x and r: 20 and 16 differ",
    ),
    "lstm state": (
        lambda: graph.Lstm(
            value(3, 2, 16), value(16, 4), value(2, 5), activations=("tanh",) * 3, alpha=(0.0,) * 3, beta=(0.0,) * 3
        ),
        "h: 5 and 4 differ",
    ),
    "rnn activation": (
        lambda: graph.Rnn(value(3, 2, 4), value(4, 4), activations=("swish",), alpha=(0.0,), beta=(0.0,)),
        "the activation swish is none of relu, tanh",
    ),
    "quantized lstm": (
        lambda: graph.QuantizedLstm(
            value(3, 2, 16),
            value(16, 4),
            None,
            None,
            None,
            None,
            value(),
            activations=("tanh",) * 3,
            alpha=(0.0,) * 3,
            beta=(0.0,) * 3,
        ),
        "r i8 or i16",
    ),
    "gru bias": (
        lambda: graph.Gru(
            value(3, 2, 12),
            value(12, 4),
            None,
            None,
            value(4),
            activations=("tanh",) * 2,
            alpha=(0.0,) * 2,
            beta=(0.0,) * 2,
        ),
        "rb is of layers with linear_before_reset",
    ),
    "top k": (lambda: graph.TopK(value(3), k=4, axis=0), "k 4 is not within the extent 3"),
    "resize": (lambda: graph.Resize(value(1, 1, 4), axes=[2], mode="linear"), "exactly one of scales and sizes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ops_refuse_what_does_not_fit(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(IRError) as error:
        build()
    assert message in str(error.value)


def test_extents_of_free_dims() -> None:
    x, w = value(N, 3, N, 7), value(4, 3, 3, 3)
    conv = graph.Conv(x, w, strides=[2, 1], pads=[1] * 4, dilations=[1, 1])
    assert shape_of(conv) == (N, 4, (N - 1) // 2 + 1, 7)
    assert shape_of(graph.Concat([value(N, 2), value(3, 2)], axis=0)) == (N + 3, 2)
    assert shape_of(graph.Pad(value(N), before=[1], after=[2])) == (N + 3,)
    assert shape_of(graph.ResizeNearest(value(1, N), axes=[1], scales=[2.5])) == (1, N * 5 // 2)
    with pytest.raises(IRError, match="is no expression"):
        graph.ResizeNearest(value(1, N), axes=[1], scales=[1.2345678])


def run(op: graph.GraphOp, *arrays: Any) -> np.ndarray:
    """The first result, whose type must be the inferred one."""
    op.verify()
    out = op.evaluate(*arrays)
    for result, array in zip(op.results, out, strict=True):
        t = graph.tensor_type(result)
        assert array.shape == t.shape
        assert array.dtype == t.dtype.numpy
    return out[0]


def last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("spatial", [(9,), (7, 6), (5, 4, 6)])
def test_channels_last_is_channels_first_transposed(spatial: tuple[int, ...], rng: np.random.Generator) -> None:
    rank = len(spatial)
    x = rng.standard_normal((2, 4, *spatial)).astype(np.float32)
    each: dict[str, Any] = {"strides": [2] * rank, "pads": [1, 0] * rank, "dilations": [1] * rank}

    def both(build: Any, *more: np.ndarray) -> None:
        first = run(build(value(*x.shape), "nchw"), x, *more)
        second = run(build(value(*last(x).shape), "nhwc"), last(x), *more)
        np.testing.assert_array_equal(last(first), second)

    w = rng.standard_normal((6, 2, *(3,) * rank)).astype(np.float32)
    b = rng.standard_normal(6).astype(np.float32)
    first = run(graph.Conv(value(*x.shape), value(*w.shape), value(6), group=2, **each), x, w, b)
    second = run(
        graph.Conv(value(*last(x).shape), value(*last(w).shape), value(6), group=2, dims="nhwc", **each),
        last(x), last(w), b,
    )  # fmt: skip
    np.testing.assert_array_equal(last(first), second)
    wt = rng.standard_normal((4, 3, *(3,) * rank)).astype(np.float32)
    more: dict[str, Any] = {"group": 2, "output_padding": [1] * rank, **each}
    first = run(graph.ConvTranspose(value(*x.shape), value(*wt.shape), None, **more), x, wt, None)
    second = run(
        graph.ConvTranspose(value(*last(x).shape), value(*last(wt).shape), None, dims="nhwc", **more),
        last(x), last(wt), None,
    )  # fmt: skip
    np.testing.assert_array_equal(last(first), second)
    pool = {"kernel": [3] * rank, "ceil_mode": True, **each}
    both(lambda v, dims: graph.MaxPool(v, dims=dims, **pool))
    both(lambda v, dims: graph.AveragePool(v, dims=dims, count_include_pad=True, **pool))
    both(lambda v, dims: graph.LpPool(v, dims=dims, **pool))
    four = [np.abs(rng.standard_normal(4)).astype(np.float32) for _ in range(4)]
    both(lambda v, dims: graph.BatchNorm(v, *[value(4)] * 4, dims=dims), *four)
    both(lambda v, dims: graph.GroupNorm(v, value(4), value(4), groups=2, dims=dims), *four[:2])
    both(lambda v, dims: graph.Lrn(v, size=3, dims=dims))


def test_movement_computes_what_numpy_does(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    v = value(*x.shape)
    cases: list[tuple[graph.GraphOp, np.ndarray]] = [
        (graph.Slice(v, starts=[2, 0, 1], sizes=[3, 4, 2], steps=[-1, 1, 3]), x[::-1, :, 1::3]),
        (graph.Slice(v, starts=[0, 0, 0], sizes=[3, 0, 5], steps=[1, 1, 1]), x[:, :0]),
        (graph.Pad(v, before=[1, 0, -1], after=[0, 2, 0], value=7.0),
         np.pad(x[:, :, 1:], ((1, 0), (0, 2), (0, 0)), constant_values=7)),
        (graph.Pad(v, before=[0, 2, 1], after=[0, 1, 0], mode="reflect"),
         np.pad(x, ((0, 0), (2, 1), (1, 0)), "reflect")),
        (graph.Tile(v, repeats=[1, 2, 0]), np.tile(x, (1, 2, 0))),
        (graph.Transpose(v, perm=[2, 0, 1]), x.transpose(2, 0, 1)),
        (graph.Reshape(v, shape=(4, 15)), x.reshape(4, 15)),
        (graph.Expand(v, shape=(2, 3, 4, 5)), np.broadcast_to(x, (2, 3, 4, 5))),
        (graph.Trilu(v, k=1), np.triu(x, 1)),
        (graph.Clip(v, lo=-0.5), np.maximum(x, np.float32(-0.5))),
        (graph.Reduce(v, kind="mean", axes=[0, 2], keepdims=False), x.mean((0, 2), dtype=np.float32)),
        (graph.Reduce(v, kind="max", axes=[]), x),
    ]  # fmt: skip
    for op, want in cases:
        np.testing.assert_allclose(run(op, x), want, rtol=1e-6)
    fill = np.array(2.5, np.float32)
    op = graph.Pad(v, value(), before=[1, 0, 0], after=[0, 0, 0])
    np.testing.assert_array_equal(run(op, x, fill)[0], np.full((4, 5), 2.5))


def test_attention_is_softmax_of_scores(rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal(s).astype(np.float32) for s in ((1, 4, 3, 8), (1, 2, 5, 8), (1, 2, 5, 6)))
    mask = rng.standard_normal((3, 5)).astype(np.float32)
    op = graph.Attention(value(*q.shape), value(*k.shape), value(*v.shape), value(3, 5), scale=0.5)
    scores = 0.5 * q @ np.repeat(k, 2, 1).swapaxes(2, 3) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = weights / weights.sum(-1, keepdims=True) @ np.repeat(v, 2, 1)
    np.testing.assert_allclose(run(op, q, k, v, mask), want, rtol=1e-5, atol=1e-6)
    hidden = np.full((3, 5), -np.inf, np.float32)
    np.testing.assert_array_equal(run(op, q, k, v, hidden), np.zeros((1, 4, 3, 6)))


def fused_module() -> tuple[ModuleOp, graph.Fused]:
    m = module()
    main = graph.func("main", [TensorType((4,), F32)], ["x"])
    m.block.append(main)
    body = Block([TensorType((4,), F32)])
    inner = body.append(graph.Relu(body.args[0]))
    body.append(graph.Yield([inner.result]))
    fused = main.block.append(graph.Fused([main.block.args[0]], regions=[Region(body)]))
    graph.finish(main, [fused.results[0]], ["y"])
    return m, fused


def test_groups_are_isolated_and_typed() -> None:
    m, fused = fused_module()
    verify(m)
    fused.block.args[0].type = fused.block.first.results[0].type = TensorType((5,), F32)  # type: ignore[union-attr]
    with pytest.raises(IRError, match=r"argument 0 of a region is tensor<5xf32> and the operand tensor<4xf32>"):
        verify(m)


def test_a_group_may_not_reach_outside() -> None:
    m, fused = fused_module()
    fused.block.first.set_operand(0, graph.main_function(m).block.args[0])  # type: ignore[union-attr]
    with pytest.raises(IRError, match="outside its region"):
        verify(m)


def test_branches_of_other_extents_give_a_fresh_symbol() -> None:
    def branch(*shape: int) -> Region:
        block = Block()
        x = block.append(graph.Constant(value=module().resources.add(np.zeros(shape, np.float32)),
                                        result_types=[TensorType(shape, F32)]))  # fmt: skip
        block.append(graph.Yield([x.result]))
        return Region(block)

    op = graph.If(value(dtype=BOOL), regions=[branch(2, 3), branch(2, 4)], loc=["Pick one"])
    assert shape_of(op) == (2, Sym("Pick_one_1"))
    op.loc = ("another",)
    assert graph.tensor_type(op.results[0]) == op.infer()[0]
    with pytest.raises(IRError, match="rank 2 and 1"):
        graph.If(value(dtype=BOOL), regions=[branch(2, 3), branch(2)])


def test_constants_need_a_module() -> None:
    m = module()
    op = graph.Constant(value=m.resources.add(np.float32([1, 2])), result_types=[TensorType((2,), F32)])
    with pytest.raises(IRError, match="outside a module"):
        op.array()
    m.block.append(op)
    np.testing.assert_array_equal(op.evaluate()[0], [1, 2])


def test_host_calls_name_a_reference_function() -> None:
    op = graph.Host([value(2, 2)], function="det", given=(1,), types=(TensorType((), F32),))
    np.testing.assert_allclose(run(op, np.float32([[2, 1], [1, 3]])), 5)
    with pytest.raises(IRError, match="no reference function levitate"):
        graph.Host([value(2)], function="levitate", given=(1,), types=(TensorType((), F32),)).verify()
    with pytest.raises(IRError, match="does not fit 1 operands"):
        graph.Host([value(2)], function="det", given=(1, 1), types=(TensorType((), F32),)).verify()
