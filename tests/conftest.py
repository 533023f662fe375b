# SPDX-License-Identifier: Apache-2.0
"""Options and fixtures of the whole test suite."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.target import TARGET

ROOT = Path(__file__).resolve().parent.parent

# Compiled kernels are shared by test processes and kept between runs, apart from the user's own cache.
os.environ.setdefault("TCC_CACHE_DIR", str(ROOT / "build" / "test-cache"))

# Two loaded cores make wall-clock deadlines meaningless. A commit's tests say the same every time they run; fresh
# examples are `make fuzz`, which prints what repeats a failure.
settings.register_profile("tcc", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=1000)
settings.load_profile(os.environ.get("TCC_HYPOTHESIS", "tcc"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files with what tcc emits now")


def device_missing() -> str | None:
    """Why no NVIDIA GPU can be used here, or None when one can."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        return f"cuda-bindings cannot be imported: {error}"
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError as error:
        return f"no NVIDIA driver: {error}"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"no NVIDIA GPU: cuInit says {status.name}"
    status, count = driver.cuDeviceGetCount()
    if status != driver.CUresult.CUDA_SUCCESS or count == 0:
        return "no NVIDIA GPU: the driver lists no device"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_device = [
        item for item in items if ROOT / "tests" / "device" in item.path.parents or item.get_closest_marker("device")
    ]
    if not on_device:
        return
    reason = device_missing()
    for item in on_device:
        item.add_marker("device")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_logfinish(nodeid: str) -> None:
    """After a fault of the GPU its context answers nothing else: another process runs the tests that follow."""
    driver = sys.modules.get("cuda.bindings.driver")
    if TARGET != "cpu" and driver is not None and "PYTEST_XDIST_WORKER" in os.environ:
        (status,) = driver.cuCtxSynchronize()
        fine = ("CUDA_SUCCESS", "CUDA_ERROR_NOT_INITIALIZED", "CUDA_ERROR_INVALID_CONTEXT")
        if status.name not in fine:
            os._exit(70)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """True when the run is to rewrite golden files instead of comparing with them."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers in every run and in every order of tests."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
