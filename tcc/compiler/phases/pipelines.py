# SPDX-License-Identifier: Apache-2.0
"""The phases of a compilation, and the passes of each at every optimisation level."""

from __future__ import annotations

from tcc.errors import InputError

PHASES = ("import", "graph", "fuse", "kernel", "schedule", "target")
"""In order. `import` makes the module from ONNX and `target` makes the engine; the others are pipelines."""

_REQUIRED = "expand-ops,fold-constants,dce"
_GRAPH = (
    "fold-constants,canonicalize,cse,raise-patterns,canonicalize,hoist,dce,merge-matmuls,fold-batch-norm,expand-ops,"
    "assign-layout,canonicalize,fold-constants,cse,dce"
)


def pipeline(phase: str, opt_level: int, precision: str) -> str:
    """The pipeline text of one phase; empty for `import` and `target`."""
    if phase == "graph":
        rounding = "" if precision == "f32" else f",precision{{to={precision}}},canonicalize,cse,dce"
        return (_REQUIRED if opt_level == 0 else _GRAPH) + rounding
    if phase == "fuse":
        return "" if opt_level == 0 else "narrow-weights,fuse,dce"
    if phase == "kernel":
        return "lower-to-kernel,alias,share-kernels"
    if phase == "schedule":
        by = {0: "reference", 1: "default"}.get(opt_level, "search")
        return f"schedule{{by={by}}},pack-constants,plan-memory"
    return ""


def pipelines(first: str, last: str, opt_level: int, precision: str) -> str:
    """The pipeline of the phases from `first` to `last`, both included."""
    a, b = index(first), index(last)
    texts = [pipeline(p, opt_level, precision) for p in PHASES[a : b + 1]]
    return ",".join(t for t in texts if t)


def index(phase: str) -> int:
    """The place of a phase; InputError if there is none of that name."""
    if phase not in PHASES:
        raise InputError(f"there is no phase {phase!r}; the phases are {', '.join(PHASES)}")
    return PHASES.index(phase)
