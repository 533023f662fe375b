# SPDX-License-Identifier: Apache-2.0
"""The cache of specialisations, over engines that no compiler made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tcc.errors import InputError
from tcc.runtime import load
from tcc.runtime.engine import Engine
from tcc.runtime.specialise import Declared, Request, SpecialisingEngine
from tests.runtime.test_engine import affine, affine_expected, to_bytes

X = Declared("x0", "f32", ("n",))


def front(deciding: Sequence[str] = (), **options: int) -> tuple[SpecialisingEngine, list[Request]]:
    asked: list[Request] = []

    def specialise(request: Request) -> tuple[Engine, Sequence[str]]:
        asked.append(request)
        for name in deciding:
            request.value(name)
        return load(to_bytes(affine(request.shapes["x0"][0]))), deciding

    return SpecialisingEngine("m", [X], [Declared("y0", "f32", (), ranked=False)], specialise, **options), asked


@pytest.fixture
def x() -> np.ndarray:
    return np.linspace(-2, 2, 100, dtype=np.float32)


def test_one_engine_for_each_shape(x: np.ndarray) -> None:
    engine, asked = front()
    for _ in range(2):
        np.testing.assert_array_equal(engine(x[:10])["y0"], affine_expected(x[:10]))
    np.testing.assert_array_equal(engine.bind([x[:10].copy()])()["y0"], affine_expected(x[:10]))
    assert len(engine.profile([x[:10]])) == 3
    assert [r.shapes for r in asked] == [{"x0": (10,)}]
    with pytest.raises(InputError, match="is f64"):
        engine(np.zeros(10))
    assert engine.weight_bytes == engine.engines[0].weight_bytes
    with pytest.raises(AttributeError, match="its specialisations"):
        _ = engine.data


def test_values_that_decide_are_part_of_the_key(x: np.ndarray) -> None:
    engine, asked = front(["x0"])
    a, b = x[:10], x[1:11]
    for value in (a, b, a.copy(), b):
        np.testing.assert_array_equal(engine(value)["y0"], affine_expected(value))
    assert len(asked) == 2
    engine(x[:11])
    assert len(asked) == 3


def test_the_least_recently_used_goes(x: np.ndarray) -> None:
    engine, asked = front(limit=2)
    for n in (10, 11, 10, 12, 10, 11):
        engine(x[:n])
    assert [r.shapes["x0"] for r in asked] == [(10,), (11,), (12,), (11,)]
    assert len(engine.engines) == 2


def test_outputs_go_where_the_caller_says(x: np.ndarray) -> None:
    engine, _ = front()
    out = np.empty(10, np.float32)
    assert engine.run([x[:10]], out={"y0": out})["y0"] is out
    np.testing.assert_array_equal(out, affine_expected(x[:10]))


def test_values_on_a_device_are_read_on_the_host(x: np.ndarray) -> None:
    class OnDevice:
        __cuda_array_interface__ = {"shape": (10,), "typestr": "<f4", "version": 3}
        shape = (10,)

        def get(self) -> np.ndarray:
            return x[:10]

    engine, asked = front(["x0"])
    with pytest.raises(InputError, match="on a GPU"):
        engine(OnDevice())  # the engine itself is one for the CPU
    np.testing.assert_array_equal(asked[0].value("x0"), x[:10])
