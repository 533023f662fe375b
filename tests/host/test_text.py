# SPDX-License-Identifier: Apache-2.0
"""String operators through engines, against onnx.reference."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import tcc
from tcc.errors import FailureError
from tests.host.test_values import S, checked, make, node, tensor
from tests.target import TARGET

WORDS = np.array(["Monday", "tuesday", "", "Größe", "MONDAY", " two words "], object)
PLAIN = np.array(["Monday", "tuesday", "monday", "MONDAY"], object)


@pytest.mark.parametrize(
    ("op", "x", "attributes", "outputs"),
    [
        ("RegexFullMatch", WORDS, {"pattern": r"[A-Z]\w+"}, 1),
        ("RegexFullMatch", WORDS.reshape(2, 3), {"pattern": r"(?i)mon.*|"}, 1),
        ("StringSplit", WORDS, {}, 2),
        ("StringSplit", WORDS.reshape(3, 2), {"delimiter": "o", "maxsplit": 1}, 2),
        ("StringSplit", np.empty((0,), object), {}, 2),
        # onnx.reference also drops empty strings and accents, of which the operator's text says nothing.
        ("StringNormalizer", PLAIN,
         {"stopwords": ["monday"], "case_change_action": "UPPER", "is_case_sensitive": 1}, 1),
        ("StringNormalizer", PLAIN[None], {"stopwords": ["Monday"], "case_change_action": "LOWER"}, 1),
        ("StringNormalizer", WORDS[:1], {"stopwords": ["Monday"], "is_case_sensitive": 1}, 1),
        ("TfIdfVectorizer", np.array(["a", "b", "a", "b", "c"], object),
         {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1, "ngram_counts": [0, 2],
          "ngram_indexes": [0, 1, 2], "pool_strings": ["a", "b", "a", "b"]}, 1),
    ],
)  # fmt: skip
def test_operators(op: str, x: np.ndarray, attributes: dict[str, Any], outputs: int):
    names = [f"y{i}" for i in range(outputs)]
    checked(make([node(op, ["x"], names, **attributes)], {"x": tensor(S, x.shape)}, names), {"x": x})


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3,)), ((), ()), ((2, 1), (1, 3)), ((0, 3), (3,))])
def test_concat_broadcasts(a: tuple[int, ...], b: tuple[int, ...]):
    x, y = (np.array([f"{n}{i}" for i in range(int(np.prod(s)))], object).reshape(s) for n, s in (("x", a), ("ü", b)))
    model = make([node("StringConcat", ["x", "y"], ["z"])], {"x": tensor(S, a), "y": tensor(S, b)}, ["z"])
    got = tcc.compile(model, target=TARGET)({"x": x, "y": y})["z"]
    assert got.shape == np.broadcast_shapes(a, b)
    assert got.tolist() == (np.asarray(x) + y if got.ndim else np.array(str(x) + str(y), object)).tolist()


def test_numbers_go_on_from_strings():
    """The lengths of splits are numbers, and what is made of them is compiled."""
    nodes = [
        node("StringSplit", ["x"], ["parts", "count"]), node("Cast", ["count"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "half"], ["y"]),
    ]  # fmt: skip
    model = make(nodes, {"x": tensor(S, [6])}, ["y"], {"half": np.float32(0.5)})
    assert checked(model, {"x": WORDS}).kernels


def test_a_label_that_a_call_cannot_take():
    model = make([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], {"x": tensor(S, [1])}, ["y"])
    engine = tcc.compile(model, target=TARGET)
    with pytest.raises(FailureError, match=r"'cast' \(of Cast_0\) cannot take these values"):
        engine({"x": ["seven"]})
