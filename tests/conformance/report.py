# SPDX-License-Identifier: Apache-2.0
"""Run ONNX's backend tests on a device and write what came of it.

python -m tests.conformance.report [-O N] [--device CUDA] [--only TEXT] [--write] [--short] [--work]

`--write` puts the results into benchmarks/results/conformance-DEVICE.json, and makes spec/conformance.md of all such
files there are.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from benchmarks.compare import commit as commit_of
from tcc.ir.files import write_file
from tests.conformance.suite import Outcome, attempt_all, cases, skips
from tests.conformance.without_kernel import WITHOUT_KERNEL

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "spec" / "conformance.md"
RESULTS = ROOT / "benchmarks" / "results"
VERDICTS = {"refused": "are refused with a sentence", "wrong": "give wrong results", "crash": "crash",
            "idle": "are right without a kernel where one must run"}  # fmt: skip


def stored(found: Sequence[Outcome], device: str, opt_level: int, seconds: float, processes: int, commit: str) -> str:
    """The results as JSON, one case a line."""
    head = {
        "device": device, "hardware": _hardware(device), "onnx": onnx.__version__, "opt_level": opt_level,
        "commit": commit, "date": time.strftime("%Y-%m-%d", time.gmtime()), "seconds": round(seconds, 1),
        "processes": processes,
    }  # fmt: skip
    rows = [json.dumps({k: v for k, v in asdict(o).items() if v or k == "launches"}) for o in found]
    return json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(rows) + "\n]}\n"


def _hardware(device: str) -> str:
    if device.startswith("CPU"):
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())
    from tcc.runtime.cuda.device import devices

    return devices()[0].name


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The page of all results: totals, one row an operator, the host ops, and each case that did not pass."""
    lines = [
        "# Conformance",
        "",
        "ONNX's backend tests through `tcc.backend`: the node cases, and the simple, pytorch-converted,",
        "pytorch-operator and light real-model ones. Made by `python -m tests.conformance.report --write` (with",
        "`--device CUDA` on a GPU).",
        "Inputs are never folded in: a value is read ahead of a run only where it decides a shape or an attribute.",
        "",
    ]
    for r in results:
        total = Counter(c["verdict"] for c in r["cases"])
        rest = "".join(f", {total[v]} {text}" for v, text in VERDICTS.items() if total[v])
        lines.append(
            f"- **{r['device']}** ({r['hardware']}; onnx {r['onnx']}, -O{r['opt_level']}, {r['date']}): "
            f"{len(r['cases'])} cases, {total['pass']} pass{rest}; {r['seconds']:.0f} s in {r['processes']} processes."
        )
    if not any(r["device"].startswith("CUDA") for r in results):
        lines.append("- **CUDA**: not measured yet.")
    lines += [
        "", "`kernels`: launches that stand in the engines of an operator's cases. `host`: functions they call there.",
        "", "| operator | " + " | ".join(f"{r['device']} pass | kernels | host" for r in results) + " |",
        "|---|" + "---:|---:|---|" * len(results),
    ]  # fmt: skip
    by = [_by_op(r["cases"]) for r in results]
    for op in sorted({op for rows in by for op in rows}):
        lines.append(f"| {op} | " + " | ".join(_cells(rows.get(op, [])) for rows in by) + " |")
    for r in results:
        bad = [c for c in r["cases"] if c["verdict"] != "pass"]
        lines += ["", f"## Not passed on {r['device']}", ""]
        lines += [f"- `{c['name']}` {c['verdict']}: {c.get('message', '')}" for c in bad] or ["None."]
    lines += ["", "## Skipped", ""] + [f"- `{name}`: {reason}" for name, reason in skips().items()]
    lines += ["", "## Operators that need no kernel", "", "A case of these alone may launch none; any other must.", ""]
    lines += [f"- {op} {reason}" for op, reason in sorted(WITHOUT_KERNEL.items())]
    return "\n".join(lines) + "\n"


def _by_op(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    out: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for c in found:
        out[c["op"]].append(c)
    return out


def _cells(found: Sequence[Mapping[str, Any]]) -> str:
    good = sum(c["verdict"] == "pass" for c in found)
    host = sorted({f for c in found for f in c.get("host", ())})
    return f"{good}/{len(found)} | {sum(c['launches'] for c in found)} | {', '.join(host)}"


def work(found: Sequence[Outcome]) -> str:
    """Which functions run on the host, in how many cases, for which operators; and cases that launch no kernel."""
    by_function: dict[str, list[Outcome]] = defaultdict(list)
    for o in found:
        for function in set(o.host):
            by_function[function].append(o)
    lines = [f"{len(by_function)} functions are called on the host:"]
    for function, cases_ in sorted(by_function.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {function}: {len(cases_)} cases, of {', '.join(sorted({o.op for o in cases_}))}")
    idle = [o for o in found if o.verdict in ("pass", "idle") and not o.launches]
    lines.append(f"{len(idle)} cases pass without a kernel, {sum(bool(o.host) for o in idle)} of them on the host:")
    without = Counter(o.op for o in idle)
    lines.append("  " + ", ".join(f"{op} {count}" for op, count in sorted(without.items())))
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("-O", dest="opt_level", type=int, default=1)
    p.add_argument("--device", default="CPU", help="CPU (default), CUDA or CUDA:0")
    p.add_argument("--only", default="", help="cases whose names hold this text")
    p.add_argument("--every", type=int, default=1, help="one case of so many")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--commit", help="the commit measured, where git cannot tell")
    p.add_argument("--write", action="store_true", help="write the results and spec/conformance.md")
    p.add_argument("--short", action="store_true", help="only what did not pass")
    p.add_argument("--work", action="store_true", help="the functions called on the host, and passes without a kernel")
    args = p.parse_args()
    names = [n for n in cases() if args.only in n][:: args.every]
    begun, commit = time.monotonic(), commit_of(args.commit)
    found = attempt_all(names, args.processes, device=args.device, opt_level=args.opt_level)
    text = stored(found, args.device, args.opt_level, time.monotonic() - begun, args.processes, commit)
    if args.short:
        for o in found:
            if o.verdict != "pass":
                print(f"{o.verdict}: {o.name}: {o.message}")
        print(Counter(o.verdict for o in found))
    if args.work:
        print(work(found))
    if args.write:
        name = f"conformance-{args.device.lower().replace(':', '')}.json"
        write_file(RESULTS / name, text.encode())
        results = [json.loads(f.read_text()) for f in sorted(RESULTS.glob("conformance-*.json"))]
        write_file(PAGE, page(results).encode())
    if not (args.short or args.work or args.write):
        print(page([json.loads(text)]))


if __name__ == "__main__":
    main()
