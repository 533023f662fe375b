# SPDX-License-Identifier: Apache-2.0
"""Runs a lowered module in numpy: every kernel through the oracle, every host op as the runtime would.

Kernels get what the one before gave, rounded to its type, so a whole module is compared with the graph it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc import reference
from tcc.ir import kernel
from tcc.ir.core import Block, Op, Value
from tcc.ir.expr import Sym
from tcc.ir.expr import evaluate as eval_expr
from tcc.ir.kernel.evaluate import evaluate
from tcc.ir.kernel.symbols import bind
from tcc.ir.module import ModuleOp
from tcc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]


def run_kernels(module: ModuleOp, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a module after `lower-to-kernel`, by name."""
    host = next(op for op in module.ops if isinstance(op, kernel.Host))
    machine = _Machine(module)
    for name, arg in zip(host.arg_names, host.body.block.args, strict=True):
        machine.values[arg] = np.asarray(inputs[name])
    out = machine.run(host.body.block)
    return dict(zip(host.result_names, out, strict=True))


class _Machine:
    def __init__(self, module: ModuleOp) -> None:
        self.module = module
        self.kernels = {op.sym_name: op for op in module.ops if isinstance(op, kernel.Func)}
        self.values: dict[Value, Array] = {}
        self.symbols: dict[str, int] = {}

    def shape(self, t: TensorType) -> tuple[int, ...]:
        return tuple(int(eval_expr(d, self.symbols)) for d in t.shape)

    def run(self, block: Block) -> list[Array]:
        for op in block.ops:
            if isinstance(op, kernel.Return | kernel.Yield):
                return [self.values[v] for v in op.operands]
            for value, array in zip(op.results, self.execute(op), strict=True):
                t = value.type
                assert isinstance(t, TensorType)
                for d, extent in zip(t.shape, array.shape, strict=True):
                    if isinstance(d, Sym) and isinstance(op, kernel.HostCall | kernel.If):
                        self.symbols.setdefault(d.name, extent)
                assert array.shape == self.shape(t), f"{op.name}: {array.shape} and {t}"
                assert array.dtype == t.dtype.numpy, f"{op.name}: {array.dtype} and {t}"
                self.values[value] = array
        raise AssertionError("a block without an end")

    def execute(self, op: Op) -> list[Array]:
        operands = [self.values[v] for v in op.operands]
        if isinstance(op, kernel.Constant):
            return [np.asarray(self.module.resources.get(op.value))]
        if isinstance(op, kernel.LaunchOp):
            extents = {f"s{i}": int(eval_expr(e, self.symbols)) for i, e in enumerate(op.extents)}
            return self.launch(bind(self.kernels[op.callee], extents), operands)
        if isinstance(op, kernel.BindOp):
            self.symbols.update(zip(op.symbols, (int(operands[0][p]) for p in op.places), strict=True))
            return []
        if isinstance(op, kernel.ViewOp):
            t = op.y.type
            assert isinstance(t, TensorType)
            shape = self.shape(t)
            size = int(np.prod(shape, dtype=np.int64))
            flat = np.ascontiguousarray(operands[0]).reshape(-1)
            if flat.dtype != t.dtype.numpy:
                flat = reference.bit_cast(flat, to=t.dtype.numpy)
            return [flat[op.offset : op.offset + size].reshape(shape)]
        if isinstance(op, kernel.Assemble):
            t = op.y.type
            assert isinstance(t, TensorType)
            out = np.empty(t.static_shape, t.dtype.numpy)
            strides = t.dense_strides()
            assert list(op.offsets) == sorted(op.offsets)
            for part, offset in zip(operands, op.offsets, strict=True):
                start = offset // strides[op.axis]
                where = [slice(None)] * out.ndim
                where[op.axis] = slice(start, start + part.shape[op.axis])
                out[tuple(where)] = part
            return [out]
        if isinstance(op, kernel.If):
            region = op.then if bool(operands[0].reshape(-1)[0]) else op.otherwise
            return self.run(region.block)
        if isinstance(op, kernel.Loop):
            return self.loop(op, operands)
        assert isinstance(op, kernel.HostCall), op.name
        return self.host_call(op, operands)

    def loop(self, op: kernel.Loop, operands: list[Array]) -> list[Array]:
        trips = op.trips if op.trip is None else int(operands[0].reshape(()))
        carried = operands[op.trip is not None :]
        stacks: list[list[Array]] = [[] for _ in op.scanned]
        done = 0
        while (trips is None or done < trips) and (op.test < 0 or bool(carried[op.test].reshape(()))):
            self.values[op.iteration] = np.asarray(done, np.int64)
            self.values.update(zip(op.variables, carried, strict=True))
            given = self.run(op.body.block)
            carried = given[: len(carried)]
            for row, array in zip(stacks, given[len(carried) :], strict=True):
                row.append(array)
            done += 1
        empty = [np.zeros((0, *v.type.static_shape), v.type.dtype.numpy) for v in op.scanned]  # type: ignore[union-attr]
        return [*carried, *(np.stack(row) if row else e for row, e in zip(stacks, empty, strict=True))]

    def launch(self, func: kernel.Func, operands: list[Array]) -> list[Array]:
        for array, t in zip(operands, func.arg_types, strict=True):
            assert array.shape == t.static_shape, f"@{func.sym_name}: {array.shape} given, {t} taken"
            assert array.dtype == t.dtype.numpy, f"@{func.sym_name}: {array.dtype} given, {t} taken"
        results: list[Array] = []
        for expected, t in zip(evaluate(func, operands), func.result_types, strict=True):
            out = np.zeros(t.static_shape, t.dtype.numpy)
            written = np.zeros(t.static_shape, np.int64)
            np.add.at(written, expected.index, 1)
            assert (written == 1).all(), f"@{func.sym_name} does not write each element of {t} once"
            with np.errstate(all="ignore"):
                out[expected.index] = expected.value.astype(t.dtype.numpy).reshape(out[expected.index].shape)
            results.append(out)
        return results

    def host_call(self, op: kernel.HostCall, operands: list[Array]) -> list[Array]:
        given = op.attrs.get("kernel.given") or (True,) * len(operands)
        rest = iter(operands)
        args = [next(rest) if g else None for g in given]
        options = {k: v.numpy if isinstance(v, DType) else v for k, v in op.arguments.items()}
        out = getattr(reference, op.function)(*args, **options)
        many = out if isinstance(out, tuple) else (out,)
        return [np.asarray(a) for a in many[: len(op.results)]]
