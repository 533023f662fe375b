# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of host values lie: every value is a part of one root, which has memory of its own."""

from __future__ import annotations

from dataclasses import dataclass

from tcc.ir.core import Block, BlockArgument, Op, Value
from tcc.ir.kernel import Assemble, Constant, Host, If, LaunchOp, Loop, Pack, ViewOp
from tcc.ir.types import TensorType, on_host


@dataclass(frozen=True)
class Storage:
    """`offset` bytes into the memory of `root`: an input, a constant, an argument of a loop's body (a loop's carried
    results lie where the variables of its body do), or a result that is no part of another."""

    root: Value
    offset: int = 0


def resolve(host: Host) -> dict[Value, Storage]:
    """The storage of every tensor of a host function."""
    inside: dict[Value, tuple[Value, int]] = {}
    for op in host.walk():
        if isinstance(op, Assemble):
            for part, offset in zip(op.parts, op.offsets, strict=True):
                inside[_root_of_views(part)] = (op.y, offset * _bytes(op.y))
        elif isinstance(op, Loop):
            inside.update((op.results[i], (v, 0)) for i, v in enumerate(op.variables))
        elif isinstance(op, If):
            for region in (op.then, op.otherwise):
                for v, r in zip(region.block.terminator.operands, op.results, strict=True):
                    root = _root_of_views(v)
                    if root not in inside and _made_for(root, v, r, region.block):
                        inside[root] = (r, 0)
    found: dict[Value, Storage] = {}

    def find(v: Value) -> Storage:
        known = found.get(v)
        if known is not None:
            return known
        op = v.defining_op
        if v in inside:
            whole, offset = inside[v]
            outer = find(whole)
            found[v] = Storage(outer.root, outer.offset + offset)
        elif isinstance(op, ViewOp):
            outer = find(op.x)
            assert isinstance(op.offset, int)
            found[v] = Storage(outer.root, outer.offset + op.offset * _bytes(op.x))
        else:
            found[v] = Storage(v)
        return found[v]

    for op in host.walk():
        for region in op.regions:
            for a in region.block.args:
                find(a)
        for r in op.results:
            find(r)
    return found


def _root_of_views(v: Value) -> Value:
    op = v.defining_op
    return _root_of_views(op.x) if isinstance(op, ViewOp) else v


def _made_for(root: Value, v: Value, result: Value, block: Block) -> bool:
    """Whether a branch's kernel may write what it yields where the result of the branch lies."""
    made = root.defining_op
    if not isinstance(made, LaunchOp) or made.parent is not block or not is_static(root) or not is_static(result):
        return False
    dense = all(isinstance(x.type, TensorType) and x.type.strides is None for x in (root, v, result))
    whole = not isinstance(v.defining_op, ViewOp) or v.defining_op.offset == 0
    return dense and whole and size_of(root) == size_of(v) == size_of(result)


def _bytes(v: Value) -> int:
    assert isinstance(v.type, TensorType)
    return v.type.dtype.bytes


def is_planned(root: Value) -> bool:
    """Whether a root needs memory on the device (inputs and constants have their own)."""
    if on_host(root.type):
        return False
    if isinstance(root, BlockArgument):
        return isinstance(maker(root), Loop)
    return not isinstance(root.defining_op, Constant | Pack)


def maker(v: Value) -> Op:
    """The op that makes a value: for an argument of a body the op that has the body."""
    if isinstance(v, BlockArgument):
        region = v.block.parent
        assert region is not None and region.parent is not None
        return region.parent
    assert v.defining_op is not None
    return v.defining_op


def is_static(v: Value) -> bool:
    """Whether a value is a tensor on the device whose extents are all known."""
    return isinstance(v.type, TensorType) and v.type.is_static and not on_host(v.type)


def size_of(v: Value) -> int:
    """Bytes of a dense tensor with known extents."""
    assert isinstance(v.type, TensorType)
    n = v.type.nbytes
    assert isinstance(n, int), f"{v.type} has free dims"
    return n
