# SPDX-License-Identifier: Apache-2.0
"""The rooms' arrows: who may import whom, inside functions too; and what importing a room costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tcc"

# Room -> rooms of tcc it may import, and packages outside the standard library.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "reference": (set(), {"numpy", "ml_dtypes", "PIL"}),  # PIL: image_decoder, when it is called
    "ir": ({"reference"}, {"numpy", "ml_dtypes", "lark", "networkx"}),
    "passes": ({"ir"}, {"numpy", "ml_dtypes", "lark", "networkx"}),
    "codegen": ({"ir"}, {"numpy", "ml_dtypes", "llvmlite", "cuda", "nvidia", "nvmath", "cudnn"}),
    "runtime": (
        {"reference"},
        {"numpy", "ml_dtypes", "safetensors", "llvmlite.binding", "cuda", "nvidia", "nvmath", "cudnn", "pycuda"},
    ),
    "compiler": (
        {"reference", "ir", "passes", "codegen", "runtime"},
        {
            "numpy",
            "ml_dtypes",
            "onnx",
            "google.protobuf",
            "rich",
            "lark",
            "networkx",
            "safetensors",
            "llvmlite",
            "cuda",
            "nvidia",
        },
    ),
}
# Files directly under tcc/: the error classes import nothing; the package and its faces may reach every room.
LEAVES = {"errors"}
# Peers that a user may ask to be compared with; only the command line imports them, and only when asked.
PEERS = {"onnxruntime"}
LONGEST = 600


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Every module name a file imports, with its line: statements anywhere, and import_module on a constant.

    `package` is the dotted package the file lies in; relative imports are resolved against it. `from a import b` gives
    `a.b`, since `b` may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                name = node.args[0].value
                if name.startswith("."):
                    parts = package.split(".")
                    dots = len(name) - len(name.lstrip("."))
                    name = ".".join([*parts[: len(parts) - dots + 1], name.lstrip(".")])
                yield node.lineno, name


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(one + ".") for one in allowed)


def refusal(path: Path, name: str) -> str | None:
    """Why the file at `path` (relative to tcc/) may not import `name`, or None when it may."""
    top = name.split(".")[0]
    if within(name, {"onnx.reference", "onnx.backend.test"}):
        return "onnx's own evaluator and test data are for tests only"
    if within(name, {"tests", "benchmarks"}):
        return "the package imports neither tests nor benchmarks"
    if top in sys.stdlib_module_names:
        return None
    if path.parts[:2] == ("compiler", "cli") and top in PEERS:
        return None
    room = path.parts[0] if len(path.parts) > 1 else None
    if room is None:
        if path.stem in LEAVES:
            return f"{path} imports nothing but the standard library"
        return None if top in {"tcc", "onnx", "numpy"} else f"{path} does not import {top}"
    if room not in ROOMS:
        return f"{room} is no room: the table in {Path(__file__).name} lists them"
    rooms, packages = ROOMS[room]
    if top != "tcc":
        return None if within(name, packages) else f"{room} does not import {name}"
    target = name.split(".")[1] if "." in name else ""
    if target in {room, "errors"} | rooms:
        return None
    if room == "compiler" and target == "__version__":
        return None
    return f"{room} may import {sorted(rooms) or 'nothing'} of tcc, not {name}"


def violations(path: Path, source: str) -> list[str]:
    package = ".".join(["tcc", *path.parent.parts])
    found = []
    for line, name in imports(ast.parse(source), package):
        why = refusal(path, name)
        if why:
            found.append(f"tcc/{path}:{line}: {why}")
    return found


def sources() -> list[Path]:
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def test_every_import_follows_the_arrows():
    found = [line for path in sources() for line in violations(path, (PACKAGE / path).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reference/elementwise.py", "from tcc.ir import core"),
        ("reference/elementwise.py", "from tcc.errors import TccError\nfrom ..ir import core"),
        ("reference/elementwise.py", "import scipy"),
        ("ir/core.py", "def f():\n    from tcc.passes import base"),
        ("ir/core.py", "if TYPE_CHECKING:\n    from ..passes import base"),
        ("ir/core.py", "import tcc"),
        ("ir/core.py", "import onnx"),
        ("passes/graph/cse.py", "from ...codegen.cuda import emit"),
        ("passes/graph/cse.py", "import importlib\nimportlib.import_module('tcc.compiler.driver')"),
        ("passes/graph/cse.py", "import importlib\nimportlib.import_module('...codegen', __package__)"),
        ("codegen/llvm/emit.py", "from tcc.passes import base"),
        ("runtime/engine.py", "from tcc.ir import core"),
        ("runtime/engine.py", "import llvmlite.ir"),
        ("runtime/engine.py", "from llvmlite import ir"),
        ("runtime/engine.py", "import onnx"),
        ("compiler/frontend.py", "from onnx.reference import ReferenceEvaluator"),
        ("compiler/frontend.py", "import onnxruntime"),
        ("compiler/frontend.py", "import torch"),
        ("newroom/thing.py", "import numpy"),
        ("errors.py", "import numpy"),
        ("backend.py", "import torch"),
    ],
)
def test_the_check_refuses(path: str, source: str):
    assert violations(Path(path), source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reference/elementwise.py", "import math\nimport numpy as np\nfrom . import matmul\nfrom .matmul import gemm"),
        ("ir/core.py", "from tcc.reference import gemm\nfrom tcc.errors import InputError\nfrom . import types"),
        ("passes/graph/cse.py", "import networkx\nfrom tcc.ir.graph import ops\nfrom ..base import Pass"),
        (
            "runtime/cpu/load.py",
            "from llvmlite import binding\nimport llvmlite.binding as llvm\nfrom ..engine import x",
        ),
        ("compiler/cli/run.py", "def f():\n    import onnxruntime"),
        ("compiler/driver.py", "import onnx\nfrom tcc.runtime import load\nfrom tcc.codegen.cuda import emit"),
        ("__init__.py", "from tcc.compiler import api"),
    ],
)
def test_the_check_allows(path: str, source: str):
    assert not violations(Path(path), source)


def test_files_are_short_and_carry_their_licence():
    found = []
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in {".py", ".cuh", ".lark"}:
            lines = len(path.read_text().splitlines())
            if lines > LONGEST:
                found.append(f"{path.relative_to(ROOT)} has {lines} lines: split it (at most {LONGEST})")
    for folder in ("tcc", "tests", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n"):
                found.append(f"{path.relative_to(ROOT)} does not begin with the SPDX line")
    assert not found, "\n".join(found)


def fresh(code: str) -> str:
    """Standard output of `code` in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_tcc_is_quick():
    code = "import time; t = time.perf_counter(); import tcc; print(time.perf_counter() - t)"
    # The least of three: the first may wait for the disk, and a loaded machine only ever adds.
    assert min(float(fresh(code)) for _ in range(3)) <= 0.5


def test_the_runtime_stands_alone():
    code = "import sys, tcc.runtime; print('\\n'.join(sys.modules))"
    loaded = set(fresh(code).split())
    assert "tcc.runtime" in loaded
    unwanted = (
        "tcc.ir",
        "tcc.passes",
        "tcc.codegen",
        "tcc.compiler",
        "onnx",
        "lark",
        "networkx",
        "llvmlite.ir",
        "rich",
    )
    assert not sorted(name for name in loaded if within(name, set(unwanted)))
