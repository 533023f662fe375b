# SPDX-License-Identifier: Apache-2.0
"""Decoders that carry their cache from call to call, and a fused BERT, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.transformers.float16 import convert_float_to_float16

import tcc
from tcc.compiler.frontend import load_onnx
from tcc.ir import graph
from tests.compiler.contrib import quantized
from tests.compiler.contrib.peers import Array, close, compiled, on_gpu, peer, rng
from tests.compiler.contrib.transformers import DEPTH, GROUPS, HEADS, LAYERS, WORDS, decoder, encoder
from tests.target import TARGET


def ids(seed: int, *shape: int) -> Array:
    return rng(seed).integers(0, WORDS, shape)


def words(batch: int, length: int) -> dict[str, Array]:
    """An encoder's inputs: rows of unequal length."""
    ends = np.array([length, length - 3])[:batch, None]
    return {
        "input_ids": ids(0, batch, length).astype(np.int32),
        "token_type_ids": (ids(1, batch, length) % 2).astype(np.int32),
        "attention_mask": (np.arange(length) < ends).astype(np.int32),
    }


def prompt(groups: int) -> dict[str, Array]:
    return {"input_ids": ids(0, 1, 5), "attention_mask": np.ones((1, 5), np.int64), **empty(1, groups)}


def caches(presents: dict[str, Array]) -> dict[str, Array]:
    """What a call gave, as what the next one takes."""
    return {k.replace("present", "past_key_values"): v for k, v in presents.items() if k != "logits"}


def empty(batch: int, groups: int) -> dict[str, Array]:
    shape = (batch, groups, 0, DEPTH)
    names = [f"past_key_values.{i}.{x}" for i in range(LAYERS) for x in ("key", "value")]
    return {name: np.zeros(shape, np.float32) for name in names}


@pytest.mark.parametrize("four_bits", [False, True])
@pytest.mark.parametrize("attention", ["group", "multi", "plain"])
def test_decoders(attention: str, four_bits: bool) -> None:
    """A prompt of five, two steps of one, and three at once, each behind what the call before gave."""
    groups = GROUPS if attention == "group" else HEADS
    right, past = empty(1, groups), 0
    for seed, new in enumerate((5, 1, 1, 3)):
        model = decoder(attention, 1, new, past, past + new, four_bits)
        given = {"input_ids": ids(seed, 1, new), "attention_mask": np.ones((1, past + new), np.int64), **right}
        wanted = peer(model, given)
        close(compiled(model, given), wanted)
        right, past = caches(wanted), past + new
        assert right["past_key_values.0.key"].shape[2] == past


@pytest.mark.parametrize("attention", ["multi", "plain"])
def test_a_padded_batch(attention: str) -> None:
    """Rows of unequal length, padded on the left."""
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.int64)
    given = {"input_ids": ids(1, 2, 5), "attention_mask": mask, **empty(2, HEADS)}
    model = decoder(attention, 2, 5, 0, 5)
    # A row of padding sees nothing: what it becomes is no one's business, and the two disagree there.
    mine, wanted = compiled(model, given), peer(model, given)
    for rows in (mine, wanted):
        rows["logits"][0, :2] = 0
        for name in rows:
            if name != "logits":
                rows[name][0, :, :2] = 0
    close(mine, wanted)


def test_free_dims_are_bound_by_name() -> None:
    model = decoder("group", "batch", "new", "past", "total")
    past = {f"past_key_values.{i}.{x}": (1, GROUPS, 4, DEPTH) for i in range(LAYERS) for x in ("key", "value")}
    engine = tcc.compile(model, target=TARGET, shapes={"input_ids": (1, 1), "attention_mask": (1, 5), **past})
    given = {
        "input_ids": ids(3, 1, 1), "attention_mask": np.ones((1, 5), np.int64),
        **{k: rng(i).standard_normal(s).astype(np.float32) for i, (k, s) in enumerate(past.items())},
    }  # fmt: skip
    close(dict(engine(given)), peer(model, given))


def test_free_dims_may_stay_free() -> None:
    """One engine for a prompt and its steps: it specialises itself for the lengths that a call brings."""
    engine = tcc.compile(decoder("group", "batch", "new", "past", "total"), target="cpu")
    right, past = empty(1, GROUPS), 0
    for seed, new in enumerate((4, 1)):
        given = {"input_ids": ids(seed, 1, new), "attention_mask": np.ones((1, past + new), np.int64), **right}
        wanted = peer(decoder("group", 1, new, past, past + new), given)
        close(dict(engine(given)), wanted)
        right, past = caches(wanted), past + new


@pytest.mark.parametrize("attention", ["group", "multi"])
def test_a_layer_has_one_attention(attention: str) -> None:
    module = load_onnx(decoder(attention, 1, 1, 4, 5)).module
    ops = [op.name for op in graph.main_function(module).block.ops]
    assert ops.count("graph.attention") == LAYERS
    assert "graph.softmax" not in ops


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("raw_mask", [False, True])
def test_encoder(raw_mask: bool, fast: bool) -> None:
    model, given = encoder(2, 7, raw_mask, fast), words(2, 7)
    close(compiled(model, given), peer(model, given))


@pytest.mark.parametrize("kind", [quantized.U8, quantized.I8])
def test_a_dynamically_quantized_encoder(kind: object, tmp_path: Path) -> None:
    """ONNX Runtime's tool makes QAttention and QEmbedLayerNormalization of it."""
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    model = quantized.dynamic(encoder(2, 7, raw_mask=True), tmp_path, weight_type=kind, extra_options=options)
    assert {"QAttention", "QEmbedLayerNormalization", "DynamicQuantizeLinear"} <= quantized.operators(model)
    quantized.right(model, words(2, 7))


HALVES = {
    "encoder": lambda: (encoder(2, 7, raw_mask=True), words(2, 7)),
    "decoder, group": lambda: (decoder("group", 1, 5, 0, 5), prompt(GROUPS)),
    "decoder, multi": lambda: (decoder("multi", 1, 5, 0, 5), prompt(HEADS)),
}


@pytest.mark.parametrize("name", HALVES)
def test_in_halves(name: str) -> None:
    """All in f16, which ONNX Runtime's CPU kernels do not take everywhere: against the model in f32."""
    model, given = HALVES[name]()
    wanted = peer(model, given)
    close(compiled(convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True), given), wanted, 5e-3)


def test_encoder_with_searched_kernels() -> None:
    model = encoder(1, 9, raw_mask=True)
    given = {name: np.ones((1, 9), np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
    close(compiled(model, given, level=3), peer(model, given))


MODELS = {
    "decoder, a prompt": lambda: decoder("group", 1, 5, 0, 5),
    "decoder, a step": lambda: decoder("group", 1, 1, 7, 8, four_bits=True),
    "encoder": lambda: encoder(2, 7, raw_mask=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_engine_is_built(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(MODELS[name](), path)
    on_gpu(path)
