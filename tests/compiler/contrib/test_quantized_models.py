# SPDX-License-Identifier: Apache-2.0
"""Quantized models of every kind against ONNX Runtime on the CPU; a few are built for a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.compiler.interpret import interpret
from tcc.ir import graph
from tests.compiler import small_models
from tests.compiler.contrib import quantized
from tests.compiler.contrib.peers import close, compiled, on_gpu, peer, rng
from tests.compiler.contrib.quantized import (
    I8,
    I16,
    QDQ,
    QOPERATOR,
    U8,
    U16,
    dynamic,
    feed,
    operators,
    optimised,
    right,
    static,
)

STATIC: dict[str, dict[str, Any]] = {
    "QDQ, u8 by i8, per channel": {
        "quant_format": QDQ, "activation_type": U8, "weight_type": I8, "per_channel": True,
    },
    "QDQ, i8 by i8": {"quant_format": QDQ, "activation_type": I8, "weight_type": I8},
    "QDQ, u16 by i8, of com.microsoft": {
        "quant_format": QDQ, "activation_type": U16, "weight_type": I8, "per_channel": True,
        "extra_options": {"UseQDQContribOps": True},
    },
    "QDQ, i16 by i16": {"quant_format": QDQ, "activation_type": I16, "weight_type": I16},
    "QLinear, u8 by i8, per channel": {
        "quant_format": QOPERATOR, "activation_type": U8, "weight_type": I8, "per_channel": True,
    },
    "QLinear, u8 by u8": {"quant_format": QOPERATOR, "activation_type": U8, "weight_type": U8},
    "QLinear, i8 by i8": {"quant_format": QOPERATOR, "activation_type": I8, "weight_type": I8},
}  # fmt: skip
MODELS = {"cnn": small_models.cnn, "transformer": small_models.transformer}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", STATIC)
def test_static(form: str, model: str, tmp_path: Path) -> None:
    made = static(MODELS[model](), tmp_path, **STATIC[form])
    if "QLinear" in form:
        assert {"QLinearAdd", "QLinearSoftmax"} <= operators(made)
    right(made, feed(made, 8))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", ["QDQ, u8 by i8, per channel", "QDQ, i8 by i8", "QLinear, u8 by i8, per channel"])
def test_static_as_onnx_runtime_rewrites_it(form: str, model: str, tmp_path: Path) -> None:
    """QDQ becomes QLinear operators."""
    made = optimised(static(MODELS[model](), tmp_path, **STATIC[form]), tmp_path)
    assert "QLinearSoftmax" in operators(made)
    right(made, feed(made, 8))


@pytest.mark.parametrize("form", ["QDQ, u8 by i8, per channel", "QLinear, u8 by i8, per channel"])
def test_with_searched_kernels(form: str, tmp_path: Path) -> None:
    made = static(small_models.cnn(), tmp_path, **STATIC[form])
    right(made, feed(made, 8), level=3)


DYNAMIC = {
    "mlp": quantized.mlp, "lstm": quantized.lstm, "cnn": small_models.cnn, "transformer": small_models.transformer,
}  # fmt: skip


@pytest.mark.parametrize("kind", [U8, I8])
@pytest.mark.parametrize("model", DYNAMIC)
def test_dynamic(model: str, kind: Any, tmp_path: Path) -> None:
    made = dynamic(DYNAMIC[model](), tmp_path, weight_type=kind)
    assert operators(made) & {"DynamicQuantizeLinear", "DynamicQuantizeLSTM"}
    right(made, feed(made, 8))


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_dynamic_as_onnx_runtime_rewrites_it(model: str, tmp_path: Path) -> None:
    made = optimised(dynamic(DYNAMIC[model](), tmp_path, weight_type=I8), tmp_path)
    assert operators(made) & {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
    right(made, feed(made, 8))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_dynamic_lstm_by_column(direction: str, tmp_path: Path) -> None:
    made = dynamic(quantized.lstm(direction), tmp_path, weight_type=I8, per_channel=True)
    assert "DynamicQuantizeLSTM" in operators(made)
    right(made, feed(made, 8))


def test_blocks_of_four_bits() -> None:
    made = quantized.blocks_of_four_bits()
    right(made, feed(made, 8))


def test_integers_only() -> None:
    """Integer products are exact; the quantized result may be one quantum off in one place of a hundred."""
    made = quantized.integers_only()
    given = {"x": rng(9).integers(0, 256, (2, 3, 7, 9)).astype(np.uint8)}
    close(compiled(made, given), peer(made, given))
    close(interpret(load_onnx(made).module, given), peer(made, given))


def test_integer_products_stay_integers(tmp_path: Path) -> None:
    """Every product of a QLinear model takes and gives i32."""
    made = static(small_models.cnn(), tmp_path, **STATIC["QLinear, u8 by i8, per channel"])
    function = graph.main_function(load_onnx(made).module)
    products = [op for op in function.block.ops if isinstance(op, graph.Conv | graph.Matmul)]
    assert len(products) == 6
    assert {graph.tensor_type(op.results[0]).dtype.name for op in products} == {"i32"}


@pytest.mark.parametrize("form", ["QDQ, u8 by i8, per channel", "QLinear, i8 by i8"])
def test_a_gpu_engine_is_built(form: str, tmp_path: Path) -> None:
    """NVRTC compiles every kernel of it; nothing is left to the host."""
    onnx.save(static(small_models.cnn(), tmp_path, **STATIC[form]), tmp_path / "model.onnx")
    on_gpu(tmp_path / "model.onnx")
