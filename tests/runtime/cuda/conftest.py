# SPDX-License-Identifier: Apache-2.0
"""Puts the fake driver in place of CUDA's, for the tests of this folder."""

import gc

import pytest

from tcc.runtime.cuda import device, driver, profile
from tests.runtime.cuda import engines
from tests.runtime.cuda.fake_driver import FakeDriver


@pytest.fixture
def fake(monkeypatch, request):
    """The fake driver, in use. `@pytest.mark.parametrize("fake", [dict], indirect=True)` gives its options."""
    gc.collect()
    made = FakeDriver(**getattr(request, "param", {}))
    made.kernels.update(engines.KERNELS)
    monkeypatch.setattr(driver, "_api", made)
    monkeypatch.setattr(device, "_gpus", {})
    monkeypatch.setattr(device, "_primary", {})
    monkeypatch.setattr(profile, "_costs", {})
    yield made
    gc.collect()


@pytest.fixture
def program(fake):
    """A new hand-written engine for the fake driver."""
    return lambda **more: engines.Program(engines.FAKE_CUBIN, **more)
