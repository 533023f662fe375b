# SPDX-License-Identifier: Apache-2.0
"""Scans, top-k and scatters on the CPU: every template against the oracle, and against the reference."""

import numpy as np
import pytest

from tcc.codegen.template import candidates, rows_of
from tcc.ir.verifier import verify
from tests.codegen import irregular
from tests.codegen.llvm.harness import V2, check, run, widest

CASES = {c.name: c for c in irregular.cases()}


def templates(case):
    return [t for t, why in candidates(case.problem, widest()) if why is None]


@pytest.mark.parametrize("name", CASES)
def test_templates_agree_with_the_oracle_and_the_reference(name):
    case = CASES[name]
    verify(case.problem)
    found = templates(case)
    assert any(t.name == "llvm.naive" for t in found)
    for t in found:
        check(case.problem, case.arrays, t.name)
        got = run(case.problem, case.arrays, t.name)
        for a, b in zip(got, case.expected, strict=True):
            tolerance = 0.0 if a.dtype.kind not in "fV" else 1e-5 if a.dtype.itemsize > 2 else 3e-2
            np.testing.assert_allclose(
                a.reshape(b.shape).astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("name", CASES)
def test_all_configs(name):
    case = CASES[name]
    for t in templates(case):
        if t.name != "llvm.naive":
            for config in rows_of(t.legal_columns(case.problem, V2)[0]):
                check(case.problem, case.arrays, t.name, config, V2)
