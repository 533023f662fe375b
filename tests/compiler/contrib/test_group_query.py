# SPDX-License-Identifier: Apache-2.0
"""GroupQueryAttention against ONNX Runtime: prompts, steps with a cache, windows, rotary positions, softmaxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tcc.ir import graph
from tests.compiler.contrib.peers import F16, F32, Array, check, close, compiled, normal, peer, rng, single

B, H, G, D, ROWS = 2, 4, 2, 16, 40


def operands(
    new: int, held: int | None, ends: list[int], total: int | None = None, *, packed: bool = False, rotary: int = 0,
    dtype: Any = np.float32, places: Array | None = None, bias: tuple[int, int] | None = None, sink: bool = False,
    norm: bool = False,
) -> list[tuple[str, Array] | None]:  # fmt: skip
    """`new` positions behind a buffer of `held`; `ends` is the length of each row with them."""
    batch = len(ends)
    total = max(ends) if total is None else total
    q, k, v = (normal(i, batch, new, h * D, dtype=dtype) for i, h in enumerate((H, G, G)))
    angles = rng(5).uniform(0, 6, (ROWS, rotary // 2))
    out: list[tuple[str, Array] | None] = [
        ("q", np.concatenate([q, k, v], 2) if packed else q),
        None if packed else ("k", k),
        None if packed else ("v", v),
        None if held is None else ("past_k", normal(3, batch, G, held, D, dtype=dtype)),
        None if held is None else ("past_v", normal(4, batch, G, held, D, dtype=dtype)),
        ("ends", np.array(ends, np.int32) - 1),
        ("total", np.array([total], np.int32)),
        ("cos", np.cos(angles).astype(dtype)) if rotary else None,
        ("sin", np.sin(angles).astype(dtype)) if rotary else None,
        None if places is None else ("places", places),
        None if bias is None else ("bias", normal(6, *bias, new, total, dtype=dtype)),
        ("sink", normal(7, H, dtype=dtype)) if sink else None,
        None,
        None,
        ("q_norm", normal(8, D, dtype=dtype)) if norm else None,
        ("k_norm", normal(9, D, dtype=dtype)) if norm else None,
    ]
    while out[-1] is None:
        out.pop()
    return out


def run(given: list[tuple[str, Array] | None], dtype: Any = np.float32, outputs: int = 3, **attributes: Any) -> None:
    check(
        "GroupQueryAttention", given, [np.dtype(dtype)] * outputs, ("total", "cos", "sin"), num_heads=H,
        kv_num_heads=G, **attributes,
    )  # fmt: skip


STATES: dict[str, tuple[int, int | None, list[int], int | None]] = {
    "a prompt": (5, None, [5, 5], None),
    "a prompt and an empty past": (5, 0, [5, 5], None),
    "a prompt into a long buffer": (5, 9, [5, 5], None),
    "a step": (1, 6, [7, 7], None),
    "a step of unequal rows": (1, 6, [7, 4], None),
    "a step into a long buffer": (1, 11, [7, 4], None),
    "several at once": (3, 6, [9], None),
    "several into a long buffer": (3, 12, [8], None),
}


@pytest.mark.parametrize("dtype", [F32, F16])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_states(state: str, packed: bool, dtype: np.dtype) -> None:
    run(operands(*STATES[state], packed=packed, dtype=dtype), dtype)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("state", STATES)
def test_rotary(state: str, interleaved: int) -> None:
    given = operands(*STATES[state], packed=not interleaved, rotary=D)
    run(given, do_rotary=1, rotary_interleaved=interleaved, engine="unequal" in state or state == "a prompt")


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("state", STATES)
def test_windows(state: str, window: int) -> None:
    run(operands(*STATES[state]), local_window_size=window, engine=window == 3)


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scaled": ({}, {"scale": 0.4}),
    "capped": ({}, {"softcap": 1.5}),
    "smooth": ({}, {"smooth_softmax": 1}),
    "sink": ({"sink": True}, {}),
    "capped, biased, with a sink": ({"sink": True, "bias": (1, H)}, {"softcap": 2.0, "local_window_size": 3}),
    "biased": ({"bias": (1, 1)}, {}),
    "biased by head": ({"bias": (1, H)}, {}),
    "two-sided": ({}, {"causal": 0}),
    "partly rotary": ({"rotary": 16}, {"do_rotary": 1}),
}


@pytest.mark.parametrize(
    "state", ["a prompt", "a prompt into a long buffer", "a step into a long buffer", "several into a long buffer"]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str, state: str) -> None:
    inputs, attributes = VARIANTS[variant]
    run(operands(*STATES[state], **inputs), engine=state == "a step into a long buffer", **attributes)


@pytest.mark.parametrize("given", [1, 2])
@pytest.mark.parametrize("state", ["a prompt", "a step", "several into a long buffer"])
def test_scores_are_given(state: str, given: int) -> None:
    run(operands(*STATES[state]), outputs=4, qk_output=given, local_window_size=3, softcap=2.0)


def test_positions_of_its_own() -> None:
    """A first prompt goes on from the first position of all."""
    run(operands(1, 6, [7, 4], rotary=D, places=np.array([[5], [2]])), do_rotary=1)
    run(operands(3, 6, [9], rotary=D, places=np.array([[5, 2, 7]])), do_rotary=1)
    run(operands(4, None, [4, 4], rotary=D, places=rng(1).integers(1, 20, (2, 4))), do_rotary=1)


@pytest.mark.parametrize("held", [None, 9])
def test_a_padded_prompt(held: int | None) -> None:
    """Rows that end early are padded on the right; what the queries of the padding get is no one's business."""
    given = operands(5, held, [5, 3], 5, rotary=D)
    model, feed = single(
        "GroupQueryAttention", given, [F32] * 3, ("total", "cos", "sin"), num_heads=H, kv_num_heads=G, do_rotary=1
    )  # fmt: skip
    mine, right = compiled(model, feed), peer(model, feed)
    for made in (mine, right):
        made["y0"][1, 3:] = 0
        for name in ("y1", "y2"):
            made[name][1, :, 3:] = 0
    close(mine, right)


