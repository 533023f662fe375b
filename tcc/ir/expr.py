# SPDX-License-Identifier: Apache-2.0
"""Integer expressions over named symbols: tensor dims, index maps, grids, sizes.

An expression is an `int`, or an `Expr` that is not constant (`tcc/ir/expr_form.py`). Here is what is done with them;
everything of both modules is imported from this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tcc.ir.expr_form import (
    EXTENT_MAX,
    Atom,
    Binary,
    Box,
    Dim,
    Expr,
    Ranges,
    Sum,
    Sym,
    add,
    below,
    bounds,
    build,
    extreme,
    floordiv,
    maximum,
    minimum,
    mod,
    mul,
    symbols,
    terms_of,
    to_text,
    within,
)

__all__ = [
    "EXTENT_MAX", "Atom", "Binary", "Box", "Dim", "Expr", "Ranges", "Sum", "Sym", "add", "below", "bounds", "ceildiv",
    "coefficient", "evaluate", "floordiv", "maximum", "minimum", "mod", "mul", "product", "simplify", "split",
    "substitute", "symbols", "to_json", "to_text", "within",
]  # fmt: skip


def ceildiv(a: Dim, b: Dim) -> Dim:
    """⌈a / b⌉ for b > 0."""
    return floordiv(add(a, add(b, -1)), b)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims; 1 for none."""
    out: Dim = 1
    for d in dims:
        out = mul(out, d)
    return out


def substitute(e: Dim, env: Mapping[str, Dim], ranges: Ranges | None = None) -> Dim:
    """e with symbols replaced by `env`, simplified again under `ranges`."""
    if isinstance(e, int):
        return e
    if isinstance(e, Sym):
        return env.get(e.name, e)
    if isinstance(e, Binary):
        lhs, rhs = substitute(e.lhs, env, ranges), substitute(e.rhs, env, ranges)
        if e.op == "floordiv":
            return floordiv(lhs, rhs, ranges)
        if e.op == "mod":
            return mod(lhs, rhs, ranges)
        return extreme(e.op, lhs, rhs, ranges)
    assert isinstance(e, Sum)
    out: Dim = e.const
    for atoms, coef in e.terms:
        term: Dim = coef
        for atom in atoms:
            term = mul(term, substitute(atom, env, ranges))
        out = add(out, term)
    return out


def simplify(e: Dim, ranges: Ranges) -> Dim:
    """e simplified knowing the bounds of its symbols."""
    return substitute(e, {}, ranges)


def coefficient(e: Dim, name: str) -> int | None:
    """The integer c with e = c·name + rest and `name` not in rest; None if e is not linear in name."""
    if name not in symbols(e):
        return 0
    terms, _ = terms_of(e)
    found = 0
    for atoms, coef in terms.items():
        if atoms == (Sym(name),):
            found = coef
        elif any(name in symbols(a) for a in atoms):
            return None
    return found


def split(e: Dim, names: Iterable[str]) -> tuple[Dim, Dim]:
    """(terms that mention any of `names`, the rest with the constant)."""
    wanted = frozenset(names)
    terms, const = terms_of(e)
    mine = {t: c for t, c in terms.items() if any(symbols(a) & wanted for a in t)}
    rest = {t: c for t, c in terms.items() if t not in mine}
    return build(mine, 0), build(rest, const)


def evaluate(e: Dim, env: Mapping[str, Any]) -> Any:
    """The value of e; symbols may be ints or integer numpy arrays (then the result is an array)."""
    if isinstance(e, int):
        return e
    if isinstance(e, Sym):
        return env[e.name]
    if isinstance(e, Binary):
        lhs, rhs = evaluate(e.lhs, env), evaluate(e.rhs, env)
        if e.op == "floordiv":
            return lhs // rhs
        if e.op == "mod":
            return lhs % rhs
        smaller = lhs < rhs
        if isinstance(smaller, bool):
            return lhs if smaller == (e.op == "min") else rhs
        pick = smaller if e.op == "min" else ~smaller
        return pick * lhs + (1 - pick) * rhs
    assert isinstance(e, Sum)
    total: Any = e.const
    for atoms, coef in e.terms:
        term: Any = coef
        for atom in atoms:
            term = term * evaluate(atom, env)
        total = total + term
    return total


def to_json(e: Dim) -> Any:
    """The engine's JSON form: int, symbol name, or [op, a, b]."""
    if isinstance(e, int):
        return e
    if isinstance(e, Sym):
        return e.name
    if isinstance(e, Binary):
        return [e.op, to_json(e.lhs), to_json(e.rhs)]
    assert isinstance(e, Sum)
    parts: list[Any] = []
    for atoms, coef in e.terms:
        factors: list[Any] = ([coef] if coef != 1 else []) + [to_json(a) for a in atoms]
        term = factors[0]
        for factor in factors[1:]:
            term = ["mul", term, factor]
        parts.append(term)
    if e.const:
        parts.append(e.const)
    out = parts[0]
    for part in parts[1:]:
        out = ["add", out, part]
    return out
