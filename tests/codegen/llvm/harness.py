# SPDX-License-Identifier: Apache-2.0
"""Running a template's kernel on arrays, and checking every element against the oracle."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm
import ml_dtypes
import numpy as np

from tcc.codegen.llvm.compile import CpuTarget, compile_all, native_target
from tcc.codegen.template import TEMPLATES, Config, Emitted, Packing, ScalarParam, load_templates
from tcc.ir.expr import evaluate as eval_expr
from tcc.ir.kernel import Func
from tcc.ir.kernel.evaluate import evaluate
from tcc.ir.kernel.symbols import bind
from tcc.ir.targets import Target, cpu_target, target
from tcc.ir.types import TensorType
from tcc.ir.verifier import verify
from tcc.runtime.cpu.objects import ObjectLibrary

Array = np.ndarray[Any, Any]

V2, V3, V4 = (target(f"x86-64-v{level}") for level in (2, 3, 4))


@functools.cache
def widest() -> Target:
    """The widest level that this machine runs."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512vl") and features.get("avx512bw") and features.get("avx512dq"):
        return V4
    return V3 if features.get("avx2") and features.get("fma") else V2


def native(cores: int = 2) -> Target:
    """This machine's own CPU as a target."""
    cpu, best = native_target(), widest()
    return cpu_target("native", cores, tuple(best.features), best.vector_bytes, cpu.cpu, cpu.feature_string())


def llvm_target(t: Target) -> CpuTarget:
    """What the object compiler is told for a target."""
    if t.name == "native":
        return native_target()
    return CpuTarget(llvm.get_process_triple(), t.llvm_cpu)


