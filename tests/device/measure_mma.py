# SPDX-License-Identifier: Apache-2.0
"""Checks and times cuda.mma_gemm and cuda.mma_conv on the GPU here, beside torch's cuBLAS and cuDNN. Prints a table and
writes $OUT/mma.json.

Run as `python -m tests.device.measure_mma [SECONDS [CONFIGS [EVERY]]]`: so many configs of every so-many-th shape. Each
time is of a chain of launches in one CUDA graph; weights are other ones at each launch, over more bytes than the L2
cache holds, as in a model.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tcc.codegen.cuda.compile import CudaObject, compile_many, toolchain
from tcc.codegen.template import Config, rows_of
from tcc.ir.kernel import Func
from tcc.ir.targets import target
from tcc.ir.types import F16, F32
from tests.codegen.cuda.builders import conv, matmul
from tests.codegen.cuda.problems import Checker
from tests.codegen.cuda.test_mma import CONVS, GEMMS, arrays_of, some, template_of, tf32
from tests.device.mma_run import Loaded, on_device, seconds

VARIANTS: dict[str, tuple[str, str]] = {
    "early launch": ("  // Neighbouring blocks", "  TCC_PDL_LAUNCH();\n  // Neighbouring blocks"),
    "no prefetch": ("PREFETCH = true", "PREFETCH = false"),
    "no pdl": ("#define TCC_PDL\n", ""),
}
"""Changes to the source whose effect is measured on the best configs."""

TARGET = target("sm_90")
WORKERS = len(os.sched_getaffinity(0))
ROTATE = 160 << 20


def gemm(m: int, n: int, k: int, batch: tuple[int, ...] = (), **more: Any) -> Func:
    return matmul(batch, m, n, k, F16, bias=True, activation="none", **more)


def relu_conv(n: int, size: int, ci: int, co: int, kernel: int, stride: int = 1) -> Func:
    return conv(n, size, size, 1, ci, co, kernel, F16, stride=stride, pad=kernel // 2)


GEMM_SHAPES = [
    (128, 768, 768), (128, 2304, 768), (128, 3072, 768), (128, 768, 3072), (197, 768, 768), (197, 2304, 768),
    (197, 3072, 768), (197, 768, 3072), (3136, 384, 96), (3136, 96, 384), (784, 192, 768), (196, 384, 1536),
    (49, 3072, 768), (49, 768, 3072), (1, 1000, 2048), (4096, 768, 768), (4096, 3072, 768), (4096, 768, 3072),
    (4096, 4096, 4096),
]  # fmt: skip
CONV_SHAPES = [
    (1, 56, 64, 64, 3), (1, 28, 128, 128, 3), (1, 14, 256, 256, 3), (1, 7, 512, 512, 3), (1, 56, 64, 256, 1),
    (1, 56, 256, 64, 1), (1, 14, 1024, 256, 1), (1, 7, 512, 2048, 1), (1, 224, 3, 64, 7, 2), (32, 56, 64, 64, 3),
    (32, 14, 256, 256, 3), (32, 56, 256, 64, 1), (32, 7, 2048, 512, 1), (32, 224, 3, 64, 7, 2),
]  # fmt: skip


def compiled(jobs: list[tuple[Func, Config]]) -> list[Any]:
    """(emitted, cubin or the error) of each."""
    made = [template_of(p).emit(p, c, TARGET) for p, c in jobs]
    built = compile_many([(str(i), e.source) for i, e in enumerate(made)], TARGET.name, workers=WORKERS, cache=False)
    return list(zip(made, built, strict=True))


def run_once(loaded: Loaded, buffers: list[Any]) -> None:
    """On copies of host buffers with guard zones, whose contents then are the device's."""
    copies = [on_device(b.raw, b.raw.ctypes.data) for b in buffers]
    scratch = loaded.workspaces()
    loaded.launch([a + b.first for (_, a), b in zip(copies, buffers, strict=True)] + [s.data_ptr() for s in scratch])
    torch.cuda.synchronize()
    for (memory, _), b in zip(copies, buffers, strict=True):
        b.raw[...] = memory.cpu().numpy()


