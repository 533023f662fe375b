# SPDX-License-Identifier: Apache-2.0
"""Turns pointwise and index ops of a group into the scalar region of an anchor.

`Scalarizer.value(v, index)` gives the scalar that tensor v holds at an index over the domain. It walks back through
the group: pointwise ops become scalar ops, index ops become index expressions, and what is left at the group's inputs
becomes an operand with an index map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from tcc.ir import arith
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Block, BlockArgument, Op, Region, Value
from tcc.ir.expr import Dim, Sym, add, below, bounds, maximum, minimum, mod, mul, simplify
from tcc.ir.graph import (
    Cast,
    Clip,
    Concat,
    Constant,
    Dims,
    Expand,
    Gather,
    GatherElements,
    GatherNd,
    Iota,
    Pad,
    Reshape,
    Slice,
    Tile,
    Transpose,
    Trilu,
)
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.kernel import Index as IndexOp
from tcc.ir.kernel import Yield
from tcc.ir.kernel.build import RegionBuilder
from tcc.ir.scalar import element
from tcc.ir.types import I64, DType, ScalarType
from tcc.passes.lower.indexing import Index, broadcast_index, fit_affine, reshape_index
from tcc.passes.lower.scalars import TABLE, Scalars, compute_dtype

VIEWS = (Transpose, Reshape, Expand, Slice)
"""Index ops whose result is their operand at another index, always in range."""
GATHERS = (Gather, GatherElements, GatherNd)
"""Index ops that read at places that data decide; the indices must be an input of the group, or a view of one."""
INDEX_OPS = (*VIEWS, *GATHERS, Concat, Pad, Tile, Trilu)
"""Index ops that become index expressions in a region."""


@dataclass
class Accesses:
    """The operands of one region: tensors of the outer graph, each with its index map."""

    values: list[Value] = field(default_factory=list[Value])
    maps: list[IndexMap] = field(default_factory=list[IndexMap])

    def find(self, value: Value, access: IndexMap) -> int:
        """The place of an access, added if it is new."""
        for i, (v, m) in enumerate(zip(self.values, self.maps, strict=True)):
            if v is value and m == access and repr(m.fill) == repr(access.fill):
                return i
        self.values.append(value)
        self.maps.append(access)
        return len(self.values) - 1


class Scalarizer:
    """Builds one region.

    `outer`: block argument of the group → value outside. `leading`: types of the region's first arguments (accumulated
    values). `known`: tensors whose scalar is given (the anchor's result). `fixed`: all operands are known already and
    become arguments at once (regions that share their operands).
    """

    def __init__(
        self,
        domain: Domain,
        outer: Mapping[Value, Value],
        accesses: Accesses,
        leading: Sequence[ScalarType] = (),
        fixed: bool = False,
    ) -> None:
        self.domain = domain
        self.ranges = domain.ranges
        self.outer = outer
        self.accesses = accesses
        self.block = Block(leading)
        self.s = Scalars(RegionBuilder(self.block))
        self.leading = list(self.block.args)
        self.known: dict[Value, Value] = {}
        self._args: dict[int, BlockArgument] = {}
        self._memo: dict[tuple[object, ...], Value] = {}
        self._count = len(leading)
        self.fixed = fixed
        if fixed:
            self._add_args()

    def _add_args(self) -> None:
        first = self._count
        for i, v in enumerate(self.accesses.values):
            self._args[i] = self.block.add_arg(ScalarType(tensor_type(v).dtype))
        assert len(self.block.args) == first + len(self.accesses.values)

    def arg(self, i: int) -> Value:
        """The scalar of access i, as loaded."""
        while len(self.block.args) - self._count <= i and not self.fixed:
            j = len(self.block.args) - self._count
            self._args[j] = self.block.add_arg(ScalarType(tensor_type(self.accesses.values[j]).dtype))
        return self._args[i]

    def region(self, values: Sequence[Value], dtypes: Sequence[DType]) -> Region:
        """The finished region, yielding the values cast to those element types."""
        if not self.fixed:
            for i in range(len(self.accesses.values)):
                self.arg(i)
        out = [self._narrow(v, d) for v, d in zip(values, dtypes, strict=True)]
        self.block.append(Yield(out))
        for op in reversed(list(self.block.ops)):
            if op.results and all(r.use_count == 0 for r in op.results):
                op.erase()
        return Region(self.block)

    def _narrow(self, v: Value, to: DType) -> Value:
        """v as `to`; a value that was only widened for computing goes back to what was loaded."""
        op = v.defining_op
        if isinstance(op, arith.Cast) and op.a.type == ScalarType(to):
            return op.a
        return self.s.cast(v, to)

    # Scalars of tensors.

    def value(self, v: Value, index: Index, guarded: bool = False) -> Value:
        """The scalar of v at `index`, in its compute type. `guarded`: the index may be out of range, and then any
        value will do, but no read may leave the tensor."""
        if v in self.known:
            return self.known[v]
        index = tuple(simplify(e, self.ranges) for e in index)
        key = (v, index, guarded)
        if key not in self._memo:
            self._memo[key] = self._value(v, index, guarded)
        return self._memo[key]

    def load(self, v: Value, access: IndexMap) -> Value:
        """The scalar of a group input through an index map, in its compute type."""
        source = self.outer.get(v, v)
        loaded = self.arg(self.accesses.find(source, access.simplify(self.ranges)))
        return self.s.cast(loaded, compute_dtype(element(loaded)))

    def _value(self, v: Value, index: Index, guarded: bool) -> Value:
        if self.is_input(v):
            literal = self._literal(v)
            if literal is not None:
                return literal
            source = self.outer.get(v, v).defining_op
            if isinstance(source, Dims):
                return self._dims(source, index)
            if isinstance(source, Iota):
                return self.expr(index[0])
            return self.load(v, IndexMap(index, 0 if guarded else None))
        op = cast(GraphOp, v.defining_op)
        if op.name in TABLE:
            args = [
                self.value(o, broadcast_index(index, tensor_type(o).shape, self.ranges), guarded) for o in op.operands
            ]
            return TABLE[op.name](self.s, op, args)
        if isinstance(op, Concat):
            return self._concat(op, index, guarded)
        if isinstance(op, Pad):
            return self._pad(op, index)
        if isinstance(op, Gather):
            return self._gather(op, index, guarded)
        if isinstance(op, GatherElements):
            place = self.place(op.indices, index, tensor_type(op.x).shape[op.axis], guarded)
            return self.value(op.x, (*index[: op.axis], place, *index[op.axis + 1 :]), guarded)
        if isinstance(op, GatherNd):
            return self._gather_nd(op, index, guarded)
        if isinstance(op, Trilu):
            return self._trilu(op, index, guarded)
        return self.value(op.operands[0], back_through(op, index, self.ranges), guarded)

    def is_input(self, v: Value) -> bool:
        return (
            v in self.outer
            or not isinstance(v.defining_op, GraphOp)
            or isinstance(v.defining_op, Constant | Dims | Iota)
        )

    def _literal(self, v: Value) -> Value | None:
        source = self.outer.get(v, v).defining_op
        if not isinstance(source, Constant):
            return None
        t = tensor_type(source.y)
        if t.size != 1 or t.dtype.kind == "string":
            return None
        return self.s.const(source.array().reshape(()).item(), compute_dtype(t.dtype))

    def _dims(self, op: Dims, index: Index) -> Value:
        """One of some extents, computed where it is needed."""
        (at,) = index
        if isinstance(at, int):
            return self.expr(op.values[at])
        result = self.expr(op.values[-1])
        for i in range(len(op.values) - 2, -1, -1):
            here = self.s.cmp("eq", self.expr(at), self.s.const(i, I64))
            result = self.s.select(here, self.expr(op.values[i]), result)
        return result

    def _concat(self, op: Concat, index: Index, guarded: bool) -> Value:
        at = index[op.axis]
        lo, hi = bounds(at, self.ranges)
        parts: list[tuple[Dim, Dim, Value]] = []
        start: Dim = 0
        for x in op.operands:
            end = add(start, tensor_type(x).shape[op.axis])
            parts.append((start, end, x))
            start = end
        live = [p for p in parts if not (_is_le(p[1], lo) or _is_le(add(hi, 1), p[0]))] or parts[:1]
        result: Value | None = None
        for begin, end, x in reversed(live):
            inner = (*index[: op.axis], add(at, mul(begin, -1)), *index[op.axis + 1 :])
            value = self.value(x, inner, guarded or len(live) > 1)
            result = value if result is None else self.s.select(self.less(at, end), value, result)
        assert result is not None
        return result

    def _pad(self, op: Pad, index: Index) -> Value:
        shape = tensor_type(op.x).shape
        assert op.mode == "constant", "other pads are made gathers before lowering"
        inner = tuple(add(e, -b) for e, b in zip(index, op.before, strict=True))
        fill_type = compute_dtype(tensor_type(op.x).dtype)
        fill = self.s.const(op.value, fill_type) if op.fill is None else self.value(op.fill, ())
        if op.fill is None and self.is_input(op.x) and self._literal(op.x) is None:
            return self.load(op.x, IndexMap(inner, op.value))
        inside = self.inside(inner, shape)
        value = self.value(op.x, inner, guarded=True)
        return value if inside is None else self.s.select(inside, value, fill)

    def inside(self, index: Sequence[Dim], shape: Sequence[Dim]) -> Value | None:
        """Whether an index is in range; None if it always is."""
        out: Value | None = None
        for e, d in zip(index, shape, strict=True):
            plain = simplify(e, self.ranges)
            tests: list[Value] = []
            if bounds(plain, self.ranges)[0] < 0:
                tests.append(self.s.cmp("ge", self.expr(e), self.s.const(0, I64)))
            if not below(plain, d, self.ranges):
                tests.append(self.less(e, d))
            for t in tests:
                out = t if out is None else self.s.fn(arith.And, out, t)
        return out

    def _gather(self, op: Gather, index: Index, guarded: bool) -> Value:
        k = tensor_type(op.indices).rank
        at = index[op.axis : op.axis + k]
        x = tensor_type(op.x)
        table = self.outer.get(op.indices, op.indices).defining_op
        place: Dim | None = None
        if isinstance(table, Constant) and k == 1:
            extent = x.shape[op.axis]
            entries = [int(i) % extent if isinstance(extent, int) else int(i) for i in table.array()]
            place = fit_affine(entries, self.ranges, at[0])
        if place is None:
            place = self.place(op.indices, at, x.shape[op.axis], guarded)
        return self.value(op.x, (*index[: op.axis], place, *index[op.axis + k :]), guarded)

    def _gather_nd(self, op: GatherNd, index: Index, guarded: bool) -> Value:
        indices, x = tensor_type(op.indices), tensor_type(op.x)
        depth = indices.shape[-1]
        assert isinstance(depth, int)
        lead = index[: indices.rank - 1]
        extents = x.shape[op.batch_dims : op.batch_dims + depth]
        places = [self.place(op.indices, (*lead, i), d, guarded) for i, d in enumerate(extents)]
        return self.value(op.x, (*lead[: op.batch_dims], *places, *index[indices.rank - 1 :]), guarded)

    def place(self, indices: Value, at: Index, extent: Dim, guarded: bool) -> Dim:
        """The place in a dim of that extent that `indices` name at an index; negative ones count from the end."""
        clips: list[Clip] = []
        v = indices
        while not self.is_input(v):
            op = v.defining_op
            assert op is not None, "indices that nothing makes"
            assert is_place_arithmetic(op) or isinstance(op, VIEWS), f"indices through {op}"
            if isinstance(op, Clip):
                clips.append(op)
            elif isinstance(op, VIEWS):
                at = back_through(op, at, self.ranges)
            v = op.operands[0]
        access = IndexMap(at).simplify(self.ranges)
        source = self.outer.get(v, v)
        n = self.accesses.find(source, IndexMap(access.results, 0) if guarded else access)
        self.arg(n)
        place: Dim = Sym(f"${n}")
        for clip in reversed(clips):
            lo, hi = clip.attrs["lo"], clip.attrs["hi"]
            place = place if lo is None else maximum(place, int(lo))
            place = place if hi is None else minimum(place, int(hi))
        table = source.defining_op
        if isinstance(table, Constant) and (table.array().size == 0 or int(table.array().min()) >= 0):
            return place
        return mod(place, extent)

    def trace(self, v: Value, index: Index) -> tuple[Value, IndexMap]:
        """The group input that v is a view of, and the index in it."""
        while not self.is_input(v):
            op = v.defining_op
            assert isinstance(op, VIEWS), f"indices through {op}"
            index = back_through(op, index, self.ranges)
            v = op.operands[0]
        return v, IndexMap(index).simplify(self.ranges)

    def seen_through(self, v: Value, index: Index) -> tuple[Value, IndexMap] | None:
        """As `trace` for an index that may be out of range, if it is so in the input where it is so in v; else None."""
        at = v
        while not self.is_input(at):
            if not isinstance(at.defining_op, VIEWS):
                return None
            at = at.defining_op.operands[0]
        if self._literal(at) is not None or isinstance(self.outer.get(at, at).defining_op, Dims | Iota):
            return None
        source, access = self.trace(v, index)
        mine, theirs = (self._guards(i, tensor_type(t).shape) for i, t in ((index, v), (access.results, source)))
        return (source, access) if mine == theirs else None

    def _guards(self, index: Sequence[Dim], shape: Sequence[Dim]) -> set[tuple[Dim, Dim]]:
        """The coordinates that may be out of range, each with its extent."""
        plain = [(simplify(e, self.ranges), d) for e, d in zip(index, shape, strict=True)]
        return {(e, d) for e, d in plain if bounds(e, self.ranges)[0] < 0 or not below(e, d, self.ranges)}

    def _trilu(self, op: Trilu, index: Index, guarded: bool) -> Value:
        value = self.value(op.x, index, guarded)
        distance = self.expr(add(index[-1], mul(index[-2], -1)))
        keep = self.s.cmp("ge" if op.part == "upper" else "le", distance, self.s.const(op.k, I64))
        return self.s.select(keep, value, self.s.like(0, value))

    # Integer expressions as scalars.

    def less(self, a: Dim, b: Dim) -> Value:
        return self.s.cmp("lt", self.expr(a), self.expr(b))

    def expr(self, e: Dim) -> Value:
        """The i64 value of an index expression."""
        key = ("expr", e)
        if key not in self._memo:
            self._memo[key] = self.s.extent(e, self._symbol)
        return self._memo[key]

    def _symbol(self, name: str) -> Value:
        return self.s.cast(self.arg(int(name[1:])), I64) if name.startswith("$") else self.s.b(IndexOp(dim=name))


def is_place_arithmetic(op: Op | None) -> bool:
    """Whether an op on indices becomes a part of the index expression: clips of integers, and casts between integers
    that hold every place."""
    if isinstance(op, Clip):
        return tensor_type(op.x).dtype.is_int
    if not isinstance(op, Cast):
        return False
    before = tensor_type(op.x).dtype
    return before.is_int and op.to.is_int and op.to.bits >= before.bits and (op.to.kind, before.kind) != ("uint", "int")


def back_through(op: Op, index: Index, ranges: Mapping[str, tuple[int, int]]) -> Index:
    """The index in the operand of an index op that gives the element at `index` of its result."""
    shape = tensor_type(op.operands[0]).shape
    if isinstance(op, Transpose):
        out: list[Dim] = [0] * len(index)
        for i, p in enumerate(op.perm):
            out[p] = index[i]
        return tuple(out)
    if isinstance(op, Reshape):
        return reshape_index(index, op.shape, shape, ranges)
    if isinstance(op, Expand):
        return broadcast_index(index, shape, ranges)
    if isinstance(op, Slice):
        return tuple(add(a, mul(e, s)) for e, a, s in zip(index, op.starts, op.steps, strict=True))
    if isinstance(op, Tile):
        return tuple(mod(e, d, ranges) if d != 1 else 0 for e, d in zip(index, shape, strict=True))
    raise AssertionError(f"{op.name} is no index op that a region can hold")


def _is_le(a: Dim, b: Dim) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a <= b


def shift_indirect(access: IndexMap, by: int) -> IndexMap:
    """The map with `$i` made `$(i + by)`: operands of a region, counted among all of the anchor's."""
    names = [s for s in access.symbols if s.startswith("$")]
    if by == 0 or not names:
        return access
    return access.substitute({s: Sym(f"${int(s[1:]) + by}") for s in names})
