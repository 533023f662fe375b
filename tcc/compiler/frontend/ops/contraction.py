# SPDX-License-Identifier: Apache-2.0
"""ONNX matrix products and convolutions."""

from __future__ import annotations

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.windows import Window, window
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value


@onnx_op("MatMul")
def matmul(n: Node) -> Value:
    return n.op(graph.Matmul, n.input(0), n.input(1))


@onnx_op("Gemm")
def gemm(n: Node) -> Value:
    """alpha · A' B' + beta · C."""
    a, b, c = n.input(0), n.input(1), n.optional(2)
    if n.rank(a) != 2 or n.rank(b) != 2:
        raise InputError(f"its operands are {n.type(a)} and {n.type(b)}, and Gemm multiplies matrices")
    a = n.transpose(a, (1, 0)) if n.flag("transA") else a
    b = n.transpose(b, (1, 0)) if n.flag("transB") else b
    y = n.op(graph.Matmul, a, b)
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    if alpha != 1.0:
        y = n.op(graph.Mul, y, n.like(alpha, y))
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = n.op(graph.Mul, c, n.like(beta, c))
    return n.op(graph.Add, y, c)


def conv_window(n: Node, x: Value, w: Value) -> Window:
    """The window of a convolution; its kernel comes from the weights."""
    if n.rank(x) < 3 or n.rank(w) != n.rank(x):
        raise InputError(f"x is {n.type(x)} and the weights {n.type(w)}; both must be of one rank, at least 3")
    kernel: list[int] = []
    for d in n.shape(w)[2:]:
        if not isinstance(d, int):
            raise InputError(f"its weights have the free dim {d}, which must be bound")
        kernel.append(d)
    given = n.attr("kernel_shape", kernel)
    if list(given) != kernel:
        raise InputError(f"its kernel_shape {given} differs from that of its weights, {kernel}")
    return window(n, x, kernel)


@onnx_op("Conv")
def conv(n: Node) -> Value:
    x, w = n.input(0), n.input(1)
    at = conv_window(n, x, w)
    return n.op(
        graph.Conv,
        x,
        w,
        n.optional(2),
        strides=at.strides,
        pads=at.pads,
        dilations=at.dilations,
        group=n.attr("group", 1),
    )


@onnx_op("ConvTranspose")
def conv_transpose(n: Node) -> Value:
    """auto_pad and output_shape become explicit pads: total = natural extent - wanted extent."""
    x, w = n.input(0), n.input(1)
    if n.rank(x) < 3 or n.rank(w) != n.rank(x):
        raise InputError(f"x is {n.type(x)} and the weights {n.type(w)}; both must be of one rank, at least 3")
    rank = n.rank(x) - 2
    kernel = [int(d) if isinstance(d, int) else -1 for d in n.shape(w)[2:]]
    if min(kernel) < 0:
        raise InputError("its weights have free dims, which must be bound")
    strides = tuple(n.attr("strides", [1] * rank))
    dilations = tuple(n.attr("dilations", [1] * rank))
    extra = list(n.attr("output_padding", [0] * rank))
    pads = list(n.attr("pads", [0] * 2 * rank))
    auto = n.attr("auto_pad", "NOTSET")
    wanted = n.attr("output_shape", None)
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise InputError(f"its auto_pad is {auto}, which ONNX does not have")
    if len(strides) != rank or len(dilations) != rank or len(extra) != rank or len(pads) != 2 * rank:
        raise InputError(f"its strides, dilations, output_padding or pads do not fit the spatial rank {rank}")
    if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = list(wanted)[-rank:] if wanted is not None else None
        for i in range(rank):
            extent = n.shape(x)[2 + i]
            if not isinstance(extent, int):
                if wanted is not None:
                    raise InputError(f"its output_shape needs the free dim {extent} bound")
                total = extra[i] + dilations[i] * (kernel[i] - 1) + 1 - strides[i]
            else:
                target = wanted[i] if wanted is not None else extent * strides[i]
                total = strides[i] * (extent - 1) + extra[i] + dilations[i] * (kernel[i] - 1) + 1 - target
            if total < 0:
                # The window is smaller than the output wants: the rest is output padding.
                extra[i], total = extra[i] - total, 0
            small = total // 2
            pads[i], pads[rank + i] = (total - small, small) if auto == "SAME_LOWER" else (small, total - small)
    elif auto == "VALID":
        pads = [0] * 2 * rank
    return n.op(
        graph.ConvTranspose,
        x,
        w,
        n.optional(2),
        strides=strides,
        pads=tuple(pads),
        dilations=dilations,
        group=n.attr("group", 1),
        output_padding=tuple(extra),
    )
