# SPDX-License-Identifier: Apache-2.0
"""`cuda.naive`: any anchor, any map; one thread a parallel point, loops over the reduce dims. Right before fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.codegen.cuda.emit import Unit, codec, literal, register
from tcc.codegen.cuda.emit.combine import identity, step
from tcc.codegen.cuda.emit.scalar import used_arguments
from tcc.codegen.cuda.templates.common import flops, memory_seconds, parallel_size
from tcc.codegen.cuda.templates.irregular import emit_scan, emit_scatter, emit_topk
from tcc.codegen.cuda.templates.recurrence import block_refuses, emit_block
from tcc.codegen.template import Columns, Config, Emitted, Space, Template, entry_name, template
from tcc.ir.core import Region, Value
from tcc.ir.expr import ceildiv
from tcc.ir.kernel import (
    Anchor,
    Attention,
    Contraction,
    Func,
    Map,
    Ragged,
    Recurrence,
    Reduce,
    Rows,
    Scan,
    Scatter,
    TopK,
)
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target
from tcc.ir.types import STRING


@template
class Naive(Template):
    """One thread a parallel point; of a recurrence, one block a sequence."""

    name = "cuda.naive"
    kind = "cuda"
    matches = (Anchor,)
    space = Space(threads=[64, 128, 256])

    def accepts(self, problem: Func, target: Target) -> str | None:
        if isinstance(problem.anchor, Recurrence):
            return block_refuses(problem, target)
        return "strings have no kernels" if any(t.dtype is STRING for t in problem.arg_types) else None

    def default(self, problem: Func, target: Target) -> Config | None:
        return {"threads": 128}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Uncoalesced reads and no reuse: a few per cent of the machine.
        problem = typical(problem)
        points = max(parallel_size(problem), 1)
        busy = min(1.0, points / (configs["threads"][0] * target.cores * 4.0))
        work = 40.0 * flops(problem) / (target.flop_rate * busy) + 4.0 * memory_seconds(problem, target)
        return target.launch_seconds + work * (1.0 + 0.01 * np.abs(np.log2(configs["threads"] / 128.0)))

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        anchor = problem.anchor
        flat, entry, threads = "fp", entry_name(problem, self.name, config), config["threads"]
        if isinstance(anchor, Recurrence):
            return emit_block(problem, target, entry, threads, rows=1, packed=False)
        if isinstance(anchor, Scan):
            return emit_scan(problem, target, entry, threads, block=False, items=1)
        if isinstance(anchor, TopK):
            return emit_topk(problem, target, entry, threads, mode=0)
        if isinstance(anchor, Scatter):
            return emit_scatter(problem, target, entry, threads, winners=False)
        unit = Unit(problem, target, entry, {flat: anchor.domain.parallel_names})
        unit.add(_Point(unit, flat).text())
        unit.define(THREADS=threads, Coordinate=unit.coordinate_type(flat))
        unit.macro(POINTS=unit.size(flat))
        grid = ceildiv(unit.sizes[flat], threads)
        return unit.emitted(
            unit.source("naive.cuh"), [unit.launch((grid, 1, 1), threads)], grid=grid, block=threads, instruction="FMA"
        )


class _Point:
    """Generates `tcc_point`."""

    def __init__(self, unit: Unit, flat: str) -> None:
        self.unit = unit
        self.flat = flat
        self.env = {flat: f"x_{flat}"}
        self.regions = 0

    def text(self) -> str:
        anchor = self.unit.anchor
        if isinstance(anchor, Map):
            lines = self.finish(anchor.body, [], range(len(anchor.ins)))
        elif isinstance(anchor, Reduce):
            lines = self.reduce(anchor)
        elif isinstance(anchor, Contraction):
            lines = self.contraction(anchor)
        elif isinstance(anchor, Rows):
            lines = self.rows(anchor)
        elif isinstance(anchor, Ragged):
            lines = self.ragged(anchor)
        else:
            assert isinstance(anchor, Attention)
            lines = self.attention(anchor)
        body = "\n".join(f"  {line}" for line in lines)
        kind = self.unit.coordinate_type(self.flat)
        return f"TCC_FN void tcc_point(const Args& args, const {kind} x_{self.flat}) {{\n{body}\n}}\n"

    def region(
        self,
        region: Region,
        given: Sequence[str],
        operands: Sequence[int],
        env: dict[str, str],
        operands_first: bool,
        stored: bool = False,
    ) -> tuple[list[str], list[str], list[Any]]:
        """The region with its operands read at the point; `given` are the other arguments."""
        prefix = f"s{self.regions}_"
        self.regions += 1
        used = used_arguments(region)
        mine = used[: len(operands)] if operands_first else used[len(given) :]
        lines, names = self.unit.loads([i for i, u in zip(operands, mine, strict=False) if u], env, prefix=prefix + "v")
        scalars = [names.get(i, "0") for i in operands]
        args = [*scalars, *given] if operands_first else [*given, *scalars]
        more, values, types = self.unit.apply(region, args, env, prefix, stored)
        return [*lines, *more], values, types

    def finish(self, region: Region, given: Sequence[str], operands: Sequence[int]) -> list[str]:
        """The last region, and the stores."""
        lines, values, _ = self.region(region, given, operands, self.env, operands_first=False, stored=True)
        _, stores, _ = self.unit.stores(values, self.env)
        return [*lines, *stores]

    def over(self, dims: Sequence[str], lines: Sequence[str]) -> list[str]:
        """The statements in a loop nest over reduce dims."""
        out = ["{", *(f"  {line}" for line in lines), "}"]
        for d in reversed(dims):
            kind = self.unit.coordinate_type(d)
            out = [f"for ({kind} x_{d} = 0; x_{d} < {self.unit.size(d)}; ++x_{d})", *(f"  {line}" for line in out)]
        return out

    def inner_env(self) -> dict[str, str]:
        return {**self.env, **{d: f"x_{d}" for d in self.unit.anchor.domain.reduce_names}}

    def reduce(self, anchor: Reduce) -> list[str]:
        acc = anchor.acc
        names = [f"acc{i}" for i in range(len(anchor.combine))]
        start = [f"{register(acc)} {n} = {identity(c, acc)};" for n, c in zip(names, anchor.combine, strict=True)]
        lines, values, types = self.region(anchor.body, [], range(len(anchor.ins)), self.inner_env(), True)
        for n, c, v, t in zip(names, anchor.combine, values, types, strict=True):
            lines.append(f"{n} = {step(c, n, f'tcc::cast<{codec(acc)}, {codec(t)}>({v})', acc)};")
        extra = range(len(anchor.ins), len(anchor.operands))
        return [*start, *self.over(anchor.domain.reduce_names, lines), *self.finish(anchor.epilogue, names, extra)]

    def ragged(self, anchor: Ragged) -> list[str]:
        """Loops from bound to bound, which are read first."""
        acc, unit = anchor.acc, self.unit
        names = [f"acc{i}" for i in range(len(anchor.combine))]
        start = [f"{register(acc)} {n} = {identity(c, acc)};" for n, c in zip(names, anchor.combine, strict=True)]
        loads, bounds = unit.loads(range(len(anchor.bounds)), self.env, prefix="b")
        lines, values, types = self.region(anchor.body, [], anchor.inside, self.inner_env(), True)
        for n, c, v, t in zip(names, anchor.combine, values, types, strict=True):
            lines.append(f"{n} = {step(c, n, f'tcc::cast<{codec(acc)}, {codec(t)}>({v})', acc)};")
        for i, d in reversed(list(enumerate(anchor.domain.reduce_names))):
            kind, size = unit.coordinate_type(d), unit.size(d)
            ends = [
                f"const {kind} {word}_{d} = "
                f"({kind})tcc::arith_min(tcc::arith_max((long long)({bounds[2 * i + k]}), 0ll), (long long)({size}));"
                for k, word in enumerate(("from", "to"))
            ]
            lines = [
                *ends,
                f"for ({kind} x_{d} = from_{d}; x_{d} < to_{d}; ++x_{d}) {{",
                *(f"  {line}" for line in lines),
                "}",
            ]
        return [*start, *loads, *lines, *self.finish(anchor.epilogue, names, anchor.after)]

    def product(self, operands: Sequence[Value], first: int, region: Region) -> tuple[list[str], str]:
        """One factor of a contraction in the accumulator's type."""
        acc = self.unit.anchor.attrs["acc"]
        lines, (value,), (kind,) = self.region(region, [], range(first, first + len(operands)), self.inner_env(), True)
        return lines, f"tcc::cast<{codec(acc)}, {codec(kind)}>({value})"

    def contraction(self, anchor: Contraction) -> list[str]:
        acc = anchor.acc
        left, a = self.product(anchor.lhs, 0, anchor.lhs_body)
        right, b = self.product(anchor.rhs, len(anchor.lhs), anchor.rhs_body)
        product = f"{a} * {b}" if acc.is_float else f"tcc::imul<{codec(acc)}>({a}, {b})"
        lines = [*left, *right, f"acc0 = {step('sum', 'acc0', product, acc)};"]
        extra = range(len(anchor.lhs) + len(anchor.rhs), len(anchor.operands))
        return [
            f"{register(acc)} acc0 = {literal(0, acc)};",
            *self.over(anchor.domain.reduce_names, lines),
            *self.finish(anchor.epilogue, ["acc0"], extra),
        ]

    def rows(self, anchor: Rows) -> list[str]:
        acc = anchor.acc
        out: list[str] = []
        stages: list[str] = []
        ins = range(len(anchor.ins))
        for i, (combiner, region) in enumerate(zip(anchor.combine, anchor.stages[:-1], strict=True)):
            out.append(f"{register(acc)} stage{i} = {identity(combiner, acc)};")
            lines, (value,), (kind,) = self.region(region, stages, ins, self.inner_env(), True)
            text = step(combiner, f"stage{i}", f"tcc::cast<{codec(acc)}, {codec(kind)}>({value})", acc)
            out += self.over(anchor.domain.reduce_names, [*lines, f"stage{i} = {text};"])
            stages = [*stages, f"stage{i}"]
        lines, values, _ = self.region(anchor.stages[-1], stages, ins, self.inner_env(), True, stored=True)
        _, stores, _ = self.unit.stores(values, self.inner_env())
        return [*out, *self.over(anchor.domain.reduce_names, [*lines, *stores])]

    def attention(self, anchor: Attention) -> list[str]:
        """Online softmax over the keys (Milakov and Gimelshein, 2018)."""
        acc = anchor.acc
        c, kind = codec(acc), register(acc)
        unit, env = self.unit, self.inner_env()
        qk, names = unit.loads([0, 1], env, prefix="qk")
        q, k = (f"tcc::cast<{c}, {codec(unit.operand(i).dtype)}>({names[i]})" for i in (0, 1))
        score, (s,), (t,) = self.region(anchor.score, ["dot"], range(3, len(anchor.operands)), env, False)
        value, names = unit.loads([2], env, prefix="v")
        v = f"tcc::cast<{c}, {codec(unit.operand(2).dtype)}>({names[2]})"
        least = literal(float("-inf"), acc)
        body = [
            f"{kind} dot = {literal(0, acc)};",
            *self.over(["k"], [*qk, f"dot += {q} * {k};"]),
            *score,
            f"const {kind} score = tcc::cast<{c}, {codec(t)}>({s});",
            f"if (score != {least}) {{",
            f"  const {kind} top = tcc::arith_max(most, score);",
            "  const auto keep = tcc::math_exp(most - top), weight = tcc::math_exp(score - top);",
            *(f"  {line}" for line in value),
            f"  total = total * keep + weight; acc0 = acc0 * keep + weight * {v}; most = top;",
            "}",
        ]
        return [
            f"{kind} most = {least}, total = {literal(0, acc)}, acc0 = {literal(0, acc)};",
            *self.over(["n"], body),
            "if (total != 0) acc0 /= total;",
            *self.finish(anchor.epilogue, ["acc0"], []),
        ]
