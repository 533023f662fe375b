# SPDX-License-Identifier: Apache-2.0
"""Maps whose regions are what is tested: every scalar op, casts, random DAGs of ops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir import arith
from tcc.ir import math as m
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Value
from tcc.ir.kernel import Func, Index, Map
from tcc.ir.kernel.build import RegionBuilder, dense, dims, func, scalar_region
from tcc.ir.types import BOOL, DType
from tests.codegen.cuda.builders import constant

UNARY = {
    name: cls
    for name, cls in vars(m).items()
    if isinstance(cls, type) and issubclass(cls, m._Unary) and cls is not m._Unary  # pyright: ignore
}  # fmt: skip
BINARY_FLOAT = (arith.Add, arith.Sub, arith.Mul, arith.Div, arith.Rem, arith.Min, arith.Max, m.Pow)
BINARY_INT = (
    arith.Add, arith.Sub, arith.Mul, arith.Div, arith.Mod, arith.Rem, arith.Min, arith.Max, arith.And, arith.Or,
    arith.Xor, arith.Shl, arith.Shr,
)  # fmt: skip


def unary_ops(count: int, d: DType, words: Sequence[str]) -> Func:
    """Every named op of `math` on the same vector, a result each, and isnan and isinf of it."""
    (i,) = dims("i")
    domain, at = Domain((("i", count),)), IndexMap((i,))

    def body(b: RegionBuilder, a: Sequence[Value]) -> list[Value]:
        return [*(b(UNARY[w](a[0])) for w in words), b(m.IsNan(a[0])), b(m.IsInf(a[0]))]

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=(at,), out_maps=(at,) * (len(words) + 2),
            result_types=[*[dense((count,), d)] * len(words), *[dense((count,), BOOL)] * 2],
            regions=[scalar_region([d], body)],
        )  # fmt: skip

    return func("unary", [dense((count,), d)], build)


def binary_ops(count: int, d: DType) -> Func:
    """Every binary op, negation and the comparisons on two vectors, a result each."""
    (i,) = dims("i")
    domain, at = Domain((("i", count),)), IndexMap((i,))
    ops = BINARY_FLOAT if d.is_float else BINARY_INT
    predicates = ("eq", "ne", "lt", "le", "gt", "ge")

    def body(b: RegionBuilder, a: Sequence[Value]) -> list[Value]:
        plain = [b(op(a[0], a[1])) for op in ops]
        tests = [b(arith.Cmp(a[0], a[1], predicate=p)) for p in predicates]
        return [*plain, b(arith.Neg(a[0])), b(arith.Select(tests[2], a[1], a[0])), *tests]

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=(at, at), out_maps=(at,) * (len(ops) + 8),
            result_types=[*[dense((count,), d)] * (len(ops) + 2), *[dense((count,), BOOL)] * 6],
            regions=[scalar_region([d, d], body)],
        )  # fmt: skip

    return func("binary", [dense((count,), d)] * 2, build)


def casts(count: int, d: DType, to: Sequence[DType], back: bool = False) -> Func:
    """A vector cast to every type of `to` (and `back`), a result each."""
    (i,) = dims("i")
    domain, at = Domain((("i", count),)), IndexMap((i,))

    def body(b: RegionBuilder, x: Sequence[Value]) -> list[Value]:
        made = [b(arith.Cast(x[0], to=t)) for t in to]
        return [b(arith.Cast(v, to=d)) for v in made] if back else made

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=(at,), out_maps=(at,) * len(to),
            result_types=[dense((count,), d if back else t) for t in to], regions=[scalar_region([d], body)],
        )  # fmt: skip

    return func("casts", [dense((count,), d)], build)


def random_region_map(rng: np.random.Generator, count: int, d: DType, length: int = 12) -> Func:
    """A random DAG of ops on two vectors (finite on [-2, 2])."""
    (i,) = dims("i")
    domain, at = Domain((("i", count),)), IndexMap((i,))
    floats = [arith.Add, arith.Sub, arith.Mul, arith.Min, arith.Max]
    ints = [arith.Add, arith.Sub, arith.Mul, arith.Min, arith.Max, arith.Div, arith.Mod, arith.And, arith.Xor]
    calm = ["Tanh", "Sigmoid", "Erf", "Sin", "Cos", "Atan", "Abs", "Sign", "Floor"]

    def body(b: RegionBuilder, a: Sequence[Value]) -> Value:
        values = [*a, b.cast(b(Index(dim="i")), d)]
        values[2] = b(arith.Min(values[2], constant(b, 1, d)))
        for _ in range(length):
            x, y = (values[int(k)] for k in rng.integers(0, len(values), 2))
            pick = rng.integers(0, 4)
            if d.is_float and pick == 0:
                v = b(UNARY[str(rng.choice(calm))](x))
            elif pick == 1:
                v = b(arith.Select(b(arith.Cmp(x, y, predicate="lt")), x, values[0]))
            else:
                ops = floats if d.is_float else ints
                v = b(ops[int(rng.integers(0, len(ops)))](x, y))
            if d.is_float:
                v = b(arith.Max(b(arith.Min(v, constant(b, 4, d))), constant(b, -4, d)))
            values.append(v)
        return values[-1]

    def build(a: Sequence[Value]) -> Map:
        return Map(
            list(a), domain=domain, maps=(at, at), out_maps=(at,), result_types=[dense((count,), d)],
            regions=[scalar_region([d, d], body)],
        )  # fmt: skip

    return func("random", [dense((count,), d)] * 2, build)
