# SPDX-License-Identifier: Apache-2.0
"""Pooling over spatial windows."""

from __future__ import annotations

from collections.abc import Sequence

from tcc import reference as _ref
from tcc.ir.declare import BOOLEAN, INT, INTS, Attr, Operand, Result, register
from tcc.ir.expr import Dim, ceildiv, minimum
from tcc.ir.graph.base import (
    LAYOUT,
    Array,
    GraphOp,
    check_dims,
    check_length,
    dense,
    present,
    to_channels_first,
    to_channels_last,
)
from tcc.ir.graph.contraction import conv_extent
from tcc.ir.types import I64, TensorType, Type


def pool_extent(
    op: GraphOp, extent: Dim, kernel: int, stride: int, dilation: int, before: int, after: int, ceil_mode: bool
) -> Dim:
    """Windows along one dim; with ceil_mode a window may run over the end but must start before the end padding."""
    out = conv_extent(op, extent, kernel, stride, dilation, before, after)
    if not ceil_mode:
        return out
    room = extent + before + after - dilation * (kernel - 1) - 1
    return minimum(ceildiv(room, stride) + 1, (extent + before - 1) // stride + 1)


class Pool(GraphOp):
    """Base of pools. `dims` names the order of x and y for any spatial rank; `pads` are the begins, then the ends."""

    category = "pool"
    x = Operand()
    kernel = Attr(INTS)
    strides = Attr(INTS)
    pads = Attr(INTS)
    dilations = Attr(INTS)
    ceil_mode = Attr(BOOLEAN, False)
    dims = Attr(LAYOUT, "nchw")

    @property
    def spatial(self) -> int:
        """Spatial rank."""
        return self.operand_type(0).rank - 2

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The axes of x and y that are spatial."""
        first = 2 if self.dims == "nchw" else 1
        return tuple(range(first, first + self.spatial))

    @property
    def channel_axis(self) -> int:
        """The axis of x and y that holds channels."""
        return 1 if self.dims == "nchw" else self.spatial + 1

    def infer_pool(self) -> TensorType:
        t = self.operand_type(0)
        n = self.spatial
        if n < 1:
            raise self.fail(f"it takes [n, c, spatial…], not {t}")
        for what, values, count in (
            ("kernel", self.kernel, n),
            ("strides", self.strides, n),
            ("dilations", self.dilations, n),
            ("pads", self.pads, 2 * n),
        ):
            check_length(self, values, count, what)
            if min(values) < (0 if what == "pads" else 1):
                raise self.fail(f"{what} {list(values)} has a value that is too small")
        shape = list(t.shape)
        for i, axis in enumerate(self.spatial_axes):
            shape[axis] = pool_extent(
                self,
                t.shape[axis],
                self.kernel[i],
                self.strides[i],
                self.dilations[i],
                self.pads[i],
                self.pads[n + i],
                self.ceil_mode,
            )
        check_dims(self, shape, "the output extents")
        return dense(shape, t.dtype)

    def infer(self) -> Sequence[Type]:
        return (self.infer_pool(),)

    def channels_first(self, arrays: Sequence[Array | None]) -> Array:
        x = present(arrays[0])
        return to_channels_first(x) if self.dims == "nhwc" else x

    def back(self, y: Array) -> Array:
        return to_channels_last(y) if self.dims == "nhwc" else y


@register
class MaxPool(Pool):
    """The maximum of each window; padding never wins. ONNX MaxPool without Indices."""

    name = "graph.max_pool"
    y = Result()

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        y, _ = _ref.max_pool(
            self.channels_first(arrays),
            kernel_shape=self.kernel,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            ceil_mode=int(self.ceil_mode),
        )
        return (self.back(y),)


@register
class MaxPoolIndices(Pool):
    """Maxima of windows and their flat i64 positions in x, counted over all of x (nchw). ONNX MaxPool with Indices."""

    name = "graph.max_pool_indices"
    category = "irregular"
    storage_order = Attr(INT, 0)
    y = Result()
    indices = Result()

    def infer(self) -> Sequence[Type]:
        t = self.infer_pool()
        return t, dense(t.shape, I64)

    def verify(self) -> None:
        if self.dims != "nchw":
            raise self.fail("positions are those of nchw")

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        y, indices = _ref.max_pool(
            present(arrays[0]),
            kernel_shape=self.kernel,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            ceil_mode=int(self.ceil_mode),
            storage_order=self.storage_order,
        )
        return y, indices


@register
class AveragePool(Pool):
    """The mean of each window; padding counts in the divisor with count_include_pad, else not. ONNX AveragePool."""

    name = "graph.average_pool"
    count_include_pad = Attr(BOOLEAN, False)
    y = Result()

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        y = _ref.average_pool(
            self.channels_first(arrays),
            kernel_shape=self.kernel,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            ceil_mode=int(self.ceil_mode),
            count_include_pad=int(self.count_include_pad),
        )
        return (self.back(y),)


@register
class LpPool(Pool):
    """The p-norm of each window, padding counting as 0. ONNX LpPool."""

    name = "graph.lp_pool"
    p = Attr(INT, 2)
    y = Result()

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        y = _ref.lp_pool(
            self.channels_first(arrays),
            kernel_shape=self.kernel,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            ceil_mode=int(self.ceil_mode),
            p=self.p,
        )
        return (self.back(y),)
