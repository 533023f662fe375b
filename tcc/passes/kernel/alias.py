# SPDX-License-Identifier: Apache-2.0
"""`alias`: results that can be written where they are wanted, so that concats copy nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from tcc.ir.core import Op, Value
from tcc.ir.expr import Dim, Sym, mul, product
from tcc.ir.kernel import Assemble, Func, LaunchOp, Return, ViewOp
from tcc.ir.kernel.build import copying
from tcc.ir.kernel.problem import kernels_of
from tcc.ir.kernel.symbols import close, substitute_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType
from tcc.passes.base import Pass, PassContext, register_pass


@register_pass
@dataclass(frozen=True)
class Alias(Pass):
    """Gives the parts of a concat strided types inside its result; parts that cannot be written in place are copied.

    before: `%y = kernel.assemble(%a, %b)`, `%a` dense from `@k0`; after: `%a`'s type, the result type of `@k0` and the
    types at the other users of `%a` have the strides of `%y`. A part that is an input, a constant, or in another
    concat already gets a copying kernel, with a remark.
    """

    name: ClassVar[str] = "alias"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        kernels = {f.sym_name: f for f in kernels_of(module)}
        assembles = [op for op in module.walk() if isinstance(op, Assemble)]
        placed: set[Value] = set()
        for op in reversed(assembles):
            y = op.y.type
            assert isinstance(y, TensorType)
            # The result may have got strides of its own inside a concat that takes it.
            offsets = _offsets(op, y)
            if offsets != op.offsets:
                rewriter.set_attr(op, "offsets", offsets)
            for i, (part, offset) in enumerate(zip(op.parts, offsets, strict=True)):
                t = part.type
                assert isinstance(t, TensorType)
                strides = y.element_strides
                align = math.gcd(y.align, offset * t.dtype.bytes) or y.align
                view = _strided(t, strides, align)
                reason = _why_not(part, view, op, kernels, placed)
                if reason is None:
                    chain = _chain(part)
                    placed.update(chain)
                    _restride(part, view, kernels)
                    rewriter.changed = True
                    rewriter.remark(op, "alias", "in place", f"part {i} is written where the concat wants it")
                else:
                    copy = _copy(part, view, op, module, rewriter, len(kernels))
                    kernels[copy.callee] = module.functions()[copy.callee]  # type: ignore[assignment]
                    rewriter.set_operand(op, i, copy.results[0])
                    placed.add(copy.results[0])
                    rewriter.remark(op, "alias", "copied", f"part {i} is copied: {reason}")


def _offsets(op: Assemble, y: TensorType) -> tuple[int, ...]:
    """Where each part starts in the result, in elements of the memory that the result's strides span."""
    stride = y.element_strides[op.axis]
    assert isinstance(stride, int)
    out: list[int] = []
    at = 0
    for part in op.parts:
        out.append(at * stride)
        assert isinstance(part.type, TensorType)
        extent = part.type.shape[op.axis]
        assert isinstance(extent, int), "the parts of an assemble have known places"
        at += extent
    return tuple(out)


def _chain(v: Value) -> list[Value]:
    """v and what it is a reshape of."""
    out = [v]
    op = v.defining_op
    while isinstance(op, ViewOp):
        out.append(op.x)
        op = op.x.defining_op
    return out


def _why_not(part: Value, view: TensorType, at: Op, kernels: dict[str, Func], placed: set[Value]) -> str | None:
    """Why a part cannot lie inside the result, or None."""
    chain = _chain(part)
    root = chain[-1].defining_op
    if root is None:
        return "it is an input of the model or of a loop's body"
    if isinstance(root, Assemble):
        pass
    elif not isinstance(root, LaunchOp):
        return f"it comes from {root.name}"
    if any(v in placed for v in chain):
        return "it lies inside another concat"
    if any(isinstance(v.defining_op, ViewOp) and _is_part(v.defining_op) for v in chain):
        return "it is a part of a larger tensor"
    if root.parent is not at.parent:
        return "it comes from another block"
    return _users_refuse(part, view, kernels, set())


def _is_part(op: ViewOp) -> bool:
    """Whether a view leaves elements out, at the end if not at the beginning."""
    x, y = op.x.type, op.y.type
    assert isinstance(x, TensorType) and isinstance(y, TensorType)
    return op.offset != 0 or product(x.shape) != product(y.shape)


