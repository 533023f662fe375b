# SPDX-License-Identifier: Apache-2.0
"""What a cubin's ELF header says about the architecture it was built for.

Two layouts of `e_flags` are in use, told apart by the ABI version byte of the identification: up to CUDA 12 (for chips
before sm_100) version 7 keeps the SM number in bits 0-7 and "architecture specific" in bit 11; version 8 keeps them in
bits 8-15 and bit 3. Newer assemblers leave that last bit clear and say `-arch sm_90a` in the note `.note.nv.tkinfo`.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from tcc.errors import FailureError

EM_CUDA = 190
_OLD_ABI = 7
_HEADER = 64
_SYMBOL = 24
# .nv.info is a row of (form, attribute, size or value); form 4 has `size` bytes after it.
_SIZED, _FRAME_SIZE, _REGISTER_COUNT = 0x04, 0x11, 0x2F
_ARCH = re.compile(rb"-arch[ =]sm_(\d+)([af]?)(?![0-9A-Za-z])")


class ElfInfo(NamedTuple):
    """Header fields of a cubin: SM number (86), suffix ("", "a" or "f") and ABI version (7 or 8)."""

    sm: int
    suffix: str
    abi: int

    @property
    def arch(self) -> str:
        """The name `--gpu-architecture` takes, such as `sm_90a`."""
        return f"sm_{self.sm}{self.suffix}"


def read_cubin(data: bytes) -> ElfInfo:
    """Reads the architecture out of the bytes of a cubin; FailureError when they are no 64-bit CUDA ELF file."""
    if len(data) < _HEADER or data[:4] != b"\x7fELF":
        raise FailureError(f"these {len(data)} bytes are not a cubin: they do not start with an ELF header.")
    if data[4] != 2 or data[5] != 1:
        raise FailureError("this ELF file is not a cubin: it is not 64-bit little-endian.")
    (machine,) = struct.unpack_from("<H", data, 18)
    if machine != EM_CUDA:
        raise FailureError(f"this ELF file is not a cubin: its machine is {machine}, and CUDA's is {EM_CUDA}.")
    (flags,) = struct.unpack_from("<I", data, 48)
    abi = data[8]
    sm, specific = (flags & 0xFF, flags & 0x800) if abi <= _OLD_ABI else (flags >> 8 & 0xFF, flags & 0x8)
    noted = _ARCH.search(_section(data, b".note.nv.tkinfo"))
    suffix = "a" if specific else ""
    if noted and int(noted[1]) == sm:
        suffix = noted[2].decode() or suffix
    return ElfInfo(sm, suffix, abi)


def cubin_arch(data: bytes) -> str:
    """The architecture a cubin was built for, such as `sm_86` or `sm_90a`; FailureError when it is no cubin."""
    return read_cubin(data).arch


def kernel_registers(data: bytes) -> dict[str, tuple[int, int]]:
    """(registers a thread, bytes of stack a thread) of each kernel in a cubin, from its section `.nv.info`."""
    symbols = _section(data, b".symtab")
    names = _section(data, b".strtab")
    found: dict[int, list[int]] = {}
    info = _section(data, b".nv.info")
    position = 0
    while position + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, position)
        position += 4
        if form != _SIZED:
            continue
        if attribute in (_REGISTER_COUNT, _FRAME_SIZE):
            symbol, value = struct.unpack_from("<II", info, position)
            found.setdefault(symbol, [0, 0])[attribute == _FRAME_SIZE] = value
        position += size
    result: dict[str, tuple[int, int]] = {}
    for symbol, (registers, stack) in found.items():
        (label,) = struct.unpack_from("<I", symbols, symbol * _SYMBOL)
        result[names[label : names.index(b"\0", label)].decode()] = (registers, stack)
    return result


def _section(data: bytes, name: bytes) -> bytes:
    """The content of the section of that name, empty when there is none."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    if not size or table + size * count > len(data):
        raise FailureError("this cubin is cut short: its section table lies outside the file.")

    def span(index: int) -> tuple[int, int, int]:
        head = table + size * index
        (label,) = struct.unpack_from("<I", data, head)
        offset, length = struct.unpack_from("<QQ", data, head + 24)
        return label, offset, length

    _, strings, length = span(names)
    labels = data[strings : strings + length]
    for index in range(count):
        label, offset, length = span(index)
        if labels[label : label + len(name) + 1] == name + b"\0":
            return data[offset : offset + length]
    return b""
