# SPDX-License-Identifier: Apache-2.0
"""Measures the CUDA runtime itself on the GPU here: launch latencies, overlap, call overhead, the timer. Prints JSON.

Run as `python -m tests.device.measure_runtime [CUBIN]`; CUBIN, if given, is the shared test kernels built elsewhere for
this architecture, to see that it loads and runs.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tcc.codegen.cuda.compile import compile_cuda, toolchain
from tcc.runtime.cuda import nvml
from tcc.runtime.cuda.device import devices
from tcc.runtime.cuda.timing import Timer, time_engine, time_interleaved
from tests.device.sources import SPEED
from tests.runtime.cuda.cases import affine, expected, on_device, ramp
from tests.runtime.cuda.engines import SOURCE, Program

ARCH = devices()[0].arch
CUBIN = compile_cuda(SPEED, ARCH).cubin


def speed():
    return Program(CUBIN, arch=ARCH, sizes=["empty", "copy", "spin"])


def chain(count, pdl):
    """Dependent empty kernels."""
    p = speed()
    y = p.output("y", [128])
    p.segment(*(p.launch("empty", y, reads=[y], writes=[y], pdl=pdl) for _ in range(count)))
    return p.engine()


def forks(width, rounds, blocks, pdl):
    """Ten times: one spin, then `width` independent ones, then one that reads them all."""
    p = speed()
    x, y = p.input("x", [128]), p.output("y", [128 * blocks])
    temps = [p.temp([128 * blocks]) for _ in range(width + 1)]
    spin = {"scalar": rounds, "dtype": "i32"}
    ops, last = [], x
    for _ in range(10):
        root, *branches = temps
        ops.append(
            p.launch("spin", root, last, spin, reads=[last, *branches], writes=[root], grid=[blocks, 1, 1], pdl=pdl)
        )
        for branch in branches:
            ops.append(
                p.launch("spin", branch, root, spin, reads=[root], writes=[branch], grid=[blocks, 1, 1], pdl=pdl)
            )
        last = branches[-1]
        ops.append(p.launch("spin", y, last, spin, reads=branches, writes=[y], grid=[blocks, 1, 1], pdl=pdl))
    p.segment(*ops)
    return p.engine(), len(ops)


def residual(rounds, blocks, pdl):
    """Sixteen blocks of three dependent spins with a reader of the block's input at the end: a chain with skips."""
    p = speed()
    x, y = p.input("x", [128]), p.output("y", [128 * blocks])
    temps = [p.temp([128 * blocks]) for _ in range(4)]
    spin = {"scalar": rounds, "dtype": "i32"}
    ops, last = [], x
    for i in range(16):
        skip, current = last, last
        for j in range(3):
            out = temps[(3 * i + j) % 4] if (i, j) != (15, 2) else y
            reads = [current] if j < 2 else [current, skip]
            ops.append(p.launch("spin", out, current, spin, reads=reads, writes=[out], grid=[blocks, 1, 1], pdl=pdl))
            current = out
        last = current
    p.segment(*ops)
    return p.engine(), len(ops)


