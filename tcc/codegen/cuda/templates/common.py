# SPDX-License-Identifier: Apache-2.0
"""What the CUDA templates share: checks, sizes, and the parts of their cost models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tcc.codegen.template import Config, Template, rows_of
from tcc.ir.kernel import Attention, Contraction, Func, Ragged, Recurrence, Reduce
from tcc.ir.kernel.symbols import typical
from tcc.ir.targets import Target
from tcc.ir.types import STRING, TensorType

Array = np.ndarray[Any, Any]


def free_extent(problem: Func) -> str | None:
    """The sentence for a problem whose extents are arguments, else None."""
    if problem.symbols:
        return "extents are arguments, and it takes numbers only"
    for t in (*problem.arg_types, *problem.result_types):
        if t.dtype is STRING:
            return "strings have no kernels"
    return None


def free_beside(problem: Func, names: Iterable[str]) -> str | None:
    """The sentence for a problem of which other extents than those of the named dims are arguments, else None."""
    domain, given = problem.anchor.domain, frozenset(names)
    if all(isinstance(domain.extent(n), int) for n in domain.names if n not in given) and any(
        not isinstance(domain.extent(n), int) for n in given
    ):
        return None
    return free_extent(problem)


def size_of(problem: Func, names: Iterable[str]) -> int:
    """The number of points over the named dims."""
    total = 1
    for n in names:
        total *= problem.anchor.domain.int_extent(n)
    return total


def parallel_size(problem: Func) -> int:
    return size_of(problem, problem.anchor.domain.parallel_names)


def reduce_size(problem: Func) -> int:
    return size_of(problem, problem.anchor.domain.reduce_names)


def traffic(problem: Func) -> int:
    """Bytes of all operands and results, each once."""
    total = 0
    for t in (*problem.arg_types, *problem.result_types):
        if isinstance(t, TensorType) and t.is_static:
            total += int(np.prod(t.static_shape, dtype=np.int64)) * t.dtype.bytes
    return total


def flops(problem: Func) -> float:
    """Multiply-adds count two; anything else counts one a point and input."""
    anchor = problem.anchor
    # How much of the reduce dims a ragged part has, only data say.
    points = float(parallel_size(problem)) * (
        min(16, reduce_size(problem)) if isinstance(anchor, Ragged) else reduce_size(problem)
    )
    if isinstance(anchor, Contraction | Attention | Recurrence):
        return 2.0 * points
    return points * (len(anchor.operands) if isinstance(anchor, Reduce) else 1 + len(anchor.operands))


def memory_seconds(problem: Func, target: Target) -> float:
    """Time to move every operand and result once."""
    return traffic(problem) / target.memory_rate


def cheapest(template: Template, problem: Func, target: Target) -> Config | None:
    """The legal config of the least estimated cost; None where none is legal."""
    columns, _ = template.legal_columns(problem, target)
    if columns and not len(next(iter(columns.values()))):
        return None
    return rows_of(columns)[int(np.argmin(template.cost(typical(problem), columns, target)))]


def ceil_div(a: Any, b: Any) -> Any:
    return -(-a // b)


BLOCK_SECONDS = 1.2e-9
"""Between two blocks that the GPU starts: measured on an H100 with 20 000 to 100 000 small blocks."""


def instruction_rate(target: Target) -> float:
    """Instructions of single threads that all SMs issue in a second."""
    return target.flop_rate / 2.0


def clock(target: Target) -> float:
    """Cycles a second, from 128 FMAs a cycle and SM."""
    return target.flop_rate / (target.cores * 256.0)


def clusters(split: int, element_bytes: int, target: Target) -> bool:
    """Whether the parts of a split sum meet in a cluster's shared memory, not in a workspace."""
    return 1 < split <= 8 and "cluster" in target.features and element_bytes in (4, 8)


def wave_efficiency(blocks: Array, per_wave: Array | int) -> Array:
    """Blocks over the places of all the waves they take."""
    blocks = np.maximum(np.asarray(blocks, np.float64), 1.0)
    waves = np.ceil(blocks / per_wave)
    return blocks / (waves * per_wave)
