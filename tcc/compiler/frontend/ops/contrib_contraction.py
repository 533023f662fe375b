# SPDX-License-Identifier: Apache-2.0
"""com.microsoft products, convolutions and their fused forms; the few movements of that domain."""

from __future__ import annotations

import numpy as np

from tcc.compiler.frontend.contrib import (
    FLOAT,
    FLOATS,
    INT,
    INTS,
    STRING,
    contrib_op,
    known_dim,
    takes,
)
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.ops.contraction import conv, gemm
from tcc.compiler.frontend.ops.contrib_activation import activate
from tcc.compiler.frontend.ops.movement import gather_nd, trilu
from tcc.compiler.frontend.windows import window
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, F64

_MATMUL = {"alpha": FLOAT, "transA": INT, "transB": INT, "transBatchA": INT, "transBatchB": INT}
_ACTIVATION = {"activation": STRING, "activation_alpha": FLOAT, "activation_beta": FLOAT, "activation_gamma": FLOAT}


def _side(n: Node, x: Value, batch: bool, last: bool) -> Value:
    """An operand of a product with its flags: `batch` moves the first dim behind the others but the last, then
    `last` swaps the last two."""
    rank = n.rank(x)
    perm = list(range(rank))
    if batch and rank >= 3:
        perm = [*range(1, rank - 1), 0, rank - 1]
    if last and rank >= 2:
        perm[-2:] = perm[:-3:-1]
    return n.transpose(x, perm)


def _product(n: Node) -> Value:
    a = _side(n, n.input(0), n.flag("transBatchA"), n.flag("transA"))
    b = _side(n, n.input(1), n.flag("transBatchB"), n.flag("transB"))
    y, alpha = n.op(graph.Matmul, a, b), n.attr("alpha", 1.0)
    return y if alpha == 1.0 else n.op(graph.Mul, y, n.like(alpha, y))


@contrib_op("FusedMatMul", "TransposeMatMul")
def fused_matmul(n: Node) -> Value:
    """alpha · A' B'."""
    takes(n, **_MATMUL)
    return _product(n)


def _named(n: Node, x: Value) -> Value:
    """x through the activation that the attributes name."""
    given = {p: n.attr(f"activation_{p}") for p in ("alpha", "beta", "gamma") if n.has(f"activation_{p}")}
    name = n.attr("activation", "")
    return activate(n, x, name, given) if name else x


@contrib_op("FusedMatMulActivation")
def fused_matmul_activation(n: Node) -> Value:
    takes(n, activation_axis=INT, **_MATMUL, **_ACTIVATION)
    return _named(n, _product(n))


@contrib_op("FusedGemm")
def fused_gemm(n: Node) -> Value:
    takes(n, alpha=FLOAT, beta=FLOAT, transA=INT, transB=INT, **_ACTIVATION)
    return _named(n, gemm(n))


@contrib_op("GemmFastGelu")
def gemm_fast_gelu(n: Node) -> Value:
    """gelu(x w + bias), the tanh form."""
    takes(n)
    y, bias = n.op(graph.Matmul, n.input(0), n.input(1)), n.optional(2)
    return n.op(graph.Gelu, y if bias is None else n.op(graph.Add, y, bias), approximate="tanh")


_PARAMETERS = {"LeakyRelu": ("alpha",), "Clip": ("min", "max"), "HardSigmoid": ("alpha", "beta")}
"""What a convolution's activation_params are, in order."""


@contrib_op("FusedConv")
def fused_conv(n: Node) -> Value:
    """activation(conv(X, W) + B + Z)."""
    takes(
        n, activation=STRING, activation_params=FLOATS, auto_pad=STRING, dilations=INTS, group=INT, kernel_shape=INTS,
        pads=INTS, strides=INTS,
    )  # fmt: skip
    y, added = conv(n), n.optional(3)
    if added is not None:
        y = n.op(graph.Add, y, added)
    name, given = n.attr("activation", ""), n.attr("activation_params", [])
    names = _PARAMETERS.get(name, ())
    if len(given) != len(names):
        raise InputError(f"its activation_params {given} do not fit its activation {name or 'none'}")
    return activate(n, y, name, dict(zip(names, given, strict=True))) if name else y


@contrib_op("NhwcMaxPool")
def nhwc_max_pool(n: Node) -> Value:
    """MaxPool of [n, …, c]."""
    takes(n, auto_pad=STRING, ceil_mode=INT, dilations=INTS, kernel_shape=INTS, pads=INTS, strides=INTS)
    rank = n.rank(n.input(0))
    if rank < 3:
        raise InputError(f"x is {n.type(n.input(0))}, which has no spatial dims")
    x = n.transpose(n.input(0), (0, rank - 1, *range(1, rank - 1)))
    at = window(n, x, n.attr("kernel_shape"))
    y = n.op(
        graph.MaxPool, x, kernel=at.kernel, strides=at.strides, pads=at.pads, dilations=at.dilations,
        ceil_mode=n.flag("ceil_mode") and n.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID"),
    )  # fmt: skip
    return n.transpose(y, (0, *range(2, rank), 1))


