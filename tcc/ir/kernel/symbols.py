# SPDX-License-Identifier: Apache-2.0
"""Symbols of kernels: the extents that a kernel takes as arguments.

A `kernel.func` is closed over symbols of its own, `s0`, `s1`, … in the order of first use; `kernel.launch` says in
`extents` what each stands for. So kernels that differ only in what decides their extents are one problem.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tcc.ir.arith import Constant
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Value
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Expr, Sym, evaluate, substitute, symbols
from tcc.ir.kernel.anchors import Anchor
from tcc.ir.kernel.func import Func, Index
from tcc.ir.types import I64, ScalarType, TensorType, Type

TUNING_POINTS = (64, 48, 96, 200, 1000)
"""What a symbol is taken to be for checking and timing: the first value with which no extent of the kernel is 0."""


def substitute_type(t: Type, env: Mapping[str, Dim]) -> Type:
    """A type with the symbols of its extents and strides replaced."""
    if not isinstance(t, TensorType):
        return t
    shape = tuple(substitute(d, env) for d in t.shape)
    strides = None if t.strides is None else tuple(substitute(s, env) for s in t.strides)
    return t.with_(shape=shape, strides=strides)


def substitute_attribute(value: Any, env: Mapping[str, Dim]) -> Any:
    """An attribute with the symbols of its expressions and types replaced; index maps and domains keep their dims."""
    if isinstance(value, Expr):
        return substitute(value, env)
    if isinstance(value, Type):
        return substitute_type(value, env)
    if isinstance(value, IndexMap):
        return value.substitute(env)
    if isinstance(value, Domain):
        return Domain(
            tuple((n, substitute(e, env)) for n, e in value.parallel),
            tuple((n, substitute(e, env)) for n, e in value.reduce),
        )
    if isinstance(value, tuple):
        return tuple(substitute_attribute(v, env) for v in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {k: substitute_attribute(v, env) for k, v in value.items()}  # pyright: ignore
    return value


def used_symbols(func: Func) -> tuple[str, ...]:
    """The symbols of a kernel in the order of first use: in its arguments, then anchor by anchor."""
    found: dict[str, None] = {}

    def see(e: Dim, own: Sequence[str] = ()) -> None:
        found.update(dict.fromkeys(s for s in sorted(symbols(e)) if s not in own and not s.startswith("$")))

    def see_type(t: Type) -> None:
        if isinstance(t, TensorType):
            for d in (*t.shape, *(t.strides or ())):
                see(d)

    for arg in func.body.block.args:
        see_type(arg.type)
    for op in func.body.block.ops:
        if isinstance(op, Anchor):
            own = tuple(op.own_names)
            for _, e in (*op.domain.parallel, *op.domain.reduce):
                see(e)
            for access in (*op.maps, *op.out_maps):
                for e in (*access.results, *access.zero):
                    see(e, own)
            for inner in op.walk():
                if isinstance(inner, Index) and inner.dim not in own:
                    found[inner.dim] = None
        for r in op.results:
            see_type(r.type)
    return tuple(found)


def close(func: Func) -> tuple[Dim, ...]:
    """Rename the symbols of a kernel under construction to its own; what they stand for, as a launch says it."""
    names = used_symbols(func)
    env: dict[str, Dim] = {n: Sym(f"s{i}") for i, n in enumerate(names)}
    if env:
        _replace(func, env)
    func.attrs["symbols"] = tuple(f"s{i}" for i in range(len(names)))
    return tuple(Sym(n) for n in names)


def bind(func: Func, values: Mapping[str, int]) -> Func:
    """A detached copy of a kernel with its symbols bound."""
    missing = [s for s in func.symbols if s not in values]
    if missing:
        raise IRError(f"{func.name} @{func.sym_name}: its symbol {missing[0]} is not bound")
    copy = func.clone()
    assert isinstance(copy, Func)
    if func.symbols:
        _replace(copy, {s: values[s] for s in func.symbols})
        copy.attrs["symbols"] = ()
    return copy


def _replace(func: Func, env: Mapping[str, Dim]) -> None:
    """Replace symbols everywhere in a kernel; in an anchor its dims hide symbols of the same name."""

    def retype(v: Value) -> None:
        v.type = substitute_type(v.type, env)

    for arg in func.body.block.args:
        retype(arg)
    for op in func.body.block.ops:
        for r in op.results:
            retype(r)
        if not isinstance(op, Anchor):
            continue
        own = op.own_names
        inner_env = {s: e for s, e in env.items() if s not in own}
        for key, value in list(op.attrs.items()):
            if isinstance(value, Domain):
                op.attrs[key] = substitute_attribute(value, env)
        op.attrs["maps"] = tuple(m.substitute(inner_env) for m in op.maps)
        op.attrs["out_maps"] = tuple(m.substitute(inner_env) for m in op.out_maps)
        for inner in list(op.walk()):
            if isinstance(inner, Index) and inner.dim in inner_env:
                new = inner_env[inner.dim]
                if isinstance(new, Sym):
                    inner.attrs["dim"] = new.name
                    continue
                assert isinstance(new, int), f"the symbol {inner.dim} becomes {new}"
                block = inner.parent
                assert block is not None
                constant = Constant.create([], (), [], {"value": new}, [ScalarType(I64)])
                block.insert_before(constant, inner)
                inner.y.replace_all_uses_with(constant.results[0])
                inner.erase()


def tuning(func: Func) -> dict[str, int]:
    """Values for the symbols of a kernel, for checking and timing: the first with which no extent is below 1."""
    names = func.symbols
    if not names:
        return {}
    extents = _extents(func)
    for values in _points(len(names)):
        env = dict(zip(names, values, strict=True))
        if all(evaluate(e, env) >= 1 for e in extents):
            return env
    return dict.fromkeys(names, TUNING_POINTS[0])


def _points(count: int) -> list[tuple[int, ...]]:
    """All symbols alike, then every combination for the first few of them."""
    alike = [(v,) * count for v in TUNING_POINTS]
    varied = [v + v[-1:] * (count - len(v)) for v in itertools.product(TUNING_POINTS, repeat=min(count, 4))]
    return [*alike, *varied]


def _extents(func: Func) -> list[Dim]:
    out: list[Dim] = []
    for op in func.anchors():
        out += [e for _, e in (*op.domain.parallel, *op.domain.reduce)]
        for v in (*op.operands, *op.results):
            if isinstance(v.type, TensorType):
                out += v.type.shape
    return [e for e in out if not isinstance(e, int)]


def typical(func: Func) -> Func:
    """The kernel at its tuning point; itself where it has no symbols."""
    return bind(func, tuning(func)) if func.symbols else func


__all__ = [
    "bind",
    "close",
    "substitute_attribute",
    "substitute_type",
    "tuning",
    "typical",
    "used_symbols",
]
