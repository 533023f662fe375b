# SPDX-License-Identifier: Apache-2.0
"""Whether a target can be measured here, and what a measurement depends on."""

from __future__ import annotations

import functools
from pathlib import Path

from tcc.compiler.search.records import Context
from tcc.compiler.targets import host_cpu
from tcc.ir.targets import Target


def measuring_context(target: Target) -> Context | None:
    """The context of measurements of a target on this machine; None if it cannot run here."""
    if target.is_cuda:
        from tcc.codegen.cuda.compile import toolchain
        from tcc.runtime.cuda.device import devices

        found = devices()
        if not found or not found[0].runs(target.name):
            return None
        return Context(target.name, found[0].name, found[0].driver, toolchain(), 1)
    if not target.features <= host_cpu().features or target.vector_bytes > host_cpu().vector_bytes:
        return None
    return Context(target.name, cpu_model(), "", f"llvmlite {_llvmlite()}", target.cores)


@functools.cache
def cpu_model() -> str:
    """The CPU's name, as the kernel tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({host_cpu().llvm_cpu})"
    except OSError:
        pass
    return host_cpu().llvm_cpu


@functools.cache
def _llvmlite() -> str:
    from importlib.metadata import version

    return version("llvmlite")
