# SPDX-License-Identifier: Apache-2.0
"""`raise-patterns` finds each function in the spellings that exporters use, and changes no number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tcc.compiler.interpret import interpret
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.graph.base import tensor_type
from tcc.ir.types import F32, I32
from tcc.passes.manager import run_passes
from tests.passes.random_graphs import Build, feeds, program
from tests.passes.test_graph_random import assert_close

Body = Callable[[Build, list[Value]], Value]


def number(b: Build, x: float) -> Value:
    return b.constant(np.float32(x))


def vector(b: Build, n: int, seed: int) -> Value:
    return b.constant(np.random.default_rng(seed).standard_normal(n).astype(np.float32))


def gelu_product_last(b: Build, x: Value) -> Value:
    inner = b(graph.Add, b(graph.Erf, b(graph.Div, x, number(b, 2**0.5))), number(b, 1))
    return b(graph.Mul, b(graph.Mul, x, inner), number(b, 0.5))


def gelu_half_first(b: Build, x: Value) -> Value:
    inner = b(graph.Add, number(b, 1), b(graph.Erf, b(graph.Mul, x, number(b, 0.5**0.5))))
    return b(graph.Mul, b(graph.Mul, number(b, 0.5), x), inner)


def gelu_tanh(b: Build, x: Value) -> Value:
    cube = b(graph.Mul, number(b, 0.044715), b(graph.Pow, x, number(b, 3)))
    inner = b(graph.Tanh, b(graph.Mul, number(b, (2 / np.pi) ** 0.5), b(graph.Add, x, cube)))
    return b(graph.Mul, b(graph.Mul, number(b, 0.5), x), b(graph.Add, number(b, 1), inner))


def silu_by_division(b: Build, x: Value) -> Value:
    return b(graph.Div, x, b(graph.Add, number(b, 1), b(graph.Exp, b(graph.Neg, x))))


def quick_gelu(b: Build, x: Value) -> Value:
    return b(graph.Mul, x, b(graph.Sigmoid, b(graph.Mul, x, number(b, 1.702))))


def hard_swish(b: Build, x: Value) -> Value:
    clip = b(graph.Clip, b(graph.Add, x, number(b, 3)), lo=0.0, hi=6.0)
    return b(graph.Div, b(graph.Mul, x, clip), number(b, 6))


def hard_sigmoid(b: Build, x: Value) -> Value:
    y = b(graph.Add, b(graph.Mul, x, number(b, 0.2)), number(b, 0.5))
    return b(graph.Min, b(graph.Max, y, number(b, 0)), number(b, 1))


def mish(b: Build, x: Value) -> Value:
    return b(graph.Mul, x, b(graph.Tanh, b(graph.Softplus, x)))


def softplus(b: Build, x: Value) -> Value:
    return b(graph.Log, b(graph.Add, b(graph.Exp, x), number(b, 1)))


def softmax_shifted(b: Build, x: Value) -> Value:
    e = b(graph.Exp, b(graph.Sub, x, b(graph.Reduce, x, kind="max", axes=(1,))))
    return b(graph.Div, e, b(graph.Reduce, e, kind="sum", axes=(1,)))


def softmax_plain(b: Build, x: Value) -> Value:
    e = b(graph.Exp, x)
    return b(graph.Mul, e, b(graph.Reciprocal, b(graph.Reduce, e, kind="sum", axes=(2,))))


def layer_norm_paddle(b: Build, x: Value) -> Value:
    d = b(graph.Sub, x, b(graph.Reduce, x, kind="mean", axes=(2,)))
    variance = b(graph.Reduce, b(graph.Pow, d, number(b, 2)), kind="mean", axes=(2,))
    y = b(graph.Div, d, b(graph.Sqrt, b(graph.Add, variance, number(b, 1e-5))))
    return b(graph.Add, b(graph.Mul, y, vector(b, 4, 1)), vector(b, 4, 2))


def layer_norm_keras(b: Build, x: Value) -> Value:
    """As tf2onnx exports it: x · g + (beta - mean · g)."""
    mean = b(graph.Reduce, x, kind="mean", axes=(2,))
    d = b(graph.Sub, x, mean)
    variance = b(graph.Reduce, b(graph.Mul, d, d), kind="mean", axes=(2,))
    spread = b(graph.Reciprocal, b(graph.Sqrt, b(graph.Add, variance, number(b, 1e-3))))
    g = b(graph.Mul, spread, vector(b, 4, 1))
    return b(graph.Add, b(graph.Mul, x, g), b(graph.Sub, vector(b, 4, 2), b(graph.Mul, mean, g)))


def layer_norm_moments(b: Build, x: Value) -> Value:
    """The variance as the mean of squares less the squared mean, from sums."""
    scale = number(b, 0.25)
    mean = b(graph.Mul, b(graph.Reduce, x, kind="sum", axes=(2,)), scale)
    squares = b(graph.Mul, b(graph.Reduce, b(graph.Mul, x, x), kind="sum", axes=(2,)), scale)
    variance = b(graph.Relu, b(graph.Sub, squares, b(graph.Mul, mean, mean)))
    spread = b(graph.Pow, b(graph.Add, variance, number(b, 1e-6)), number(b, -0.5))
    return b(graph.Mul, b(graph.Sub, x, mean), spread)


def layer_norm_middle(b: Build, x: Value) -> Value:
    d = b(graph.Sub, x, b(graph.Reduce, x, kind="mean", axes=(1,)))
    variance = b(graph.Reduce, b(graph.Mul, d, d), kind="mean", axes=(1,))
    y = b(graph.Div, d, b(graph.Sqrt, b(graph.Add, variance, number(b, 1e-5))))
    return b(graph.Mul, y, b.constant(np.array([[1.5], [2.5], [3.5]], np.float32)))


def rms_norm(b: Build, x: Value) -> Value:
    mean = b(graph.Reduce, b(graph.Mul, x, x), kind="mean", axes=(2,))
    spread = b(graph.Reciprocal, b(graph.Sqrt, b(graph.Add, mean, number(b, 1e-6))))
    return b(graph.Mul, b(graph.Mul, x, spread), vector(b, 4, 1))


SPELLINGS = [
    (gelu_product_last, "gelu"), (gelu_half_first, "gelu"), (gelu_tanh, "gelu"), (silu_by_division, "swish"),
    (quick_gelu, "swish"), (hard_swish, "hard_swish"), (hard_sigmoid, "hard_sigmoid"), (mish, "mish"),
    (softplus, "softplus"), (softmax_shifted, "softmax"), (softmax_plain, "softmax"), (layer_norm_paddle, "layer_norm"),
    (layer_norm_keras, "layer_norm"), (layer_norm_moments, "layer_norm"), (layer_norm_middle, "layer_norm"),
    (rms_norm, "rms_norm"),
]  # fmt: skip


def ops_of(made: object) -> list[str]:
    return [op.name.removeprefix("graph.") for op in made.walk() if op.name != "graph.constant"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS, ids=[s.__name__ for s, _ in SPELLINGS])
def test_finds_a_function_in_any_spelling(spelling: Callable[[Build, Value], Value], name: str) -> None:
    made = program([(2, 3, 4)], lambda b, xs: [spelling(b, b(graph.Tanh, xs[0]))])
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "canonicalize,raise-patterns,canonicalize,dce")
    found = ops_of(made)
    assert name in found
    assert len(found) <= 8, found
    assert_close(interpret(made, x), want)


@pytest.mark.parametrize("bounds", [(1e-7, 1 - 1e-7), (1e-7, None), (None, 1 - 1e-7), None])
def test_what_keeps_a_logarithm_finite_stays(bounds: tuple[float | None, float | None] | None) -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        y = b(graph.Sigmoid, xs[0])
        if bounds is None:
            return [b(graph.Add, y, number(b, 1e-7))]
        return [b(graph.Clip, y, lo=bounds[0], hi=bounds[1])]

    made = program([(3, 7)], body)
    run_passes(made, "canonicalize,raise-patterns,canonicalize,dce")
    assert ("add" if bounds is None else "clip") in ops_of(made)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-7, 1e-5, 1e-3])
def test_the_epsilon_is_the_models(epsilon: float) -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        d = b(graph.Sub, xs[0], b(graph.Reduce, xs[0], kind="mean", axes=(2,)))
        variance = b(graph.Reduce, b(graph.Mul, d, d), kind="mean", axes=(2,))
        return [b(graph.Div, d, b(graph.Sqrt, b(graph.Add, variance, number(b, epsilon))))]

    made = program([(2, 3, 4)], body)
    run_passes(made, "raise-patterns,dce")
    norm = next(op for op in made.walk() if isinstance(op, graph.LayerNorm))
    assert norm.epsilon == pytest.approx(epsilon, rel=1e-6)


def scores(b: Build, q: Value, k: Value) -> Value:
    rank = tensor_type(k).rank
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return b(graph.Matmul, q, b(graph.Transpose, k, perm=perm))


def attention_scaled(b: Build, xs: list[Value]) -> Value:
    s = b(graph.Mul, scores(b, xs[0], xs[1]), number(b, 0.5))
    return b(graph.Matmul, b(graph.Softmax, s, axis=3), xs[2])


def attention_split_scale(b: Build, xs: list[Value]) -> Value:
    """sdpa as torch decomposes it: √scale on q and on kᵀ, and a guard against rows that are all hidden."""
    root = number(b, 0.5**0.5)
    q = b(graph.Mul, xs[0], root)
    k = b(graph.Mul, b(graph.Transpose, xs[1], perm=(0, 1, 3, 2)), root)
    mask = b.constant(np.where(np.arange(5) < 4, 0, -np.inf).astype(np.float32).reshape(1, 1, 1, 5))
    w = b(graph.Softmax, b(graph.Add, b(graph.Matmul, q, k), mask), axis=3)
    w = b(graph.Where, b(graph.IsNan, w), number(b, 0), w)
    return b(graph.Matmul, w, xs[2])


def attention_where(b: Build, xs: list[Value]) -> Value:
    seen = b.constant(np.tril(np.ones((5, 5), bool)))
    s = b(graph.Where, seen, b(graph.Div, scores(b, xs[0], xs[1]), number(b, 2)), number(b, -1e9))
    return b(graph.Matmul, b(graph.Softmax, s, axis=3), xs[2])


def attention_causal(b: Build, xs: list[Value]) -> Value:
    hidden = np.triu(np.full((5, 5), -3.4028234663852886e38, np.float32), 1)
    s = b(graph.Add, b(graph.Mul, scores(b, xs[0], xs[1]), number(b, 0.5)), b.constant(hidden.reshape(1, 1, 5, 5)))
    return b(graph.Matmul, b(graph.Softmax, s, axis=3), xs[2])


def attention_of_windows(b: Build, xs: list[Value]) -> Value:
    """Two masks, the second on the scores reshaped (Swin)."""
    s = b(graph.Add, scores(b, xs[0], xs[1]), b.constant(np.linspace(0, 1, 50, dtype=np.float32).reshape(1, 2, 5, 5)))
    s = b(graph.Reshape, s, shape=(1, 3, 2, 5, 5))
    s = b(graph.Add, s, b.constant(np.linspace(-1, 0, 75, dtype=np.float32).reshape(1, 3, 1, 5, 5)))
    return b(graph.Matmul, b(graph.Softmax, b(graph.Reshape, s, shape=(3, 2, 5, 5)), axis=3), xs[2])


ATTENTIONS: list[tuple[Body, tuple[int, ...]]] = [
    (attention_scaled, (1, 2, 5, 4)), (attention_split_scale, (1, 2, 5, 4)), (attention_where, (1, 2, 5, 4)),
    (attention_causal, (1, 2, 5, 4)), (attention_of_windows, (3, 2, 5, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("spelling", "shape"), ATTENTIONS, ids=[s.__name__ for s, _ in ATTENTIONS])
def test_finds_attention(spelling: Body, shape: tuple[int, ...]) -> None:
    made = program([shape] * 3, lambda b, xs: [spelling(b, xs)])
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "canonicalize,raise-patterns,canonicalize,fold-constants,dce")
    found = ops_of(made)
    assert "attention" in found and "softmax" not in found and "matmul" not in found
    op = next(op for op in made.walk() if isinstance(op, graph.Attention))
    assert op.causal == (spelling is attention_causal)
    assert_close(interpret(made, x), want)


@pytest.mark.parametrize("hides", [-1e9, -3.4e38, -1e4])
def test_rows_hidden_as_a_whole_weigh_all_keys_alike(hides: float) -> None:
    """A number in place of a score says nothing of the score, however large that is."""

    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        seen = b.constant(np.arange(5)[:, None] * np.ones(5) < 3)
        large = b(graph.Mul, scores(b, xs[0], xs[1]), number(b, 100))
        s = b(graph.Where, seen, large, number(b, hides))
        return [b(graph.Matmul, b(graph.Softmax, s, axis=3), xs[2])]

    made = program([(1, 2, 5, 4)] * 3, body)
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "canonicalize,raise-patterns,canonicalize,fold-constants,dce")
    assert ("attention" in ops_of(made)) == (hides < -1e8)
    assert_close(interpret(made, x), want)


def test_three_dims_are_heads() -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        return [b(graph.Matmul, b(graph.Softmax, scores(b, xs[0], xs[1]), axis=2), xs[2])]

    made = program([(6, 5, 4), (6, 7, 4), (6, 7, 3)], body)
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "raise-patterns,canonicalize,dce")
    assert "attention" in ops_of(made)
    assert_close(interpret(made, x), want)


def test_repeated_heads_are_shared() -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        def repeat(x: Value) -> Value:
            wide = b(graph.Expand, b(graph.Reshape, x, shape=(1, 2, 1, 5, 4)), shape=(1, 2, 3, 5, 4))
            return b(graph.Reshape, wide, shape=(1, 6, 5, 4))

        return [b(graph.Matmul, b(graph.Softmax, scores(b, xs[0], repeat(xs[1])), axis=3), repeat(xs[2]))]

    made = program([(1, 6, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4)], body)
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "canonicalize,raise-patterns,canonicalize,dce")
    assert ops_of(made) == ["builtin.module", "func", "attention", "return"]
    assert_close(interpret(made, x), want)


def test_weights_that_others_use_keep_the_softmax() -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        w = b(graph.Softmax, scores(b, xs[0], xs[1]), axis=3)
        return [b(graph.Matmul, w, xs[2]), w]

    made = program([(1, 2, 5, 4)] * 3, body)
    context = run_passes(made, "raise-patterns,dce")
    assert "softmax" in ops_of(made)
    assert any("also used by graph.return" in row.reason for row in context.decisions.rows)


def test_one_hot_product_is_a_lookup_and_zero_outside() -> None:
    def body(b: Build, xs: list[Value]) -> Sequence[Value]:
        i = b(graph.Cast, b(graph.Mul, xs[0], number(b, 4)), to=I32)
        hot = b(graph.Cast, b(graph.Equal, i, b.constant(np.arange(5, dtype=np.int32).reshape(1, 5))), to=F32)
        return [b(graph.Matmul, hot, b.constant(np.arange(15, dtype=np.float32).reshape(5, 3)))]

    made = program([(40, 1)], body)
    x = feeds(made)
    want = interpret(made, x)
    run_passes(made, "raise-patterns,canonicalize,dce")
    assert "gather" in ops_of(made) and "matmul" not in ops_of(made)
    assert any((row == 0).all() for row in want["y0"])
    assert_close(interpret(made, x), want)
