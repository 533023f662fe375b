# SPDX-License-Identifier: Apache-2.0
"""Random operators. ONNX fixes the distributions and leaves the numbers open; here a given seed always gives the same
ones (the Philox counter generator keyed by the seed's bits), and no seed gives fresh ones.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, Ints, ieee, ints, narrow, scalar, widen


def generator(seed: float | None) -> np.random.Generator:
    """The generator of a seed attribute; an unpredictable one for None."""
    if seed is None:
        return np.random.default_rng()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(struct.pack("<d", float(seed)), "little")))


def random_uniform(
    *, shape: Ints, low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32, seed: float | None = None
) -> Array:
    """Uniform values in [low, high) of `shape`. ONNX RandomUniform."""
    return narrow(generator(seed).uniform(low, high, ints(shape)), dtype)


def random_normal(
    *, shape: Ints, mean: float = 0.0, scale: float = 1.0, dtype: DTypeLike = np.float32, seed: float | None = None
) -> Array:
    """Normal values of the given mean and standard deviation. ONNX RandomNormal."""
    return narrow(generator(seed).normal(mean, scale, ints(shape)), dtype)


def random_uniform_like(
    x: Array, *, low: float = 0.0, high: float = 1.0, dtype: DTypeLike | None = None, seed: float | None = None
) -> Array:
    """Uniform values of the shape (and, without dtype, the type) of x. ONNX RandomUniformLike."""
    return random_uniform(shape=np.shape(x), low=low, high=high, dtype=dtype or np.asarray(x).dtype, seed=seed)


def random_normal_like(
    x: Array, *, mean: float = 0.0, scale: float = 1.0, dtype: DTypeLike | None = None, seed: float | None = None
) -> Array:
    """Normal values of the shape (and, without dtype, the type) of x. ONNX RandomNormalLike."""
    return random_normal(shape=np.shape(x), mean=mean, scale=scale, dtype=dtype or np.asarray(x).dtype, seed=seed)


def bernoulli(x: Array, *, dtype: DTypeLike | None = None, seed: float | None = None) -> Array:
    """1 with probability x, else 0. ONNX Bernoulli."""
    drawn = generator(seed).uniform(size=np.shape(x)) < widen(x)
    return narrow(drawn, dtype or np.asarray(x).dtype)


@ieee
def multinomial(x: Array, *, sample_size: int = 1, dtype: DTypeLike = np.int32, seed: float | None = None) -> Array:
    """Classes drawn by unnormalised log probabilities x [b, c]: [b, sample_size]. ONNX Multinomial."""
    wide = widen(x).astype(np.float64)
    weights = np.exp(wide - wide.max(axis=1, keepdims=True))
    edges = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    drawn = generator(seed).uniform(size=(wide.shape[0], sample_size))
    picked = (drawn[:, :, None] >= edges[:, None, :]).sum(axis=2)
    return narrow(np.minimum(picked, wide.shape[1] - 1), dtype)


@ieee
def dropout(
    data: Array, ratio: Any = None, training_mode: Any = None, *, seed: float | None = None
) -> tuple[Array, Array]:
    """(data, all-true mask) at inference; in training, elements dropped with `ratio` (0.5) and the rest scaled up.

    ONNX Dropout.
    """
    if training_mode is None or not bool(scalar(training_mode)):
        return data, np.ones(np.shape(data), bool)
    share = 0.5 if ratio is None else float(scalar(ratio))
    mask = np.ones(np.shape(data), bool) if share == 0 else generator(seed).uniform(size=np.shape(data)) >= share
    wide = widen(data)
    return narrow(np.where(mask, wide * wide.dtype.type(1 / (1 - share)), 0), np.asarray(data).dtype), mask
