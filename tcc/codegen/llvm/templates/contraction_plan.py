# SPDX-License-Identifier: Apache-2.0
"""A contraction (matmul or convolution) as rows × columns × depth, and how each factor is read.

Dims that only the left factor has are *rows* (m; n, oy, ox), the right factor's own is the *column* (n; co), dims of
both are *batch* (b0 …; g). The reduce dims are *taps* (ky, kx), over which a row's pixels are found anew, and a *run*
(k; ci) along which they lie at equal distances; taps that continue the run become part of it.

Extents may be arguments: of the rows where there is one dim of them, and of *repeats*, dims that would be rows and over
which the whole is done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, prod
from typing import Any

from tcc.codegen.llvm.emit import Nest, complexity, nest_of, operand_addresses, result_addresses
from tcc.codegen.llvm.emit.access import Address
from tcc.codegen.llvm.emit.nest import ranges_of
from tcc.codegen.template import Packing
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Region
from tcc.ir.expr import Dim, Ranges, Sym, add, coefficient, floordiv, mod, mul, product, substitute, symbols
from tcc.ir.kernel import Contraction, Conv, Func, MatMul
from tcc.ir.kernel.func import Index
from tcc.ir.targets import Target
from tcc.ir.types import DType

ROW = "row"
"""The dim that flattened rows are counted by."""
_WINDOWS = {"oz": "kz", "oy": "ky", "ox": "kx"}


@dataclass(frozen=True)
class Left:
    """How the left factor is read: `address` over batch dims, rows, `taps` and `run_dim`; consecutive elements of the
    run are `step` apart. `uniform`: elements from one flattened row to the next, where all rows are equally far apart
    and none is ever out of range."""

    address: Address
    taps: Mapping[str, int]
    run_dim: str
    run: int
    step: int
    uniform: int | None


@dataclass(frozen=True)
class Copy:
    """The left factor written out first: dense, of the accumulator's type, over `dims` (rows are those that are read,
    padding included); `operands` address the tensors it is made of over those dims."""

    dims: Mapping[str, int]
    operands: tuple[Address, ...]
    left: Left

    @property
    def size(self) -> int:
        return prod(self.dims.values())

    def merged(self) -> Copy:
        """The same with the innermost dims merged, where every operand is contiguous over them: a guarded pixel of C
        channels is C guarded elements."""
        dims, operands = dict(self.dims), list(self.operands)
        while len(dims) > 1:
            outer, inner = list(dims)[-2:]
            changed = [_merge_dims(a, outer, inner, dims[inner]) for a in operands]
            if not all(isinstance(a, Address) for a in changed):
                break
            width = dims.pop(inner)
            dims[outer] *= width
            ranges = {n: (0, size - 1) for n, size in dims.items()}
            operands = [replace(a, ranges=ranges) for a in changed if a is not None]
        return replace(self, dims=dims, operands=tuple(operands))


@dataclass(frozen=True)
class Plan:
    """The parts of a contraction; extents of 1 are left out."""

    problem: Func
    nest: Nest
    repeats: Mapping[str, Dim]
    batch: Mapping[str, int]
    rows: Mapping[str, Any]
    column: str
    columns: int
    depth: Mapping[str, int]
    lanes: int
    acc: DType
    direct: Left | None
    copy: Copy | None

    @property
    def anchor(self) -> Contraction:
        anchor = self.problem.anchor
        assert isinstance(anchor, Contraction)
        return anchor

    @property
    def row_count(self) -> Any:
        """An expression where the number of rows is an argument; there is one row dim then."""
        return product(self.rows.values())

    @property
    def batch_count(self) -> int:
        return prod(self.batch.values())

    @property
    def depth_count(self) -> int:
        return prod(self.depth.values())

    @property
    def right(self) -> range:
        """The operands of the right factor."""
        left = len(self.anchor.lhs)
        return range(left, left + len(self.anchor.rhs))

    @property
    def extra(self) -> range:
        """The operands of the epilogue."""
        return range(self.right.stop, len(self.anchor.operands))

    @property
    def packs_right(self) -> bool:
        """Whether the right factor is a constant that can be stored in panels beforehand."""
        anchor, i = self.anchor, self.right.start
        if len(self.right) != 1 or not is_cast(anchor.rhs_body, self.acc):
            return False
        argument = list(self.problem.body.block.args).index(anchor.operands[i])  # pyright: ignore[reportArgumentType]
        uses = sum(v is anchor.operands[i] for v in anchor.operands)
        return self.problem.is_const(argument) and uses == 1 and not anchor.maps[i].zero

    @property
    def packed(self) -> DType:
        """The element type of the right factor in panels: integer constants stay as narrow as they are stored."""
        if not self.packs_right:
            return self.acc
        stored = self.nest.operands[self.right.start].dtype
        narrow = self.acc.is_int and stored.is_int and stored.bits in (8, 16) and stored.bits < self.acc.bits
        return stored if narrow else self.acc

    @property
    def copy_left(self) -> Left | None:
        """How the copy of the left factor is read."""
        return None if self.copy is None else self.copy.left

    def panels(self, width: int) -> int:
        """Panels of `width` columns."""
        return -(-self.columns // width)

    @property
    def ranges(self) -> Ranges:
        """The bounds of the nest's dims and of the flattened row."""
        return ranges_of({**self.nest.parallel, **self.nest.reduce, ROW: self.row_count})

    def flattened(self, address: Address) -> Address:
        """An address in terms of the flattened row, where that is no more complex."""
        new = address.substitute(unflattened(self.rows), self.ranges)
        worse = any(complexity(a) > complexity(b) for a, b in zip(new.expressions, address.expressions, strict=True))
        return address if worse else new


