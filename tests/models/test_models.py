# SPDX-License-Identifier: Apache-2.0
"""Models of every kind against ONNX Runtime: with default kernels, and with random legal configs at -O3.

One in four also becomes an engine for sm_86.
"""

from __future__ import annotations

import numpy as np
import pytest

from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.models import sequences, vision
from tests.random_graphs.check import check
from tests.random_graphs.oracle import Oracle
from tests.target import TARGET

MODELS = {**vision.MODELS, **sequences.MODELS}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_compute_what_onnx_runtime_does(name: str) -> None:
    outcome = check(MODELS[name](), seed=len(name), target=TARGET, levels=(1, 3))
    assert outcome.verdict == "pass", outcome.message
    assert outcome.by == ("onnx.reference" if name == "newest" else "onnxruntime")
    assert outcome.loose < 0.2 and not outcome.disputes


@pytest.mark.parametrize("name", MODELS)
def test_models_say_something(name: str) -> None:
    """No output is one number over and over: a model whose values die on the way tests nothing."""
    for value in Oracle(MODELS[name]()).answer.values:
        assert value.dtype != np.float32 or value.size < 3 or np.unique(value).size > value.size // 4


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS)[::4])
def test_cuda_engines_build(name: str) -> None:
    assert compile_model(MODELS[name]().proto, Options(target="sm_86", opt_level=1)).kernels
