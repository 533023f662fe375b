# SPDX-License-Identifier: Apache-2.0
"""Norms."""

from __future__ import annotations

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.contraction import divisors
from tests.random_graphs.steps.table import axis_of, step


def _spread(g: Gen, x: str) -> None:
    if 0 in g.shape(x):
        raise Refused("no elements")


@step("f", range(2, 6), weight=3)
def batch_norm(g: Gen, x: str) -> str:
    _spread(g, x)
    c = g.shape(x)[1]
    scale, shift, mean = (g.weights(c, like=x) for _ in range(3))
    variance = g.const((g.normal(c) ** 2 + np.float32(0.5)).astype(g.dtype(x)))
    return g("BatchNormalization", x, scale, shift, mean, variance, epsilon=g.pick([1e-5, 1e-3]))


@step("f", range(3, 6), weight=2)
def instance_norm(g: Gen, x: str) -> str:
    _spread(g, x)
    c = g.shape(x)[1]
    return g("InstanceNormalization", x, g.weights(c, like=x), g.weights(c, like=x), epsilon=0.01)


@step("f", range(3, 6), weight=2)
def group_norm(g: Gen, x: str) -> str:
    _spread(g, x)
    c = g.shape(x)[1]
    groups = g.pick(divisors(c))
    per = groups if g.opset < 21 else c
    return g("GroupNormalization", x, g.weights(per, like=x), g.weights(per, like=x), num_groups=groups, epsilon=0.01)


@step("f", range(1, 6), weight=3)
def layer_norm(g: Gen, x: str) -> str:
    _spread(g, x)
    axis = axis_of(g, x)
    kept = g.shape(x)[axis:]
    op = g.pick(["LayerNormalization", "LayerNormalization", "RMSNormalization"])
    scale = g.weights(*kept, like=x)
    if op == "RMSNormalization" and g.opset >= 23:
        return g(op, x, scale, axis=axis, epsilon=0.01)
    if g.opset >= 17:
        return g("LayerNormalization", x, scale, *([g.weights(*kept, like=x)] if g.chance(0.7) else []), axis=axis,
                 epsilon=0.01)  # fmt: skip
    axes = list(range(axis % len(g.shape(x)), len(g.shape(x))))
    centred = g("Sub", x, g.reduce("Mean", x, axes, 1))
    variance = g.reduce("Mean", g("Pow", centred, g.f(2.0, x)), axes, 1)
    return g("Mul", g("Div", centred, g("Sqrt", g("Add", variance, g.f(0.01, x)))), scale)


@step("f", range(1, 6), weight=1)
def lp_norm(g: Gen, x: str) -> str:
    y = g("Add", g("Abs", x), g.f(0.125, x))
    return g("LpNormalization", y, axis=axis_of(g, x), p=g.pick([1, 2]))


@step("f", range(4, 5), weight=1)
def local_norm(g: Gen, x: str) -> str:
    _spread(g, x)
    return g("LRN", x, size=g.pick([1, 3, 5, 2]), alpha=0.1, beta=0.75, bias=1.0)


@step("f", range(3, 5), weight=1)
def mean_variance(g: Gen, x: str) -> str:
    _spread(g, x)
    y = g("Add", x, g.weights(*g.shape(x), like=x))
    return g("MeanVarianceNormalization", y, axes=g.subset(range(len(g.shape(x))), 1))
