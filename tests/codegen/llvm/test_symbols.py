# SPDX-License-Identifier: Apache-2.0
"""Kernels whose extents are arguments, on the CPU, against the oracle."""

from __future__ import annotations

import pytest

from tcc.codegen.template import candidates
from tests.codegen.llvm.harness import check, widest
from tests.codegen.symbolic import arrays_of, problems, sizes_of

PROBLEMS = problems()


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_kernel_is_right_for_every_extent(name: str) -> None:
    func = PROBLEMS[name]
    usable = [t for t, why in candidates(func, widest()) if why is None]
    assert any(t.name == "llvm.naive" for t in usable)
    for template in usable:
        for symbols in sizes_of(func):
            check(func, arrays_of(func, symbols), template.name, symbols=symbols)


@pytest.mark.parametrize(
    ("name", "template"),
    [("map", "llvm.map"), ("concat", "llvm.map"), ("reduce", "llvm.reduce"), ("softmax of symbols", "llvm.rows"),
     ("matmul", "llvm.gemm"), ("matmul of weights", "llvm.gemm"), ("matmul of two symbols", "llvm.gemm"),
     ("conv", "llvm.conv"), ("conv of groups", "llvm.conv")],
)  # fmt: skip
def test_the_fast_templates_take_it(name: str, template: str) -> None:
    assert template in [t.name for t, why in candidates(PROBLEMS[name], widest()) if why is None]
