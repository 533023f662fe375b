# SPDX-License-Identifier: Apache-2.0
"""The first places of rows by a heap (Williams, 1964): the least of those taken so far lies on top, and what comes
before it replaces it; the heap then gives them in order. A row is a task, and its keys are looked at in vectors."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
from llvmlite import ir

from tcc.codegen.llvm.emit import (
    I64,
    PTR,
    Body,
    Int,
    KernelEmitter,
    Point,
    extents,
    refuse_symbols,
    spread,
)
from tcc.codegen.llvm.emit.order import Packed
from tcc.codegen.llvm.templates.naive_irregular import key_at, put_rank
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, template
from tcc.ir.kernel import Func, TopK
from tcc.ir.targets import Target

PLACE_SECONDS, STEP_SECONDS = 0.2e-9, 4e-9
"""Reading and comparing one key; one step down the heap."""


@template
class TopKHeap(Template):
    """A heap of the ranks in a workspace."""

    name = "llvm.topk"
    kind = "cpu"
    matches = (TopK,)
    space = Space(rows=[1, 4, 16])

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := refuse_symbols(problem)) is not None:
            return sentence
        size = extents(problem)
        return None if 0 not in size.values() else "there is nothing to order"

    def default(self, problem: Func, target: Target) -> Config | None:
        rows, places, _ = _size(problem)
        return {"rows": 16 if places < 64 and rows > 64 else 1}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        rows, places, ranks = _size(problem)
        depth = log2(max(ranks, 2))
        # Of random keys the s-th is taken with probability ranks / s.
        taken = ranks * (1 + np.log(max(places / max(ranks, 1), 1)))
        row = places * PLACE_SECONDS + (taken + ranks) * depth * STEP_SECONDS
        tasks = np.ceil(rows / configs["rows"])
        return target.launch_seconds + np.ceil(tasks / target.cores) * (configs["rows"] * row + 3e-8)

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        e = KernelEmitter(problem, self.name, config, target)
        anchor = e.anchor
        assert isinstance(anchor, TopK)
        size = extents(problem)
        names = anchor.domain.parallel_names
        rows, places, ranks = _size(problem)
        packed = Packed(e, anchor)
        e.workspace(rows * ranks * packed.bits // 8)
        each = config["rows"]
        with e.launch(-(-rows // each), scratch_written=(0,)) as body, e.tasks(body.first, body.last) as task:
            heap = _Heap(e, packed)
            start = e.mul(task, each)
            with e.loop(start, e.minimum(e.add(start, each), rows), name="row", unroll=False) as row:
                point = Point(dict(zip(names, e.unflatten(row, [size[n] for n in names]), strict=True)))
                base = heap.at(body.workspaces[0], e.mul(row, ranks))
                with e.loop(0, ranks, name="fill", unroll=False) as s:
                    e.b.store(packed.pack(key_at(e, body, point, s), s), heap.at(base, s), align=8)
                with e.loop(0, ranks // 2, name="build", unroll=False) as i:
                    heap.sift(base, e.sub(ranks // 2 - 1, i), ranks)
                scan = _Scan(e, body, point, heap, base, ranks)
                scan.places(ranks, places, max(1, target.vector_bytes * 8 // packed.key_bits))
                with e.loop(1, ranks, name="order", unroll=False) as i:
                    last = e.sub(ranks, i)
                    top, other = heap.load(base), heap.load(heap.at(base, last))
                    e.b.store(other, base, align=8)
                    e.b.store(top, heap.at(base, last), align=8)
                    heap.sift(base, 0, last)
                with e.loop(0, ranks, name="r", unroll=False) as r:
                    put_rank(e, body, point, r, packed.place(heap.load(heap.at(base, r))))
        return e.emitted(instruction="scalar", heap=ranks)


def _size(problem: Func) -> tuple[int, int, int]:
    """(rows, places, ranks)."""
    size = extents(problem)
    rows = 1
    for n in problem.anchor.domain.parallel_names:
        rows *= size[n]
    return rows, size["s"], size["r"]


class _Scan:
    """The places of a row against the heap. All in it come before the place at hand, so only a greater key replaces
    one: vectors of keys without any are passed over as a whole."""

    def __init__(self, e: KernelEmitter, body: Body, point: Point, heap: _Heap, base: Any, ranks: int) -> None:
        self.e = e
        self.body = body
        self.point = point
        self.heap = heap
        self.base = base
        self.ranks = ranks

    def places(self, first: int, last: int, lanes: int) -> None:
        """Places first … last - 1."""
        e = self.e
        middle = first + (last - first) // lanes * lanes
        if middle > first:
            with (
                e.loop(first, middle, lanes, name="s", unroll=False) as s,
                e.when(self.any(s, lanes), likely=False),
                e.loop(s, e.add(s, lanes), name="lane", unroll=False) as lane,
            ):
                self.one(lane)
        with e.loop(middle, last, name="rest", unroll=False) as s:
            self.one(s)

    def any(self, s: Int, lanes: int) -> Any:
        """Whether some key of a vector is greater than the heap's least."""
        e, packed = self.e, self.heap.packed
        keys = packed.key(spread(e, key_at(e, self.body, self.point.along("s", s, lanes), s), lanes))
        least = e.splat(packed.key_of(self.heap.load(self.base)), lanes)
        greater = e.b.icmp_unsigned(">", keys, least)
        if lanes == 1:
            return greater
        bits = ir.IntType(lanes)
        return e.b.icmp_unsigned("!=", e.b.bitcast(greater, bits), bits(0))

    def one(self, s: Int) -> None:
        """One place."""
        e = self.e
        mine = self.heap.packed.pack(key_at(e, self.body, self.point, s), s)
        with e.when(e.b.icmp_unsigned(">", mine, self.heap.load(self.base)), likely=False):
            e.b.store(mine, self.base, align=8)
            self.heap.sift(self.base, 0, self.ranks)


