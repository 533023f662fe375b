# SPDX-License-Identifier: Apache-2.0
"""`precision`: tensors in 16 bits, or TF32 in contractions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from tcc.ir.core import Block, Op, Value
from tcc.ir.graph import Cast, Constant
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.graph.function import main_function
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import BF16, F16, F32, DType, TensorType
from tcc.passes.base import Pass, PassContext, register_pass

_LARGEST = {"f16": 65504.0, "bf16": 3.3895313892515355e38}
_THROUGH = ("pointwise", "index")


@register_pass
@dataclass(frozen=True)
class Precision(Pass):
    """Stores f32 tensors in 16 bits; kernels still compute and accumulate in f32, and so do the statistics of softmax
    and norms. With tf32 types stay, and contractions may round their operands to TF32.

    Model inputs and outputs keep their types, and so do values that decide integers (indices, lengths), host ops,
    control flow, and ops with constants that 16 bits would lose. Constants beyond the range (masks) are clamped to it.

    before: `%1 = graph.matmul(%0, %w) : (tensor<4x8xf32>, …)`; after: `%a = graph.cast(%0) {to = f16}`,
    `%1 = graph.matmul(%a, %w16) : (tensor<4x8xf16>, …)`.
    """

    name: ClassVar[str] = "precision"
    to: Literal["f16", "bf16", "tf32"] = "f16"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        if self.to == "tf32":
            for op in module.walk():
                if isinstance(op, GraphOp) and op.category == "contraction" and op.operand_type(0).dtype == F32:
                    rewriter.set_attr(op, "tcc.allow", ("tf32",))
            return
        function = main_function(module)
        narrow = _Narrow(module, rewriter, F16 if self.to == "f16" else BF16)
        narrow.exact = deciding_values(function.walk())
        narrow.block(function.block)


def deciding_values(ops: Iterable[Op]) -> set[Value]:
    """Float values that pointwise and index ops carry into casts to integers, from where they were computed."""
    found: set[Value] = set()
    for op in ops:
        if isinstance(op, Cast) and not op.to.is_float and tensor_type(op.operands[0]).dtype.is_float:
            work = [op.operands[0]]
            while work:
                v = work.pop()
                made = v.defining_op
                if v in found or not tensor_type(v).dtype.is_float:
                    continue
                found.add(v)
                if isinstance(made, GraphOp) and made.category in _THROUGH:
                    work += made.operands
    return found


class _Narrow:
    def __init__(self, module: ModuleOp, rewriter: Rewriter, to: DType) -> None:
        self.module = module
        self.rewriter = rewriter
        self.to = to
        self.exact: set[Value] = set()
        self.casts: dict[tuple[Value, DType], Value] = {}
        self.narrowed: set[Value] = set()
        """Values that this pass made 16 bits wide."""

    def block(self, block: Block) -> None:
        for op in block.ops:
            assert isinstance(op, GraphOp)
            for region in op.regions:
                for inner in region.blocks:
                    self.block(inner)
            if isinstance(op, Constant):
                continue
            reason = self.reason_to_keep(op)
            if reason is None:
                self.narrow(op)
            else:
                self.keep(op)
                if reason:
                    self.rewriter.remark(op, "precision", "f32", reason)

    def reason_to_keep(self, op: GraphOp) -> str | None:
        """Why an op stays in f32; empty where nobody wonders, None if it does not stay."""
        if op.category == "control" or op.terminator:
            return ""
        if op.category == "opaque":
            return "it has no kernel in 16 bits"
        if any(r in self.exact for r in op.results):
            return "integers are made of its result"
        floats = [r for r in op.results if tensor_type(r).dtype == F32]
        if not floats and not any(tensor_type(v).dtype == F32 for v in op.operands):
            return ""
        for v in op.operands:
            if isinstance(v.defining_op, Constant) and tensor_type(v).dtype == F32 and self.loses(v.defining_op):
                return f"{self.to} would lose a constant of it"
        return None

    def loses(self, op: Constant) -> bool:
        """Whether a single number would be more than 1% off in 16 bits (an epsilon, say)."""
        if tensor_type(op.y).size != 1:
            return False
        value = float(op.array().reshape(()))
        if value == 0 or not np.isfinite(value) or abs(value) > _LARGEST[self.to.name]:
            return False
        rounded = float(np.asarray(value).astype(self.to.numpy))
        return abs(rounded - value) > 0.01 * abs(value)

    def narrow(self, op: GraphOp) -> None:
        if isinstance(op, Cast) and op.to == F32:
            self.rewriter.set_attr(op, "to", self.to)
        for i, v in enumerate(op.operands):
            if tensor_type(v).dtype == F32 and not isinstance(op, Cast):
                self.rewriter.set_operand(op, i, self.as_type(v, self.to, op))
        self.retype(op)

    def keep(self, op: GraphOp) -> None:
        """Give the op f32 operands again."""
        for i, v in enumerate(op.operands):
            if isinstance(v.type, TensorType) and v.type.dtype == self.to and v in self.narrowed:
                self.rewriter.set_operand(op, i, self.as_type(v, F32, op))

    def retype(self, op: GraphOp) -> None:
        for r, t in zip(op.results, op.infer(), strict=True):
            if r.type != t:
                r.type = t
                self.narrowed.add(r)
                self.rewriter.changed = True

    def as_type(self, v: Value, to: DType, user: Op) -> Value:
        """v in another type: a constant converted, anything else cast right where it is made."""
        key = (v, to)
        if key in self.casts:
            return self.casts[key]
        made = v.defining_op
        if isinstance(made, Constant):
            limit = _LARGEST[self.to.name]
            array = made.array()
            finite = np.isfinite(array)
            clamped = np.where(finite, np.clip(array, -limit, limit), array)
            value = self.module.resources.add(clamped.astype(to.numpy))
            t = tensor_type(v).with_(dtype=to)
            new: Value = self.rewriter.insert_after(made, Constant(value=value, result_types=[t], loc=made.loc)).y
        else:
            cast = Cast(v, to=to, loc=() if made is None else made.loc)
            if made is not None:
                new = self.rewriter.insert_after(made, cast).y
            else:
                owner = v.owner
                assert isinstance(owner, Block) and owner.first is not None
                new = self.rewriter.insert_before(owner.first, cast).y
        new.hint = v.hint
        if to == self.to:
            self.narrowed.add(new)
        self.casts[key] = new
        return new
