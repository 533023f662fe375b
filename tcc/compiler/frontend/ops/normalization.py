# SPDX-License-Identifier: Apache-2.0
"""ONNX normalisation."""

from __future__ import annotations

import numpy as np

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, F64


@onnx_op("BatchNormalization")
def batch_normalization(n: Node) -> list[Value | None]:
    """With given statistics; in training mode with those of the batch, which also update the running ones."""
    x, scale, bias, mean, variance = (n.input(i) for i in range(5))
    if not n.attr("spatial", 1):
        raise InputError("it has spatial = 0, statistics for each element, which tcc does not import")
    shape = n.shape(x)
    flat = len(shape) == 1
    if flat:
        x = n.reshape(x, (shape[0], 1))
    epsilon = n.attr("epsilon", 1e-5)
    outputs: list[Value | None] = []
    if n.flag("training_mode"):
        axes = tuple(i for i in range(n.rank(x)) if i != 1)
        batch_mean, batch_variance = _moments(n, x, axes)
        channels = n.shape(mean)
        batch_mean = n.cast(n.reshape(batch_mean, channels), n.dtype(mean))
        batch_variance = n.cast(n.reshape(batch_variance, channels), n.dtype(variance))
        momentum = n.attr("momentum", 0.9)
        for running, batch in ((mean, batch_mean), (variance, batch_variance)):
            old = n.op(graph.Mul, running, n.like(momentum, running))
            new = n.op(graph.Mul, batch, n.like(1.0 - momentum, batch))
            outputs.append(n.op(graph.Add, old, new))
        mean, variance = batch_mean, batch_variance
    elif n.uses(1):
        raise InputError("it has training outputs without training_mode; export the model for inference")
    wide = n.dtype(x)
    params = [n.cast(p, wide) for p in (scale, bias, mean, variance)]
    y = n.op(graph.BatchNorm, x, *params, epsilon=epsilon)
    return [n.reshape(y, shape) if flat else y, *outputs]


def _moments(n: Node, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """Mean and variance over axes, dims kept."""
    mean = n.op(graph.Reduce, x, kind="mean", axes=axes, keepdims=True)
    centred = n.op(graph.Sub, x, mean)
    return mean, n.op(graph.Reduce, n.op(graph.Mul, centred, centred), kind="mean", axes=axes, keepdims=True)


@onnx_op("LayerNormalization")
def layer_normalization(n: Node) -> list[Value | None]:
    x, scale, bias = n.input(0), n.input(1), n.optional(2)
    axis = n.axis(n.attr("axis", -1), n.rank(x))
    epsilon = n.attr("epsilon", 1e-5)
    y = n.op(graph.LayerNorm, x, scale, bias, axis=axis, epsilon=epsilon)
    if not n.uses(1) and not n.uses(2):
        return [y]
    wide = n.cast(x, F32) if n.dtype(x) != F64 else x
    mean, variance = _moments(n, wide, tuple(range(axis, n.rank(x))))
    spread = n.op(graph.Sqrt, n.op(graph.Add, variance, n.like(epsilon, variance)))
    return [y, mean, n.op(graph.Reciprocal, spread)]


@onnx_op("RMSNormalization")
def rms_normalization(n: Node) -> Value:
    x = n.input(0)
    axis = n.axis(n.attr("axis", -1), n.rank(x))
    return n.op(graph.RmsNorm, x, n.input(1), axis=axis, epsilon=n.attr("epsilon", 1e-5))


def _channels(n: Node, x: Value) -> int:
    if n.rank(x) < 2:
        raise InputError(f"x is {n.type(x)}, and [n, c, …] is needed")
    channels = n.shape(x)[1]
    if not isinstance(channels, int):
        raise InputError(f"its channels are the free dim {channels}, which must be bound")
    return channels


@onnx_op("InstanceNormalization")
def instance_normalization(n: Node) -> Value:
    x = n.input(0)
    return n.op(graph.GroupNorm, x, n.input(1), n.input(2), groups=_channels(n, x), epsilon=n.attr("epsilon", 1e-5))


@onnx_op("GroupNormalization")
def group_normalization(n: Node) -> Value:
    """Scale and bias have one value a group before opset 21, one a channel since."""
    x, scale, bias = n.input(0), n.input(1), n.input(2)
    groups, channels = n.attr("num_groups"), _channels(n, x)
    if groups < 1 or channels % groups:
        raise InputError(f"its {channels} channels do not split into {groups} groups")
    if n.opset < 21:
        each = channels // groups

        def spread(p: Value) -> Value:
            wide = n.op(graph.Expand, n.reshape(p, (groups, 1)), shape=(groups, each))
            return n.reshape(wide, (channels,))

        scale, bias = spread(scale), spread(bias)
    return n.op(graph.GroupNorm, x, scale, bias, groups=groups, epsilon=n.attr("epsilon", 1e-5))


@onnx_op("LRN")
def lrn(n: Node) -> Value:
    return n.op(
        graph.Lrn,
        n.input(0),
        size=n.attr("size"),
        alpha=n.attr("alpha", float(np.float32(1e-4))),
        beta=n.attr("beta", 0.75),
        bias=n.attr("bias", 1.0),
    )


@onnx_op("LpNormalization")
def lp_normalization(n: Node) -> Value:
    """x / norm along the axis; a row of zeros stays zero."""
    x, p = n.input(0), n.attr("p", 2)
    axis = (n.axis(n.attr("axis", -1), n.rank(x)),)
    if p == 1:
        norm = n.op(graph.Reduce, n.op(graph.Abs, x), kind="sum", axes=axis, keepdims=True)
    elif p == 2:
        norm = n.op(graph.Sqrt, n.op(graph.Reduce, n.op(graph.Mul, x, x), kind="sum", axes=axis, keepdims=True))
    else:
        raise InputError(f"its p is {p}, and ONNX has 1 and 2")
    zero = n.op(graph.Equal, norm, n.like(0.0, norm))
    return n.op(graph.Div, x, n.op(graph.Where, zero, n.like(1.0, norm), norm))
