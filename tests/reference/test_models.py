# SPDX-License-Identifier: Apache-2.0
"""Whole models, node by node on tcc.reference, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import version_converter

from benchmarks import zoo
from tests.reference.onnx_graph import run_model

NEWEST_HELD_BY_THE_CONVERTER = 18


@pytest.mark.parametrize("name", ["light_shufflenet", "mobilenetv3_large_100"])
def test_model(name: str) -> None:
    model, inputs = zoo.load(name), zoo.inputs(name)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)
    if next(o.version for o in model.opset_import if o.domain == "") < NEWEST_HELD_BY_THE_CONVERTER:
        model = version_converter.convert_version(model, NEWEST_HELD_BY_THE_CONVERTER)
    initial = {t.name for t in model.graph.initializer}
    fed = [i.name for i in model.graph.input if i.name not in initial]
    by_position = [inputs[n] if n in fed else None for n in (i.name for i in model.graph.input)]
    actual = run_model(model, by_position)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert np.max(np.abs(a - e)) <= 1e-5 * np.max(np.abs(e))
