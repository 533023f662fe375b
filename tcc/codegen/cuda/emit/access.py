# SPDX-License-Identifier: Apache-2.0
"""How a kernel touches one operand or result: linear offset, guards, and what can be done with consecutive points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tcc.codegen.cuda.emit.dtypes import codec, literal
from tcc.codegen.cuda.emit.index import c_index, rewrite
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Dim, Ranges, Sym, add, below, bounds, mod, mul, split, substitute, symbols
from tcc.ir.types import DType, TensorType

Pattern = Literal["vector", "broadcast", "scalar"]


@dataclass(frozen=True)
class Guard:
    """A read is in range only if 0 ≤ `expr` < `extent` (`below`, `above`: which of the two can fail)."""

    expr: Dim
    extent: Dim
    below: bool
    above: bool


@dataclass(frozen=True)
class Access:
    """One operand (`pointer` p0, p1, …) or result (r0, …) at a point of the domain.

    `offset`: of the element, in elements, over domain dims and `$i`; `constant`: a constant of the model.
    """

    pointer: str
    buffer: int
    dtype: DType
    align: int
    constant: bool
    offset: Dim
    guards: tuple[Guard, ...]
    fill: float | int | None
    ranges: Ranges

    @property
    def symbols(self) -> frozenset[str]:
        """Domain dims and `$i` that the offset or a guard mentions."""
        return symbols(self.offset).union(*(symbols(g.expr) for g in self.guards))

    @property
    def indirect(self) -> tuple[int, ...]:
        """The operands whose scalars the offset or a guard needs."""
        return tuple(sorted(int(s[1:]) for s in self.symbols if s.startswith("$")))

    def uses(self, dim: str) -> bool:
        return dim in self.symbols

    def stride(self, dim: str) -> int | None:
        """Elements from one point to the next along dim; None if that differs from point to point or is guarded."""
        if any(dim in symbols(g.expr) for g in self.guards):
            return None
        mine, _ = split(self.offset, [dim])
        step = add(substitute(mine, {dim: add(Sym(dim), 1)}, self.ranges), mul(mine, -1))
        return step if isinstance(step, int) else None

    def neighbours(self, dim: str) -> bool:
        """Whether consecutive points along dim are mostly consecutive in memory."""
        return self.stride(dim) == 1 or self.pattern(dim, 2, anywhere=True) == "vector"

    def pattern(self, dim: str, width: int, anywhere: bool = False) -> Pattern:
        """What reading `width` consecutive points along dim, from a multiple of width, is: one aligned vector (with
        `anywhere`: aligned or not), one element for all, or anything."""
        if dim not in self.symbols:
            return "broadcast"
        q, r = Sym("q__"), Sym("r__")
        hi = self.ranges[dim][1] + 1 if dim in self.ranges else 0
        if hi < width:
            return "scalar"
        ranges = {**self.ranges, "q__": (0, hi // width - 1), "r__": (0, width - 1)}
        env = {dim: add(mul(q, width), r)}
        for g in self.guards:
            if "r__" in symbols(rewrite(g.expr, env, ranges)):
                return "scalar"
        mine, rest = split(rewrite(self.offset, env, ranges), ["r__"])
        if mine == 0:
            return "broadcast"
        size = width * self.dtype.bytes
        aligned = self.align % min(size, 16) == 0 and mod(rest, min(width, 16 // self.dtype.bytes)) == 0
        aligned = aligned or anywhere
        fits = size in (1, 2, 4, 8) or size % 16 == 0
        return "vector" if mine == r and aligned and fits else "scalar"

    def address(self, env: Mapping[str, str], args: str = "args") -> str:
        """The pointer to the element; `env` gives the C++ expression of every symbol."""
        return f"{args}.{self.pointer} + {c_index(self.offset, env, self.ranges)}"

    def condition(self, env: Mapping[str, str]) -> str | None:
        """The C++ condition that the read is in range; None if it always is."""
        parts: list[str] = []
        for g in self.guards:
            text = c_index(g.expr, env, self.ranges)
            if not isinstance(g.extent, int):
                limit = c_index(g.extent, env, self.ranges, wide=True)
                parts.append(f"(unsigned long long)({text}) < (unsigned long long)({limit})")
            elif g.below and g.above:
                wide = "long long" in text
                parts.append(
                    f"({'unsigned long long' if wide else 'unsigned'})({text}) < {g.extent}u{'ll' if wide else ''}"
                )
            elif g.below:
                parts.append(f"{text} >= 0")
            else:
                parts.append(f"{text} < {g.extent}")
        return " && ".join(parts) if parts else None

    def read(self, env: Mapping[str, str]) -> str:
        """The element at a point as a C++ expression (`fill` where out of range)."""
        text = f"tcc::read<{codec(self.dtype)}, {str(self.constant).lower()}>({self.address(env)})"
        condition = self.condition(env)
        if condition is None:
            return text
        assert self.fill is not None
        return f"({condition}) ? {text} : {literal(self.fill, self.dtype)}"


def build_access(
    pointer: str,
    buffer: int,
    type: TensorType,
    index_map: IndexMap,
    ranges: Ranges,
    constant: bool = False,
) -> Access:
    """The access of a tensor through a map over symbols with these bounds."""
    offset: Dim = 0
    guards: list[Guard] = []
    for index, extent, step in zip(index_map.results, type.shape, type.element_strides, strict=True):
        offset = add(offset, mul(index, step))
        if index_map.fill is not None:
            lower, above = bounds(index, ranges)[0] < 0, not below(index, extent, ranges)
            if lower or above:
                guards.append(Guard(index, extent, lower, above))
    for z in index_map.zero:
        if z != 0:
            guards.append(Guard(z, 1, True, True))
    return Access(pointer, buffer, type.dtype, type.align, constant, offset, tuple(guards), index_map.fill, ranges)