@lru_cache(maxsize=256)
def make_plan(problem: Func, target: Target) -> Plan:
    """The plan of a problem that `why_not` accepts."""
    anchor = problem.anchor
    assert isinstance(anchor, Contraction)
    regions = [anchor.lhs_body, anchor.rhs_body, anchor.epilogue]
    nest = nest_of(problem, regions, operand_addresses(problem), result_addresses(problem))
    column = "n" if isinstance(anchor, MatMul) else "co"
    left = range(len(anchor.lhs))
    right = range(len(anchor.lhs), len(anchor.lhs) + len(anchor.rhs))
    shared = frozenset(s for i in right for s in nest.operands[i].symbols)
    others = {n: size for n, size in nest.parallel.items() if n != column}
    own = {n: size for n, size in others.items() if n not in shared}
    rows = _rows(own)
    lanes = max(1, target.vector_bytes // anchor.acc.bytes)
    plan = Plan(
        problem=problem,
        nest=nest,
        repeats={n: size for n, size in own.items() if n not in rows},
        batch={n: size for n, size in others.items() if n in shared},
        rows=rows,
        column=column,
        columns=nest.parallel.get(column, 1),
        depth=nest.reduce,
        lanes=lanes,
        acc=anchor.acc,
        direct=None,
        copy=None,
    )
    copy = None if problem.symbols else _copy(plan, left)
    return replace(plan, direct=_direct(plan, left), copy=copy if isinstance(copy, Copy) else None)


def why_not(problem: Func, target: Target) -> str | None:
    """The sentence why a contraction cannot be done in register tiles, or None."""
    anchor = problem.anchor
    assert isinstance(anchor, Contraction)
    if anchor.acc.name not in ("f32", "f64", "i32"):
        return f"it accumulates in {anchor.acc}; register tiles are made for f32, f64 and i32"
    if 0 in [anchor.domain.extent(name) for name in anchor.domain.names]:
        return "one of its extents is 0"
    for region in (anchor.lhs_body, anchor.rhs_body):
        if any(isinstance(op, Index) for op in region.block.ops):
            return "a factor depends on its indices"
    plan = make_plan(problem, target)
    if problem.symbols:
        known = [plan.columns, *plan.batch.values(), *plan.depth.values()]
        if not all(isinstance(n, int) for n in known):
            return "extents other than those of rows are arguments"
        if any(plan.nest.operands[i].symbols & set(problem.symbols) for i in plan.right):
            return "where the right factor lies depends on arguments"
    if plan.direct is None and plan.copy is None:
        return "the left factor is neither affine in the rows nor a window that slides over something that is"
    return None


def _rows(dims: Mapping[str, Dim]) -> dict[str, Dim]:
    """The innermost of the dims that only the left factor has, as many as are numbers; the last one if it is none."""
    names = list(dims)
    open_ones = [i for i, size in enumerate(dims.values()) if not isinstance(size, int)]
    first = min(open_ones[-1] + 1, len(names) - 1) if open_ones else 0
    return {n: dims[n] for n in names[first:]}


def is_cast(region: Region, to: DType) -> bool:
    """Whether a region of one argument yields it, as it is or as `to`."""
    ops = list(region.block.ops)
    if len(region.block.args) != 1:
        return False
    yielded = ops[-1].operands[0]
    if len(ops) == 1:
        return yielded is region.block.args[0]
    return (
        len(ops) == 2
        and ops[0].name == "arith.cast"
        and ops[0].operands[0] is region.block.args[0]
        and yielded is ops[0].results[0]
    )


def unflattened(rows: Mapping[str, int], name: str = ROW) -> dict[str, Dim]:
    """Each of the rows' dims as an expression of the flattened one."""
    out: dict[str, Dim] = {}
    if len(rows) == 1:
        return {n: Sym(name) for n in rows}
    inner, names = 1, list(rows)
    ranges = {name: (0, prod(rows.values()) - 1)}
    for at in reversed(names):
        out[at] = mod(floordiv(Sym(name), inner, ranges), rows[at], ranges)
        inner *= rows[at]
    return out


def _merge_dims(a: Address, outer: str, inner: str, width: int) -> Address | None:
    """The address with `outer` counting elements of what were `outer` and `inner`; None where that is not affine."""
    step = coefficient(a.offset, inner)
    if step is None or coefficient(a.offset, outer) != step * width or a.zero or a.indirect:
        return None
    guards: list[tuple[Dim, Dim]] = []
    for index, extent in a.guards:
        own = coefficient(index, outer)
        if inner in symbols(index) or own not in (0, 1):
            return None
        rest = substitute(index, {outer: 0})
        guards.append((index, extent) if own == 0 else (add(Sym(outer), mul(rest, width)), extent * width))
    offset = add(substitute(a.offset, {outer: 0, inner: 0}), mul(Sym(outer), step))
    return replace(a, offset=offset, guards=tuple(guards))


def _as_left(plan: Plan, address: Address, reduce: Mapping[str, int]) -> Left | None:
    """How an address is walked; None where its run is not one of equal steps."""
    dims = dict(reduce)
    if not dims:
        return Left(address, {}, "", 1, 1, _uniform(plan, address, {}))
    run_dim = list(dims)[-1]
    run = dims.pop(run_dim)
    step = coefficient(address.offset, run_dim)
    guards = frozenset(s for g, _ in address.guards for s in symbols(g))
    if step is None or run_dim in guards:
        return None
    while dims:
        tap = list(dims)[-1]
        if tap in guards or coefficient(address.offset, tap) != step * run:
            break
        address = replace(address, offset=substitute(address.offset, {tap: 0}))
        run *= dims.pop(tap)
    for tap in dims:
        if any(_mixed(x, tap, (*plan.rows, *plan.batch, *plan.repeats)) for x in address.expressions):
            return None
    return Left(address, dims, run_dim, run, step, _uniform(plan, address, dims))


def _mixed(e: Dim, tap: str, others: Sequence[str]) -> bool:
    """Whether an expression is not a sum of something of the tap and something of the others."""
    return tap in symbols(e) and coefficient(e, tap) is None


def _uniform(plan: Plan, address: Address, taps: Mapping[str, int]) -> int | None:
    if address.guards:
        return None
    flat = address.substitute(unflattened(plan.rows), plan.ranges)
    return coefficient(flat.offset, ROW)


def _direct(plan: Plan, left: range) -> Left | None:
    """How the left factor is read as it lies in memory, if it can be."""
    address = plan.nest.operands[0]
    if len(left) != 1 or not is_cast(plan.anchor.lhs_body, plan.acc) or address.dtype != plan.acc:
        return None
    if address.indirect or address.zero or address.empty:
        return None
    return _as_left(plan, address, plan.depth)


def _copy(plan: Plan, left: range) -> Copy | None:
    """The left factor as a tensor of its own, if every operand slides alike."""
    addresses = [plan.nest.operands[i] for i in left]
    used = frozenset(s for a in addresses for s in a.symbols)
    sliding: dict[str, tuple[str, int, int]] = {}
    dims: dict[str, int] = {}
    for name, size in (*plan.batch.items(), *plan.rows.items()):
        tap = _WINDOWS.get(name) if isinstance(plan.anchor, Conv) else None
        if tap is not None and tap in plan.depth:
            ratio = _ratio(addresses, name, tap)
            if ratio is None:
                return None
            s, d = ratio
            sliding[name] = (tap, s, d)
            dims[name] = (size - 1) * s + (plan.depth[tap] - 1) * d + 1
        elif name in used or name in plan.rows:
            dims[name] = size
    taken = {tap for tap, _, _ in sliding.values()}
    dims |= {name: size for name, size in plan.depth.items() if name not in taken}
    ranges = {n: (0, size - 1) for n, size in dims.items()}
    reading: list[Address] = []
    for a in addresses:
        for window, (tap, s, _) in sliding.items():
            a = _in_window(a, window, tap, s)
        if any(s not in dims and not s.startswith("$") for s in a.symbols):
            return None
        reading.append(a.substitute({}, ranges))
    offset: Dim = 0
    stride = 1
    for name, size in reversed(list(dims.items())):
        at: Dim = Sym(name)
        if name in sliding:
            tap, s, d = sliding[name]
            at = add(mul(Sym(name), s), mul(Sym(tap), d))
        offset = add(offset, mul(at, stride))
        stride *= size
    left_as_copied = _as_left(plan, Address(plan.acc, offset, plan.nest.ranges), plan.depth)
    return None if left_as_copied is None else Copy(dims, tuple(reading), left_as_copied).merged()


def _ratio(addresses: Sequence[Address], window: str, tap: str) -> tuple[int, int] | None:
    """(stride, dilation) such that every expression depends on window and tap through window·stride + tap·dilation."""
    found: tuple[int, int] | None = None
    for e in (e for a in addresses for e in a.expressions):
        s, d = coefficient(e, window), coefficient(e, tap)
        if s is None or d is None:
            return None
        if s == d == 0:
            continue
        if s <= 0 or d <= 0:
            return None
        common = gcd(s, d)
        here = (s // common, d // common)
        if found not in (None, here):
            return None
        found = here
    return found or (1, 1)


def _in_window(address: Address, window: str, tap: str, stride: int) -> Address:
    """The address with window·stride + tap·dilation taken as the window's coordinate."""

    def change(e: Dim) -> Dim:
        c = coefficient(e, window)
        assert c is not None
        return add(substitute(e, {window: 0, tap: 0}), mul(Sym(window), c // stride))

    return replace(
        address,
        offset=change(address.offset),
        guards=tuple((change(g), n) for g, n in address.guards),
        zero=tuple(change(z) for z in address.zero),
    )


def right_packing(plan: Plan, width: int) -> Packing:
    """The constant right factor in panels: [batch…][panel][depth…][column in the panel]."""
    i = plan.right.start
    anchor = plan.anchor
    domain = anchor.domain
    panel, inside = Sym("panel"), Sym("inside")
    panels = plan.panels(width)
    dims = {**plan.batch, "panel": panels, **plan.depth, "inside": width}
    ranges = {n: (0, size - 1) for n, size in dims.items()}
    env: dict[str, Dim] = {n: 0 for n in domain.names if domain.extent(n) == 1}
    env[plan.column] = mul(panel, width) + inside
    old = anchor.maps[i]
    results = tuple(substitute(r, env, ranges) for r in old.results)
    fill = old.fill if old.fill is not None else 0.0 if plan.acc.is_float else 0
    argument = list(plan.problem.body.block.args).index(anchor.operands[i])  # pyright: ignore[reportArgumentType]
    return Packing(argument, Domain(tuple(dims.items())), IndexMap(results, fill), plan.packed)
