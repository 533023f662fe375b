# SPDX-License-Identifier: Apache-2.0
"""ONNX operators whose output shapes data decide: the host computes them, and their extents are symbols."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, product
from tcc.ir.types import I64


@onnx_op("Unique")
def unique(n: Node) -> Sequence[Value]:
    """All but the inverse have one extent: how many values there are."""
    x = n.input(0)
    shape = n.shape(x)
    count = n.importer.names.fresh(f"{n.loc}_count")
    attributes: dict[str, int] = {"sorted": n.attr("sorted", 1)}
    values: list[Dim] = [count]
    rows = product(shape)
    if n.has("axis"):
        axis = attributes["axis"] = n.axis(n.attr("axis"), len(shape))
        rows = shape[axis]
        values = [count if i == axis else d for i, d in enumerate(shape)]
    types = (graph.dense(values, n.dtype(x)), *(graph.dense((d,), I64) for d in (count, rows, count)))
    used = max((i + 1 for i, o in enumerate(n.proto.output) if o), default=1)
    return n.ops(graph.Host, [x], function="unique", attributes=attributes, given=(1,), types=types[:used])
