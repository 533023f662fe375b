# SPDX-License-Identifier: Apache-2.0
"""Which configs of the tensor-core templates are legal, and about how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc.codegen.cuda.templates.common import Array, ceil_div, memory_seconds
from tcc.codegen.cuda.templates.mma_view import COPY_ASYNC, MmaView
from tcc.codegen.template import Columns, Constraint
from tcc.ir.kernel import Func
from tcc.ir.targets import Target

FEWEST_BYTES = 64
"""Bytes of k in a step of the main loop, at least: two instructions' depth."""
REDUCE_NONE, REDUCE_CLUSTER, REDUCE_WORKSPACE = 0, 1, 2
CLOCK = 1.6e9
"""About what all these chips run at under load."""
MOST_COPIES = 16
L2_BYTES, COPY_CYCLES, ELEMENT_CYCLES = 72.0, 5.5, 11.0
"""Bytes a cycle from L2 to an SM; cycles of a warp's 32 copies, asynchronous or through registers."""
PRODUCT_CYCLES, BARRIER_CYCLES, FLIGHT_CYCLES, STORE_CYCLES = 4.2, 77.0, 443.0, 87.0
"""Of an mma; of a step's barrier; of a copy from L2 or memory; of storing a vector of results."""
RESERVED = 1024
"""Bytes of shared memory the system takes of each block."""


