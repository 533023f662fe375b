# SPDX-License-Identifier: Apache-2.0
"""tcc.reference against the stored inputs and outputs of the ONNX backend node tests."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tests.reference.onnx_graph import run_model, supported

# ONNX leaves the numbers of these open; test_random.py checks their distributions.
RANDOM = ("test_bernoulli", "test_training_dropout_default", "test_training_dropout_mask", "test_training_dropout")

# The stored results of small floats were rounded after every step, ours once at the end.
SMALL_FLOAT_RTOL = {np.dtype(np.float16): 2e-3, np.dtype(ml_dtypes.bfloat16): 1.6e-2}


@cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute their infinities on the way
        return {c.name: c for c in load_model_tests(kind="node") if supported(c.model)}


def is_random(name: str) -> bool:
    return name.startswith(RANDOM) and "zero_ratio" not in name


def array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def check(actual: Any, expected: Any, rtol: float, atol: float) -> None:
    if isinstance(expected, list):
        assert isinstance(actual, list)
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            check(a, e, rtol, atol)
        return
    if expected is None:
        assert actual is None
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    if expected.dtype.kind in "OUS":
        assert (actual.astype(object) == expected.astype(object)).all()
        return
    assert actual.dtype == expected.dtype
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(actual, expected)
        return
    rtol = max(rtol, SMALL_FLOAT_RTOL.get(expected.dtype, 0.0))
    if expected.dtype.kind != "c":
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_most_cases_are_covered() -> None:
    assert len(cases()) >= 1795


@pytest.mark.parametrize("name", [n for n in cases() if not is_random(n)])
def test_node(name: str) -> None:
    case = cases()[name]
    for inputs, outputs in case.data_sets:
        actual = run_model(case.model, [array(v) for v in inputs])
        assert len(actual) == len(outputs)
        for a, e in zip(actual, outputs, strict=True):
            check(a, array(e), case.rtol, case.atol)
