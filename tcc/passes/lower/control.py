# SPDX-License-Identifier: Apache-2.0
"""Control flow on its way to the host function: branches and loops whose bodies are lowered as any block is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tcc.errors import InputError
from tcc.ir import graph, kernel
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.graph.base import tensor_type
from tcc.ir.kernel.build import copying
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import BOOL, TensorType, Type, on_host
from tcc.passes.graph.loops import ends_early, trips_of


class Lowers(Protocol):
    """What lowering a block gives to what holds blocks."""

    module: ModuleOp
    rewriter: Rewriter
    values: dict[Value, Value]
    """Graph value → host value."""

    def lower(self, op: Op, block: Block) -> None: ...
    def launch(self, func: kernel.Func, operands: Sequence[Value], loc: Sequence[str], block: Block) -> Op: ...


def branch(to: Lowers, op: graph.If, block: Block) -> Sequence[Value]:
    """A `graph.if` as a `kernel.if` whose condition the host reads."""
    regions: list[Region] = []
    for region in (op.then, op.orelse):
        inner = Block()
        for each in region.block.ops:
            if isinstance(each, graph.Yield):
                inner.append(kernel.Yield([to.values[v] for v in each.operands]))
            else:
                to.lower(each, inner)
        regions.append(Region(inner))
    types = [r.type for r in op.results]
    made = kernel.If(to.values[op.condition], regions=regions, result_types=types, loc=op.loc)
    to.rewriter.remark(op, "control", "kept", "the host reads its condition and runs one branch")
    return block.append(made).results


def loop(to: Lowers, op: graph.Loop, block: Block) -> Sequence[Value]:
    """A `graph.loop` as a `kernel.loop`. The condition is a carried value, and none where nothing ends the loop early.

    Inside the body the condition holds. A variable that another takes over, or that is stacked, is copied first where
    the copies at the end of an iteration would otherwise overwrite it.
    """
    where = f'{op.name} at "{", ".join(op.loc)}"'
    source = op.body.block
    yielded = source.terminator.operands
    tested = ends_early(op)
    before, after = ([op.condition], [yielded[0]]) if tested else ([], [])
    before = [*before, *op.carried]
    after = [*after, *yielded[1 : 1 + len(op.carried)]]
    initial = [_constant(to, True, op, block) if v is None else to.values[v] for v in before]
    initial[:tested] = [_scalar(v, block) for v in initial[:tested]]
    types = [a.type for a in source.args[1 if tested else 2 :]]
    for v, t in zip(op.carried, types[tested:], strict=True):
        if _differ(v.type, t):
            raise InputError(f"{where} carries {v.type} that its body takes as {t}")
    body = Block([tensor_type(source.args[0]), *types], ["iteration"])
    to.values[source.args[0]] = body.args[0]
    for old, new in zip(source.args[2:], body.args[1 + tested :], strict=True):
        to.values[old] = new
        new.hint = old.hint
    to.values[source.args[1]] = _constant(to, True, op, body)
    for each in source.ops:
        if each is not source.terminator:
            to.lower(each, body)
    given = [to.values[v] for v in after]
    following = _apart(to, [*(_scalar(v, body) for v in given[:tested]), *given[tested:]], body, op)
    stacked = [to.values[v] for v in yielded[1 + len(op.carried) :]]
    for v in stacked:
        if on_host(v.type):
            raise InputError(f"{where} stacks {v.type}, which lives on the host")
    stacked = [v if _variable(v, body) is None else _copied(to, v, body, op) for v in stacked]
    body.append(kernel.Yield([*following, *stacked]))
    trips = trips_of(op)
    made = kernel.Loop(
        None if op.trip is None or trips is not None else to.values[op.trip], initial,
        trips=trips, test=0 if tested else -1,
        regions=[Region(body)], result_types=[*types[:tested], *(r.type for r in op.results)], loc=op.loc,
    )  # fmt: skip
    block.append(made)
    to.rewriter.remark(op, "control", "kept", crossings(waits(made)))
    return made.results[tested:]


def waits(op: kernel.Loop) -> list[str]:
    """What an iteration of a loop waits for on the host, one entry each time."""
    reasons = ["its condition"] if op.test >= 0 else []
    for inner in op.body.block.ops:
        for each in inner.walk():
            if isinstance(each, kernel.If):
                reasons.append(f"the condition of {_named(each)}")
            elif isinstance(each, kernel.Loop) and (each.test >= 0 or each.trip is not None):
                reasons.append(f"{'the condition' if each.test >= 0 else 'the trip count'} of {_named(each)}")
            elif isinstance(each, kernel.HostCall):
                reasons.append(f"{each.function}, which runs there")
    return reasons


def crossings(reasons: list[str]) -> str:
    """What `waits` gives, as a sentence."""
    if not reasons:
        return "no iteration waits for the host"
    times = "time" if len(reasons) == 1 else "times"
    return f"every iteration waits for the host {len(reasons)} {times}, for {', '.join(reasons)}"


def _named(op: Op) -> str:
    return " ".join(op.loc) or op.name


def _differ(given: Type, t: Type) -> bool:
    """Whether a tensor is not what it should be in its element type, rank or an extent that does not change."""
    if not isinstance(given, TensorType) or not isinstance(t, TensorType):
        return False
    if given.dtype != t.dtype or given.rank != t.rank:
        return True
    return any(isinstance(b, int) and a != b for a, b in zip(given.shape, t.shape, strict=True))


def _constant(to: Lowers, value: bool, op: Op, block: Block) -> Value:
    resource = to.module.resources.add(np.asarray(value))
    made = kernel.Constant(value=resource, result_types=[graph.dense((), BOOL)], loc=op.loc)
    return block.append(made).y


def _scalar(v: Value, block: Block) -> Value:
    """A condition, which may have a dim of 1, without it."""
    t = tensor_type(v)
    return v if t.rank == 0 else block.append(kernel.ViewOp(v, offset=0, result_types=[t.with_(shape=())])).y


def _variable(v: Value, body: Block) -> int | None:
    """The index of the carried value that v is or is a view of; None if it is no part of one."""
    while isinstance(v.defining_op, kernel.ViewOp):
        v = v.defining_op.x
    return body.args.index(v) - 1 if v in body.args[1:] else None  # type: ignore[arg-type]


def _apart(to: Lowers, values: list[Value], body: Block, op: Op) -> list[Value]:
    """What the carried values become. Copies at the end of an iteration are made one after another, those of known
    extents first, so a circle of variables that take over each other's values is cut by a copy, and so is a part of a
    variable that becomes it."""
    out = list(values)
    sources = [_variable(v, body) for v in out]
    for i in range(len(out)):
        taken = sources[i]
        if taken is None or out[i] is body.args[1 + i] or on_host(out[i].type):
            continue
        late = not tensor_type(body.args[1 + i]).is_static
        if taken == i or (late and tensor_type(body.args[1 + taken]).is_static):
            out[i], sources[i] = _copied(to, out[i], body, op), None
    for i in range(len(out)):
        seen = [i]
        at = sources[i]
        while at is not None and at not in seen:
            seen.append(at)
            at = sources[at]
        if at == i and len(seen) > 1 and not on_host(out[i].type):
            out[i], sources[i] = _copied(to, out[i], body, op), None
    return out


def _copied(to: Lowers, v: Value, body: Block, op: Op) -> Value:
    """v in memory of its own."""
    t = tensor_type(v)
    launch = to.launch(copying("", t, t.with_(align=64)), [v], op.loc, body)
    return launch.results[0]
