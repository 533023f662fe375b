# SPDX-License-Identifier: Apache-2.0
"""Ops along rows: softmax, and normalisation by statistics of the row. Statistics are kept in f32 at least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc import reference as _ref
from tcc.ir.core import Value
from tcc.ir.declare import FLOAT, INT, Attr, Operand, OptionalOperand, Result, register
from tcc.ir.graph.base import (
    LAYOUT,
    Array,
    GraphOp,
    broadcast,
    check_axis,
    check_equal_dim,
    dense,
    optional,
    present,
    same_dtype,
    tensor_type,
    to_channels_first,
    to_channels_last,
)
from tcc.ir.types import TensorType, Type


class Rows(GraphOp):
    """Base of row ops."""

    category = "rows"


class SoftmaxBase(Rows):
    """Base of the softmax pair: y has the type of x."""

    x = Operand()
    axis = Attr(INT)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axis(self, self.axis, t.rank)
        if not t.dtype.is_float:
            raise self.fail(f"it takes floats, not {t.dtype}")
        return (dense(t.shape, t.dtype),)


@register
class Softmax(SoftmaxBase):
    """e^(x - max) / Σ e^(x - max) along `axis`. ONNX Softmax-13."""

    name = "graph.softmax"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.softmax(present(arrays[0]), axis=self.axis),)


@register
class LogSoftmax(SoftmaxBase):
    """x - max - log Σ e^(x - max) along `axis`. ONNX LogSoftmax-13."""

    name = "graph.log_softmax"

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.log_softmax(present(arrays[0]), axis=self.axis),)


class Norm(Rows):
    """Base of layer and RMS normalisation: rows are the dims from `axis` on; scale and bias broadcast to x."""

    x = Operand()
    scale = OptionalOperand()

    def infer_norm(self, axis: int, *params: Value | None) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axis(self, axis, t.rank)
        if not t.dtype.is_float:
            raise self.fail(f"it takes floats, not {t.dtype}")
        for value in params:
            if value is None:
                continue
            p = tensor_type(value, self)
            same_dtype(self, t, p)
            if p.rank > t.rank or broadcast(self, (t.shape, p.shape)) != t.shape:
                raise self.fail(f"the parameter {p} does not broadcast to {t}")
        return (dense(t.shape, t.dtype),)


def _unit(x: Array) -> Array:
    return np.ones((), x.dtype)


@register
class LayerNorm(Norm):
    """(x - mean) / √(variance + epsilon) · scale + bias over the dims from `axis` on. ONNX LayerNormalization."""

    name = "graph.layer_norm"
    bias = OptionalOperand()
    axis = Attr(INT)
    epsilon = Attr(FLOAT, 1e-5)
    y = Result()

    def infer(self) -> Sequence[Type]:
        return self.infer_norm(self.axis, self.scale, self.bias)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, scale, bias = present(arrays[0]), optional(arrays, 1), optional(arrays, 2)
        scale = _unit(x) if scale is None else scale
        return (_ref.layer_normalization(x, scale, bias, axis=self.axis, epsilon=self.epsilon)[0],)


@register
class RmsNorm(Norm):
    """x / √(mean of x² + epsilon) · scale over the dims from `axis` on. ONNX RMSNormalization."""

    name = "graph.rms_norm"
    axis = Attr(INT)
    epsilon = Attr(FLOAT, 1e-5)
    y = Result()

    def infer(self) -> Sequence[Type]:
        return self.infer_norm(self.axis, self.scale)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, scale = present(arrays[0]), optional(arrays, 1)
        scale = _unit(x) if scale is None else scale
        return (_ref.rms_normalization(x, scale, axis=self.axis, epsilon=self.epsilon),)


def check_channels(op: GraphOp, t: TensorType, axis: int, params: Sequence[Value | None]) -> None:
    """Every present parameter must be 1-D with as many elements as x has channels."""
    for value in params:
        if value is None:
            continue
        p = tensor_type(value, op)
        if p.rank != 1:
            raise op.fail(f"a parameter must be 1-D, one value a channel, not {p}")
        check_equal_dim(op, p.shape[0], t.shape[axis], "a parameter and the channels")


@register
class GroupNorm(Rows):
    """x [n, c, spatial…] normalised over groups of c / groups channels and all of space, then · scale[c] + bias[c].

    ONNX GroupNormalization (21), and with groups = c InstanceNormalization.
    """

    name = "graph.group_norm"
    x = Operand()
    scale = OptionalOperand()
    bias = OptionalOperand()
    groups = Attr(INT)
    epsilon = Attr(FLOAT, 1e-5)
    dims = Attr(LAYOUT, "nchw")
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        if t.rank < 2 or not t.dtype.is_float:
            raise self.fail(f"it takes floats [n, c, …], not {t}")
        axis = 1 if self.dims == "nchw" else t.rank - 1
        channels = t.shape[axis]
        if self.groups < 1 or (isinstance(channels, int) and channels % self.groups):
            raise self.fail(f"{channels} channels do not split into {self.groups} groups")
        check_channels(self, t, axis, (self.scale, self.bias))
        return (dense(t.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        x = to_channels_first(x) if self.dims == "nhwc" else x
        scale, bias = optional(arrays, 1), optional(arrays, 2)
        scale = np.ones(x.shape[1], x.dtype) if scale is None else scale
        bias = np.zeros(x.shape[1], x.dtype) if bias is None else bias
        y = _ref.group_normalization(x, scale, bias, num_groups=self.groups, epsilon=self.epsilon)
        return (to_channels_last(y) if self.dims == "nhwc" else y,)


@register
class BatchNorm(GraphOp):
    """(x - mean[c]) / √(variance[c] + epsilon) · scale[c] + bias[c] with given statistics.

    x is [n, c, spatial…] (nchw) or [n, spatial…, c]. ONNX
    BatchNormalization at inference.
    """

    name = "graph.batch_norm"
    category = "batch_norm"
    x = Operand()
    scale = Operand()
    bias = Operand()
    mean = Operand()
    variance = Operand()
    epsilon = Attr(FLOAT, 1e-5)
    dims = Attr(LAYOUT, "nchw")
    y = Result()

    @property
    def channel_axis(self) -> int:
        """The axis of x that holds channels."""
        return 1 if self.dims == "nchw" else self.operand_type(0).rank - 1

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        if t.rank < 2 or not t.dtype.is_float:
            raise self.fail(f"it takes floats [n, c, …], not {t}")
        check_channels(self, t, self.channel_axis, (self.scale, self.bias, self.mean, self.variance))
        return (dense(t.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        x = to_channels_first(x) if self.dims == "nhwc" else x
        scale, bias, mean, variance = (present(a) for a in arrays[1:5])
        y = np.asarray(_ref.batch_normalization(x, scale, bias, mean, variance, epsilon=self.epsilon))
        return (to_channels_last(y) if self.dims == "nhwc" else y,)


@register
class Lrn(Rows):
    """x / (bias + alpha/size · Σ of x² over `size` neighbouring channels)^beta, x [n, c, spatial…]. ONNX LRN."""

    name = "graph.lrn"
    x = Operand()
    size = Attr(INT)
    alpha = Attr(FLOAT, 1e-4)
    beta = Attr(FLOAT, 0.75)
    bias = Attr(FLOAT, 1.0)
    dims = Attr(LAYOUT, "nchw")
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        if t.rank < 2 or not t.dtype.is_float:
            raise self.fail(f"it takes floats [n, c, …], not {t}")
        if self.size < 1:
            raise self.fail(f"size must be at least 1, not {self.size}")
        return (dense(t.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        x = to_channels_first(x) if self.dims == "nhwc" else x
        y = _ref.lrn(x, size=self.size, alpha=self.alpha, beta=self.beta, bias=self.bias)
        return (to_channels_last(y) if self.dims == "nhwc" else y,)
