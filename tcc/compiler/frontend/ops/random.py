# SPDX-License-Identifier: Apache-2.0
"""ONNX random operators. A seed gives the same numbers at every call, drawn when compiling and held as constants;
without one every call draws fresh ones on the host, which has a source of them. What follows them is compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tcc import reference
from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim
from tcc.ir.types import BOOL, F32, F64, I32, I64, DType

MOST_HELD = 1 << 26
"""Numbers of a seed that are held as a constant; more are drawn at every call, the same ones."""


def draw(
    n: Node, kind: str, shape: Sequence[Dim], dtype: DType, first: float, second: float, like: Value | None = None
) -> Value:
    """Numbers of `shape`: "uniform" between two bounds, or "normal" with a mean and a deviation."""
    names = ("low", "high") if kind == "uniform" else ("mean", "scale")
    options = dict(zip(names, (float(first), float(second)), strict=True))
    seed = n.attr("seed", None)
    extents = tuple(d for d in shape if isinstance(d, int))
    known = len(extents) == len(shape)
    if known and seed is not None and math.prod(extents) <= MOST_HELD:
        made = getattr(reference, f"random_{kind}")(shape=extents, dtype=dtype.numpy, seed=seed, **options)
        return n.constant(np.asarray(made), dtype)
    attributes = {**options, "dtype": dtype, **({} if seed is None else {"seed": float(seed)})}
    types = (graph.dense(tuple(shape), dtype),)
    why = "numbers that differ from call to call" if seed is None else "the numbers of a seed, too many to hold"
    n.importer.decisions.add("import", "host", f"onnx.{n.proto.op_type}", "host call", why, loc=(n.loc,))
    if known:
        function, operands = f"random_{kind}", []
        attributes["shape"] = extents
    else:
        assert like is not None
        function, operands = f"random_{kind}_like", [like]
    (value,) = n.ops(
        graph.Host, operands, function=function, attributes=attributes, given=(1,) * len(operands), types=types
    )
    return value


def _dtype(n: Node, default: DType) -> DType:
    given = n.attr("dtype", None)
    return default if given is None else element_type(given, "its result")


def _import(kind: str, names: tuple[str, str], defaults: tuple[float, float], like: bool) -> None:
    def handler(n: Node) -> Value:
        x = n.input(0) if like else None
        shape: Sequence[Dim] = n.shape(x) if x is not None else [int(d) for d in n.attr("shape")]
        dtype = _dtype(n, F32 if x is None else n.dtype(x))
        if not dtype.is_float:
            raise InputError(f"its numbers cannot be {dtype}; give it a float dtype")
        first, second = (float(n.attr(name, value)) for name, value in zip(names, defaults, strict=True))
        return draw(n, kind, shape, dtype, first, second, x)

    onnx_op(f"Random{kind.capitalize()}{'Like' if like else ''}")(handler)


for _like in (False, True):
    _import("uniform", ("low", "high"), (0.0, 1.0), _like)
    _import("normal", ("mean", "scale"), (0.0, 1.0), _like)


@onnx_op("Bernoulli")
def bernoulli(n: Node) -> Value:
    """1 where a uniform number in [0, 1) is below x."""
    f = Formula(n)
    x = n.input(0)
    wide = f.wide(x)
    drawn = draw(n, "uniform", n.shape(x), n.dtype(wide), 0.0, 1.0, wide)
    return n.cast(f.less(drawn, wide), _dtype(n, n.dtype(x)))


@onnx_op("Multinomial")
def multinomial(n: Node) -> Value:
    """How many edges of the classes' cumulative probabilities a uniform number reaches."""
    f = Formula(n)
    x, samples = n.cast(n.input(0), F64), int(n.attr("sample_size", 1))
    if n.rank(x) != 2:
        raise InputError(f"x is {n.type(n.input(0))}, and [batch, classes] is needed")
    batch, classes = f.static(x)
    dtype = element_type(n.attr("dtype", 6), "its result")
    if dtype not in (I32, I64):
        raise InputError(f"its classes cannot be {dtype}; ONNX has int32 and int64")
    edges = n.op(graph.Cumsum, n.op(graph.Softmax, x, axis=1), axis=1)
    drawn = n.reshape(draw(n, "uniform", (batch, samples), F64, 0.0, 1.0), (batch, samples, 1))
    reached = n.cast(f.at_most(n.reshape(edges, (batch, 1, classes)), drawn), I64)
    return n.cast(f.least(f.reduce(reached, "sum", 2), classes - 1), dtype)


@onnx_op("Dropout")
def dropout(n: Node) -> list[Value | None]:
    """Inference: the identity, and a mask of ones. Training (opset 12): elements dropped with probability `ratio`, the
    others divided by what is left."""
    f = Formula(n)
    x = n.input(0)
    mode = n.optional(2)
    if mode is None or not bool(n.const(2, "training_mode").reshape(-1)[0]):
        return _kept(n, x)
    ratio = n.optional(1)
    known = n.known(ratio)
    if known is not None and float(known.reshape(-1)[0]) == 0.0:
        return _kept(n, x)
    wide = f.wide(x)
    dtype = n.dtype(wide)
    share: Value | float = 0.5 if ratio is None else n.cast(n.reshape(ratio, ()), dtype)
    drawn = draw(n, "uniform", n.shape(x), dtype, 0.0, 1.0, wide)
    mask = f.at_most(share, drawn)
    left = n.like(1.0 - share, wide) if isinstance(share, float) else f.sub(1.0, share)
    return [n.cast(f.where(mask, f.div(wide, left), 0.0), n.dtype(x)), mask]


def _kept(n: Node, x: Value) -> list[Value | None]:
    if not n.uses(1):
        return [x]
    one = n.constant(1, BOOL if n.opset >= 10 else n.dtype(x))
    return [x, n.op(graph.Expand, one, shape=n.shape(x))]
