# SPDX-License-Identifier: Apache-2.0
"""Loop nests before they are emitted: dims of extent 1 dropped, dims ordered as results lie in memory, and adjacent
dims merged where every address allows it, so that inner loops are long and contiguous.

>>> domain i=4, j=8, all maps dense (i, j)      becomes      domain j=32, offset j
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from tcc.codegen.llvm.emit.access import Address
from tcc.ir.core import Region
from tcc.ir.expr import Binary, Box, Dim, Ranges, Sum, Sym, coefficient, evaluate, floordiv, mod, substitute
from tcc.ir.kernel.func import Func, Index
from tcc.ir.kernel.symbols import tuning


@dataclass(frozen=True)
class Nest:
    """Loops over `parallel` and `reduce` dims (name → extent, outermost first), the addresses of operands and results
    over them, and `index`: the domain's dims and the symbols that regions ask for, as expressions over the loops' dims.
    `tuning`: what the kernel's symbols are taken to be in choices that an extent decides."""

    parallel: dict[str, Any]
    reduce: dict[str, Any]
    operands: tuple[Address, ...]
    results: tuple[Address, ...]
    index: dict[str, Dim]
    tuning: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def ranges(self) -> Ranges:
        return ranges_of({**self.parallel, **self.reduce})

    def size(self, name: str) -> int:
        """The extent of a dim, at the tuning point where it is an expression."""
        return self.guess(self.parallel[name] if name in self.parallel else self.reduce[name])

    def guess(self, extent: Dim) -> int:
        """An extent at the tuning point."""
        return int(evaluate(extent, self.tuning))

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (*self.operands, *self.results)

    def substitute(self, env: dict[str, Dim], parallel: dict[str, Any], reduce: dict[str, Any]) -> Nest:
        """The nest over other dims, the old ones replaced by `env`."""
        new = replace(self, parallel=parallel, reduce=reduce)
        return replace(
            new,
            operands=tuple(a.substitute(env, new.ranges) for a in self.operands),
            results=tuple(a.substitute(env, new.ranges) for a in self.results),
            index={n: substitute(x, env, new.ranges) for n, x in self.index.items()},
        )

    def reordered(self, parallel: Sequence[str], reduce: Sequence[str] | None = None) -> Nest:
        """The nest with dims in another order."""
        return replace(
            self,
            parallel={n: self.parallel[n] for n in parallel},
            reduce=self.reduce if reduce is None else {n: self.reduce[n] for n in reduce},
        )


def nest_of(problem: Func, regions: Iterable[Region], operands: Sequence[Address], results: Sequence[Address]) -> Nest:
    """The loops of the problem's anchor, without dims of extent 1."""
    domain = problem.anchor.domain
    used = {op.dim for r in regions for op in r.block.ops if isinstance(op, Index)}
    nest = Nest(
        {n: domain.extent(n) for n in domain.parallel_names},
        {n: domain.extent(n) for n in domain.reduce_names},
        tuple(operands),
        tuple(results),
        {n: Sym(n) for n in sorted(used)},
        tuning(problem),
    )
    return nest.substitute(
        {n: 0 for n, size in (*nest.parallel.items(), *nest.reduce.items()) if size == 1},
        {n: size for n, size in nest.parallel.items() if size != 1},
        {n: size for n, size in nest.reduce.items() if size != 1},
    )


def ranges_of(extents: Mapping[str, Dim]) -> Ranges:
    """The bounds of dims with these extents."""
    numbers = {n: (0, size - 1) for n, size in extents.items() if isinstance(size, int)}
    return numbers if len(numbers) == len(extents) else Box(extents)


def complexity(e: Dim) -> int:
    """The number of floordivs, mods, mins and maxs in an expression."""
    if isinstance(e, Binary):
        return 1 + complexity(e.lhs) + complexity(e.rhs)
    if isinstance(e, Sum):
        return sum(complexity(atom) for atoms, _ in e.terms for atom in atoms)
    return 0


def merge(nest: Nest, outer: str, inner: str) -> Nest:
    """Two adjacent dims of one kind as one, named as the inner one."""
    dims = nest.parallel if inner in nest.parallel else nest.reduce
    width = dims[inner]
    one = Sym(inner)
    ranges = ranges_of({**nest.parallel, **nest.reduce, inner: dims[outer] * width})
    env: dict[str, Dim] = {outer: floordiv(one, width, ranges), inner: mod(one, width, ranges)}
    merged = {n: size * dims[outer] if n == inner else size for n, size in dims.items() if n != outer}
    if inner in nest.parallel:
        return nest.substitute(env, merged, nest.reduce)
    return nest.substitute(env, nest.parallel, merged)


def collapse(nest: Nest) -> Nest:
    """Adjacent dims merged wherever no address or index becomes more complex by it."""
    done = False
    while not done:
        done = True
        for dims in (nest.parallel, nest.reduce):
            names = list(dims)
            for outer, inner in reversed(list(pairwise(names))):
                other = merge(nest, outer, inner)
                if _no_worse(other, nest):
                    nest, done = other, False
                    break
            if not done:
                break
    return nest


def _no_worse(new: Nest, old: Nest) -> bool:
    for a, b in zip(new.addresses, old.addresses, strict=True):
        if any(complexity(x) > complexity(y) for x, y in zip(a.expressions, b.expressions, strict=True)):
            return False
    return all(complexity(x) <= complexity(old.index[n]) for n, x in new.index.items())


def by_stride(names: Iterable[str], addresses: Sequence[Address]) -> list[str]:
    """Dims from the largest stride to the smallest in the first address; where it says nothing, in the next."""

    def key(name: str) -> tuple[int, ...]:
        strides = [coefficient(a.offset, name) for a in addresses]
        return tuple(-(1 << 60) if s is None else -abs(s) for s in strides)

    return sorted(names, key=key)
