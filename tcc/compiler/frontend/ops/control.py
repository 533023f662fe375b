# SPDX-License-Identifier: Apache-2.0
"""ONNX control flow as regions."""

from __future__ import annotations

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Region, Value
from tcc.ir.expr import Dim
from tcc.ir.types import BOOL, I64, TensorType


@onnx_op("If")
def conditional(n: Node) -> list[Value]:
    """A known condition imports its branch in place; otherwise both become regions."""
    condition = n.input(0)
    known = n.known(condition)
    if known is not None:
        if known.size != 1:
            raise InputError(f"its condition has {known.size} elements, and one is needed")
        return n.importer.subgraph(n.attr("then_branch" if bool(known.reshape(-1)[0]) else "else_branch"), {})
    regions: list[Region] = []
    for name in ("then_branch", "else_branch"):
        block = Block()
        with n.builder.into(block):
            values = n.importer.subgraph(n.attr(name), {})
        block.append(graph.Yield(values))
        regions.append(Region(block))
    op = graph.If(condition, regions=regions, loc=n.builder.loc)
    return list(n.builder.block.append(op).results)


@onnx_op("Loop")
def loop(n: Node) -> list[Value]:
    """Carried values whose extents change in the body get fresh symbols for those extents."""
    trip, condition = n.optional(0), n.optional(1)
    carried = [n.input(i) for i in range(2, len(n.values))]
    body = n.attr("body")
    if len(body.input) != len(carried) + 2:
        raise InputError(f"its body takes {len(body.input)} values and {len(carried) + 2} are given")
    types = [n.type(v) for v in carried]
    for _ in range(4):
        block = Block([graph.dense((), I64), graph.dense((), BOOL), *types])
        with n.builder.into(block):
            arguments = dict(zip((i.name for i in body.input), block.args, strict=True))
            values = n.importer.subgraph(body, arguments)
        block.append(graph.Yield(values))
        after = [n.type(v) for v in values[1 : 1 + len(carried)]]
        joined = [_joined(n, a, b) for a, b in zip(types, after, strict=True)]
        if joined == types:
            op = graph.Loop(trip, condition, carried, regions=[Region(block)], loc=n.builder.loc)
            return list(n.builder.block.append(op).results)
        types = joined
        _drop(block)
    raise InputError("the extents of its carried values do not settle")


def _joined(n: Node, before: TensorType, after: TensorType) -> TensorType:
    if before.dtype != after.dtype or before.rank != after.rank:
        raise InputError(f"its body turns a carried {before} into {after}")
    # A symbol made for this loop already stands for "any extent".
    shape: list[Dim] = [
        a if a == b or str(a).startswith("loop_") else n.importer.names.fresh(f"loop_{n.loc}")
        for a, b in zip(before.shape, after.shape, strict=True)
    ]
    return graph.dense(shape, before.dtype)


def _drop(block: Block) -> None:
    for op in list(block.ops):
        for inner in op.walk():
            inner.drop_operands()
