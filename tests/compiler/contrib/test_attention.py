# SPDX-License-Identifier: Apache-2.0
"""Attention, MultiHeadAttention and QAttention with masks of every form against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tcc.ir import graph
from tests.compiler.contrib.peers import (
    F32,
    I8,
    U8,
    Array,
    check,
    close,
    compiled,
    integers,
    normal,
    peer,
    rng,
    single,
)

B, S, P, H, D, W = 3, 5, 4, 2, 6, 12
"""Batch, queries, past, heads, depth, width."""


def ops_of(*args: Any, **kwargs: Any) -> list[str]:
    module = load_onnx(single(*args, **kwargs)[0]).module
    return [op.name for op in graph.main_function(module).block.ops]


def mask_of(form: str, total: int) -> Array:
    ends = np.array([total, total - 2, 1], np.int32)
    starts = np.array([0, 1, 0], np.int32)
    match form:
        case "ends":
            return ends
        case "ends and starts":
            return np.concatenate([ends, starts])
        case "packed":
            return np.concatenate([ends, np.arange(2 * B + 2)]).astype(np.int32)
        case "keys":
            return (np.arange(total) < ends[:, None]).astype(np.int32)
        case "nothing":
            return np.zeros((B, 1), np.int32)
        case _:
            return rng(9).integers(0, 2, (B, S, total)).astype(np.int32)


FORMS = ["ends", "ends and starts", "keys", "nothing", "queries and keys"]


def attention(
    mask: str | None = None, past: bool = False, relative: tuple[int, ...] | None = None
) -> list[tuple[str, Array] | None]:
    """With a bias, without which ONNX Runtime's kernel reads a null pointer."""
    total = S + (P if past else 0)
    out = [
        ("x", normal(0, B, S, 7)),
        ("w", normal(1, 7, 3 * W) / 2),
        ("b", normal(2, 3 * W)),
        ("mask", mask_of(mask, total)) if mask else None,
        ("past", normal(3, 2, B, H, P, D)) if past else None,
        ("relative", normal(4, *relative, S, total)) if relative else None,
    ]
    while out[-1] is None:
        out.pop()
    return out


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("form", [None, *FORMS])
def test_attention(form: str | None, past: bool, causal: int) -> None:
    operands = attention(form, past)
    check("Attention", operands, [F32, F32], ("w", "b"), num_heads=H, unidirectional=causal)


def test_attention_ends_in_one_op() -> None:
    ops = ops_of("Attention", attention("keys"), [F32], ("w", "b"), num_heads=H, unidirectional=1)
    assert ops.count("graph.attention") == 1
    assert "graph.softmax" not in ops


@pytest.mark.parametrize("relative", [(B, H), (1, H), (B, 1), (1, 1)])
def test_attention_with_relative_positions(relative: tuple[int, ...]) -> None:
    operands = attention("keys", relative=relative)
    check("Attention", operands, [F32], ("w", "b"), num_heads=H, scale=0.3, mask_filter_value=-50.0)


def test_attention_with_sizes_of_its_own() -> None:
    operands = [("x", normal(0, B, S, 7)), ("w", normal(1, 7, 32)), ("b", normal(2, 32))]
    check("Attention", operands, [F32], ("w", "b"), num_heads=H, qkv_hidden_sizes=[12, 12, 8])


def test_a_single_query_sees_all_keys() -> None:
    operands = [("x", normal(0, B, 1, 7)), *attention(past=True)[1:]]
    check("Attention", operands, [F32, F32], ("w", "b"), num_heads=H, unidirectional=1)


def test_attention_without_a_bias() -> None:
    zero = [*attention()[:2], ("b", np.zeros(3 * W, np.float32))]
    wanted = peer(*single("Attention", zero, [F32], num_heads=H))
    close(compiled(*single("Attention", zero[:2], [F32], num_heads=H)), wanted)


def test_a_mask_of_all_positions() -> None:
    """[b, 1, m, m], which ONNX Runtime has on GPUs only, is the 3-D mask of its part."""
    large = rng(5).integers(0, 2, (B, 1, 11, 11)).astype(np.int32)
    operands = attention("keys", True)
    part = np.ascontiguousarray(large[:, 0, P : P + S, : P + S])
    wanted = peer(*single("Attention", [*operands[:3], ("mask", part), operands[4]], [F32, F32], num_heads=H))
    model, feed = single("Attention", [*operands[:3], ("mask", large), operands[4]], [F32, F32], num_heads=H)
    close(compiled(model, feed), wanted)


