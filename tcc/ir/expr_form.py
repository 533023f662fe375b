# SPDX-License-Identifier: Apache-2.0
"""Integer expressions over named symbols in their normal form, and what is known of their bounds.

An expression is an `int`, or an `Expr` that is not constant. `Expr`s are kept in one normal form (a sum of
integer multiples of products of atoms), so equal values usually are equal objects and print alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

Dim: TypeAlias = "int | Expr"
Ranges: TypeAlias = "Mapping[str, tuple[int, int]]"
"""Inclusive bounds of symbols."""

_BIG = 1 << 62
EXTENT_MAX = 1 << 40
"""More than any extent that data decide can be."""


class Box(dict[str, tuple[int, int]]):
    """`Ranges` of the dims of a domain; any other name but `$i` is a symbol that stands for an extent, so at least 0.

    `extents`: the extent of every dim, so that an index can be shown to lie below an extent that is an expression.
    """

    def __init__(self, extents: Mapping[str, Dim]) -> None:
        self.extents = dict(extents)
        free = {s: (0, EXTENT_MAX) for e in self.extents.values() for s in symbols(e)}
        super().__init__({n: (0, bounds(e, free)[1] - 1) for n, e in self.extents.items()})

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            return self[key]
        return default if key.startswith("$") else (0, EXTENT_MAX)

    def __bool__(self) -> bool:
        """It says something of every symbol, though it may list none."""
        return True


class Expr:
    """An integer expression that is not a constant. Immutable, hashable, ordered by its text."""

    __slots__ = ()

    def __add__(self, other: Dim) -> Dim:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return add(self, mul(other, -1))

    def __rsub__(self, other: Dim) -> Dim:
        return add(other, mul(self, -1))

    def __mul__(self, other: Dim) -> Dim:
        return mul(self, other)

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return mul(self, -1)

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        return to_text(self)


class Atom(Expr):
    """A factor of a product: a symbol or a non-linear operation."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, repr=False)
class Sym(Atom):
    """A named symbol; in kernels a domain dim, or `$i`, the scalar that operand i gave."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Binary(Atom):
    """`floordiv`, `mod`, `min` or `max` of two expressions (`op` is that word)."""

    op: str
    lhs: Dim
    rhs: Dim

    def __repr__(self) -> str:
        return to_text(self)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.op, self.lhs, self.rhs))


Term: TypeAlias = "tuple[tuple[Atom, ...], int]"


@dataclass(frozen=True, repr=False)
class Sum(Expr):
    """`const + Σ coefficient × product of atoms`; terms are sorted, coefficients are never 0."""

    terms: tuple[Term, ...]
    const: int

    def __repr__(self) -> str:
        return to_text(self)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.terms, self.const))


def terms_of(e: Dim) -> tuple[dict[tuple[Atom, ...], int], int]:
    """(coefficient of each product of atoms, constant)."""
    if isinstance(e, int):
        return {}, int(e)
    if isinstance(e, Sum):
        return dict(e.terms), e.const
    assert isinstance(e, Atom)
    return {(e,): 1}, 0


def _key(atoms: tuple[Atom, ...]) -> tuple[int, str]:
    return (len(atoms), "*".join(to_text(a) for a in atoms))


def build(terms: Mapping[tuple[Atom, ...], int], const: int) -> Dim:
    """The expression of such terms."""
    live = {a: c for a, c in terms.items() if c != 0}
    if not live:
        return const
    if const == 0 and len(live) == 1:
        ((atoms, coef),) = live.items()
        if coef == 1 and len(atoms) == 1:
            return atoms[0]
    live = _recombine(live)
    if not live:
        return const
    if const == 0 and len(live) == 1:
        ((atoms, coef),) = live.items()
        if coef == 1 and len(atoms) == 1:
            return atoms[0]
    return Sum(tuple(sorted(live.items(), key=lambda t: _key(t[0]))), const)


def _recombine(terms: dict[tuple[Atom, ...], int]) -> dict[tuple[Atom, ...], int]:
    """`c·n·(x floordiv n) + c·(x mod n)` becomes `c·x`, for a number or an extent n."""
    for atoms, coef in terms.items():
        if len(atoms) != 1 or not isinstance(atoms[0], Binary) or atoms[0].op != "mod":
            continue
        m = atoms[0]
        if not isinstance(m.rhs, int):
            whole, _ = terms_of(mul(mul(m.rhs, floordiv(m.lhs, m.rhs)), coef))
            if not whole or any(terms.get(a) != c for a, c in whole.items()) or terms_of(m.lhs)[1]:
                continue
            rest = {a: c for a, c in terms.items() if a != atoms and a not in whole}
            for a, c in terms_of(mul(m.lhs, coef))[0].items():
                rest[a] = rest.get(a, 0) + c
            return _recombine({a: c for a, c in rest.items() if c})
        quotient = floordiv(m.lhs, m.rhs)
        if not isinstance(quotient, Binary):
            continue
        if terms.get((quotient,), 0) == coef * m.rhs:
            rest = {a: c for a, c in terms.items() if a not in (atoms, (quotient,))}
            more, _ = terms_of(mul(m.lhs, coef))
            _, const = terms_of(m.lhs)
            if const:
                continue
            for a, c in more.items():
                rest[a] = rest.get(a, 0) + c
            return _recombine({a: c for a, c in rest.items() if c})
    return terms


def add(a: Dim, b: Dim) -> Dim:
    """a + b."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    terms, const = terms_of(a)
    more, extra = terms_of(b)
    for atoms, coef in more.items():
        terms[atoms] = terms.get(atoms, 0) + coef
    return build(terms, const + extra)


