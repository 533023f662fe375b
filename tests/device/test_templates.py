# SPDX-License-Identifier: Apache-2.0
"""CUDA templates on the GPU against the oracle: the default and sampled configs of every template on every problem."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import candidates, rows_of
from tcc.ir.targets import target
from tests.codegen.cuda.problems import Checker
from tests.codegen.cuda.suite import arrays_of, problems

SUITE = problems()
SAMPLED = 4


@pytest.fixture(scope="module")
def launcher():
    from tests.device.launcher import Launcher

    return Launcher()


@pytest.mark.parametrize("kind", sorted(SUITE))
def test_kernels_compute_what_the_oracle_says(launcher, kind):
    gpu = target(launcher.arch)
    rng = np.random.default_rng(1)
    work = []
    for problem in SUITE[kind]:
        checker = Checker(problem, arrays_of(problem))
        for template, why in candidates(problem, gpu):
            if why is not None:
                continue
            listed = rows_of(template.legal_columns(problem, gpu)[0])
            picked = rng.permutation(len(listed))[:SAMPLED]
            configs = [template.default(problem, gpu), *(listed[int(i)] for i in picked)]
            work += [(checker, template, c) for c in configs if c is not None]
    emitted = [t.emit(c.problem, config, gpu) for c, t, config in work]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda e: compile_cuda(e.source, e.options.get("arch", launcher.arch)), emitted))
    wrong = []
    for checker, template, config in work:
        worst = checker.worst(template, config, gpu, launcher.run)
        if not worst <= 1:
            wrong.append((checker.problem.anchor.domain.text(), template.name, config, worst))
    assert not wrong
