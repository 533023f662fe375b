# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of host values lie: every value is a part of one root, which has memory of its own."""

from __future__ import annotations

from dataclasses import dataclass

from tcc.ir.core import BlockArgument, Value
from tcc.ir.kernel import Assemble, Constant, Host, Pack, ViewOp
from tcc.ir.types import TensorType, on_host


@dataclass(frozen=True)
class Storage:
    """`offset` bytes into the memory of `root`: an input, a constant, or a result that is no part of another."""

    root: Value
    offset: int = 0


def resolve(host: Host) -> dict[Value, Storage]:
    """The storage of every tensor of a host function."""
    inside: dict[Value, tuple[Value, int]] = {}
    for op in host.walk():
        if isinstance(op, Assemble):
            for part, offset in zip(op.parts, op.offsets, strict=True):
                inside[_root_of_views(part)] = (op.y, offset * _bytes(op.y))
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

    for region in host.regions:
        for a in region.block.args:
            find(a)
    for op in host.walk():
        for r in op.results:
            find(r)
    return found


def _root_of_views(v: Value) -> Value:
    op = v.defining_op
    return _root_of_views(op.x) if isinstance(op, ViewOp) else v


def _bytes(v: Value) -> int:
    assert isinstance(v.type, TensorType)
    return v.type.dtype.bytes


def is_planned(root: Value) -> bool:
    """Whether a root needs memory on the device (inputs and constants have their own)."""
    has_own = isinstance(root, BlockArgument) or isinstance(root.defining_op, Constant | Pack)
    return not has_own and not on_host(root.type)


def is_static(v: Value) -> bool:
    """Whether a value is a tensor on the device whose extents are all known."""
    return isinstance(v.type, TensorType) and v.type.is_static and not on_host(v.type)


def size_of(v: Value) -> int:
    """Bytes of a dense tensor with known extents."""
    assert isinstance(v.type, TensorType)
    n = v.type.nbytes
    assert isinstance(n, int), f"{v.type} has free dims"
    return n
