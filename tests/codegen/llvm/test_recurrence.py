# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers on the CPU."""

import numpy as np
import pytest

from tests.codegen.llvm.harness import check
from tests.codegen.recurrences import DYNAMIC, LAYERS, Layer, name_of

NAIVE = "llvm.naive"


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_the_oracle_is_what_the_graph_op_computes(layer: Layer, rng: np.random.Generator) -> None:
    from tcc.ir.kernel.evaluate import evaluate

    values, order = layer.values(rng), layer.made()[1]
    named = {n: v.astype(np.float64) if v.dtype.kind == "f" else v for n, v in values.items()}
    op = layer.op()
    fields = {"lstm": ("x", "r", "h", "lengths", "c", "p"), "gru": ("x", "r", "h", "lengths", "rb")}
    wanted = op.evaluate(*(named.get(n) for n in fields.get(layer.kind, ("x", "r", "h", "lengths"))))
    for e, want in zip(evaluate(layer.func(), [values[n] for n in order]), wanted, strict=True):
        got = np.zeros(want.shape)
        got[e.index] = e.value
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
        assert len(e.value) == want.size
        assert not e.allowance.size or e.allowance.max() < (0.1 if str(layer.dtype) == "f16" else 1e-3)


@pytest.mark.parametrize("layer", [*LAYERS, *DYNAMIC], ids=name_of)
def test_naive(layer: Layer, rng: np.random.Generator) -> None:
    check(layer.func(), layer.arrays(rng), NAIVE)