def correctness(deadline: float, result: dict[str, Any]) -> None:
    """Odd shapes and random configs against the oracle."""
    jobs: list[tuple[str, Func, Config]] = []
    for name, make in {**GEMMS, **{f"conv {k}": v for k, v in CONVS.items()}}.items():
        problem = make()
        jobs += [(name, problem, c) for c in some(problem, 4, TARGET, seed=len(name))]
    deep = matmul((), 40, 72, 520, F16, bias=True, residual=True)
    wide = conv(1, 7, 7, 1, 64, 40, 3, F16, pad=1)
    coarse = tf32(matmul((2,), 24, 40, 300, F32, bias=True))
    for name, problem in (("deep", deep), ("deep conv", wide), ("deep tf32", coarse)):
        template = template_of(problem)
        legal = [c for c in rows_of(template.legal_columns(problem, TARGET)[0]) if c["split_k"] > 1]
        rng = np.random.default_rng(3)
        jobs += [(name, problem, legal[i]) for i in rng.integers(0, len(legal), 20)]
    start = time.perf_counter()
    ready = compiled([(p, c) for _, p, c in jobs])
    result["compile_seconds"] = round(time.perf_counter() - start, 1)
    result["compiled"] = len(jobs)
    checkers: dict[int, Checker] = {}
    bad: list[Any] = []
    checked = 0
    worst = 0.0
    for (name, problem, config), (emitted, built) in zip(jobs, ready, strict=True):
        if time.perf_counter() > deadline:
            break
        if not isinstance(built, CudaObject):
            bad.append([name, config, str(built)])
            continue
        if id(problem) not in checkers:
            checkers[id(problem)] = Checker(problem, arrays_of(problem))
        loaded = Loaded(emitted, built.cubin)
        try:
            ratio = checkers[id(problem)].worst(
                template_of(problem), config, TARGET, lambda e, bufs, one=loaded: run_once(one, list(bufs))
            )
        except Exception as error:
            bad.append([name, config, f"{type(error).__name__}: {error}"])
            break
        checked += 1
        worst = max(worst, ratio)
        if not ratio <= 1:
            bad.append([name, config, ratio])
        loaded.close()
    result["correctness"] = {"checked": checked, "of": len(jobs), "worst": worst, "bad": bad}
    print(f"checked {checked} of {len(jobs)}, worst {worst:.3f}, bad {len(bad)}", flush=True)
    for row in bad[:12]:
        print("BAD", row, flush=True)


