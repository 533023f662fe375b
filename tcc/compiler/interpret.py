# SPDX-License-Identifier: Apache-2.0
"""Runs a graph module in numpy, op by op: the oracle that whole compilations are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.compiler.frontend.builder import by_field
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Block, Op, Value
from tcc.ir.expr import Expr, Sym, substitute
from tcc.ir.module import ModuleOp
from tcc.ir.types import STRING, DType, TensorType

Array = np.ndarray[Any, Any]


def interpret(
    program: ModuleOp | graph.Func, inputs: Mapping[str, Any] | Sequence[Any], wide: DType | None = None
) -> dict[str, Array]:
    """Outputs by name of a graph function on inputs (by name, or in order).

    `wide` (F64) makes floats of inputs and constants that type first, for a result without rounding. InputError if an
    input is missing, or of another type or shape than the function takes.
    """
    func = graph.main_function(program) if isinstance(program, ModuleOp) else program
    given = dict(zip(func.arg_names, inputs, strict=True)) if not isinstance(inputs, Mapping) else dict(inputs)
    machine = _Machine(wide)
    for name, arg in zip(func.arg_names, func.block.args, strict=True):
        if name not in given:
            raise InputError(f'the input "{name}" is missing')
        machine.bind(name, arg, given[name])
    out = machine.run(func.block)
    return dict(zip(func.result_names, out, strict=True))


class _Machine:
    def __init__(self, wide: DType | None) -> None:
        self.wide = wide
        self.values: dict[Value, Array] = {}
        self.symbols: dict[str, int] = {}

    def bind(self, name: str, arg: Value, given: Any) -> None:
        t = arg.type
        if not isinstance(t, TensorType):
            self.values[arg] = given
            return
        array = np.asarray(given)
        if t.dtype != STRING and array.dtype != t.dtype.numpy:
            raise InputError(f'the input "{name}" is {array.dtype}, and {t.dtype.numpy} is taken')
        if array.ndim != t.rank or any(
            isinstance(d, int) and d != n for d, n in zip(t.shape, array.shape, strict=True)
        ):
            raise InputError(f'the input "{name}" has the shape {list(array.shape)}, and {t} is taken')
        self.learn(arg, array)
        self.values[arg] = self.widened(array)

    def learn(self, value: Value, array: Array) -> None:
        """Symbols that stand alone in a value's shape take the extents of its array."""
        if isinstance(value.type, TensorType):
            for d, extent in zip(value.type.shape, array.shape, strict=True):
                if isinstance(d, Sym):
                    if self.symbols.get(d.name, extent) != extent and value is not None:
                        self._contradiction(d, extent)
                    self.symbols[d.name] = extent

    def _contradiction(self, symbol: Sym, extent: int) -> None:
        raise InputError(f"the free dim {symbol} is {self.symbols[symbol.name]} in one place and {extent} in another")

    def widened(self, array: Array) -> Array:
        if (
            self.wide is None
            or not isinstance(array, np.ndarray | np.generic)
            or array.dtype == object
            or array.dtype.kind in "iub"
            or array.dtype.itemsize >= 8
        ):
            return array
        from tcc.ir.types import dtype_of

        return array.astype(self.wide.numpy) if dtype_of(array).is_float else array

    def run(self, block: Block) -> list[Array]:
        """Run a block; the arrays of its terminator's operands."""
        for op in block.ops:
            if getattr(type(op), "terminator", False):
                return [self.values[v] for v in op.operands]
            results = self.execute(op)
            for value, array in zip(op.results, results, strict=True):
                self.values[value] = array
                self.learn(value, array)
        raise InputError("a block ends without a terminator")

    def execute(self, op: Op) -> Sequence[Array]:
        if isinstance(op, graph.If):
            taken = bool(self.values[op.condition].reshape(-1)[0])
            return self.run(op.then.block if taken else op.orelse.block)
        if isinstance(op, graph.Loop):
            return self.loop(op)
        if isinstance(op, graph.Group):
            block = op.regions[0].block
            for arg, value in zip(block.args, op.operands, strict=True):
                self.values[arg] = self.values[value]
            return self.run(block)
        if isinstance(op, graph.Bind):
            self.symbols.update(zip(op.symbols, (int(self.values[op.x][p]) for p in op.places), strict=True))
            return []
        if not isinstance(op, graph.GraphOp):
            raise InputError(f"{op.name} is no graph op, and cannot be interpreted")
        arrays = by_field(op, [self.values[v] for v in op.operands])
        results = self.bound(op).evaluate(*arrays)
        return [self.widened(r) for r in results] if isinstance(op, graph.Constant) else results

    def bound(self, op: graph.GraphOp) -> graph.GraphOp:
        """The op with free dims in its attributes replaced by their numbers: a twin that no value knows of."""
        if not any(_has_symbols(v) for v in op.attrs.values()):
            return op
        twin = type(op).create([], (), [], {k: self._numbers(v) for k, v in op.attrs.items()}, [], op.loc)
        twin._operands = list(op.operands)  # pyright: ignore[reportPrivateUsage]
        twin.segments, twin.parent, twin.results = op.segments, op.parent, op.results
        assert isinstance(twin, graph.GraphOp)
        return twin

    def _numbers(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._numbers(v) for v in value)
        return substitute(value, self.symbols) if isinstance(value, Expr) else value

    def loop(self, op: graph.Loop) -> Sequence[Array]:
        trips = None if op.trip is None else int(self.values[op.trip].reshape(-1)[0])
        going = True if op.condition is None else bool(self.values[op.condition].reshape(-1)[0])
        carried = [self.values[v] for v in op.carried]
        scanned: list[list[Array]] = [[] for _ in range(len(op.results) - len(carried))]
        block = op.body.block
        i = 0
        outer = set(self.symbols)
        while going and (trips is None or i < trips):
            # Every iteration gives what the body makes extents of its own.
            self.symbols = {s: extent for s, extent in self.symbols.items() if s in outer}
            starts = [np.asarray(i, np.int64), np.asarray(going), *carried]
            for arg, array in zip(block.args, starts, strict=True):
                self.values[arg] = array
                if isinstance(arg.type, TensorType):
                    for d, extent in zip(arg.type.shape, array.shape, strict=True):
                        if isinstance(d, Sym):
                            self.symbols[d.name] = extent
            going_array, *rest = self.run(block)
            going = bool(going_array.reshape(-1)[0])
            carried = rest[: len(carried)]
            for row, array in zip(scanned, rest[len(carried) :], strict=True):
                row.append(array)
            i += 1
        stacked: list[Array] = []
        for row, result in zip(scanned, op.results[len(carried) :], strict=True):
            t = graph.tensor_type(result)
            empty = np.zeros((0, *(d if isinstance(d, int) else 0 for d in t.shape[1:])), t.dtype.numpy)
            stacked.append(np.stack(row) if row else empty)
        return [*carried, *stacked]


def _has_symbols(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_has_symbols(v) for v in value)
    return isinstance(value, Expr)
