# SPDX-License-Identifier: Apache-2.0
"""What the commands share: one sentence for an error, exit codes, whole output files, tables for people.

Exit codes: 0 done; 1 the work failed; 2 the input or the command line is not usable; 130 interrupted. A fault of tcc
itself is 1 too, with the path of a file that tells what happened; `TCC_DEBUG=1` shows the traceback instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tcc.errors import FailureError, InputError, TccError
from tcc.ir.files import write_file


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose errors are one sentence, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def run(prog: str, main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` on its arguments and return its exit code; every error becomes text on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"{prog}: warning: {message}", file=sys.stderr)
        else:
            shown(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        return _guarded(prog, main, arguments)


def _guarded(prog: str, main: Callable[[Sequence[str]], int], arguments: list[str]) -> int:
    try:
        code = main(arguments)
        sys.stdout.flush()
        return code
    except TccError as e:
        if os.environ.get("TCC_DEBUG"):
            traceback.print_exc()
        print(f"{prog}: error: {e}", file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:
        # The reader went away, as `head` does; nothing more can be written, not even by the interpreter's exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as e:
        if os.environ.get("TCC_DEBUG"):
            raise
        print(f"{prog}: error: {e.filename or 'the system'}: {e.strerror or e}", file=sys.stderr)
        return FailureError.exit_code
    except MemoryError as e:
        if os.environ.get("TCC_DEBUG"):
            raise
        print(f"{prog}: error: out of memory: {str(e) or 'the system has no more'}", file=sys.stderr)
        return FailureError.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except Exception as e:
        if os.environ.get("TCC_DEBUG"):
            raise
        path = _report(prog, arguments)
        print(
            f"{prog}: internal error: {type(e).__name__}: {e}; {path} tells what happened and belongs into a report",
            file=sys.stderr,
        )
        return FailureError.exit_code


def _report(prog: str, arguments: Sequence[str]) -> Path:
    """A file with the command line and the traceback."""
    from tcc import __version__

    folder = Path(tempfile.mkdtemp(prefix="tcc-crash-"))
    path = folder / "report.txt"
    head = f"tcc {__version__}, Python {sys.version.split()[0]}"
    path.write_text(f"{head}\n{prog} {' '.join(map(repr, arguments))}\n\n{traceback.format_exc()}", encoding="utf-8")
    return path


def read_text(path: str) -> str:
    """The text of a file, `-` being stdin; InputError if it is not to be had or is no UTF-8."""
    name = "<stdin>" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8")
    except OSError as e:
        raise InputError(f"cannot read {name}: {e.strerror or e}") from None
    except UnicodeDecodeError as e:
        raise InputError(f"{name} is not text: byte {e.start} is no UTF-8") from None


def write_output(path: str, data: bytes | str) -> None:
    """Write a whole file or none, `-` being stdout; FailureError if it cannot be written."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    try:
        write_file(Path(path), raw)
    except OSError as e:
        raise FailureError(f"cannot write {path}: {e.strerror or e}") from None


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person is watching the stream (stderr unless given)."""
    watched = sys.stderr if stream is None else stream
    return watched.isatty() and os.environ.get("TERM") != "dumb"


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", stream: TextIO | None = None
) -> None:
    """A table: by rich on a terminal, aligned plain text elsewhere. Numbers stand right."""
    out = sys.stdout if stream is None else stream
    cells = [[_cell(v) for v in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if is_terminal(out):
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title or None, title_justify="left")
        for name, number in zip(columns, right, strict=True):
            table.add_column(name, justify="right" if number else "left")
        for row in cells:
            table.add_row(*row)
        Console(file=out).print(table, markup=False)
        return
    if title:
        print(title, file=out)
    widths = [max(len(c) for c in column) for column in zip(columns, *cells, strict=True)]
    for row in [list(columns), *cells]:
        line = "  ".join(c.rjust(w) if number else c.ljust(w) for c, w, number in zip(row, widths, right, strict=True))
        print(line.rstrip(), file=out)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
