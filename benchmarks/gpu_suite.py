# SPDX-License-Identifier: Apache-2.0
"""All that only a GPU can answer, in one run: `python -m benchmarks.gpu_suite --device NAME --commit HASH [STEP...]`.

The steps run side by side, since none of them is about time: the tests in `tests/device`; the tests of whole models,
control flow, host ops and the like with the GPU as their target; whole models with random legal configs (20 seeds
each); the models' answers in f32 and f16; ONNX's backend suite; and 500 random graphs. Each
runs by its own command, whose results go where it puts them. Prints each step's status, seconds and last lines; the
status is 1 if one failed. What is timed is `benchmarks.compare_gpu`, alone.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import zoo

SHOWN = 12
"""Lines of a step's output that are shown at the end."""
MODELS = ["tests/models", "tests/compiler", "tests/host"]
"""Tests that run engines on the target that TCC_TEST_TARGET names."""


def commands(device: str, commit: str, table: str, graphs: int, seed: int) -> dict[str, list[str]]:
    """The command of each step; `graphs` random ones, from `seed` on."""
    stamp = ["--commit", commit]
    seeds = ["benchmarks.random_configs", "--seeds", "20", "--device", device, *stamp]
    answers = ["benchmarks.check_models", "--processes", "4", "--machine", device, *stamp]
    # The stock files' numbers grow beyond float16, since all their weights are equal.
    narrow = [m.name for m in zoo.models() if m.kind != "stock"]
    quiet = ["pytest", "-q", "-p", "no:cacheprovider"]
    return {
        "tests": [*quiet, "tests/device"],
        "models": [*quiet, "-n", "6", "--maxprocesses", "6", *MODELS],
        "random-resnet50": [*seeds, "--precision", "f16", "--table", f"{table}-resnet50", "resnet50"],
        "random-bert": [*seeds, "--precision", "f16", "--table", f"{table}-bert", "bert_base"],
        "random-f32": [*seeds, "--precision", "f32", "--table", f"{table}-f32", "resnet50", "bert_base"],
        "answers-f32": [*answers, "--precision", "f32", "--table", f"check-{table}-f32"],
        "answers-f16": [*answers, "--precision", "f16", "--accuracy", "0.01", "--table", f"check-{table}-f16", *narrow],
        "conformance": [
            "tests.conformance.report", "--device", "CUDA", "--processes", "6", "--write", "--short", *stamp,
        ],
        "random-graphs": [
            "tests.random_graphs", "--count", str(graphs), "--seed", str(seed), "--target", "native",
            "--processes", "6", "--device", device, "--table", table, "--whole", *stamp,
        ],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="default: all")
    parser.add_argument("--device", required=True, help="the GPU's name in the results")
    parser.add_argument("--commit", required=True)
    parser.add_argument("--table", default="h100", help="a part of the results' file names")
    parser.add_argument("--graphs", type=int, default=500, help="how many random graphs")
    parser.add_argument("--seed", type=int, default=0, help="of the first random graph")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which what still runs is ended")
    parser.add_argument("--logs", type=Path, help="keep the steps' whole outputs in this folder")
    options = parser.parse_args()
    known = commands(options.device, options.commit, options.table, options.graphs, options.seed)
    unknown = [s for s in options.steps if s not in known]
    if unknown:
        parser.error(f"there is no step {unknown[0]}; the steps are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as spare:
        folder = options.logs or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        ended: dict[str, int | str] = {}
        until = time.monotonic() + options.minutes * 60

        jobs: list[subprocess.Popen[bytes]] = []
        # Steps have sessions of their own and would outlive this process.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(_end(jobs)))

        def run(step: str) -> None:
            ended[step] = "not started"
            ended[step] = _run(known[step], folder / f"{step}.log", until, jobs)

        threads = [threading.Thread(target=run, args=(step,)) for step in options.steps or known]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for step, status in ended.items():
            tail = (folder / f"{step}.log").read_text(errors="replace").splitlines()[-SHOWN:]
            print(f"== {step}: {status}", *tail, sep="\n", flush=True)
    return 1 if any(status != 0 for status in ended.values()) else 0


def _end(jobs: list[subprocess.Popen[bytes]]) -> int:
    """End all steps with their processes; the status of a suite that was ended."""
    for job in jobs:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    return 128 + signal.SIGTERM


def _run(command: list[str], log: Path, until: float, jobs: list[subprocess.Popen[bytes]]) -> int | str:
    """Run one step, in a session of its own so that its processes end with it: its status, or why it has none."""
    begun = time.monotonic()
    with open(log, "wb") as out:
        job = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "TCC_TEST_TARGET": "native"},
        )  # fmt: skip
        jobs.append(job)
        try:
            status: int | str = job.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = "ended after its time"
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        out.write(f"{time.monotonic() - begun:.0f} s\n".encode())
    return status


if __name__ == "__main__":
    sys.exit(main())
