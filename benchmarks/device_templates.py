# SPDX-License-Identifier: Apache-2.0
"""CUDA templates on the GPU here: checks sampled configs against the oracle, and times main shapes over their spaces.

python -m benchmarks.device_templates --out DIR [--check CONFIGS] [--time CONFIGS] [--templates NAMES] writes
DIR/templates.json: per (problem, template) how many configs were right, and seconds per config, that of the default
first. Kernels are timed in a graph of repeated launches with warm caches.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tcc.codegen.template import Config, Template, candidates, rows_of
from tcc.ir.kernel import Func
from tcc.ir.targets import Target, target
from tcc.ir.types import F16, F32, I8, TensorType
from tests.codegen.cuda import builders as b


def shapes() -> dict[str, Func]:
    """The shapes that are timed."""
    return {
        "gemm f32 128x768x768": b.matmul((), 128, 768, 768, F32, bias=True),
        "gemm f32 128x3072x768": b.matmul((), 128, 3072, 768, F32, bias=True, activation="gelu"),
        "gemm f32 2048x2048x2048": b.matmul((), 2048, 2048, 2048, F32),
        "gemm f32 96x(128x64x128)": b.matmul((96,), 128, 64, 128, F32, weights=False),
        "gemm i8 512x512x512": b.matmul((), 512, 512, 512, I8),
        "gemv f16 1x2048x1000": b.matmul((), 1, 1000, 2048, F16, bias=True),
        "gemv f16 1x1280x1000 nk": b.matmul((), 1, 1000, 1280, F16, tb=True, bias=True),
        "gemv f32 1x4096x4096": b.matmul((), 1, 4096, 4096, F32, bias=True),
        "gemv f16 1x960x240": b.conv(1, 1, 1, 1, 960, 240, 1, F16),
        "conv f32 64>64 3x3 56": b.conv(1, 56, 56, 1, 64, 64, 3, F32, pad=1),
        "conv f32 256>64 1x1 56": b.conv(1, 56, 56, 1, 256, 64, 1, F32),
        "conv f32 512>512 3x3 7": b.conv(1, 7, 7, 1, 512, 512, 3, F32, pad=1),
        "conv f16 stem 7x7/2 224": b.conv(1, 224, 224, 1, 3, 64, 7, F16, stride=2, pad=3),
        "conv f32 stem nchw 7x7/2 224": b.conv(1, 224, 224, 1, 3, 64, 7, F32, stride=2, pad=3, layout="nchw"),
        "conv f16 grouped 32x4 56": b.conv(1, 56, 56, 32, 4, 4, 3, F16, pad=1),
        "depthwise f16 3x3 112x64 b1": b.conv(1, 112, 112, 64, 1, 1, 3, F16, pad=1, activation="silu"),
        "depthwise f16 5x5 14x672 b1": b.conv(1, 14, 14, 672, 1, 1, 5, F16, pad=2, activation="silu"),
        "depthwise f16 7x7 56x96 b1": b.conv(1, 56, 56, 96, 1, 1, 7, F16, pad=3),
        "depthwise f16 3x3/2 112x96 b32": b.conv(32, 112, 112, 96, 1, 1, 3, F16, stride=2, pad=1),
        "depthwise f16 7x7 56x96 b32": b.conv(32, 56, 56, 96, 1, 1, 7, F16, pad=3),
        "depthwise f32 3x3 56x144 b1": b.conv(1, 56, 56, 144, 1, 1, 3, F32, pad=1),
        "map f16 add 0.8M": b.pointwise((1, 28, 28, 1024), F16, activation="none"),
        "map f16 silu 51M": b.pointwise((32, 56, 56, 512), F16, broadcast=True),
        "map f32 nchw>nhwc 3x224": b.pointwise((1, 224, 224, 3), F32, order=(0, 3, 1, 2), broadcast=True),
        "map f16 transpose 32x256x3136": b.pointwise((32, 3136, 256), F16, order=(0, 2, 1), broadcast=True),
        "map f16 gather 128x768": b.gather(30000, 768, 128, F16),
        "pool f16 max 3x3/2 112x64 b1": b.pool(1, 112, 112, 64, 3, F16, stride=2, pad=1),
        "pool f16 max 3x3/2 112x64 b32": b.pool(32, 112, 112, 64, 3, F16, stride=2, pad=1),
        "reduce f16 gap 7x7x2048 b1": b.reduce((1, 49, 2048), (1,), F16, mean=True),
        "reduce f16 gap 56x56x144 b1": b.reduce((1, 3136, 144), (1,), F16, mean=True),
        "reduce f16 gap 7x7x1280 b32": b.reduce((32, 49, 1280), (1,), F16, mean=True),
        "reduce f32 nchw gap 2048x7x7 b32": b.reduce((32, 2048, 49), (2,), F32, mean=True),
        "reduce f32 all 4M": b.reduce((4096, 1024), (0, 1), F32),
        "rows f16 layernorm 128x768": b.layernorm((128,), 768, F16),
        "rows f16 layernorm+residual 4096x768": b.layernorm((4096,), 768, F16, residual=True),
        "rows f16 layernorm 100352x96": b.layernorm((100352,), 96, F16),
        "rows f16 softmax 1536x128": b.softmax(1536, 128, F16),
        "rows f32 softmax 1x50257": b.softmax(1, 50257, F32),
        "rows f32 softmax nchw 4x21x4096": b.softmax(4, 21, F32, inner=4096),
        "attention f16 bert 12x128x64 b1": b.attention(1, 12, 128, 128, 64, F16, layout="qkv"),
        "attention f16 bert 12x128x64 b32": b.attention(32, 12, 128, 128, 64, F16, layout="qkv"),
        "attention f16 vit 12x197x64 b1": b.attention(1, 12, 197, 197, 64, F16, layout="qkv"),
        "attention f16 vit 12x197x64 b32": b.attention(32, 12, 197, 197, 64, F16, layout="qkv"),
        "attention f16 swin 64x3x49x32": b.attention(64, 3, 49, 49, 32, F16, layout="qkv", mask="bias"),
        "attention f16 gpt2 12x1024x64": b.attention(1, 12, 1024, 1024, 64, F16, layout="qkv", mask="causal"),
        "attention f32 bert 12x128x64 b1": b.attention(1, 12, 128, 128, 64, F32, layout="qkv"),
    }


def picked(template: Template, problem: Func, gpu: Target, count: int) -> list[Config]:
    """The default, the best by cost and random others: about `count` configs, each once."""
    columns, _ = template.legal_columns(problem, gpu)
    listed = rows_of(columns)
    if not columns:
        return listed
    ranked = np.argsort(template.cost(problem, columns, gpu), kind="stable")
    seed = zlib.crc32(f"{template.name} {problem.anchor.domain.text()}".encode())
    others = np.random.default_rng(seed).permutation(len(listed))
    order = dict.fromkeys([*ranked[: max(1, count // 2)].tolist(), *others.tolist()])
    chosen = [listed[i] for i in list(order)[:count]]
    default = template.default(problem, gpu)
    return [default, *(c for c in chosen if c != default)] if default is not None else chosen


def usable(problem: Func, gpu: Target, names: list[str]) -> list[Template]:
    return [t for t, why in candidates(problem, gpu) if why is None and (not names or t.name in names)]


def check(kind: str, index: int, count: int, names: list[str]) -> list[dict[str, Any]]:
    """Checks one problem of the suite in this process."""
    from tests.codegen.cuda.problems import Checker
    from tests.codegen.cuda.suite import arrays_of, problems
    from tests.device.launcher import Launcher

    launcher = Launcher()
    gpu = target(launcher.arch)
    problem = problems()[kind][index]
    checker = Checker(problem, arrays_of(problem))
    rows: list[dict[str, Any]] = []
    for template in usable(problem, gpu, names):
        configs = picked(template, problem, gpu, count)
        worst, wrong = 0.0, []
        for config in configs:
            try:
                ratio, message = checker.worst(template, config, gpu, launcher.run), ""
            except Exception as error:
                ratio, message = float("inf"), str(error)[:300]
            worst = max(worst, ratio)
            if not ratio <= 1:
                wrong.append({"config": config, "ratio": str(ratio), "message": message})
        rows.append(
            {"kind": kind, "index": index, "domain": problem.anchor.domain.text(), "template": template.name,
             "configs": len(configs), "worst": str(worst), "wrong": wrong[:4], "count_wrong": len(wrong)}
        )  # fmt: skip
    return rows


def compile_one(name: str, template: str, configs: list[Config], arch: str) -> None:
    """Fills the cubin cache from another process."""
    from tcc.codegen.cuda.compile import CompileError, compile_cuda

    problem, gpu = shapes()[name], target(arch)
    found = next(t for t in usable(problem, gpu, [template]))
    for config in configs:
        emitted = found.emit(problem, config, gpu)
        try:
            compile_cuda(emitted.source, emitted.options.get("arch", arch))
        except CompileError as error:
            print(name, template, config, error, flush=True)


def spans(problem: Func) -> list[int]:
    """Bytes of every operand and result."""

    def span(t: TensorType) -> int:
        ends = (max(e - 1, 0) * s for e, s in zip(t.static_shape, t.element_strides, strict=True) if isinstance(s, int))
        return int(1 + sum(ends)) * t.dtype.bytes

    return [span(t) for t in (*problem.arg_types, *problem.result_types)]


def timings(count: int, names: list[str], workers: int) -> list[dict[str, Any]]:
    """Times every shape on every template."""
    from tests.device.launcher import Launcher

    launcher = Launcher()
    gpu = target(launcher.arch)
    listed = shapes()
    work = [
        (name, t, picked(t, problem, gpu, count if t.name != "cuda.naive" else 1))
        for name, problem in listed.items()
        for t in usable(problem, gpu, names)
    ]
    started = time.time()
    parts = [(n, t.name, configs[i : i + 4]) for n, t, configs in work for i in range(0, len(configs), 4)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(compile_one, *part, launcher.arch) for part in parts]):
            done.result()
    print(f"compiled {sum(len(c) for _, _, c in work)} kernels in {time.time() - started:.1f} s", flush=True)
    rows: list[dict[str, Any]] = []
    for name, template, configs in work:
        problem = listed[name]
        results: list[tuple[Config, float, float]] = []  # config, seconds, estimated seconds
        columns = {k: np.array([c[k] for c in configs]) for k in configs[0]}
        costs = template.cost(problem, columns, gpu)
        for config, cost in zip(configs, costs, strict=True):
            if cost > 5e-3:
                continue
            try:
                emitted = template.emit(problem, config, gpu)
                seconds = launcher.seconds(emitted, spans(problem), 20 if cost < 1e-3 else 2)
            except Exception as error:
                print(name, template.name, config, str(error)[:200], flush=True)
                continue
            results.append((config, seconds, float(cost)))
        if not results:
            continue
        best = min(results, key=lambda r: r[1])
        first = results[0]
        print(
            f"{name:38} {template.name:22} default {first[1] * 1e6:8.2f} (cost {first[2] * 1e6:8.2f}) "
            f"best {best[1] * 1e6:8.2f} (cost {best[2] * 1e6:8.2f}) us "
            f"{first[1] / best[1]:5.2f}x of {len(results)}: {best[0]}",
            flush=True,
        )
        rows.append(
            {"shape": name, "template": template.name,
             "results": [{"config": c, "us": round(s * 1e6, 3), "cost": round(k * 1e6, 3)} for c, s, k in results]}
        )  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=int, default=0)
    parser.add_argument("--time", type=int, default=0)
    parser.add_argument("--templates", default="")
    arguments = parser.parse_args()
    names = [n for n in arguments.templates.split(",") if n]
    workers = max(1, (os.cpu_count() or 2) - 1)
    report: dict[str, Any] = {"checks": [], "timings": []}
    if arguments.check:
        from tests.codegen.cuda.suite import problems

        started = time.time()
        # A process a problem: a kernel that faults takes its process's context with it, and no more.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            jobs = {
                pool.submit(check, kind, i, arguments.check, names): (kind, i)
                for kind, listed in problems().items()
                for i in range(len(listed))
            }
            for job in as_completed(jobs):
                report["checks"] += job.result()
        for row in report["checks"]:
            if row["count_wrong"]:
                print("WRONG", json.dumps(row)[:900], flush=True)
        total = sum(r["configs"] for r in report["checks"])
        print(f"checked {total} kernels in {time.time() - started:.1f} s", flush=True)
    if arguments.time:
        report["timings"] = timings(arguments.time, names, workers)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "templates.json").write_text(json.dumps(report))
    return 1 if any(r["count_wrong"] for r in report["checks"]) else 0


if __name__ == "__main__":
    sys.exit(main())
