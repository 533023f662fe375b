# SPDX-License-Identifier: Apache-2.0
"""RotaryEmbedding against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tests.compiler.contrib.peers import F16, F32, Array, check, normal, rng, single

B, S, H, D, ROWS = 2, 5, 3, 8, 23


def operands(
    shape: tuple[int, ...], half: int, offset: bool = False, dtype: Any = np.float32
) -> list[tuple[str, Array]]:
    angles = rng(5).uniform(0, 6, (ROWS, half))
    places = np.array([7], np.int64) if offset else rng(6).integers(0, ROWS, (B, S))
    return [
        ("x", normal(0, *shape, dtype=dtype)),
        ("p", places),
        ("cos", np.cos(angles).astype(dtype)),
        ("sin", np.sin(angles).astype(dtype)),
    ]


@pytest.mark.parametrize("dtype", [F32, F16])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("shape", [(B, S, H * D), (B, H, S, D)])
def test_whole_heads(shape: tuple[int, ...], offset: bool, interleaved: int, dtype: np.dtype) -> None:
    check("RotaryEmbedding", operands(shape, D // 2, offset, dtype), [dtype], ("cos", "sin"), interleaved=interleaved)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("shape", [(B, S, H * 12), (B, H, S, 12)])
def test_a_part_of_each_head(shape: tuple[int, ...], interleaved: int) -> None:
    check(
        "RotaryEmbedding", operands(shape, 4), [F32], ("cos", "sin"), interleaved=interleaved, num_heads=H,
        rotary_embedding_dim=8,
    )  # fmt: skip


def refused(words: str, **attributes: Any) -> None:
    with pytest.raises(InputError, match=words):
        load_onnx(single("RotaryEmbedding", operands((B, S, H * D), 4), [F32], **attributes)[0])


def test_what_is_not_imported() -> None:
    refused("is_packed_batching is 1", is_packed_batching=1)
    refused("its attribute scale is 2.0", scale=2.0)
    refused("its rotary_embedding_dim 6 needs num_heads", rotary_embedding_dim=6)
