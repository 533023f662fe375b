# SPDX-License-Identifier: Apache-2.0
"""tcc-opt: runs passes on IR text."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.common import ArgumentParser, read_text, run, write_output
from tcc.errors import FailureError, InputError

if TYPE_CHECKING:
    from tcc.ir.module import ModuleOp
    from tcc.passes.base import PassContext
    from tcc.passes.manager import Instrument, PassManager

EMITS = ("engine", "cuda", "ptx", "llvm", "asm")

EPILOG = """\
A pipeline is passes separated by commas, each with options in braces: canonicalize,fuse{max-ops=16},lower-to-kernel.
IR goes from FILE to stdout (or -o); what --print-ir-*, --time-passes and --remarks print goes to stderr.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run("tcc-opt", _main, argv)


def parser() -> argparse.ArgumentParser:
    """The command line of tcc-opt."""
    p = ArgumentParser(
        prog="tcc-opt",
        description="Run passes on IR text and print the result.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("file", metavar="FILE", nargs="?", default="-", help="IR text (.mlir); - or none: stdin")
    p.add_argument("-o", dest="output", metavar="OUT", default="-", help="where the result goes (default: stdout)")
    p.add_argument("-p", "--passes", metavar="PIPELINE", help="the passes to run (default: none)")
    p.add_argument("--constants", metavar="DIR", action="append", default=[], help="where <sha256>.npy files are "
                   "looked for, beside the folder `constants` next to FILE; may be given several times")  # fmt: skip
    p.add_argument("--no-verify", action="store_true", help="do not verify what is read when no pass runs")
    p.add_argument("--split-input-file", action="store_true", help="FILE holds programs between lines `// -----`")
    p.add_argument("--list-passes", action="store_true", help="print every pass with its options, and stop")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_pass_options(p)

    g = p.add_argument_group("printing")
    g.add_argument("--print-op-generic", action="store_true", help="print MLIR's generic form")
    g.add_argument("--no-locations", action="store_true", help="leave out loc(...)")
    g.add_argument("--remarks", action="store_true", help="print the passes' remarks to stderr")

    g = p.add_argument_group("going on")
    g.add_argument("--run-reproducer", action="store_true", help="run the pipeline that the module itself carries")
    g.add_argument("--finish", action="store_true", help="compile on to an engine, written to -o")
    g.add_argument("--emit", choices=EMITS, default="engine", help="with --finish: what to write (default: engine)")
    return p


def add_pass_options(p: argparse.ArgumentParser) -> None:
    """The options about how passes run, which `tcc` takes too; `make_manager` obeys them."""
    g = p.add_argument_group("watching passes")
    g.add_argument("--print-ir-before", metavar="NAMES", default="", help="print the IR before these passes")
    g.add_argument("--print-ir-after", metavar="NAMES", default="", help="print the IR after these passes")
    g.add_argument("--print-ir-before-all", action="store_true", help="print the IR before every pass")
    g.add_argument("--print-ir-after-all", action="store_true", help="print the IR after every pass")
    g.add_argument("--print-ir-on-change", action="store_true", help="print the IR after passes that changed it")
    g.add_argument("--verify-each", action="store_true", help="verify after every pass, not only at the end")
    g.add_argument("--time-passes", action="store_true", help="print a table of the time that passes took")
    g.add_argument("--dump-dir", metavar="D", help="write numbered IR files, constants, remarks and times there")
    g.add_argument("--crash-dir", metavar="D", help="where a reproducer goes (default: the dump, or a new folder)")


def make_manager(args: argparse.Namespace) -> PassManager:
    """The pass manager that the options of `add_pass_options` ask for."""
    from tcc.passes.dump import Dump
    from tcc.passes.instruments import PrintIR, TimePasses, known_names
    from tcc.passes.manager import PassManager

    instruments: list[Instrument] = []
    shows = PrintIR(
        before_names=known_names(args.print_ir_before),
        after_names=known_names(args.print_ir_after),
        before_all=args.print_ir_before_all,
        after_all=args.print_ir_after_all,
        on_change=args.print_ir_on_change,
        generic=getattr(args, "print_op_generic", False),
    )
    if shows.before_names or shows.after_names or shows.before_all or shows.after_all or shows.on_change:
        instruments.append(shows)
    if args.time_passes:
        instruments.append(TimePasses())
    folder = Path(args.dump_dir) if args.dump_dir else None
    if folder is not None:
        instruments.append(Dump(folder))
    crash = Path(args.crash_dir) if args.crash_dir else folder
    return PassManager(instruments, verify_each=args.verify_each, crash_dir=crash)


def load_module(path: str, constants: Sequence[str] = (), text: str | None = None) -> ModuleOp:
    """The module of a text file. Its constants are looked for beside the file, in the given folders, and in the model
    that the module came from."""
    from tcc.ir.parser import parse
    from tcc.ir.resources import ResourceStore
    from tcc.passes.dump import CONSTANTS

    beside = [] if path == "-" else [Path(path).parent / CONSTANTS]
    store = ResourceStore((*beside, *map(Path, constants)))
    module = parse(read_text(path) if text is None else text, "<stdin>" if path == "-" else path, store)
    model = module.meta.get("model") if isinstance(module.meta, dict) else None
    if model:
        store.sources.append(model_constants(str(model)))
    return module


def model_constants(path: str) -> Callable[[str], Any]:
    """A source of constants that reads the model at `path` when it is first asked."""

    @cache
    def store() -> Any:
        from tcc.compiler.frontend.constants import read_constants

        if not Path(path).exists():
            raise InputError(f"a constant of the module is in {path}, which is gone; put it back or give --constants")
        return read_constants(path)

    def find(sha256: str) -> Any:
        from tcc.ir.attributes import Resource

        resource = Resource(sha256)
        return store().get(resource) if resource in store() else None

    return find


def make_context(module: ModuleOp) -> PassContext:
    """What passes may ask: the target and options that the module carries."""
    from tcc.passes.base import PassContext

    if not module.target:
        return PassContext(opt_level=int(module.options.get("opt_level", 1)), options=dict(module.options))
    from tcc.compiler.driver import context_for

    return context_for(module)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    register_passes()
    if args.list_passes:
        _list_passes(args.json)
        return 0
    _check(args)
    if args.file == "-" and sys.stdin.isatty():
        raise InputError("there is no FILE and stdin is a terminal; see tcc-opt --help")
    text = read_text(args.file)
    parts = _split(text) if args.split_input_file else [text]
    manager = make_manager(args)
    printed = [_one(args, part, manager) for part in parts]
    if not args.finish:
        write_output(args.output, "// -----\n".join(printed))
    return 0


def _split(text: str) -> list[str]:
    """The parts between lines `// -----`, each keeping its line numbers by empty lines before it."""
    parts: list[str] = []
    line = 0
    for part in re.split(r"^// -----[^\S\n]*$", text, flags=re.MULTILINE):
        parts.append("\n" * line + part)
        line += part.count("\n")
    return parts


def _one(args: argparse.Namespace, text: str, manager: PassManager) -> str:
    """Run what is asked for on one program; its text, or nothing once the engine is written."""
    from tcc.ir.printer import print_op
    from tcc.ir.verifier import verify

    module = load_module(args.file, args.constants, text)
    context = make_context(module)
    try:
        if args.run_reproducer:
            manager.run(module, module.pipeline, context)
        elif args.passes is not None:
            manager.run(module, args.passes, context, then=module.pipeline)
        elif not args.no_verify:
            verify(module)
    finally:
        if args.remarks:
            _print_remarks(context)
    if args.finish:
        write_output(args.output, _finish(module, args.emit, context, manager))
        return ""
    if args.output != "-":
        from tcc.passes.dump import save_constants

        save_constants(module, Path(args.output).parent)
    printed = print_op(module, generic=args.print_op_generic, locations=not args.no_locations)
    if not args.json:
        return printed
    rows = [row.to_json() for row in context.decisions.rows]
    return json.dumps({"ir": printed, "pipeline": module.pipeline, "remarks": rows}, ensure_ascii=False) + "\n"


def register_passes() -> None:
    """Make the compiler's own passes known beside those of `tcc.passes`."""
    import tcc.compiler.phases

    assert tcc.compiler.phases.__all__


def _check(args: argparse.Namespace) -> None:
    if args.output != "-" and not Path(args.output).parent.is_dir():
        raise FailureError(f"cannot write {args.output}: there is no folder {Path(args.output).parent}")
    if args.run_reproducer and args.passes is not None:
        raise InputError("--run-reproducer runs the module's own pipeline; leave out --passes")
    if args.finish and args.emit == "engine" and args.output == "-":
        raise InputError("--finish writes an engine and needs -o FILE")
    if args.finish and args.json:
        raise InputError("--json prints IR; leave it out with --finish")
    if args.finish and args.split_input_file:
        raise InputError("--finish makes one engine; leave out --split-input-file")
    if args.emit != "engine" and not args.finish:
        raise InputError("--emit goes with --finish")


def _finish(module: ModuleOp, emit: str, context: PassContext, manager: PassManager) -> bytes:
    """Run what is left of the module's pipeline; the engine file, or the source of its kernels."""
    from tcc.compiler.driver import engine_content

    content = engine_content(module, context, manager)
    if emit == "engine":
        from tcc.compiler.engine_writer import to_bytes

        return to_bytes(content)
    from tcc.compiler.emit_source import source_text

    return source_text(content, emit, context.target).encode("utf-8")


def _print_remarks(context: PassContext) -> None:
    for row in context.decisions.rows:
        where = f' at "{", ".join(row.loc)}"' if row.loc else ""
        reason = f": {row.reason}" if row.reason else ""
        print(f"remark: [{row.pass_name}] {row.op}{where}: {row.kind}: {row.chosen}{reason}", file=sys.stderr)


def _list_passes(as_json: bool) -> None:
    from inspect import cleandoc

    from tcc.passes.base import load_passes, pass_options
    from tcc.passes.pipeline import option_text

    passes = dict(sorted(load_passes().items()))
    if as_json:
        rows = [
            {
                "name": name,
                "doc": cleandoc(cls.__doc__ or ""),
                "options": [
                    {"name": o.name, "type": o.type_name, "default": option_text(o, o.default)}
                    for o in pass_options(cls).values()
                ],
            }
            for name, cls in passes.items()
        ]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for name, cls in passes.items():
        print(name)
        for line in cleandoc(cls.__doc__ or "").splitlines():
            print(f"    {line}".rstrip())
        for o in pass_options(cls).values():
            print(f"    {{{o.name}=}}  {o.type_name}, default {option_text(o, o.default)}")
        print()


if __name__ == "__main__":
    sys.exit(main())
