# SPDX-License-Identifier: Apache-2.0
"""Whole models at -O3 with a random legal config for every kernel, compared with float32 references:
`python -m benchmarks.random_configs NAME... --seeds 20 --target T --precision P`.

Nothing is timed. f32: the largest error is at most 1e-4 of the largest value; 16 bits: 2e-2 of it. Writes
benchmarks/results/random-TABLE.json, a row a model; the status is 1 if a seed is wrong.
"""

import argparse
import datetime
import json
import sys
import time

import numpy as np
import onnxruntime as ort

import tcc
from benchmarks import zoo
from benchmarks.compare import RESULTS, commit, processor

LIMITS = {"f32": 1e-4, "tf32": 1e-2, "f16": 2e-2, "bf16": 1e-1}


def reference(name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime's float32 answer."""
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    session = ort.InferenceSession(zoo.load(name).SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    held = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    found = session.run(None, {k: v for k, v in inputs.items() if k in held})
    return {n: np.asarray(a) for n, a in zip(names, found, strict=True)}


def worst(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The largest error, relative to the largest value, of the worst output; infinite for a NaN."""
    out = 0.0
    for name, right in wanted.items():
        error = np.abs(np.asarray(got[name]).astype(np.float64) - right).max() / np.abs(right).max()
        out = max(out, float(error) if np.isfinite(error) else float("inf"))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--target", default="native")
    parser.add_argument("--precision", default="f32", choices=LIMITS)
    parser.add_argument("--table", default="cpu")
    parser.add_argument("--device", help="the name of the device, where it is no CPU")
    parser.add_argument("--commit")
    options = parser.parse_args()
    rows = []
    for name in options.names:
        inputs, model = zoo.inputs(name), zoo.load(name)
        wanted = reference(name, inputs)
        errors: dict[int, float] = {}
        for seed in range(options.first, options.first + options.seeds):
            begun = time.perf_counter()
            engine = tcc.compile(
                model, target=options.target, opt_level=3, shapes=zoo.shapes(name), precision=options.precision,
                random_seed=seed,
            )  # fmt: skip
            errors[seed] = worst({k: np.asarray(v) for k, v in engine(inputs).items()}, wanted)
            engine.close()
            print(f"{name} seed {seed}: {errors[seed]:.1e} in {time.perf_counter() - begun:.1f} s", flush=True)
        wrong = [s for s, e in errors.items() if not e <= LIMITS[options.precision]]
        rows.append({
            "model": name, "precision": options.precision, "seeds": list(errors), "largest_error": max(errors.values()),
            "limit": LIMITS[options.precision], "wrong": wrong,
        })  # fmt: skip
        facts = {
            "device": options.device or processor(), "commit": commit(options.commit),
            "date": datetime.date.today().isoformat(), "rows": rows,
        }  # fmt: skip
        (RESULTS / f"random-{options.table}.json").write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
