# SPDX-License-Identifier: Apache-2.0
"""What two readers of MLIR's generic form must agree on: op names, SSA edges, attribute names, blocks."""

from __future__ import annotations

from typing import Any

from tcc.ir.core import Op
from tcc.ir.printer import Printer


def shape(op: Op, numbers: dict[object, int] | None = None) -> list[object]:
    """Names, SSA edges as numbers, attribute names, block arguments and regions of an op, as nested lists."""
    seen = {} if numbers is None else numbers
    operands = [seen[v] for v in op.operands]
    shown = sorted(Printer().attributes(op))
    blocks = []
    for region in op.regions:
        for block in region.blocks:
            args = [seen.setdefault(a, len(seen)) for a in block.args]
            blocks.append([args, [shape(o, seen) for o in block.ops]])
    results = [seen.setdefault(r, len(seen)) for r in op.results]
    return [op.name, operands, results, shown, blocks]


def shape_of_xdsl(text: str) -> list[object]:
    """The same of what xDSL reads, unregistered dialects allowed."""
    from xdsl.context import Context
    from xdsl.dialects.builtin import Builtin
    from xdsl.parser import Parser

    context = Context(allow_unregistered=True)
    context.load_dialect(Builtin)
    seen: dict[object, int] = {}

    def walk(op: Any) -> list[object]:
        operands = [seen[v] for v in op.operands]
        attrs = dict(op.attributes)
        name = attrs.pop("op_name__").data if op.name == "builtin.unregistered" else op.name
        blocks = []
        for region in op.regions:
            for block in region.blocks:
                args = [seen.setdefault(a, len(seen)) for a in block.args]
                blocks.append([args, [walk(o) for o in block.ops]])
        results = [seen.setdefault(r, len(seen)) for r in op.results]
        return [name, operands, results, sorted(attrs), blocks]

    return walk(Parser(context, text).parse_module())


def count(tree: list[Any]) -> int:
    """Ops in what `shape` gives."""
    return 1 + sum(count(op) for _, ops in tree[4] for op in ops)
