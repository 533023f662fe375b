# SPDX-License-Identifier: Apache-2.0
"""tcc against PyTorch on an NVIDIA GPU: `python -m benchmarks.compare_gpu [NAME...]`.

The rival is the same network with the same weights in eager float16, captured in a CUDA graph. Each model is compiled
at -O3 in float16 with a cold search, timed on the device (see `benchmarks.compare`; CUDA events, back to back), and
both answers are compared with PyTorch's float32 one: tcc's error may be twice PyTorch's. Writes
benchmarks/results/gpu.json and gpu.md, row by row. Needs torch, timm and transformers, which tcc itself does not.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import zoo
from benchmarks.compare import ROOT, Table, Worker, cold_engine, commit, error, race
from benchmarks.compare_cpu import milliseconds, verdict

WORK = ROOT / "build" / "compare"
FLOOR = 2.0  # tcc may take this many times PyTorch's time
ERROR = 2.0  # and be off by this many times PyTorch's float16 error

COLUMNS = {
    "model": lambda row: row["model"],
    "tcc ms": milliseconds("tcc_s"),
    "torch ms": milliseconds("torch_s"),
    "ratio": lambda row: f"{row['tcc_s'] / row['torch_s']:.2f}",
    "tcc error": lambda row: f"{row['error']:.1e}",
    "torch error": lambda row: f"{row['torch_error']:.1e}",
    "compile s": lambda row: f"{row['compile_s']:.0f}",
    "kernels": lambda row: str(row["kernels"]),
}


def note(rows: list[dict[str, Any]]) -> str:
    slow = [row["model"] for row in rows if row["tcc_s"] > FLOOR * row["torch_s"]]
    wrong = [row["model"] for row in rows if not row["error"] <= ERROR * row["torch_error"]]
    return (
        f"ratio: tcc / torch eager in a CUDA graph, at most {FLOOR} wanted, {verdict(slow)}. error: the largest "
        f"against float32, relative to the largest value, at most {ERROR} times torch's wanted, {verdict(wrong)}."
    )


def prepare(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What describes a model's contenders, and the facts of its compilation."""
    stem = WORK / f"{name}.b{options.batch}.gpu"
    spec = {
        "model": name, "batch": options.batch, "engine": f"{stem}.tcc", "target": "native", "precision": "f16",
        "opt_level": options.opt_level, "search_seconds": options.search_seconds, "records": f"{stem}.records.jsonl",
    }  # fmt: skip
    return spec, cold_engine(spec, {}, options.keep)


def rivals(spec: dict[str, Any]) -> tuple[Worker, Worker]:
    """Both contenders, built and asleep."""
    return Worker({**spec, "contender": "tcc-gpu"}), Worker({**spec, "contender": "torch"})


def measure(
    spec: dict[str, Any], compiled: dict[str, Any], ours: Worker, peer: Worker, options: argparse.Namespace
) -> tuple[dict[str, Any], str]:
    """One row of the table, and the device's name."""
    tcc_s, torch_s = race([ours, peer], options.rounds)
    (mine, _), (half, exact) = ours.outputs(), peer.outputs()
    ours.close()
    peer.close()
    name = spec["model"]
    row = {
        "model": name if options.batch == 1 else f"{name}, batch {options.batch}", "tcc_s": tcc_s, "torch_s": torch_s,
        "error": error(exact, mine), "torch_error": error(exact, half), "compile_s": compiled["seconds"],
        "kernels": compiled["kernels"], "batch": options.batch, "opt_level": options.opt_level,
        "torch": peer.ready["version"],
    }  # fmt: skip
    return row, peer.ready["device"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: the four of the main list)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--search-seconds", type=float, default=240.0, help="of the cold search, per model")
    parser.add_argument("--together", type=int, default=1, help="models compiled, and made ready, at the same time")
    parser.add_argument("--keep", action="store_true", help="use engines that are there from an earlier run")
    parser.add_argument("--table", default="gpu", help="the results' file name")
    parser.add_argument("--commit", help="the commit measured, where git cannot tell")
    options = parser.parse_args()
    measured = commit(options.commit)
    table = Table(options.table, "tcc and PyTorch (eager, CUDA graph) on an NVIDIA GPU, float16", COLUMNS, note)
    with ThreadPoolExecutor(options.together) as pool:
        prepared = list(pool.map(lambda name: prepare(name, options), options.names or zoo.EXPORTED))
        contenders = list(pool.map(lambda one: rivals(one[0]), prepared))
    for (spec, compiled), (ours, peer) in zip(prepared, contenders, strict=True):
        row, device = measure(spec, compiled, ours, peer, options)
        table.add(row, device, measured)
        print(" ".join(f"{heading} {show(row)}" for heading, show in COLUMNS.items()), flush=True)


if __name__ == "__main__":
    main()