def copier(nbytes):
    p = speed()
    n = nbytes // 4
    x, y = p.input("x", [n]), p.output("y", [n])
    p.segment(
        p.launch(
            "copy",
            y,
            x,
            {"scalar": n // 4, "dtype": "i32"},
            reads=[x],
            writes=[y],
            grid=[132 * 8, 1, 1],
            block=[256, 1, 1],
        )
    )
    return p.engine()


def microseconds(engine, inputs=(), **more):
    return round(1e6 * statistics.median(time_engine(engine, list(inputs), rounds=9, **more)), 3)


def call_times(call, count, sync):
    """Median microseconds of host time a call, and of a call up to its end."""
    for _ in range(20):
        call()
    sync()
    start = time.perf_counter()
    for _ in range(count):
        call()
    issue = (time.perf_counter() - start) / count
    sync()
    whole = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        sync()
        whole.append(time.perf_counter() - start)
    return {"issue_us": round(1e6 * issue, 2), "whole_us": round(1e6 * statistics.median(whole), 2)}


def main():
    result = {"device": devices()[0].name, "driver": devices()[0].driver, "toolchain": toolchain()}
    result["resources"] = {k: v.registers for k, v in compile_cuda(SPEED, ARCH, cache=False).resources.items()}
    if len(sys.argv) > 1:
        cubin = Path(sys.argv[1]).read_bytes()
        engine = affine(lambda: Program(cubin, arch=ARCH), pdl=True)
        result["foreign_cubin_ok"] = bool(np.array_equal(engine(ramp())["y"], expected(ramp())))
    for pdl in (False, True):
        result[f"chain_us_a_kernel_pdl_{pdl}"] = round(microseconds(chain(100, pdl)) / 100, 3)
    for serial in ("0", "1"):
        os.environ["TCC_CUDA_SERIAL"] = serial
        name = "serial" if serial == "1" else "overlap"
        for pdl in (False, True):
            for width, rounds, blocks in ((3, 500, 16), (3, 2000, 16), (2, 500, 132)):
                engine, count = forks(width, rounds, blocks, pdl)
                key = f"forks_{width}x{rounds}x{blocks}_{name}_pdl_{pdl}"
                result[key] = round(microseconds(engine, [ramp(128)]) / count, 3)
            engine, count = residual(500, 16, pdl)
            result[f"residual_{name}_pdl_{pdl}"] = round(microseconds(engine, [ramp(128)]) / count, 3)
    os.environ.pop("TCC_CUDA_SERIAL")

    engine = affine(lambda: Program(compile_cuda(SOURCE, ARCH).cubin, arch=ARCH))
    gpu = engine.executor.gpu

    def sync():
        with gpu.active():
            gpu.synchronize(gpu.stream())

    a, b = on_device(engine, ramp()), on_device(engine, ramp(start=1))
    x, y = ramp(), np.zeros(1000, np.float32)
    turn = iter(range(10**9))
    result["bound_device"] = call_times(engine.bind({"x": a}), 500, sync)
    result["bound_host"] = call_times(engine.bind({"x": x}, {"y": y}), 500, sync)
    result["call_device"] = call_times(lambda: engine({"x": a}), 500, sync)
    result["call_device_alternating"] = call_times(lambda: engine({"x": (a, b)[next(turn) % 2]}), 500, sync)
    result["call_host"] = call_times(lambda: engine({"x": x}), 500, sync)

    start = time.perf_counter()
    first = chain(100, True)
    result["load_100_nodes_ms"] = round(1e3 * (time.perf_counter() - start), 2)
    start = time.perf_counter()
    first.run([])
    result["first_call_100_nodes_ms"] = round(1e3 * (time.perf_counter() - start), 2)

    for nbytes in (4 << 20, 64 << 20, 256 << 20):
        engine = copier(nbytes)
        data = [np.random.default_rng(0).random(nbytes // 4, np.float32)]
        for rotate in (0, 1 << 30):
            samples = time_engine(engine, data, rounds=9, rotate_bytes=rotate)
            key = f"copy_{nbytes >> 20}MiB_rotate_{rotate >> 20}"
            result[key] = {
                "TB/s": round(2 * nbytes / statistics.median(samples) / 1e12, 3),
                "spread": round(max(samples) / min(samples) - 1, 4),
            }
    engine, count = residual(500, 16, True)
    rows = engine.profile([ramp(128)])
    result["profile_us_a_kernel"] = round(1e6 * statistics.mean(row.seconds for row in rows), 3)
    engine = chain(100, False)
    rows = engine.profile([])
    result["profile_us_an_empty_kernel"] = round(1e6 * statistics.median(row.seconds for row in rows), 3)
    engine = copier(4 << 20)
    start = time.perf_counter()
    timers = [Timer(engine, [ramp(1 << 20)], rotate_bytes=100 << 20) for _ in range(2)]
    result["timer_set_up_ms"] = round(1e3 * (time.perf_counter() - start) / 2, 2)
    pair = time_interleaved(timers, 8)
    result["the_same_twice"] = round(statistics.median(pair[0]) / statistics.median(pair[1]), 4)
    state = nvml.state(devices()[0])
    result["state"] = None if state is None else state.__dict__
    print(json.dumps(result, indent=1))
    if os.environ.get("OUT"):
        Path(os.environ["OUT"], "runtime.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
