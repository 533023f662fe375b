# SPDX-License-Identifier: Apache-2.0
"""ONNX Resize and Upsample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.run_time import known_extents
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim


@onnx_op("Upsample")
def upsample(n: Node) -> Value:
    """Scales: an attribute in opset 7, an operand in 9."""
    scales = n.attr("scales") if n.opset < 9 else n.const(1, "scales").reshape(-1).tolist()
    return _old(n, scales)


def _old(n: Node, scales: Sequence[float]) -> Value:
    """Before opset 11: coordinates are position / scale; nearest rounds up when shrinking and down otherwise."""
    mode = n.attr("mode", "nearest")
    shrinks = all(s <= 1 for s in scales) and any(s < 1 for s in scales)
    attrs: dict[str, Any] = {"coordinate_mode": "asymmetric", "nearest_mode": "ceil" if shrinks else "floor"}
    return _resize(n, {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode), scales, None, None, attrs)


@onnx_op("Resize")
def resize(n: Node) -> Value:
    if n.opset < 11:
        return _old(n, n.const(1, "scales").reshape(-1).tolist())
    rank = n.rank(n.input(0))
    axes = n.attr("axes", None)
    axes = list(range(rank)) if axes is None else [n.axis(a, rank) for a in axes]
    scales = None if n.optional(2) is None else n.const(2, "scales").reshape(-1).tolist()
    sizes = None if n.optional(3) is None else n.dims(3, "sizes")
    scales, sizes = scales or None, sizes or None
    if (scales is None) == (sizes is None):
        raise InputError("it needs exactly one of scales and sizes")
    attrs: dict[str, Any] = {
        "coordinate_mode": n.attr("coordinate_transformation_mode", "half_pixel"),
        "policy": n.attr("keep_aspect_ratio_policy", "stretch"),
        "nearest_mode": n.attr("nearest_mode", "round_prefer_floor"),
        "cubic_coeff": n.attr("cubic_coeff_a", -0.75),
        "exclude_outside": n.flag("exclude_outside"),
        "antialias": n.flag("antialias"),
        "extrapolation": n.attr("extrapolation_value", 0.0),
    }
    if attrs["coordinate_mode"] == "tf_crop_and_resize":
        attrs["roi"] = tuple(float(v) for v in n.const(1, "roi").reshape(-1))
    return _resize(n, n.attr("mode", "nearest"), scales, sizes, axes, attrs)


def _resize(
    n: Node,
    mode: str,
    scales: Sequence[float] | None,
    sizes: Sequence[Dim] | None,
    axes: Sequence[int] | None,
    attrs: dict[str, Any],
) -> Value:
    x = n.input(0)
    shape = n.shape(x)
    axes = list(range(len(shape))) if axes is None else axes
    given: Sequence[Any] = scales if scales is not None else sizes or ()
    if len(given) != len(axes):
        raise InputError(f"it has {len(given)} scales or sizes for {len(axes)} axes")
    picked = sorted(zip(axes, given, strict=True))
    crop = attrs["coordinate_mode"] == "tf_crop_and_resize"
    if not crop and attrs.get("policy", "stretch") == "stretch":
        # An axis that keeps its extent is not resized.
        same = [v == 1.0 if scales is not None else v == shape[a] for a, v in picked]
        picked = [p for p, s in zip(picked, same, strict=True) if not s]
    elif crop:
        # The region of interest is given in the order of the axes: all starts, then all ends.
        roi, order = attrs["roi"], sorted(range(len(axes)), key=lambda i: axes[i])
        if len(roi) != 2 * len(axes):
            raise InputError(f"its roi has {len(roi)} numbers, and {2 * len(axes)} are needed for {len(axes)} axes")
        attrs["roi"] = tuple(roi[i + half] for half in (0, len(axes)) for i in order)
    if not picked:
        return x
    if crop or attrs.get("policy", "stretch") != "stretch" or (attrs.get("antialias") and scales is None):
        what = "with a roi" if crop else "that antialiases" if attrs.get("antialias") else "that keeps an aspect ratio"
        extents: list[Dim] = [shape[a] for a, _ in picked] + [v for _, v in picked if scales is None]
        known_extents(n, extents, f"a resize {what}")
    attrs["axes"] = tuple(a for a, _ in picked)
    attrs["scales" if scales is not None else "sizes"] = tuple(float(v) if scales is not None else v for _, v in picked)
    if mode == "nearest":
        for word in ("cubic_coeff", "exclude_outside", "antialias"):
            attrs.pop(word, None)
        return n.op(graph.ResizeNearest, x, **attrs)
    if mode not in ("linear", "cubic"):
        raise InputError(f"its mode is {mode}, and ONNX has nearest, linear and cubic")
    attrs.pop("nearest_mode", None)
    return n.op(graph.Resize, x, mode=mode, **attrs)
