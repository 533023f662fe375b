# SPDX-License-Identifier: Apache-2.0
"""Weights that engines share: each content once, on the host and in a device's copy."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import numpy as np

from tcc.runtime.weights import WeightBlock, padded


class Gpu:
    """A device whose memory are numbers: what was allocated, copied and released."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self.copied: list[tuple[int, int]] = []

    def allocate(self, nbytes: int, what: str) -> int:
        pointer = 1 << (20 + len(self.live) + len(self.copied))
        self.live[pointer] = nbytes
        return pointer

    def release(self, pointer: int) -> None:
        del self.live[pointer]

    def active(self) -> Any:
        return contextlib.nullcontext()

    def copy(self, pointer: int, source: int, nbytes: int) -> None:
        self.copied.append((pointer, nbytes))


def test_equal_contents_lie_in_one_place() -> None:
    block = WeightBlock(4096)
    a, b = np.arange(10, dtype=np.float32), np.arange(3, dtype=np.int8)
    first = block.place([a, b, a.copy()])
    assert first == [0, 256, 0] and block.nbytes == 512
    assert block.place([b, a.reshape(2, 5)]) == [256, 0] and block.nbytes == 512
    np.testing.assert_array_equal(block.view(0, a.dtype, (2, 5)), a.reshape(2, 5))
    assert not block.view(256, b.dtype, (3,)).flags.writeable
    assert block.place([np.zeros(0, np.float32), np.float32(1)]) == [512, 512]
    assert block.place([np.zeros(padded(4096), np.uint8)]) is None and block.nbytes == 768


def test_a_device_gets_what_is_new_and_a_larger_copy_where_room_ends() -> None:
    gpu, block = Gpu(), WeightBlock(1 << 16)
    block.place([np.zeros(4096, np.uint8)])
    first = block.on_device(gpu, gpu.copy)
    assert gpu.copied == [(first.pointer, 4096)] and gpu.live[first.pointer] == padded(4096 + 512)
    block.place([np.ones(300, np.uint8)])
    assert block.on_device(gpu, gpu.copy) is first
    assert gpu.copied[1:] == [(first.pointer + 4096, 512)]
    block.place([np.full(4096, 2, np.uint8)])
    second = block.on_device(gpu, gpu.copy)
    assert second is not first and second.filled == block.nbytes and len(gpu.live) == 2
    pointer = first.pointer
    del first
    gc.collect()
    assert pointer not in gpu.live and second.pointer in gpu.live