@contrib_op("Pad")
def pad(n: Node) -> Value:
    """Before and after counts of all axes in one row, [2·rank] or [1, 2·rank]."""
    takes(n, mode=STRING)
    x, counts, fill = n.input(0), n.ints(1, "pads"), n.optional(2)
    rank, mode = n.rank(x), n.attr("mode", "constant")
    if len(counts) != 2 * rank:
        raise InputError(f"its pads {counts} do not fit {n.type(x)}")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise InputError(f"its mode is {mode}, and constant, edge, reflect and wrap are the choices")
    if not any(counts):
        return x
    value: float = 0.0
    known = n.known(fill)
    if fill is not None and n.type(fill).size != 1:
        raise InputError(f"its value is {n.type(fill)}, and one number is needed")
    if known is not None:
        value, fill = known.reshape(-1)[0].item(), None
    elif fill is not None:
        fill = n.reshape(fill, ())
    fill = fill if mode == "constant" else None
    value = float(value) if n.dtype(x).is_float else int(value)
    return n.op(graph.Pad, x, fill, before=tuple(counts[:rank]), after=tuple(counts[rank:]), mode=mode, value=value)


@contrib_op("ExpandDims")
def expand_dims(n: Node) -> Value:
    takes(n)
    shape = list(n.shape(n.input(0)))
    shape.insert(n.axis(n.ints(1, "axis")[0], len(shape) + 1), 1)
    return n.reshape(n.input(0), shape)


contrib_op("Trilu")(trilu)
contrib_op("GatherND")(gather_nd)


@contrib_op("Inverse")
def inverse(n: Node) -> Value:
    """The inverses of square matrices [..., k, k], by Gauss–Jordan elimination, a step a column.

    The pivot of a step is the largest of its column among the rows that are left; its row is not moved but marked, and
    the rows are put in order at the end: row i of the inverse is what is left of the row that was column i's pivot.
    """
    takes(n)
    x = n.input(0)
    if n.rank(x) < 2 or n.shape(x)[-1] != n.shape(x)[-2]:
        raise InputError(f"X is {n.type(x)}, and square matrices are needed")
    size, dtype = known_dim(n.shape(x)[-1], "its extent"), n.dtype(x)
    if size > _LARGEST_INVERSE:
        raise InputError(f"its matrices are {size} by {size}, and tcc inverts up to {_LARGEST_INVERSE}")
    if size == 0:
        return x
    wide = n.cast(x, F64 if dtype == F64 else F32)
    lead = n.shape(x)[:-2]
    rank = n.rank(x)
    kind = n.dtype(wide).numpy
    both = n.op(graph.Concat, [wide, n.op(graph.Expand, n.constant(np.eye(size, dtype=kind)), shape=n.shape(x))],
                axis=rank - 1)  # fmt: skip
    rows = n.constant(np.arange(size).reshape(size, 1))
    free = n.op(graph.Expand, n.constant(np.ones((size, 1), bool)), shape=(*lead, size, 1))
    orders: list[Value] = []
    for i in range(size):
        starts, sizes = (0,) * (rank - 1) + (i,), (*lead, size, 1)
        column = n.op(graph.Slice, both, starts=starts, sizes=sizes, steps=(1,) * rank)
        weight = n.op(graph.Where, free, n.op(graph.Abs, column), n.like(-1.0, column))
        best = n.op(graph.ArgReduce, weight, kind="max", axis=rank - 2, keepdims=True)
        chosen = n.op(graph.Equal, rows, best)
        mark = n.cast(chosen, n.dtype(wide))
        # The sum has one term, so it is exact; the pivot's row becomes 1 in its column, the others 0.
        pivot = n.op(graph.Reduce, n.op(graph.Where, chosen, both, n.like(0.0, both)), kind="sum", axes=(rank - 2,),
                     keepdims=True)  # fmt: skip
        head = n.op(graph.Slice, pivot, starts=starts, sizes=(*lead, 1, 1), steps=(1,) * rank)
        scaled = n.op(graph.Div, pivot, head)
        rest = n.op(graph.Sub, both, n.op(graph.Mul, column, scaled))
        both = n.op(graph.Where, chosen, scaled, rest)
        free = n.op(graph.And, free, n.op(graph.Not, chosen))
        orders.append(mark)
    # Row i of the permutation marks the row that was the pivot of column i.
    order = n.transpose(
        n.op(graph.Concat, orders, axis=rank - 1) if size > 1 else orders[0],
        (*range(rank - 2), rank - 1, rank - 2),
    )
    right = n.op(graph.Slice, both, starts=(0,) * (rank - 1) + (size,), sizes=(*lead, size, size), steps=(1,) * rank)
    return n.cast(n.op(graph.Matmul, order, right), dtype)


_LARGEST_INVERSE = 32
