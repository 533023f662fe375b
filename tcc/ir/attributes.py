# SPDX-License-Identifier: Apache-2.0
"""Attribute values. Most are plain Python values (bool, int, float, str, tuples of them, dicts with string keys,
`DType`s and types); the rest are the small immutable classes here.

In text the classes print as `word<...>`, and in the generic form as `#tcc.word<"...">`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tcc.ir.expr import Box, Dim, Expr, Ranges, Sym, simplify, substitute, symbols, to_text
from tcc.ir.types import DType, Type

Attribute: TypeAlias = Any
"""bool | int | float | str | DType | Type | Expr | Resource | IndexMap | Domain | tuple | dict."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A constant's content: the sha256 of its dtype, shape and little-endian bytes, in hex. See `ResourceStore`."""

    sha256: str

    def text(self) -> str:
        return self.sha256


@dataclass(frozen=True, slots=True)
class IndexMap:
    """Where an operand is read (or a result written) at a point of the domain.

    `results`: one expression per tensor dim, over domain dims and `$i` (the scalar that the anchor's i-th operand
    gives at this point: indirect access). A read is *out of range* when an index is outside its dim, or when one of
    `zero` is not 0; it then gives `fill` (of the operand's element type). `fill` None promises that every read is
    in range, so emitters need no guard.
    """

    results: tuple[Dim, ...]
    fill: float | int | None = None
    zero: tuple[Dim, ...] = ()

    def text(self) -> str:
        out = f"({', '.join(to_text(r) for r in self.results)})"
        if self.zero:
            out += f" zero ({', '.join(to_text(z) for z in self.zero)})"
        if self.fill is not None:
            out += f" else {self.fill!r}"
        return out

    def substitute(self, env: Mapping[str, Dim], ranges: Ranges | None = None) -> IndexMap:
        """The map with domain dims replaced by expressions."""
        return IndexMap(
            tuple(substitute(r, env, ranges) for r in self.results),
            self.fill,
            tuple(substitute(z, env, ranges) for z in self.zero),
        )

    def simplify(self, ranges: Ranges) -> IndexMap:
        return IndexMap(
            tuple(simplify(r, ranges) for r in self.results), self.fill, tuple(simplify(z, ranges) for z in self.zero)
        )

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(s for e in (*self.results, *self.zero) for s in symbols(e))


@dataclass(frozen=True, slots=True)
class Domain:
    """Named iteration dims: `parallel` ones, then `reduce` ones, each (name, extent). Row-major, last fastest."""

    parallel: tuple[tuple[str, Dim], ...]
    reduce: tuple[tuple[str, Dim], ...] = ()

    def text(self) -> str:
        p = ", ".join(f"{n}={to_text(e)}" for n, e in self.parallel)
        r = ", ".join(f"{n}={to_text(e)}" for n, e in self.reduce)
        return f"{p} | {r}" if r else p

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in (*self.parallel, *self.reduce))

    @property
    def parallel_names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.parallel)

    @property
    def reduce_names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.reduce)

    def extent(self, name: str) -> Dim:
        """The extent of a dim; KeyError if the domain has no such dim."""
        return dict((*self.parallel, *self.reduce))[name]

    def int_extent(self, name: str) -> int:
        """The extent of a dim that is known to be an integer; ValueError if it is an expression."""
        e = self.extent(name)
        if not isinstance(e, int):
            raise ValueError(f"the extent {e} of {name} is not bound")
        return e

    @property
    def ranges(self) -> Box:
        """Inclusive bounds of the dims."""
        return Box(dict((*self.parallel, *self.reduce)))

    @property
    def dims(self) -> dict[str, Sym]:
        return {n: Sym(n) for n in self.names}


def frozen(value: Any) -> Attribute:
    """value with lists made tuples, numpy scalars made Python ones; TypeError if it is no attribute."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()  # numpy's scalars: some are floats, but do not print like one
    if (
        isinstance(value, bool | int | float | str | DType | Type | Expr | Resource | IndexMap | Domain)
        or value is None
    ):
        return value
    if isinstance(value, list | tuple):
        return tuple(frozen(v) for v in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, dict):
        return {str(k): frozen(v) for k, v in value.items()}  # pyright: ignore
    raise TypeError(f"{type(value).__name__} is not an attribute value")
