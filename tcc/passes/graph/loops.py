# SPDX-License-Identifier: Apache-2.0
"""What passes ask of loops: how often they run, and what of them nothing needs."""

from __future__ import annotations

from tcc.ir.core import BlockArgument, Value
from tcc.ir.graph import Loop
from tcc.passes.graph.common import content, splat


def trips_of(op: Loop) -> int | None:
    """The most iterations, if known."""
    array = content(op.trip)
    return None if array is None else max(0, int(array.reshape(-1)[0]))


def ends_early(op: Loop) -> bool:
    """Whether data decide when a loop ends, or whether it begins, beside the number of its trips."""
    if op.condition is not None and splat(op.condition) is not True:
        return True
    going = op.body.block.terminator.operands[0]
    return going is not op.body.block.args[1] and splat(going) is not True


def needed(op: Loop) -> list[int]:
    """The results that something needs: after the loop, or (of what is carried) for a state or stack needed there."""
    block = op.body.block
    given = block.terminator.operands
    carried = len(op.carried)
    found = {i for i, r in enumerate(op.results) if r.use_count}
    work: list[Value] = [given[0], *(given[1 + i] for i in found)]
    seen: set[Value] = set()
    while work:
        v = work.pop()
        if v in seen:
            continue
        seen.add(v)
        if isinstance(v, BlockArgument):
            at = block.args.index(v) - 2 if v.block is block else -1
            if 0 <= at < carried and at not in found:
                found.add(at)
                work.append(given[1 + at])
        elif v.defining_op is not None:
            work += [x for inner in v.defining_op.walk() for x in inner.operands]
    return sorted(found)
