# SPDX-License-Identifier: Apache-2.0
"""`make demo`: compiles the pretrained text recogniser of PP-OCRv4, reads a picture with it beside ONNX Runtime, and
shows what was chosen and where to look."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks import answers, zoo
from tcc.compiler.cli.common import print_table
from tcc.compiler.driver import compile_model
from tcc.compiler.engine_writer import write
from tcc.compiler.options import Options
from tcc.ir.rewriter import Decision, Decisions
from tcc.passes.dump import Dump
from tcc.passes.manager import PassManager
from tcc.runtime import load

MODEL = "ppocr_rec"


def median_ms(call: Callable[[], object]) -> float:
    """The median time of a call in milliseconds: 9 calls after a rest, the first 3 left out, 5 times over."""
    kept: list[float] = []
    for _ in range(5):
        time.sleep(0.05)
        samples: list[float] = []
        for _ in range(9):
            begun = time.perf_counter()
            call()
            samples.append(time.perf_counter() - begun)
        kept += samples[3:]
    return statistics.median(kept) * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="native")
    parser.add_argument("--search-seconds", type=float, default=60.0)
    parser.add_argument("--dump-dir", type=Path, default=Path("build/demo"))
    args = parser.parse_args()

    lines = [zoo.inputs(MODEL, n) for n in range(len(zoo.LINES))]
    shapes = {name: array.shape for name, array in lines[0].items()}
    options = Options(target=args.target, opt_level=3, shapes=shapes, search_seconds=args.search_seconds)
    print(f"Compiling {zoo.model(MODEL).file().name} at -O3 for {args.target} (search: {args.search_seconds:g} s) ...")
    decisions = Decisions()
    begun = time.perf_counter()
    content = compile_model(zoo.model(MODEL).file(), options, PassManager([Dump(args.dump_dir)]), decisions)
    path = args.dump_dir / "ppocr_rec.tcc"
    write(content, path)
    print(f"  {path}: {path.stat().st_size / 2**20:.1f} MiB in {time.perf_counter() - begun:.1f} s\n")
    engine = load(path)

    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    session = ort.InferenceSession(zoo.load(MODEL).SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    rows: list[tuple[Any, ...]] = []
    wrong = 0
    for number, given in enumerate(lines):
        mine = next(iter(engine(given).values()))
        theirs = np.asarray(session.run(None, given)[0])
        (said, sure), (ort_said, ort_sure) = answers.text(np.asarray(mine)), answers.text(theirs)
        wrong += said != ort_said
        error = float(np.abs(np.asarray(mine) - theirs).max())
        rows.append((zoo.LINES[number][1], said, f"{sure:.3f}", ort_said, f"{ort_sure:.3f}", f"{error:.1e}"))
    print_table(["written", "tcc reads", "sure", "ONNX Runtime reads", "sure", "largest difference"], rows)

    bound = engine.bind(lines[0])
    print(f"\nLatency of one line (median): tcc {median_ms(bound):.2f} ms on {content.target['name']}, ", end="")
    print(f"ONNX Runtime {median_ms(lambda: session.run(None, lines[0])):.2f} ms on the CPU\n")
    print_table(["kernel", "template", "config", "candidates", "nodes"], kernel_rows(content.kernels, decisions.rows))
    print(f"\nEvery level of the compilation is in {args.dump_dir}/: numbered IR files, remarks.jsonl, timing.json")
    if wrong:
        print(f"tcc and ONNX Runtime read {wrong} of {len(lines)} lines differently", file=sys.stderr)
    return 1 if wrong else 0


def kernel_rows(kernels: dict[str, dict[str, Any]], decisions: list[Decision]) -> list[tuple[Any, ...]]:
    """A row a kernel: what was chosen, and from how many candidates."""
    tactics = {loc: row for row in decisions if row.kind == "tactic" for loc in row.loc}
    out: list[tuple[Any, ...]] = []
    for key, about in kernels.items():
        found = tactics.get(about["loc"][0]) if about["loc"] else None
        count = 1 + sum(s is not None for _, _, s in found.alternatives) if found is not None else 1
        config = " ".join(f"{k}={v}" for k, v in about["config"].items())
        more = f" +{len(about['loc']) - 1}" if len(about["loc"]) > 1 else ""
        out.append((key[:8], about["template"], config, count, (about["loc"] or [""])[0] + more))
    return out


if __name__ == "__main__":
    sys.exit(main())
