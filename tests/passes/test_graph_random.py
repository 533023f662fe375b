# SPDX-License-Identifier: Apache-2.0
"""Random graphs through every pass: the interpreter before and after, and the kernels that they become."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tcc.compiler.interpret import interpret
from tcc.compiler.phases.pipelines import pipelines
from tcc.passes.manager import run_passes
from tests.passes.kernel_interpret import run_kernels
from tests.passes.random_graphs import feeds, random_network, random_program

COUNT = int(os.environ.get("TCC_RANDOM_GRAPHS", "40"))
FIRST = int(os.environ.get("TCC_RANDOM_SEED", "0"))

PIPELINES = (
    "expand-ops,fold-constants,dce",
    "fold-constants,canonicalize,cse,dce",
    "canonicalize,fold-batch-norm,canonicalize,dce",
    "expand-ops,fuse,dce",
    "expand-ops,assign-layout,canonicalize,dce",
    "raise-patterns,canonicalize,dce,merge-matmuls,dce",
    pipelines("graph", "fuse", 1, "f32"),
)


def assert_close(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        size = max(1.0, float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(got[name], array, rtol=2e-4, atol=2e-5 * size, err_msg=name)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_passes_keep_what_a_graph_computes(seed: int, pipeline: str) -> None:
    program = random_program(seed)
    x = feeds(program, seed)
    want = interpret(program, x)
    run_passes(program, pipeline)
    assert_close(interpret(program, x), want)


@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_sixteen_bits_change_little(to: str) -> None:
    """Types stay, and nine of ten graphs change by no more than what rounding every tensor costs; the others make much
    of little (a difference of near numbers, a jump)."""
    close = 0
    for seed in range(FIRST, FIRST + COUNT):
        program = random_program(seed, 8)
        x = feeds(program, seed)
        want = interpret(program, x)
        run_passes(program, f"expand-ops,fold-constants,precision{{to={to}}},canonicalize,dce,fuse,dce")
        got = interpret(program, x)
        near = True
        for name, array in want.items():
            assert got[name].dtype == array.dtype and got[name].shape == array.shape
            size = max(1.0, float(np.abs(array).max(initial=0)))
            near &= bool(np.abs(got[name] - array).max(initial=0) <= (0.01 if to == "f16" else 0.08) * size)
        close += near
    assert close >= 0.9 * COUNT - 1


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_kernels_compute_what_the_graph_does(seed: int, fused: bool) -> None:
    program = random_program(seed)
    x = feeds(program, seed)
    want = interpret(program, x)
    run_passes(program, f"{PIPELINES[-1] if fused else PIPELINES[0]},lower-to-kernel,alias,share-kernels")
    assert_close(run_kernels(program, x), want)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_networks_become_kernels(seed: int) -> None:
    program = random_network(seed)
    x = feeds(program, seed)
    want = interpret(program, x)
    run_passes(program, pipelines("graph", "fuse", 1, "f32"))
    assert_close(interpret(program, x), want)
    convolutions = [op for op in program.walk() if op.name == "graph.conv"]
    assert all(op.attrs["dims"] == "nhwc" for op in convolutions)
    run_passes(program, pipelines("kernel", "kernel", 1, "f32"))
    assert_close(run_kernels(program, x), want)
