# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that run on a GPU."""

import pytest

from tests.runtime.cuda.engines import SOURCE, Program


@pytest.fixture(scope="session")
def arch():
    """The architecture of the GPU here."""
    from tcc.runtime.cuda.device import devices

    return devices()[0].arch


@pytest.fixture(scope="session")
def cubin(arch):
    """The shared test kernels, compiled here."""
    from tcc.codegen.cuda.compile import compile_cuda

    return compile_cuda(SOURCE, arch).cubin


@pytest.fixture
def program(cubin, arch):
    """A new hand-written engine for the GPU."""
    return lambda **more: Program(cubin, **{"arch": arch, **more})