def heads(
    *, kv: int = S, past: bool = False, bias: bool = False, mask: str | None = None, relative: Any = None,
    value_depth: int = D, q_length: int = S,
) -> list[tuple[str, Array] | None]:  # fmt: skip
    total = kv + (P if past else 0)
    out = [
        ("q", normal(0, B, q_length, W)),
        ("k", normal(1, B, kv, W)),
        ("v", normal(2, B, kv, H * value_depth)),
        ("bias", normal(3, 2 * W + H * value_depth)) if bias else None,
        ("mask", mask_of(mask, total)) if mask else None,
        ("relative", normal(4, *relative, q_length, total)) if relative else None,
        ("past_k", normal(5, B, H, P, D)) if past else None,
        ("past_v", normal(6, B, H, P, value_depth)) if past else None,
    ]
    while out[-1] is None:
        out.pop()
    return out


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("form", [None, "keys", "queries and keys", "ends", "packed"])
def test_multi_head_attention(form: str | None, past: bool, causal: int) -> None:
    operands = heads(past=past, bias=True, mask=form)
    check("MultiHeadAttention", operands, [F32, F32, F32], ("bias",), num_heads=H, unidirectional=causal)


@pytest.mark.parametrize(("kv", "causal"), [(1, 0), (1, 1), (9, 0)])
def test_cross_attention(kv: int, causal: int) -> None:
    """Not causal with more keys than queries: there ONNX Runtime's last query sees all keys, those after it too."""
    check("MultiHeadAttention", heads(kv=kv, value_depth=4, bias=True), [F32], num_heads=H, unidirectional=causal)
    check("MultiHeadAttention", heads(kv=kv, q_length=1), [F32], num_heads=H, unidirectional=causal)
    operands = [("q", normal(0, B, S, W)), ("k", normal(1, B, H, kv, D)), ("v", normal(2, B, H, kv, D))]
    check("MultiHeadAttention", operands, [F32], num_heads=H)


@pytest.mark.parametrize("relative", [(B, H), (1, H), (1, 1), (B, 1)])
def test_multi_head_attention_with_bias_and_scale(relative: tuple[int, ...]) -> None:
    check("MultiHeadAttention", heads(kv=7, relative=relative), [F32], num_heads=H, scale=0.7)


def test_scores_are_given() -> None:
    operands = heads(kv=7, relative=(1, H))
    check("MultiHeadAttention", operands, [F32, F32, F32, F32], num_heads=H)


def test_packed_forms() -> None:
    """ONNX Runtime's CPU kernel takes them apart only."""
    q, k, v = (normal(i, B, S, H, D) for i in range(3))
    flat = [(n, a.reshape(B, S, W)) for n, a in (("q", q), ("k", k), ("v", v))]
    wanted = peer(*single("MultiHeadAttention", flat, [F32], num_heads=H))
    for operands in ([("qkv", np.stack([q, k, v], 3))], [flat[0], ("kv", np.stack([k, v], 3))]):
        model, feed = single("MultiHeadAttention", operands, [F32], num_heads=H)
        close(compiled(model, feed), wanted)


def test_multi_head_attention_is_compiled_as_attention() -> None:
    ops = ops_of("MultiHeadAttention", heads(past=True), [F32, F32, F32], num_heads=H, unidirectional=1)
    assert ops.count("graph.attention") == 1
    assert "graph.softmax" not in ops


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("weights", [U8, I8])
@pytest.mark.parametrize("past", [False, True])
def test_quantized_attention(weights: np.dtype, per_column: bool, past: bool) -> None:
    r = rng(3)
    columns = (3 * W,) if per_column else ()
    zero = r.integers(0, 5, columns).astype(weights) if weights == U8 or not per_column else np.zeros(columns, I8)
    operands = [
        ("x", integers(0, U8, B, S, 7)),
        ("w", integers(1, weights, 7, 3 * W)),
        ("b", normal(2, 3 * W)),
        ("xs", np.float32(0.01)),
        ("ws", r.uniform(0.005, 0.01, columns).astype(np.float32)),
        ("mask", mask_of("keys", S + (P if past else 0))),
        ("xz", np.uint8(128)),
        ("wz", zero),
        ("past", normal(4, 2, B, H, P, D)) if past else None,
    ]
    held = ("w", "b", "xs", "ws", "xz", "wz")
    check("QAttention", operands, [F32, F32], held, num_heads=H, unidirectional=int(past))


def refused(words: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(InputError, match=words):
        load_onnx(single(*args, **kwargs)[0])


def test_what_is_not_imported() -> None:
    refused("its attribute do_rotary is 1: rotary", "Attention", attention(), [F32], num_heads=H, do_rotary=1)
    refused("past and present in one buffer", "Attention", attention(), [F32], num_heads=H, past_present_share_buffer=1)
    refused("its hidden size of 12 does not split into 5 heads", "Attention", attention(), [F32], num_heads=5)
    refused("its attribute num_heads is missing", "Attention", attention(), [F32])
    wrong = [*attention(), ("mask", np.zeros((B, S + 1), np.int32))]
    refused("its mask is tensor<3x6xi32>, which does not fit a batch of 3", "Attention", wrong, [F32], num_heads=H)
    one = [*heads(), None, None, None, ("past_k", normal(5, B, H, P, D))]
    refused("one of past_key and past_value", "MultiHeadAttention", one, [F32], num_heads=H)
