# SPDX-License-Identifier: Apache-2.0
"""Problems whose extents are arguments, and values to try them with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Sym, add
from tcc.ir.kernel import Func
from tcc.ir.kernel.symbols import bind, close
from tcc.ir.module import module
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import F16, F32, I32, I64
from tcc.passes.base import PassContext
from tcc.passes.lower.to_kernel import LowerToKernel
from tests.codegen.cuda import builders as b
from tests.codegen.cuda.problems import random_array
from tests.codegen.recurrences import Layer

P, Q = Sym("rows.count"), Sym("columns.count")


def _closed(func: Func) -> Func:
    close(func)
    return func


def problems() -> dict[str, Func]:
    """By name: from the builders, and from what graphs lower to."""
    made = {
        "map": b.pointwise((P, 5, Q), F32, order=(2, 0, 1), broadcast=True),
        "map f16": b.pointwise((3, P, 8), F16),
        "reduce": b.reduce((7, P, Q), (2,), F32, mean=False),
        "reduce all": b.reduce((P, 5), (0, 1), F32, combine="max"),
        "softmax": b.softmax(P, 33, F32),
        "softmax of symbols": b.softmax(7, Q, F16),
        "matmul": b.matmul((), P, 24, 40, F32, bias=True),
        "matmul of batches": b.matmul((P,), 5, 6, 7, F32, weights=False),
        "matmul of weights": b.matmul((P, 3), 5, 24, 7, F32, bias=True),
        "matmul of two symbols": b.matmul((Q,), P, 24, 7, F32, bias=True),
        "conv": b.conv(P, 7, 6, 1, 5, 18, 3, F32, pad=1, residual=True),
        "conv of groups": b.conv(P, 7, 6, 2, 4, 9, 3, F32, stride=2, layout="nchw"),
        "conv along symbols": b.conv(2, P, Q, 1, 5, 18, 3, F32, pad=1),
        "conv along symbols, channels first": b.conv(1, P, 9, 1, 5, 18, 3, F32, pad=1, layout="nchw"),
        "matmul along symbols": b.matmul((), 5, 6, Q, F32, weights=False),
        "attention": b.attention(1, 2, P, Q, 16, F32),
    }
    made |= {
        "lstm": Layer("lstm", P, Q, 6, reverse=True, lengths=I32, extra=True).func(),
        "gru": Layer("gru", P, 3, 17, given=True).func(),
        "rnn of sequences": Layer("rnn", 4, P, 5, F16).func(),
    }
    found = {name: _closed(f) for name, f in made.items()}
    for name, build in GRAPHS.items():
        for i, f in enumerate(lowered(build)):
            found[f"{name} {i}" if i else name] = f
    return found


def lowered(build: object) -> list[Func]:
    """The kernels of a graph whose inputs have extents that data decide."""
    block_types = [graph.dense((P, 8), F32), graph.dense((Q, 8), F32), graph.dense((P,), I64)]
    main = graph.func("main", [], [])
    host = main.block.append(graph.Host([], function="non_zero", given=(), types=tuple(block_types)))
    result = build(main.block, *host.results)  # type: ignore[operator]
    graph.finish(main, [result], ["y"])
    whole = module()
    whole.block.append(main)
    LowerToKernel().run(whole, Rewriter(), PassContext())
    return [op for op in whole.ops if isinstance(op, Func)]


def _op(block: object, op: object) -> Value:
    return block.append(op).results[0]  # type: ignore[attr-defined]


GRAPHS = {
    "concat": lambda k, x, y, i: _op(k, graph.Concat([x, y, x], axis=0)),
    "concat of columns": lambda k, x, y, i: _op(k, graph.Concat([x, x], axis=1)),
    "gather": lambda k, x, y, i: _op(k, graph.Gather(x, i, axis=0)),
    "slice": lambda k, x, y, i: _op(
        k, graph.Slice(x, starts=(add(P, -1), 2), sizes=(P, 3), steps=(-1, 2))
    ),
    "expand": lambda k, x, y, i: _op(k, graph.Expand(_op(k, graph.Reshape(x, shape=(P, 1, 8))), shape=(P, Q, 8))),
    "pad": lambda k, x, y, i: _op(k, graph.Pad(x, before=(2, 1), after=(3, 0), value=1.5)),
    "mean": lambda k, x, y, i: _op(k, graph.Reduce(x, kind="mean", axes=(0,), keepdims=False)),
    "layer norm": lambda k, x, y, i: _op(
        k, graph.RmsNorm(_op(k, graph.Reshape(x, shape=(8, P))), None, axis=1, epsilon=1e-3)
    ),
    "running sum": lambda k, x, y, i: _op(k, graph.Cumsum(x, axis=0, exclusive=True)),
    "first of columns": lambda k, x, y, i: _op(k, graph.TopK(x, k=3, axis=1)),
    "scatter": lambda k, x, y, i: _op(
        k, graph.ScatterNd(x, _op(k, graph.Reshape(i, shape=(P, 1))), x, reduction="add")
    ),
    "extents": lambda k, x, y, i: _op(k, graph.Dims(values=(P, add(P, Q), 3))),
}  # fmt: skip

SIZES: tuple[dict[str, int], ...] = ({"s0": 13, "s1": 5}, {"s0": 1, "s1": 70}, {"s0": 0, "s1": 3}, {"s0": 4, "s1": 0})


def sizes_of(func: Func) -> list[dict[str, int]]:
    """Values for a problem's symbols."""
    picked = [{s: values.get(s, 3) for s in func.symbols} for values in SIZES]
    return [v for i, v in enumerate(picked) if v not in picked[:i]]


def arrays_of(func: Func, symbols: Mapping[str, int], seed: int = 0) -> list[np.ndarray]:
    """Random operands."""
    rng = np.random.default_rng(seed)
    bound = bind(func, symbols)
    return [random_array(rng, t, 1 if t.dtype == I64 else None) for t in bound.arg_types]