def test_normed_heads() -> None:
    """ONNX Runtime's CPU kernel takes heads that a node before it has normed."""
    given = operands(5, None, [5, 5], norm=True)
    held = {o[0]: o[1] for o in given if o is not None}
    normed = []
    for name, heads, weight in (("q", H, "q_norm"), ("k", G, "k_norm")):
        x = held[name].reshape(B, 5, heads, D).astype(np.float64)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * held[weight]
        normed.append((name, x.reshape(B, 5, heads * D).astype(np.float32)))
    names = {"num_heads": H, "kv_num_heads": G}
    wanted = peer(*single("GroupQueryAttention", [*normed, *given[2:7]], [F32] * 3, **names))
    model, feed = single("GroupQueryAttention", given, [F32] * 3, ("total",), qk_norm_epsilon=1e-3, **names)
    close(compiled(model, feed), wanted)


def test_it_is_compiled_as_attention() -> None:
    """With unequal rows too: no gather, no scatter, nothing on the host."""
    model, _ = single(
        "GroupQueryAttention", operands(1, 11, [7, 4], rotary=D), [F32] * 3, ("total", "cos", "sin"), num_heads=H,
        kv_num_heads=G, do_rotary=1,
    )  # fmt: skip
    ops = [op.name for op in graph.main_function(load_onnx(model).module).block.ops]
    assert ops.count("graph.attention") == 1
    assert not {"graph.softmax", "graph.host", "graph.scatter_nd", "graph.gather_elements"} & set(ops)


def refused(words: str, given: list[tuple[str, Array] | None], **attributes: Any) -> None:
    model, _ = single(
        "GroupQueryAttention", given, [F32] * 3, ("total",), **{"num_heads": H, "kv_num_heads": G, **attributes}
    )
    with pytest.raises(InputError, match=words):
        load_onnx(model)


def test_what_is_not_imported() -> None:
    prompt = operands(5, None, [5, 5])
    refused("its attribute k_quant_type is PER_TENSOR", prompt, k_quant_type="PER_TENSOR")
    refused("its attribute sliding_window_cache is 1", prompt, sliding_window_cache=1)
    refused("its num_heads is 3 and its kv_num_heads 2", prompt, num_heads=3)
    refused("local_window_size is 2, and causal is 0", prompt, causal=0, local_window_size=2)
    refused("its do_rotary is 1, and its cos_cache or sin_cache is missing", prompt, do_rotary=1)
    refused("its total_sequence_length is 7 with 5 new positions, and it has no past", operands(5, None, [5, 7]))


def test_the_total_may_be_an_input() -> None:
    """It decides the length of the present buffer; the engine is specialised for its value."""
    given = operands(1, 6, [7, 4])
    run_with_total_as_input = single("GroupQueryAttention", given, [F32] * 3, num_heads=H, kv_num_heads=G)
    close(compiled(*run_with_total_as_input), peer(*run_with_total_as_input))


def test_a_total_that_is_not_known_is_named() -> None:
    model, _ = single("GroupQueryAttention", operands(5, None, [5, 5]), [F32] * 3, num_heads=H, kv_num_heads=G)
    with pytest.raises(InputError, match='its input 6 \\("total", total_sequence_length\\) decides a shape'):
        load_onnx(model)
