# SPDX-License-Identifier: Apache-2.0
"""com.microsoft operators on quantized tensors: a number is scale · (integer - zero point).

Products and sums of integers stay integers (i32); what needs a scale in between is f32, and pointwise.
"""

from __future__ import annotations

from collections.abc import Callable

from tcc.compiler.frontend.contrib import FLOAT, INT, INTS, STRING, contrib_op, known_dim, need_rank, takes
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.activation import coerced
from tcc.compiler.frontend.ops.quantize import (
    convolve_integers,
    dequantize_linear,
    dynamic_quantized,
    matmul_of_integers,
    quantize_linear,
    saturate,
)
from tcc.compiler.frontend.windows import Window, window
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, I32

contrib_op("QuantizeLinear")(quantize_linear)
contrib_op("DequantizeLinear")(dequantize_linear)


def _single(n: Node, value: Value | None, what: str) -> Value | None:
    """A scale or zero point of a whole tensor, as a scalar."""
    if value is None:
        return None
    if n.type(value).size != 1:
        raise InputError(f"its {what} is {n.type(value)}, and one number is needed")
    return n.reshape(value, ())


def _whole(n: Node, index: int, what: str) -> Value:
    value = _single(n, n.input(index), what)
    assert value is not None
    return value


def _centred(n: Node, x: Value, zero: Value | None) -> Value:
    """x less its zero point, in i32."""
    wide = n.cast(x, I32)
    return wide if zero is None else n.op(graph.Sub, wide, n.cast(zero, I32))


def _real(n: Node, index: int, name: str) -> Value:
    """The number that an operand and the scale and zero point behind it stand for, in f32."""
    x, scale = n.input(index), _whole(n, index + 1, f"scale of {name}")
    zero = _single(n, n.optional(index + 2), f"zero point of {name}")
    return n.op(graph.Mul, n.cast(_centred(n, x, zero), F32), scale)


def _quantized(n: Node, y: Value, index: int, like: Value) -> Value:
    """y in the type of `like`, with the scale and zero point at `index`."""
    scale = _whole(n, index, "scale of the result")
    zero = _single(n, n.optional(index + 1), "zero point of the result")
    return saturate(n, n.op(graph.Round, n.op(graph.Div, y, scale)), zero, n.dtype(like))


@contrib_op("QLinearAdd")
def qlinear_add(n: Node) -> Value:
    """A · (A's scale / C's) + B · (B's scale / C's) + what the zero points come to, rounded as a whole: where one is
    quantized to all of its range, as 1 is in x + 1, every sum lies between two quanta, and the order decides."""
    takes(n)
    scale = _whole(n, 6, "scale of C")
    ratios = [n.op(graph.Div, _whole(n, i, f"scale of {x}"), scale) for i, x in ((1, "A"), (4, "B"))]
    zero = _single(n, n.optional(7), "zero point of C")
    fixed = n.constant(0.0, F32) if zero is None else n.cast(zero, F32)
    total: Value | None = None
    for i, ratio in zip((2, 5), ratios, strict=True):
        point = _single(n, n.optional(i), "zero point")
        if point is not None:
            term = n.op(graph.Mul, ratio, n.cast(point, F32))
            total = term if total is None else n.op(graph.Add, total, term)
    if total is not None:
        fixed = n.op(graph.Sub, fixed, total)
    y = n.op(graph.Add, n.op(graph.Mul, n.cast(n.input(3), F32), ratios[1]), fixed)
    y = n.op(graph.Add, n.op(graph.Mul, n.cast(n.input(0), F32), ratios[0]), y)
    return saturate(n, n.op(graph.Round, y), None, n.dtype(n.input(0)))


@contrib_op("QLinearMul")
def qlinear_mul(n: Node) -> Value:
    """The product of the integers is exact; one factor scales it, and the zero point is added before rounding."""
    takes(n)
    a = _centred(n, n.input(0), _single(n, n.optional(2), "zero point of A"))
    b = _centred(n, n.input(3), _single(n, n.optional(5), "zero point of B"))
    factor = n.op(graph.Mul, _whole(n, 1, "scale of A"), _whole(n, 4, "scale of B"))
    factor = n.op(graph.Div, factor, _whole(n, 6, "scale of C"))
    y = n.op(graph.Mul, n.cast(n.op(graph.Mul, a, b), F32), factor)
    zero = _single(n, n.optional(7), "zero point of C")
    y = y if zero is None else n.op(graph.Add, y, n.cast(zero, F32))
    return saturate(n, n.op(graph.Round, y), None, n.dtype(n.input(0)))


