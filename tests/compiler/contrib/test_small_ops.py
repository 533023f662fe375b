# SPDX-License-Identifier: Apache-2.0
"""Activations, normalisations and embeddings of com.microsoft against ONNX Runtime."""

import numpy as np
import onnx
import pytest

from tcc.compiler.frontend import load_onnx
from tcc.compiler.interpret import interpret
from tcc.errors import InputError
from tests.compiler.contrib.peers import F16, F32, I32, check, compiled, integers, normal, rng, same_as_peer, single

X = ("x", normal(0, 3, 5, 7))
BIAS = ("bias", normal(1, 7))


@pytest.mark.parametrize("op", ["FastGelu", "Gelu", "QuickGelu"])
def test_gelus(op: str) -> None:
    check(op, [X], [F32])


@pytest.mark.parametrize("op", ["FastGelu", "BiasGelu"])
def test_gelus_with_bias(op: str) -> None:
    check(op, [X, BIAS], [F32], constants=("bias",))


def test_quick_gelu_has_an_alpha() -> None:
    check("QuickGelu", [X], [F32], alpha=0.5)


def erf_gelu(x: np.ndarray) -> np.ndarray:
    from math import erf

    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def test_bias_split_gelu() -> None:
    """ONNX Runtime has it on CUDA only."""
    x, bias = normal(0, 2, 3, 10), normal(1, 10)
    model, feed = single("BiasSplitGelu", [("x", x), ("bias", bias)], [F32])
    left, right = np.split((x + bias).astype(np.float64), 2, axis=-1)
    for got in (interpret(load_onnx(model).module, feed), compiled(model, feed)):
        np.testing.assert_allclose(got["y0"], left * erf_gelu(right), rtol=1e-5, atol=1e-5)


NORMS = {
    "SkipLayerNormalization": [("gamma", normal(3, 7)), ("beta", normal(4, 7)), ("bias", normal(5, 7))],
    "SkipSimplifiedLayerNormalization": [("gamma", normal(3, 7)), ("bias", normal(5, 7))],
}


@pytest.mark.parametrize("dtype", [F32, F16])
@pytest.mark.parametrize("skip", [(3, 5, 7), (1, 5, 7), (5, 7)])
@pytest.mark.parametrize("op", NORMS)
def test_skip_norms(op: str, skip: tuple[int, ...], dtype: np.dtype) -> None:
    rest = [(n, a.astype(dtype)) for n, a in NORMS[op]]
    operands = [("x", normal(0, 3, 5, 7, dtype=dtype)), ("skip", normal(1, *skip, dtype=dtype)), *rest]
    check(op, operands, [dtype, None, None, dtype], constants=("gamma", "beta", "bias"), epsilon=1e-3)


@pytest.mark.parametrize("op", NORMS)
def test_skip_norms_without_bias(op: str) -> None:
    operands = [("x", normal(0, 4, 7)), ("skip", normal(1, 4, 7)), *NORMS[op][:1]]
    check(op, operands, [F32], constants=("gamma",))


@pytest.mark.parametrize("dtype", [F32, F16])
def test_simplified_layer_norm(dtype: np.dtype) -> None:
    operands = [("x", normal(0, 3, 5, 7, dtype=dtype)), ("scale", normal(1, 7, dtype=dtype))]
    check("SimplifiedLayerNormalization", operands, [dtype], domain="", epsilon=1e-4)
    check("SimplifiedLayerNormalization", operands, [dtype, F32], domain="", axis=-1)


def test_norm_statistics_are_refused() -> None:
    operands = [("x", normal(0, 4, 7)), ("skip", normal(1, 4, 7)), ("gamma", normal(2, 7))]
    model, _ = single("SkipLayerNormalization", operands, [F32, F32])
    with pytest.raises(InputError, match='does not give its output "y1"'):
        load_onnx(model)


