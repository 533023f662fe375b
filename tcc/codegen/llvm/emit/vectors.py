# SPDX-License-Identifier: Apache-2.0
"""Loops over vectors with tails, and the transposition of a square of vectors in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.values import Int, lanes_of

Step = Callable[["list[tuple[Int, int, Any]]"], None]
"""Emits some vectors together: (first element, lanes, mask or None) of each."""


def vector_loop(e: Emitter, start: Int, stop: Int, lanes: int, unroll: int, step: Step, name: str = "v") -> None:
    """Elements start .. stop - 1, `unroll` whole vectors at a time, then single ones, then the tail: one masked vector
    where the target has masks, else element by element."""
    wide = lanes * unroll
    length = e.sub(stop, start)
    whole = e.mul(e.floordiv(length, wide, nonnegative=True), wide)
    middle = e.add(start, whole)
    if whole != 0:
        with e.loop(start, middle, wide, name=name, unroll=False if unroll > 1 else None) as at:
            step([(e.add(at, i * lanes), lanes, None) for i in range(unroll)])
    last = middle
    if unroll > 1:
        last = e.add(start, e.mul(e.floordiv(length, lanes, nonnegative=True), lanes))
        if not (isinstance(last, int) and last == middle):
            with e.loop(middle, last, lanes, name=name, unroll=False) as at:
                step([(at, lanes, None)])
    if isinstance(last, int) and isinstance(stop, int) and last == stop:
        return
    tail(e, last, stop, lanes, step, name)


def tail(e: Emitter, start: Int, stop: Int, lanes: int, step: Step, name: str = "v") -> None:
    """Elements start .. stop - 1, fewer than `lanes`; perhaps none."""
    if lanes == 1:
        return
    if "avx512" not in e.target.features:
        with e.loop(start, stop, name=name, unroll=False) as at:
            step([(at, 1, None)])
        return
    count = e.sub(stop, start)
    with e.when(e.less(0, count)):
        step([(start, lanes, e.first_lanes(count, lanes))])


def transpose(e: Emitter, rows: Sequence[Any]) -> list[Any]:
    """n vectors of n lanes, n a power of two: lane j of result i is lane i of row j. log2 n rounds swap the blocks off
    the diagonal of every 2b×2b block."""
    out = list(rows)
    n = len(out)
    assert all(lanes_of(r.type) == n for r in out)
    block = n // 2
    while block:
        for i in range(n):
            if i & block:
                continue
            low, high = out[i], out[i | block]
            out[i] = e.shuffle(low, high, [l if not l & block else n + (l ^ block) for l in range(n)])
            out[i | block] = e.shuffle(low, high, [n + l if l & block else l ^ block for l in range(n)])
        block //= 2
    return out