def mul(a: Dim, b: Dim) -> Dim:
    """a × b."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    ta, ca = terms_of(a)
    tb, cb = terms_of(b)
    ta = {**ta, (): ca} if ca else ta
    tb = {**tb, (): cb} if cb else tb
    out: dict[tuple[Atom, ...], int] = {}
    for xa, x in ta.items():
        for ya, y in tb.items():
            atoms = tuple(sorted(xa + ya, key=to_text))
            out[atoms] = out.get(atoms, 0) + x * y
    const = out.pop((), 0)
    return build(out, const)


def floordiv(a: Dim, b: Dim, ranges: Ranges | None = None) -> Dim:
    """⌊a / b⌋; exact multiples are taken out, and with `ranges` remainders known to be in [0, b) vanish."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError("floordiv by 0 in an index expression")
        return a // b
    if b == 1:
        return a
    if a == 0:
        return 0
    if a == b:
        return 1
    if not isinstance(b, int):
        whole, rest = _divide(a, b)
        if rest == 0 or within(rest, b, ranges or {}):
            return whole
        return add(whole, Binary("floordiv", rest, b))
    assert isinstance(a, Expr)
    if b == 0:  # of an empty tensor, so never asked for
        return Binary("floordiv", a, b)
    if isinstance(a, Binary) and a.op == "floordiv" and isinstance(a.rhs, int) and b > 0 and a.rhs > 0:
        return floordiv(a.lhs, a.rhs * b, ranges)
    if isinstance(a, Binary) and a.op == "mod" and isinstance(a.rhs, int) and a.rhs % b == 0 and b > 0:
        return mod(floordiv(a.lhs, b, ranges), a.rhs // b, ranges)
    terms, const = terms_of(a)
    whole = {t: c // b for t, c in terms.items() if c % b == 0}
    rest = {t: c for t, c in terms.items() if c % b != 0}
    quotient = build(whole, const // b)
    remainder = build(rest, const % b)
    if isinstance(remainder, int):
        return quotient
    lo, hi = bounds(remainder, ranges or {})
    if lo > -_BIG and hi < _BIG and lo // b == hi // b:
        return add(quotient, lo // b)
    if not whole and const // b == 0:
        return Binary("floordiv", a, b)
    return add(quotient, floordiv(remainder, b, ranges))


def _divide_exact(a: Dim, b: Expr) -> Dim | None:
    """a / b where b is one product of atoms that divides every term of a, else None."""
    tb, cb = terms_of(b)
    if cb or len(tb) != 1:
        return None
    ((atoms_b, coef_b),) = tb.items()
    ta, ca = terms_of(a)
    if ca:
        return None
    out: dict[tuple[Atom, ...], int] = {}
    const = 0
    for atoms, coef in ta.items():
        left = list(atoms)
        for atom in atoms_b:
            if atom not in left:
                return None
            left.remove(atom)
        if coef % coef_b:
            return None
        if left:
            out[tuple(left)] = coef // coef_b
        else:
            const += coef // coef_b
    return build(out, const)


def _divide(a: Dim, b: Expr) -> tuple[Dim, Dim]:
    """(q, r) with a = q·b + r, where q has the terms of a that b divides."""
    whole = _divide_exact(a, b)
    if whole is not None:
        return whole, 0
    terms, const = terms_of(a)
    quotient: Dim = 0
    rest: Dim = const
    for atoms, coef in terms.items():
        term = build({atoms: coef}, 0)
        exact = _divide_exact(term, b)
        if exact is None:
            rest = add(rest, term)
        else:
            quotient = add(quotient, exact)
    return quotient, rest


def within(e: Dim, extent: Dim, ranges: Ranges) -> bool:
    """Whether 0 ≤ e < extent can be shown."""
    return bounds(e, ranges)[0] >= 0 and below(e, extent, ranges)


def below(e: Dim, extent: Dim, ranges: Ranges) -> bool:
    """Whether e < extent can be shown; where extents are expressions that takes a `Box`."""
    if isinstance(extent, int) and bounds(e, ranges)[1] < extent:
        return True
    extents = ranges.extents if isinstance(ranges, Box) else {}
    if isinstance(extent, int) and not extents:
        return False
    top = _top(e, ranges, extents)
    return top is not None and bounds(add(extent, mul(add(top, 1), -1)), ranges)[0] >= 0


def _top(e: Dim, ranges: Ranges, extents: Mapping[str, Dim]) -> Dim | None:
    """An expression of symbols that e does not exceed at any point of the domain; None where that is not plain."""
    if isinstance(e, int):
        return e
    if isinstance(e, Sym):
        if e.name in extents:
            return add(extents[e.name], -1)
        return None if e.name.startswith("$") else e
    if isinstance(e, Binary):
        if e.op == "mod":
            return add(e.rhs, -1) if not symbols(e.rhs) & extents.keys() else None
        lhs = _top(e.lhs, ranges, extents)
        if e.op == "floordiv":
            if lhs is None or symbols(e.rhs) & extents.keys() or bounds(e.rhs, ranges)[0] < 0:
                return None
            return floordiv(lhs, e.rhs)
        rhs = _top(e.rhs, ranges, extents)
        if lhs is None or rhs is None:
            return None if e.op == "max" or lhs is rhs else rhs if lhs is None else lhs
        return extreme(e.op, lhs, rhs, ranges)
    assert isinstance(e, Sum)
    total: Dim = e.const
    for atoms, coef in e.terms:
        term: Dim = coef
        if not any(symbols(a) & extents.keys() for a in atoms):
            total = add(total, build({atoms: coef}, 0))
            continue
        if any(bounds(a, ranges)[0] < 0 for a in atoms):
            return None
        if coef < 0:
            continue  # at most 0
        for atom in atoms:
            top = _top(atom, ranges, extents)
            if top is None:
                return None
            term = mul(term, top)
        total = add(total, term)
    return total


def mod(a: Dim, b: Dim, ranges: Ranges | None = None) -> Dim:
    """a mod b, in [0, b) for b > 0."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if b == 1 or a == 0 or a == b:
        return 0
    if not isinstance(b, int):
        _, rest = _divide(a, b)
        return rest if rest == 0 or within(rest, b, ranges or {}) else Binary("mod", rest, b)
    assert isinstance(a, Expr)
    if b == 0:
        return Binary("mod", a, b)
    if isinstance(a, Binary) and a.op == "mod" and isinstance(a.rhs, int) and a.rhs % b == 0:
        return mod(a.lhs, b, ranges)
    terms, const = terms_of(a)
    rest = {t: c % b for t, c in terms.items() if c % b != 0}
    remainder = build(rest, const % b)
    if isinstance(remainder, int):
        return remainder % b
    lo, hi = bounds(remainder, ranges or {})
    if lo >= 0 and hi < b:
        return remainder
    plain = build({t: c for t, c in terms.items() if c % b != 0}, const % b)
    lo, hi = bounds(plain, ranges or {})
    if lo > -_BIG and hi < _BIG and lo // b == hi // b:
        return add(plain, -b * (lo // b))
    return Binary("mod", plain, b)


def minimum(a: Dim, b: Dim, ranges: Ranges | None = None) -> Dim:
    """The smaller of a and b."""
    return extreme("min", a, b, ranges)


def maximum(a: Dim, b: Dim, ranges: Ranges | None = None) -> Dim:
    """The larger of a and b."""
    return extreme("max", a, b, ranges)


def extreme(op: str, a: Dim, b: Dim, ranges: Ranges | None) -> Dim:
    """`min` or `max` of two, one of them where that is known."""
    lo, hi = bounds(add(a, mul(b, -1)), ranges or {})
    if hi <= 0:
        return a if op == "min" else b
    if lo >= 0:
        return b if op == "min" else a
    first, second = sorted((a, b), key=to_text)
    return Binary(op, first, second)


def bounds(e: Dim, ranges: Ranges) -> tuple[int, int]:
    """Inclusive bounds of e; symbols not in `ranges` are taken to be ≥ 0 if their name starts with a letter."""
    if isinstance(e, int):
        return e, e
    if isinstance(e, Sym):
        return ranges.get(e.name, (-_BIG, _BIG))
    if isinstance(e, Binary):
        llo, lhi = bounds(e.lhs, ranges)
        rlo, rhi = bounds(e.rhs, ranges)
        if e.op == "min":
            return min(llo, rlo), min(lhi, rhi)
        if e.op == "max":
            return max(llo, rlo), max(lhi, rhi)
        if e.op == "mod":
            if rlo <= 0:
                return -_BIG, _BIG
            return (llo, lhi) if llo >= 0 and lhi < rlo else (0, rhi - 1)
        if rlo <= 0:
            return -_BIG, _BIG
        quotients = [x if abs(x) >= _BIG else x // d for x in (llo, lhi) for d in (rlo, rhi)]
        return min(quotients), max(quotients)
    assert isinstance(e, Sum)
    lo = hi = e.const
    for atoms, coef in e.terms:
        tlo, thi = 1, 1
        for atom in atoms:
            alo, ahi = bounds(atom, ranges)
            corners = [x * y for x in (tlo, thi) for y in (alo, ahi)]
            tlo, thi = min(corners), max(corners)
        corners = [tlo * coef, thi * coef]
        lo, hi = lo + min(corners), hi + max(corners)
    return max(lo, -_BIG), min(hi, _BIG)


def symbols(e: Dim) -> frozenset[str]:
    """Names of the symbols in e."""
    if isinstance(e, int):
        return frozenset()
    if isinstance(e, Sym):
        return frozenset((e.name,))
    if isinstance(e, Binary):
        return symbols(e.lhs) | symbols(e.rhs)
    assert isinstance(e, Sum)
    return frozenset(s for atoms, _ in e.terms for atom in atoms for s in symbols(atom))


def to_text(e: Dim) -> str:
    """Text that `parse_expr` reads back to the same expression."""
    if isinstance(e, int):
        return str(e)
    if isinstance(e, Sym):
        return e.name
    if isinstance(e, Binary):
        if e.op in ("min", "max"):
            return f"{e.op}({to_text(e.lhs)}, {to_text(e.rhs)})"
        lhs, rhs = to_text(e.lhs), to_text(e.rhs)
        if isinstance(e.lhs, Sum) and len(e.lhs.terms) + (e.lhs.const != 0) > 1:
            lhs = f"({lhs})"
        if isinstance(e.rhs, Sum):
            rhs = f"({rhs})"
        return f"({lhs} {e.op} {rhs})"
    assert isinstance(e, Sum)
    out = ""
    for atoms, coef in e.terms:
        body = "*".join(to_text(a) for a in atoms)
        size = abs(coef)
        if size != 1:
            body = f"{body}*{size}"
        out += (" - " if coef < 0 else " + ") + body if out else ("-" if coef < 0 else "") + body
    if e.const:
        out += f" {'-' if e.const < 0 else '+'} {abs(e.const)}"
    return out
