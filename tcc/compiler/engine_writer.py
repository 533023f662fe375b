# SPDX-License-Identifier: Apache-2.0
"""Writing an engine file (spec/engine.md): the same content always gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from tcc.compiler.engine_check import check_content
from tcc.errors import FailureError
from tcc.ir.files import write_file
from tcc.runtime.container import FORMAT, WEIGHTS
from tcc.runtime.dtypes import dtype_name

PRODUCER = "tcc 0.1.0"
WEIGHT_ALIGNMENT = 256
ENTRY_ALIGNMENT = 4096

_SAFETENSORS = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "f8e4m3fn": "F8_E4M3", "f8e5m2": "F8_E5M2",
    "i64": "I64", "i32": "I32", "i16": "I16", "i8": "I8", "bool": "BOOL",
    "u64": "U64", "u32": "U32", "u16": "U16", "u8": "U8",
}  # fmt: skip

_ZIP64_FROM = 0xFFFFFFFF  # sizes and offsets from here on need the zip64 fields
_DATE = (1980 - 1980) << 25 | 1 << 21 | 1 << 16  # 1980-01-01 00:00


@dataclass
class EngineContent:
    """Everything an engine holds, as the plain data of spec/engine.md, section 3.

    `files` are the entries under ``kernels/``; `weights` the arrays ``w0``, ``w1`` ... at the offsets of
    `weight_offsets`.
    """

    model: str
    target: dict[str, Any]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    buffers: list[dict[str, Any]]
    schedule: list[dict[str, Any]]
    symbols: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    arena: dict[str, Any] = field(default_factory=lambda: {"bytes": 0, "align": 256})
    kernels: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    native: dict[str, Any] | None = None
    variants: dict[str, Any] = field(default_factory=dict[str, Any])
    report: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    weights: Sequence[np.ndarray] = ()
    producer: str = PRODUCER


def weight_offsets(sizes: Sequence[int]) -> list[int]:
    """Byte offsets in the data section of weights of these sizes in bytes: each at a multiple of 256."""
    offsets: list[int] = []
    position = 0
    for size in sizes:
        offsets.append(position)
        position += -(-size // WEIGHT_ALIGNMENT) * WEIGHT_ALIGNMENT
    return offsets


def to_bytes(content: EngineContent) -> bytes:
    """The engine file in memory."""
    stream = io.BytesIO()
    _write(content, stream)
    return stream.getvalue()


def write(content: EngineContent, path: str | os.PathLike[str]) -> None:
    """Write the engine file; a reader sees the whole file or none. Raises FailureError where that cannot be done."""
    try:
        write_file(Path(path), lambda stream: _write(content, stream))
    except OSError as error:
        raise FailureError(f"cannot write {path}: {error.strerror}") from None


@dataclass
class _Entry:
    """One entry of the archive: its data in parts, and what the zip headers say of it."""

    name: str
    parts: list[bytes | memoryview]
    size: int
    crc: int
    sha256: str
    extra: bytes = b""
    offset: int = 0


def _entry(name: str, parts: list[bytes | memoryview]) -> _Entry:
    crc, digest, size = 0, hashlib.sha256(), 0
    for part in parts:
        crc = zlib.crc32(part, crc)
        digest.update(part)
        size += len(part)
    return _Entry(name, parts, size, crc, digest.hexdigest())


def _write(content: EngineContent, stream: IO[bytes]) -> None:
    check_content(content)
    bad = next((name for name in content.files if not name.startswith("kernels/")), None)
    if bad is not None:
        raise ValueError(f"the entry '{bad}' is not under kernels/")
    entries = [_entry(name, [content.files[name]]) for name in sorted(content.files)]
    if content.weights:
        entries.append(_entry(WEIGHTS, list(_safetensors(content.weights))))
    manifest = _manifest(content, entries)
    entries.insert(0, _entry("manifest.json", [manifest]))

    guard, position = hashlib.sha256(), 0
    for entry in entries:
        entry.offset = position
        header = _local_header(entry)
        if entry.name == WEIGHTS:
            gap = -(position + len(header)) % ENTRY_ALIGNMENT
            gap += ENTRY_ALIGNMENT if 0 < gap < 4 else 0
            if gap:
                entry.extra += struct.pack("<HH", 0x4354, gap - 4) + bytes(gap - 4)
            header = _local_header(entry)
        stream.write(header)
        guard.update(header)
        for part in entry.parts:
            stream.write(part)
            if entry.name == "manifest.json":
                guard.update(part)
        position += len(header) + entry.size
    tail = _directory(entries, position) + f"tcc-engine {FORMAT} ".encode()
    guard.update(tail)
    stream.write(tail + guard.hexdigest().encode())


def manifest_of(content: EngineContent) -> dict[str, Any]:
    """The manifest but for its list of files."""
    return {
        "format": FORMAT,
        "producer": content.producer,
        "model": content.model,
        "target": content.target,
        "inputs": content.inputs,
        "outputs": content.outputs,
        "symbols": content.symbols,
        "buffers": content.buffers,
        "arena": content.arena,
        "kernels": content.kernels,
        "native": content.native,
        "schedule": content.schedule,
        "variants": content.variants,
        "report": content.report,
    }


def _manifest(content: EngineContent, entries: list[_Entry]) -> bytes:
    offsets = weight_offsets([w.nbytes for w in content.weights])
    for i, buffer in enumerate(content.buffers):
        if buffer["space"] == "weight" and buffer["offset"] != offsets[int(buffer["name"][1:])]:
            raise ValueError(f"buffer {i} gives {buffer['name']} another offset than the weights file does")
    manifest = {**manifest_of(content), "files": {e.name: {"sha256": e.sha256, "bytes": e.size} for e in entries}}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _safetensors(weights: Sequence[np.ndarray]) -> Iterator[bytes | memoryview]:
    """The weights file in parts; every tensor padded to 256 bytes by a U8 tensor, which the format asks for in place
    of a hole.
    """
    header: dict[str, Any] = {}
    parts: list[bytes | memoryview] = []
    position = pads = 0
    for i, weight in enumerate(weights):
        flat = np.ascontiguousarray(weight).reshape(-1).view(np.uint8)
        kind = _SAFETENSORS.get(dtype_name(weight.dtype))
        header[f"w{i}"] = {
            "dtype": kind or "U8",
            "shape": list(weight.shape) if kind else [flat.nbytes],
            "data_offsets": [position, position + flat.nbytes],
        }
        parts.append(flat.data)
        position += flat.nbytes
        gap = -position % WEIGHT_ALIGNMENT
        if gap:
            header[f"pad{pads}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [position, position + gap]}
            parts.append(bytes(gap))
            position += gap
            pads += 1
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % WEIGHT_ALIGNMENT)
    yield struct.pack("<Q", len(text)) + text
    yield from parts


def _common(entry: _Entry, size: int) -> bytes:
    version = 45 if entry.size >= _ZIP64_FROM else 20
    return struct.pack("<HHHIIII", version, 0x800, 0, _DATE, entry.crc, size, size)


def _sizes(entry: _Entry) -> tuple[int, bytes]:
    if entry.size < _ZIP64_FROM:
        return entry.size, b""
    return 0xFFFFFFFF, struct.pack("<HHQQ", 1, 16, entry.size, entry.size)


def _local_header(entry: _Entry) -> bytes:
    size, zip64 = _sizes(entry)
    name, extra = entry.name.encode(), zip64 + entry.extra
    return b"PK\x03\x04" + _common(entry, size) + struct.pack("<HH", len(name), len(extra)) + name + extra


def _directory(entries: list[_Entry], start: int) -> bytes:
    """The central directory and its end record, but for the archive comment of 77 characters."""
    directory = b""
    for entry in entries:
        size, zip64 = _sizes(entry)
        name = entry.name.encode()
        directory += b"PK\x01\x02" + struct.pack("<H", 3 << 8 | 45) + _common(entry, size)
        directory += (
            struct.pack("<HHHHHII", len(name), len(zip64), 0, 0, 0, 0o100644 << 16, entry.offset) + name + zip64
        )
    count, length, offset = len(entries), len(directory), start
    tail = b""
    if start >= _ZIP64_FROM or count >= 0xFFFF:
        tail = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, length, start)
        tail += b"PK\x06\x07" + struct.pack("<IQI", 0, start + length, 1)
        count, offset = min(count, 0xFFFF), 0xFFFFFFFF
    comment = len(f"tcc-engine {FORMAT} ") + 64
    return directory + tail + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, length, offset, comment)
