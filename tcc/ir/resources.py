# SPDX-License-Identifier: Apache-2.0
"""Constants, named by their content.

IR text holds `resource<sha256>`; the arrays live in a `ResourceStore` that a module carries, and in one
content-addressed folder of a dump directory. A constant that is not to be had is an error, never zeros.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tcc.ir.attributes import Resource
from tcc.ir.declare import IRError
from tcc.ir.types import dtype_of

Array = np.ndarray[Any, Any]


def content_hash(array: Array) -> str:
    """sha256 in hex of "dtype|d0xd1…|" and the row-major little-endian bytes."""
    digest = hashlib.sha256(f"{dtype_of(array).name}|{'x'.join(map(str, array.shape))}|".encode())
    if array.dtype.kind in "OUS":
        for text in array.ravel():
            raw = text if isinstance(text, bytes) else str(text).encode()
            digest.update(len(raw).to_bytes(8, "little") + raw)
    elif array.size:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class ResourceStore:
    """Content hash → read-only array. `folders` are searched for `<sha256>.npy` when a hash is not in memory."""

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        self._arrays: dict[str, Array] = {}
        self._known: dict[int, tuple[Array, str]] = {}
        self.folders = folders

    def add(self, array: Any) -> Resource:
        """The resource of an array (kept by reference: do not write to it afterwards)."""
        known = self._known.get(id(array))
        if known is not None and known[0] is array:
            return Resource(known[1])
        value = np.asarray(array)
        name = content_hash(value)
        if name not in self._arrays:
            view = value.view()
            view.flags.writeable = False
            self._arrays[name] = view
        self._known[id(array)] = (array, name)
        return Resource(name)

    def __contains__(self, resource: Resource) -> bool:
        return resource.sha256 in self._arrays or any((f / f"{resource.sha256}.npy").exists() for f in self.folders)

    def get(self, resource: Resource) -> Array:
        """The array; IRError if neither memory nor the folders have it."""
        found = self._arrays.get(resource.sha256)
        if found is not None:
            return found
        for folder in self.folders:
            path = folder / f"{resource.sha256}.npy"
            if path.exists():
                array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
                kind = path.with_suffix(".dtype")
                if kind.exists():
                    from tcc.ir.types import dtype

                    array = array.view(dtype(kind.read_text().strip()).numpy)
                self._arrays[resource.sha256] = array
                return array
        raise IRError(
            f"the constant {resource.sha256[:16]}… is in neither the module nor its constant folders "
            f"({', '.join(map(str, self.folders)) or 'none given'}); resume beside the dump it came from"
        )

    def save(self, resource: Resource, folder: Path) -> None:
        """Write one constant into a content-addressed folder, unless it is there."""
        path = folder / f"{resource.sha256}.npy"
        if path.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        array = self.get(resource)
        if array.dtype.kind == "V" or array.dtype.isbuiltin != 1:
            _replace(path.with_suffix(".dtype"), dtype_of(array).name.encode())
            array = array.view(np.dtype(f"u{array.dtype.itemsize}"))
        fd, temp = tempfile.mkstemp(dir=folder)
        with os.fdopen(fd, "wb") as f:
            np.save(f, array, allow_pickle=False)
        os.replace(temp, path)

    def merge(self, other: ResourceStore) -> None:
        """Make everything that `other` has known here too."""
        self._arrays.update(other._arrays)
        self.folders = tuple(dict.fromkeys((*self.folders, *other.folders)))


def _replace(path: Path, data: bytes) -> None:
    fd, temp = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
    os.replace(temp, path)
