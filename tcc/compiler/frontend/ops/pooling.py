# SPDX-License-Identifier: Apache-2.0
"""ONNX pooling."""

from __future__ import annotations

from typing import Any

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.windows import window
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import product


def _common(n: Node) -> dict[str, Any]:
    at = window(n, n.input(0), n.attr("kernel_shape"))
    # With auto_pad the number of windows is given; rounding up would not change it.
    return {
        "kernel": at.kernel,
        "strides": at.strides,
        "pads": at.pads,
        "dilations": at.dilations,
        "ceil_mode": n.flag("ceil_mode") and n.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID"),
    }


@onnx_op("MaxPool")
def max_pool(n: Node) -> list[Value]:
    if not n.uses(1):
        return [n.op(graph.MaxPool, n.input(0), **_common(n))]
    order = n.attr("storage_order", 0)
    return list(n.ops(graph.MaxPoolIndices, n.input(0), storage_order=order, **_common(n)))


@onnx_op("MaxUnpool")
def max_unpool(n: Node) -> Value:
    """Elements scattered to flat places of the shape that the pool had; a larger output_shape is that with zeros after
    it in each dim."""
    x, places = n.input(0), n.input(1)
    kernel = n.attr("kernel_shape")
    strides, pads = n.attr("strides", [1] * len(kernel)), n.attr("pads", [0] * (2 * len(kernel)))
    ends = zip(kernel, strides, pads, pads[len(kernel) :], strict=False)
    space = [s * (d - 1) + k - b - e for d, (k, s, b, e) in zip(n.shape(x)[2:], ends, strict=True)]
    shape = (*n.shape(x)[:2], *space)
    zeros = n.op(graph.Expand, n.constant(0, n.dtype(x)), shape=(product(shape),))
    flat = [n.reshape(v, (product(n.shape(v)),)) for v in (places, x)]
    found = n.reshape(n.op(graph.ScatterElements, zeros, *flat, axis=0), shape)
    if n.optional(2) is None:
        return found
    after = [wanted - have for wanted, have in zip(n.ints(2, "output_shape"), shape, strict=True)]
    if not all(isinstance(a, int) and a >= 0 for a in after):
        raise InputError(f"its output_shape is not at least the {[str(d) for d in shape]} that its windows span")
    return n.op(graph.Pad, found, before=(0,) * len(after), after=tuple(after), value=0)


@onnx_op("AveragePool")
def average_pool(n: Node) -> Value:
    return n.op(graph.AveragePool, n.input(0), count_include_pad=n.flag("count_include_pad"), **_common(n))


@onnx_op("LpPool")
def lp_pool(n: Node) -> Value:
    return n.op(graph.LpPool, n.input(0), p=n.attr("p", 2), **_common(n))


def _spatial(n: Node) -> tuple[int, ...]:
    rank = n.rank(n.input(0))
    if rank < 3:
        raise InputError(f"x is {n.type(n.input(0))}, which has no spatial dims")
    return tuple(range(2, rank))


@onnx_op("GlobalAveragePool")
def global_average_pool(n: Node) -> Value:
    return n.op(graph.Reduce, n.input(0), kind="mean", axes=_spatial(n), keepdims=True)


@onnx_op("GlobalMaxPool")
def global_max_pool(n: Node) -> Value:
    return n.op(graph.Reduce, n.input(0), kind="max", axes=_spatial(n), keepdims=True)


@onnx_op("GlobalLpPool")
def global_lp_pool(n: Node) -> Value:
    """(Σ |x|^p)^(1/p) over space."""
    x, p = n.op(graph.Abs, n.input(0)), n.attr("p", 2)
    raised = n.op(graph.Pow, x, n.like(p, x))
    total = n.op(graph.Reduce, raised, kind="sum", axes=_spatial(n), keepdims=True)
    return n.op(graph.Pow, total, n.like(1.0 / p, x))
