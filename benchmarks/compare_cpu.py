# SPDX-License-Identifier: Apache-2.0
"""tcc against ONNX Runtime on this machine's CPU: `python -m benchmarks.compare_cpu [NAME...]`.

Each model is compiled at -O3 with a cold search (no records, an empty kernel cache), then timed against ONNX Runtime
(see `benchmarks.compare`), and the answers are compared: the error may be 1e-4 of the largest value, or three times
what ONNX Runtime's own optimiser makes of it if that is more. Writes benchmarks/results/cpu.json and cpu.md, row by
row.
"""

import argparse
from typing import Any

from benchmarks import zoo
from benchmarks.compare import ROOT, Table, Worker, cold_engine, commit, error, processor, race

WORK = ROOT / "build" / "compare"
FLOOR = 2.5  # tcc may take this many times ONNX Runtime's time


def milliseconds(key: str) -> Any:
    return lambda row: f"{row[key] * 1e3:.3f}"


COLUMNS = {
    "model": lambda row: row["model"],
    "tcc ms": milliseconds("tcc_s"),
    "ONNX Runtime ms": milliseconds("onnxruntime_s"),
    "ratio": lambda row: f"{row['tcc_s'] / row['onnxruntime_s']:.2f}",
    "error": lambda row: f"{row['error']:.1e}",
    "allowed": lambda row: f"{row['allowed']:.1e}",
    "compile s": lambda row: f"{row['compile_s']:.0f}",
    "kernels": lambda row: str(row["kernels"]),
}


def verdict(missed: list[str]) -> str:
    return "missed by " + ", ".join(missed) if missed else "met by all"


def note(rows: list[dict[str, Any]]) -> str:
    slow = [row["model"] for row in rows if row["tcc_s"] > FLOOR * row["onnxruntime_s"]]
    wrong = [row["model"] for row in rows if not row["error"] <= row["allowed"]]
    return (
        f"ratio: tcc / ONNX Runtime, at most {FLOOR} wanted, {verdict(slow)}. "
        f"error: the largest, relative to the largest value, {verdict(wrong)}."
    )


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    threads = {"TCC_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    spec = {
        "model": name, "batch": 1, "threads": options.threads, "engine": str(WORK / f"{name}.tcc"), "target": "cpu",
        "opt_level": options.opt_level, "precision": "f32", "search_seconds": options.search_seconds,
        "records": str(WORK / f"{name}.records.jsonl"),
    }  # fmt: skip
    compiled = cold_engine(spec, threads, options.keep)
    ours, peer = Worker({**spec, "contender": "tcc"}, threads), Worker({**spec, "contender": "onnxruntime"}, threads)
    tcc_s, peer_s = race([ours, peer], options.rounds)
    (mine, _), (theirs, plain) = ours.outputs(), peer.outputs()
    ours.close()
    peer.close()
    return {
        "model": name, "tcc_s": tcc_s, "onnxruntime_s": peer_s, "error": error(theirs, mine),
        "allowed": max(1e-4, 3 * error(theirs, plain)), "compile_s": compiled["seconds"],
        "kernels": compiled["kernels"], "threads": options.threads, "opt_level": options.opt_level,
        "onnxruntime": peer.ready["version"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the zoo (default: all with real weights)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--opt-level", type=int, default=3)
    parser.add_argument("--search-seconds", type=float, default=240.0, help="of the cold search, per model")
    parser.add_argument("--keep", action="store_true", help="use engines that are there from an earlier run")
    parser.add_argument("--table", default="cpu", help="the results' file name")
    parser.add_argument("--commit", help="the commit measured, where git cannot tell")
    options = parser.parse_args()
    measured = commit(options.commit)
    table = Table(options.table, "tcc and ONNX Runtime on the CPU, float32, batch 1", COLUMNS, note)
    for name in options.names or [entry.name for entry in zoo.models() if entry.kind != "stock"]:
        row = measure(name, options)
        table.add(row, f"{processor()}, {options.threads} threads", measured)
        print(" ".join(f"{heading} {show(row)}" for heading, show in COLUMNS.items()), flush=True)


if __name__ == "__main__":
    main()