def embedding(*, segments: bool, mask: bool, places: bool, outputs: int) -> None:
    r = rng(7)
    operands = [
        ("ids", r.integers(0, 19, (3, 5)).astype(np.int32)),
        ("segments", r.integers(0, 2, (3, 5)).astype(np.int32)) if segments else None,
        ("words", normal(0, 19, 8)),
        ("positions", normal(1, 11, 8)),
        ("kinds", normal(2, 2, 8)) if segments else None,
        ("gamma", normal(3, 8)),
        ("beta", normal(4, 8)),
        ("mask", (np.arange(5) < [[5], [3], [1]]).astype(np.int32)) if mask else None,
        ("places", r.integers(0, 11, (3, 5)).astype(np.int32)) if places else None,
    ]
    while operands[-1] is None:
        operands.pop()
    held = ("words", "positions", "kinds", "gamma", "beta")
    check("EmbedLayerNormalization", operands, [F32, I32, F32][:outputs], held, epsilon=1e-6)


def test_embed_layer_norm() -> None:
    embedding(segments=True, mask=True, places=False, outputs=3)
    embedding(segments=False, mask=False, places=False, outputs=2)
    embedding(segments=True, mask=False, places=True, outputs=2)
    embedding(segments=True, mask=True, places=True, outputs=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("segments", [True, False])
def test_quantized_embed_layer_norm(segments: bool, dtype: type) -> None:
    r = rng(8)
    tables = [integers(i, dtype, *s) for i, s in enumerate(((19, 8), (11, 8), (2, 8), (8,), (8,)))]
    kept = [True, True, segments, True, True]
    operands = [
        ("ids", r.integers(0, 19, (3, 5)).astype(np.int32)),
        ("segments", r.integers(0, 2, (3, 5)).astype(np.int32)) if segments else None,
        *[(f"t{i}", t) if k else None for i, (t, k) in enumerate(zip(tables, kept, strict=True))],
        ("mask", (np.arange(5) < [[5], [3], [1]]).astype(np.int32)),
        *[(f"s{i}", np.float32(0.01 + 0.003 * i)) if k else None for i, k in enumerate(kept)],
        *[(f"z{i}", np.array(3 + i, dtype)) if k else None for i, k in enumerate(kept)],
    ]
    held = [o[0] for o in operands[2:] if o is not None and o[0] != "mask"]
    check("QEmbedLayerNormalization", operands, [F32, I32], held, epsilon=1e-6)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("silu", [0, 1])
def test_group_norms(last: bool, silu: int) -> None:
    """ONNX Runtime has them on GPUs only."""
    x, scale, shift = normal(0, 2, 6, 3, 5), normal(1, 6), normal(2, 6)
    skip, bias = normal(3, 2, 6), normal(4, 6)

    def right(v: np.ndarray) -> np.ndarray:
        g = v.astype(np.float64).reshape(2, 3, 2, 3, 5)
        g = (g - g.mean((2, 3, 4), keepdims=True)) / np.sqrt(g.var((2, 3, 4), keepdims=True) + 1e-5)
        y = g.reshape(v.shape) * scale[:, None, None] + shift[:, None, None]
        return y / (1 + np.exp(-y)) if silu else y

    def order(v: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(v.transpose(0, 2, 3, 1)) if last else v

    attributes = {"groups": 3, "activation": silu, "channels_last": int(last)}
    model, feed = single("GroupNorm", [("x", order(x)), ("s", scale), ("b", shift)], [F32], **attributes)
    np.testing.assert_allclose(compiled(model, feed)["y0"], order(right(x)), rtol=1e-4, atol=1e-4)
    total = x + skip[:, :, None, None] + bias[:, None, None]
    operands = [("x", order(x)), ("s", scale), ("b", shift), ("skip", skip), ("bias", bias)]
    model, feed = single("SkipGroupNorm", operands, [F32, F32], **attributes)
    got = compiled(model, feed)
    np.testing.assert_allclose(got["y0"], order(right(total)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["y1"], order(total), rtol=1e-5, atol=1e-5)


def test_the_domain_need_not_be_imported() -> None:
    """ONNX Runtime's tools leave it out."""
    model, feed = single("FastGelu", [X], [F32])
    del model.opset_import[1]
    same_as_peer(model, feed)


def refused(model: onnx.ModelProto, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_onnx(model)


def test_attributes_are_checked() -> None:
    refused(single("FastGelu", [X], [F32], speed=3)[0], "its attribute speed is not supported")
    refused(single("QuickGelu", [X], [F32], alpha=1)[0], "its attribute alpha is of type INT, and FLOAT is needed")
    refused(single("BeamSearch", [X], [F32])[0], "BeamSearch of com.microsoft, opset 1")
