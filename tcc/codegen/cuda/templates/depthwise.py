# SPDX-License-Identifier: Apache-2.0
"""`cuda.depthwise`: convolutions of one channel a group, on vectors of channels, inputs sliding through registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tcc.codegen.cuda.emit import Unit
from tcc.codegen.cuda.templates.common import BLOCK_SECONDS, ceil_div, cheapest, clock, free_extent, memory_seconds
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Packing, Space, Template, entry_name, template
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.expr import Sym, coefficient, symbols
from tcc.ir.kernel import Conv, Func
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

_DIMS = ("n", "oy", "ox", "g")


@dataclass(frozen=True)
class Window:
    """Strides and dilations (steps of ky, kx) of the input's rows and columns."""

    stride_y: int
    stride_x: int
    step_y: int
    step_x: int


def window(problem: Func) -> Window | None:
    """The sliding window of the first operand; None where its rows and columns are not affine in (oy, ky), (ox, kx)."""
    anchor = problem.anchor
    found: dict[str, tuple[int, int]] = {}
    for out, inside in (("oy", "ky"), ("ox", "kx")):
        short = anchor.domain.int_extent(inside) == 1
        for e in anchor.maps[0].results:
            names = symbols(e)
            if out not in names and inside not in names:
                continue
            a, b = coefficient(e, out), coefficient(e, inside)
            if a is None or b is None or names - {out, inside} or out in found:
                return None
            found[out] = (a, b if not short else 1)
        if out not in found:
            if anchor.domain.int_extent(out) != 1 or not short:
                return None
            found[out] = (1, 1)
    (sy, dy), (sx, dx) = found["oy"], found["ox"]
    return Window(sy, sx, dy, dx) if min(sy, sx, dy, dx) >= 1 else None


def _channels(problem: Func, target: Target) -> int:
    """The widest vector of channels of input and result."""
    unit = Unit(problem, target, "unnamed")
    g = unit.extents["g"]
    width = 8
    while width > 1 and (
        g % width
        or unit.operand(0).pattern("g", width) != "vector"
        or unit.result(0).pattern("g", width) != "vector"
        or width * unit.operand(0).dtype.bytes > 16
    ):
        width //= 2
    return width


def _slides(c: Columns, problem: Func, target: Target) -> Any:
    w, d = window(problem), problem.anchor.domain
    assert w is not None
    # Where a window has one place, what is read there does not follow the place.
    x, y = (d.int_extent(k) > 1 and step == 1 for k, step in (("kx", w.step_x), ("ky", w.step_y)))
    return ((c["tile_x"] == 1) | x) & ((c["tile_y"] == 1) | y)


def _span(c: Columns, problem: Func, of: str) -> Any:
    w, d = window(problem), problem.anchor.domain
    assert w is not None
    stride, size = (w.stride_x, d.int_extent("kx")) if of == "x" else (w.stride_y, d.int_extent("ky"))
    return (c[f"tile_{of}"] - 1) * stride + size


def _registers(c: Columns, problem: Func, target: Target) -> Any:
    return (_span(c, problem, "x") + c["tile_x"] * c["tile_y"] + 2) * c["vector"] <= 140


def _not_oversized(c: Columns, problem: Func, target: Target) -> Any:
    d = problem.anchor.domain
    return (c["tile_x"] < 2 * d.int_extent("ox")) & (c["tile_y"] < 2 * d.int_extent("oy"))


