# SPDX-License-Identifier: Apache-2.0
"""Messages between the search and its worker: a JSON header, then the bytes of arrays and engines.

Frame: u32 header length, header, then for each part a u64 length and its bytes. Arrays travel as .npy, never pickled.
"""

from __future__ import annotations

import io
import json
import os
import select
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Gone(Exception):
    """The other side has closed the pipe, has not answered in time (`timed_out`), or has said why it ends
    (`message`)."""

    def __init__(self, timed_out: bool = False, message: str = "") -> None:
        super().__init__(message or ("timed out" if timed_out else "gone"))
        self.timed_out = timed_out
        self.message = message


def send(fd: int, header: dict[str, Any], parts: Sequence[bytes | memoryview] = ()) -> None:
    """Write one frame; Gone if nobody reads."""
    text = json.dumps(header).encode()
    data: list[bytes | memoryview] = [struct.pack("<II", len(text), len(parts)), text]
    for part in parts:
        data += [struct.pack("<Q", len(part)), part]
    try:
        for piece in data:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
    except OSError:
        raise Gone from None


def receive(fd: int, seconds: float | None = None) -> tuple[dict[str, Any], list[bytes]]:
    """Read one frame; Gone at the end of the pipe or after about `seconds` of waiting."""
    patience = _Patience(seconds)
    size, count = struct.unpack("<II", _read(fd, 8, patience))
    header = json.loads(_read(fd, size, patience))
    parts: list[bytes] = []
    for _ in range(count):
        (length,) = struct.unpack("<Q", _read(fd, 8, patience))
        parts.append(_read(fd, length, patience))
    return header, parts


class _Patience:
    """How long to wait yet. Time in which this process was stopped (a suspended machine, say) hardly counts: the other
    side was most likely stopped too."""

    SLICE = 0.5

    def __init__(self, seconds: float | None) -> None:
        self.left = seconds

    def wait(self, fd: int) -> None:
        """Return when there is something to read; Gone when patience is at an end."""
        while self.left is not None:
            step = min(self.left, self.SLICE)
            begun = time.monotonic()
            if select.select([fd], [], [], step)[0]:
                self.left -= min(time.monotonic() - begun, step)
                return
            self.left -= step
            if self.left <= 0:
                raise Gone(timed_out=True)


def _read(fd: int, size: int, patience: _Patience) -> bytes:
    out = bytearray(size)
    view = memoryview(out)
    while view:
        patience.wait(fd)
        count = os.readv(fd, [view[: 1 << 20]])
        if not count:
            raise Gone
        view = view[count:]
    return bytes(out)


def pack_array(array: Array) -> bytes:
    """An array as .npy bytes; types numpy does not know as unsigned integers of their width."""
    stream = io.BytesIO()
    plain = array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")
    np.save(stream, np.ascontiguousarray(plain), allow_pickle=False)
    return stream.getvalue()


def unpack_array(data: bytes) -> Array:
    """The array of `pack_array`."""
    return np.load(io.BytesIO(data), allow_pickle=False)
