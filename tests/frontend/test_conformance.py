# SPDX-License-Identifier: Apache-2.0
"""ONNX's own node tests, imported and interpreted.

Many of them pass what decides a shape (axes, sizes, pads) as an input; it is then made an initialiser, as real models
have it.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase as Case
from onnx.backend.test.loader import load_model_tests

from tcc.compiler.frontend import import_onnx
from tcc.compiler.interpret import interpret
from tcc.errors import InputError
from tcc.ir.verifier import verify

# Why cases whose names begin so cannot be imported: a pattern of the message.
REFUSED = {
    "test_scan_sum": "opset is 8",
}


# ONNX leaves the numbers of these open: only that they can be computed is tested.
RANDOM = ("test_bernoulli", "test_training_dropout")


@cache
def cases() -> dict[str, list[Case]]:
    """Cases by the operator of their last node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load_model_tests(kind="node")
    out: dict[str, list[Case]] = defaultdict(list)
    for case in loaded:
        if case.model is not None:
            out[case.name.removeprefix("test_").split("_")[0]].append(case)
    return dict(sorted(out.items()))


def plain(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def outputs(model: onnx.ModelProto, inputs: list[Any], frozen: Iterable[int]) -> dict[str, np.ndarray]:
    """What the model gives, with some inputs made initialisers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    feed = dict(zip((i.name for i in model.graph.input), inputs, strict=True))
    for i in frozen:
        if i < len(inputs) and isinstance(inputs[i], np.ndarray | np.generic):
            name = model.graph.input[i].name
            copy.graph.initializer.append(numpy_helper.from_array(np.asarray(feed.pop(name)), name))
    held = {n: form(v) for n, v in feed.items() if v is None or isinstance(v, list)}
    module = import_onnx(copy, held)
    verify(module)
    return interpret(module, feed)


def form(value: Any) -> Any:
    """What binds a sequence or an optional: the shapes of its tensors, or None."""
    return None if value is None else tuple(map(form, value)) if isinstance(value, list) else np.shape(value)


def run(case: Case, inputs: list[Any]) -> dict[str, np.ndarray]:
    model = case.model
    assert model is not None
    try:
        return outputs(model, inputs, ())
    except InputError as error:
        if "known" not in str(error):
            raise
    try:
        return outputs(model, inputs, range(1, len(inputs)))
    except InputError:
        return outputs(model, inputs, range(len(inputs)))


def compare(case: Case, got: Any, want: Any) -> None:
    if want is None or isinstance(want, list):
        assert type(got) is type(want)
        for a, b in zip(got or (), want or (), strict=True):
            compare(case, a, b)
        return
    want = np.asarray(want)
    assert got.shape == want.shape
    if want.dtype.kind in "OUT":
        assert got.astype(str).tolist() == want.astype(str).tolist()
        return
    assert got.dtype == want.dtype
    # Results of 16-bit floats may differ by roundings in the middle; the cases allow less than one of their ulps.
    rtol = {"bfloat16": 2e-2, "float16": 2e-3}.get(want.dtype.name, case.rtol)
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=max(rtol, case.rtol), atol=max(case.atol, 1e-6)
    )


@pytest.mark.parametrize("group", cases())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_node_cases(group: str) -> None:
    for case in cases()[group]:
        if case.name.startswith("test_image_decoder") and find_spec("PIL") is None:
            continue  # tests/host/test_image.py says what happens then
        refusal = next((why for name, why in REFUSED.items() if case.name.startswith(name)), None)
        for inputs, wanted in case.data_sets:
            given = [plain(v) for v in inputs]
            try:
                got = run(case, given)
            except InputError as error:
                assert refusal is not None and re.search(refusal, str(error)), f"{case.name}: {error}"
                continue
            except Exception as error:
                raise AssertionError(f"{case.name}: {type(error).__name__}: {error}") from error
            for output, want in zip(case.model.graph.output, wanted, strict=True):
                if case.name.startswith(RANDOM) and "zero_ratio" not in case.name:
                    assert np.shape(got[output.name]) == np.shape(plain(want))
                    continue
                try:
                    compare(case, got[output.name], plain(want))
                except AssertionError as error:
                    raise AssertionError(f"{case.name}: {error}") from None
