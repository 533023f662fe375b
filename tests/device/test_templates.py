# SPDX-License-Identifier: Apache-2.0
"""CUDA templates on the GPU against the oracle: the default and sampled configs of every template on every problem."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import candidates, rows_of
from tcc.ir.targets import target
from tcc.ir.types import F16, I32
from tests.codegen.cuda.problems import Checker
from tests.codegen.cuda.suite import arrays_of, problems
from tests.codegen.recurrences import LAYERS, Layer, name_of

SUITE = problems()
SAMPLED = 4


@pytest.fixture(scope="module")
def launcher():
    from tests.device.launcher import Launcher

    return Launcher()


@pytest.mark.parametrize("kind", sorted(SUITE))
def test_kernels_compute_what_the_oracle_says(launcher, kind):
    check_all(launcher, [Checker(problem, arrays_of(problem)) for problem in SUITE[kind]])


LARGE = [
    Layer("lstm", 40, 1, 256),
    Layer("gru", 20, 9, 200, F16, lengths=I32),
    Layer("lstm", 10, 33, 512, reverse=True),
]


@pytest.mark.parametrize("layer", [*LAYERS, *LARGE], ids=name_of)
def test_recurrent_layers(launcher, layer):
    check_all(launcher, [Checker(layer.func(), layer.arrays(np.random.default_rng(2)))])


def check_all(launcher, checkers):
    """The default and sampled configs of every template that takes a problem."""
    gpu = target(launcher.arch)
    rng = np.random.default_rng(1)
    work = []
    for checker in checkers:
        problem = checker.problem
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
