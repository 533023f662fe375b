# SPDX-License-Identifier: Apache-2.0
"""ONNX activation functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim

# Operator → (op, {attribute: default}); attributes keep their ONNX names.
_TABLE: dict[str, tuple[type[Op], dict[str, float]]] = {
    "Relu": (graph.Relu, {}),
    "Sigmoid": (graph.Sigmoid, {}),
    "LeakyRelu": (graph.LeakyRelu, {"alpha": 0.01}),
    "Elu": (graph.Elu, {"alpha": 1.0}),
    "Selu": (graph.Selu, {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Celu": (graph.Celu, {"alpha": 1.0}),
    "HardSigmoid": (graph.HardSigmoid, {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": (graph.HardSwish, {}),
    "Softplus": (graph.Softplus, {}),
    "Softsign": (graph.Softsign, {}),
    "Mish": (graph.Mish, {}),
    "Swish": (graph.Swish, {"alpha": 1.0}),
    "ThresholdedRelu": (graph.ThresholdedRelu, {"alpha": 1.0}),
    "Shrink": (graph.Shrink, {"bias": 0.0, "lambd": 0.5}),
}


def _handler(cls: type[Op], attrs: dict[str, float]) -> Callable[[Node], Value]:
    return lambda n: n.op(cls, n.input(0), **{a: n.attr(a, d) for a, d in attrs.items()})


for _name, (_cls, _attrs) in _TABLE.items():
    onnx_op(_name)(_handler(_cls, _attrs))


@onnx_op("Gelu")
def gelu(n: Node) -> Value:
    return n.op(graph.Gelu, n.input(0), approximate=n.attr("approximate", "none"))


@onnx_op("PRelu")
def prelu(n: Node) -> Value:
    """A slope of one number a channel, as opsets before 7 and some exporters since have it, goes along dim 1."""
    x, slope = n.input(0), n.input(1)
    shape, given = n.shape(x), n.shape(slope)
    old = n.importer.model.converted_from is not None
    if len(shape) > 1 and len(given) == 1 and given[0] == shape[1] and (old or given[0] not in (1, shape[-1])):
        slope = n.reshape(slope, (given[0], *[1] * (len(shape) - 2)))
    return n.op(graph.Prelu, x, slope)


@onnx_op("SwiGLU")
def swi_glu(n: Node) -> Value:
    """swish(a) · b."""
    a, b = n.input(0), n.input(1)
    return n.op(graph.Mul, n.op(graph.Swish, a, alpha=n.attr("alpha", 1.0)), b)


def coerced(n: Node, x: Value, axis: int) -> tuple[Value, tuple[Dim, ...]]:
    """x as a matrix whose columns are the dims from `axis` on, and its shape before (the pre-13 form)."""
    shape = n.shape(x)
    flat = n.op(graph.Reshape, x, shape=flattened(shape, axis))
    return flat, shape


def flattened(shape: tuple[Dim, ...], axis: int) -> tuple[Dim, Dim]:
    """[product before axis, product from axis on]."""
    from tcc.ir.expr import product

    return product(shape[:axis]), product(shape[axis:])


def _softmax(cls: type[Op]) -> Callable[[Node], Value]:
    def handler(n: Node) -> Value:
        x = n.input(0)
        rank = n.rank(x)
        if rank == 0:
            return n.reshape(n.op(cls, n.op(graph.Reshape, x, shape=(1,)), axis=0), ())
        if n.opset >= 13:
            return n.op(cls, x, axis=n.axis(n.attr("axis", -1), rank))
        axis = n.axis(n.attr("axis", 1), rank) if n.attr("axis", 1) != rank else rank
        if axis == rank - 1:
            return n.op(cls, x, axis=axis)
        flat, shape = coerced(n, x, axis)
        return n.op(graph.Reshape, n.op(cls, flat, axis=1), shape=shape)

    return handler


onnx_op("Softmax")(_softmax(graph.Softmax))
onnx_op("LogSoftmax")(_softmax(graph.LogSoftmax))


@onnx_op("Hardmax")
def hardmax(n: Node) -> Value:
    """1 at the first maximum along the axis, 0 elsewhere."""
    x = n.input(0)
    shape, rank = n.shape(x), n.rank(x)
    if n.opset >= 13:
        axis = n.axis(n.attr("axis", -1), rank)
    else:
        x, _ = coerced(n, x, n.axis(n.attr("axis", 1), rank))
        axis = 1
    extent = n.shape(x)[axis]
    if not isinstance(extent, int):
        from tcc.errors import InputError

        raise InputError(f"its axis has the free dim {extent}; bind it with --shape")
    best = n.op(graph.ArgReduce, x, kind="max", axis=axis, keepdims=True)
    places = np.arange(extent, dtype=np.int64).reshape((-1,) + (1,) * (n.rank(x) - 1 - axis))
    hit = n.op(graph.Equal, best, n.constant(places))
    return n.reshape(n.op(graph.Cast, hit, to=n.dtype(x)), shape)