def _users_refuse(v: Value, t: TensorType, kernels: dict[str, Func], seen: set[Value]) -> str | None:
    """Why some op around v cannot take it with strides, or None."""
    if v in seen:
        return None
    seen.add(v)
    assemblies = 0
    for user, _ in v.uses:
        if isinstance(user, Return):
            return "it is an output of the model"
        if isinstance(user, Assemble):
            assemblies += 1
            if assemblies > 1:
                return "two concats use it"
            continue
        if isinstance(user, LaunchOp):
            continue
        if isinstance(user, ViewOp):
            inner = user.y.type
            assert isinstance(inner, TensorType)
            moved = view_strides(t, inner.shape) if user.offset == 0 else None
            if moved is None:
                return f"a reshape of it to {inner} would not be a view"
            reason = _users_refuse(user.y, _strided(inner, moved, t.align), kernels, seen)
            if reason is not None:
                return reason
            continue
        return f"{user.name} needs it dense"
    op = v.defining_op
    if isinstance(op, ViewOp):
        inner = op.x.type
        assert isinstance(inner, TensorType)
        moved = view_strides(t, inner.shape)
        if moved is None:
            return f"its producer writes {inner}, which would not be a view"
        return _users_refuse(op.x, _strided(inner, moved, t.align), kernels, seen)
    return None


def _restride(v: Value, t: TensorType, kernels: dict[str, Func]) -> None:
    """Give v, everything that is a view of it, and the kernels around it, their strides."""
    if v.type == t:
        return
    v.type = t
    for user, index in v.uses:
        if isinstance(user, LaunchOp):
            kernels[user.callee].body.block.args[index].type = _inside(user, t)
        elif isinstance(user, ViewOp):
            inner = user.y.type
            assert isinstance(inner, TensorType)
            moved = view_strides(t, inner.shape)
            assert moved is not None
            _restride(user.y, _strided(inner, moved, t.align), kernels)
    op = v.defining_op
    if isinstance(op, ViewOp):
        inner = op.x.type
        assert isinstance(inner, TensorType)
        moved = view_strides(t, inner.shape)
        assert moved is not None
        _restride(op.x, _strided(inner, moved, t.align), kernels)
    elif isinstance(op, LaunchOp):
        place = op.results.index(v)  # type: ignore[arg-type]
        kernels[op.callee].body.block.terminator.operands[place].type = _inside(op, t)


def _inside(launch: LaunchOp, t: TensorType) -> TensorType:
    """A type as the kernel of a launch sees it, over its own symbols."""
    env: dict[str, Dim] = {e.name: Sym(f"s{i}") for i, e in enumerate(launch.extents) if isinstance(e, Sym)}
    out = substitute_type(t, env)
    assert isinstance(out, TensorType)
    return out


def _strided(t: TensorType, strides: tuple[Dim, ...], align: int) -> TensorType:
    """t with strides, which are left out where they are the dense ones."""
    dense = all(d == 1 or a == b for d, a, b in zip(t.shape, strides, t.dense_strides(), strict=True))
    return t.with_(strides=None if dense else strides, align=align)


def view_strides(t: TensorType, shape: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """The strides of t seen in another shape without moving an element, or None if it cannot be."""
    old = [(d, s) for d, s in zip(t.shape, t.element_strides, strict=True) if d != 1]
    out: list[Dim] = []
    i = 0
    for d in _runs(shape, [d for d, _ in old]):
        mine, theirs = d
        part = old[i : i + theirs]
        i += theirs
        for (d0, s0), (d1, s1) in pairwise(part):
            if s0 != mul(s1, d1):
                return None
            assert d0 != 1
        step: Dim = part[-1][1] if part else 1
        strides: list[Dim] = []
        for extent in reversed(mine):
            strides.append(step)
            step = mul(step, extent)
        out += reversed(strides)
    return tuple(out)


def _runs(shape: Sequence[Dim], old: Sequence[Dim]) -> list[tuple[list[Dim], int]]:
    """The new dims in runs, each with the number of old (non-unit) dims that it equals in product."""
    out: list[tuple[list[Dim], int]] = []
    i = 0
    run: list[Dim] = []
    taken = 0
    have: Dim = 1
    want: Dim = 1
    for d in shape:
        run.append(d)
        have = mul(have, d)
        while have != want and i < len(old) and _less(want, have):
            want = mul(want, old[i])
            i += 1
            taken += 1
        if have == want:
            out.append((run, taken))
            run, taken, have, want = [], 0, 1, 1
    if run or i < len(old):
        out.append((run, taken + len(old) - i))
    return out


def _less(a: Dim, b: Dim) -> bool:
    return not (isinstance(a, int) and isinstance(b, int)) or a < b


def _copy(part: Value, view: TensorType, at: Assemble, module: ModuleOp, rewriter: Rewriter, number: int) -> LaunchOp:
    """A launch before `at` of a kernel that copies `part` into a strided result."""
    t = part.type
    assert isinstance(t, TensorType)
    made = copying(f"c{number}", t, view)
    made.loc = at.loc
    extents = close(made)
    host = at
    while host.parent_op is not module and host.parent_op is not None:
        host = host.parent_op  # type: ignore[assignment]
    rewriter.insert_before(host, made)
    return rewriter.insert_before(
        at, LaunchOp([part], callee=made.sym_name, extents=extents, result_types=[view], loc=at.loc)
    )