class _Heap:
    """A heap of packed keys, the least on top."""

    def __init__(self, e: KernelEmitter, packed: Packed) -> None:
        self.e = e
        self.packed = packed
        self.type = packed.type
        self._sift = e.helper("tcc_sift", I64, [PTR, I64, I64], self._body)

    def at(self, base: Any, i: Int) -> Any:
        """The address of element i."""
        return self.e.b.gep(base, [self.e.i64(i)], source_etype=self.type)

    def load(self, address: Any) -> Any:
        return self.e.b.load(address, typ=self.type, align=8)

    def sift(self, base: Any, start: Int, size: Int) -> None:
        """Let element `start` of a heap of `size` sink to its place."""
        self.e.b.call(self._sift, [base, self.e.i64(start), self.e.i64(size)])

    def _body(self, base: Any, start: Any, size: Any) -> Any:
        e = self.e
        b = e.b
        head, body, move, done = (e.function.append_basic_block(n) for n in ("head", "body", "move", "done"))
        hole = e.var(start)
        value = self.load(self.at(base, start))
        b.branch(head)
        b.position_at_end(head)
        child = e.add(e.mul(hole.get(), 2), 1)
        b.cbranch(b.icmp_signed("<", child, size), body, done)
        b.position_at_end(body)
        right = e.add(child, 1)
        right = b.select(b.icmp_signed("<", right, size), right, child)
        left_value, right_value = self.load(self.at(base, child)), self.load(self.at(base, right))
        take = b.icmp_unsigned("<", right_value, left_value)
        least, place = b.select(take, right_value, left_value), b.select(take, right, child)
        b.cbranch(b.icmp_unsigned("<", least, value), move, done)
        b.position_at_end(move)
        b.store(least, self.at(base, hole.get()), align=8)
        hole.set(place)
        b.branch(head)
        b.position_at_end(done)
        b.store(value, self.at(base, hole.get()), align=8)
        return I64(0)