@template
class Depthwise(Template):
    """A thread for V channels of tile_y × tile_x results."""

    name = "cuda.depthwise"
    kind = "cuda"
    matches = (Conv,)
    space = Space(vector=[1, 2, 4, 8], tile_x=[1, 2, 4, 7, 8], tile_y=[1, 2, 4], threads=[64, 128, 256])
    legal = (
        Constraint("vector", lambda c, p, t: c["vector"] <= _channels(p, t),
                   "V channels are V aligned elements of input and result, at most 16 bytes"),
        Constraint("slides", _slides,
                   "neighbouring results share inputs only in windows of several places, without dilation"),
        Constraint("registers", _registers, "the columns a thread holds fit 140 registers"),
        Constraint("oversized", _not_oversized, "the tile is less than twice the result"),
    )  # fmt: skip

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        anchor = problem.anchor
        assert isinstance(anchor, Conv)
        d = anchor.domain
        if d.int_extent("co") != 1 or d.int_extent("ci") != 1:
            return "a group has more than one channel"
        if "oz" in d.names:
            return "it is a convolution over three dims"
        if len(anchor.rhs) != 1 or len(anchor.lhs) != 1 or anchor.maps[0].zero or anchor.maps[1].fill is not None:
            return "inputs are computed from several operands or have holes"
        if any(s.startswith("$") for s in anchor.maps[0].symbols | anchor.maps[1].symbols):
            return "an input is indirect"
        if window(problem) is None:
            return "rows and columns of the input are not affine in the result's"
        if d.int_extent("ky") * d.int_extent("kx") > 121:
            return "the window is larger than 11 x 11"
        total = 1
        for name in _DIMS:
            total *= d.int_extent(name)
        return "2^30 results or more" if total >= 1 << 30 else None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (16.5, 0.375, 0.125, 0.0625, 7.6, 2.93, 0.109, 1.25e-07, 3060.0, 797.0)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Instructions: a column's address and guards, a weight's address, an FMA, a conversion, a thread's frame; how
        # many warps a scheduler needs to issue every cycle; what of a block's start is not hidden; seconds around it;
        # how many instructions the caches hold; cycles that a row of loads takes.
        column, weight, fma, convert, frame, hide, start, around, code, latency = self.weights
        c, d = configs, problem.anchor.domain
        e = {n: d.int_extent(n) for n in d.names}
        v, tx, ty = c["vector"], c["tile_x"], c["tile_y"]
        threads = e["n"] * ceil_div(e["oy"], ty) * ceil_div(e["ox"], tx) * ceil_div(e["g"], v)
        blocks = np.ceil(threads / c["threads"])
        span_x, span_y = _span(c, problem, "x"), _span(c, problem, "y")
        small = 1.0 if problem.arg_types[0].dtype.bytes < 4 else 0.0
        window = e["ky"] * e["kx"]
        issue = span_y * span_x * (column + v * convert * small) + ty * window * (weight + v * convert * small)
        issue = issue + tx * ty * (window * v * fma + 20.0 + 8.0 * v) + frame
        held = np.maximum(32, np.minimum(255, (span_x + tx * ty + e["kx"]) * v + 28))
        most = np.maximum(1, 65536 // (held * c["threads"]))
        resident = np.minimum(most, 2048 // c["threads"])
        together = np.minimum(resident, ceil_div(blocks, target.cores))
        warps = together * c["threads"] / 128.0
        waves = np.maximum(1.0, blocks / (resident * target.cores))
        spilled = np.where((span_x + tx * ty + e["kx"]) * v > 180, 1.5, 1.0)
        # All is unrolled: long code does not stay in the instruction caches.
        length = span_y * span_x * 14.0 + ty * tx * window * v + span_y * span_x * v * small
        spilled = spilled * (1.0 + (length / code) ** 2)
        alone = issue * spilled * hide + span_y * latency
        seconds = waves * np.maximum(issue * spilled * warps, alone) / clock(target)
        moved = memory_seconds(problem, target) * 1.05
        crowd = np.maximum(moved, BLOCK_SECONDS * blocks)
        return target.launch_seconds + np.maximum(crowd, seconds) + around + start * BLOCK_SECONDS * blocks

    def _packing(self, problem: Func) -> Packing | None:
        anchor = problem.anchor
        value = anchor.operands[1]
        buffer = next(i for i, a in enumerate(problem.body.block.args) if a is value)
        if not problem.is_const(buffer) or value.use_count != 1:
            return None
        e = {n: anchor.domain.int_extent(n) for n in ("ky", "kx", "g")}
        domain = Domain((("ky", e["ky"]), ("kx", e["kx"]), ("g", e["g"])))
        access = anchor.maps[1].substitute({n: 0 for n in anchor.domain.names if n not in e})
        assert isinstance(value.type, TensorType)
        return Packing(buffer, domain, access, value.type.dtype)

    def pack(self, problem: Func, config: Config, target: Target) -> Sequence[Packing]:
        packing = self._packing(problem)
        return () if packing is None else (packing,)

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        anchor, w = problem.anchor, window(problem)
        assert isinstance(anchor, Conv) and w is not None
        e = {n: anchor.domain.int_extent(n) for n in anchor.domain.names}
        v, tx, ty = config["vector"], config["tile_x"], config["tile_y"]
        span_x, span_y = (tx - 1) * w.stride_x + e["kx"], (ty - 1) * w.stride_y + e["ky"]
        reach = {
            "kx": span_x, "ky": span_y, "ox": ceil_div(e["ox"], tx) * tx, "oy": ceil_div(e["oy"], ty) * ty
        }  # fmt: skip
        unit = Unit(problem, target, entry_name(problem, self.name, config), reach=reach)
        unit.reader_reach(0)
        packing = self._packing(problem)
        if packing is not None:
            packed = TensorType(packing.shape, packing.dtype)
            unit.replace_operand(1, packed, IndexMap((Sym("ky"), Sym("kx"), Sym("g"))))
        vector = ("g", v) if v > 1 else None
        dims = (*_DIMS, "ky", "kx")
        unit.reader("tcc_read_x", anchor.lhs_body, (0,), dims, anchor.acc, vector)
        unit.reader("tcc_read_w", anchor.rhs_body, (1,), ("g", "ky", "kx"), anchor.acc, vector)
        extra = range(2, len(anchor.operands))
        unit.writer("tcc_epilogue", anchor.epilogue, [anchor.acc], extra, _DIMS, vector)
        threads = config["threads"]
        unit.define(
            N=e["n"], OY=e["oy"], OX=e["ox"], G=e["g"], KY=e["ky"], KX=e["kx"], V=v, TX=tx, TY=ty, ROWS=span_y,
            SPAN=span_x, STRIDE_X=w.stride_x, STRIDE_Y=w.stride_y, THREADS=threads, Acc=f"tcc::{anchor.acc.name}",
        )  # fmt: skip
        total = e["n"] * ceil_div(e["oy"], ty) * ceil_div(e["ox"], tx) * ceil_div(e["g"], v)
        grid = ceil_div(total, threads)
        return unit.emitted(
            unit.source("depthwise.cuh"),
            [unit.launch((grid, 1, 1), threads)],
            instruction="FMA",
            grid=grid,
            block=threads,
            tile=[ty, tx, v],
            placement={"input": "registers", "weights": "packed" if packing else "global"},
        )