@contrib_op("MulInteger")
def mul_integer(n: Node) -> Value:
    takes(n)
    a = _centred(n, n.input(0), _single(n, n.optional(1), "zero point of A"))
    return n.op(graph.Mul, a, _centred(n, n.input(2), _single(n, n.optional(3), "zero point of B")))


@contrib_op("QLinearWhere")
def qlinear_where(n: Node) -> Value:
    takes(n)
    return _quantized(n, n.op(graph.Where, n.input(0), _real(n, 1, "X"), _real(n, 4, "Y")), 7, n.input(1))


@contrib_op("QLinearConcat")
def qlinear_concat(n: Node) -> Value:
    """Operands are the result's scale and zero point, then x, scale and zero point of each part."""
    takes(n, axis=INT)
    if len(n.values) < 5 or (len(n.values) - 2) % 3:
        raise InputError(f"it has {len(n.values)} inputs, and 2 + 3 for each part are needed")
    places = range(2, len(n.values), 3)
    axis = n.axis(n.attr("axis"), n.rank(n.input(2)))
    pieces = [_quantized(n, _real(n, i, f"part {i // 3}"), 0, n.input(i)) for i in places]
    return pieces[0] if len(pieces) == 1 else n.op(graph.Concat, pieces, axis=axis)


def _unary(function: Callable[[Node, Value], Value], **attributes: int) -> Callable[[Node], Value]:
    def handler(n: Node) -> Value:
        takes(n, **attributes)
        return _quantized(n, function(n, _real(n, 0, "X")), 3, n.input(0))

    return handler


@contrib_op("QLinearSoftmax")
def qlinear_softmax(n: Node) -> Value:
    """softmax(X) · ⌊1 / Y's scale⌋: ONNX Runtime rounds the number of quanta down, to 254 where the scale is 1/255."""
    takes(n, axis=INT, opset=INT)
    y = _softmax(n, _real(n, 0, "X"))
    steps = n.op(graph.Floor, n.op(graph.Div, n.constant(1.0, F32), _whole(n, 3, "scale of Y")))
    zero = _single(n, n.optional(4), "zero point of Y")
    return saturate(n, n.op(graph.Round, n.op(graph.Mul, y, steps)), zero, n.dtype(n.input(0)))


def _softmax(n: Node, x: Value) -> Value:
    """Over one axis; before opset 13, over all dims from that axis on."""
    late = n.attr("opset") >= 13
    axis = n.axis(n.attr("axis", -1 if late else 1), n.rank(x))
    if late:
        return n.op(graph.Softmax, x, axis=axis)
    flat, shape = coerced(n, x, axis)
    return n.reshape(n.op(graph.Softmax, flat, axis=1), shape)


contrib_op("QLinearSigmoid")(_unary(lambda n, x: n.op(graph.Sigmoid, x)))
contrib_op("QLinearLeakyRelu")(
    _unary(lambda n, x: n.op(graph.LeakyRelu, x, alpha=n.attr("alpha", 0.01)), alpha=FLOAT)
)  # fmt: skip


def _channels_second(n: Node, x: Value) -> Value:
    """x [n, …, c] as [n, c, …]."""
    return n.transpose(x, (0, n.rank(x) - 1, *range(1, n.rank(x) - 1)))


def _channels_last(n: Node, x: Value) -> Value:
    """x [n, c, …] as [n, …, c]."""
    return n.transpose(x, (0, *range(2, n.rank(x)), 1))


@contrib_op("QLinearGlobalAveragePool")
def qlinear_global_average_pool(n: Node) -> Value:
    """The sum of the integers, scaled once."""
    takes(n, channels_last=INT)
    x, last = n.input(0), n.flag("channels_last")
    if n.rank(x) < 3:
        raise InputError(f"X is {n.type(x)}, which has no spatial dims")
    axes = tuple(range(1, n.rank(x) - 1)) if last else tuple(range(2, n.rank(x)))
    count = 1
    for a in axes:
        count *= known_dim(n.shape(x)[a], "its spatial extent")
    total = _centred(n, x, _single(n, n.optional(2), "zero point of X"))
    total = n.op(graph.Reduce, total, kind="sum", axes=axes, keepdims=True)
    scale = n.op(graph.Mul, _whole(n, 1, "scale of X"), n.constant(1.0 / count, F32))
    return _quantized(n, n.op(graph.Mul, n.cast(total, F32), scale), 3, x)


