# SPDX-License-Identifier: Apache-2.0
"""Runs the FileCheck tests: every `.mlir` file here, in process, by the RUN lines it begins with.

    // RUN: tcc-opt %s --passes=canonicalize --remarks 2>&1 | filecheck %s
    // RUN: not tcc-opt %s --passes=fuse{max-ops=x} 2>&1 | filecheck %s --check-prefix=BAD

    // NUMERICS: canonicalize,fuse
    // NUMERICS 1e-2: precision{to=f16}

`%s` is the file, `%t` an empty folder; `not` wants an exit code other than 0, and a line may go on after a `\\`.
Every run verifies after each pass, and what it prints as IR must read back to the same text. A NUMERICS line runs the
pipeline on every part of the file and wants the graph to give the same numbers as before, on seeded random inputs: the
largest error is at most that fraction (1e-5 unless given) of the largest value. Free dims are 3.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

NUMERICS = re.compile(r"^[^\S\n]*// *NUMERICS *([0-9.e-]*):[^\S\n]*(.*)$", re.MULTILINE)
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
        source = self.path.read_text(encoding="utf-8")
        lines = list(runs(source))
        if not lines:
            raise self.CollectError(f"{self.path} has no RUN line")
        for i, text in enumerate(lines):
            yield MlirRun.from_parent(self, name=f"run{i + 1}", run=parse_run(text))
        for i, found in enumerate(NUMERICS.finditer(source)):
            tolerance = float(found[1] or 1e-5)
            yield MlirNumerics.from_parent(self, name=f"numerics{i + 1}", pipeline=found[2], tolerance=tolerance)


class Mismatch(Exception):
    """A RUN line whose outcome is not what the file says."""


class MlirItem(pytest.Item):
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> object:
        if isinstance(excinfo.value, Mismatch):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class MlirRun(MlirItem):
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

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, f"{self.path.name}: {self.run.text}"


class MlirNumerics(MlirItem):
    def __init__(self, *, pipeline: str, tolerance: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.tolerance = tolerance

    def runtest(self) -> None:
        parts = re.split(r"^// -----[^\S\n]*$", self.path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for i, part in enumerate(parts):
            error = numerics(part, self.pipeline)
            if error > self.tolerance:
                raise Mismatch(f"part {i + 1}: after {self.pipeline} the results are off by {error:.3g} of the largest")

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, f"{self.path.name}: numerics of {self.pipeline}"


def numerics(text: str, pipeline: str) -> float:
    """The largest error that a pipeline makes in a graph's results, as a fraction of the largest value of each."""
    import numpy as np

    from tcc.compiler.cli.opt import make_context, register_passes
    from tcc.compiler.interpret import interpret
    from tcc.ir.expr import evaluate, symbols
    from tcc.ir.graph import main_function
    from tcc.ir.parser import parse
    from tcc.passes.manager import run_passes

    register_passes()
    module = parse(text)
    func = main_function(module)
    rng = np.random.default_rng(0)
    inputs = {}
    for name, arg in zip(func.arg_names, func.block.args, strict=True):
        shape = [evaluate(d, dict.fromkeys(symbols(d), 3)) for d in arg.type.shape]
        values = rng.standard_normal(shape) if arg.type.dtype.is_float else rng.integers(0, 2, shape)
        inputs[name] = np.asarray(values).astype(arg.type.dtype.numpy)
    before = interpret(module, inputs)
    run_passes(module, pipeline, make_context(module))
    after = interpret(module, inputs)
    if {n: (a.dtype, a.shape) for n, a in before.items()} != {n: (a.dtype, a.shape) for n, a in after.items()}:
        raise Mismatch(f"after {pipeline} the graph gives other names, types or shapes")
    errors = [0.0]
    for name, array in before.items():
        if array.dtype.kind in "OUS" or not array.size:
            errors.append(float(not np.array_equal(array, after[name])))
            continue
        a, b = (np.asarray(x).astype(np.float64) for x in (array, after[name]))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        scale = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), 1e-30)
        with np.errstate(invalid="ignore"):
            off = np.where(same, 0.0, np.abs(a - b) / scale)
        errors.append(float(np.where(np.isnan(off), np.inf, off).max()))
    return max(errors)


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
        matcher = Matcher(
            opts, FInput("<output>", text if text.endswith("\n") else text + "\n"), Parser.from_opts(opts)
        )
        matcher.stderr = report
        code = matcher.run()
    return code != 0, report.getvalue()


@pytest.fixture
def opt() -> Callable[[list[str]], tuple[int, str, str]]:
    """tcc-opt in this process: arguments → (exit code, stdout, stderr)."""
    return run_opt


@pytest.fixture
def runner() -> SimpleNamespace:
    """The parts of this runner, for tests of it."""
    return SimpleNamespace(
        runs=runs, parse_run=parse_run, filecheck=filecheck, reads_back=reads_back, numerics=numerics, mismatch=Mismatch
    )
