# SPDX-License-Identifier: Apache-2.0
"""Checks that IR is well formed: structure, declared fields, SSA dominance, terminators, and each op's own rules."""

from __future__ import annotations

from tcc.errors import TccError
from tcc.ir.core import Block, Op, Value
from tcc.ir.declare import IRError
from tcc.ir.types import OptionalType, SequenceType, TensorType, Type


def verify(op: Op) -> None:
    """IRError with one sentence about the first thing wrong in `op` or anything inside it."""
    _op(op, [])


def describe(op: Op) -> str:
    """`graph.conv at "Conv_12"`: how messages name an op."""
    return f'{op.name} at "{", ".join(op.loc)}"' if op.loc else op.name


def _op(op: Op, scopes: list[set[Value]]) -> None:
    spec = op.spec
    if len(op.segments) != len(spec.operands) or sum(op.segments) != len(op.operands):
        raise IRError(f"{describe(op)}: operand segments {op.segments} do not fit {len(op.operands)} operands")
    for field, count in zip(spec.operands, op.segments, strict=True):
        if (field.kind == "one" and count != 1) or (field.kind == "optional" and count > 1):
            raise IRError(f"{describe(op)}: operand {field.attr_name} takes {field.kind}, not {count}")
    fixed = sum(not r.variadic for r in spec.results)
    if len(op.results) < fixed or (len(op.results) > fixed and not any(r.variadic for r in spec.results)):
        raise IRError(f"{describe(op)}: it has {len(op.results)} results and declares {fixed}")
    fixed = sum(not r.variadic for r in spec.regions)
    if len(op.regions) < fixed or (len(op.regions) > fixed and not any(r.variadic for r in spec.regions)):
        raise IRError(f"{describe(op)}: it has {len(op.regions)} regions and declares {fixed}")
    for name, attr in spec.attrs.items():
        if name not in op.attrs:
            raise IRError(f"{describe(op)}: the attribute {name} is missing")
        attr.check(describe(op), op.attrs[name])
    for name in op.attrs:
        if name not in spec.attrs and "." not in name:
            raise IRError(f"{describe(op)}: there is no attribute {name}")
    for i, value in enumerate(op.operands):
        if scopes and not any(value in scope for scope in scopes):
            raise IRError(f"{describe(op)}: operand {i} is used before it is defined, or outside its region")
    isolated = getattr(type(op), "isolated", False)
    inner = [] if isolated else scopes
    for region in op.regions:
        if not region.blocks and getattr(type(op), "terminated_by", None) is not None:
            raise IRError(f"{describe(op)}: a region has no block")
        for block in region.blocks:
            _block(block, inner, op)
    try:
        op.verify()
        if type(op).infer is not Op.infer:
            _results(op)
    except IRError:
        raise
    except TccError as e:
        raise IRError(f"{describe(op)}: {e}") from e


def _results(op: Op) -> None:
    """Result types against what the op infers. Strides and alignment are later passes' to set, and two symbolic
    extents may be equal without looking so: element types, ranks and known extents are compared."""
    inferred = op.infer()
    if len(inferred) != len(op.results):
        raise IRError(f"{describe(op)}: it has {len(op.results)} results, and its operands give {len(inferred)}")
    for i, (want, result) in enumerate(zip(inferred, op.results, strict=True)):
        if not _compatible(want, result.type):
            raise IRError(f"{describe(op)}: result {i} is a {result.type}, but its operands and attributes give {want}")


def _compatible(a: Type, b: Type) -> bool:
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return a == b or (type(a) is type(b) and isinstance(a, SequenceType | OptionalType))
    if a.dtype != b.dtype or len(a.shape) != len(b.shape):
        return False
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a.shape, b.shape, strict=True))


def _block(block: Block, scopes: list[set[Value]], owner: Op) -> None:
    defined: set[Value] = set(block.args)
    inner = [*scopes, defined]
    for op in block.ops:
        if op.parent is not block:
            raise IRError(f"{describe(op)}: its parent is not the block that holds it")
        if getattr(type(op), "terminator", False) and op is not block.last:
            raise IRError(f"{describe(op)}: a terminator that is not the last op of its block")
        _op(op, inner)
        defined.update(op.results)
    wanted = getattr(type(owner), "terminated_by", None)
    if wanted is not None and (block.last is None or block.last.name != wanted):
        raise IRError(f"{describe(owner)}: its region must end in {wanted}")
