# SPDX-License-Identifier: Apache-2.0
"""Integer expressions of the engine file (spec/engine.md, section 2) and their one evaluator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tcc.errors import FailureError

Expr = Any
"""An int, a symbol's name, or a list ``[operator, operand, ...]``."""

OPERATORS = frozenset(("add", "sub", "mul", "neg", "floordiv", "mod", "ceildiv", "min", "max"))


def evaluate(expr: Expr, symbols: Mapping[str, int]) -> int:
    """The value of `expr` with the symbols bound; raises FailureError for an unbound symbol or an unknown operator."""
    if type(expr) is int:
        return expr
    if type(expr) is str:
        try:
            return symbols[expr]
        except KeyError:
            raise FailureError(f"the symbol '{expr}' is used before anything gives it a value") from None
    if not isinstance(expr, list) or len(expr) < 2:
        raise FailureError(f"{expr!r} is not an expression of the engine format")
    operands = [evaluate(e, symbols) for e in expr[1:]]
    match expr[0]:
        case "add":
            return sum(operands)
        case "mul":
            product = 1
            for value in operands:
                product *= value
            return product
        case "min":
            return min(operands)
        case "max":
            return max(operands)
        case "neg" if len(operands) == 1:
            return -operands[0]
        case "sub" if len(operands) == 2:
            return operands[0] - operands[1]
        case "floordiv" | "mod" | "ceildiv" if len(operands) == 2:
            a, b = operands
            if b == 0:
                raise FailureError(f"the expression {expr!r} divides by zero")
            return a // b if expr[0] == "floordiv" else a % b if expr[0] == "mod" else -(-a // b)
        case _:
            raise FailureError(f"{expr!r} is not an expression of the engine format")


def symbols_of(expr: Expr) -> Iterator[str]:
    """The names that `expr` mentions, with repeats."""
    if isinstance(expr, str):
        yield expr
    elif isinstance(expr, list):
        for operand in expr[1:]:
            yield from symbols_of(operand)


def is_constant(expr: Expr) -> bool:
    """Whether `expr` mentions no symbol."""
    return next(symbols_of(expr), None) is None


def show(expr: Expr) -> str:
    """`expr` for people: ``n``, ``(2 * n)``, ``ceildiv(m, 64)``."""
    if not isinstance(expr, list):
        return str(expr)
    signs = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%"}
    parts = [show(e) for e in expr[1:]]
    if expr[0] in signs:
        return "(" + f" {signs[expr[0]]} ".join(parts) + ")"
    return f"{expr[0]}({', '.join(parts)})"
