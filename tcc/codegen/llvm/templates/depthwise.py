# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolutions: every channel is a group of its own, and vectors lie along the channels.

`tile` neighbouring pixels of an output row are summed at once, `vectors` vectors of channels each, so that an input
pixel is read once per row of the window for all the outputs that need it. Tiles that touch the border are emitted on
their own, with the taps that fall outside left out; rows of the window that fall outside are not visited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tcc.codegen.llvm.emit import (
    Address,
    Body,
    Int,
    KernelEmitter,
    Nest,
    Point,
    Val,
    Var,
    cast,
    constant,
    emit_region,
    indices,
    load_all,
    nest_of,
    operand_addresses,
    refuse_symbols,
    result_addresses,
    scalar_expr,
    spread,
    vector,
)
from tcc.codegen.llvm.emit.memory import address, load, load_masked, load_raw
from tcc.codegen.llvm.emit.values import compute_type
from tcc.codegen.llvm.templates.contraction_plan import is_cast
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Packing, Space, Template, template
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.expr import Dim, Sym, coefficient, mul, split, substitute, symbols
from tcc.ir.kernel import Conv, Func
from tcc.ir.targets import Target
from tcc.ir.types import DType

STREAM = 14.0
"""Bytes a cycle that one core gets from the last-level cache, reading and writing."""


@dataclass(frozen=True)
class Plan:
    """The loops of a depthwise convolution; extents of 1 are 1 here. `x`: (elements from an output pixel to the next,
    from a tap to the next, and where out-of-range pixels are filled in: index = ox·stride + kx·dilation + start within
    width). `y`: likewise the rows' (stride, dilation, start, height)."""

    problem: Func
    nest: Nest
    source: Address
    lanes: int
    acc: DType
    outer: Mapping[str, int]
    size: Mapping[str, int]
    steps: tuple[int, int]
    x: tuple[int, int, int, int] | None
    y: tuple[int, int, int, int] | None

    @property
    def epilogue_operands(self) -> range:
        return range(2, len(self.problem.anchor.operands))

    @property
    def packs(self) -> bool:
        """Whether the weights are a constant that is stored beforehand as vectors of channels."""
        args = list(self.problem.body.block.args)
        weights = self.problem.anchor.operands[1]
        return self.problem.is_const(args.index(weights)) and not self.problem.anchor.maps[1].zero  # pyright: ignore