class Loaded:
    """A compiled kernel that can be called on buffers."""

    def __init__(self, emitted: Emitted, t: Target) -> None:
        self.emitted = emitted
        (made,) = compile_all([("kernel", emitted.source)], llvm_target(t))
        entries = list(dict.fromkeys(launch.entry for launch in emitted.launches))
        self.code = ObjectLibrary([made.content], entries, "of a test")
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self.functions = [kind(self.code.address(launch.entry)) for launch in emitted.launches]

    def scratch(self) -> list[Array]:
        """Workspaces, poisoned where they need not be zero."""
        return [
            np.full(aligned_size(w.bytes), 0 if w.zeroed else 0xFF, np.uint8)  # pyright: ignore[reportArgumentType]
            for w in self.emitted.workspaces
        ]

    def bind(self, buffers: Sequence[int], symbols: Mapping[str, int]) -> list[tuple[Any, Any, int, int]]:
        """(function, argument slots, tasks, waves) of each launch, for buffers at these addresses."""
        out: list[tuple[Any, Any, int, int]] = []
        launches = [launch.bound(symbols) for launch in self.emitted.launches]
        for launch, function in zip(launches, self.functions, strict=True):
            slots = [p.value if isinstance(p, ScalarParam) else buffers[p.buffer] + p.offset for p in launch.params]  # pyright: ignore
            bound = (ctypes.c_int64 * max(1, len(slots)))(*slots)
            out.append((function, bound, int(launch.tasks), launch.waves))  # pyright: ignore
        return out

    def run(self, buffers: Sequence[int], workers: int = 1, symbols: Mapping[str, int] | None = None) -> None:
        """Every launch, the tasks of each wave in as many parts as there are workers, last part first."""
        for function, slots, tasks, waves in self.bind(buffers, symbols or {}):
            each, rest = divmod(tasks, waves)
            assert rest == 0, "waves are equal"
            bounds = [each * w // workers for w in range(workers + 1)]
            for wave in range(waves):
                for first, last in reversed(list(itertools.pairwise(bounds))):
                    if first < last:
                        function(slots, wave * each + first, wave * each + last)


def aligned_size(nbytes: int) -> int:
    return max(64, -(-nbytes // 64) * 64)


def aligned(nbytes: int, align: int = 64, shift: int = 0) -> Array:
    """Bytes whose first lies at a multiple of `align` plus `shift`."""
    raw = np.zeros(nbytes + align + shift + 64, np.uint8)
    start = -raw.ctypes.data % align + shift
    return raw[start : start + nbytes]


def extent_of(t: TensorType) -> int:
    """Elements from the first to the last of a tensor, inclusive."""
    if 0 in t.static_shape:
        return 0
    return 1 + sum((d - 1) * s for d, s in zip(t.static_shape, t.element_strides, strict=True))  # pyright: ignore


def place(t: TensorType, value: Array | None) -> tuple[Array, Array]:
    """(the bytes of a buffer of that type, the tensor as a view of it); gaps and unset elements are 0xFF."""
    raw = aligned(max(1, extent_of(t)) * t.dtype.bytes, 64, t.align % 64)
    raw[...] = 0xFF
    strides = [int(s) * t.dtype.bytes for s in t.element_strides]  # pyright: ignore[reportArgumentType]
    view = np.lib.stride_tricks.as_strided(raw.view(_bytes_of(t)), t.static_shape, strides).view(t.dtype.numpy)
    if value is not None:
        view[...] = value
    return raw, view


def pack(array: Array, packing: Packing) -> Array:
    """A constant in the layout that a template asked for."""
    shape = [int(d) for d in packing.shape]  # pyright: ignore[reportArgumentType]
    grid = np.indices(shape, sparse=True)
    env = dict(zip(packing.domain.parallel_names, grid, strict=True))
    where = [np.broadcast_to(np.asarray(eval_expr(r, env)), shape) for r in packing.map.results]
    inside = np.ones(shape, bool)
    for i, extent in zip(where, array.shape, strict=True):
        inside &= (i >= 0) & (i < extent)
    for z in packing.map.zero:
        inside &= np.broadcast_to(np.asarray(eval_expr(z, env)) == 0, shape)
    got = array[tuple(np.clip(i, 0, max(n - 1, 0)) for i, n in zip(where, array.shape, strict=True))]
    fill = 0 if packing.map.fill is None else packing.map.fill
    return np.ascontiguousarray(np.where(inside, got, np.asarray(fill).astype(got.dtype)).astype(packing.dtype.numpy))


def run(
    func: Func,
    arrays: Sequence[Array],
    name: str,
    config: Config | None = None,
    t: Target | None = None,
    workers: int = 2,
    symbols: Mapping[str, int] | None = None,
) -> list[Array]:
    """The results of a template's kernel; asserts that nothing outside them was written."""
    t = t or widest()
    load_templates("cpu")
    template = TEMPLATES[name]
    reason = template.accepts(func, t)
    assert reason is None, reason
    config = template.default(func, t) if config is None else config
    assert config is not None
    illegal = template.why_illegal(func, config, t)
    assert illegal is None, illegal
    loaded = Loaded(template.emit(func, config, t), t)
    func = bind(func, symbols or {})
    packings = {p.operand: p for p in template.pack(func, config, t)}
    inputs: list[tuple[Array, Array]] = []
    for i, (type, array) in enumerate(zip(func.arg_types, arrays, strict=True)):
        if i in packings:
            packed = pack(array, packings[i])
            raw = aligned(max(1, packed.nbytes))
            raw[: packed.nbytes] = packed.reshape(-1).view(np.uint8)
            inputs.append((raw, packed))
        else:
            inputs.append(place(type, array))
    outputs = [place(type, None) for type in func.result_types]
    scratch = loaded.scratch()
    guarded = [raw for raw, _ in (*inputs, *outputs)]
    before = [raw.copy() for raw, _ in inputs]
    loaded.run([raw.ctypes.data for raw in (*guarded, *scratch)], workers, symbols)
    for (raw, _), old in zip(inputs, before, strict=True):
        assert np.array_equal(raw, old), "an operand was written"
    for (raw, _), type in zip(outputs, func.result_types, strict=True):
        mask, inside = place(type, None)
        inside.view(_bytes_of(type))[...] = 0
        outside = mask != 0
        assert np.all(raw[outside] == 0xFF), "something outside the result was written"
    return [view.copy() for _, view in outputs]


def _bytes_of(t: TensorType) -> Any:
    return {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[t.dtype.bytes]


def check(
    func: Func,
    arrays: Sequence[Array],
    name: str,
    config: Config | None = None,
    t: Target | None = None,
    workers: int = 2,
    slack: float = 1.0,
    symbols: Mapping[str, int] | None = None,
) -> None:
    """Assert that every element of every result is right."""
    verify(func)
    with np.errstate(all="ignore"):
        expected = evaluate(bind(func, symbols or {}), arrays)
    got = run(func, arrays, name, config, t, workers, symbols)
    for i, (e, g) in enumerate(zip(expected, got, strict=True)):
        worst = e.worst(g)
        assert worst <= slack, f"{name} {config} result {i}: {worst}"


def random(rng: np.random.Generator, t: TensorType, scale: float = 1.0) -> Array:
    """Values of a tensor type: normal floats, small integers, random booleans."""
    shape, d = t.static_shape, t.dtype
    if d.is_float:
        return (rng.standard_normal(shape) * scale).astype(np.float32).astype(d.numpy)
    if d.kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    low = 0 if d.kind == "uint" else -min(100, 1 << (d.bits - 1))
    return rng.integers(low, min(100, (1 << (d.bits - 1)) - 1) + 1, shape).astype(d.numpy)


__all__ = ["V2", "V3", "V4", "Loaded", "check", "ml_dtypes", "native", "random", "run", "widest"]
