# SPDX-License-Identifier: Apache-2.0
"""Branches and loops of the host function as ops of the schedule program (spec/engine.md, section 4).

Values whose extents are known lie in the arena, and each part ends in copies on the device, in its last segment. Values
whose extents data decide lie in the pool: symbols that name these are bound by `let`, and for the variables of a loop
by the loop itself, after every iteration. What lives on the host is assigned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tcc.codegen.template import Emitted
from tcc.errors import FailureError
from tcc.ir.core import Block, Op, Value
from tcc.ir.expr import Dim, Sym, to_json
from tcc.ir.kernel import If, Loop
from tcc.ir.types import TensorType, on_host
from tcc.passes.kernel.storage import Storage, maker
from tcc.passes.lower.control import crossings, waits

Json = dict[str, Any]
Pairs = Sequence[tuple[Value, Value]]


class Emits(Protocol):
    """What writing a schedule gives to what holds blocks."""

    storage: dict[Value, Storage]
    report: list[Json]
    pending: dict[int, None]
    bound: set[str]

    def buffer(self, v: Value) -> int: ...
    def places(self) -> dict[Value, tuple[str, int]]: ...
    def block(self, block: Block, emitted: Mapping[str, Emitted]) -> list[Json]: ...
    def segment(self, body: list[Json]) -> Json: ...


def branch(to: Emits, op: If, emitted: Mapping[str, Emitted]) -> Json:
    """The op `if`: each side binds the extents of its results and ends in copies into them."""
    sides: list[list[Json]] = []
    for region in (op.then, op.otherwise):
        pairs = list(zip(region.block.terminator.operands, op.results, strict=True))
        side = to.block(region.block, emitted)
        lets = _lets(_changes(pairs))
        allocs = [{"op": "alloc", "buffer": to.buffer(r)} for _, r in pairs if _in_pool(to, r)]
        sides.append(_ending(to, [*side, *lets, *allocs], _copies(to, pairs, op)) + _assigns(to, pairs))
        to.bound.update(d["symbol"] for d in lets)
    _report(to, op, "the host reads its condition and runs one branch", 1)
    return {"op": "if", "cond": to.buffer(op.condition), "loc": list(op.loc), "then": sides[0], "else": sides[1]}


def _report(to: Emits, op: Op, message: str, count: int) -> None:
    to.report.append({"kind": "crossing", "message": message, "count": count, "loc": list(op.loc)})


def entering(to: Emits, op: Loop) -> tuple[list[Json], list[Json], list[Json]]:
    """What stands before a loop: symbols of its variables' extents, which are bound first; the copies (for the segment
    under way) that give the variables their first values; and what is done on the host for that."""
    pairs = list(zip(op.carried, op.variables, strict=True))
    changes = _changes(pairs)
    # Of a loop without an iteration nothing is stacked.
    empty = dict.fromkeys(_changes(_scanned(op), 1), 0)
    lets = _lets({**empty, **changes})
    to.bound.update(d["symbol"] for d in lets)
    to.pending.update({to.buffer(var): None for var in op.variables if _in_pool(to, var)})
    return lets, _copies(to, pairs, op), _assigns(to, pairs)


def loop(to: Emits, op: Loop, emitted: Mapping[str, Emitted]) -> list[Json]:
    """The op `loop`, and the extents of what it gives.

    Every iteration ends in copies of the next values over the variables, in an order in which none is overwritten
    before it is read. What lies in the pool is not copied: the two change places.
    """
    pairs = list(zip(op.following, op.variables, strict=True))
    pairs = [*_in_order(to, [p for p in pairs if not on_host(p[1].type)]), *(p for p in pairs if on_host(p[1].type))]
    counts = {d.name for _, r in _scanned(op) if isinstance(d := _tensor(r).shape[0], Sym)}
    assert len(counts) <= 1, f"a loop at {op.loc} counts its iterations in {sorted(counts)}"
    to.bound |= counts
    body = to.block(op.body.block, emitted) + _lets(_changes(_scanned(op), 1))
    _report(to, op, crossings(waits(op)), len(waits(op)))
    moved = [p for p in pairs if on_host(p[1].type) or _in_pool(to, p[1])]
    kept = [p for p in pairs if p not in moved]
    row: Json = {
        "op": "loop", "trip": None if op.trip is None else {"buffer": to.buffer(op.trip)}, "trip_expr": op.trips,
        "cond": to.buffer(op.variables[op.test]) if op.test >= 0 else None,
        "iteration": to.buffer(op.iteration) if op.iteration.use_count else None,
        "carried": [{"next": to.buffer(v), "var": to.buffer(r), "swap": _swaps(to, v, op)} for v, r in moved],
        "extents": [{"symbol": s, "next": to_json(d)} for s, d in _changes(moved).items()],
        "scan": [
            {"from": to.buffer(v), "to": to.buffer(r)} for v, r in _scanned(op)
        ],
        "count": next(iter(counts), None), "body": _ending(to, body, _copies(to, kept, op)), "loc": list(op.loc),
    }  # fmt: skip
    given = list(zip(op.variables, op.results, strict=False))
    after = _lets(_changes(given))
    to.bound.update(d["symbol"] for d in after)
    return [row, *after, *_assigns(to, given)]


def _scanned(op: Loop) -> list[tuple[Value, Value]]:
    return list(zip(op.scanned, op.results[len(op.carried) :], strict=True))


def _changes(pairs: Pairs, offset: int = 0) -> dict[str, Dim]:
    """For (source, destination): the symbols of the destination's extents, from dim `offset` on, that stand for other
    extents of the source."""
    found: dict[str, Dim] = {}
    for v, r in pairs:
        if not isinstance(v.type, TensorType):
            continue
        for mine, theirs in zip(_tensor(v).shape, _tensor(r).shape[offset:], strict=True):
            if mine != theirs and isinstance(theirs, Sym):
                found[theirs.name] = mine
    return found


def _lets(values: Mapping[str, Dim]) -> list[Json]:
    return [{"op": "let", "symbol": s, "value": to_json(d)} for s, d in values.items()]


def _ending(to: Emits, ops: list[Json], copies: list[Json]) -> list[Json]:
    """A schedule with copies at its end, in its last segment if it ends in one."""
    if copies and ops and ops[-1]["op"] == "segment":
        ops[-1]["body"] += copies
    elif copies:
        ops.append(to.segment(copies))
    return ops


def _copies(to: Emits, pairs: Pairs, op: Op) -> list[Json]:
    """A copy for every (source, destination) that do not lie in one place."""
    copies: list[Json] = []
    for v, r in pairs:
        if on_host(r.type):
            continue
        t = _tensor(v)
        if t.strides is not None:
            raise FailureError(f"a part of {op.loc} yields a strided tensor")
        if t.size == 0 or to.storage[v] == to.storage[r]:
            continue
        source, target = {"buffer": to.buffer(v)}, {"buffer": to.buffer(r)}
        copies.append({"op": "copy", "src": source, "dst": target, "bytes": to_json(t.nbytes)})
    return copies


def _assigns(to: Emits, pairs: Pairs) -> list[Json]:
    """For what lives on the host."""
    return [{"op": "assign", "src": to.buffer(v), "dst": to.buffer(r)} for v, r in pairs if on_host(r.type)]


def _in_pool(to: Emits, v: Value) -> bool:
    return to.places().get(to.storage[v].root, ("", 0))[0].startswith("pool")


def _in_order(to: Emits, pairs: list[tuple[Value, Value]]) -> list[tuple[Value, Value]]:
    """Pairs in an order in which no destination is a later pair's source; lowering has cut the circles."""
    left = [p for p in pairs if to.storage[p[0]] != to.storage[p[1]]]
    out: list[tuple[Value, Value]] = []
    while left:
        roots = [to.storage[v].root for v, _ in left]
        free = next(i for i, (_, r) in enumerate(left) if all(x is not to.storage[r].root for x in roots))
        out.append(left.pop(free))
    return out


def _swaps(to: Emits, v: Value, op: Loop) -> bool:
    """Whether the memory of a variable's next value may become the variable's: the body makes it anew every time, and
    it is needed for nothing else."""
    where = to.storage[v]
    others = [x for x in op.body.block.terminator.operands if to.storage[x].root is where.root]
    made = not on_host(v.type) and _in_pool(to, v) and maker(where.root).parent is op.body.block
    return made and where.offset == 0 and len(others) == 1 and _tensor(v).shape == _tensor(where.root).shape


def _tensor(v: Value) -> TensorType:
    assert isinstance(v.type, TensorType)
    return v.type