def choose(problem: Func, count: int, seed: int = 1) -> list[tuple[Config, float]]:
    """The best by the cost model, and random ones not much worse; with their estimates."""
    template = template_of(problem)
    columns, _ = template.legal_columns(problem, TARGET)
    cost = template.cost(problem, columns, TARGET)
    order = np.argsort(cost, kind="stable")
    near = order[: int(np.searchsorted(cost[order], 3 * cost[order[0]]))]
    rng = np.random.default_rng(seed)
    picks = [*order[: count // 4], *rng.permutation(near)[: count - count // 4]]
    rows = rows_of({k: v[list(dict.fromkeys(picks))] for k, v in columns.items()})
    return [(c, float(cost[i])) for c, i in zip(rows, dict.fromkeys(picks), strict=True)]


class Case:
    """A shape with its data on the device, torch's time, and its reference result."""

    def __init__(self, name: str, problem: Func, flops: float, inputs: Callable[[], list[torch.Tensor]], peer: Any):
        self.name, self.problem, self.flops = name, problem, flops
        x, w, *rest = inputs()
        self.sets = max(1, min(64, -(-ROTATE // max(1, w.nbytes))))
        self.x, self.rest = x, rest
        self.weights = [w] + [torch.empty_like(w).copy_(w) for _ in range(self.sets - 1)]
        self.peer = peer
        self.repeats = max(1, -(-96 // self.sets))

    def torch_seconds(self) -> float:
        return seconds([lambda w=w: self.peer(self.x, w, *self.rest) for w in self.weights] * self.repeats)

    def measure(self, config: Config, emitted: Any, built: CudaObject, reference: torch.Tensor) -> dict[str, Any]:
        packings = template_of(self.problem).pack(self.problem, config, TARGET)
        loaded = Loaded(emitted, built.cubin)
        (shape,) = (t.static_shape for t in self.problem.result_types)
        out = torch.full(shape, float("nan"), dtype=torch.float16, device="cuda")
        held = loaded.workspaces()
        scratch = [s.data_ptr() for s in held]
        weights = self.weights
        if packings:
            (p,) = packings
            source = weights[0].reshape(weights[0].shape[0], -1)
            padded = torch.zeros(p.shape, dtype=source.dtype, device="cuda")
            padded[:, : source.shape[1]] = source
            weights = [padded.clone() for _ in weights]
        extra = [r.data_ptr() for r in self.rest]

        def one(w: torch.Tensor) -> None:
            loaded.launch([self.x.data_ptr(), w.data_ptr(), *extra, out.data_ptr(), *scratch])

        row: dict[str, Any] = {"config": config}
        row["us"] = round(1e6 * seconds([lambda w=w: one(w) for w in weights] * self.repeats), 3)
        error = ((out.float() - reference).abs() / (1 + reference.abs())).max().item()
        row["error"] = error
        resources = next(iter(built.resources.values()))
        row["registers"], row["spills"] = resources.registers, resources.stack
        loaded.close()
        return row


def gemm_case(m: int, n: int, k: int) -> Case:
    def inputs() -> list[torch.Tensor]:
        g = torch.Generator("cuda").manual_seed(0)
        make = lambda *s, scale=1.0: (torch.randn(*s, device="cuda", generator=g) * scale).half()  # noqa: E731
        return [make(m, k), make(k, n, scale=k**-0.5), make(n)]

    return Case(
        f"gemm {m}x{n}x{k}", gemm(m, n, k), 2.0 * m * n * k, inputs, lambda x, w, b: torch.addmm(b, x, w)
    )  # fmt: skip


def conv_case(n: int, size: int, ci: int, co: int, kernel: int, stride: int = 1) -> Case:
    out = (size + 2 * (kernel // 2) - kernel) // stride + 1

    def inputs() -> list[torch.Tensor]:
        g = torch.Generator("cuda").manual_seed(0)
        make = lambda *s, scale=1.0: (torch.randn(*s, device="cuda", generator=g) * scale).half()  # noqa: E731
        return [make(n, size, size, ci), make(co, kernel, kernel, ci, scale=(ci * kernel**2) ** -0.5), make(co)]

    def peer(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), None, stride, kernel // 2)

    name = f"conv {n}x{size}x{size}x{ci} -> {co}, {kernel}x{kernel} s{stride}"
    return Case(
        name, relu_conv(n, size, ci, co, kernel, stride), 2.0 * n * out * out * co * ci * kernel**2, inputs, peer
    )  # fmt: skip


def reference_of(case: Case) -> torch.Tensor:
    x, w = case.x.float(), case.weights[0].float()
    if case.name.startswith("gemm"):
        return x @ w + case.rest[0].float()
    strides = 2 if case.name.endswith("s2") else 1
    pad = w.shape[1] // 2
    y = F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), case.rest[0].float(), strides, pad)
    return y.relu().permute(0, 2, 3, 1)


def best_of(rows: list[dict[str, Any]], count: int = 1) -> list[dict[str, Any]]:
    return sorted((r for r in rows if "us" in r), key=lambda r: r["us"])[:count]


def timings(deadline: float, result: dict[str, Any], count: int, every: int) -> None:
    """Every `every`-th shape: `count` configs, and the variants of the two best."""
    shapes: list[Any] = [(gemm, gemm_case, s) for s in GEMM_SHAPES] + [(relu_conv, conv_case, s) for s in CONV_SHAPES]
    shapes = shapes[every // 2 :: every]
    problems = [make(*s) for make, _, s in shapes]
    chosen = [choose(p, count) for p in problems]
    start = time.perf_counter()
    ready = iter(compiled([(p, c) for p, configs in zip(problems, chosen, strict=True) for c, _ in configs]))
    print(f"compiled {sum(map(len, chosen))} in {time.perf_counter() - start:.1f} s", flush=True)
    cases: list[tuple[Case, torch.Tensor, dict[str, Any]]] = []
    for (_, make, shape), configs in zip(shapes, chosen, strict=True):
        mine = [next(ready) for _ in configs]
        if time.perf_counter() > deadline:
            continue
        case = make(*shape)
        reference = reference_of(case)
        peer = 1e6 * case.torch_seconds()
        rows: list[dict[str, Any]] = []
        for (config, estimate), (emitted, built) in zip(configs, mine, strict=True):
            if not isinstance(built, CudaObject):
                rows.append({"config": config, "error": str(built)})
                continue
            rows.append({**case.measure(config, emitted, built, reference), "estimate": round(1e6 * estimate, 3)})
        wrong = [r for r in rows if not (isinstance(r["error"], float) and r["error"] < 0.02)]
        (best,) = best_of(rows)
        entry = {
            "name": case.name, "torch_us": round(peer, 3), "best_us": best["us"], "default_us": rows[0].get("us"),
            "tflops": round(case.flops / best["us"] * 1e-6, 1), "wrong": len(wrong), "rows": rows, "variants": [],
        }  # fmt: skip
        result["timings"].append(entry)
        print(
            f"{case.name:40s} torch {peer:8.2f}  default {rows[0].get('us', 0):8.2f}  best {best['us']:8.2f} us "
            f"{entry['tflops']:6.1f} TF  wrong {len(wrong)}  {list(best['config'].values())} est {best['estimate']}",
            flush=True,
        )
        cases.append((case, reference, entry))
    if time.perf_counter() < deadline:
        variants(cases)


def variants(cases: list[tuple[Case, torch.Tensor, dict[str, Any]]]) -> None:
    """What the changes in VARIANTS do to the best config, and a workspace in place of clusters to the best split."""
    jobs: list[Any] = []
    for case, reference, entry in cases:
        split = [r for r in entry["rows"] if r["config"]["split_k"] > 1]
        for row in best_of(split):
            plain = replace(TARGET, features=TARGET.features - {"cluster"})
            emitted = template_of(case.problem).emit(case.problem, row["config"], plain)
            jobs.append((case, reference, entry, row, "workspace", emitted))
        for row in best_of(entry["rows"]):
            emitted = template_of(case.problem).emit(case.problem, row["config"], TARGET)
            for name, (old, new) in VARIANTS.items():
                if old in emitted.source:
                    launches = tuple(replace(one, pdl=one.pdl and name != "no pdl") for one in emitted.launches)
                    changed = replace(emitted, source=emitted.source.replace(old, new), launches=launches)
                    jobs.append((case, reference, entry, row, name, changed))
    sources = [(str(i), job[-1].source) for i, job in enumerate(jobs)]
    built = compile_many(sources, TARGET.name, workers=WORKERS, cache=False)
    for (case, reference, entry, row, name, changed), cubin in zip(jobs, built, strict=True):
        assert isinstance(cubin, CudaObject)
        got = case.measure(row["config"], changed, cubin, reference)
        entry["variants"].append({"config": row["config"], "us": row["us"], "variant": name, "variant_us": got["us"]})
        config = list(row["config"].values())
        print(f"{case.name:40s} {row['us']:8.2f} {name:14s} {got['us']:8.2f}  {config}", flush=True)


def main() -> None:
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    every = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    begin = time.perf_counter()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__, "toolchain": toolchain(), "timings": []
    }  # fmt: skip
    try:
        correctness(begin + limit * 0.4, result)
        timings(begin + limit, result, count, every)
    finally:
        out = Path(os.environ.get("OUT", ".")) / "mma.json"
        temporary = out.with_suffix(".part")
        temporary.write_text(json.dumps(result) + "\n")
        os.replace(temporary, out)


if __name__ == "__main__":
    main()
