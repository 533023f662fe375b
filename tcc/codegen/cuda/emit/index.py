# SPDX-License-Identifier: Apache-2.0
"""Index expressions as C++: 32-bit where every intermediate value fits, else 64-bit."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from tcc.ir.expr import Binary, Dim, Ranges, Sum, Sym, add, bounds, floordiv, maximum, minimum, mod, mul
from tcc.ir.kernel.func import is_symbol

_MAX32 = (1 << 31) - 1


def fits32(e: Dim, ranges: Ranges) -> bool:
    """Whether e and everything computed on the way to it fits a signed 32-bit integer."""
    if isinstance(e, int):
        return -_MAX32 <= e <= _MAX32
    lo, hi = bounds(e, ranges)
    if lo < -_MAX32 or hi > _MAX32:
        return False
    if isinstance(e, Sym):
        return True
    if isinstance(e, Binary):
        return fits32(e.lhs, ranges) and fits32(e.rhs, ranges)
    assert isinstance(e, Sum)
    reach = abs(e.const)
    for atoms, coefficient in e.terms:
        size = abs(coefficient)
        for atom in atoms:
            if not fits32(atom, ranges):
                return False
            size *= max(1, *(abs(b) for b in bounds(atom, ranges)))
        reach += size
    return reach <= _MAX32


def c_index(e: Dim, env: Mapping[str, str], ranges: Ranges, wide: bool | None = None) -> str:
    """e as a C++ expression; `env` gives the C++ expression of each name (default: itself, and for a symbol of the
    kernel the member of `args`).

    `wide`: compute in 64 bits (None: where 32 do not hold it).
    """
    if wide is None:
        wide = not fits32(e, ranges)
    return _Writer(env, ranges, wide).text(e)


def rewrite(e: Dim, env: Mapping[str, Dim], ranges: Ranges) -> Dim:
    """e with symbols replaced, and divisions freed of remainders: (8q + r) mod 24 is 8 (q mod 3) + r, r < 8."""
    if isinstance(e, int):
        return e
    if isinstance(e, Sym):
        return env.get(e.name, e)
    if isinstance(e, Binary):
        lhs, rhs = rewrite(e.lhs, env, ranges), rewrite(e.rhs, env, ranges)
        if e.op in ("min", "max"):
            return (minimum if e.op == "min" else maximum)(lhs, rhs, ranges)
        plain = (floordiv if e.op == "floordiv" else mod)(lhs, rhs, ranges)
        if not isinstance(rhs, int) or rhs <= 0 or not isinstance(plain, Binary | Sum):
            return plain
        whole, small, unit = _split_small(lhs, rhs, ranges)
        if unit == 1:
            return plain
        quotient, divisor = floordiv(whole, unit), rhs // unit
        if e.op == "floordiv":
            return floordiv(quotient, divisor, ranges)
        return add(mul(mod(quotient, divisor, ranges), unit), small)
    assert isinstance(e, Sum)
    out: Dim = e.const
    for atoms, coefficient in e.terms:
        term: Dim = coefficient
        for atom in atoms:
            term = mul(term, rewrite(atom, env, ranges))
        out = add(out, term)
    return out


def _split_small(e: Dim, divisor: int, ranges: Ranges) -> tuple[Dim, Dim, int]:
    """(whole, small, unit) with e = whole + small, unit dividing divisor and whole, and 0 ≤ small < unit; unit is 1
    where there is no such split."""
    if not isinstance(e, Sum):
        return e, 0, 1
    units = sorted({gcd(c, divisor) for _, c in e.terms}, reverse=True)
    for unit in units:
        small: Dim = e.const % unit
        for atoms, c in e.terms:
            if c % unit:
                term: Dim = c
                for atom in atoms:
                    term = mul(term, atom)
                small = add(small, term)
        lo, hi = bounds(small, ranges)
        if unit > 1 and lo >= 0 and hi < unit:
            return add(e, mul(small, -1)), small, unit
    return e, 0, 1


class _Writer:
    def __init__(self, env: Mapping[str, str], ranges: Ranges, wide: bool) -> None:
        self.env = env
        self.ranges = ranges
        self.wide = wide

    def text(self, e: Dim) -> str:
        if isinstance(e, int):
            return f"{e}ll" if self.wide else str(e)
        if isinstance(e, Sym):
            name = self.env.get(e.name) or (f"args.{e.name}" if is_symbol(e.name) else e.name)
            return f"(long long)({name})" if self.wide else name if name.isidentifier() else f"({name})"
        if isinstance(e, Binary):
            return self.binary(e)
        assert isinstance(e, Sum)
        parts: list[str] = []
        for atoms, coefficient in e.terms:
            factors = [self.text(a) for a in atoms]
            if abs(coefficient) != 1:
                factors.append(self.text(abs(coefficient)))
            term = " * ".join(factors)
            parts.append(f"{'- ' if coefficient < 0 else '+ ' if parts else ''}{term}")
        if e.const:
            parts.append(f"{'-' if e.const < 0 else '+'} {self.text(abs(e.const))}")
        return f"({' '.join(parts)})"

    def binary(self, e: Binary) -> str:
        lhs, rhs = self.text(e.lhs), self.text(e.rhs)
        if e.op in ("min", "max"):
            return f"tcc::{e.op}_index({lhs}, {rhs})"
        lo, _ = bounds(e.lhs, self.ranges)
        if lo >= 0 and isinstance(e.rhs, int) and e.rhs > 0:
            # Division of unsigned numbers by a constant is a multiplication and a shift.
            sign, unsigned, suffix = (
                ("long long", "unsigned long long", "ull") if self.wide else ("int", "unsigned", "u")
            )
            return f"({sign})(({unsigned})({lhs}) {'/' if e.op == 'floordiv' else '%'} {e.rhs}{suffix})"
        return f"tcc::{'floor_div' if e.op == 'floordiv' else 'floor_mod'}({lhs}, {rhs})"
