# SPDX-License-Identifier: Apache-2.0
"""Run all of ONNX's backend tests and write spec/conformance.md:

python -m tests.conformance.report [-O N] [--only TEXT] [--write | --short | --work]
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import onnx

from tcc.ir.files import write_file
from tests.conformance.suite import Outcome, attempt_all, cases

PAGE = Path(__file__).resolve().parents[2] / "spec" / "conformance.md"


def page(found: Sequence[Outcome], opt_level: int) -> str:
    """The results as a page: totals, one row an operator, and why cases are refused."""
    total = Counter(o.verdict for o in found)
    by_op: dict[str, Counter[str]] = defaultdict(Counter)
    for o in found:
        by_op[o.op][o.verdict] += 1
    lines = [
        "# Conformance",
        "",
        f"ONNX's backend tests (onnx {onnx.__version__}: node, simple, pytorch-converted, pytorch-operator) through",
        f"`tcc.backend` at -O{opt_level} on the CPU, made by `python -m tests.conformance.report --write`.",
        "",
        f"{len(found)} cases: {total['pass']} pass, {total['refused']} are refused with a sentence, "
        f"{total['wrong']} give wrong results, {total['crash']} crash.",
        "",
        "| operator | cases | pass | refused | wrong | crash |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for op, counts in sorted(by_op.items()):
        lines.append(
            f"| {op} | {counts.total()} | {counts['pass']} | {counts['refused'] or ''} | {counts['wrong'] or ''} "
            f"| {counts['crash'] or ''} |"
        )
    lines += ["", "## Not passed", ""]
    for o in found:
        if o.verdict != "pass":
            lines.append(f"- `{o.name}` {o.verdict}: {o.message}")
    return "\n".join(lines) + "\n"


def work(found: Sequence[Outcome]) -> str:
    """Which functions run on the host, in how many cases, for which operators; and cases that launch no kernel."""
    by_function: dict[str, list[Outcome]] = defaultdict(list)
    for o in found:
        for function in set(o.host):
            by_function[function].append(o)
    lines = [f"{len(by_function)} functions are called on the host:"]
    for function, cases_ in sorted(by_function.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {function}: {len(cases_)} cases, of {', '.join(sorted({o.op for o in cases_}))}")
    idle = [o for o in found if o.verdict == "pass" and not o.launches]
    lines.append(f"{len(idle)} cases pass without a kernel, {sum(bool(o.host) for o in idle)} of them on the host:")
    without = Counter(o.op for o in idle)
    lines.append("  " + ", ".join(f"{op} {count}" for op, count in sorted(without.items())))
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("-O", dest="opt_level", type=int, default=1)
    p.add_argument("--only", default="", help="cases whose names hold this text")
    p.add_argument("--every", type=int, default=1, help="one case of so many")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--write", action="store_true", help="write spec/conformance.md instead of printing")
    p.add_argument("--short", action="store_true", help="only what did not pass")
    p.add_argument("--work", action="store_true", help="the functions called on the host, and passes without a kernel")
    args = p.parse_args()
    names = [n for n in cases() if args.only in n][:: args.every]
    found = attempt_all(names, args.processes, opt_level=args.opt_level)
    if args.short:
        for o in found:
            if o.verdict != "pass":
                print(f"{o.verdict}: {o.name}: {o.message}")
        print(Counter(o.verdict for o in found))
        return
    if args.work:
        print(work(found))
        return
    text = page(found, args.opt_level)
    if args.write:
        write_file(PAGE, text.encode())
    else:
        print(text)


if __name__ == "__main__":
    main()
