# SPDX-License-Identifier: Apache-2.0
"""`fold-constants`: ops on constants are computed while compiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tcc.errors import InputError
from tcc.ir.graph import Constant, Dims, Expand, Host, Reshape, Slice, Tile, Transpose
from tcc.ir.graph.base import Array, GraphOp, tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType, Type
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.graph.common import RANDOM, arrays_by_field, blocks, constant, content, functions


@register_pass
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes ops whose operands are all constants, with the ops' own `evaluate`.

    before: `%1 = graph.transpose(%w) {perm = [1, 0]}` of a constant; after: `%1 = graph.constant(...)`. A result of
    more than `max-bytes` that is also larger than the operands is declined, unless it is pointwise work on a tensor of
    as many elements (integer weights made wide: else every call would do it); and so is a rearrangement of more than
    `max-copy` bytes of a constant that is used as it is too; and an op with the attribute `tcc.keep`, which unpacks
    what is to stay packed; each with a remark.
    """

    name: ClassVar[str] = "fold-constants"
    max_bytes: int = 1 << 20
    max_copy: int = 16 << 20

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for function in functions(module):
            for block in list(blocks(function)):
                for op in block.ops:
                    if isinstance(op, GraphOp):
                        self._fold(op, rewriter)

    def _fold(self, op: GraphOp, rewriter: Rewriter) -> None:
        if op.regions or op.terminator or not op.results or isinstance(op, Constant):
            return
        if isinstance(op, Dims):
            if not all(isinstance(v, int) for v in op.values):
                return
        elif not op.operands or not all(isinstance(v.defining_op, Constant) for v in op.operands):
            return
        reason = self._declined(op)
        if reason is not None:
            rewriter.remark(op, "fold", "not folded", reason)
            return
        arrays = [a for a in (content(v) for v in op.operands) if a is not None]
        try:
            out = op.evaluate(*arrays_by_field(op, arrays))
        except (ValueError, IndexError, ZeroDivisionError, OverflowError) as e:
            raise InputError(f'{op.name} at "{", ".join(op.loc)}" cannot be computed: {str(e).rstrip(".")}') from None
        values = [
            constant(rewriter, op, _typed(a, r.type), op.loc) for a, r in zip(out, op.results, strict=True)
        ]  # fmt: skip
        rewriter.replace(op, values)

    def _declined(self, op: GraphOp) -> str | None:
        if isinstance(op, Host) and op.function in RANDOM:
            return f"{op.function} gives other values at every call"
        if isinstance(op, Host) and op.function == "refuse":
            return "it is an error, but only if its branch is taken"
        if op.attrs.get("tcc.keep"):
            return "its operand is the form to keep"
        types = [r.type for r in op.results]
        if not all(isinstance(t, TensorType) and t.is_static for t in types):
            return "what it gives is no tensor of known shape"
        size = sum(_bytes(t) for t in types)
        have = sum(_bytes(v.type) for v in op.operands)
        if size > self.max_bytes and size > have and not _keeps_elements(op):
            return f"its result of {size} bytes is larger than its operands"
        if isinstance(op, Transpose | Reshape | Slice | Expand | Tile) and size > self.max_copy:
            others = [u for u in op.x.users if u is not op and not _same(u, op)]
            if others:
                return f"its operand of {have} bytes is also used by {others[0].name}, so folding would store it twice"
        return None


def _keeps_elements(op: GraphOp) -> bool:
    """Whether an op is pointwise and one of its operands has as many elements as its result."""
    sizes = [v.type.size for v in op.operands if isinstance(v.type, TensorType)]
    return op.category == "pointwise" and tensor_type(op.results[0]).size in sizes


def _same(a: Any, b: GraphOp) -> bool:
    return a.name == b.name and a.attrs == b.attrs


def _bytes(t: Type) -> int:
    n = t.nbytes if isinstance(t, TensorType) else 0
    assert isinstance(n, int)
    return n


def _typed(array: Array, t: Type) -> Array:
    """The array as the result's type says (numpy widens some scalars)."""
    assert isinstance(t, TensorType)
    fitting: Sequence[int] = t.static_shape
    return np.ascontiguousarray(array.astype(t.dtype.numpy, copy=False)).reshape(fitting)
