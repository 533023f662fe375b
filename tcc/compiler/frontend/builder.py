# SPDX-License-Identifier: Apache-2.0
"""Appends graph ops and folds, while importing, what small constants and shapes decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tcc.compiler.frontend.deciding import Deciding
from tcc.compiler.frontend.symbolic import evaluate_symbolic, is_symbolic, settle
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.attributes import Resource
from tcc.ir.core import Block, Op, Value
from tcc.ir.expr import Sym
from tcc.ir.graph.symbols import is_needed
from tcc.ir.module import ModuleOp
from tcc.ir.types import I64, TensorType, Type, dtype_of

Array = np.ndarray[Any, Any]

FOLD_ELEMENTS = 1 << 16
"""Constants larger than this (operands and results of an op together) are left to the folding pass."""

_UNSET = Resource("")


class Builder:
    """Appends ops to `block` under `loc`. `known` holds the content of every constant value: a numpy array, or an
    object array of ints and expressions over the free dims."""

    def __init__(self, block: Block) -> None:
        self.top = block
        self.block = block
        self.loc: tuple[str, ...] = ()
        self.known: dict[Value, Array] = {}
        self.deciding = Deciding(self.known)
        self.bound: dict[tuple[object, ...], list[Sym]] = {}
        """Symbols that graph.bind has made of a value in a block."""
        self.in_file: set[Value] = set()
        """Constants whose content the model file holds."""
        self._last_initialiser: Op | None = None

    @contextmanager
    def into(self, block: Block) -> Iterator[Block]:
        """Append to another block for a while."""
        before, self.block = self.block, block
        try:
            yield block
        finally:
            self.block = before

    @contextmanager
    def at(self, *loc: str) -> Iterator[None]:
        """Give ops another loc for a while."""
        before, self.loc = self.loc, loc
        try:
            yield
        finally:
            self.loc = before

    def emit(self, cls: type[Op], *operands: Value | Sequence[Value] | None, **attrs: Any) -> tuple[Value, ...]:
        """The results of a new op, or of what it folds to."""
        op = cls(*operands, loc=self.loc, **attrs)
        folded = self._fold(op)
        if folded is None:
            return self.block.append(op).results
        types = [r.type for r in op.results]
        op.drop_operands()
        return tuple(self.constant(a, t) for a, t in zip(folded, types, strict=True))

    def constant(self, array: Array, type: Type | None = None) -> Value:
        """A constant at the current place; an object array of expressions becomes graph.dims."""
        array = settle(array)
        if is_symbolic(array):
            return self._dims(array, type)
        wanted = type.dtype if isinstance(type, TensorType) else dtype_of(array)
        if array.dtype != wanted.numpy:
            array = array.astype(wanted.numpy)
        return self._place(array, None)

    def initialiser(self, array: Array) -> Value:
        """A constant that the model file holds, at the top of the function."""
        value = self._place(array, self.top)
        self.in_file.add(value)
        return value

    def _place(self, array: Array, top: Block | None) -> Value:
        result = graph.dense(array.shape, dtype_of(array))
        op = graph.Constant.create([], (), [], {"value": _UNSET}, [result], self.loc if top is None else ())
        if top is None:
            self.block.append(op)
        else:
            anchor = top.first if self._last_initialiser is None else self._last_initialiser.next_op
            top.insert_before(op, anchor)
            self._last_initialiser = op
        self.known[op.results[0]] = array
        return op.results[0]

    def _dims(self, array: Array, type: Type | None) -> Value:
        flat = tuple(v if not hasattr(v, "item") else v.item() for v in array.ravel())
        value: Value = self.block.append(graph.Dims(values=flat, loc=self.loc)).result
        if array.ndim != 1:
            value = self.block.append(graph.Reshape(value, shape=array.shape, loc=self.loc)).result
        if isinstance(type, TensorType) and type.dtype != I64:
            value = self.block.append(graph.Cast(value, to=type.dtype, loc=self.loc)).result
        self.known[value] = array
        return value

    def _fold(self, op: Op) -> Sequence[Array] | None:
        if not isinstance(op, graph.GraphOp) or op.regions or not op.results or isinstance(op, graph.Host):
            return None
        arrays: list[Array] = []
        total = 0
        for v in op.operands:
            array = self.known.get(v)
            if array is None:
                return None
            arrays.append(array)
            total += array.size
        for r in op.results:
            size = r.type.size if isinstance(r.type, TensorType) else None
            if not isinstance(size, int):
                return None
            total += size
        if total > FOLD_ELEMENTS or not op.operands:
            return None
        if any(is_symbolic(a) for a in arrays):
            out = evaluate_symbolic(op, arrays)
            return None if out is None else [out]
        return compute(op, by_field(op, arrays))

    def finish(self, module: ModuleOp) -> frozenset[str]:
        """Erase what nothing uses and give constants their resources; the hashes of those the model file holds."""
        erase_unused(self.top)
        held: set[str] = set()
        for root in list(self.top.ops):
            for op in root.walk():
                if isinstance(op, graph.Constant) and op.value is _UNSET:
                    op.value = module.resources.add(self.known[op.y])
                    if op.y in self.in_file:
                        held.add(op.value.sha256)
        return frozenset(held)


def compute(op: graph.GraphOp, arrays: Sequence[Array | None]) -> Sequence[Array]:
    """The results of an op on arrays as `by_field` gives them; InputError where it has none."""
    try:
        return op.evaluate(*arrays)
    except (ValueError, IndexError, ZeroDivisionError) as e:
        raise InputError(f"it cannot be computed: {e}") from None


def by_field(op: Op, arrays: Sequence[Array]) -> list[Array | None]:
    """Arrays of all operands as `evaluate` takes them: None where an optional operand is absent."""
    out: list[Array | None] = []
    at = 0
    for f, count in zip(op.spec.operands, op.segments, strict=True):
        if f.kind == "optional" and count == 0:
            out.append(None)
        out += arrays[at : at + count]
        at += count
    return out


def erase_unused(block: Block) -> None:
    """Erase pure ops whose results nothing uses, in the block and its regions."""
    op = block.last
    while op is not None:
        before = op.prev_op
        used = any(r.use_count for r in op.results)
        if not used and isinstance(op, graph.GraphOp) and op.pure and not is_needed(op):
            op.erase()
        else:
            for region in op.regions:
                for inner in region.blocks:
                    erase_unused(inner)
        op = before
