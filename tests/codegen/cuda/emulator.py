# SPDX-License-Identifier: Apache-2.0
"""Kernels of the CUDA templates on the CPU: their source compiled by g++ against `emulator.h`.

Undefined behaviour (misaligned vectors, indices outside arrays, overflow) traps, a barrier that cannot be passed is an
error. What needs a device (inline PTX, speed) is tested there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tcc.codegen.template import BufferParam, Emitted, ScalarParam
from tests.codegen.cuda.problems import Buffer

HEADER = Path(__file__).with_name("emulator.h")
FLAGS = [
    "-std=c++17",
    "-x",
    "c++",
    "-O0",
    "-mf16c",
    "-mfma",
    "-fPIC",
    "-shared",
    "-fno-strict-aliasing",
    "-w",
    "-pthread",
]
CHECKS = ["-fsanitize=alignment,bounds,signed-integer-overflow,shift", "-fsanitize-undefined-trap-on-error"]


def missing() -> str | None:
    """Why kernels cannot be emulated here, else None."""
    return None if shutil.which("g++") else "g++ is not installed"


def library(source: str, entries: Sequence[str], params: int, cooperative: bool = False) -> ctypes.CDLL:
    """The source as a shared library with a function `run_<entry>(pointers, grid, block)` per entry."""
    text = re.sub(r"#include <cuda_\w+\.h>", "", source)
    text = re.sub(r"#pragma unroll.*", "", text).replace('_Pragma("unroll")', "")
    text = text.replace("#define TCC_PDL\n", "")
    parts = ["#define TCC_COOPERATIVE\n" if cooperative else "", HEADER.read_text(), text]
    for entry in entries:
        args = ", ".join(f"reinterpret_cast<P{i}>(pointers[{i}])" for i in range(params))
        types = ", ".join(f"class P{i}" for i in range(params))
        names = ", ".join(f"P{i}" for i in range(params))
        parts.append(
            f"static void** pointers_{entry};\n"
            f"template <{types}> void call_{entry}(void (*f)({names})) {{\n"
            f"  void** pointers = pointers_{entry};\n  f({args});\n}}\n"
            f'extern "C" int run_{entry}(void** pointers, const unsigned* grid, const unsigned* block) {{\n'
            f"  pointers_{entry} = pointers;\n"
            f"  return emulator::run([] {{ call_{entry}({entry}); }}, {{grid[0], grid[1], grid[2]}},"
            f" {{block[0], block[1], block[2]}});\n}}\n"
        )
    whole = "\n".join(parts)
    folder = Path(os.environ.get("TCC_CACHE_DIR") or tempfile.gettempdir()) / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.so"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", suffix=".cpp", dir=folder, delete=False) as file:
            file.write(whole)
        out = f"{file.name}.so"
        command = ["g++", *FLAGS, *CHECKS, file.name, "-o", out]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        os.unlink(file.name)
        if done.returncode:
            raise RuntimeError(f"g++ refuses the kernel:\n{done.stderr[:3000]}")
        os.replace(out, path)
    return ctypes.CDLL(str(path))


def run(emitted: Emitted, buffers: Sequence[Buffer], symbols: Mapping[str, int] | None = None) -> None:
    """All launches on the buffers of operands and results, with the kernel's symbols; workspaces start poisoned."""
    scratch = [np.full(int(w.bytes) + 64, 0 if w.zeroed else 0xFF, np.uint8) for w in emitted.workspaces]
    addresses = [b.address for b in buffers] + [s.ctypes.data + -s.ctypes.data % 64 for s in scratch]
    entries = list(dict.fromkeys(launch.entry for launch in emitted.launches))
    code = library(
        emitted.source, entries, len(emitted.launches[0].params), any(e.cooperative for e in emitted.launches)
    )
    for launch in (launch.bound(symbols or {}) for launch in emitted.launches):
        assert all(isinstance(p, ScalarParam) or p.offset == 0 for p in launch.params)
        values = [addresses[p.buffer] if isinstance(p, BufferParam) else p.value for p in launch.params]
        pointers = (ctypes.c_void_p * len(values))(*values)
        if 0 in launch.grid:
            continue
        grid, block = (ctypes.c_uint * 3)(*launch.grid), (ctypes.c_uint * 3)(*launch.block)
        if getattr(code, f"run_{launch.entry}")(pointers, grid, block):
            raise RuntimeError(f"{launch.entry}: some threads wait at a barrier that others never reach")
