# SPDX-License-Identifier: Apache-2.0
"""Reading an engine file: the archive, its hashes and the manifest (spec/engine.md, sections 1 and 3)."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import re
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tcc.errors import FailureError, InputError
from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.expr import OPERATORS

FORMAT = 1
"""The newest engine format that this runtime reads."""

WEIGHTS = "weights.safetensors"

_COMMENT = re.compile(rb"tcc-engine (\d+) ([0-9a-f]{64})")
_OPS = frozenset(("segment", "alloc", "let", "host_call", "assign", "if", "loop"))
_DEVICE_OPS = frozenset(("launch", "memset", "copy"))
_SPACES = frozenset(("arena", "input", "output", "weight", "pool", "view", "host"))


class EngineData:
    """A verified engine file in memory: the manifest's parts as attributes, and the entries' bytes.

    `weights_address` is the address of the weights' data section (0 where there are no weights); the memory lives as
    long as this object.
    """

    def __init__(self, raw: memoryview, name: str) -> None:
        self.raw = raw
        self._ranges = _entries(raw, name)
        self.adopt(_manifest(raw, self._ranges, name), name)
        self._check_files()
        self.weights_address, self.weights_bytes = self._weights()

    def adopt(self, manifest: dict[str, Any], name: str) -> None:
        """Take a manifest's parts; raises FailureError for what this runtime does not know."""
        self.name = name
        self.manifest = m = manifest
        self.target: dict[str, Any] = m["target"]
        self.inputs: list[dict[str, Any]] = m["inputs"]
        self.outputs: list[dict[str, Any]] = m["outputs"]
        self.symbols: list[dict[str, Any]] = m["symbols"]
        self.buffers: list[dict[str, Any]] = m["buffers"]
        self.arena: dict[str, Any] = m["arena"]
        self.kernels: dict[str, dict[str, Any]] = m["kernels"]
        self.native: dict[str, Any] | None = m["native"]
        self.schedule: list[dict[str, Any]] = m["schedule"]
        self.report: list[dict[str, Any]] = m.get("report", [])
        _check_program(self, self.schedule, inside=False)
        for buffer in self.buffers:
            if buffer["space"] not in _SPACES:
                raise FailureError(f"the engine {name} uses a memory space '{buffer['space']}' that this runtime lacks")
            if buffer["space"] == "host":
                continue
            numpy_dtype(buffer["dtype"])
            _check_expr(buffer["bytes"], name)

    def entry(self, name: str) -> memoryview:
        """The bytes of an entry of the archive; raises FailureError where there is none of that name."""
        try:
            start, stop = self._ranges[name]
        except KeyError:
            raise FailureError(f"the engine {self.name} has no entry '{name}'") from None
        return self.raw[start:stop]

    def entries(self) -> list[str]:
        """The names of the entries, in file order."""
        return list(self._ranges)

    def weight(self, name: str) -> np.ndarray:
        """A read-only view of a weight by its name ``w0``, ``w1`` ..."""
        for buffer in self.buffers:
            if buffer["space"] == "weight" and buffer["name"] == name:
                start = self._ranges[WEIGHTS][0] + self._header_bytes + buffer["offset"]
                flat = np.frombuffer(self.raw[start : start + buffer["bytes"]], numpy_dtype(buffer["dtype"]))
                return flat.reshape(buffer["shape"])
        raise InputError(f"the engine {self.name} has no weight '{name}'")

    def weight_blocks(self) -> list[tuple[int, int]]:
        """(address, bytes) of the memory that holds the weights."""
        return [(self.weights_address, self.weights_bytes)] if self.weights_bytes else []

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader never sees it half written."""
        write_atomically(Path(path), self.raw)

    def _check_files(self) -> None:
        files = self.manifest["files"]
        for name in self._ranges:
            if name != "manifest.json" and name not in files:
                raise FailureError(f"the engine {self.name} is damaged: its manifest does not list the entry '{name}'")
        for name, facts in files.items():
            content = self.entry(name)
            if len(content) != facts["bytes"] or hashlib.sha256(content).hexdigest() != facts["sha256"]:
                raise FailureError(
                    f"the engine {self.name} is damaged: the entry '{name}' does not match its hash; build it again"
                )

    def _weights(self) -> tuple[int, int]:
        if WEIGHTS not in self._ranges:
            self._header_bytes = 0
            return 0, 0
        start, stop = self._ranges[WEIGHTS]
        self._header_bytes = 8 + struct.unpack_from("<Q", self.raw, start)[0]
        base = np.frombuffer(self.raw, np.uint8).ctypes.data
        return base + start + self._header_bytes, stop - start - self._header_bytes


def read(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> EngineData:
    """Read and verify an engine, from a path (memory-mapped) or from bytes.

    Raises InputError where there is no such file, FailureError in one sentence where it is no engine, damaged or too
    new.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return EngineData(_aligned(source).data.toreadonly(), "in memory")
    path = Path(source)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise FailureError(f"'{path}' is not a tcc engine: the file is empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"cannot read the engine '{path}': {error.strerror}") from None
    return EngineData(memoryview(mapped), f"'{path}'")


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file through a temporary one beside it and a rename; what is no file (/dev/null) is written to."""
    if path.exists() and not path.is_file() and not path.is_dir():
        try:
            path.write_bytes(content)
        except OSError as error:
            raise FailureError(f"cannot write {path}: {error.strerror}") from None
        return
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FailureError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise FailureError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _aligned(content: bytes | bytearray | memoryview) -> np.ndarray:
    """A copy at a 4096-byte boundary, so that the weights in it are aligned as in a mapped file."""
    size = len(content)
    block = np.empty(size + 4096, np.uint8)
    start = -block.ctypes.data % 4096
    aligned = block[start : start + size]
    aligned[:] = np.frombuffer(content, np.uint8)
    return aligned


def _entries(raw: memoryview, name: str) -> dict[str, tuple[int, int]]:
    """Byte ranges of the entries' data in file order, after checking the archive's own hash."""
    if bytes(raw[:4]) != b"PK\x03\x04":
        raise FailureError(f"{name} is not a tcc engine: it does not begin like one")
    ranges: dict[str, tuple[int, int]] = {}
    try:
        with zipfile.ZipFile(_Window(raw)) as archive:
            comment = archive.comment
            for info in sorted(archive.infolist(), key=lambda i: i.header_offset):
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise FailureError(f"{name} is not a tcc engine: the entry '{info.filename}' is compressed")
                lengths = struct.unpack_from("<HH", raw, info.header_offset + 26)
                start = info.header_offset + 30 + sum(lengths)
                ranges[info.filename] = (start, start + info.file_size)
    except (zipfile.BadZipFile, struct.error, ValueError, OSError, NotImplementedError, EOFError):
        raise FailureError(f"the engine {name} is cut short or damaged; copy or build it again") from None
    match = _COMMENT.fullmatch(comment)
    if match is None:
        raise FailureError(f"{name} is a zip archive but not a tcc engine")
    if int(match[1]) > FORMAT:
        raise FailureError(
            f"the engine {name} has format {int(match[1])} and this tcc reads up to {FORMAT}: "
            "update tcc or build it again"
        )
    digest, position = hashlib.sha256(), 0
    for entry, (start, stop) in ranges.items():
        if start < position or stop > len(raw):
            raise FailureError(f"the engine {name} is damaged: its entries overlap or reach past its end")
        if entry == "manifest.json":
            continue
        digest.update(raw[position:start])
        position = stop
    digest.update(raw[position : len(raw) - 64])
    if digest.hexdigest().encode() != match[2]:
        raise FailureError(
            f"the engine {name} is damaged: its manifest or directory does not match its hash; build it again"
        )
    return ranges


class _Window(io.RawIOBase):
    """A seekable file over a memoryview, without a copy."""

    def __init__(self, raw: memoryview) -> None:
        super().__init__()
        self._raw, self._position = raw, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, len(self._raw))[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        part = self._raw[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _manifest(raw: memoryview, ranges: dict[str, tuple[int, int]], name: str) -> dict[str, Any]:
    if next(iter(ranges), None) != "manifest.json":
        raise FailureError(f"{name} is a zip archive but not a tcc engine: its first entry is not manifest.json")
    start, stop = ranges["manifest.json"]
    manifest = json.loads(bytes(raw[start:stop]))
    if manifest["format"] != FORMAT:
        raise FailureError(
            f"the engine {name} has format {manifest['format']} and this tcc reads {FORMAT}: build it again"
        )
    return manifest


def _check_program(data: EngineData, ops: list[dict[str, Any]], inside: bool) -> None:
    for op in ops:
        kind = op["op"]
        if kind not in (_DEVICE_OPS if inside else _OPS):
            raise FailureError(f"the engine {data.name} has a schedule op '{kind}' that this runtime does not know")
        for part in ("body", "then", "else"):
            if part in op:
                _check_program(data, op[part], inside=kind == "segment")
        if kind == "launch" and op["kernel"] not in data.kernels:
            raise FailureError(f"the engine {data.name} launches a kernel '{op['kernel']}' that it does not hold")


def _check_expr(expr: Any, name: str) -> None:
    if isinstance(expr, int | str):
        return
    if not isinstance(expr, list) or not expr or expr[0] not in OPERATORS:
        raise FailureError(f"the engine {name} uses an expression {expr!r} that this runtime does not know")
    for operand in expr[1:]:
        _check_expr(operand, name)
