# SPDX-License-Identifier: Apache-2.0
"""Runs the FileCheck tests: every `.mlir` file here, in process, by the RUN lines it begins with.

    // RUN: tcc-opt %s --passes=canonicalize --remarks 2>&1 | filecheck %s
    // RUN: not tcc-opt %s --passes=fuse{max-ops=x} 2>&1 | filecheck %s --check-prefix=BAD

`%s` is the file, `%t` an empty folder; `not` wants an exit code other than 0, and a line may go on after a `\\`.
Every run verifies after each pass, and what it prints as IR must read back to the same text.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

RUN = re.compile(r"^\s*//\s*RUN:\s*(.*)$")
PROGRAMS = ("tcc-opt",)


@dataclass(frozen=True)
class Run:
    """One RUN line, taken apart."""

    text: str
    fails: bool
    program: str
    arguments: tuple[str, ...]
    both: bool
    check: tuple[str, ...] | None


def parse_run(text: str) -> Run:
    """A RUN line's meaning; ValueError if it is written otherwise than above."""
    command, _, check = text.partition("|")
    words = shlex.split(command)
    fails = words[:1] == ["not"]
    if fails:
        del words[0]
    both = words[-1:] == ["2>&1"]
    if both:
        del words[-1]
    program, *arguments = words
    checks = shlex.split(check)
    if program not in PROGRAMS or (checks and checks[0] != "filecheck"):
        raise ValueError(f"a RUN line is `[not] tcc-opt ARGUMENTS [2>&1] [| filecheck %s ARGUMENTS]`, not: {text}")
    return Run(text, fails, program, tuple(arguments), both, tuple(checks[1:]) if checks else None)


def runs(source: str) -> Iterator[str]:
    """The RUN lines of a file, continued ones joined."""
    pending = ""
    for line in source.splitlines():
        found = RUN.match(line)
        if found is None:
            continue
        pending += found[1]
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        yield pending
        pending = ""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return MlirFile.from_parent(parent, path=file_path) if file_path.suffix == ".mlir" else None


class MlirFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        lines = list(runs(self.path.read_text(encoding="utf-8")))
        if not lines:
            raise self.CollectError(f"{self.path} has no RUN line")
        for i, text in enumerate(lines):
            yield MlirRun.from_parent(self, name=f"run{i + 1}", run=parse_run(text))


class Mismatch(Exception):
    """A RUN line whose outcome is not what the file says."""


class MlirRun(pytest.Item):
    def __init__(self, *, run: Run, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.run = run

    def runtest(self) -> None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="tcc-filecheck-") as folder:
            self.check(folder)

    def check(self, folder: str) -> None:
        arguments = [a.replace("%s", str(self.path)).replace("%t", folder) for a in self.run.arguments]
        code, out, err = run_opt([*arguments, "--verify-each", f"--crash-dir={folder}/crash"])
        if (code != 0) != self.run.fails:
            raise Mismatch(f"{self.run.text}\nexit code {code}\n{err}\n{out}")
        if code == 0 and not any(a in arguments for a in ("--json", "--list-passes", "--no-locations")):
            reads_back(out, "--print-op-generic" in arguments)
        if self.run.check is not None:
            options = [a.replace("%s", str(self.path)).replace("%t", folder) for a in self.run.check]
            failed, report = filecheck(options, err + out if self.run.both else out)
            if failed:
                raise Mismatch(f"{self.run.text}\n{report}\n----- stderr\n{err}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> object:
        if isinstance(excinfo.value, Mismatch):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, f"{self.path.name}: {self.run.text}"


def run_opt(arguments: list[str]) -> tuple[int, str, str]:
    """tcc-opt in this process: (exit code, stdout, stderr)."""
    from tcc.compiler.cli.opt import main

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    out.flush()
    return code, out.buffer.getvalue().decode("utf-8"), err.getvalue()  # pyright: ignore


def reads_back(text: str, generic: bool) -> None:
    """print → parse → print is the identity."""
    from tcc.ir.parser import parse
    from tcc.ir.printer import print_op

    for part in text.split("// -----\n"):
        again = print_op(parse(part), generic=generic)
        if again != part:
            raise Mismatch(f"what was printed does not read back\n{part}\n----- but as\n{again}")


def filecheck(options: list[str], text: str) -> tuple[bool, str]:
    """(whether it does not match, the report of the filecheck package)."""
    from filecheck.finput import FInput
    from filecheck.matcher import Matcher
    from filecheck.options import parse_argv_options
    from filecheck.parser import Parser

    report = io.StringIO()
    with redirect_stderr(report), redirect_stdout(report):
        opts = parse_argv_options(["filecheck", *options])
        matcher = Matcher(opts, FInput("<output>", text), Parser.from_opts(opts))
        matcher.stderr = report
        code = matcher.run()
    return code != 0, report.getvalue()


@pytest.fixture
def opt() -> Callable[[list[str]], tuple[int, str, str]]:
    """tcc-opt in this process: arguments → (exit code, stdout, stderr)."""
    return run_opt
