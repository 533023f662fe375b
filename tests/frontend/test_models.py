# SPDX-License-Identifier: Apache-2.0
"""Whole models, imported and interpreted, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from benchmarks import zoo
from tcc.compiler.frontend import load_onnx
from tcc.compiler.interpret import interpret
from tcc.ir.verifier import verify

FAST = [
    "ppocr_det_320x320", "ppocr_det_480x640", "ppocr_rec", "ppocr_cls", "magika", "light_squeezenet",
    "light_shufflenet", "light_inception_v1", "mobilenetv3_large_100",
]  # fmt: skip
SLOW = [
    "light_densenet121", "light_inception_v2", "light_resnet50", "light_bvlc_alexnet", "resnet50", "bert_base",
]  # fmt: skip
"""VGG-19 and ZFNet-512 have AlexNet's layers, ViT has BERT's: `benchmarks.check_models` has them too."""


def check(name: str) -> None:
    model, inputs = zoo.load(name), zoo.inputs(name)
    imported = load_onnx(model, zoo.shapes(name))
    verify(imported.module)
    assert not imported.free
    got = interpret(imported.module, inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for output, want in zip(session.get_outputs(), session.run(None, inputs), strict=True):
        assert got[output.name].dtype == want.dtype
        np.testing.assert_allclose(got[output.name], want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", FAST)
def test_fast_models(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_slow_models(name: str) -> None:
    check(name)
