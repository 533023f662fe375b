# SPDX-License-Identifier: Apache-2.0
"""ONNX reductions, scans and sorting."""

from __future__ import annotations

from collections.abc import Callable

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import BOOL, U8


def reduce_axes(n: Node, x: Value) -> tuple[int, ...] | None:
    """The axes of a Reduce operator: an attribute before opset 18 (13 for ReduceSum), then an operand. None: no-op."""
    rank = n.rank(x)
    given = n.ints(1, "axes") if n.optional(1) is not None else n.attr("axes", None)
    if given is None or len(given) == 0:
        return None if n.flag("noop_with_empty_axes") else tuple(range(rank))
    return n.axes(given, rank)


def _reduce(n: Node, x: Value, kind: str, axes: tuple[int, ...] | None, keepdims: bool | None = None) -> Value:
    keep = n.flag("keepdims", True) if keepdims is None else keepdims
    if not axes:
        return x
    if n.dtype(x) == BOOL:
        # Max of bools is "any", min is "all".
        narrow = n.op(graph.Reduce, n.cast(x, U8), kind=kind, axes=axes, keepdims=keep)
        return n.cast(narrow, BOOL)
    return n.op(graph.Reduce, x, kind=kind, axes=axes, keepdims=keep)


def _plain(kind: str) -> Callable[[Node], Value]:
    return lambda n: _reduce(n, n.input(0), kind, reduce_axes(n, n.input(0)))


for _name, _kind in (
    ("ReduceSum", "sum"),
    ("ReduceMean", "mean"),
    ("ReduceMax", "max"),
    ("ReduceMin", "min"),
    ("ReduceProd", "prod"),
):
    onnx_op(_name)(_plain(_kind))


@onnx_op("ReduceSumSquare")
def reduce_sum_square(n: Node) -> Value:
    x = n.input(0)
    return _reduce(n, n.op(graph.Mul, x, x), "sum", reduce_axes(n, x))


@onnx_op("ReduceL1")
def reduce_l1(n: Node) -> Value:
    return _reduce(n, n.op(graph.Abs, n.input(0)), "sum", reduce_axes(n, n.input(0)))


@onnx_op("ReduceL2")
def reduce_l2(n: Node) -> Value:
    x = n.input(0)
    total = _reduce(n, n.op(graph.Mul, x, x), "sum", reduce_axes(n, x))
    return _in_float(n, total, graph.Sqrt)


@onnx_op("ReduceLogSum")
def reduce_log_sum(n: Node) -> Value:
    return _in_float(n, _reduce(n, n.input(0), "sum", reduce_axes(n, n.input(0))), graph.Log)


def _in_float(n: Node, x: Value, cls: type[graph.Unary]) -> Value:
    """A float function of a value that may be an integer: computed in f64 and truncated back."""
    from tcc.ir.types import F64

    dtype = n.dtype(x)
    return n.op(cls, x) if dtype.is_float else n.cast(n.op(cls, n.cast(x, F64)), dtype)


@onnx_op("ReduceLogSumExp")
def reduce_log_sum_exp(n: Node) -> Value:
    """max + log Σ e^(x - max); a max that is infinite is taken as 0, so that the sum gives the infinity."""
    from tcc.ir.types import F64

    x = n.input(0)
    dtype = n.dtype(x)
    axes, keep = reduce_axes(n, x), n.flag("keepdims", True)
    if not dtype.is_float:
        x = n.cast(x, F64)
    if not axes:
        return n.cast(n.op(graph.Log, n.op(graph.Exp, x)), dtype)
    top = _reduce(n, x, "max", axes, True)
    finite = n.op(graph.Where, n.op(graph.IsInf, top), n.like(0.0, x), top)
    total = _reduce(n, n.op(graph.Exp, n.op(graph.Sub, x, finite)), "sum", axes, True)
    out = n.op(graph.Add, n.op(graph.Log, total), finite)
    if not keep:
        out = n.reshape(out, [d for i, d in enumerate(n.shape(out)) if i not in axes])
    return n.cast(out, dtype)


def _arg(kind: str) -> Callable[[Node], Value]:
    return lambda n: n.op(
        graph.ArgReduce,
        n.input(0),
        kind=kind,
        axis=n.axis(n.attr("axis", 0), n.rank(n.input(0))),
        keepdims=n.flag("keepdims", True),
        last=n.flag("select_last_index"),
    )


onnx_op("ArgMax")(_arg("max"))
onnx_op("ArgMin")(_arg("min"))


def _cumulative(cls: type[graph.Cumulative]) -> Callable[[Node], Value]:
    def handler(n: Node) -> Value:
        axes = n.ints(1, "axis")
        if len(axes) != 1:
            raise InputError(f"its axis must be one number, not {axes}")
        x = n.input(0)
        axis = n.axis(axes[0], n.rank(x))
        return n.op(cls, x, axis=axis, exclusive=n.flag("exclusive"), reverse=n.flag("reverse"))

    return handler


onnx_op("CumSum")(_cumulative(graph.Cumsum))
onnx_op("CumProd")(_cumulative(graph.Cumprod))


@onnx_op("TopK")
def top_k(n: Node) -> list[Value]:
    """k is an attribute before opset 10 and an operand since."""
    x = n.input(0)
    k = n.attr("k") if n.opset < 10 else n.ints(1, "k")[0]
    axis = n.axis(n.attr("axis", -1), n.rank(x))
    return list(n.ops(graph.TopK, x, k=k, axis=axis, largest=n.flag("largest", True), sorted=n.flag("sorted", True)))
