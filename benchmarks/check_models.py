# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo, compiled and compared with float32 references:
`python -m benchmarks.check_models [NAME...] --target T --precision P`.

The bars. f32: the largest error is at most 1e-4 of the largest value of ONNX Runtime's answer, or three times what
its own optimiser makes of it. f16: for networks that PyTorch has (and a GPU is at hand), at most twice PyTorch's own
float16 error against float32; for the others the 99.9th percentile of the error is at most 2e-2 of the largest value
and the decision is the same (the best class of each row; for text detection the mask at 0.3 overlaps by 0.99). Stock
models must load, run and give finite numbers. Writes benchmarks/results/check-TABLE.json and .md, row by row; the
status is 1 if a bar is missed.
"""

import argparse
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import zoo
from benchmarks.compare import ROOT, Table, Worker, cold_engine, commit, error, processor

WORK = ROOT / "build" / "check"
Outputs = dict[str, np.ndarray]

COLUMNS = {
    "model": lambda row: row["model"],
    "error": lambda row: f"{row['error']:.1e}",
    "99.9%": lambda row: f"{row['percentile']:.1e}",
    "allowed": lambda row: row["bar"],
    "decision": lambda row: row["decision"],
    "holds": lambda row: "yes" if row["holds"] else "**no**",
    "kernels": lambda row: str(row["kernels"]),
    "compile s": lambda row: f"{row['compile_s']:.0f}",
}


def note(rows: list[dict[str, Any]]) -> str:
    held = sum(row["holds"] for row in rows)
    return f"{held} of {len(rows)} hold. Errors are relative to the largest value of an output."


def percentile(reference: Outputs, got: Outputs) -> float:
    """The 99.9th percentile of the error, relative to the largest value, of the worst output."""
    worst = 0.0
    for name, wanted in reference.items():
        off = np.abs(wanted.astype(np.float64) - got[name].astype(np.float64))
        worst = max(worst, float(np.quantile(off, 0.999)) / (float(np.abs(wanted).max()) or 1.0))
    return worst


def decision(name: str, reference: Outputs, got: Outputs) -> tuple[bool, str]:
    """Whether the answers decide alike, and in words how far; features (BERT's) decide nothing."""
    if name.startswith("bert"):
        return True, "-"
    first = next(iter(reference))
    wanted, given = reference[first], got[first]
    if name.startswith("ppocr_det"):
        one, other = wanted > 0.3, given > 0.3
        overlap = float((one & other).sum() / max(1, (one | other).sum()))
        return overlap >= 0.99, f"IoU {overlap:.4f}"
    classes = next((axis for axis in range(1, wanted.ndim) if wanted.shape[axis] > 1), -1) if wanted.ndim == 4 else -1
    same = float((wanted.argmax(classes) == given.argmax(classes)).mean())
    return same == 1.0, f"{same:.1%} alike"


def check(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    spec = {
        "model": name, "batch": 1, "threads": options.threads, "engine": str(WORK / f"{name}.{options.table}.tcc"),
        "target": options.target, "opt_level": options.opt_level, "precision": options.precision,
        "accuracy": options.accuracy, "search_seconds": options.search_seconds,
        "records": str(WORK / f"{name}.{options.table}.records.jsonl"),
    }  # fmt: skip
    compiled = cold_engine(spec, {}, options.keep)
    ours, peer = Worker({**spec, "contender": "tcc"}), Worker({**spec, "contender": "onnxruntime"})
    (mine, _), (reference, plain) = ours.outputs(), peer.outputs()
    ours.close()
    peer.close()
    off, far = error(reference, mine), percentile(reference, mine)
    alike, words = decision(name, reference, mine)
    if zoo.model(name).kind == "stock":
        # Every class scores the same but for rounding, so there is no decision to compare.
        holds, bar, words = bool(np.isfinite(off)), "finite", "-"
    elif options.precision == "f32":
        allowed = max(1e-4, 3 * error(reference, plain))
        holds, bar = off <= allowed, f"error {allowed:.1e}"
    elif zoo.model(name).torch and options.torch:
        rival = Worker({**spec, "contender": "torch"})
        half, exact = rival.outputs()
        rival.close()
        off, theirs = error(exact, mine), error(exact, half)
        holds, bar = off <= 2 * theirs, f"error {2 * theirs:.1e}"
    else:
        holds, bar = far <= 2e-2 and alike, "99.9% 2e-2, decision"
    return {
        "model": name, "error": off, "percentile": far, "bar": bar, "decision": words, "holds": holds,
        "kernels": compiled["kernels"], "compile_s": compiled["seconds"], "target": options.target,
        "precision": options.precision, "accuracy": options.accuracy, "opt_level": options.opt_level,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the zoo (default: the main list)")
    parser.add_argument("--target", default="native")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--accuracy", type=float, help="keep nodes in f32 until the inputs' error is at most this")
    parser.add_argument("--opt-level", type=int, default=1)
    parser.add_argument("--search-seconds", type=float, default=60.0, help="of the search, per model, from level 2 on")
    parser.add_argument("--processes", type=int, default=1, help="models checked at the same time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="use engines that are there from an earlier run")
    parser.add_argument("--table", help="the results' file name (default: check-TARGET-PRECISION)")
    parser.add_argument("--machine", help="the machine's name in the table (default: its processor)")
    parser.add_argument("--commit", help="the commit measured, where git cannot tell")
    options = parser.parse_args()
    options.table = options.table or f"check-{options.target}-{options.precision}"
    options.torch = importlib.util.find_spec("torch") is not None
    measured = commit(options.commit)
    title = f"The models' answers at -O{options.opt_level}: target {options.target}, {options.precision}"
    table = Table(options.table, title, COLUMNS, note)
    failed = []
    names = options.names or [entry.name for entry in zoo.models()]
    with ThreadPoolExecutor(options.processes) as pool:  # a check waits for processes of its own
        for name, job in [(name, pool.submit(check, name, options)) for name in names]:
            try:
                row = job.result()
            except (RuntimeError, KeyError) as problem:
                print(f"{name}: {problem}", file=sys.stderr, flush=True)
                failed.append(name)
                continue
            table.add(row, options.machine or processor(), measured)
            print(" ".join(f"{heading} {show(row)}" for heading, show in COLUMNS.items()), flush=True)
            failed += [] if row["holds"] else [name]
    sys.exit(f"{len(failed)} do not hold: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
