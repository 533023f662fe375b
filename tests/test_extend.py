# SPDX-License-Identifier: Apache-2.0
"""Runs the three walks of docs/extend.md on a copy of the tree: their diffs apply, and what they add works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def apply(text: str, tree: Path) -> None:
    """Apply the diffs of one block: whole new files, or hunks found by the lines that they keep and remove."""
    for part in re.split(r"^--- ", text, flags=re.MULTILINE)[1:]:
        head, target, *lines = part.split("\n")
        path = tree / target.removeprefix("+++ b/")
        hunks = re.split(r"^@@.*@@$", "\n".join(lines), flags=re.MULTILINE)[1:]
        if head == "/dev/null":
            assert not path.exists(), f"{path} is there already"
            body = [line[1:] for line in hunks[0].strip("\n").split("\n")]
            assert all(line.startswith("+") for line in hunks[0].strip("\n").split("\n"))
            path.write_text("\n".join(body).rstrip("\n") + "\n")
            continue
        content = path.read_text()
        for hunk in hunks:
            rows = hunk.strip("\n").split("\n")
            old = "\n".join(r[1:] for r in rows if r[:1] in " -") + "\n"
            new = "\n".join(r[1:] for r in rows if r[:1] in " +") + "\n"
            assert old in content, f"{path}: the lines of the hunk are not there:\n{old}"
            at = content.index(old)
            content = content[:at] + new + content[at + len(old) :]
        path.write_text(content)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the walks touch."""
    for name in ("tcc", "tests", "benchmarks", "spec"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def walk(kind: str, tree: Path) -> None:
    blocks = re.findall(
        rf"^```diff {kind}\n(.*?)^```$", (ROOT / "docs" / "extend.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert blocks
    for block in blocks:
        apply(block, tree)


def run(tree: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree), "TCC_CACHE_DIR": str(tree / "cache")}
    done = subprocess.run(command, check=False, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


OP = """
import numpy as np, onnx, tcc
from onnx import TensorProto, helper
assert tcc.__file__.startswith({tree!r}), tcc.__file__
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 17])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 17])
node = helper.make_node("SigmoidGate", ["x"], ["y"], domain="org.example", alpha=1.5)
imports = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=imports, ir_version=10)
given = np.random.default_rng(0).standard_normal((3, 17)).astype(np.float32)
mine = tcc.compile(model, target="cpu")({{"x": given}})["y"]
right = given / (1 + np.exp(-1.5 * given.astype(np.float64)))
assert np.abs(mine - right).max() < 1e-6
print("ok")
"""

TEMPLATE = """
import json, numpy as np, tcc
from onnx import TensorProto, helper
from pathlib import Path
assert tcc.__file__.startswith({tree!r}), tcc.__file__
a = helper.make_tensor_value_info("a", TensorProto.FLOAT, [300, 257])
b = helper.make_tensor_value_info("b", TensorProto.FLOAT, [100, 257])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [400, 257])
node = helper.make_node("Concat", ["a", "b"], ["y"], name="joined", axis=0)
graph, imports = helper.make_graph([node], "g", [a, b], [y]), [helper.make_opsetid("", 17)]
model = helper.make_model(graph, opset_imports=imports, ir_version=10)
rng = np.random.default_rng(0)
given = {{"a": rng.standard_normal((300, 257), np.float32), "b": rng.standard_normal((100, 257), np.float32)}}
Path("tactics.json").write_text(json.dumps({{"joined": {{"template": "llvm.copy"}}}}))
engine = tcc.compile(model, target="cpu", opt_level=3, search_seconds=0, tactics="tactics.json")
assert {{k["template"] for k in engine.kernels.values()}} == {{"llvm.copy"}}, engine.kernels
assert np.array_equal(engine(given)["y"], np.concatenate([given["a"], given["b"]]))
print("ok")
"""


def test_an_op(tree: Path) -> None:
    walk("op", tree)
    assert run(tree, sys.executable, "-c", OP.format(tree=str(tree))) == "ok\n"


def test_a_pass(tree: Path) -> None:
    walk("pass", tree)
    run(
        tree,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/passes",
        "-k",
        "drop_double_negation",
    )


def test_a_template(tree: Path) -> None:
    walk("template", tree)
    assert run(tree, sys.executable, "-c", TEMPLATE.format(tree=str(tree))) == "ok\n"
