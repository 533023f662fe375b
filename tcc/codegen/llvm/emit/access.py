# SPDX-License-Identifier: Apache-2.0
"""Reads and writes through index maps, at one point or at V points along one dim of the domain.

The address of a point is an expression over domain dims (Σ index × stride). What depends on the lanes' dim is taken
apart from the rest: coefficient 0 is a broadcast, 1 a vector load, anything else strided or gathered. What does not
depend on an inner loop is loop-invariant arithmetic, which LLVM moves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tcc.codegen.llvm.emit import memory
from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.convert import literal, spread
from tcc.codegen.llvm.emit.values import I32, I64, Int, Val, lanes_of, vector
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import (
    Binary,
    Dim,
    Ranges,
    Sum,
    Sym,
    add,
    bounds,
    coefficient,
    mul,
    simplify,
    split,
    substitute,
    symbols,
    within,
)
from tcc.ir.types import I64 as INDEX
from tcc.ir.types import DType, TensorType


@dataclass(frozen=True)
class Point:
    """Where code works: `at` gives each domain dim's coordinate (of lane 0). With `lanes` > 1, lane j is at
    `at[dim] + j`, and only lanes in `mask` (None: all) are read or written."""

    at: Mapping[str, Int]
    dim: str | None = None
    lanes: int = 1
    mask: Any = None
    given: Mapping[str, Val] = field(default_factory=dict[str, Val])

    def moved(self, **coordinates: Int) -> Point:
        """The point with coordinates replaced (or added)."""
        return replace(self, at={**self.at, **coordinates})

    def along(self, dim: str, at: Int, lanes: int, mask: Any = None) -> Point:
        """V points from `at` on along a dim."""
        return replace(self, at={**self.at, dim: at}, dim=dim, lanes=lanes, mask=mask)


def indices(e: Emitter, point: Point, dims: Mapping[str, Dim] | None = None, ranges: Ranges | None = None) -> Any:
    """Every dim's coordinate, for `kernel.index`; a vector along the lanes' dim. `dims`: the domain's dims as
    expressions over those of the point, where loops were merged; those that the point does not have are left out."""
    if dims is None:
        return {name: _coordinate(e, point, name, I64) for name in point.at}
    here = frozenset(point.at)
    return {name: expr_at(e, expr, point, ranges or {}) for name, expr in dims.items() if symbols(expr) <= here}


def expr_at(e: Emitter, expr: Dim, point: Point, ranges: Ranges) -> Int:
    """An expression of dims at the point: a vector where it mentions the lanes' dim."""
    access = Access(None, Address(INDEX, expr, ranges))
    return access.value(e, expr, point)


def _coordinate(e: Emitter, point: Point, name: str, element: Any) -> Int:
    at = point.at[name]
    if name != point.dim or point.lanes == 1:
        return at
    return e.add(e.splat(_narrow(e, e.i64(at), element), point.lanes), e.iota(point.lanes, element))


def _narrow(e: Emitter, value: Any, element: Any) -> Any:
    if element == I64 or lanes_of(value.type) > 1:
        return value
    return e.b.trunc(value, element) if value.type != element else value


def scalar_expr(e: Emitter, expr: Dim, at: Mapping[str, Int], ranges: Ranges) -> Int:
    """An index expression as an i64 (or int), for scalar coordinates."""
    return _expr(e, expr, lambda name: at[name], ranges)


def _expr(e: Emitter, expr: Dim, value: Any, ranges: Ranges) -> Int:
    if isinstance(expr, int):
        return expr
    if isinstance(expr, Sym):
        return value(expr.name)
    if isinstance(expr, Binary):
        lhs, rhs = _expr(e, expr.lhs, value, ranges), _expr(e, expr.rhs, value, ranges)
        if expr.op == "min":
            return e.minimum(lhs, rhs)
        if expr.op == "max":
            return e.maximum(lhs, rhs)
        nonnegative = bounds(expr.lhs, ranges)[0] >= 0
        return (e.floordiv if expr.op == "floordiv" else e.mod)(lhs, rhs, nonnegative)
    assert isinstance(expr, Sum)
    total: Int = 0
    for atoms, coef in expr.terms:
        term: Int = coef
        for atom in atoms:
            term = e.mul(term, _expr(e, atom, value, ranges))
        total = e.add(total, term)
    return e.add(total, expr.const)


