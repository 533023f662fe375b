# SPDX-License-Identifier: Apache-2.0
"""Weights that the engines of one model share: one block of memory, each distinct content in it once.

Engines made in this process read their weights there, so that specialisations of a model for several shapes hold what
is packed alike once, on the host and on each device.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tcc.errors import FailureError, InputError
from tcc.runtime.container import EngineData
from tcc.runtime.cpu import memory
from tcc.runtime.dtypes import numpy_dtype

ALIGNMENT = 256
CopyIn = Callable[[int, int, int], None]
"""Copies to a device: (device address, host address, bytes)."""


def padded(nbytes: int) -> int:
    """Bytes that a weight takes in a block."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class WeightBlock:
    """Memory of a fixed capacity in which weights are placed by content and never moved.

    The host's memory is taken page by page as weights come, so that room costs nothing. A device's is taken with some
    room; where that is not enough, the engines that follow share a larger copy, and the first goes with its engines.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = padded(capacity)
        self._memory = memory.aligned_empty(self.capacity, 4096)
        self._places: dict[str, int] = {}
        self._used = 0
        self._copies: dict[Any, DeviceCopy] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> int:
        """The address on the host."""
        return int(self._memory.ctypes.data)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self._used

    def place(self, weights: Sequence[np.ndarray]) -> list[int] | None:
        """The offsets of weights, placed where their content is not here yet; None where they do not fit."""
        flat = [np.ascontiguousarray(w).reshape(-1).view(np.uint8) for w in weights]
        digests = [hashlib.sha256(f.data).hexdigest() for f in flat]
        with self._lock:
            fresh = {d: f for d, f in zip(digests, flat, strict=True) if d not in self._places}
            if self._used + sum(padded(f.nbytes) for f in fresh.values()) > self.capacity:
                return None
            for digest, content in fresh.items():
                self._memory[self._used : self._used + content.nbytes] = content
                self._places[digest] = self._used
                self._used += padded(content.nbytes)
            return [self._places[d] for d in digests]

    def view(self, offset: int, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
        """A read-only view of a weight."""
        count = int(np.prod(shape, dtype=np.int64))
        flat = self._memory[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)
        flat.flags.writeable = False
        return flat

    def on_device(self, gpu: Any, copy: CopyIn) -> DeviceCopy:
        """A copy on a GPU (`tcc.runtime.cuda.device.Gpu`) of all that is in use, made by `copy`; whoever uses it keeps
        it."""
        with self._lock:
            found = self._copies.get(gpu)
            if found is None or found.capacity < self._used:
                room = self._used + self._used // 4 if found is not None else self._used + self._used // 8
                found = self._copies[gpu] = DeviceCopy(gpu, padded(room))
            if found.filled < self._used:
                copy(found.pointer + found.filled, self.address + found.filled, self._used - found.filled)
                found.filled = self._used
            return found


class DeviceCopy:
    """What engines on a GPU share of a block; the memory is freed with the last holder."""

    def __init__(self, gpu: Any, capacity: int) -> None:
        self.capacity = capacity
        self.filled = 0
        self.pointer: int = gpu.allocate(capacity, "the weights that engines share")
        weakref.finalize(self, _free, gpu, self.pointer).atexit = False


def _free(gpu: Any, pointer: int) -> None:
    with gpu.active():
        gpu.release(pointer)


class LiveData(EngineData):
    """An engine that was never a file: `files` are its entries but for the weights, which are in `block`.

    `write` makes the file.
    """

    def __init__(
        self, manifest: Mapping[str, Any], files: Mapping[str, bytes], block: WeightBlock, write: Callable[[Path], None]
    ) -> None:
        self._files = files
        self._write = write
        self.block = block
        self.adopt(dict(manifest), "in memory")
        used = [row for row in self.buffers if row["space"] == "weight"]
        self.weights_address = block.address if used else 0
        self.weights_bytes = block.nbytes if used else 0

    def entry(self, name: str) -> memoryview:
        try:
            return memoryview(self._files[name])
        except KeyError:
            raise FailureError(f"the engine {self.name} has no entry '{name}'") from None

    def entries(self) -> list[str]:
        return ["manifest.json", *sorted(self._files)]

    def weight(self, name: str) -> np.ndarray:
        for row in self.buffers:
            if row["space"] == "weight" and row["name"] == name:
                return self.block.view(row["offset"], numpy_dtype(row["dtype"]), row["shape"])
        raise InputError(f"the engine {self.name} has no weight '{name}'")

    def save(self, path: Any) -> None:
        self._write(Path(path))
