# SPDX-License-Identifier: Apache-2.0
"""Random problems for tests of CUDA templates, buffers with guard zones, and the check against the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tcc.codegen.template import Config, Emitted, Template
from tcc.ir.kernel import Func
from tcc.ir.kernel.approx import Approx
from tcc.ir.kernel.evaluate import evaluate, read
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

GUARD = 256
POISON = 0xFF
Runner = Callable[[Emitted, Sequence[np.ndarray]], None]


@dataclass
class Buffer:
    """Bytes with guard zones on both sides, and the tensor's view of them."""

    raw: np.ndarray
    first: int
    view: np.ndarray

    @property
    def start(self) -> np.ndarray:
        """Bytes from the first element on."""
        return self.raw[self.first :]


def buffer(t: TensorType, values: np.ndarray | None = None) -> Buffer:
    """Memory for a tensor, aligned as its type says and no better; poisoned, then filled with values."""
    size = t.dtype.bytes
    steps = [int(s) for s in t.element_strides]
    span = 1 + sum(max(e - 1, 0) * s for e, s in zip(t.static_shape, steps, strict=True))
    raw = np.full(span * size + 2 * GUARD + 256, POISON, np.uint8)
    first = -raw.ctypes.data % 256 + GUARD
    first += t.align if t.align < 64 else 0
    flat = raw[first : first + span * size].view(t.dtype.numpy)
    view = np.lib.stride_tricks.as_strided(flat, t.static_shape, [s * size for s in steps])
    if values is not None:
        view[...] = values
    return Buffer(raw, first, view)


def random_array(rng: np.random.Generator, t: TensorType, high: int | None = None) -> np.ndarray:
    """Values of moderate size; integers up to `high` where given (indices)."""
    shape, d = t.static_shape, t.dtype
    if d.is_float:
        return rng.uniform(-2, 2, shape).astype(d.numpy)
    if d.kind == "bool":
        return rng.random(shape) < 0.5
    low = 0 if d.kind == "uint" or high is not None else -4
    return rng.integers(low, 5 if high is None else high, shape).astype(d.numpy)


def packed(
    problem: Func, template: Template, config: Config, target: Target, arrays: list[np.ndarray]
) -> list[np.ndarray]:
    """The arrays with constants packed as the template asks."""
    out = list(arrays)
    for p in template.pack(problem, config, target):
        index = dict(zip(p.domain.parallel_names, np.indices(p.shape), strict=True))
        got = read(
            Approx(arrays[p.operand].astype(np.float64) if p.dtype.is_float else arrays[p.operand]), p.map, index
        )
        out[p.operand] = np.ascontiguousarray(got.exact.astype(p.dtype.numpy))
    return out


def worst(
    problem: Func, template: Template, config: Config, target: Target, arrays: list[np.ndarray], run: Runner,
    points: int | None = None,
) -> float:  # fmt: skip
    """The largest error over its allowance of the kernel for one config; infinite if it writes elsewhere."""
    emitted = template.emit(problem, config, target)
    inputs = packed(problem, template, config, target, arrays)
    buffers = [
        buffer(t if a is b else TensorType(a.shape, t.dtype), a)
        for t, a, b in zip(problem.arg_types, inputs, arrays, strict=True)
    ]
    outs = [buffer(t) for t in problem.result_types]
    before = [b.raw.copy() for b in buffers]
    run(emitted, [b.start for b in (*buffers, *outs)])
    for b, was in zip(buffers, before, strict=True):
        if not np.array_equal(b.raw, was):
            return float("inf")
    ratio = 0.0
    for expected, out in zip(evaluate(problem, arrays, points), outs, strict=True):
        ratio = max(ratio, expected.worst(out.view))
        clean = out.raw.copy()
        size = out.view.itemsize
        shape, steps = out.view.shape, out.view.strides
        mine = np.lib.stride_tricks.as_strided(clean[out.first :], (*shape, size), (*steps, 1))
        mine[...] = POISON
        if np.any(clean != POISON):
            return float("inf")
    return ratio
