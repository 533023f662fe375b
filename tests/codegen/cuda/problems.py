# SPDX-License-Identifier: Apache-2.0
"""Buffers with guard zones, and the check of a kernel against the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tcc.codegen.template import Config, Template
from tcc.ir.kernel import Func
from tcc.ir.kernel.approx import Approx
from tcc.ir.kernel.evaluate import Expected, evaluate, read
from tcc.ir.kernel.symbols import bind
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

GUARD = 256
POISON = 0xFF


@dataclass
class Buffer:
    """Bytes with guard zones on both sides; the tensor's first element is at byte `first`, `view` shows it."""

    raw: np.ndarray
    first: int
    view: np.ndarray

    @property
    def address(self) -> int:
        """Of the first element."""
        return self.raw.ctypes.data + self.first


Runner = Callable[..., None]
"""Runs all launches of an `Emitted` on the operands' and results' buffers, in place; a kernel's symbols follow."""


def buffer(t: TensorType, values: np.ndarray | None = None) -> Buffer:
    """Memory for a tensor, aligned as its type says and no better; poisoned, then filled with values."""
    size = t.dtype.bytes
    steps = [int(s) for s in t.element_strides]
    span = 1 + sum(max(e - 1, 0) * s for e, s in zip(t.static_shape, steps, strict=True))
    raw = np.full(span * size + 2 * GUARD + 256, POISON, np.uint8)
    first = -raw.ctypes.data % 256 + GUARD
    first += t.align if t.align < 64 else 0
    flat = raw[first : first + span * size].view(f"u{size}")
    view = np.lib.stride_tricks.as_strided(flat, t.static_shape, [s * size for s in steps]).view(t.dtype.numpy)
    if values is not None:
        view[...] = values
    return Buffer(raw, first, view)


def random_array(rng: np.random.Generator, t: TensorType, high: int | None = None) -> np.ndarray:
    """Values of moderate size; integers from 0 up to `high` where given (indices)."""
    shape, d = t.static_shape, t.dtype
    if d.is_float:
        return rng.uniform(-2, 2, shape).astype(d.numpy)
    if d.kind == "bool":
        return rng.random(shape) < 0.5
    low = 0 if d.kind == "uint" or high is not None else -4
    return rng.integers(low, 5 if high is None else high, shape).astype(d.numpy)


class Checker:
    """A problem with inputs and the oracle's answer to them."""

    def __init__(
        self, problem: Func, arrays: Sequence[np.ndarray], points: int | None = None,
        symbols: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.kernel, self.symbols = problem, symbols or {}
        problem = self.problem = bind(problem, self.symbols)
        self.arrays = list(arrays)
        self.expected: list[Expected] = evaluate(problem, self.arrays, points)

    def packed(self, template: Template, config: Config, target: Target) -> list[np.ndarray]:
        """The inputs, constants packed as the template asks."""
        out = list(self.arrays)
        for p in template.pack(self.kernel, config, target):
            index = dict(zip(p.domain.parallel_names, np.indices(p.shape), strict=True))
            source = self.arrays[p.operand]
            got = read(Approx(source.astype(np.float64) if p.dtype.is_float else source), p.map, index)
            out[p.operand] = np.ascontiguousarray(got.exact.astype(p.dtype.numpy))
        return out

    def worst(self, template: Template, config: Config, target: Target, run: Runner) -> float:
        """The largest error over its allowance; infinite if the kernel writes where it must not."""
        emitted = template.emit(self.kernel, config, target)
        inputs = self.packed(template, config, target)
        buffers = [
            buffer(t if a is b else TensorType(a.shape, t.dtype), a)
            for t, a, b in zip(self.problem.arg_types, inputs, self.arrays, strict=True)
        ]
        outs = [buffer(t) for t in self.problem.result_types]
        before = [b.raw.copy() for b in buffers]
        run(emitted, [*buffers, *outs], *([self.symbols] if self.symbols else []))
        if any(not np.array_equal(b.raw, was) for b, was in zip(buffers, before, strict=True)):
            return float("inf")
        ratio = 0.0
        for expected, out in zip(self.expected, outs, strict=True):
            ratio = max(ratio, expected.worst(out.view))
            if _touched_outside(out):
                return float("inf")
        return ratio


def _touched_outside(out: Buffer) -> bool:
    clean = out.raw.copy()
    size = out.view.itemsize
    mine = np.lib.stride_tricks.as_strided(clean[out.first :], (*out.view.shape, size), (*out.view.strides, 1))
    mine[...] = POISON
    return bool(np.any(clean != POISON))
