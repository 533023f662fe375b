# SPDX-License-Identifier: Apache-2.0
"""All that only a GPU can answer, in one run: `python -m benchmarks.gpu_suite --device NAME --commit HASH [STEP...]`.

The steps run side by side, since none of them is about time: the tests in `tests/device`, whole models with random
legal configs (20 seeds each), the models' answers in f32 and f16, ONNX's backend suite and 500 random graphs, each by
its own command, whose results go where it puts them. Prints each step's status and last lines; the status is 1 if one
failed. What is timed is `benchmarks.compare_gpu`, alone.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHOWN = 12
"""Lines of a step's output that are shown at the end."""


def commands(device: str, commit: str, table: str) -> dict[str, list[str]]:
    """The command of each step."""
    stamp = ["--commit", commit]
    seeds = ["benchmarks.random_configs", "--seeds", "20", "--precision", "f16", "--device", device, *stamp]
    answers = ["benchmarks.check_models", "--processes", "4", "--machine", device, *stamp]
    return {
        "tests": ["pytest", "-q", "-p", "no:cacheprovider", "tests/device"],
        "random-resnet50": [*seeds, "--table", f"{table}-resnet50", "resnet50"],
        "random-bert": [*seeds, "--table", f"{table}-bert", "bert_base"],
        "answers-f32": [*answers, "--precision", "f32", "--table", f"check-{table}-f32"],
        "answers-f16": [*answers, "--precision", "f16", "--accuracy", "0.01", "--table", f"check-{table}-f16"],
        "conformance": ["tests.conformance.report", "--device", "CUDA", "--processes", "4", "--short"],
        "random-graphs": [
            "tests.random_graphs", "--count", "500", "--target", "native", "--processes", "4", "--device", device,
            "--table", table, *stamp,
        ],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="default: all")
    parser.add_argument("--device", required=True, help="the GPU's name in the results")
    parser.add_argument("--commit", required=True)
    parser.add_argument("--table", default="h100", help="a part of the results' file names")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which what still runs is ended")
    options = parser.parse_args()
    known = commands(options.device, options.commit, options.table)
    unknown = [s for s in options.steps if s not in known]
    if unknown:
        parser.error(f"there is no step {unknown[0]}; the steps are {', '.join(known)}")
    begun = time.monotonic()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        for step in options.steps or known:
            log = Path(folder) / step
            with open(log, "wb") as out:
                job = subprocess.Popen([sys.executable, "-m", *known[step]], stdout=out, stderr=subprocess.STDOUT)
            running[step] = job, log
        for step, (job, log) in running.items():
            try:
                status: int | str = job.wait(max(0.0, begun + options.minutes * 60 - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()
                status = "ended after its time"
            failed += status != 0
            tail = log.read_text(errors="replace").splitlines()[-SHOWN:]
            print(f"== {step}: {status}", *tail, sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
