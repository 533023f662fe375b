# SPDX-License-Identifier: Apache-2.0
"""com.microsoft Tokenizer against ONNX Runtime, alone and before n-grams, as converted text pipelines have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import tcc
from tcc.compiler.driver import compile_model
from tcc.compiler.frontend.importer import import_onnx
from tcc.compiler.options import Options
from tcc.errors import InputError
from tcc.ir.parser import parse
from tcc.ir.printer import print_op

TEXTS: list[Any] = [["ab cd  e", "", "größe, x"], [["a b", "c"], ["d-e f", ""]], ["", ""]]
WAYS: dict[str, dict[str, Any]] = {
    "words": {"tokenexp": "[a-zA-Zöß]+"},
    "long words": {"tokenexp": "[a-z]+", "mincharnum": 2, "mark": 1},
    "spaces": {"separators": [" "]},
    "spaces and dashes": {"separators": [" ", "-"], "mark": 1},
    "characters": {"separators": [""], "mark": 1, "pad_value": ""},
}


def made(rank: int, after: list[onnx.NodeProto], output: onnx.ValueInfoProto, **attributes: Any) -> onnx.ModelProto:
    given = {"mark": 0, "mincharnum": 1, "pad_value": "#", **attributes}
    cut = helper.make_node("Tokenizer", ["x"], ["tokens"], "cut", domain="com.microsoft", **given)
    x = helper.make_tensor_value_info("x", TensorProto.STRING, ["rows", "columns"][:rank])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([cut, *after], "text", [x], [output])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def tokens(rank: int, **attributes: Any) -> onnx.ModelProto:
    return made(rank, [], helper.make_tensor_value_info("tokens", TensorProto.STRING, None), **attributes)


def right(model: onnx.ModelProto, x: Any) -> Any:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("texts", TEXTS, ids=["vector", "matrix", "empty"])
@pytest.mark.parametrize("way", WAYS)
def test_tokens(way: str, texts: Any) -> None:
    x = np.array(texts, object)
    model = tokens(x.ndim, **WAYS[way])
    engine: Any = tcc.compile(model, target="cpu")
    want, got = right(model, x), engine({"x": x})["tokens"]
    assert got.shape == want.shape
    assert got.tolist() == want.tolist()


def test_counts_of_words() -> None:
    count = helper.make_node(
        "TfIdfVectorizer", ["tokens"], ["y"], mode="TF", min_gram_length=1, max_gram_length=2, max_skip_count=0,
        ngram_counts=[0, 3], ngram_indexes=[0, 1, 2, 3], pool_strings=["a", "cat", "sat", "cat", "sat"],
    )  # fmt: skip
    model = made(1, [count], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), tokenexp="[a-z]+")
    engine: Any = tcc.compile(model, target="cpu")
    for texts in (["a cat sat", "sat a cat"], ["the cat sat on a cat that sat"]):
        x = np.array(texts, object)
        assert engine({"x": x})["y"].tolist() == right(model, x).tolist()


def test_text_and_gpu() -> None:
    model = tokens(1, separators=[" ", 'a"\\.', "größe"])
    text = print_op(import_onnx(model, {"x": (3,)}))
    assert print_op(parse(text)) == text
    assert compile_model(model, Options(target="sm_86", shapes={"x": (3,)}))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"tokenexp": "("}, "regular expression"), ({}, "separators"), ({"tokenexp": "a", "separators": ["b"]}, "both")],
)
def test_refused(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=rf'"cut".*{reason}'):
        tcc.compile(tokens(1, **attributes), target="cpu", shapes={"x": (3,)})