def _reached(n: Node, x: Value, at: Window) -> tuple[int, ...]:
    """Pads with which the windows that ceil_mode starts inside x or before it fit."""
    rank = len(at.kernel)
    ends: list[int] = []
    for i in range(rank):
        start = known_dim(n.shape(x)[2 + i], "its spatial extent") + at.pads[i]
        count = -(-(start + at.pads[rank + i] - at.kernel[i]) // at.strides[i]) + 1
        if (count - 1) * at.strides[i] >= start:
            count -= 1
        ends.append(max(at.pads[rank + i], (count - 1) * at.strides[i] + at.kernel[i] - start))
    return (*at.pads[:rank], *ends)


@contrib_op("QLinearAveragePool")
def qlinear_average_pool(n: Node) -> Value:
    takes(
        n, auto_pad=STRING, ceil_mode=INT, channels_last=INT, count_include_pad=INT, kernel_shape=INTS, pads=INTS,
        strides=INTS,
    )  # fmt: skip
    last = n.flag("channels_last")
    x = _real(n, 0, "X")
    x = _channels_second(n, x) if last else x
    at = window(n, x, n.attr("kernel_shape"))
    ceil = n.flag("ceil_mode") and n.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    pads, whole = at.pads, n.flag("count_include_pad")
    if ceil and whole:
        # What a window has beyond the padding counts too: pad up to there.
        pads, ceil = _reached(n, x, at), False
    y = n.op(
        graph.AveragePool, x, kernel=at.kernel, strides=at.strides, pads=pads, dilations=at.dilations,
        ceil_mode=ceil, count_include_pad=whole,
    )  # fmt: skip
    return _quantized(n, _channels_last(n, y) if last else y, 3, n.input(0))


@contrib_op("QLinearConv")
def qlinear_conv(n: Node) -> Value:
    """ONNX's QLinearConv, with channels_last on [n, …, c]."""
    takes(
        n, auto_pad=STRING, channels_last=INT, dilations=INTS, group=INT, kernel_shape=INTS, pads=INTS, strides=INTS
    )  # fmt: skip
    if not n.flag("channels_last"):
        return convolve_integers(n, n.input(0))
    return _channels_last(n, convolve_integers(n, _channels_second(n, n.input(0))))


def _columns(n: Node, value: Value, width: object, what: str) -> Value:
    """A scale or bias of each column, or of all of them."""
    if n.type(value).size == 1:
        return n.reshape(value, ())
    if n.shape(value) != (width,):
        raise InputError(f"its {what} is {n.type(value)}, and one number or {width} are needed")
    return value


@contrib_op("QGemm")
def qgemm(n: Node) -> Value:
    """alpha · A' B' + C, C being integers of the product's scale; f32 where the result's scale is absent."""
    takes(n, alpha=FLOAT, transA=INT, transB=INT)
    a, b, c = n.input(0), n.input(3), n.optional(6)
    need_rank(n, a, "A", 2)
    need_rank(n, b, "B", 2)
    a = n.transpose(a, (1, 0)) if n.flag("transA") else a
    b = n.transpose(b, (1, 0)) if n.flag("transB") else b
    total = matmul_of_integers(n, a, _single(n, n.optional(2), "zero point of A"), b, n.optional(5))
    if c is not None:
        total = n.op(graph.Add, total, c)
    scale = n.op(graph.Mul, _whole(n, 1, "scale of A"), _columns(n, n.input(4), n.shape(b)[1], "scale of B"))
    if n.attr("alpha", 1.0) != 1.0:
        scale = n.op(graph.Mul, scale, n.constant(n.attr("alpha"), F32))
    y = n.op(graph.Mul, n.cast(total, F32), scale)
    return y if n.optional(7) is None else _quantized(n, y, 7, n.input(8) if n.optional(8) is not None else a)


def _scaled_product(
    n: Node, product: Value, a_scale: Value, b_scale: Value, bias: Value | None
) -> Value:  # fmt: skip
    """An integer product in f32, with a bias a column."""
    if n.rank(product) < 1:
        raise InputError("its operands are vectors, and B must be a matrix")
    width = n.shape(product)[-1]
    factor = n.op(graph.Mul, a_scale, _columns(n, b_scale, width, "scale of B"))
    y = n.op(graph.Mul, n.cast(product, F32), factor)
    return y if bias is None else n.op(graph.Add, y, _columns(n, bias, width, "bias"))


@contrib_op("MatMulIntegerToFloat")
def matmul_integer_to_float(n: Node) -> Value:
    takes(n)
    product = matmul_of_integers(n, n.input(0), n.optional(4), n.input(1), n.optional(5))
    return _scaled_product(n, product, _whole(n, 2, "scale of A"), n.input(3), n.optional(6))


@contrib_op("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(n: Node) -> Value:
    """A is quantized to u8 by its own range, then multiplied as integers."""
    takes(n)
    a, scale, zero = dynamic_quantized(n, n.input(0))
    product = matmul_of_integers(n, a, zero, n.input(1), n.optional(3))
    return _scaled_product(n, product, scale, n.input(2), n.optional(4))
