# SPDX-License-Identifier: Apache-2.0
"""Target names to targets: `native` is the GPU if there is one, else this machine's CPU; `cpu` is this CPU."""

from __future__ import annotations

import functools
import os

from tcc.codegen.llvm.compile import CpuTarget, native_target
from tcc.ir.targets import CUDA_TARGETS, Target, cpu_target, target

_LEVEL_FEATURES = {
    "x86-64-v2": ("cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v4": ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
}
_TCC_FEATURES = {
    "sse4.2": "sse4_2", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512f": "avx512",
    "avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni", "avx512fp16": "avx512_fp16",
}  # fmt: skip


def threads() -> int:
    """Workers of CPU engines: TCC_NUM_THREADS, else the cores this process may use."""
    given = os.environ.get("TCC_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))


def resolve_target(name: str) -> Target:
    """The target of a name; InputError that names near ones if there is none."""
    if name == "native":
        gpu = native_gpu()
        return gpu if gpu is not None else host_cpu()
    if name == "cpu":
        return host_cpu()
    return target(name, threads())


def native_gpu() -> Target | None:
    """The target of the first GPU, or None where there is none (or no driver)."""
    return gpu_target(0)


@functools.cache
def gpu_target(number: int) -> Target | None:
    """The target of a GPU by its number, or None where there is none (or no driver)."""
    from tcc.runtime.cuda.device import devices

    found = devices()
    if not 0 <= number < len(found):
        return None
    runs = [t for t in CUDA_TARGETS.values() if found[number].runs(t.name)]
    return max(runs, key=lambda t: t.sm) if runs else None


@functools.cache
def host_cpu() -> Target:
    """This machine's CPU, named by the features that tcc's templates know."""
    native = native_target()
    present = set(native.features)
    width = 64 if "avx512f" in present else 32 if "avx2" in present else 16
    features = tuple(mine for llvm, mine in _TCC_FEATURES.items() if llvm in present)
    return cpu_target("cpu", threads(), features, width, native.cpu)


def llvm_target(t: Target) -> CpuTarget:
    """What LLVM is told for a CPU target, which is also what its engines need."""
    if t.name == "cpu":
        return native_target()
    triple = native_target().triple
    features: list[str] = []
    for level, names in _LEVEL_FEATURES.items():
        features += names
        if level == t.name:
            break
    return CpuTarget(triple, t.llvm_cpu, tuple(features))


def engine_target(t: Target) -> dict[str, object]:
    """The `target` of an engine's manifest (spec/engine.md)."""
    if t.is_cuda:
        return {"kind": "cuda", "name": t.name, "arch": t.sm, "features": sorted(t.features)}
    native = llvm_target(t)
    return {"kind": "cpu", "name": t.name, "features": sorted(native.features), "triple": native.triple}
