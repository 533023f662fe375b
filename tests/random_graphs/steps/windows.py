# SPDX-License-Identifier: Apache-2.0
"""Pools."""

from __future__ import annotations

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.contraction import window
from tests.random_graphs.steps.table import step


@step("f", range(3, 6), weight=4)
def pool(g: Gen, x: str) -> str:
    space = g.shape(x)[2:]
    if 0 in g.shape(x):
        raise Refused("no elements")
    kind = g.pick(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool"])
    newer = {"MaxPool": 11, "AveragePool": 19, "LpPool": 18}[kind]
    attrs = window(g, space, 3, dilated=g.opset >= newer)
    if "auto_pad" not in attrs and g.chance(0.4) and (kind != "LpPool" or g.opset >= 18):
        attrs["ceil_mode"] = 1
    if kind == "AveragePool" and g.chance(0.5):
        attrs["count_include_pad"] = 1
    if kind == "LpPool":
        attrs["p"] = g.pick([1, 2, 3])
    if kind == "MaxPool" and g.chance(0.2):
        y, at = g.many("MaxPool", [x], 2, **attrs)
        g.alive.append(at)
        return y
    return g(kind, x, **attrs)


@step("f", range(3, 6), weight=2)
def global_pool(g: Gen, x: str) -> str:
    if 0 in g.shape(x):
        raise Refused("no elements")
    y = g(g.pick(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]), x)
    if g.chance(0.5):
        return g("Mul", x, g("Sigmoid", y))
    return g("Flatten", y) if g.chance(0.5) else y
