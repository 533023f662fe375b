# SPDX-License-Identifier: Apache-2.0
"""The random operators: repeatable by seed, of the right type, shape and distribution."""

from __future__ import annotations

import numpy as np
import pytest

from tcc import reference as ref


def test_uniform_by_seed() -> None:
    a = ref.random_uniform(shape=[200, 100], low=-2.0, high=3.0, seed=1.5)
    assert a.dtype == np.float32
    assert np.array_equal(a, ref.random_uniform(shape=[200, 100], low=-2.0, high=3.0, seed=1.5))
    assert not np.array_equal(a, ref.random_uniform(shape=[200, 100], low=-2.0, high=3.0, seed=2.0))
    assert a.min() >= -2
    assert a.max() <= 3
    assert abs(a.mean() - 0.5) < 0.05


def test_normal_by_seed() -> None:
    a = ref.random_normal(shape=(200, 100), mean=1.0, scale=2.0, dtype=np.float64, seed=7)
    assert abs(a.mean() - 1) < 0.06
    assert abs(a.std() - 2) < 0.06
    b = ref.random_normal_like(np.zeros((3, 4), np.float16), seed=7)
    assert b.dtype == np.float16
    assert b.shape == (3, 4)
    assert ref.random_uniform_like(np.zeros((2, 0), np.float32), dtype=np.float64, seed=1).dtype == np.float64


def test_bernoulli() -> None:
    p = np.full((100, 100), 0.3, np.float32)
    drawn = ref.bernoulli(p, seed=3.0, dtype=np.int32)
    assert drawn.dtype == np.int32
    assert set(np.unique(drawn)) == {0, 1}
    assert abs(drawn.mean() - 0.3) < 0.03


def test_multinomial() -> None:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]], np.float32))
    drawn = ref.multinomial(logits, sample_size=5000, seed=1.0)
    assert drawn.shape == (2, 5000)
    assert drawn.dtype == np.int32
    share = [(drawn == c).mean(axis=1) for c in range(3)]
    np.testing.assert_allclose(np.transpose(share), [[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]], atol=0.03)


def test_dropout_in_training() -> None:
    x = np.full((100, 100), 2.0, np.float32)
    y, mask = ref.dropout(x, np.float32(0.25), np.array(True), seed=5)
    np.testing.assert_allclose(y, np.where(mask, 2 / 0.75, 0), rtol=1e-6)
    assert abs(mask.mean() - 0.75) < 0.03


@pytest.mark.parametrize("training", [None, np.array(False)])
def test_dropout_at_inference(training: np.ndarray | None) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    y, mask = ref.dropout(x, np.float32(0.5), training)
    assert np.array_equal(x, y)
    assert mask.dtype == bool
    assert mask.all()