def threads_of(c: Mapping[str, Any]) -> Any:
    return (c["block_m"] // c["warp_m"]) * (c["block_n"] // c["warp_n"]) * c["slices"] * 32


def reduction(split: int, target: Target) -> int:
    """How parts of K are added."""
    if split == 1:
        return REDUCE_NONE
    return REDUCE_CLUSTER if "cluster" in target.features else REDUCE_WORKSPACE


def ring_of(c: Mapping[str, Any], size: int) -> Any:
    return c["stages"] * (c["block_m"] + c["block_n"]) * c["block_k"] * size


def _rows_bytes(rows: Any, c: Mapping[str, Any]) -> Any:
    """Bytes of so many rows of accumulators on their way out (`LINE` in mma_epilogue.cuh)."""
    return rows * (c["block_n"] + 8) * 4


def shared_of(c: Mapping[str, Any], size: int, target: Target) -> Any:
    """Dynamic shared memory of a block: the ring, later the accumulators (all of them where a cluster adds them)."""
    least = _rows_bytes(c["block_m"] // c["warp_m"] * 16 * c["slices"], c)
    whole = _rows_bytes(c["block_m"] * c["slices"], c)
    clustered = (c["split_k"] > 1) & ("cluster" in target.features)
    return np.maximum(ring_of(c, size), np.where(clustered, whole, least))


def passes(c: Mapping[str, Any], shared: int, reduce: int) -> int:
    """How many slices of 16 rows of every warp leave at once (`PASS`): as many as fit."""
    slices = c["warp_m"] // 16
    if reduce == REDUCE_CLUSTER:
        return slices
    fitting = [p for p in range(1, slices + 1) if slices % p == 0]
    rows = c["block_m"] // c["warp_m"] * 16 * c["slices"]
    return max(p for p in fitting if p == 1 or _rows_bytes(rows * p, c) <= shared)


def registers_of(c: Mapping[str, Any]) -> Any:
    """Registers of a thread: accumulators, two sets of fragments, addresses."""
    m, n = c["warp_m"] // 16, c["warp_n"] // 8
    return m * n * 4 + 2 * (4 * m + 2 * n) + 44


def _divides(c: Columns, problem: Func, target: Target) -> Array:
    return (c["block_m"] % c["warp_m"] == 0) & (c["block_n"] % c["warp_n"] == 0)


def _slices(c: Columns, problem: Func, target: Target) -> Array:
    size = MmaView(problem, target).element.bytes
    return (c["slices"] == 1) | (
        (c["block_k"] * size >= FEWEST_BYTES * c["slices"]) & (c["slices"] * c["split_k"] <= 16)
    )


def _threads(c: Columns, problem: Func, target: Target) -> Array:
    t = threads_of(c)
    return (t >= 32) & (t <= 512)


def _registers(c: Columns, problem: Func, target: Target) -> Array:
    r = registers_of(c)
    return (r <= 255) & (r * threads_of(c) <= target.registers)


def _shared(c: Columns, problem: Func, target: Target) -> Array:
    size = MmaView(problem, target).element.bytes
    return shared_of(c, size, target) + RESERVED <= target.shared_bytes


def _not_oversized(c: Columns, problem: Func, target: Target) -> Array:
    v = MmaView(problem, target)
    return (c["block_m"] < max(32, 2 * v.m)) & (c["block_n"] < max(64, 2 * v.n))


def _stages(c: Columns, problem: Func, target: Target) -> Array:
    v = MmaView(problem, target)
    steps = ceil_div(v.k, c["block_k"]) // c["split_k"]
    return c["stages"] <= np.maximum(2, steps + 1)


def _split_helps(c: Columns, problem: Func, target: Target) -> Array:
    v = MmaView(problem, target)
    tiles = ceil_div(v.m, c["block_m"]) * ceil_div(v.n, c["block_n"]) * v.batch
    steps = ceil_div(v.k, c["block_k"])
    share = c["block_m"] * c["block_n"] // v.vector % c["split_k"] == 0
    return (c["split_k"] == 1) | ((tiles * c["split_k"] <= 4 * target.cores) & (steps >= 2 * c["split_k"]) & share)


def _copies(c: Columns, problem: Func, target: Target) -> Array:
    """A thread's copies are unrolled: each holds its address and guards, and through registers what it copies."""
    v = MmaView(problem, target)
    threads = np.maximum(threads_of(c), 1)
    fine = np.ones(threads.shape, bool)
    held = registers_of(c)
    for feed, rows in ((v.left, c["block_m"]), (v.right, c["block_n"])):
        each = ceil_div(rows * c["block_k"], threads * feed.width)
        fine = fine & (each <= MOST_COPIES)
        if feed.mode != COPY_ASYNC:
            across = np.maximum((c["block_k"] if feed.side.along_k else rows) // feed.width, 1)
            fine = fine & (threads % across == 0)
            held = held + each * (6 + max(1, feed.width * v.element.bytes // 4))
        elif feed.access.guards:
            held = held + 2 * each
    return fine & (held <= 260) & (held * threads <= target.registers * 17 // 16)


RULES = (
    Constraint("divides", _divides, "warps' tiles divide the block's"),
    Constraint("slices", _slices, "each slice has two instructions' depth of a step, and at most 16 parts are added"),
    Constraint("threads", _threads, "a block has 1 to 16 warps"),
    Constraint("registers", _registers, "accumulators and fragments fit the registers"),
    Constraint("shared", _shared, "the ring of stages, and later the accumulators, fit shared memory"),
    Constraint("oversized", _not_oversized, "the block is less than twice the problem"),
    Constraint("stages", _stages, "there are no more stages than steps, and one"),
    Constraint("split", _split_helps, "K is split only where tiles leave SMs idle and each part has two steps"),
    Constraint(
        "copies", _copies, "a thread copies 16 times a step at most, and addresses and what is copied fit its registers"
    ),
)


def _step_cycles(v: MmaView, c: Columns, target: Target, together: Array) -> Array:
    """Cycles of one step of the main loop, of all blocks `together` on an SM."""
    size = v.element.bytes
    bm, bn, bk = c["block_m"], c["block_n"], c["block_k"]
    warps = threads_of(c) // 32
    # What the blocks of an SM share: tensor cores, shared memory, the way from L2, address arithmetic.
    peak = 0.62 if target.sm in (90, 100) else 0.95
    rate = target.half_flop_rate * peak * (2 / size) / target.cores / CLOCK
    tensor = 2.0 * bm * bn * bk / rate
    moved = (warps * (c["warp_m"] + c["warp_n"]) / c["slices"] + bm + bn) * bk * size / 128.0
    from_l2 = (bm + bn) * bk * size / L2_BYTES
    addresses = np.zeros(tensor.shape)
    for feed, rows in ((v.left, bm), (v.right, bn)):
        copies = rows * bk / feed.width / 32.0
        if feed.mode == COPY_ASYNC:
            addresses = addresses + copies * COPY_CYCLES * (1 + 0.7 * len(feed.access.guards))
        else:
            addresses = addresses + copies * ELEMENT_CYCLES + 121.0
    shared = together * np.maximum(np.maximum(tensor, 0.94 * moved), np.maximum(from_l2, addresses))
    # A warp's own chain of fragments, products, copies and the barrier; the flight of the copies a step waits for.
    products = (c["warp_m"] // 16) * (c["warp_n"] // 8)
    issued = PRODUCT_CYCLES * products * np.ceil(warps * together / 4) / together
    chain = bk * size / 32 / c["slices"] * np.maximum(20.0, issued) + BARRIER_CYCLES
    chain = chain + 12.8 * (bm + bn) * bk * size / 512 / warps
    flight = (FLIGHT_CYCLES + 0.67 * together * from_l2) / np.maximum(c["stages"] - 1, 1)
    return np.maximum(shared, np.maximum(chain, flight)) + 0.065 * np.minimum(shared, chain) + 0.09 * flight


def estimate(v: MmaView, c: Columns, problem: Func, target: Target) -> np.ndarray[Any, Any]:
    """Seconds per config. The constants were fitted to times on an H100 (tests/device/measure_mma.py)."""
    bm, bn, split = c["block_m"], c["block_n"], c["split_k"]
    threads, shared = threads_of(c), shared_of(c, v.element.bytes, target) + RESERVED
    tiles = ceil_div(v.m, bm) * ceil_div(v.n, bn) * v.batch
    blocks = tiles * split
    steps = ceil_div(ceil_div(v.k, c["block_k"]), split)
    registers = np.maximum(registers_of(c), 32) * threads
    resident = np.minimum((target.shared_bytes + RESERVED) // shared, target.registers // registers)
    resident = np.maximum(np.minimum(resident, np.minimum(2048 // threads, 32)), 1)
    waves = ceil_div(blocks, target.cores * resident)
    together = np.minimum(resident, ceil_div(blocks, target.cores))
    stored = bm * bn / (threads * v.vector) * STORE_CYCLES * (1 + 0.94 * (c["slices"] - 1))
    cycles = 890 + steps * _step_cycles(v, c, target, together) + stored * together
    seconds = (waves * cycles + 3.6 * threads / 32 * together) / CLOCK
    parts = 4.0 * split * tiles * np.minimum(bm, v.m) * bn
    if "cluster" in target.features:
        added = 1.1e-6 + 0.05e-6 * split + parts / 6.3e12
    else:
        added = target.launch_seconds + 2 * parts / (2 * target.memory_rate)
    seconds = seconds + np.where(split > 1, added, 0.0)
    # The next kernel's blocks have no room to wait in, and its weights come later.
    seconds = seconds + np.where(2 * together * shared > target.shared_bytes + RESERVED, 0.22e-6, 0.0)
    memory = memory_seconds(problem, target)
    return 0.62 * target.launch_seconds + np.maximum(seconds, 1.07 * memory + 0.5e-6) + 0.21 * memory
