# SPDX-License-Identifier: Apache-2.0
"""Rewrites a block in 16 bits, op by op: a value has the form its maker gave it, and is cast to the other on demand."""

from __future__ import annotations

from collections.abc import Callable

from tcc.ir.core import Block, Op, Value
from tcc.ir.graph import Attention, Cast, Clip, Constant
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import F32, DType, TensorType
from tcc.passes.graph.common import constant, content, insert
from tcc.passes.graph.precision.rules import (
    ALWAYS,
    float_operands,
    largest,
    narrowed,
    returned_only,
    wide_reason,
)


class Narrower:
    """Rewrites the f32 tensors of a block and its regions. Outer values, and what regions give, keep their types."""

    def __init__(self, dtype: DType, rewriter: Rewriter, kept: Callable[[Op], bool]) -> None:
        self.dtype = dtype
        self.rewriter = rewriter
        self.kept = kept

    def run(self, block: Block) -> None:
        _Block(self, block).run()


class _Block:
    def __init__(self, owner: Narrower, block: Block) -> None:
        self.owner = owner
        self.dtype = owner.dtype
        self.rewriter = owner.rewriter
        self.block = block
        self.narrow: dict[Value, Value] = {}
        """f32 value → its 16-bit form."""
        self.wide: dict[Value, Value] = {}
        """16-bit value made here → its f32 form."""
        self.low: set[Value] = set()
        """f32 values as they were, whose maker now gives 16 bits."""
        self.replaced: list[Op] = []

    def run(self) -> None:
        for op in list(self.block.ops):
            if isinstance(op, Constant) or not isinstance(op, GraphOp):
                continue
            for region in op.regions:
                self.outer(op)
                self.owner.run(region.block)
            if not op.regions:
                self.one(op)
        for op in reversed(self.replaced):
            assert not any(r.use_count for r in op.results), f"{op.name} is still used in f32"
            self.rewriter.erase(op)
        for v in self.wide.values():
            if v.use_count == 0 and v.defining_op is not None:
                self.rewriter.erase(v.defining_op)

    def outer(self, op: Op) -> None:
        """Values from this block that the regions of an op use are used in f32."""
        for inner in op.walk():
            for i, v in enumerate(inner.operands):
                if v in self.low:
                    self.rewriter.set_operand(inner, i, self.as_wide(v, op))

    def one(self, op: GraphOp) -> None:
        results = [r for r in op.results if isinstance(r.type, TensorType) and tensor_type(r).dtype is F32]
        if not results and not float_operands(op, F32):
            return
        kept = self.owner.kept(op)
        if not results and not kept and self.reads_low(op):
            for i, v in enumerate(op.operands):
                if isinstance(v.type, TensorType) and tensor_type(v).dtype is F32:
                    self.rewriter.set_operand(op, i, self.as_narrow(v, op, mask=False))
            return
        reason = self.reason(op) if results and len(results) == len(op.results) else "it gives no f32 tensor"
        if kept:
            reason = "keep_f32 names it"
        if reason is None:
            self.lower(op)
            return
        for i, v in enumerate(op.operands):
            if v in self.low:
                self.rewriter.set_operand(op, i, self.as_wide(v, op))
        if results:
            self.rewriter.remark(op, "precision", "f32", reason)

    def reads_low(self, op: GraphOp) -> bool:
        """Whether a comparison or a cast reads 16-bit tensors: then it reads all in 16 bits, as a rounded number equals
        none that is not."""
        if op.regions or wide_reason(op) is not None:
            return False
        floats = [op.operands[i] for i in float_operands(op, F32)]
        if not any(v in self.low for v in floats) or any(self.is_wide(v) for v in floats):
            return False
        return all(self.narrow_constant(v, op) is not None for v in op.operands if self.is_f32_constant(v))

    def is_wide(self, v: Value) -> bool:
        """Whether a value that is no constant was made here, in f32."""
        return v.defining_op is not None and v not in self.low and v.defining_op.parent is self.block

    def reason(self, op: GraphOp) -> str | None:
        """Why an op stays in f32, or None."""
        why = wide_reason(op)
        if why is not None:
            return why
        if any(self.narrow_constant(v, op) is None for v in op.operands if self.is_f32_constant(v)):
            return f"{self.dtype} does not hold one of its constants"
        if op.name in ALWAYS:
            return None
        floats = float_operands(op, F32)
        constants = any(self.is_f32_constant(v) for v in op.operands)
        if not floats and not constants:
            return "it comes from numbers that are no 16-bit floats"
        if any(self.is_wide(op.operands[i]) for i in floats):
            return "an operand is in f32"
        if returned_only(op) and op.category in ("rows", "pointwise", "reduction"):
            return "it gives an output of the model"
        return None

    def is_f32_constant(self, v: Value) -> bool:
        return isinstance(v.defining_op, Constant) and tensor_type(v).dtype is F32

    def narrow_constant(self, v: Value, at: Op) -> Value | None:
        """A constant in 16 bits, made once; None if it does not bear that."""
        if v not in self.narrow:
            array = content(v)
            assert array is not None
            small = narrowed(array, self.dtype)
            if small is None:
                return None
            source = v.defining_op
            first = source if source is not None and source.parent is self.block else at
            self.narrow[v] = constant(self.rewriter, first, small, at.loc if source is None else source.loc)
        return self.narrow[v]

    def lower(self, op: GraphOp) -> None:
        """The op on 16-bit operands; the casts that it needs stand before it."""
        operands: list[Value] = []
        for i, v in enumerate(op.operands):
            if not isinstance(v.type, TensorType) or tensor_type(v).dtype is not F32:
                operands.append(v)
            else:
                mask = isinstance(op, Attention) and i == 3
                operands.append(self.as_narrow(v, op, mask))
        groups: list[object] = []
        at = 0
        for f, count in zip(op.spec.operands, op.segments, strict=True):
            part = operands[at : at + count]
            groups.append(part if f.kind == "variadic" else part[0] if part else None)
            at += count
        attrs = {**op.attrs, "to": self.dtype} if isinstance(op, Cast) else op.attrs
        made = type(op)(*groups, **attrs)  # type: ignore[arg-type]
        insert(self.rewriter, op, made)
        self.replaced.append(op)
        for old, new in zip(op.results, made.results, strict=True):
            new.hint = old.hint
            self.narrow[old] = new
            self.low.add(old)
            self.wide[old] = insert(self.rewriter, op, Cast(new, to=F32)).y
            for user, index in old.uses:
                # Users are rewritten when they are reached; those outside of the block take the f32 form now.
                if user.parent is not self.block or not isinstance(user, GraphOp) or user.terminator:
                    self.rewriter.set_operand(user, index, self.wide[old])

    def as_narrow(self, v: Value, at: Op, mask: bool) -> Value:
        """The 16-bit form of an f32 value; of a mask, with what is below the least finite number clamped to that."""
        if self.is_f32_constant(v):
            made = self.narrow_constant(v, at)
            assert made is not None
            return made
        if v not in self.narrow:
            source = v
            if mask:
                source = insert(self.rewriter, at, Clip(v, lo=-largest(self.dtype))).y
            small = insert(self.rewriter, at, Cast(source, to=self.dtype)).y
            if mask:
                return small
            self.narrow[v] = small
        return self.narrow[v]

    def as_wide(self, v: Value, at: Op) -> Value:
        return self.wide[v]
