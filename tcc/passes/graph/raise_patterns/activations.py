# SPDX-License-Identifier: Apache-2.0
"""Activations by value: gelu, swish, hard swish, hard sigmoid, mish, sigmoid, softplus, in any spelling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.graph.base import Array, GraphOp
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.common import compute
from tcc.passes.graph.raise_patterns.cone import Cone, cone, elementwise, ends, sources

SIGNS = frozenset(
    f"graph.{n}" for n in ("erf", "tanh", "sigmoid", "clip", "relu", "exp", "hard_sigmoid", "softplus", "min", "max")
)  # fmt: skip
"""Every spelling has one of these ops."""
POINTS: Array = np.concatenate([np.linspace(-12, 12, 193), [-30.0, 30.0, 1e-3, -1e-3]])
FARTHEST = 5

_EXACT = ("sigmoid", "softplus")
"""Functions without constants that exporters round."""

Make = Callable[[Value], GraphOp]
_KNOWN: list[tuple[str, Array, Make]] = [
    ("gelu", compute(graph.Gelu, POINTS), graph.Gelu),
    ("gelu", compute(graph.Gelu, POINTS, approximate="tanh"), lambda x: graph.Gelu(x, approximate="tanh")),
    ("swish", compute(graph.Swish, POINTS), graph.Swish),
    ("swish", compute(graph.Swish, POINTS, alpha=1.702), lambda x: graph.Swish(x, alpha=1.702)),
    ("hard_swish", compute(graph.HardSwish, POINTS), graph.HardSwish),
    ("mish", compute(graph.Mish, POINTS), graph.Mish),
    ("sigmoid", compute(graph.Sigmoid, POINTS), graph.Sigmoid),
    ("softplus", compute(graph.Softplus, POINTS), graph.Softplus),
]


def raise_activation(op: Op, rewriter: Rewriter) -> None:
    """Looks for an activation around one of its telling ops."""
    if op.name not in SIGNS or not elementwise(op):
        return
    starts = list(sources(op, elementwise, FARTHEST))
    cones = [
        c for root in ends(op, elementwise, FARTHEST) for x in starts
        if x.type == root.type and (c := cone(root, x, elementwise)) is not None and len(c.ops) > 1 and op in c.ops
    ]  # fmt: skip
    for found in sorted(cones, key=lambda c: -len(c.ops)):
        made = _recognised(found)
        if made is None:
            continue
        name, make = made
        if found.closed(rewriter, name):
            rewriter.remark(op, "raise", name, f"{len(found.ops)} ops compute it")
            last = found.root.owner
            assert isinstance(last, Op)
            rewriter.replace(last, make(found.x))
            _erase(found, last, rewriter)
        return


def _recognised(found: Cone) -> tuple[str, Make] | None:
    try:
        y = found.evaluate(POINTS.reshape(-1))
    except ValueError:
        return None
    if y.shape != POINTS.shape:
        return None
    for name, values, make in _KNOWN:
        if np.allclose(y, values, rtol=2e-6, atol=2e-7) and (name not in _EXACT or _alike_at_ends(y, values)):
            return name, make
    return _hard_sigmoid(y)


def _alike_at_ends(y: Array, values: Array) -> bool:
    """Whether two functions stay as far from 0 and from 1: a clip or a small addend that keeps a logarithm finite is
    no part of a sigmoid."""
    return all(np.allclose(a, b, rtol=2e-6, atol=1e-14) for a, b in ((y, values), (1 - y, 1 - values)))


def _hard_sigmoid(y: Array) -> tuple[str, Make] | None:
    """min(1, max(0, a·x + b)) of some slope and offset."""
    if not (np.isfinite(y).all() and y.min() == 0 and y.max() == 1):
        return None
    rising = (y > 0) & (y < 1)
    if rising.sum() < 3:
        return None
    x = POINTS[rising]
    a = float((y[rising][-1] - y[rising][0]) / (x[-1] - x[0])) if x[-1] != x[0] else 0.0
    b = float(y[rising][0] - a * x[0])
    if not np.allclose(y, np.clip(a * POINTS + b, 0, 1), rtol=1e-6, atol=1e-7):
        return None
    return "hard_sigmoid", lambda v: graph.HardSigmoid(v, alpha=round(a, 12), beta=round(b, 12))


def _erase(found: Cone, last: Op, rewriter: Rewriter) -> None:
    """Erase what computed the root: nothing else uses it."""
    for op in reversed(found.ops):
        if op is not last and op.parent is not None and not any(r.use_count for r in op.results):
            rewriter.erase(op)
