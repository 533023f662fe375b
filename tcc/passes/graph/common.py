# SPDX-License-Identifier: Apache-2.0
"""What graph passes share: walking functions, reading and making constants, and small questions about values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from tcc.ir.core import Block, Op, Value
from tcc.ir.expr import Dim
from tcc.ir.graph import Constant, Func
from tcc.ir.graph.base import Array, GraphOp, dense, tensor_type
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import STRING, DType, TensorType, dtype_of

OpT = TypeVar("OpT", bound=Op)

RANDOM = frozenset(
    (
        "random_uniform",
        "random_normal",
        "random_uniform_like",
        "random_normal_like",
        "bernoulli",
        "multinomial",
        "dropout",
    )
)
"""Reference functions whose result differs from call to call: neither folded nor merged."""


def compute(op: type[GraphOp], *arrays: Array, **attrs: Any) -> Array:
    """What an op's only result is for operands of those values."""
    block = Block([dense(a.shape, dtype_of(a)) for a in arrays])
    return op(*block.args, **attrs).evaluate(*arrays)[0]


def functions(module: ModuleOp) -> list[Func]:
    """The graph functions of a module."""
    return [op for op in module.ops if isinstance(op, Func)]


def blocks(op: Op) -> Iterator[Block]:
    """Every block inside an op, outer ones first."""
    for region in op.regions:
        for block in region.blocks:
            yield block
            for inner in block.ops:
                yield from blocks(inner)


def module_of(op: Op) -> ModuleOp:
    """The module that holds an op."""
    at: Op | None = op
    while at is not None and not isinstance(at, ModuleOp):
        at = at.parent_op
    assert at is not None, f"{op.name} is in no module"
    return at


def content(value: Value | None) -> Array | None:
    """The array of a constant; None for any other value."""
    op = None if value is None else value.defining_op
    return op.array() if isinstance(op, Constant) else None


def is_constant(value: Value) -> bool:
    return isinstance(value.defining_op, Constant)


def splat(value: Value | None) -> float | int | bool | None:
    """The number that every element of a constant is; None if they differ, or it is no constant of numbers."""
    array = content(value)
    if array is None or array.size == 0 or dtype_of(array) is STRING:
        return None
    first = array.reshape(-1)[:1]
    if array.size > 1 and not bool(np.all(array == first)):
        return None
    return first[0].item() if array.dtype.kind in "biuf" else float(first[0])


def constant(rewriter: Rewriter, before: Op, array: Any, loc: Iterable[str] = ()) -> Value:
    """A constant inserted before an op."""
    array = np.asarray(array)
    store = module_of(before).resources
    result = dense(array.shape, dtype_of(array))
    return rewriter.insert_before(before, Constant(value=store.add(array), result_types=[result], loc=loc)).y


def number_like(rewriter: Rewriter, before: Op, value: float | int, dtype: DType, loc: Iterable[str] = ()) -> Value:
    """A 0-D constant of an element type."""
    return constant(rewriter, before, np.asarray(value).astype(dtype.numpy), loc)


def insert(rewriter: Rewriter, before: Op, op: OpT, loc: Iterable[str] | None = None) -> OpT:
    """Insert a detached op, by default with the loc of the op it stands before."""
    op.loc = before.loc if loc is None else tuple(loc)
    return rewriter.insert_before(before, op)


def only_user(value: Value) -> Op | None:
    """The op of a value's only use; None if there are none or several."""
    return value.uses[0][0] if value.use_count == 1 else None


def producer(value: Value | None, kind: type[OpT]) -> OpT | None:
    """The op of that class that makes a value; None if another does."""
    op = None if value is None else value.defining_op
    return op if isinstance(op, kind) else None


def shape_of(value: Value) -> tuple[Dim, ...]:
    return tensor_type(value).shape


def static_shape(value: Value) -> tuple[int, ...] | None:
    """The shape as ints; None if a dim is free."""
    t = tensor_type(value)
    return t.static_shape if t.is_static else None


def bytes_of(t: TensorType) -> int | None:
    """The bytes of a tensor; None if a dim is free."""
    n = t.nbytes
    return n if isinstance(n, int) else None


def arrays_by_field(op: GraphOp, arrays: Sequence[Array]) -> list[Array | None]:
    """Arrays of all operands as `evaluate` takes them: None where an optional operand is absent."""
    out: list[Array | None] = []
    at = 0
    for f, count in zip(op.spec.operands, op.segments, strict=True):
        if f.kind == "optional" and count == 0:
            out.append(None)
        out += arrays[at : at + count]
        at += count
    return out


def with_operands(op: GraphOp, *groups: Value | Sequence[Value] | None, **attrs: Any) -> GraphOp:
    """A detached op of the same class and attributes (those given changed) on other operands, its types inferred."""
    merged = {**op.attrs, **attrs}
    made = type(op)(*groups, loc=op.loc, **merged)
    assert isinstance(made, GraphOp)
    return made
