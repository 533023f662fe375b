# SPDX-License-Identifier: Apache-2.0
"""Matmuls and convolutions of many forms, and random scalar regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.codegen.template import TEMPLATES, Config, load_templates, rows_of
from tcc.ir import arith, math
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Region, Value
from tcc.ir.kernel import Conv, Func, MatMul
from tcc.ir.kernel.build import RegionBuilder, cast_region, dense, dims, func, scalar_region
from tcc.ir.targets import Target
from tcc.ir.types import F32, DType, TensorType
from tests.codegen.llvm.problems import Body, bind, const

Operand = tuple[TensorType, IndexMap]
m, n, k, b0, b1 = dims("m", "n", "k", "b0", "b1")


def matmul(
    size: dict[str, int],
    lhs: Operand | Sequence[Operand],
    rhs: Operand | Sequence[Operand],
    out: Operand | Sequence[Operand] | None = None,
    extra: Sequence[Operand] = (),
    epilogue: Body | None = None,
    lhs_body: Body | None = None,
    rhs_body: Body | None = None,
    acc: DType = F32,
    constant: bool = True,
) -> Func:
    """A matmul over `size` (batch dims, m, n, k); without `out` a dense f32 result."""
    d = Domain(bind({x: e for x, e in size.items() if x != "k"}), (("k", size["k"]),))
    return _contraction(MatMul, d, lhs, rhs, out, extra, epilogue, lhs_body, rhs_body, acc, constant)


def conv(
    size: tuple[int, ...] = (7, 8),
    ci: int = 5,
    co: int = 18,
    kernel: tuple[int, ...] = (3, 3),
    stride: tuple[int, ...] = (1, 1),
    dilation: tuple[int, ...] = (1, 1),
    pads: tuple[int, ...] = (1, 1),
    groups: int = 1,
    batch: int = 1,
    dtype: DType = F32,
    acc: DType = F32,
    layout: str = "nhwc",
    fill: float | None = 0.0,
    constant: bool = True,
    extra: Sequence[Operand] = (),
    epilogue: Body | None = None,
    lhs_body: Body | None = None,
    scales: Sequence[Operand] = (),
    out: TensorType | None = None,
) -> Func:
    """A convolution; `scales`: further operands of the left factor; `out`: the result's type over (n, spatial…, c)."""
    rank = len(size)
    o = [dims(f"o{x}")[0] for x in "zyx"[3 - rank :]]
    w = [dims(f"k{x}")[0] for x in "zyx"[3 - rank :]]
    n_, g, c_o, c_i = dims("n", "g", "co", "ci")
    made = [
        (s + 2 * p - dl * (kk - 1) - 1) // st + 1
        for s, p, dl, kk, st in zip(size, pads, dilation, kernel, stride, strict=True)
    ]
    cg, og = ci // groups, co // groups
    parallel = (("n", batch), *((str(x), e) for x, e in zip(o, made, strict=True)), ("g", groups), ("co", og))
    d = Domain(parallel, (*((str(x), e) for x, e in zip(w, kernel, strict=True)), ("ci", cg)))
    place = [a * st + b * dl - p for a, b, st, dl, p in zip(o, w, stride, dilation, pads, strict=True)]
    channel, filters = g * cg + c_i, g * og + c_o
    nhwc = layout == "nhwc"
    source = (
        dense((batch, *size, ci) if nhwc else (batch, ci, *size), dtype),
        IndexMap((n_, *place, channel) if nhwc else (n_, channel, *place), fill if any(pads) else None),
    )
    weights = (dense((co, *kernel, cg), dtype), IndexMap((filters, *w, c_i)))
    result = (out or dense((batch, *made, co), dtype), IndexMap((n_, *o, filters)))
    return _contraction(
        Conv, d, [source, *scales], weights, result, extra, epilogue, lhs_body, None, acc, constant
    )  # fmt: skip


def _contraction(
    kind: Any, d: Domain, lhs: Any, rhs: Any, out: Any, extra: Sequence[Operand], epilogue: Body | None,
    lhs_body: Body | None, rhs_body: Body | None, acc: DType, constant: bool,
) -> Func:  # fmt: skip
    left = [lhs] if isinstance(lhs, tuple) else list(lhs)
    right = [rhs] if isinstance(rhs, tuple) else list(rhs)
    if out is None:
        out = (dense([e for _, e in d.parallel], F32), IndexMap(dims(*d.parallel_names)))
    outs = [out] if isinstance(out, tuple) else list(out)

    def region(operands: Sequence[Operand], body: Body | None) -> Region:
        if body is None:
            return cast_region(operands[0][0].dtype, operands[0][0].dtype)
        return scalar_region([t.dtype for t, _ in operands], body)

    def finish(b: RegionBuilder, a: Sequence[Value]) -> Any:
        if epilogue is not None:
            return epilogue(b, a)
        total = a[0]
        for other in a[1:]:
            total = b(arith.Add(total, b.cast(other, acc)))
        return [b.cast(total, t.dtype) for t, _ in outs]

    operands = [*left, *right, *extra]
    return func(
        "f",
        [t for t, _ in operands],
        lambda args: kind(
            args[: len(left)], args[len(left) : len(left) + len(right)], args[len(left) + len(right) :],
            domain=d, acc=acc, maps=tuple(x for _, x in operands), out_maps=tuple(x for _, x in outs),
            regions=[
                region(left, lhs_body), region(right, rhs_body),
                scalar_region([acc, *(t.dtype for t, _ in extra)], finish),
            ],
            result_types=[t for t, _ in outs],
        ),
        [len(left) <= i < len(left) + len(right) and constant for i in range(len(operands))],
    )  # fmt: skip


def random_body(seed: int) -> Body:
    """A region of random f32 ops that uses every argument and never leaves ordinary numbers."""

    def body(b: RegionBuilder, a: Sequence[Value]) -> Value:
        rng = np.random.default_rng(seed)
        values = [b.cast(x, F32) for x in a]
        for _ in range(int(rng.integers(1, 8))):
            x, y = (values[int(rng.integers(len(values)))] for _ in range(2))
            pick = int(rng.integers(9))
            if pick < 4:
                op = (arith.Add, arith.Sub, arith.Max, arith.Min)[pick]
                values.append(b(op(x, y)))
            elif pick < 7:
                bounded = b(arith.Min(b(arith.Max(x, const(b, -4.0))), const(b, 4.0)))
                values.append(b((math.Sigmoid, math.Tanh, math.Erf)[pick - 4](bounded)))
            elif pick == 7:
                values.append(b(arith.Select(b(arith.Cmp(x, const(b, -1e9), predicate="lt")), y, x)))
            else:
                values.append(b(arith.Mul(x, const(b, float(rng.uniform(-2, 2))))))
        total = values[-1]
        for x in values[: len(a)]:
            total = b(arith.Add(total, x))
        return total

    return body


def configs(problem: Func, name: str, t: Target, count: int, seed: int = 0) -> list[Config]:
    """The default, and random legal configs up to `count` in all; all of them where there are no more."""
    load_templates("cpu")
    template = TEMPLATES[name]
    columns, _ = template.legal_columns(problem, t)
    every = rows_of(columns)
    default = template.default(problem, t)
    assert default in every, default
    rng = np.random.default_rng(seed)
    picks = rng.permutation(len(every))[: count - 1]
    return [default, *(every[int(i)] for i in picks)]