def _plan_or_reason(problem: Func, target: Target) -> Plan | str:
    reason = refuse_symbols(problem)
    if reason is not None:
        return reason
    anchor = problem.anchor
    assert isinstance(anchor, Conv)
    size = {name: anchor.domain.int_extent(name) for name in anchor.domain.names}
    if 0 in size.values():
        return "one of its extents is 0"
    if size["g"] == 1 or size["co"] != 1 or size["ci"] != 1:
        return "its groups have more than one channel"
    if size.get("oz", 1) != 1 or size.get("kz", 1) != 1:
        return "it has three spatial dims"
    if anchor.acc.name not in ("f32", "f64", "i32"):
        return f"it accumulates in {anchor.acc}; vectors of channels are made for f32, f64 and i32"
    if len(anchor.lhs) != 1 or len(anchor.rhs) != 1:
        return "a factor is made of several operands"
    if not is_cast(anchor.lhs_body, anchor.acc) or not is_cast(anchor.rhs_body, anchor.acc):
        return "a factor is computed from its operand"
    regions = [anchor.lhs_body, anchor.rhs_body, anchor.epilogue]
    nest = nest_of(problem, regions, operand_addresses(problem), result_addresses(problem))
    source = nest.operands[0]
    if source.indirect or source.zero or source.empty:
        return "its input is read indirectly or with holes"
    if source.stride_along("g") != 1 or any(r.stride_along("g") != 1 for r in nest.results):
        return "channels are not the innermost dim of its input and its result"
    steps = [source.stride_along(n) for n in ("ox", "kx", "oy", "ky", "n")]
    if None in steps:
        return "its input is not read at equal distances"
    borders: dict[str, tuple[int, int, int, int]] = {}
    for index, extent in source.guards:
        way = "x" if symbols(index) <= {"ox", "kx"} else "y" if symbols(index) <= {"oy", "ky"} else ""
        pixel, tap = coefficient(index, f"o{way}"), coefficient(index, f"k{way}")
        if not way or way in borders or pixel is None or tap is None or pixel < 0 or tap < 0:
            return "its border is not that of a sliding window"
        if not isinstance(extent, int):
            return f"its input's extent {extent} is not bound"
        start = substitute(index, {f"o{way}": 0, f"k{way}": 0})
        assert isinstance(start, int)
        borders[way] = (pixel, tap, start, extent)
    if borders and source.fill not in (0, 0.0):
        return f"it is padded with {source.fill}, not 0"
    assert steps[0] is not None and steps[1] is not None
    return Plan(
        problem=problem,
        nest=nest,
        source=source,
        lanes=max(1, target.vector_bytes // anchor.acc.bytes),
        acc=anchor.acc,
        outer={n: size[n] for n in ("n", "oz") if size.get(n, 1) != 1},
        size=size,
        steps=(steps[0], steps[1]),
        x=borders.get("x"),
        y=borders.get("y"),
    )


@lru_cache(maxsize=256)
def _planned(problem: Func, target: Target) -> Plan | str:
    return _plan_or_reason(problem, target)


def make_plan(problem: Func, target: Target) -> Plan:
    plan = _planned(problem, target)
    assert isinstance(plan, Plan), plan
    return plan


def _registers(columns: Columns, problem: Func, target: Target) -> Any:
    plan = make_plan(problem, target)
    have = 32 if "avx512" in target.features else 16
    return (columns["tile"] + min(plan.size["kx"], 7) + 1) * columns["vectors"] <= have


def _exists(columns: Columns, problem: Func, target: Target) -> Any:
    plan = make_plan(problem, target)
    blocks = -(-plan.size["g"] // (columns["vectors"] * plan.lanes))
    return (
        (columns["tile"] <= plan.size["ox"])
        & ((columns["vectors"] - 1) * plan.lanes < plan.size["g"])
        & (columns["row_parts"] <= plan.size["oy"])
        & (columns["channel_parts"] <= blocks)
    )


@template
class Depthwise(Template):
    """Vectors of channels, several output pixels at once."""

    name = "llvm.depthwise"
    kind = "cpu"
    matches = (Conv,)
    space = Space(
        tile=[1, 2, 3, 4, 5, 6, 7, 8, 10, 14],
        vectors=[1, 2, 3, 4],
        row_parts=[1, 2, 4, 7, 8, 14, 16, 28],
        channel_parts=[1, 2, 4, 8, 16],
        channels=["inner", "outer"],
    )
    legal = (
        Constraint("registers", _registers, "the tile needs more vector registers than there are"),
        Constraint("exists", _exists, "a tile or part is larger than the problem"),
    )

    def accepts(self, problem: Func, target: Target) -> str | None:
        plan = _planned(problem, target)
        return plan if isinstance(plan, str) else None

    def default(self, problem: Func, target: Target) -> Config | None:
        columns, _ = self.legal_columns(problem, target)
        best = int(np.argmin(self.cost(problem, columns, target)))
        return {k: v[best].item() for k, v in columns.items()}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        plan = make_plan(problem, target)
        size = plan.size
        t, v = configs["tile"].astype(float), configs["vectors"].astype(float)
        stride, dilation = (plan.x or (1, 1, 0, 0))[:2]
        kx, ky = size["kx"], size["ky"]
        whole, rest = size["ox"] // t, size["ox"] % t
        read = np.minimum((t - 1) * stride + (kx - 1) * dilation + 1, t * kx)
        loads = v * (read + kx)
        sums = t * v * kx
        # A chain of additions takes four cycles a step: fewer than eight sums at once leave the units idle.
        step = np.maximum(np.maximum(sums, loads) / 2, kx * 4.0 * (t * v < 8)) + 1.5
        edge = np.maximum(np.maximum(rest * v * kx, v * (rest + 2 * kx)) / 2, kx * 4.0) + 1.5
        finish = 3.0 * t * v + 12
        blocks = np.ceil(size["g"] / (v * plan.lanes))
        line = whole * (ky * step + finish) + (rest > 0) * (ky * edge + 3.0 * rest * v + 12)
        outer = prod(plan.outer.values())
        rows = np.ceil(size["oy"] / configs["row_parts"])
        tasks = outer * configs["row_parts"] * configs["channel_parts"]
        share = np.ceil(tasks / target.cores) * rows * np.ceil(blocks / configs["channel_parts"])
        size_of = plan.source.dtype.bytes
        moved = size_of * outer * size["g"] * (size["oy"] * size["ox"] * (1 + stride * stride)) / target.cores
        # Short pieces of a pixel's channels defeat the hardware's prefetching.
        piece = np.where(configs["channels"] == "inner", size["g"] / configs["channel_parts"], v * plan.lanes) * size_of
        rate = target.flop_rate / target.cores / (4 * target.lanes)
        # Beyond this many registers the compiler's order of loads spills some; long tiles read too many streams.
        crowded = np.where((t + min(kx, 7) + 1) * v > 26, 1.15, 1.0) * (1 + 0.04 * np.maximum(0, t - 7))
        cycles = (
            share * line * crowded + moved / STREAM * (1 + 120 / np.minimum(piece, size["g"] * size_of)) + 50 * tasks
        )
        return target.launch_seconds + cycles / rate

    def pack(self, problem: Func, config: Config, target: Target) -> Sequence[Packing]:
        plan = make_plan(problem, target)
        return (_packing(plan, config["vectors"] * plan.lanes),) if plan.packs else ()

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        plan = make_plan(problem, target)
        e = KernelEmitter(problem, self.name, config, target)
        _Emit(e, plan, config).emit()
        return e.emitted(
            instruction=f"{8 * target.vector_bytes}-bit {'FMA' if plan.acc.is_float else 'multiply and add'}",
            tile=f"{config['tile']} pixels x {config['vectors'] * plan.lanes} channels",
            weights="packed constant" if plan.packs else "packed by a launch",
        )


def _packing(plan: Plan, width: int) -> Packing:
    """Weights as [block of channels][ky][kx][channel]."""
    anchor = plan.problem.anchor
    dims = {"block": -(-plan.size["g"] // width), "ky": plan.size["ky"], "kx": plan.size["kx"], "inside": width}
    ranges = {n: (0, size - 1) for n, size in dims.items()}
    env: dict[str, Dim] = {n: 0 for n in anchor.domain.names if n not in ("ky", "kx")}
    env["g"] = mul(Sym("block"), width) + Sym("inside")
    old = anchor.maps[1]
    results = tuple(substitute(r, env, ranges) for r in old.results)
    fill = old.fill if old.fill is not None else 0.0 if plan.acc.is_float else 0
    argument = list(plan.problem.body.block.args).index(anchor.operands[1])  # pyright: ignore[reportArgumentType]
    return Packing(argument, Domain(tuple(dims.items())), IndexMap(results, fill), plan.acc)


class _Emit:
    """Emits one depthwise convolution."""

    def __init__(self, e: KernelEmitter, plan: Plan, config: Config) -> None:
        self.e, self.plan = e, plan
        self.tile, self.vectors = config["tile"], config["vectors"]
        self.row_parts, self.channel_parts = config["row_parts"], config["channel_parts"]
        self.channels_inner = config["channels"] == "inner"
        self.width = self.vectors * plan.lanes
        self.blocks = -(-plan.size["g"] // self.width)

    def emit(self) -> None:
        e, plan = self.e, self.plan
        scratch: list[int] = []
        if not plan.packs:
            window = plan.size["ky"] * plan.size["kx"]
            scratch.append(e.workspace(self.blocks * window * self.width * plan.acc.bytes))
            self._pack(scratch[0])
        outer = list(plan.outer.values())
        tasks = prod(outer) * self.row_parts * self.channel_parts
        with e.launch(tasks, plan.nest.operands, plan.nest.results, scratch_read=scratch) as body, e.tasks(
            body.first, body.last
        ) as task:  # fmt: skip
            *at, rows, channels = e.unflatten(task, [*outer, self.row_parts, self.channel_parts])
            where = dict(zip(plan.outer, at, strict=True))
            weights = body.workspaces[0] if scratch else body.operands[1].pointer
            first, last = self._part(channels, self.channel_parts, self.blocks)
            top, bottom = self._part(rows, self.row_parts, plan.size["oy"])
            if self.channels_inner:
                with e.loop(top, bottom, name="oy", unroll=False) as oy:
                    self._line(body, {**where, "oy": oy}, weights, first, last)
            else:
                with (
                    e.loop(first, last, name="block", unroll=False) as block,
                    e.loop(top, bottom, name="oy", unroll=False) as oy,
                ):
                    self._line(body, {**where, "oy": oy}, weights, block, None)

    def _part(self, part: Int, parts: int, count: int) -> tuple[Int, Int]:
        e = self.e
        if parts == 1:
            return 0, count
        first = e.floordiv(e.mul(part, count), parts, nonnegative=True)
        return first, e.floordiv(e.mul(e.add(part, 1), count), parts, nonnegative=True)

    def _pack(self, scratch: int) -> None:
        """The launch that writes the weights as `_packing` says."""
        e, plan = self.e, self.plan
        window = {n: plan.size[n] for n in ("ky", "kx")}
        lanes = plan.lanes
        with e.launch(
            self.blocks, plan.nest.operands, plan.nest.results, writes=(), scratch_written=(scratch,)
        ) as body, e.tasks(body.first, body.last) as block:  # fmt: skip
            taps = prod(window.values())
            with e.loop(0, taps, name="tap", unroll=False) as tap:
                at = dict(zip(window, e.unflatten(tap, list(window.values())), strict=True))
                for v in range(self.vectors):
                    channel = e.add(e.mul(block, self.width), v * lanes)
                    mask = e.first_lanes(e.sub(plan.size["g"], channel), lanes)
                    value = body.operands[1].load(e, Point(at).along("g", channel, lanes, mask))
                    value = cast(e, value, plan.acc)
                    place = e.add(e.mul(e.add(e.mul(block, taps), tap), self.width), v * lanes)
                    e.b.store(
                        spread(e, value, lanes).ir,
                        address(e, body.workspaces[scratch], place, plan.acc),
                        align=plan.acc.bytes,
                    )

    # A row of the output.

    def _static(self, start: int, count: int) -> bool:
        """Whether the tile at `start` has taps that fall outside."""
        if self.plan.x is None:
            return False
        stride, dilation, first, width = self.plan.x
        low = start * stride + first
        high = (start + count - 1) * stride + (self.plan.size["kx"] - 1) * dilation + first
        return low < 0 or high >= width

    def _line(self, body: Body, at: dict[str, Int], weights: Any, first: Int, last: Int | None) -> None:
        """One output row, of the channel blocks first … last - 1, or of block `first` alone."""
        e, size = self.e, self.plan.size
        starts = list(range(0, size["ox"], self.tile))
        full = [s for s in starts if s + self.tile <= size["ox"]]
        inner = [s for s in full if not self._static(s, self.tile)]

        def blocks(ox: Int, count: int, border: bool) -> None:
            if last is None:
                self._tile(body, at, weights, first, ox, count, border)
                return
            with e.loop(first, last, name="block", unroll=False) as block:
                self._tile(body, at, weights, block, ox, count, border)

        done = False
        for s in starts:
            if s in inner:
                if not done:
                    with e.loop(inner[0], inner[-1] + 1, self.tile, name="ox", unroll=False) as ox:
                        blocks(ox, self.tile, False)
                    done = True
                continue
            blocks(s, min(self.tile, size["ox"] - s), self._static(s, min(self.tile, size["ox"] - s)))

    def _tile(
        self, body: Body, at: Mapping[str, Int], weights: Any, block: Int, ox: Int, count: int, border: bool
    ) -> None:
        """Output pixels ox … ox + count - 1 of a row and a block of channels."""
        e, plan = self.e, self.plan
        lanes, acc = plan.lanes, plan.acc
        channel = e.mul(block, self.width)
        masks = [self._mask(e.add(channel, v * lanes), v) for v in range(self.vectors)]
        zero = constant(vector(compute_type(acc), lanes), 0)
        sums = [[e.var(zero) for _ in range(self.vectors)] for _ in range(count)]
        own, rest = split(plan.source.offset, ("ky", "kx"))
        base = scalar_expr(e, rest, {**at, "ox": ox, "g": channel}, plan.nest.ranges)
        pixel = address(e, body.operands[0].pointer, base, plan.source.dtype)
        start, stop = self._window(at["oy"])
        taps = plan.size["ky"] * plan.size["kx"]
        filters = address(e, weights, e.mul(block, taps * self.width), acc)
        with e.loop(start, stop, name="ky", unroll=False) as ky:
            moved = scalar_expr(e, own, {"ky": ky, "kx": 0}, plan.nest.ranges)
            line = address(e, pixel, moved, plan.source.dtype)
            mine = address(e, filters, e.mul(ky, plan.size["kx"] * self.width), acc)
            self._taps(sums, line, mine, ox if border else None, masks)
        self._finish(body, [[s.get() for s in row] for row in sums], at, ox, channel, masks)

    def _mask(self, channel: Int, v: int) -> Any:
        plan = self.plan
        if plan.size["g"] % self.width == 0 or (isinstance(channel, int) and channel + plan.lanes <= plan.size["g"]):
            return None
        return self.e.first_lanes(self.e.maximum(self.e.sub(plan.size["g"], channel), 0), plan.lanes)

    def _window(self, oy: Int) -> tuple[Int, Int]:
        """The rows of the window that lie inside for an output row."""
        e, ky = self.e, self.plan.size["ky"]
        if self.plan.y is None or (ky == 1 and self.plan.y is None):
            return 0, ky
        stride, dilation, first, height = self.plan.y
        top = e.add(e.mul(oy, stride), first)
        dilation = max(dilation, 1)
        low = e.maximum(0, e.floordiv(e.sub(dilation - 1, top), dilation))
        high = e.minimum(ky, e.add(e.floordiv(e.sub(height - 1, top), dilation), 1))
        return low, high

    def _taps(self, sums: Sequence[Sequence[Var]], line: Any, filters: Any, ox: Int | None, masks: list[Any]) -> None:
        """The taps of one row of the window; `ox`: where the tile starts if it touches the border.

        Pixel after pixel, each with all its uses, so that only the sums and the weights stay in registers.
        """
        e, plan = self.e, self.plan
        lanes, acc = plan.lanes, plan.acc
        step, tap = plan.steps
        uses: dict[int, list[tuple[int, int]]] = {}
        for t in range(len(sums)):
            for kx in range(plan.size["kx"]):
                if ox is None or self._inside(ox, t, kx):
                    uses.setdefault(t * step + kx * tap, []).append((t, kx))
        weights: dict[tuple[int, int], Any] = {}
        for offset, pairs in sorted(uses.items()):
            for v in range(self.vectors):
                place = address(e, line, offset + v * lanes, plan.source.dtype)
                x = cast(e, self._load(place, masks[v]), acc).ir
                for t, kx in pairs:
                    if (kx, v) not in weights:
                        at = address(e, filters, kx * self.width + v * lanes, acc)
                        weights[kx, v] = load_raw(e, at, acc, lanes)
                    total = sums[t][v]
                    if acc.is_float:
                        total.set(e.fma(x, weights[kx, v], total.get()))
                    else:
                        total.set(e.b.add(total.get(), e.b.mul(x, weights[kx, v])))

    def _load(self, place: Any, mask: Any) -> Val:
        if mask is None:
            return load(self.e, place, self.plan.source.dtype, self.plan.lanes)
        return load_masked(self.e, place, self.plan.source.dtype, self.plan.lanes, mask)

    def _inside(self, ox: Int, t: int, kx: int) -> bool:
        assert self.plan.x is not None and isinstance(ox, int)
        stride, dilation, first, width = self.plan.x
        return 0 <= (ox + t) * stride + kx * dilation + first < width

    def _finish(
        self, body: Body, sums: Sequence[Sequence[Any]], at: Mapping[str, Int], ox: Int, channel: Int, masks: list[Any]
    ) -> None:
        e, plan = self.e, self.plan
        anchor = plan.problem.anchor
        assert isinstance(anchor, Conv)
        moving = {"n", "oy", "ox"}
        extra = plan.epilogue_operands
        fixed = [
            i for i in extra
            if not body.operands[i].where.symbols & moving and not body.operands[i].where.indirect
        ]  # fmt: skip
        known: list[dict[int, Val]] = []
        for v in range(self.vectors):
            point = Point(dict(at)).along("g", e.add(channel, v * plan.lanes), plan.lanes, masks[v])
            known.append(dict(zip(fixed, load_all(e, body.operands, point, fixed), strict=True)))
        for t, row in enumerate(sums):
            for v, value in enumerate(row):
                here = Point({**at, "ox": e.add(ox, t)})
                point = here.along("g", e.add(channel, v * plan.lanes), plan.lanes, masks[v])
                values = [Val(plan.acc, value), *load_all(e, body.operands, point, extra, known[v])]
                index = indices(e, point, plan.nest.index, plan.nest.ranges) if plan.nest.index else None
                made = emit_region(e, anchor.epilogue, values, index)
                for access, result in zip(body.results, made, strict=True):
                    access.store(e, point, result)
