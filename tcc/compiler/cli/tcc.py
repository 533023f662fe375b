# SPDX-License-Identifier: Apache-2.0
"""`tcc`: compiles an ONNX model to an engine, in gcc's manners."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.common import ArgumentParser, print_table, run, write_output
from tcc.errors import InputError

if TYPE_CHECKING:
    from tcc.compiler.options import Options
    from tcc.ir.module import ModuleOp
    from tcc.passes.base import PassContext
    from tcc.passes.manager import PassManager

EMITS = ("graph", "kernel", "cuda", "ptx", "llvm", "asm", "engine")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `tcc`."""
    return run("tcc", _main, argv)


def parser() -> ArgumentParser:
    from tcc.compiler.cli.opt import add_pass_options
    from tcc.compiler.phases.pipelines import PHASES

    p = ArgumentParser(prog="tcc", description="Compile an ONNX model into one engine of kernels chosen by timing.")
    p.add_argument("model", help="the ONNX model; with --compile-from, IR text")
    p.add_argument("-o", "--output", metavar="FILE", help="where to write (default: MODEL.tcc; text to stdout)")
    for level in range(4):
        p.add_argument(f"-O{level}", dest="opt_level", action="store_const", const=level, help=argparse.SUPPRESS)
    p.add_argument("-O", dest="opt_level", type=int, metavar="N", help="0: reference kernels; 1: fused, untimed "
                   "(default); 2: timed; 3: wide search")  # fmt: skip
    p.add_argument("--target", help="native, cpu, x86-64-v2..4, sm_75..sm_120 (default: native)")
    p.add_argument("--precision", help="f32 (default), tf32, f16 or bf16")
    p.add_argument("--keep-f32", action="append", default=[], metavar="NODE", help="nodes (a pattern of their names) "
                   "that stay in f32")  # fmt: skip
    p.add_argument("--accuracy", type=float, metavar="E", help="the error that --precision may bring on --calibrate's "
                   "inputs, relative to the largest value: nodes stay in f32 as it takes")  # fmt: skip
    p.add_argument("--calibrate", action="append", default=[], metavar="NAME=F.npy", help="an input for --accuracy; or "
                   "one F.npz with all; several F.npz are several inputs")  # fmt: skip
    p.add_argument("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="bind an input's free dims")
    p.add_argument("--emit", choices=EMITS, default="engine", help="what to write (default: engine)")
    p.add_argument("--list-space", action="store_true", help="print the count of legal configs per problem, and stop")
    p.add_argument("--compile-from", metavar="PHASE", choices=PHASES, help="MODEL is IR text after this phase")
    p.add_argument("--compile-to", metavar="PHASE", choices=PHASES, help="stop after this phase and write its IR")
    p.add_argument("--search-seconds", type=float, metavar="S", help="how long the search may take (default: by level)")
    p.add_argument("--records", type=Path, metavar="F", help="the timing cache: JSON lines, read and appended to")
    p.add_argument("--tactics", type=Path, metavar="F", help="forced choices by kernel, ONNX node or problem")
    p.add_argument("--lock", type=Path, metavar="F", help="write the winners")
    p.add_argument("--locked", type=Path, metavar="F", help="build from these winners alone, without measuring")
    p.add_argument("--random-seed", type=int, metavar="N", help="a random legal config for every kernel")
    p.add_argument("--print-op-generic", action="store_true", help="IR in MLIR's generic form")
    p.add_argument("--constants", action="append", default=[], metavar="D", help="a folder of constants for IR text")
    p.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_pass_options(p)
    return p


def parse_shapes(texts: Sequence[str]) -> dict[str, list[int | None]]:
    """`x=1x3x224x224` as {"x": [1, 3, 224, 224]}; `?` leaves a dim free."""
    out: dict[str, list[int | None]] = {}
    for text in texts:
        name, found, dims = text.rpartition("=")
        if not found or not name:
            lacks = "no '='" if not found else "no name before its '='"
            raise InputError(f"--shape {text} has {lacks}; write it as --shape NAME=1x3x224x224")
        try:
            out[name] = [None if d == "?" else int(d) for d in dims.split("x")] if dims else []
        except ValueError:
            raise InputError(f"--shape {text}: {dims!r} is not extents joined by x, as in 1x3x224x224") from None
    return out


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    begun = time.perf_counter()
    from tcc.compiler.cli.opt import make_manager
    from tcc.compiler.driver import engine_content
    from tcc.compiler.options import Options

    options = Options(
        target="native" if args.target is None else args.target,
        opt_level=1 if args.opt_level is None else args.opt_level,
        precision="f32" if args.precision is None else args.precision,
        keep_f32=tuple(args.keep_f32), shapes=parse_shapes(args.shape), search_seconds=args.search_seconds,
        records=args.records,
        tactics=args.tactics, lock=args.lock, locked=args.locked, random_seed=args.random_seed,
    )  # fmt: skip
    manager = make_manager(args)
    module, context = _load(args, options)
    if args.compile_to not in (None, "target"):
        return _stop_at(args, args.compile_to, module, context, manager)
    if args.list_space:
        from tcc.compiler.driver import run_to

        run_to(module, "kernel", context, manager)
        return _list_space(args, module, context)
    if args.emit in ("graph", "kernel"):
        return _stop_at(args, {"graph": "fuse", "kernel": "schedule"}[args.emit], module, context, manager)
    content = engine_content(module, context, manager)
    if args.emit != "engine":
        from tcc.compiler.emit_source import source_text

        assert context.target is not None
        write_output(args.output or "-", source_text(content, args.emit, context.target))
        return 0
    from tcc.compiler.engine_writer import write

    path = args.output or f"{Path(args.model).stem}.tcc"
    write(content, path)
    _summary(args, path, content, context, time.perf_counter() - begun)
    return 0


def _load(args: argparse.Namespace, options: Options) -> tuple[ModuleOp, PassContext]:
    from tcc.compiler.driver import context_for, import_model, restore_constants
    from tcc.passes.base import PassContext

    if args.compile_from not in (None, "import") or (args.compile_from == "import" and _is_text(args.model)):
        from tcc.compiler.cli.opt import load_module

        module = load_module(args.model, args.constants)
        _agree(args, module)
        restore_constants(module)
        return module, context_for(module, options)
    first = PassContext()
    if args.accuracy is not None:
        from tcc.compiler.accuracy import hold_accuracy

        options = hold_accuracy(args.model, options, args.accuracy, _calibration(args.calibrate), first.decisions)
    elif args.calibrate:
        raise InputError("--calibrate gives the inputs that --accuracy is measured on; give both")
    module = import_model(args.model, options, first)
    context = context_for(module, options)
    context.decisions = first.decisions
    return module, context


def _calibration(texts: Sequence[str]) -> list[dict[str, Any]]:
    """The inputs of --calibrate: each F.npz is one, and all NAME=F.npy together are one."""
    from tcc.compiler.cli.run import load_arrays

    named: dict[str, Any] = {}
    out: list[dict[str, Any]] = [named]
    for text in texts:
        name, found, path = text.rpartition("=")
        loaded = load_arrays(path if found else text)
        if isinstance(loaded, dict):
            out.append(loaded)
        elif found:
            named[name] = loaded
        else:
            raise InputError(f"--calibrate {text} does not say which input it is; write it as NAME={text}")
    return [inputs for inputs in out if inputs]


def _is_text(path: str) -> bool:
    """Whether a file is IR text rather than a binary model."""
    try:
        with open(path, "rb") as f:
            head = f.read(4096)
    except OSError:
        return False
    return b"\0" not in head and (b"builtin.module" in head or b"graph.func" in head)


def _agree(args: argparse.Namespace, module: ModuleOp) -> None:
    """InputError where an option asks for other than what IR text was made with."""
    from tcc.compiler.targets import resolve_target

    if args.shape:
        raise InputError("--shape binds the dims of an ONNX model, and IR text has its shapes")
    target = None if args.target is None else resolve_target(args.target).name
    asked = {"--target": (target, module.target), "-O": (args.opt_level, module.options.get("opt_level")),
             "--precision": (args.precision, module.options.get("precision"))}  # fmt: skip
    for name, (wanted, has) in asked.items():
        if wanted is not None and wanted != has:
            raise InputError(f"{name} asks for {wanted}, and {args.model} was made for {has}; leave the option out")


def _stop_at(args: argparse.Namespace, phase: str, module: ModuleOp, context: PassContext, manager: PassManager) -> int:
    from tcc.compiler.driver import run_to
    from tcc.ir.printer import print_op
    from tcc.passes.dump import save_constants

    if phase != "import":
        run_to(module, phase, context, manager)
    output = args.output or "-"
    if output != "-":
        save_constants(module, Path(output).parent)
    write_output(output, print_op(module, generic=args.print_op_generic))
    return 0


def _list_space(args: argparse.Namespace, module: ModuleOp, context: PassContext) -> int:
    """The table of problems: how many configs are legal for each template, and why others are not."""
    from tcc.compiler.search.choose import find_problems
    from tcc.compiler.search.enumerate import enumerate_problem
    from tcc.ir.kernel.problem import kernels_of

    assert context.target is not None
    rows: list[dict[str, Any]] = []
    for p in find_problems(kernels_of(module), module):
        listing = enumerate_problem(p.func, context.target, naive=True)
        anchor = p.func.anchors()[0]
        rows.append({
            "problem": p.key[:12], "anchor": anchor.name.removeprefix("kernel."), "domain": anchor.domain.text(),
            "configs": sum(listing.counts.values()), "templates": listing.counts,
            "dropped": [f"{what}: {why}" for what, why, _ in listing.dropped], "loc": list(p.loc),
        })  # fmt: skip
    if args.json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    shown = [
        (r["problem"], r["anchor"], r["domain"], r["configs"], ", ".join(f"{n} {c}" for n, c in r["templates"].items()))
        for r in rows
    ]
    print_table(["problem", "anchor", "domain", "legal configs", "by template"], shown)
    return 0


def _summary(args: argparse.Namespace, path: str, content: Any, context: PassContext, seconds: float) -> None:
    size = Path(path).stat().st_size
    templates: dict[str, int] = {}
    for row in content.kernels.values():
        templates[row["template"]] = templates.get(row["template"], 0) + 1
    facts = {
        "engine": path, "bytes": size, "target": content.target["name"], "kernels": len(content.kernels),
        "templates": templates, "arena": content.arena["bytes"], "seconds": round(seconds, 3),
        "host_ops": [r["message"] for r in content.report if r["kind"] == "host-op"],
        "crossings": [r["message"] for r in content.report if r["kind"] == "crossing"],
    }  # fmt: skip
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for row in content.report:
        if row["kind"] == "host-op" or (row["kind"] == "crossing" and row["count"]):
            print(f"tcc: note: {', '.join(row['loc'])}: {row['message']}")
    kinds = ", ".join(f"{n} {k}" for k, n in sorted(templates.items()))
    print(
        f"{path}: {size / 2**20:.1f} MiB for {facts['target']}, {len(content.kernels)} kernels ({kinds}), "
        f"arena {content.arena['bytes'] / 2**20:.1f} MiB, in {seconds:.1f} s"
    )
