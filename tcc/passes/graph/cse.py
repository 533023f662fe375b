# SPDX-License-Identifier: Apache-2.0
"""`cse`: ops that compute the same become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from tcc.ir.core import Block, Op
from tcc.ir.expr import Dim, Sym, symbols
from tcc.ir.graph import Host
from tcc.ir.graph.base import GraphOp
from tcc.ir.graph.symbols import given
from tcc.ir.kernel.symbols import substitute_attribute, substitute_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import RANDOM, functions
from tcc.passes.symbols import rename_symbols

COMMUTATIVE = frozenset(
    f"graph.{n}" for n in ("add", "mul", "min", "max", "and", "or", "xor", "equal", "bitwise_and", "bitwise_or",
                           "bitwise_xor")
)  # fmt: skip

Key = tuple[object, ...]


@register_pass
@dataclass(frozen=True)
class Cse(Pass):
    """Replaces an op by an earlier one of the same kind, operands and attributes that is in sight.

    before: `%1 = graph.exp(%0)`, `%2 = graph.exp(%0)`, `%3 = graph.add(%1, %2)`; after: `%3 = graph.add(%1, %1)`.
    Commutative ops match in either order; random ones never do, with a remark. Of two ops that give symbols (a NonZero
    of one tensor, say) those of the later one become those of the earlier.
    """

    name: ClassVar[str] = "cse"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            _merge(function.block, [], rewriter, function)


def _merge(block: Block, scopes: list[dict[Key, Op]], rewriter: Rewriter, root: Op) -> None:
    seen: dict[Key, Op] = {}
    scopes = [*scopes, seen]
    for op in block.ops:
        for region in op.regions:
            outer = [] if getattr(type(op), "isolated", False) else scopes
            for inner in region.blocks:
                _merge(inner, outer, rewriter, root)
        if not isinstance(op, GraphOp) or not op.pure or op.regions or not op.results:
            continue
        own = _own(op)
        key = _key(op, own)
        earlier = next((s[key] for s in scopes if key in s), None)
        if earlier is None:
            seen[key] = op
        elif isinstance(op, Host) and op.function in RANDOM:
            rewriter.remark(op, "cse", "kept", f"{op.function} gives other values at every call")
        else:
            if own:
                rename_symbols(root, dict(zip(own, _own(earlier), strict=True)))
            rewriter.replace(op, earlier)


def _own(op: Op) -> list[str]:
    """The symbols that an op gives, in the order of its results."""
    mine = given(op)
    found = [s for r in op.results if isinstance(r.type, TensorType) for d in r.type.shape for s in sorted(symbols(d))]
    return [s for s in dict.fromkeys(found) if s in mine]


def _key(op: GraphOp, own: Sequence[str]) -> Key:
    operands = [id(v) for v in op.operands]
    if op.name in COMMUTATIVE:
        operands.sort()
    # The symbols that an op gives are its own, whatever they are called.
    env: dict[str, Dim] = {s: Sym(f"own.{i}") for i, s in enumerate(own)}
    attrs = substitute_attribute(op.attrs, env) if env else op.attrs
    types = tuple(substitute_type(r.type, env) for r in op.results)
    return (op.name, tuple(operands), op.segments, text(attrs), types)


def text(value: Any) -> str:
    """An attribute as text that differs where the attribute does: so do 1, 1.0 and true, and 0.0 and -0.0."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{" + ",".join(f"{k}:{text(v)}" for k, v in sorted(items)) + "}"
    if isinstance(value, tuple):
        return "(" + ",".join(text(v) for v in cast("tuple[Any, ...]", value)) + ")"
    return f"{type(value).__name__}:{value!r}"
