# SPDX-License-Identifier: Apache-2.0
"""Problems of the irregular anchors, as lowering makes them, with inputs and what the reference says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Block
from tcc.ir.graph.base import GraphOp
from tcc.ir.kernel import Func
from tcc.ir.types import BF16, BOOL, F16, F32, F64, I8, I32, I64, U8, U64, DType, TensorType, Type
from tcc.passes.lower import irregular, region
from tcc.passes.lower.group import LOWERINGS, Group
from tcc.passes.lower.to_kernel import wrap

Array = np.ndarray[Any, Any]
assert irregular and region


@dataclass
class Case:
    """A kernel with inputs in the order of its arguments, and the results by the graph op's `evaluate`."""

    name: str
    problem: Func
    arrays: list[Array]
    expected: tuple[Array, ...]


def lowered(op: GraphOp, arrays: Sequence[Array], name: str) -> Case:
    """The kernel of a detached graph op."""
    made = LOWERINGS.get(op.name, LOWERINGS[""])(Group(wrap(op)))
    made.func.sym_name = "problem"
    inputs = dict(zip(op.operands, arrays, strict=True))
    return Case(name, made.func, [inputs[v].reshape(t.static_shape) for v, t in
                                  zip(made.operands, made.func.arg_types, strict=True)],
                tuple(op.evaluate(*arrays)))  # fmt: skip


def operands(types: Sequence[TensorType]) -> tuple[Any, ...]:
    """Values of those types."""
    return Block(list[Type](types)).args


def values(rng: np.random.Generator, shape: Sequence[int], dtype: DType, special: bool = False) -> Array:
    """Numbers with repetitions; with `special` NaNs, infinities and both zeros among floats."""
    if dtype is BOOL:
        return rng.random(shape) < 0.5
    if not dtype.is_float:
        return rng.integers(0 if dtype.kind == "uint" else -9, 10, shape).astype(dtype.numpy)
    out = np.round(rng.uniform(-3, 3, shape) * 8) / 8
    if special:
        picks = rng.random(shape)
        for i, v in enumerate((np.nan, np.inf, -np.inf, 0.0, -0.0)):
            out = np.where((picks >= i * 0.08) & (picks < (i + 1) * 0.08), v, out)
    return out.astype(dtype.numpy)


def scan(shape: Sequence[int], axis: int, dtype: DType = F32, product: bool = False, **flags: bool) -> Case:
    rng = np.random.default_rng([*shape, axis])
    (x,) = operands([TensorType(tuple(shape), dtype)])
    op = (graph.Cumprod if product else graph.Cumsum)(x, axis=axis, **flags)
    array = values(rng, shape, dtype)
    if product and dtype.is_float:
        array = rng.uniform(0.8, 1.25, shape).astype(dtype.numpy)
    flat = "".join(f"_{k}" for k, v in flags.items() if v)
    return lowered(op, [array], f"cum{'prod' if product else 'sum'}_{dtype}_{'x'.join(map(str, shape))}_{axis}{flat}")


def topk(shape: Sequence[int], k: int, axis: int = -1, dtype: DType = F32, largest: bool = True) -> Case:
    rng = np.random.default_rng([*shape, k])
    (x,) = operands([TensorType(tuple(shape), dtype)])
    op = graph.TopK(x, k=k, axis=axis % len(shape), largest=largest)
    name = f"topk{k}_{dtype}_{'x'.join(map(str, shape))}_{axis % len(shape)}{'' if largest else '_least'}"
    return lowered(op, [values(rng, shape, dtype, special=True)], name)


def scatter_elements(
    shape: Sequence[int], at: Sequence[int], axis: int, dtype: DType = F32, reduction: str = "none"
) -> Case:
    rng = np.random.default_rng([*shape, *at])
    types = [TensorType(tuple(shape), dtype), TensorType(tuple(at), I64), TensorType(tuple(at), dtype)]
    x, i, u = operands(types)
    op = graph.ScatterElements(x, i, u, axis=axis, reduction=reduction)
    extent = shape[axis]
    arrays = [values(rng, shape, dtype), rng.integers(-extent, extent, at), values(rng, at, dtype)]
    return lowered(op, arrays, f"elements_{reduction}_{dtype}_{'x'.join(map(str, shape))}_{axis}")


def scatter_nd(
    shape: Sequence[int], lead: Sequence[int], depth: int, dtype: DType = F32, reduction: str = "none",
    index: DType = I64,
) -> Case:  # fmt: skip
    rng = np.random.default_rng([*shape, *lead, depth])
    updates = (*lead, *shape[depth:])
    types = [TensorType(tuple(shape), dtype), TensorType((*lead, depth), index), TensorType(updates, dtype)]
    x, i, u = operands(types)
    op = graph.ScatterNd(x, i, u, reduction=reduction)
    at = np.zeros((*lead, depth), index.numpy)
    for d in range(depth):
        at[..., d] = rng.integers(-shape[d], shape[d], lead)
    arrays = [values(rng, shape, dtype), at, values(rng, updates, dtype)]
    return lowered(op, arrays, f"nd{depth}_{reduction}_{dtype}_{'x'.join(map(str, shape))}")


