# SPDX-License-Identifier: Apache-2.0
"""A copy, then the updates step after step, each step's lines side by side."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import Body, Int, KernelEmitter, Point, address, extents, load_all, refuse_symbols, vector
from tcc.codegen.llvm.emit.values import storage_type
from tcc.codegen.llvm.templates.naive_irregular import copy_points, scatter_addresses, update
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, template
from tcc.ir.kernel import Func, Scatter
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

BYTES_PER_SECOND, UPDATE_SECONDS = 8e9, 2e-9


@template
class ScatterLines(Template):
    """Tasks of `grain` elements of the copy, then of as many lines as have `grain` updates."""

    name = "llvm.scatter"
    kind = "cpu"
    matches = (Scatter,)
    space = Space(grain=[1024, 4096, 16384, 65536])

    def accepts(self, problem: Func, target: Target) -> str | None:
        return refuse_symbols(problem)

    def default(self, problem: Func, target: Target) -> Config | None:
        elements, _, _ = _size(problem)
        wanted = max(4096, elements // (4 * target.cores))
        return {"grain": min(self.space.parameters["grain"], key=lambda g: abs(g - wanted))}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        elements, lines, steps = _size(problem)
        size = problem.result_types[0].dtype.bytes
        grain = configs["grain"]
        copies = np.ceil(elements / grain)
        copy = np.ceil(copies / target.cores) * (np.minimum(grain, elements) * size / BYTES_PER_SECOND + 3e-8)
        each = np.maximum(1, grain // max(steps, 1))
        parts = np.ceil(lines / each)
        work = np.ceil(parts / target.cores) * (np.minimum(each, lines) * steps * UPDATE_SECONDS + 3e-8)
        return 2 * target.launch_seconds + copy + work

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        e = KernelEmitter(problem, self.name, config, target)
        anchor = e.anchor
        assert isinstance(anchor, Scatter)
        elements, lines, steps = _size(problem)
        grain = config["grain"]
        addresses = scatter_addresses(e)
        with e.launch(-(-elements // grain), addresses) as body, e.tasks(body.first, body.last) as task:
            start = e.mul(task, grain)
            stop = e.minimum(e.add(start, grain), elements)
            (_copy if plain(anchor) else copy_points)(e, body, start, stop)
        size = extents(problem)
        names = anchor.domain.parallel_names
        # What does not vary from line to line (the places of slices) is read once a step.
        shared = [
            i for i in range(1, len(anchor.operands)) if not addresses[i].symbols & set(names) and not _indirect(e, i)
        ]
        each = max(1, grain // max(1, steps))
        with e.launch(-(-lines // each), addresses) as body, e.tasks(body.first, body.last) as task:
            first = e.mul(task, each)
            last = e.minimum(e.add(first, each), lines)
            with e.points(0, steps, [size[n] for n in anchor.domain.reduce_names], "step") as at:
                step = dict(zip(anchor.domain.reduce_names, at, strict=True))
                known = dict(zip(shared, load_all(e, body.operands, Point(step), shared), strict=True))
                with e.points(first, last, [size[n] for n in names], "line") as line:
                    update(e, body, Point({**step, **dict(zip(names, line, strict=True))}), known)
        return e.emitted(instruction="scalar", copy="vectors" if plain(anchor) else "elements")


def _indirect(e: KernelEmitter, i: int) -> bool:
    return any(s.startswith("$") for s in e.anchor.maps[i].symbols)


def _size(problem: Func) -> tuple[int, int, int]:
    """(elements of the result, lines, updates of a line)."""
    anchor = problem.anchor
    assert isinstance(anchor, Scatter)
    size = extents(problem)
    elements = prod(anchor.frame.int_extent(n) for n in anchor.frame.names)
    lines = prod(size[n] for n in anchor.domain.parallel_names)
    return elements, lines, prod(size[n] for n in anchor.domain.reduce_names)


def plain(anchor: Scatter) -> bool:
    """Whether x lies in memory as the result does."""
    source, target = anchor.x.type, anchor.outs[0].type
    assert isinstance(source, TensorType) and isinstance(target, TensorType)
    straight = [str(r) for r in anchor.maps[0].results] == list(anchor.frame.names) and not anchor.maps[0].zero
    return straight and all(t.element_strides == t.dense_strides() for t in (source, target))


def _copy(e: KernelEmitter, body: Body, start: Int, stop: Int) -> None:
    """Elements start … stop - 1 as they lie, vectors of them and then one by one. No call of memcpy: an object's code
    may be loaded farther from it than a call reaches."""
    dtype = body.results[0].dtype
    lanes = max(1, e.target.vector_bytes // dtype.bytes)

    def move(at: Int, count: int) -> None:
        source, to = (address(e, a.pointer, at, dtype) for a in (body.operands[0], body.results[0]))
        raw = e.b.load(source, typ=vector(storage_type(dtype), count), align=dtype.bytes)
        e.b.store(raw, to, align=dtype.bytes)

    whole = e.mul(e.floordiv(e.sub(stop, start), lanes, nonnegative=True), lanes)
    middle = e.add(start, whole)
    with e.loop(start, middle, step=lanes, name="vector", unroll=4) as at:
        move(at, lanes)
    with e.loop(middle, stop, name="rest", unroll=False) as at:
        move(at, 1)
