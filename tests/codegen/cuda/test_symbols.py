# SPDX-License-Identifier: Apache-2.0
"""Kernels whose extents are arguments, in the emulation, against the oracle; and NVRTC compiles them."""

from __future__ import annotations

import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import candidates
from tcc.ir.targets import target
from tcc.ir.verifier import verify
from tests.codegen.cuda import emulator
from tests.codegen.cuda.problems import Checker
from tests.codegen.symbolic import arrays_of, problems, sizes_of

PROBLEMS = problems()
SM = target("sm_86")


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("name", PROBLEMS)
def test_one_kernel_is_right_for_every_extent(name: str) -> None:
    func = PROBLEMS[name]
    verify(func)
    usable = [t for t, why in candidates(func, SM) if why is None]
    assert any(t.name == "cuda.naive" for t in usable)
    for template in usable:
        config = template.default(func, SM)
        assert config is not None
        for symbols in sizes_of(func):
            checker = Checker(func, arrays_of(func, symbols), symbols=symbols)
            assert checker.worst(template, config, SM, emulator.run) <= 1, (template.name, symbols)


@pytest.mark.parametrize("name", PROBLEMS)
def test_nvrtc_compiles_it(name: str) -> None:
    func = PROBLEMS[name]
    for template in [t for t, why in candidates(func, SM) if why is None]:
        config = template.default(func, SM)
        assert config is not None
        compile_cuda(template.emit(func, config, SM).source, "sm_86")


@pytest.mark.parametrize(("name", "template"), [("softmax", "cuda.rows"), ("matmul", "cuda.simt_gemm")])
def test_the_fast_templates_take_numbers_of_rows(name: str, template: str) -> None:
    assert template in [t.name for t, why in candidates(PROBLEMS[name], SM) if why is None]
