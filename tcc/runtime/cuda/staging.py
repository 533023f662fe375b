# SPDX-License-Identifier: Apache-2.0
"""Memory between the host and a GPU: one block on each side for all inputs (or outputs) in host memory."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

from tcc.runtime.cuda.device import Gpu
from tcc.runtime.cuda.driver import api, check, let_go

ALIGN = 256
PINNED_LIMIT = 32 << 20
"""Above this many bytes the driver's own staging is as fast, and pinned memory is dear."""


class Staging:
    """A block of device memory and one of pinned host memory of the same layout. Both only grow.

    `device` and `pinned` are their addresses; `pinned` is 0 for blocks above PINNED_LIMIT.
    """

    def __init__(self, gpu: Gpu, what: str) -> None:
        self.device = 0
        self.pinned = 0
        self._gpu, self._what = gpu, what
        self._device_bytes = self._pinned_bytes = 0
        self._held: dict[str, int] = {}
        self._finalizer = weakref.finalize(self, _release, gpu, self._held)
        self._finalizer.atexit = False

    def reserve(self, sizes: Sequence[int]) -> tuple[list[int], int]:
        """Room for tensors of these sizes: their offsets and the bytes used. Nothing may be under way in the block."""
        offsets, total = [], 0
        for size in sizes:
            offsets.append(total)
            total += -(-size // ALIGN) * ALIGN
        if total > self._device_bytes:
            if self.device:
                self._gpu.release(self._held.pop("device"))
                self.device = self._device_bytes = 0
            self.device = self._held["device"] = self._gpu.allocate(total, self._what)
            self._device_bytes = total
        if total > PINNED_LIMIT:
            self._free_pinned()
        elif total > self._pinned_bytes:
            self._free_pinned()
            flags = 0
            address = check(api().cuMemHostAlloc(total, flags), f"pin {total} bytes of host memory for {self._what}")
            self.pinned = self._held["pinned"] = int(address)
            self._pinned_bytes = total
        return offsets, total

    def put(self, offset: int, source: int, nbytes: int) -> None:
        """Copies host memory into the pinned block."""
        ctypes.memmove(self.pinned + offset, source, nbytes)

    def get(self, offset: int, destination: int, nbytes: int) -> None:
        """Copies from the pinned block to host memory."""
        ctypes.memmove(destination, self.pinned + offset, nbytes)

    def send(self, nbytes: int, stream: int) -> None:
        """Copies the pinned block to the device."""
        check(
            (*api().cuMemcpyHtoDAsync(self.device, self.pinned, nbytes, stream), None),
            f"copy {self._what} to the device",
        )

    def receive(self, nbytes: int, stream: int) -> None:
        """Copies the device block to the pinned one."""
        result = api().cuMemcpyDtoHAsync(self.pinned, self.device, nbytes, stream)
        check(result, f"copy {self._what} to the host")

    def close(self) -> None:
        """Frees both blocks; nothing may be under way in them."""
        self._finalizer()
        self.device = self.pinned = self._device_bytes = self._pinned_bytes = 0

    def _free_pinned(self) -> None:
        if self.pinned:
            let_go(api().cuMemFreeHost(self._held.pop("pinned")), "free pinned memory")
            self.pinned = self._pinned_bytes = 0


def _release(gpu: Gpu, held: dict[str, Any]) -> None:
    with gpu.active():
        if "device" in held:
            gpu.release(held.pop("device"))
        if "pinned" in held:
            let_go(api().cuMemFreeHost(held.pop("pinned")), "free pinned memory")
