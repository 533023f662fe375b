# SPDX-License-Identifier: Apache-2.0
"""Constants, named by their content.

IR text holds `resource<sha256>`; the arrays live in a `ResourceStore` that a module carries, and in one
content-addressed folder of a dump directory. A constant that is not to be had is an error, never zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tcc.ir.attributes import Resource
from tcc.ir.declare import IRError
from tcc.ir.files import write_file
from tcc.ir.types import STRING, dtype, dtype_of

Array = np.ndarray[Any, Any]


def content_hash(array: Array) -> str:
    """sha256 in hex of "dtype|d0xd1…|" and the row-major little-endian bytes."""
    digest = hashlib.sha256(f"{dtype_of(array).name}|{'x'.join(map(str, array.shape))}|".encode())
    if array.dtype.kind in "OUS":
        for text in array.ravel():
            raw = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    elif array.size:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class ResourceStore:
    """Content hash → read-only array. `folders` are searched for `<sha256>.npy` when a hash is not in memory, then
    `sources` are asked in turn (they return None for a hash they do not have).

    `origins` are the hashes that the user's own model file holds: dumps leave those out, and who resumes a dump adds
    a source that reads them from there again.
    """

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        self._arrays: dict[str, Array] = {}
        self._known: dict[int, tuple[Array, str]] = {}
        self.folders = folders
        self.sources: list[Callable[[str], Array | None]] = []
        self.origins: frozenset[str] = frozenset()

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
        return self._find(resource.sha256) is not None

    def get(self, resource: Resource) -> Array:
        """The array; IRError if no memory, folder or source has it."""
        found = self._find(resource.sha256)
        if found is None:
            raise IRError(
                f"the constant {resource.sha256[:16]}… is in neither the module nor its constant folders "
                f"({', '.join(map(str, self.folders)) or 'none given'}); resume beside the dump it came from"
            )
        return found

    def _find(self, name: str) -> Array | None:
        if name in self._arrays:
            return self._arrays[name]
        found: Array | None = None
        path = next((p for p in (f / f"{name}.npy" for f in self.folders) if p.exists()), None)
        if path is not None:
            found = _load(path)
            if content_hash(found) != name:
                raise IRError(f"{path} does not hold the constant that its name says; restore it or delete it")
        for source in () if found is not None else self.sources:
            found = source(name)
            if found is not None:
                break
        if found is not None:
            self._arrays[name] = found
        return found

    def save(self, resource: Resource, folder: Path) -> None:
        """Write one constant into a content-addressed folder, unless it is there: `<sha256>.npy`, and for element
        types that numpy lacks `<sha256>.dtype` with the type's name beside the bits as unsigned integers."""
        path = folder / f"{resource.sha256}.npy"
        if path.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        array = self.get(resource)
        element = dtype_of(array)
        if element is STRING:
            array = array.astype(str)
        elif array.dtype.isbuiltin != 1:
            write_file(path.with_suffix(".dtype"), element.name)
            array = array.view(np.dtype(f"u{array.dtype.itemsize}"))
        write_file(path, lambda f: np.save(f, array, allow_pickle=False))

    def merge(self, other: ResourceStore) -> None:
        """Make everything that `other` has known here too."""
        self._arrays.update(other._arrays)
        self.folders = tuple(dict.fromkeys((*self.folders, *other.folders)))
        self.sources += [s for s in other.sources if s not in self.sources]
        self.origins |= other.origins


def _load(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as e:
        raise IRError(f"{path} is not a constant that tcc wrote: {e}") from None
    kind = path.with_suffix(".dtype")
    if kind.exists():
        array = array.view(dtype(kind.read_text().strip()).numpy)
    return array.astype(object) if array.dtype.kind == "U" else array
