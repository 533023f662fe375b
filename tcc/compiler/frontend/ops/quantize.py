# SPDX-License-Identifier: Apache-2.0
"""ONNX quantization, as casts and arithmetic: scales are reshaped to broadcast, so what remains is pointwise."""

from __future__ import annotations

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.contraction import conv_window
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import F32, F64, I32, U8, DType


def spread(n: Node, v: Value, x: Value, axis: int, block: int) -> Value:
    """A scale or zero point in a shape that broadcasts over x: per tensor, per `axis`, or per block along it."""
    shape, rank = n.shape(x), n.rank(x)
    have = n.shape(v)
    if len(have) <= 1 and n.type(v).size == 1:
        return n.reshape(v, ())
    if len(have) == 1 and not block:
        at = 0 if rank == 1 else n.axis(axis, rank)
        if have[0] != shape[at]:
            raise InputError(f"its scale has {have[0]} values, and dim {at} of x {shape[at]}")
        return n.reshape(v, (have[0], *(1,) * (rank - 1 - at)))
    if len(have) != rank or block < 1:
        raise InputError(f"its scale is {n.type(v)}, which does not fit {n.type(x)} with block_size {block}")
    at = n.axis(axis, rank)
    blocks = have[at]
    wide = n.op(
        graph.Expand,
        n.reshape(v, (*have[: at + 1], 1, *have[at + 1 :])),
        shape=(*have[: at + 1], block, *have[at + 1 :]),
    )
    whole: list[Dim] = [*have[:at], blocks * block, *have[at + 1 :]]
    wide = n.reshape(wide, whole)
    if whole[at] == shape[at]:
        return wide
    return n.op(
        graph.Slice, wide, starts=(0,) * rank, sizes=(*whole[:at], shape[at], *whole[at + 1 :]), steps=(1,) * rank
    )


