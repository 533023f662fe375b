# SPDX-License-Identifier: Apache-2.0
"""Targets as data: what templates may use and how large the machine is.

CUDA targets are named `sm_XX`; CPU targets by the x86-64 level (`x86-64-v2`, `-v3`, `-v4`) or as an LLVM CPU name and
features that `tcc.compiler` reads off the machine for `native`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from tcc.errors import InputError


@dataclass(frozen=True)
class Target:
    """One device to compile for.

    `features`: names that templates ask for with `needs`. `cores`: SMs, or worker threads. `vector_bytes`: width of a
    SIMD register (CPU). `shared_bytes`: most shared memory a block may use (CUDA). Caches in bytes, rates in units of
    one per second; they feed cost models only.
    """

    name: str
    kind: str
    features: frozenset[str]
    cores: int
    vector_bytes: int = 16
    shared_bytes: int = 0
    registers: int = 65536
    l1_bytes: int = 48 << 10
    l2_bytes: int = 2 << 20
    memory_rate: float = 2e10
    flop_rate: float = 1e11
    half_flop_rate: float = 1e11
    launch_seconds: float = 1e-6
    llvm_cpu: str = ""
    llvm_features: str = ""

    @property
    def is_cuda(self) -> bool:
        return self.kind == "cuda"

    @property
    def sm(self) -> int:
        """The compute capability as a number: 86 for sm_86."""
        return int(self.name.removeprefix("sm_").rstrip("af"))

    @property
    def lanes(self) -> int:
        """f32 elements in a SIMD register."""
        return self.vector_bytes // 4

    def to_json(self) -> dict[str, Any]:
        """The engine's description of what it needs."""
        return {"name": self.name, "kind": self.kind, "features": sorted(self.features)}


def _cuda(
    sm: int, cores: int, shared: int, l2_mib: int, bandwidth: float, flops: float, half: float, *features: str
) -> Target:
    return Target(
        name=f"sm_{sm}", kind="cuda", features=frozenset(features), cores=cores, shared_bytes=shared,
        l1_bytes=shared, l2_bytes=l2_mib << 20, memory_rate=bandwidth, flop_rate=flops, half_flop_rate=half,
        launch_seconds=1e-6,
    )  # fmt: skip


_TURING = ("fma", "mma_f16", "ldmatrix", "dp4a")
_AMPERE = (*_TURING, "mma_sync", "mma_bf16", "mma_tf32", "mma_int8", "cp_async", "bf16")
_HOPPER = (*_AMPERE, "fp8", "pdl", "cluster", "tma")

CUDA_TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        _cuda(75, 40, 64 << 10, 4, 3.2e11, 8.1e12, 6.5e13, *_TURING),
        _cuda(80, 108, 163 << 10, 40, 1.55e12, 1.95e13, 3.1e14, *_AMPERE),
        _cuda(86, 82, 99 << 10, 6, 9.3e11, 3.5e13, 1.4e14, *_AMPERE),
        _cuda(89, 128, 99 << 10, 72, 1.0e12, 8.2e13, 3.3e14, *_AMPERE, "fp8"),
        _cuda(90, 132, 227 << 10, 50, 3.0e12, 5.0e13, 7.2e14, *_HOPPER),
        _cuda(100, 148, 227 << 10, 126, 8.0e12, 7.5e13, 1.0e15, *_HOPPER),
        _cuda(120, 170, 99 << 10, 96, 1.8e12, 1.0e14, 4.0e14, *_AMPERE, "fp8", "pdl", "cluster", "tma"),
    )
}

_V2 = ("sse4_2",)
_V3 = (*_V2, "avx2", "fma", "f16c")
_V4 = (*_V3, "avx512")
_LEVELS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "x86-64-v2": ("x86-64-v2", _V2, 16),
    "x86-64-v3": ("x86-64-v3", _V3, 32),
    "x86-64-v4": ("x86-64-v4", _V4, 64),
}


def cpu_target(
    name: str, cores: int, features: tuple[str, ...], vector_bytes: int, llvm_cpu: str, llvm_features: str = ""
) -> Target:
    """A CPU target; `features` are tcc's names (`avx2`, `fma`, `avx512`, `avx512_bf16`, `avx512_vnni`, `f16c`)."""
    per_core = {16: 2.5e10, 32: 1e11, 64: 2.4e11}[vector_bytes]
    return Target(
        name=name, kind="cpu", features=frozenset(features), cores=cores, vector_bytes=vector_bytes, registers=32,
        memory_rate=1.5e10 * cores, flop_rate=per_core * cores, half_flop_rate=per_core * cores,
        launch_seconds=1e-6, llvm_cpu=llvm_cpu, llvm_features=llvm_features,
    )  # fmt: skip


def target(name: str, cores: int = 2) -> Target:
    """The target of that name; InputError names the nearest ones. (`native` is resolved by the compiler.)"""
    if name in CUDA_TARGETS:
        return CUDA_TARGETS[name]
    if name in _LEVELS:
        cpu, features, width = _LEVELS[name]
        return cpu_target(name, cores, features, width, cpu)
    known = [*CUDA_TARGETS, *_LEVELS, "native", "cpu"]
    near = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"targets are {', '.join(known)}"
    raise InputError(f"there is no target {name!r}; {hint}")
