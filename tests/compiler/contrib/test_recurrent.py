# SPDX-License-Identifier: Apache-2.0
"""DynamicQuantizeLSTM against ONNX Runtime, which quantizes the state of each step by its range too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.errors import InputError
from tcc.ir import graph
from tests.compiler.contrib.peers import F32, I8, U8, Array, check, normal, rng, single

STEPS, BATCH, WIDTH, HIDDEN = 7, 3, 5, 6


def layer(
    *, count: int = 1, dtype: Any = I8, by_column: bool = False, bias: bool = True, lengths: bool = False,
    states: bool = False, peepholes: bool = False, batch: int = BATCH,
) -> list[tuple[str, Array] | None]:  # fmt: skip
    r = rng(3)
    columns = (count, 4 * HIDDEN) if by_column else (count,)

    def weights(seed: int, width: int) -> Array:
        low, high = (0, 256) if dtype == U8 else (-127, 128)
        return rng(seed).integers(low, high, (count, width, 4 * HIDDEN)).astype(dtype)

    zero = np.full(columns, 0 if dtype == I8 else 131, dtype)
    return [
        ("x", normal(0, STEPS, batch, WIDTH)),
        ("w", weights(1, WIDTH)),
        ("r", weights(2, HIDDEN)),
        ("b", normal(4, count, 8 * HIDDEN) / 2) if bias else None,
        ("lengths", np.array([STEPS, 2, 5], np.int32)[:batch]) if lengths else None,
        ("h", normal(5, count, batch, HIDDEN) / 2) if states else None,
        ("c", normal(6, count, batch, HIDDEN) / 2) if states else None,
        ("p", normal(7, count, 3 * HIDDEN) / 2) if peepholes else None,
        ("w_scale", r.uniform(0.003, 0.006, columns).astype(np.float32)),
        ("w_zero", zero),
        ("r_scale", r.uniform(0.003, 0.006, columns).astype(np.float32)),
        ("r_zero", zero),
    ]


HELD = ("w", "r", "b", "p", "w_scale", "w_zero", "r_scale", "r_zero")


def run(given: list[tuple[str, Array] | None], **attributes: Any) -> None:
    check("DynamicQuantizeLSTM", given, [F32, F32, F32], HELD, hidden_size=HIDDEN, **attributes)


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("dtype", [U8, I8])
def test_weights(dtype: np.dtype, by_column: bool) -> None:
    run(layer(dtype=dtype, by_column=by_column))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions(direction: str) -> None:
    run(layer(count=2 if direction == "bidirectional" else 1, states=True), direction=direction)


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no bias": ({"bias": False}, {}),
    "one sequence": ({"batch": 1}, {}),
    "peepholes": ({"peepholes": True, "states": True}, {}),
    "clipped": ({}, {"clip": 0.4}),
    "coupled": ({}, {"input_forget": 1}),
    "other functions": (
        {},
        {"activations": ["HardSigmoid", "ScaledTanh", "Softsign"], "activation_alpha": [0.3, 0.8],
         "activation_beta": [0.4, 0.9]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    operands, attributes = FORMS[form]
    run(layer(**operands), **attributes)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_sequences_of_unequal_length(direction: str) -> None:
    run(layer(count=2 if direction == "bidirectional" else 1, lengths=True, states=True), direction=direction)


@pytest.mark.parametrize("dtype", [U8, I8])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_direction_is_one_recurrence(direction: str, dtype: np.dtype) -> None:
    """Its weights are bytes where they fit those, and no step is a launch of its own."""
    count = 2 if direction == "bidirectional" else 1
    given = layer(count=count, dtype=dtype)
    if dtype == U8:
        given[-1] = ("r_zero", np.full(count, 200, U8))
    model, _ = single("DynamicQuantizeLSTM", given, [F32, F32, F32], HELD, hidden_size=HIDDEN, direction=direction)
    ops = [op for op in graph.main_function(load_onnx(model).module).walk() if op.name == "graph.quantized_lstm"]
    kind = "i8" if dtype == I8 else "i16"
    assert [str(op.operands[1].type) for op in ops] == [f"tensor<{4 * HIDDEN}x{HIDDEN}x{kind}>"] * count
    run(given, direction=direction)


@pytest.mark.parametrize("held", [(), ("r", "r_zero")])
def test_weights_that_a_run_gives(held: tuple[str, ...]) -> None:
    given = layer(dtype=U8, lengths=True, by_column=True)
    check("DynamicQuantizeLSTM", given, [F32, F32, F32], held, hidden_size=HIDDEN)


def test_what_does_not_fit_is_refused() -> None:
    for words, attributes in (
        ("its hidden_size is 9, and R", {"hidden_size": 9}),
        ("its direction is up", {"direction": "up"}),
        ("its attribute layout is not supported", {"layout": 1}),
        ("do not fit X", {"direction": "bidirectional"}),
    ):
        model, _ = single("DynamicQuantizeLSTM", layer(), [F32], HELD, **attributes)
        with pytest.raises(InputError, match=words):
            load_onnx(model)
