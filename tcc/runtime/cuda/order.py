# SPDX-License-Identifier: Apache-2.0
"""Which device ops of a segment must wait for which: dependences by the bytes they read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tcc.errors import FailureError
from tcc.runtime.expr import evaluate

Op = Mapping[str, Any]
Slot = tuple[str, int]
Rows = tuple[int, int, int] | None
"""(period, first, last): only those of every `period` bytes of the allocation."""
Range = tuple[Slot, int, int, Rows]

ARENA: Slot = ("arena", 0)
WEIGHT: Slot = ("weight", 0)


def slot_of(buffers: Sequence[Op], buffer: int) -> Slot:
    """The allocation a buffer lies in: the arena, the weights, or an input, output or pool buffer of its own."""
    entry = buffers[buffer]
    if entry["space"] == "view":
        buffer = entry["of"]
        entry = buffers[buffer]
    space = entry["space"]
    if space == "arena":
        return ARENA
    if space == "weight":
        return WEIGHT
    return (space, entry["position"]) if space in ("input", "output") else (space, buffer)


def slots_of(op: Op, buffers: Sequence[Op]) -> dict[Slot, list[int]]:
    """The allocations whose address an op's parameters hold, with the indices of those parameters (of a launch)."""
    if op["op"] != "launch":
        return {slot_of(buffers, op[key]["buffer"]): [] for key in ("src", "dst") if key in op}
    slots: dict[Slot, list[int]] = {}
    for index, param in enumerate(op["params"]):
        place = param.get("tensor_map", param)
        if "buffer" in place:
            slots.setdefault(slot_of(buffers, place["buffer"]), []).append(index)
    return slots


def _extent(buffers: Sequence[Op], symbols: Mapping[str, int], buffer: int) -> Range:
    """The bytes of a buffer within its allocation."""
    entry = buffers[buffer]
    columns = entry.get("rows")
    nbytes, start = evaluate(entry["bytes"], symbols), 0
    slot = slot_of(buffers, buffer)
    if entry["space"] == "view":
        start = evaluate(entry["offset"], symbols)
        entry = buffers[entry["of"]]
    if entry["space"] in ("arena", "weight"):
        start += evaluate(entry["offset"], symbols)
    rows: Rows = None
    if columns is not None and start % columns[0] + columns[1] <= columns[0]:
        rows = (columns[0], start % columns[0], start % columns[0] + columns[1])
    return slot, start, start + nbytes, rows


def _beside(a: Rows, b: Rows) -> bool:
    """Whether two lie in different columns of the same rows."""
    return a is not None and b is not None and a[0] == b[0] and (a[2] <= b[1] or b[2] <= a[1])


def _place(buffers: Sequence[Op], symbols: Mapping[str, int], place: Op, nbytes: int) -> Range:
    slot, start, _, _ = _extent(buffers, symbols, place["buffer"])
    start += evaluate(place.get("offset", 0), symbols)
    return slot, start, start + nbytes, None


def accesses(op: Op, buffers: Sequence[Op], symbols: Mapping[str, int]) -> tuple[list[Range], list[Range]]:
    """The bytes an op reads and those it writes."""
    if op["op"] == "launch":
        reads = [_extent(buffers, symbols, buffer) for buffer in op["reads"]]
        return reads, [_extent(buffers, symbols, buffer) for buffer in op["writes"]]
    nbytes = evaluate(op["bytes"], symbols)
    writes = [_place(buffers, symbols, op["dst"], nbytes)]
    return ([_place(buffers, symbols, op["src"], nbytes)] if op["op"] == "copy" else []), writes


def predecessors(ops: Sequence[Op], buffers: Sequence[Op], symbols: Mapping[str, int]) -> list[list[int]]:
    """For each op the earlier ones it waits for, without those that another of them already waits for.

    Two ops conflict where one writes bytes that the other reads or writes. Weights are never written.
    """
    history: dict[Slot, list[tuple[int, int, int, bool, Rows]]] = {}
    before: list[int] = []  # bit i of before[j]: op j comes after op i
    result: list[list[int]] = []
    for index, op in enumerate(ops):
        reads, writes = accesses(op, buffers, symbols)
        conflicts: set[int] = set()
        for ranges, writing in ((reads, False), (writes, True)):
            for slot, start, stop, columns in ranges:
                if slot == WEIGHT and writing:
                    raise FailureError(f"an op of the engine's schedule writes to its weights ({op.get('loc', [])}).")
                for low, high, other, wrote, theirs in history.get(slot, ()):
                    if (writing or wrote) and low < stop and start < high and not _beside(columns, theirs):
                        conflicts.add(other)
        kept: list[int] = []
        covered = 0
        for other in sorted(conflicts, reverse=True):
            if not covered >> other & 1:
                kept.append(other)
                covered |= before[other] | 1 << other
        before.append(covered)
        result.append(sorted(kept))
        for ranges, writing in ((reads, False), (writes, True)):
            for slot, start, stop, columns in ranges:
                if slot == WEIGHT or start == stop:
                    continue
                rows = history.setdefault(slot, [])
                if writing and columns is None:
                    # What conflicts with a row inside these bytes conflicts with this write, which waits for the row.
                    rows[:] = [row for row in rows if not (start <= row[0] and row[1] <= stop)]
                rows.append((start, stop, index, writing, columns))
    return result
