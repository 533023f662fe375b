# SPDX-License-Identifier: Apache-2.0
"""A trial: one candidate as a one-problem engine, and the inputs and expected outputs it is checked with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.compiler.emit_engine import build_engine
from tcc.compiler.emitted import emit
from tcc.compiler.engine_writer import to_bytes
from tcc.compiler.phases.pack_constants import PackConstants
from tcc.compiler.search.enumerate import Candidate
from tcc.ir.core import Block, Region, Value
from tcc.ir.kernel import Assemble, Constant, Func, Host, LaunchOp, Return, ViewOp
from tcc.ir.kernel.evaluate import Expected, evaluate
from tcc.ir.kernel.problem import canonical
from tcc.ir.module import ModuleOp, module
from tcc.ir.resources import ResourceStore
from tcc.ir.rewriter import Rewriter
from tcc.ir.targets import Target
from tcc.ir.types import TensorType
from tcc.passes.base import PassContext
from tcc.passes.kernel.plan_memory import PlanMemory

Array = np.ndarray[Any, Any]
POINTS = 4000


@dataclass
class Case:
    """A problem with data: `operands` as the kernel's arguments see them, `inputs` the data of those that
    are no constants, flat, and what must come out."""

    func: Func
    operands: list[Array]
    inputs: dict[str, Array]
    expected: list[Expected]


def span(t: TensorType) -> int:
    """Elements from the first to the last of a tensor that may be strided."""
    if 0 in t.static_shape:
        return 0
    return 1 + sum((d - 1) * int(s) for d, s in zip(t.static_shape, t.element_strides, strict=True))  # type: ignore[arg-type]


def make_case(func: Func, seed: int = 0, points: int = POINTS) -> Case:
    """Seeded data for a problem: normal floats, indices in range, fair bools."""
    rng = np.random.default_rng(zlib.crc32(f"{func.sym_name}|{seed}".encode()))
    limits = _index_limits(func)
    operands: list[Array] = []
    inputs: dict[str, Array] = {}
    for i, t in enumerate(func.arg_types):
        flat = _random(t, span(t), limits.get(i), rng)
        view = np.lib.stride_tricks.as_strided(
            flat,
            t.static_shape,
            [int(s) * t.dtype.bytes for s in t.element_strides],  # type: ignore[arg-type]
        )
        operands.append(view)
        if not func.is_const(i):
            inputs[f"x{i}"] = flat
    return Case(func, operands, inputs, evaluate(func, operands, points, seed))


def _index_limits(func: Func) -> dict[int, int]:
    """For operands that are used as indices, the smallest extent that they index."""
    limits: dict[int, int] = {}
    args = list(func.body.block.args)
    for anchor in func.anchors():
        for value, access in zip(anchor.operands, anchor.maps, strict=True):
            shape = value.type.static_shape if isinstance(value.type, TensorType) else ()
            for e, extent in zip(access.results, shape, strict=True):
                for s in _indirect(e):
                    source = anchor.operands[int(s[1:])]
                    if source in args:
                        at = args.index(source)  # type: ignore[arg-type]
                        limits[at] = min(limits.get(at, extent), extent)
    return limits


def _indirect(e: Any) -> list[str]:
    from tcc.ir.expr import symbols

    return [s for s in symbols(e) if s.startswith("$")]


def _random(t: TensorType, count: int, limit: int | None, rng: np.random.Generator) -> Array:
    d = t.dtype
    if d.kind == "bool":
        return rng.integers(0, 2, count).astype(d.numpy)
    if d.is_int:
        return rng.integers(0, limit if limit is not None else 8, count).astype(d.numpy)
    return rng.standard_normal(count).astype(d.numpy)


def trial_module(func: Func, candidate: Candidate, case: Case, target: Target) -> ModuleOp:
    """A module that runs one kernel once, scheduled with the candidate and planned."""
    m = module(target.name)
    store = ResourceStore()
    m.resources = store
    kernel = canonical(func)
    kernel.attrs.update(sym_name="k0", template=candidate.template.name, config=dict(candidate.config))
    kernel.attrs["derived"] = dict(emit(kernel, target).derived)
    m.block.append(kernel)
    block = Block()
    operands: list[Value] = []
    names: list[str] = []
    for i, t in enumerate(func.arg_types):
        if func.is_const(i):
            value = np.ascontiguousarray(case.operands[i])
            operands.append(block.append(Constant(value=store.add(value), result_types=[t])).y)
            continue
        names.append(f"x{i}")
        flat = TensorType((span(t),), t.dtype)
        arg = block.add_arg(flat if t.strides is not None else t)
        operands.append(arg if t.strides is None else block.append(ViewOp(arg, result_types=[t])).y)
    launch = block.append(LaunchOp(operands, callee="k0", result_types=list(func.result_types)))
    out: list[Value] = []
    for r, t in zip(launch.results, func.result_types, strict=True):
        flat = TensorType((span(t),), t.dtype)
        whole = Assemble([r], axis=0, offsets=(0,), result_types=[flat])
        out.append(r if t.strides is None else block.append(whole).y)
    block.append(Return(out))
    m.block.append(
        Host(
            regions=[Region(block)], result_types=[], arg_names=tuple(names),
            result_names=tuple(f"y{i}" for i in range(len(out))),
        )
    )  # fmt: skip
    context = PassContext(target=target, resources=store)
    for p in (PackConstants(), PlanMemory()):
        p.run(m, Rewriter(p.name, context.decisions), context)
    return m


def trial_engine(func: Func, candidate: Candidate, case: Case, target: Target) -> bytes:
    """The one-problem engine of a candidate; CompileError (a FailureError) if it does not compile."""
    return to_bytes(build_engine(trial_module(func, candidate, case, target), target, "trial"))


def flat_inputs(func: Func, case: Case) -> dict[str, Array]:
    """The engine's inputs: dense ones in their shape, strided ones flat."""
    out: dict[str, Array] = {}
    for i, t in enumerate(func.arg_types):
        if not func.is_const(i):
            out[f"x{i}"] = case.inputs[f"x{i}"] if t.strides is not None else np.ascontiguousarray(case.operands[i])
    return out


def as_result(flat: Array, t: TensorType) -> Array:
    """A result as the kernel sees it, from the engine's output."""
    if t.strides is None:
        return flat.reshape(t.static_shape)
    steps: Sequence[int] = [int(s) * t.dtype.bytes for s in t.element_strides]  # type: ignore[arg-type]
    return np.lib.stride_tricks.as_strided(flat.reshape(-1), t.static_shape, steps)
