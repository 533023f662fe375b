# SPDX-License-Identifier: Apache-2.0
"""Pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.contraction import window
from tests.random_graphs.steps.table import step


def fits(space: tuple[int, ...], attrs: dict[str, Any]) -> bool:
    """Whether a whole window lies in the padded extents: with ceil_mode, inference wants no more than a part of one."""
    pads = attrs.get("pads", [0] * 2 * len(space))
    dilations = attrs.get("dilations", [1] * len(space))
    return all(
        (k - 1) * by + 1 <= d + before + after
        for d, k, by, before, after in zip(
            space, attrs["kernel_shape"], dilations, pads[: len(space)], pads[len(space) :], strict=True
        )
    )


@step("f", range(3, 6), weight=4)
def pool(g: Gen, x: str) -> str:
    space = g.shape(x)[2:]
    if 0 in g.shape(x):
        raise Refused("no elements")
    kind = g.pick(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool"])
    newer = {"MaxPool": 11, "AveragePool": 19, "LpPool": 18}[kind]
    attrs = window(g, space, 3, dilated=g.opset >= newer)
    # For types that ONNX Runtime lacks there is onnx.reference, whose sums of parts of windows are too large.
    rounds_up = kind != "LpPool" or (g.opset >= 18 and g.dtype(x) == np.float32)
    if "auto_pad" not in attrs and g.chance(0.4) and rounds_up and fits(space, attrs):
        attrs["ceil_mode"] = 1
    if attrs.get("auto_pad", "VALID") != "VALID":
        # ONNX Runtime refuses pools that would pad by less than nothing, and onnx.reference shifts them.
        attrs["strides"] = [min(s, k) for s, k in zip(attrs.get("strides", [1] * len(space)), attrs["kernel_shape"])]
        # For types that ONNX Runtime lacks there is onnx.reference, which loses results of such a maximum.
        if kind == "MaxPool" and g.dtype(x) != np.float32:
            attrs["auto_pad"] = "SAME_UPPER"
    if kind == "AveragePool" and g.chance(0.5):
        attrs["count_include_pad"] = 1
    if kind == "LpPool":
        attrs["p"] = g.pick([1, 2, 3])
    # onnx.reference counts the places of a maximum in its batch and channel only.
    if kind == "MaxPool" and g.chance(0.2) and (g.dtype(x) == np.float32 or g.shape(x)[0] * g.shape(x)[1] == 1):
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