def _fits_i32(expr: Dim, ranges: Ranges) -> bool:
    """Whether the expression and all its parts are known to lie in 32 bits."""
    low, high = bounds(expr, ranges)
    if low < -(1 << 31) or high >= 1 << 31:
        return False
    if isinstance(expr, Binary):
        return _fits_i32(expr.lhs, ranges) and _fits_i32(expr.rhs, ranges)
    if isinstance(expr, Sum):
        total = abs(expr.const)
        for atoms, coef in expr.terms:
            size = abs(coef)
            for atom in atoms:
                if not _fits_i32(atom, ranges):
                    return False
                size *= max(map(abs, bounds(atom, ranges)))
            total += size
        return total < 1 << 31
    return True


@dataclass(frozen=True)
class Address:
    """Where an operand or result is read or written, as expressions of domain dims: the element's `offset`, the
    `guards` (index, extent) and `zero` conditions of a read that may be out of range, and its `fill`."""

    dtype: DType
    offset: Dim
    ranges: Ranges
    guards: tuple[tuple[Dim, Dim], ...] = ()
    zero: tuple[Dim, ...] = ()
    fill: float | int | None = None
    empty: bool = False

    @staticmethod
    def of(type: TensorType, access: IndexMap, ranges: Ranges) -> Address:
        """The address that an index map gives in a tensor."""
        offset: Dim = 0
        for index, stride in zip(access.results, type.element_strides, strict=True):
            offset = add(offset, mul(index, stride))
        guards: list[tuple[Dim, Dim]] = []
        if access.fill is not None:
            for index, extent in zip(access.results, type.shape, strict=True):
                if not within(index, extent, ranges):
                    guards.append((simplify(index, ranges), extent))
        return Address(
            type.dtype,
            simplify(offset, ranges),
            ranges,
            tuple(guards),
            tuple(simplify(z, ranges) for z in access.zero if z != 0),
            access.fill,
            access.fill is not None and 0 in type.shape,
        )

    def substitute(self, env: Mapping[str, Dim], ranges: Ranges) -> Address:
        """The address with dims replaced by expressions over dims of other bounds."""
        return replace(
            self,
            offset=substitute(self.offset, env, ranges),
            ranges=ranges,
            guards=tuple((substitute(g, env, ranges), n) for g, n in self.guards),
            zero=tuple(substitute(z, env, ranges) for z in self.zero),
        )

    @property
    def expressions(self) -> tuple[Dim, ...]:
        return (self.offset, *(g for g, _ in self.guards), *self.zero)

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The dims and `$i` that decide what is read."""
        return frozenset(s for x in self.expressions for s in symbols(x))

    @property
    def indirect(self) -> tuple[str, ...]:
        """The `$i` among them."""
        return tuple(sorted(s for s in self.symbols if s.startswith("$")))

    @property
    def is_guarded(self) -> bool:
        """Whether some read may be out of range."""
        return bool(self.guards or self.zero)

    def stride_along(self, dim: str) -> int | None:
        """Elements from one point to the next along a dim; None if that varies."""
        return coefficient(self.offset, dim)


@dataclass(frozen=True)
class Access:
    """An address in a buffer of the kernel."""

    pointer: Any
    where: Address

    @property
    def dtype(self) -> DType:
        return self.where.dtype

    @property
    def _fill(self) -> Val:
        return literal(self.dtype, 0 if self.where.fill is None else self.where.fill)

    # Reading.

    def load(self, e: Emitter, point: Point) -> Val:
        """The scalar at the point: one lane where it does not vary along the lanes."""
        if self.where.empty:
            return self._fill
        varying = self._varying(point)
        if not varying:
            return self._load_scalar(e, point)
        mine, rest = split(self.where.offset, varying)
        base = memory.address(e, self.pointer, self._scalar(e, rest, point), self.dtype)
        condition = self._condition(e, point)
        if point.mask is None and not isinstance(condition, bool) and lanes_of(condition.type) == 1:
            return self._load_if(e, point, condition)
        mask = e.both(condition, True if point.mask is None else point.mask)
        if mask is False:
            return self._fill
        whole = isinstance(mask, bool)
        if not whole:
            mask = e.splat(mask, point.lanes)
        fill = None if self.where.fill is None else self._fill
        step = coefficient(mine, point.dim) if point.dim is not None and varying == {point.dim} else None
        if step == 1:
            at = memory.address(e, base, point.at[point.dim], self.dtype)  # pyright: ignore[reportArgumentType]
            if whole:
                return memory.load(e, at, self.dtype, point.lanes)
            return memory.load_masked(e, at, self.dtype, point.lanes, mask, fill)
        if step is not None and whole and 1 <= abs(step) <= 4 and self.dtype.bytes <= 4:
            return self._load_strided(e, point, base, step)
        offsets = self._vector(e, mine, point)
        return memory.gather(e, base, offsets, self.dtype, None if whole else mask, fill)

    def _load_if(self, e: Emitter, point: Point, condition: Any) -> Val:
        """A vector that is in range as a whole or not at all: read under a branch."""
        bare = Access(self.pointer, replace(self.where, guards=(), zero=()))
        with e.either(condition) as (then, otherwise):
            with then:
                value = bare.load(e, point)
                here = e.b.block
            with otherwise:
                fill = e.splat(self._fill.ir, point.lanes)
                there = e.b.block
        phi = e.b.phi(value.ir.type)
        phi.add_incoming(value.ir, here)
        phi.add_incoming(fill, there)
        return Val(self.dtype, phi, value.exact)

    def _load_strided(self, e: Emitter, point: Point, base: Any, step: int) -> Val:
        """Every step-th element, from whole vectors that end with the last one needed."""
        lanes, n = point.lanes, abs(step)
        first = e.mul(point.at[point.dim], step)  # pyright: ignore[reportArgumentType]
        if step < 0:
            first = e.add(first, step * (lanes - 1))
        at = memory.address(e, base, first, self.dtype)
        parts = [
            memory.load_raw(e, memory.address(e, at, i * lanes, self.dtype), self.dtype, lanes) for i in range(n - 1)
        ]
        # The last vector starts earlier, so that nothing behind the last element is touched.
        start = (lanes - 1) * n + 1 - lanes
        parts.append(memory.load_raw(e, memory.address(e, at, start, self.dtype), self.dtype, lanes))
        picked: Any = None
        for i, part in enumerate(parts):
            low = i * lanes if i < n - 1 else start
            wanted = {j: j * n - low for j in range(lanes) if (j * n) // lanes == min(i, n - 1)}
            if i == n - 1:
                wanted = {j: j * n - low for j in range(lanes) if j * n >= (n - 1) * lanes}
            if picked is None:
                picked = e.shuffle(part, part, [wanted.get(j, 0) for j in range(lanes)])
            else:
                picked = e.shuffle(picked, part, [lanes + wanted[j] if j in wanted else j for j in range(lanes)])
        if step < 0:
            picked = e.shuffle(picked, picked, range(lanes)[::-1])
        return memory.from_storage(e, picked, self.dtype)

    def _load_scalar(self, e: Emitter, point: Point) -> Val:
        condition = self._condition(e, replace(point, dim=None, lanes=1))
        offset = self._scalar(e, self.where.offset, point)
        if condition is False:
            return self._fill
        at = memory.address(e, self.pointer, offset, self.dtype)
        if condition is True:
            return memory.load(e, at, self.dtype)
        # Out of range, the first element is read instead, and thrown away.
        safe = memory.address(e, self.pointer, e.select(condition, e.i64(offset), I64(0)), self.dtype)
        value = memory.load(e, safe, self.dtype)
        other = self._fill
        return Val(self.dtype, e.b.select(condition, value.ir, other.ir), exact=True)

    def _condition(self, e: Emitter, point: Point) -> Any:
        """Whether the point is in range: a Python bool, an i1 or a vector of them."""
        out: Any = True
        for index, extent in self.where.guards:
            out = e.both(out, e.within(self.value(e, index, point), self._scalar(e, extent, point)))
        for z in self.where.zero:
            out = e.both(out, e.equal(self.value(e, z, point), 0))
        return out

    def _varying(self, point: Point) -> set[str]:
        """The symbols of the map that differ between lanes."""
        if point.lanes == 1:
            return set()
        names = {s for s in self.where.symbols if s.startswith("$") and point.given[s].lanes > 1}
        return names | ({point.dim} & self.where.symbols)  # pyright: ignore[reportReturnType]

    def value(self, e: Emitter, expr: Dim, point: Point) -> Int:
        """An expression at the point: a vector where lanes differ."""
        return self._vector(e, expr, point) if symbols(expr) & self._varying(point) else self._scalar(e, expr, point)

    def _scalar(self, e: Emitter, expr: Dim, point: Point) -> Int:
        return _expr(e, expr, lambda name: self._symbol(e, name, point, I64), self.where.ranges)

    def _vector(self, e: Emitter, expr: Dim, point: Point) -> Any:
        """An expression on every lane, in 32 bits where it fits."""
        element = I32 if _fits_i32(expr, self.where.ranges) else I64
        narrow: dict[str, Int] = {}

        def value(name: str) -> Int:
            if name not in narrow:
                x = self._symbol(e, name, point, element)
                if name == point.dim:
                    x = _coordinate(e, point, name, element)
                narrow[name] = x if isinstance(x, int) or lanes_of(x.type) > 1 else _narrow(e, x, element)
            return narrow[name]

        out = _expr(e, expr, value, self.where.ranges)
        return e.splat(vector_of(e, out, element), point.lanes)

    def _symbol(self, e: Emitter, name: str, point: Point, element: Any) -> Int:
        if not name.startswith("$"):
            return point.at[name]
        given = point.given[name]
        if given.literal is not None:
            return int(given.literal)
        wide = vector(element, given.lanes)
        bits = given.ir.type.element.width if given.lanes > 1 else given.ir.type.width
        if bits > element.width:
            return e.b.trunc(given.ir, wide)
        if bits == element.width:
            return given.ir
        return e.b.sext(given.ir, wide) if given.dtype.kind == "int" else e.b.zext(given.ir, wide)

    def place(self, e: Emitter, point: Point) -> Any:
        """The address in memory of the point (of its first lane)."""
        return memory.address(e, self.pointer, self._scalar(e, self.where.offset, point), self.dtype)

    # Writing.

    def store(self, e: Emitter, point: Point, value: Val) -> None:
        """Write the scalar of the point (of every lane)."""
        if point.lanes == 1:
            at = memory.address(e, self.pointer, self._scalar(e, self.where.offset, point), self.dtype)
            if point.mask is None:
                memory.store(e, value, at)
            else:
                memory.store_masked(e, value, at, point.mask)
            return
        assert point.dim is not None
        value = spread(e, value, point.lanes)
        mine, rest = split(self.where.offset, (point.dim,))
        base = memory.address(e, self.pointer, self._scalar(e, rest, point), self.dtype)
        if coefficient(mine, point.dim) == 1:
            at = memory.address(e, base, point.at[point.dim], self.dtype)
            if point.mask is None:
                memory.store(e, value, at)
            else:
                memory.store_masked(e, value, at, point.mask)
            return
        memory.scatter(e, value, base, self._vector(e, mine, point), point.mask)


def vector_of(e: Emitter, value: Int, element: Any) -> Any:
    """An int as a literal of that width; values as they are."""
    return element(value) if isinstance(value, int) else value


def load_all(
    e: Emitter,
    accesses: Sequence[Access],
    point: Point,
    which: Sequence[int] | None = None,
    known: Mapping[int, Val] | None = None,
) -> list[Val]:
    """What the accesses (those of the indices `which`; None: all) read at the point; indirect ones after those they
    go through. `known`: what was read before, by index."""
    done: dict[int, Val] = dict(known or {})

    def load(i: int) -> Val:
        if i not in done:
            access = accesses[i]
            given = {**point.given, **{s: load(int(s[1:])) for s in access.where.indirect if s not in point.given}}
            done[i] = access.load(e, replace(point, given=given))
        return done[i]

    return [load(i) for i in (range(len(accesses)) if which is None else which)]
