# SPDX-License-Identifier: Apache-2.0
"""Contractions: matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from tcc import reference as _ref
from tcc.ir.declare import INT, INTS, Attr, Operand, OptionalOperand, Result, register
from tcc.ir.expr import Dim
from tcc.ir.graph.base import (
    LAYOUT,
    Array,
    GraphOp,
    broadcast,
    check_dims,
    check_equal_dim,
    check_length,
    dense,
    optional,
    present,
    same_dtype,
    to_channels_first,
    to_channels_last,
)
from tcc.ir.types import TensorType, Type


@register
class Matmul(GraphOp):
    """a [batch…, m, k] × b [batch…, k, n] → [batch…, m, n]; batch dims broadcast, a 1-D operand is a vector.

    ONNX MatMul; Gemm becomes this with transposes, a multiplication and an addition.
    """

    name = "graph.matmul"
    category = "contraction"
    a = Operand()
    b = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        a, b = self.operand_type(0), self.operand_type(1)
        dtype = same_dtype(self, a, b)
        if a.rank == 0 or b.rank == 0:
            raise self.fail(f"{a} and {b} do not multiply: an operand is a scalar")
        inner = b.shape[-2] if b.rank > 1 else b.shape[0]
        check_equal_dim(self, a.shape[-1], inner, f"{a} and {b} do not multiply")
        batch = broadcast(self, (a.shape[:-2], b.shape[:-2]))
        return (dense((*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.rank > 1 else ())), dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.matmul(present(arrays[0]), present(arrays[1])),)


def conv_extent(op: GraphOp, extent: Dim, kernel: Dim, stride: int, dilation: int, before: int, after: int) -> Dim:
    """⌊(extent + pads - dilation·(kernel - 1) - 1) / stride⌋ + 1; IRError if the window does not fit."""
    room = extent + before + after - dilation * (kernel - 1) - 1
    if isinstance(room, int) and room < 0:
        raise op.fail(f"a window of {kernel}, dilation {dilation}, does not fit {extent} padded by {before}, {after}")
    return room // stride + 1


class ConvBase(GraphOp):
    """Base of convolutions. `dims` names the order of x and y for any spatial rank: nchw is [n, c, spatial…], nhwc
    [n, spatial…, c]. `pads` are the begins, then the ends; negative ones crop."""

    category = "contraction"
    x = Operand()
    w = Operand()
    b = OptionalOperand()
    strides = Attr(INTS)
    pads = Attr(INTS)
    dilations = Attr(INTS)
    group = Attr(INT, 1)
    dims = Attr(LAYOUT, "nchw")
    y = Result()

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

    @property
    def kernel(self) -> tuple[Dim, ...]:
        """Extents of the window."""
        w = self.operand_type(1)
        return w.shape[2:] if self.dims == "nchw" else w.shape[1:-1]

    def check_common(self) -> tuple[TensorType, TensorType]:
        """(x, w) types after the checks that both convolutions share."""
        x, w = self.operand_type(0), self.operand_type(1)
        same_dtype(self, x, w)
        if x.rank < 3 or w.rank != x.rank:
            raise self.fail(f"x and w must be of one rank, at least 3, not {x} and {w}")
        check_length(self, self.strides, self.spatial, "strides")
        check_length(self, self.dilations, self.spatial, "dilations")
        check_length(self, self.pads, 2 * self.spatial, "pads")
        if min(self.strides) < 1 or min(self.dilations) < 1 or self.group < 1:
            raise self.fail("strides, dilations and group must be at least 1")
        return x, w

    def check_bias(self, channels: Dim) -> None:
        if self.b is None:
            return
        b = self.operand_type(2)
        same_dtype(self, self.operand_type(0), b)
        if b.rank != 1:
            raise self.fail(f"the bias must be [{channels}], not {b}")
        check_equal_dim(self, b.shape[0], channels, "bias and output channels")

    def result_type(self, x: TensorType, channels: Dim, spatial: Sequence[Dim]) -> TensorType:
        check_dims(self, spatial, "the output extents")
        if self.dims == "nchw":
            return dense((x.shape[0], channels, *spatial), x.dtype)
        return dense((x.shape[0], *spatial, channels), x.dtype)


@register
class Conv(ConvBase):
    """Convolution (cross-correlation) over 1 to 3 spatial dims, plus bias [co].

    Weights are [co, ci/group, k…] in nchw and [co, k…, ci/group] in nhwc. ONNX Conv.
    """

    name = "graph.conv"

    def infer(self) -> Sequence[Type]:
        x, w = self.check_common()
        channels, depth = w.shape[0], w.shape[1] if self.dims == "nchw" else w.shape[-1]
        check_equal_dim(self, x.shape[self.channel_axis], depth * self.group, "input channels and weights × group")
        if isinstance(channels, int) and channels % self.group:
            raise self.fail(f"{channels} output channels do not split into {self.group} groups")
        self.check_bias(channels)
        n = self.spatial
        out = [
            conv_extent(
                self, x.shape[axis], self.kernel[i], self.strides[i], self.dilations[i], self.pads[i], self.pads[n + i]
            )
            for i, axis in enumerate(self.spatial_axes)
        ]
        return (self.result_type(x, channels, out),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, w, b = present(arrays[0]), present(arrays[1]), optional(arrays, 2)
        if self.dims == "nhwc":
            x, w = to_channels_first(x), to_channels_first(w)
        y = _ref.conv(x, w, b, strides=self.strides, pads=self.pads, dilations=self.dilations, group=self.group)
        return (to_channels_last(y) if self.dims == "nhwc" else y,)


@register
class ConvTranspose(ConvBase):
    """Transposed convolution, the gradient of `graph.conv`, plus bias [co].

    Weights are [ci, co/group, k…] in nchw and [ci, k…, co/group] in nhwc. Output extent: stride·(in - 1) +
    output_padding + dilation·(k - 1) + 1 - pads. ONNX ConvTranspose.
    """

    name = "graph.conv_transpose"
    output_padding = Attr(INTS)

    def infer(self) -> Sequence[Type]:
        x, w = self.check_common()
        check_length(self, self.output_padding, self.spatial, "output_padding")
        check_equal_dim(self, x.shape[self.channel_axis], w.shape[0], "input channels and weights")
        if isinstance(w.shape[0], int) and w.shape[0] % self.group:
            raise self.fail(f"{w.shape[0]} input channels do not split into {self.group} groups")
        channels = (w.shape[1] if self.dims == "nchw" else w.shape[-1]) * self.group
        self.check_bias(channels)
        n = self.spatial
        out = [
            self.strides[i] * (x.shape[axis] - 1)
            + self.output_padding[i]
            + self.dilations[i] * (self.kernel[i] - 1)
            + 1
            - self.pads[i]
            - self.pads[n + i]
            for i, axis in enumerate(self.spatial_axes)
        ]
        return (self.result_type(x, channels, out),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, w, b = present(arrays[0]), present(arrays[1]), optional(arrays, 2)
        if self.dims == "nhwc":
            x, w = to_channels_first(x), to_channels_first(w)
        y = _ref.conv_transpose(
            x,
            w,
            b,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            output_padding=self.output_padding,
            group=self.group,
        )
        return (to_channels_last(y) if self.dims == "nhwc" else y,)
