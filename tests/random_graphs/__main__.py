# SPDX-License-Identifier: Apache-2.0
"""Random graphs through the compiler, against ONNX Runtime:

python -m tests.random_graphs --count 2000 --seed S [--target cpu|native|sm_90] [--processes 2] [--table cpu]

The graphs are those of the seeds S, S + 1, …, so `--count 1 --seed N` repeats one; --save writes it as a model with its
inputs. What fails is printed with the smallest part that still fails. With --table NAME the result is written to
benchmarks/results/random-graphs-NAME.json, every hundred graphs. The status is 1 if a graph gives wrong results, is
refused or crashes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.compare import RESULTS, commit, processor
from tests.random_graphs import Model, seeded
from tests.random_graphs.check import LEVELS, Outcome, check
from tests.random_graphs.evaluate import attributes
from tests.random_graphs.pool import isolated, outcomes
from tests.random_graphs.shrink import shrunk

BAD = ("wrong", "refused", "crash")


def operators(graph: onnx.GraphProto) -> Counter[str]:
    """How many nodes of each operator a graph and its bodies hold."""
    found = Counter(n.op_type for n in graph.node)
    for n in graph.node:
        for value in attributes(n).values():
            if isinstance(value, onnx.GraphProto):
                found += operators(value)
    return found


def smallest(model: Model, outcome: Outcome, job: Callable[[Model], Callable[..., Outcome]]) -> tuple[Model, Outcome]:
    """The smallest part of a model that fails in the same way, and how it does."""
    stage = outcome.message.split(":")[0]

    def tried(part: Model) -> Outcome:
        return isolated(job(part), outcome.seed)

    def fails(part: Model) -> bool:
        found = tried(part)
        return (found.verdict, found.message.split(":")[0]) == (outcome.verdict, stage)

    part = shrunk(model, fails)
    return part, tried(part)


def save(model: Model, seed: int, folder: Path) -> None:
    """Write seed.onnx and seed.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model.proto, folder / f"{seed}.onnx")
    np.savez(folder / f"{seed}.npz", **dict(model.inputs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--size", type=int, default=14, help="about the most nodes of a graph")
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS), help="the -O levels to compare")
    parser.add_argument("--whole", action="store_true", help="do not look for the smallest part of what fails")
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help="write the models that fail (and --count 1's) there"
    )
    parser.add_argument("--table", help="write the results to benchmarks/results/random-graphs-TABLE.json")
    parser.add_argument("--device", help="the name of the device, where it is no CPU")
    parser.add_argument("--commit")
    options = parser.parse_args()

    def job(model: Model | None = None) -> Callable[..., Outcome]:
        def run(seed: int, stage: Callable[[str], object]) -> Outcome:
            tested = seeded(seed, options.size) if model is None else model
            return check(tested, seed, options.target, options.levels, stage)

        return run

    found: list[Outcome] = []
    used: Counter[str] = Counter()
    facts: dict[str, Any] = {}
    begun = time.perf_counter()
    seeds = range(options.seed, options.seed + options.count)
    for o in outcomes(job(), seeds, options.processes):
        found.append(o)
        model = seeded(o.seed, options.size)
        used += operators(model.proto.graph)
        if o.verdict != "pass":
            print(f"seed {o.seed}: {o.verdict}: {o.message}", flush=True)
        if o.verdict in BAD:
            part, how = (model, o) if options.whole else smallest(model, o, job)
            print(onnx.printer.to_text(part.proto)[:4000], how.message, sep="\n", flush=True)
            if options.save:
                save(part, o.seed, options.save)
        elif options.save and options.count == 1:
            save(model, o.seed, options.save)
        if len(found) % 100 == 0 or len(found) == options.count:
            print(f"{len(found)} of {options.count}: {dict(Counter(f.verdict for f in found))}", flush=True)
            facts = summary(found, used, options, time.perf_counter() - begun)
            if options.table:
                (RESULTS / f"random-graphs-{options.table}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({k: v for k, v in facts.items() if k not in ("operators", "disputes")}, indent=1))
    return 1 if any(o.verdict in BAD for o in found) else 0


def summary(found: list[Outcome], used: Counter[str], options: Any, seconds: float) -> dict[str, Any]:
    """What a run found, as the result file has it."""
    verdicts = Counter(o.verdict for o in found)
    return {
        "device": options.device or processor(), "target": options.target, "commit": commit(options.commit),
        "date": datetime.date.today().isoformat(), "first_seed": options.seed, "count": len(found),
        "levels": options.levels, "size": options.size, "seconds": round(seconds),
        "versions": {"onnx": onnx.__version__, "onnxruntime": ort.__version__},
        "pass": verdicts["pass"], "wrong": verdicts["wrong"], "refused": verdicts["refused"],
        "crash": verdicts["crash"], "not_run": verdicts["invalid"],
        "compared_with": dict(Counter(o.by for o in found if o.by)),
        "undetermined_share": round(float(np.mean([o.loose for o in found if o.verdict == "pass"] or [0])), 4),
        "failures": [{"seed": o.seed, "verdict": o.verdict, "message": o.message} for o in found if o.verdict in BAD],
        "no_oracle": [{"seed": o.seed, "message": o.message[:200]} for o in found if o.verdict == "invalid"],
        "disputes": [{"seed": o.seed, "onnxruntime_differs": o.disputes} for o in found if o.disputes],
        "operators": dict(sorted(used.items())),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
