# SPDX-License-Identifier: Apache-2.0
"""Nodes of com.microsoft that are damaged at random: imported, or refused with a sentence, never anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tests.compiler.contrib import (
    test_attention,
    test_blocks,
    test_group_query,
    test_quantize,
    test_recurrent,
    test_rotary,
)
from tests.compiler.contrib.peers import F32, I8, U8, Array, integers, normal, rng, single

Operands = list[tuple[str, Array] | None]
Case = tuple[str, Operands, list[Any], dict[str, Any]]
TYPES = (np.float32, np.float16, np.float64, np.int32, np.int64, np.uint8, np.int8, np.bool_)


def embedding() -> Operands:
    ids = rng(1).integers(0, 2, (3, 5)).astype(np.int32)
    tables = [(f"t{i}", normal(i, *s)) for i, s in enumerate(((9, 8), (7, 8), (2, 8), (8,), (8,)))]
    return [("ids", ids), ("kinds", ids), *tables, ("mask", ids), ("places", ids)]


def binary() -> Operands:
    a = test_quantize.scaled("a", integers(0, U8, 3, 5), 0.03, 3)
    return [*a, *test_quantize.scaled("b", integers(1, U8, 5), 0.05, 4), ("s", np.float32(0.1)), ("z", np.uint8(3))]


def pool() -> Operands:
    return [
        *test_quantize.scaled("x", integers(0, U8, 1, 2, 6, 7), 0.05, 3),
        ("s", np.float32(0.1)),
        ("z", np.uint8(3)),
    ]


def product() -> Operands:
    b, zero = integers(1, I8, 5, 7), np.zeros(7, np.int8)
    return [("a", normal(0, 2, 3, 5)), ("b", b), ("s", rng(2).random(7, np.float32)), ("z", zero), ("c", normal(3, 7))]


CASES: dict[str, Callable[[], Case]] = {
    "Attention": lambda: (
        "Attention", test_attention.attention("keys", True), [F32, F32], {"num_heads": 2, "unidirectional": 1}
    ),
    "MultiHeadAttention": lambda: (
        "MultiHeadAttention", test_attention.heads(past=True, bias=True, mask="keys"), [F32] * 3, {"num_heads": 2}
    ),
    "GroupQueryAttention": lambda: (
        "GroupQueryAttention", test_group_query.operands(1, 6, [7, 4], rotary=16), [F32] * 3,
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "local_window_size": 3},
    ),
    "RotaryEmbedding": lambda: (
        "RotaryEmbedding", list(test_rotary.operands((2, 5, 24), 4)), [F32], {"interleaved": 1}
    ),
    "MatMulNBits": lambda: ("MatMulNBits", *_product(4, 16, 48, 6, "packed")),
    "EmbedLayerNormalization": lambda: ("EmbedLayerNormalization", embedding(), [F32, np.int32], {"epsilon": 1e-5}),
    "DynamicQuantizeLSTM": lambda: (
        "DynamicQuantizeLSTM", test_recurrent.layer(lengths=True, states=True, peepholes=True), [F32],
        {"hidden_size": 6, "direction": "forward"},
    ),
    "QLinearAdd": lambda: ("QLinearAdd", binary(), [U8], {}),
    "QLinearAveragePool": lambda: (
        "QLinearAveragePool", pool(), [U8], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}
    ),
    "DynamicQuantizeMatMul": lambda: ("DynamicQuantizeMatMul", product(), [F32], {}),
    "FusedMatMul": lambda: (
        "FusedMatMul", [("a", normal(0, 2, 3, 5)), ("b", normal(1, 2, 7, 5))], [F32], {"transB": 1, "alpha": 2.0}
    ),
    "FusedConv": lambda: (
        "FusedConv", [("x", normal(0, 1, 2, 5, 5)), ("w", normal(1, 3, 2, 3, 3)), ("b", normal(2, 3))], [F32],
        {"activation": "Clip", "activation_params": [0.0, 1.0], "pads": [1, 1, 1, 1]},
    ),
}  # fmt: skip


def _product(*args: Any) -> tuple[Operands, list[Any], dict[str, Any]]:
    operands, attributes = test_blocks.product(*args)
    return operands, [F32], dict(attributes)


def damaged(operands: Operands, attributes: dict[str, Any], r: random.Random) -> None:
    """One thing of a node made otherwise."""
    if attributes and r.random() < 0.3:
        name = r.choice(list(attributes))
        value = attributes[name]
        others: list[Any] = ["no", 0.5, [*value, 2]] if isinstance(value, list) else [0, -1, 3, 100, 1e30, "no", [1]]
        attributes[name] = r.choice(others)
        return
    at = r.randrange(len(operands))
    operand = operands[at]
    if operand is None or r.random() < 0.2:
        operands[at] = None
        return
    name, x = operand[0], np.asarray(operand[1])
    match r.randrange(4):
        case 0:
            x = x.astype(r.choice(TYPES))
        case 1:
            x = x[None]
        case 2 if x.size:
            x = x.reshape(-1)[: r.randrange(3)]
        case _:
            axis = r.randrange(max(1, x.ndim))
            x = np.delete(x, slice(0, 1), axis) if x.ndim else x
    operands[at] = (name, x)


@pytest.mark.parametrize("name", CASES)
def test_damaged_nodes(name: str) -> None:
    r = random.Random(name)
    refused = 0
    for _ in range(60):
        op, operands, outputs, attributes = CASES[name]()
        given = [o[0] for o in operands if o is not None]
        constants = [g for g in given if r.random() < 0.6]
        for _ in range(r.randint(1, 2)):
            damaged(operands, attributes, r)
        model, _ = single(op, operands, outputs, constants, **attributes)
        try:
            load_onnx(model)
        except InputError as e:
            refused += 1
            assert "\n" not in str(e) or "things that tcc cannot import" in str(e)
    assert refused > 10
