# SPDX-License-Identifier: Apache-2.0
"""Single CPU kernels over typical layers: `python -m benchmarks.cpu_kernels [PATTERN...] [--tune N]`.

For each layer the default config's time, scaled to a core's nominal rate by a loop of FMAs timed beside it, and its
share of that peak; with `--tune N`, N configs (the best by the cost model and random ones) are timed too, and the
default is compared with the fastest. Buffers are rotated over a few copies, so that weights and inputs come from the
last-level cache, as they do inside a model.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from tcc.codegen.llvm.compile import CompileError, Object, compile_many, native_target
from tcc.codegen.template import TEMPLATES, Config, Emitted, Packing, load_templates, rows_of
from tcc.compiler.targets import host_cpu
from tcc.ir import arith, math
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Value
from tcc.ir.kernel import Conv, Func, MatMul
from tcc.ir.kernel.build import RegionBuilder, dense, dims, func, identity_region, scalar_region
from tcc.ir.targets import Target
from tcc.ir.types import F32, ScalarType

# Layers.


def _literal(b: RegionBuilder, value: float) -> Value:
    return b(arith.Constant(value=value, result_types=[ScalarType(F32)]))


def _activation(b: RegionBuilder, x: Value, name: str) -> Value:
    if name == "relu":
        return b(arith.Max(x, _literal(b, 0.0)))
    if name == "hswish":
        clipped = b(arith.Min(b(arith.Max(b(arith.Add(x, _literal(b, 3.0))), _literal(b, 0.0))), _literal(b, 6.0)))
        return b(arith.Mul(x, b(arith.Mul(clipped, _literal(b, 1 / 6)))))
    if name == "silu":
        return b(arith.Mul(x, b(math.Sigmoid(x))))
    if name == "gelu":
        half = b(arith.Mul(x, _literal(b, 0.5)))
        one = b(arith.Add(b(math.Erf(b(arith.Mul(x, _literal(b, 0.7071067811865476))))), _literal(b, 1.0)))
        return b(arith.Mul(half, one))
    return x


def _epilogue(extra: int, activation: str) -> Any:
    def body(b: RegionBuilder, a: Sequence[Value]) -> Value:
        x = a[0]
        for other in a[1:]:
            x = b(arith.Add(x, other))
        return _activation(b, x, activation)

    return scalar_region([F32] * (1 + extra), body)


def conv(
    h: int, ci: int, co: int, kernel: int = 1, stride: int = 1, pad: int | None = None, groups: int = 1,
    activation: str = "relu", residual: bool = False, n: int = 1, layout: str = "nhwc",
) -> Func:  # fmt: skip
    """A convolution over h × h pixels with bias, perhaps a residual, and an activation; constant weights."""
    pad = kernel // 2 if pad is None else pad
    out = (h + 2 * pad - kernel) // stride + 1
    cg, og = ci // groups, co // groups
    n_, oy, ox, g, c_o, ky, kx, c_i = dims("n", "oy", "ox", "g", "co", "ky", "kx", "ci")
    d = Domain(
        (("n", n), ("oy", out), ("ox", out), ("g", groups), ("co", og)), (("ky", kernel), ("kx", kernel), ("ci", cg))
    )
    y, x = oy * stride + ky - pad, ox * stride + kx - pad
    channel = g * cg + c_i if groups > 1 else c_i
    filters = g * og + c_o if groups > 1 else c_o
    source = IndexMap((n_, y, x, channel) if layout == "nhwc" else (n_, channel, y, x), 0.0 if pad else None)
    place = IndexMap((n_, oy, ox, filters))
    extra = [(dense((co,), F32), IndexMap((filters,)))]
    if residual:
        extra.append((dense((n, out, out, co), F32), place))
    shape = (n, h, h, ci) if layout == "nhwc" else (n, ci, h, h)
    return func(
        "f",
        [dense(shape, F32), dense((co, kernel, kernel, cg), F32), *(t for t, _ in extra)],
        lambda args: Conv(
            [args[0]], [args[1]], args[2:], domain=d, acc=F32,
            maps=(source, IndexMap((filters, ky, kx, c_i)), *(m for _, m in extra)), out_maps=(place,),
            regions=[identity_region(F32), identity_region(F32), _epilogue(len(extra), activation)],
            result_types=[dense((n, out, out, co), F32)],
        ),
        (False, True, True, *[False] * residual),
    )  # fmt: skip


def gemm(m: int, n: int, k: int, activation: str = "", residual: bool = False, constant: bool = True) -> Func:
    """rows (m, k) × weights (k, n) + bias, perhaps a residual and an activation."""
    m_, n_, k_ = dims("m", "n", "k")
    d = Domain((("m", m), ("n", n)), (("k", k),))
    extra = [(dense((n,), F32), IndexMap((n_,)))]
    if residual:
        extra.append((dense((m, n), F32), IndexMap((m_, n_))))
    return func(
        "f",
        [dense((m, k), F32), dense((k, n), F32), *(t for t, _ in extra)],
        lambda args: MatMul(
            [args[0]], [args[1]], args[2:], domain=d, acc=F32,
            maps=(IndexMap((m_, k_)), IndexMap((k_, n_)), *(m for _, m in extra)), out_maps=(IndexMap((m_, n_)),),
            regions=[identity_region(F32), identity_region(F32), _epilogue(len(extra), activation)],
            result_types=[dense((m, n), F32)],
        ),
        (False, constant, True, *[False] * residual),
    )  # fmt: skip


LAYERS: dict[str, tuple[Callable[[], Func], int]] = {
    # name: (problem, how often the model has it)
    "resnet50.stem": (lambda: conv(224, 3, 64, 7, 2), 1),
    "resnet50.stem-nchw": (lambda: conv(224, 3, 64, 7, 2, layout="nchw"), 0),
    "resnet50.56.64-64": (lambda: conv(56, 64, 64), 1),
    "resnet50.56.64-64.3x3": (lambda: conv(56, 64, 64, 3), 3),
    "resnet50.56.64-256": (lambda: conv(56, 64, 256, residual=True), 4),
    "resnet50.56.256-64": (lambda: conv(56, 256, 64), 2),
    "resnet50.56.256-128": (lambda: conv(56, 256, 128), 1),
    "resnet50.56.128-128.3x3.s2": (lambda: conv(56, 128, 128, 3, 2), 1),
    "resnet50.56.256-512.s2": (lambda: conv(56, 256, 512, 1, 2), 1),
    "resnet50.28.128-512": (lambda: conv(28, 128, 512, residual=True), 4),
    "resnet50.28.512-128": (lambda: conv(28, 512, 128), 3),
    "resnet50.28.128-128.3x3": (lambda: conv(28, 128, 128, 3), 3),
    "resnet50.28.512-256": (lambda: conv(28, 512, 256), 1),
    "resnet50.28.256-256.3x3.s2": (lambda: conv(28, 256, 256, 3, 2), 1),
    "resnet50.28.512-1024.s2": (lambda: conv(28, 512, 1024, 1, 2), 1),
    "resnet50.14.256-1024": (lambda: conv(14, 256, 1024, residual=True), 6),
    "resnet50.14.1024-256": (lambda: conv(14, 1024, 256), 5),
    "resnet50.14.256-256.3x3": (lambda: conv(14, 256, 256, 3), 5),
    "resnet50.14.1024-512": (lambda: conv(14, 1024, 512), 1),
    "resnet50.14.512-512.3x3.s2": (lambda: conv(14, 512, 512, 3, 2), 1),
    "resnet50.14.1024-2048.s2": (lambda: conv(14, 1024, 2048, 1, 2), 1),
    "resnet50.7.512-2048": (lambda: conv(7, 512, 2048, residual=True), 3),
    "resnet50.7.2048-512": (lambda: conv(7, 2048, 512), 2),
    "resnet50.7.512-512.3x3": (lambda: conv(7, 512, 512, 3), 2),
    "resnet50.fc": (lambda: gemm(1, 1000, 2048), 1),
    "mobilenetv3.stem": (lambda: conv(224, 3, 16, 3, 2, activation="hswish"), 1),
    "mobilenetv3.112.16-64": (lambda: conv(112, 16, 64), 1),
    "mobilenetv3.56.64-24": (lambda: conv(56, 64, 24, activation=""), 1),
    "mobilenetv3.56.24-72": (lambda: conv(56, 24, 72), 2),
    "mobilenetv3.28.72-40": (lambda: conv(28, 72, 40, activation=""), 1),
    "mobilenetv3.28.40-120": (lambda: conv(28, 40, 120), 2),
    "mobilenetv3.14.240-80": (lambda: conv(14, 240, 80, activation=""), 1),
    "mobilenetv3.14.80-480": (lambda: conv(14, 80, 480, activation="hswish"), 1),
    "mobilenetv3.14.112-672": (lambda: conv(14, 112, 672, activation="hswish"), 2),
    "mobilenetv3.7.672-160": (lambda: conv(7, 672, 160, activation=""), 1),
    "mobilenetv3.7.160-960": (lambda: conv(7, 160, 960, activation="hswish"), 3),
    "mobilenetv3.7.960-160": (lambda: conv(7, 960, 160, activation="", residual=True), 2),
    "mobilenetv3.se.960-240": (lambda: gemm(1, 240, 960, "relu"), 2),
    "mobilenetv3.head": (lambda: gemm(1, 1280, 960, "hswish"), 1),
    "mobilenetv3.dw.112.16.3x3": (lambda: conv(112, 16, 16, 3, groups=16), 1),
    "mobilenetv3.dw.112.64.3x3.s2": (lambda: conv(112, 64, 64, 3, 2, groups=64), 1),
    "mobilenetv3.dw.56.72.3x3": (lambda: conv(56, 72, 72, 3, groups=72), 1),
    "mobilenetv3.dw.56.72.5x5.s2": (lambda: conv(56, 72, 72, 5, 2, groups=72), 1),
    "mobilenetv3.dw.28.120.5x5": (lambda: conv(28, 120, 120, 5, groups=120), 2),
    "mobilenetv3.dw.14.480.3x3": (lambda: conv(14, 480, 480, 3, groups=480, activation="hswish"), 1),
    "mobilenetv3.dw.14.672.5x5.s2": (lambda: conv(14, 672, 672, 5, 2, groups=672, activation="hswish"), 1),
    "mobilenetv3.dw.7.960.5x5": (lambda: conv(7, 960, 960, 5, groups=960, activation="hswish"), 2),
    "bert.qkv": (lambda: gemm(128, 2304, 768), 12),
    "bert.out": (lambda: gemm(128, 768, 768, residual=True), 12),
    "bert.up": (lambda: gemm(128, 3072, 768, "gelu"), 12),
    "bert.down": (lambda: gemm(128, 768, 3072, residual=True), 12),
    "vit.patch": (lambda: conv(224, 3, 768, 16, 16, 0, activation="", layout="nchw"), 1),
    "vit.qkv": (lambda: gemm(197, 2304, 768), 12),
    "vit.out": (lambda: gemm(197, 768, 768, residual=True), 12),
    "vit.up": (lambda: gemm(197, 3072, 768, "gelu"), 12),
    "vit.down": (lambda: gemm(197, 768, 3072, residual=True), 12),
    "vgg.112.64-128.3x3": (lambda: conv(112, 64, 128, 3), 1),
    "vgg.224.64-64.3x3": (lambda: conv(224, 64, 64, 3), 1),
    "vgg.28.512-512.3x3": (lambda: conv(28, 512, 512, 3), 3),
    "vgg.fc": (lambda: gemm(1, 4096, 25088, "relu"), 1),
    "densenet.56.256-128": (lambda: conv(56, 256, 128), 1),
    "densenet.56.128-32.3x3": (lambda: conv(56, 128, 32, 3), 6),
    "densenet.14.128-32.3x3": (lambda: conv(14, 128, 32, 3), 24),
    "densenet.7.128-32.3x3": (lambda: conv(7, 128, 32, 3), 16),
    "square.512": (lambda: gemm(512, 512, 512), 0),
    "square.512.dynamic": (lambda: gemm(512, 512, 512, constant=False), 0),
    "square.1024": (lambda: gemm(1024, 1024, 1024), 0),
}  # fmt: skip


def flops(problem: Func) -> float:
    """Floating-point operations of a contraction."""
    d = problem.anchor.domain
    return 2.0 * float(np.prod([d.int_extent(n) for n in d.names], dtype=np.float64))


# Running.

_DRIVER = """
define void @drive(ptr %jobs, i64 %sets, i64 %launches, i64 %repeats, ptr %counter, i64 %workers) {
entry:
  br label %outer
outer:
  %r = phi i64 [0, %entry], [%r2, %next]
  %set = urem i64 %r, %sets
  %skip = mul i64 %set, %launches
  br label %inner
inner:
  %l = phi i64 [0, %outer], [%l2, %met]
  %at = add i64 %skip, %l
  %at4 = shl i64 %at, 2
  %job = getelementptr i64, ptr %jobs, i64 %at4
  %f = load ptr, ptr %job
  %pa = getelementptr i64, ptr %job, i64 1
  %args = load ptr, ptr %pa
  %pf = getelementptr i64, ptr %job, i64 2
  %first = load i64, ptr %pf
  %pl = getelementptr i64, ptr %job, i64 3
  %last = load i64, ptr %pl
  %some = icmp slt i64 %first, %last
  br i1 %some, label %go, label %meet
go:
  call void %f(ptr %args, i64 %first, i64 %last)
  br label %meet
meet:
  %before = mul i64 %r, %launches
  %sofar = add i64 %before, %l
  %sofar1 = add i64 %sofar, 1
  %goal = mul i64 %sofar1, %workers
  %old = atomicrmw add ptr %counter, i64 1 seq_cst
  br label %spin
spin:
  %now = load atomic i64, ptr %counter seq_cst, align 8
  %there = icmp sge i64 %now, %goal
  br i1 %there, label %met, label %spin
met:
  %l2 = add i64 %l, 1
  %more = icmp slt i64 %l2, %launches
  br i1 %more, label %inner, label %next
next:
  %r2 = add i64 %r, 1
  %again = icmp slt i64 %r2, %repeats
  br i1 %again, label %outer, label %done
done:
  ret void
}
"""
_ENGINES: list[Any] = []
_CHAINS = 24
_PEAK_STEPS = 100000


def _peak_source(lanes: int) -> str:
    """A loop of independent FMAs, as fast as the machine can go."""
    v = f"<{lanes} x float>"
    chains = range(_CHAINS)
    text = [
        f"declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})",
        "define void @peak(ptr %p, i64 %n) {", "entry:", f"  %a = load {v}, ptr %p, align 4",
        "  br label %loop", "loop:",
        "  %i = phi i64 [0, %entry], [%next, %loop]",
    ]  # fmt: skip
    text += [f"  %s{c} = phi {v} [zeroinitializer, %entry], [%t{c}, %loop]" for c in chains]
    text += [f"  %t{c} = call {v} @llvm.fma.v{lanes}f32({v} %a, {v} %a, {v} %s{c})" for c in chains]
    text += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    for c in chains:
        text += [f"  %g{c} = getelementptr float, ptr %p, i64 {lanes * c}", f"  store {v} %t{c}, ptr %g{c}, align 4"]
    return "\n".join([*text, "  ret void", "}", ""])


def _load(content: bytes) -> Any:
    if not _ENGINES:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(content))
    engine.finalize_object()
    _ENGINES.append(engine)
    return engine


def _buffer(nbytes: int) -> np.ndarray[Any, Any]:
    raw = np.zeros(nbytes + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + nbytes]


_MEMORY: list[np.ndarray[Any, Any]] = []


def _arena(nbytes: int) -> np.ndarray[Any, Any]:
    """Memory full of ordinary numbers, shared by all kernels: only the speed of what they compute matters."""
    if not _MEMORY or _MEMORY[0].size < nbytes:
        _MEMORY[:] = [_buffer(nbytes)]
        block = np.random.default_rng(0).standard_normal(1 << 18, np.float32)
        whole = _MEMORY[0].view(np.float32)
        whole[...] = np.resize(block, whole.size)
    return _MEMORY[0]


class Kernel:
    """A compiled kernel with buffers to run on."""

    def __init__(self, problem: Func, packings: Sequence[Packing], emitted: Emitted, content: bytes, cold: int) -> None:
        self.emitted = emitted
        engine = _load(content)
        self.addresses = [engine.get_function_address(launch.entry) for launch in emitted.launches]
        packed = {p.operand: p for p in packings}
        sizes: list[int] = []
        for i, t in enumerate([*problem.arg_types, *problem.result_types]):
            shape = packed[i].shape if i in packed else t.static_shape
            sizes.append(max(64, int(np.prod(shape, dtype=np.int64)) * t.dtype.bytes))  # pyright: ignore
        sizes += [max(64, int(w.bytes)) for w in emitted.workspaces]  # pyright: ignore[reportArgumentType]
        self.sets = max(1, min(64, cold // (sum(sizes) + 4096 * len(sizes))))
        step = [-(-size // 4096) * 4096 for size in sizes]
        self.memory = _arena(max(cold, sum(step)) + sum(step))
        memory = self.memory.ctypes.data
        self.slots: list[Any] = []
        for i in range(self.sets):
            starts = np.cumsum([i * sum(step) + memory, *step[:-1]])
            self.slots.append((ctypes.c_int64 * len(sizes))(*starts.tolist()))

    def jobs(self, worker: int, workers: int) -> Any:
        rows: list[int] = []
        for slots in self.slots:
            for address, launch in zip(self.addresses, self.emitted.launches, strict=True):
                tasks = int(launch.tasks)  # pyright: ignore[reportArgumentType]
                first, last = tasks * worker // workers, tasks * (worker + 1) // workers
                rows += [address, ctypes.addressof(slots), first, last]
        return (ctypes.c_int64 * len(rows))(*rows)


class Bench:
    """Times kernels for a number of workers.

    `together`: on as many threads, meeting at a barrier after every launch, by the clock on the wall. Otherwise each
    worker's share alone, one after another on this thread, by the thread's CPU time, and the longest counts: that is
    what a machine that is busy with other things allows.
    """

    def __init__(self, workers: int, together: bool, lanes: int) -> None:
        self.workers, self.together, self.lanes = workers, together, lanes
        drive, peak = compile_many([("drive", _DRIVER), ("peak", _peak_source(lanes))], native_target())
        assert isinstance(drive, Object) and isinstance(peak, Object)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_int64)
        self.drive = kind(_load(drive.content).get_function_address("drive"))
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        self._peak = kind(_load(peak.content).get_function_address("peak"))
        self._sums = _buffer(4 * lanes * _CHAINS)

    def peak(self) -> float:
        """Floating-point operations a second of one core, now."""
        start = time.thread_time()
        self._peak(self._sums.ctypes.data, _PEAK_STEPS)
        return _PEAK_STEPS * _CHAINS * 2 * self.lanes / (time.thread_time() - start)

    def _share(self, kernel: Kernel, worker: int, repeats: int) -> float:
        jobs = kernel.jobs(worker, self.workers)
        counter = (ctypes.c_int64 * 16)()
        start = time.thread_time()
        self.drive(jobs, kernel.sets, len(kernel.addresses), repeats, counter, 1)
        return (time.thread_time() - start) / repeats

    def _all(self, kernel: Kernel, repeats: int) -> float:
        counter = (ctypes.c_int64 * 16)()
        jobs = [kernel.jobs(w, self.workers) for w in range(self.workers)]

        def work(w: int) -> None:
            self.drive(jobs[w], kernel.sets, len(kernel.addresses), repeats, counter, self.workers)

        others = [threading.Thread(target=work, args=(w,)) for w in range(1, self.workers)]
        for t in others:
            t.start()
        while counter[0] < self.workers - 1:  # the others are at the first barrier, so starting them is not timed
            time.sleep(0)
        start = time.perf_counter()
        work(0)
        seconds = time.perf_counter() - start
        for t in others:
            t.join()
        return seconds / repeats

    def seconds(self, kernel: Kernel, bursts: int = 9, length: float = 0.002) -> tuple[float, float]:
        """(the least time a run over several short bursts, that time × the highest peak rate seen in between)."""
        if self.together:
            return self._bursts(lambda n: self._all(kernel, n), bursts, length)
        both = [self._bursts(lambda n, w=w: self._share(kernel, w, n), bursts, length) for w in range(self.workers)]
        return max(t for t, _ in both), max(x for _, x in both)

    def _bursts(self, once: Callable[[int], float], bursts: int, length: float) -> tuple[float, float]:
        repeats = _repeats(once(2), length)
        times: list[float] = []
        peaks: list[float] = []
        for _ in range(bursts):
            time.sleep(0.002)  # whoever has slept is not interrupted soon after
            peaks.append(self.peak())  # and brings the core to the clock it has under wide vectors
            times.append(once(repeats))
        return min(times), min(times) * max(peaks)


def _repeats(once: float, length: float) -> int:
    return int(min(max(length / max(once, 1e-7), 3), 20000))


def build(problem: Func, name: str, configs: Sequence[Config], target: Target, cold: int) -> list[Kernel | None]:
    """Kernels of the configs; None where one does not compile."""
    t = TEMPLATES[name]
    emitted = [t.emit(problem, c, target) for c in configs]
    objects = compile_many([(str(i), e.source) for i, e in enumerate(emitted)], native_target())
    out: list[Kernel | None] = []
    for c, e, o in zip(configs, emitted, objects, strict=True):
        out.append(
            None if isinstance(o, CompileError) else Kernel(problem, t.pack(problem, c, target), e, o.content, cold)
        )
    return out


def choose(problem: Func, name: str, target: Target, count: int, seed: int) -> list[Config]:
    """The default, the best by the cost model, and random configs."""
    t = TEMPLATES[name]
    default = t.default(problem, target)
    assert default is not None
    out = [default]
    columns, _ = t.legal_columns(problem, target)
    everything = rows_of(columns)
    order = np.argsort(t.cost(problem, columns, target), kind="stable")
    rng = np.random.default_rng(seed)
    picks = [*order[: count // 2], *rng.permutation(order[: max(1, len(order) // 3)])[: count - count // 2]]
    for i in picks if count else ():
        if everything[int(i)] not in out:
            out.append(everything[int(i)])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="layers, as NAME or PREFIX* (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--together", action="store_true", help="all threads at once, by the clock on the wall")
    parser.add_argument("--tune", type=int, default=0, metavar="N", help="configs to time besides the default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--template", help="the template to use (default: the cheapest by its own cost)")
    parser.add_argument("--config", type=json.loads, help="time this config (JSON; missing parameters as the default)")
    parser.add_argument("--peak", type=float, default=235e9, help="nominal FMA rate of a core that times are scaled to")
    parser.add_argument("--cold", type=float, default=24, help="MB of buffers that runs rotate over")
    options = parser.parse_args()
    target = host_cpu()
    load_templates("cpu")
    bench = Bench(options.threads, options.together, target.lanes)
    total = best_total = 0.0
    for layer, (make, times) in LAYERS.items():
        if options.patterns and not any(fnmatch.fnmatch(layer, p) for p in options.patterns):
            continue
        problem = make()
        names = [
            t.name for t in TEMPLATES.values()
            if t.kind == "cpu" and isinstance(problem.anchor, t.matches) and t.name != "llvm.naive"
            and t.accepts(problem, target) is None and options.template in (None, t.name)
        ]  # fmt: skip
        if not names:
            continue
        found: list[tuple[float, float, str, Config]] = []
        chosen = _cheapest(problem, names, target)
        for name in sorted(names, key=lambda x: x != chosen):
            if name != chosen and not options.tune:
                continue
            configs = choose(problem, name, target, options.tune, options.seed)
            if options.config is not None:
                configs = [{**configs[0], **options.config}]
            kernels = build(problem, name, configs, target, int(options.cold * 1e6))
            found += [
                (*bench.seconds(k), name, config) for config, k in zip(configs, kernels, strict=True) if k is not None
            ]
        default, best = found[0], min(found, key=lambda f: f[1])
        total += times * default[1] / options.peak
        best_total += times * best[1] / options.peak
        print(f"{layer:28s} {_line(problem, default, options)}")
        if options.tune:
            print(f"{'':24s}best {_line(problem, best, options)} ({default[1] / best[1]:.2f}x)", flush=True)
    print(f"weighted by occurrence: {total * 1e3:.3f} ms, best {best_total * 1e3:.3f} ms, at the nominal rate")


def _line(problem: Func, row: tuple[float, float, str, Config], options: argparse.Namespace) -> str:
    """Time at the nominal rate, measured time, share of the peak, config."""
    seconds, scaled, name, config = row
    work = flops(problem)
    share = work / (scaled * options.threads)
    text = " ".join(f"{k}={v}" for k, v in config.items())
    return f"{scaled / options.peak * 1e6:8.1f} us ({seconds * 1e6:8.1f}) {share:6.1%} of peak {name} {text}"


def _cheapest(problem: Func, names: Sequence[str], target: Target) -> str:
    def cost(name: str) -> float:
        t = TEMPLATES[name]
        config = t.default(problem, target)
        assert config is not None
        return float(t.cost(problem, {k: np.array([v]) for k, v in config.items()}, target)[0])

    return min(names, key=cost)


if __name__ == "__main__":
    main()