def saturate(n: Node, rounded: Value, zero: Value | None, dtype: DType) -> Value:
    """clamp(rounded + zero) in an integer type; the sum is in a float type that holds it."""
    total = rounded if zero is None else n.op(graph.Add, rounded, n.cast(zero, n.dtype(rounded)))
    low, high = (
        (0, (1 << dtype.bits) - 1) if dtype.kind == "uint" else (-(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1)
    )
    return n.op(graph.Cast, n.op(graph.Clip, total, lo=float(low), hi=float(high)), to=dtype)


@onnx_op("QuantizeLinear")
def quantize_linear(n: Node) -> Value:
    """saturate(round(x / scale) + zero point); to 8- and 4-bit floats it rounds to the type."""
    x, scale, zero = n.input(0), n.input(1), n.optional(2)
    given = n.attr("output_dtype", 0)
    target = n.dtype(zero) if zero is not None else element_type(given, "its result") if given else U8
    axis, block = n.attr("axis", 1), n.attr("block_size", 0)
    precision = n.attr("precision", 0)
    divide = element_type(precision, "its precision") if precision else n.dtype(scale)
    factor = n.cast(spread(n, scale, x, axis, block), divide)
    quotient = n.op(graph.Div, n.cast(x, divide), factor)
    if divide.is_float and divide.bits < 32:
        quotient = n.cast(quotient, F32)
    offset = None if zero is None else spread(n, zero, x, axis, block)
    if target.is_int:
        return saturate(n, n.op(graph.Round, quotient), offset, target)
    if offset is not None:
        quotient = n.op(graph.Add, quotient, n.cast(offset, n.dtype(quotient)))
    return n.op(graph.Cast, quotient, to=target, saturate=n.flag("saturate", True))


@onnx_op("DequantizeLinear")
def dequantize_linear(n: Node) -> Value:
    """(x - zero point) · scale."""
    x, scale, zero = n.input(0), n.input(1), n.optional(2)
    given = n.attr("output_dtype", 0)
    target = element_type(given, "its result") if given else n.dtype(scale)
    axis, block = n.attr("axis", 1), n.attr("block_size", 0)
    wide = F64 if F64 in (target, n.dtype(scale)) else F32
    if n.dtype(x).is_int:
        centre = n.cast(x, I32)
        if zero is not None:
            centre = n.op(graph.Sub, centre, n.cast(spread(n, zero, x, axis, block), I32))
    else:
        centre = n.cast(x, wide)
        if zero is not None:
            centre = n.op(graph.Sub, centre, n.cast(spread(n, zero, x, axis, block), wide))
    factor = n.cast(spread(n, scale, x, axis, block), wide)
    return n.cast(n.op(graph.Mul, n.cast(centre, wide), factor), target)


def dynamic_quantized(n: Node, x: Value) -> tuple[Value, Value, Value]:
    """x in u8 with the scale and zero point of its own range, 0 included."""
    if not n.dtype(x).is_float:
        raise InputError(f"what is to be quantized is {n.type(x)}, and floats are needed")
    axes = tuple(range(n.rank(x)))

    def extreme(kind: str, cls: type[graph.Binary]) -> Value:
        inner = n.op(graph.Reduce, x, kind=kind, axes=axes, keepdims=False) if axes else x
        return n.op(cls, inner, n.like(0.0, x))

    low, high = extreme("min", graph.Min), extreme("max", graph.Max)
    scale = n.op(graph.Div, n.op(graph.Sub, high, low), n.like(255.0, x))
    # A tensor of zeros has scale 0; dividing by 1 instead quantises it to 0.
    divisor = n.op(graph.Where, n.op(graph.Equal, scale, n.like(0.0, x)), n.like(1.0, x), scale)
    start = n.op(graph.Clip, n.op(graph.Div, n.op(graph.Neg, low), divisor), lo=0.0, hi=255.0)
    zero = n.op(graph.Round, start)
    y = saturate(n, n.op(graph.Round, n.op(graph.Div, x, divisor)), zero, U8)
    return y, scale, n.cast(zero, U8)


@onnx_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(n: Node) -> list[Value]:
    return list(dynamic_quantized(n, n.input(0)))


def _centred(n: Node, x: Value, zero: Value | None) -> Value:
    wide = n.cast(x, I32)
    return wide if zero is None else n.op(graph.Sub, wide, n.cast(zero, I32))


def _row_parameter(n: Node, v: Value | None, rank: int) -> Value | None:
    """A per-row parameter as a column; a single value as a scalar."""
    if v is None:
        return None
    if n.type(v).size == 1:
        return n.reshape(v, ())
    return n.reshape(v, (*n.shape(v), 1)) if n.rank(v) == 1 and rank > 1 else v


def _column_parameter(n: Node, v: Value | None) -> Value | None:
    return None if v is None else n.reshape(v, ()) if n.type(v).size == 1 else v


def matmul_of_integers(n: Node, a: Value, a_zero: Value | None, b: Value, b_zero: Value | None) -> Value:
    """(a - a zero) (b - b zero) in i32; a's zero point is per tensor or row, b's per tensor or column."""
    left = _centred(n, a, _row_parameter(n, a_zero, n.rank(a)))
    return n.op(graph.Matmul, left, _centred(n, b, _column_parameter(n, b_zero)))


@onnx_op("MatMulInteger")
def matmul_integer(n: Node) -> Value:
    return matmul_of_integers(n, n.input(0), n.optional(2), n.input(1), n.optional(3))


@onnx_op("QLinearMatMul")
def qlinear_matmul(n: Node) -> Value:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (n.input(i) for i in range(8))
    rank = n.rank(a)
    target = n.dtype(y_zero)
    rows = [_row_parameter(n, v, rank) for v in (a_scale, a_zero, y_scale, y_zero)]
    columns = [_column_parameter(n, v) for v in (b_scale, b_zero)]
    assert rows[0] is not None and rows[2] is not None and columns[0] is not None
    factor = n.op(graph.Mul, n.cast(rows[0], F32), n.cast(columns[0], F32))
    factor = n.op(graph.Div, factor, n.cast(rows[2], F32))
    if n.dtype(a).is_float:
        left, right = n.cast(a, F32), n.cast(b, F32)
        left = left if rows[1] is None else n.op(graph.Sub, left, n.cast(rows[1], F32))
        right = right if columns[1] is None else n.op(graph.Sub, right, n.cast(columns[1], F32))
        y = n.op(graph.Mul, n.op(graph.Matmul, left, right), factor)
        y = y if rows[3] is None else n.op(graph.Add, y, n.cast(rows[3], F32))
        return n.cast(y, target)
    total = n.op(graph.Matmul, _centred(n, a, rows[1]), _centred(n, b, columns[1]))
    scaled = n.op(graph.Mul, n.cast(total, F32), factor)
    return saturate(n, n.op(graph.Round, scaled), rows[3], target)


def _channel_parameter(n: Node, v: Value, rank: int) -> Value:
    """A per-output-channel parameter shaped for weights [co, …]; a single value as a scalar."""
    return n.reshape(v, ()) if n.type(v).size == 1 else n.reshape(v, (*n.shape(v), *(1,) * (rank - 1)))


def _integer_conv(n: Node, x: Value, x_zero: Value | None, w: Value, w_zero: Value | None) -> Value:
    """The convolution of centred integers in i32; padding stands for the zero point, which is 0 once centred."""
    at = conv_window(n, x, w)
    left = _centred(n, x, None if x_zero is None else n.reshape(x_zero, ()))
    right = _centred(n, w, None if w_zero is None else _channel_parameter(n, w_zero, n.rank(w)))
    return n.op(
        graph.Conv,
        left,
        right,
        None,
        strides=at.strides,
        pads=at.pads,
        dilations=at.dilations,
        group=n.attr("group", 1),
    )


@onnx_op("ConvInteger")
def conv_integer(n: Node) -> Value:
    return _integer_conv(n, n.input(0), n.optional(2), n.input(1), n.optional(3))


@onnx_op("QLinearConv")
def qlinear_conv(n: Node) -> Value:
    return convolve_integers(n, n.input(0))


def convolve_integers(n: Node, x: Value) -> Value:
    """QLinearConv of x [n, c, …], which is the node's first operand or a rearrangement of it."""
    x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (n.input(i) for i in range(1, 8))
    bias = n.optional(8)
    total = _integer_conv(n, x, x_zero, w, w_zero)
    rank = n.rank(x)

    def per_channel(v: Value) -> Value:
        return n.reshape(v, ()) if n.type(v).size == 1 else n.reshape(v, (*n.shape(v), *(1,) * (rank - 2)))

    if bias is not None:
        total = n.op(graph.Add, total, per_channel(bias))
    factor = n.op(graph.Mul, n.reshape(x_scale, ()), per_channel(w_scale))
    factor = n.op(graph.Div, factor, n.reshape(y_scale, ()))
    scaled = n.op(graph.Mul, n.cast(total, F32), n.cast(factor, F32))
    return saturate(n, n.op(graph.Round, scaled), n.reshape(y_zero, ()), n.dtype(y_zero))