def regions(
    picture: Sequence[int], count: int, bins: Sequence[int], dtype: DType = F32, kind: str = "sum", weights: int = 2,
    index: DType = I64,
) -> Case:  # fmt: skip
    """Rectangles that begin before the picture, end behind it, or are empty."""
    rng = np.random.default_rng([*picture, count, *bins])
    n, h, w, _ = picture
    across, along = bins
    arrays: list[Array] = [values(rng, picture, dtype), rng.integers(-n, 2 * n, count).astype(index.numpy)]
    for at, extent in ((across, h), (along, w)):
        first = rng.integers(-2, extent + 1, (count, at))
        arrays.append(np.stack([first, first + rng.integers(-1, extent + 2, first.shape)], -1).astype(index.numpy))
    arrays += [rng.uniform(0, 1, (count, *shape)).astype(dtype.numpy) for shape in ((across, h), (along, w))][:weights]
    given = operands([TensorType(a.shape, index if i in (1, 2, 3) else dtype) for i, a in enumerate(arrays)])
    op = graph.RegionReduce(*given, kind=kind)
    return lowered(op, arrays, f"regions_{kind}_{dtype}_{'x'.join(map(str, picture))}_{count}_{weights}")


def cases() -> list[Case]:
    """Odd shapes, all types, all flags."""
    out = [
        scan((3, 37), 1), scan((5, 7, 9), 1, reverse=True), scan((4, 33), 0, exclusive=True),
        scan((2, 130), 1, F16, exclusive=True, reverse=True), scan((6, 5), 1, BF16), scan((41,), 0, F64, reverse=True),
        scan((3, 50), 1, I32), scan((3, 50), 1, I64, exclusive=True), scan((7, 3), 0, U8),
        scan((3, 20), 1, product=True),
        scan((9, 2), 0, I32, product=True, exclusive=True), scan((1, 2500), 1), scan((0, 4), 1), scan((4, 0), 1),
        scan((1,), 0, exclusive=True), scan((2, 3, 70), 1, F64),
    ]  # fmt: skip
    out += [
        topk((3, 40), 5), topk((3, 40), 5, largest=False), topk((4, 9, 3), 4, 1), topk((33,), 33, 0, F16),
        topk((2, 70), 70, 1, F64, largest=False), topk((2, 100), 7, 1, F64), topk((5, 30), 3, 1, I64),
        topk((5, 30), 30, 1, I32, largest=False), topk((3, 50), 9, 1, U8), topk((2, 21), 4, 1, BF16, largest=False),
        topk((4, 6), 1), topk((3, 5), 0), topk((0, 5), 2), topk((1, 3001), 300), topk((2, 17), 6, 1, I8),
        topk((2, 30), 8, 1, U64, largest=False), topk((3, 12), 5, 1, BOOL),
    ]  # fmt: skip
    out += [
        scatter_elements((5, 7), (3, 4), 1), scatter_elements((5, 7), (5, 7), 0, F32, "add"),
        scatter_elements((6, 4, 5), (6, 3, 5), 1, F64, "mul"), scatter_elements((9,), (20,), 0, I32, "add"),
        scatter_elements((5, 8), (4, 8), 0, F32, "max"), scatter_elements((5, 8), (4, 6), 1, I64, "min"),
        scatter_elements((4, 5), (2, 5), 0, BOOL), scatter_elements((4, 5), (0, 5), 0, F16),
        scatter_elements((5, 6), (8, 6), 0, F16, "add"), scatter_elements((3, 9), (3, 9), 1, U8, "max"),
        scatter_nd((6, 5, 4), (3,), 1), scatter_nd((6, 5, 4), (2, 3), 2, F16), scatter_nd((6, 5), (40,), 2, F32),
        scatter_nd((6, 5), (40,), 2, F32, "add"), scatter_nd((5, 7), (3,), 1, I32, "mul", I32),
        scatter_nd((8, 33), (5,), 1, BF16, "max"), scatter_nd((50, 3), (70,), 1, F32, "min"),
    ]  # fmt: skip
    out += [
        regions((2, 7, 9, 37), 5, (3, 2)), regions((1, 8, 8, 20), 4, (2, 2), F64, "max", 2, I32),
        regions((3, 5, 6, 150), 3, (1, 4), F32, "max", 0), regions((2, 6, 5, 1), 7, (2, 3), F16, "sum", 1),
        regions((1, 4, 4, 3), 0, (2, 2)), regions((1, 1, 9, 33), 1, (1, 1), BF16, "max", 1),
    ]  # fmt: skip
    return out
