# SPDX-License-Identifier: Apache-2.0
"""`tcc-bench`: the latency of an engine or a model, and where it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.compiler.cli.common import ArgumentParser, print_table, run
from tcc.errors import InputError

PERCENTILES = (50, 90, 99)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `tcc-bench`."""
    return run("tcc-bench", _main, argv)


def measure(call: Any, seconds: float, warmup: int) -> list[float]:
    """Seconds of each call, for about `seconds` of wall time and at least 10 calls."""
    for _ in range(warmup):
        call()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < 10 or time.perf_counter() < end:
        begun = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begun)
    return samples


def _main(argv: Sequence[str]) -> int:
    from tcc.compiler.cli.run import add_engine_options, gather_inputs, open_engine

    p = ArgumentParser(prog="tcc-bench", description="Time an engine, or a model compiled for the purpose.")
    add_engine_options(p)
    p.add_argument("--seconds", type=float, default=3.0, help="how long to measure (default: 3)")
    p.add_argument("--warmup", type=int, default=5, help="calls before measuring (default: 5)")
    p.add_argument("--no-profile", action="store_true", help="leave out the table of kernels")
    p.add_argument("--top", type=int, default=20, help="rows of the table of kernels (default: 20)")
    args = p.parse_args(argv)
    if not 0 < args.seconds < float("inf") or args.warmup < 0 or args.top < 1:
        raise InputError("--seconds must be above 0, --warmup at least 0 and --top at least 1")
    engine = open_engine(args)
    inputs = gather_inputs(engine, args.input, args.seed)
    bound = engine.bind(inputs)
    samples = measure(bound, args.seconds, args.warmup)
    latency = {f"p{q}": float(np.percentile(samples, q)) for q in PERCENTILES}
    latency |= {"min": min(samples), "mean": float(np.mean(samples)), "calls": len(samples)}
    rows = [] if args.no_profile else _profile(engine, inputs)
    if args.json:
        print(json.dumps({"latency": latency, "kernels": rows}, ensure_ascii=False))
        return 0
    shown = [(k, f"{v * 1e3:.3f} ms") for k, v in latency.items() if k != "calls"]
    print_table(["latency", f"of {latency['calls']} calls"], shown)
    if rows:
        total = sum(r["seconds"] for r in rows)
        print_table(
            ["µs", "share", "template", "config", "nodes"],
            [
                (
                    round(r["seconds"] * 1e6, 1), f"{100 * r['seconds'] / total:.1f}%", r["template"],
                    " ".join(f"{k}={v}" for k, v in r["config"].items()), _short(r["loc"]),
                )
                for r in sorted(rows, key=lambda r: -r["seconds"])[: args.top]
            ],
            title=f"{len(rows)} launches, {total * 1e3:.3f} ms in all",
        )  # fmt: skip
    return 0


def _profile(engine: Any, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    kernels = engine.kernels
    rows: list[dict[str, Any]] = []
    for t in engine.profile(inputs):
        about = kernels.get(t.name, {})
        rows.append({
            "kernel": t.name, "seconds": t.seconds, "loc": list(t.loc), "template": about.get("template", t.name),
            "config": about.get("config", {}),
        })  # fmt: skip
    return rows


def _short(loc: Sequence[str]) -> str:
    return ", ".join(loc[:2]) + (f" and {len(loc) - 2} more" if len(loc) > 2 else "")
