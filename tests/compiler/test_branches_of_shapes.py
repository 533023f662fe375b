# SPDX-License-Identifier: Apache-2.0
"""Branches for inputs of other shapes than those compiled for: an error for the call that takes them, no other.

Silero VAD has one branch for each sampling rate, and each takes windows of its own length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import tcc
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tcc.errors import FailureError, InputError
from tests.compiler.control_models import BOOL, body, model, n, normal, value
from tests.compiler.test_control_flow import right


def windows(inner: str = "MatMul", second: int = 5) -> onnx.ModelProto:
    """x W for windows of 3, x V for windows of `second`."""
    branches = [
        body([n(op, ["x", w], ["b"])], [], [value("b", (None, None))]) for op, w in (("MatMul", "W"), (inner, "V"))
    ]
    return model(
        [
            n("If", ["first"], ["z"], "choice", then_branch=branches[0], else_branch=branches[1]),
            n("Tanh", ["z"], ["y"]),
        ],
        [value("x", ("batch", "window")), value("first", (), BOOL)],
        [value("y", (None, None))],
        {"W": normal(0, 3, 4), "V": normal(1, second, 4)},
    )


def test_the_branch_that_fits_runs_and_the_other_is_an_error() -> None:
    made = windows()
    engine: Any = tcc.compile(made, target="cpu")
    for length, first in ((3, True), (5, False), (3, True)):
        given = {"x": normal(2, 2, length), "first": np.array(first)}
        np.testing.assert_allclose(engine(given)["y"], right(made, given)["y"], rtol=1e-5)
    with pytest.raises(FailureError, match=r"of choice.*cannot be computed for inputs of these shapes.*MatMul"):
        engine({"x": normal(2, 2, 3), "first": np.array(False)})
    assert any(row["kind"] == "host-op" and "refuse" in row["message"] for row in engine.report)


@pytest.mark.parametrize("target", ["cpu", "sm_86"])
def test_bound_shapes_make_an_engine(target: str) -> None:
    options = Options(target=target, shapes={"x": (2, 3)})
    assert compile_model(windows(), options).kernels


def test_two_branches_that_do_not_fit_are_a_problem_of_the_model() -> None:
    with pytest.raises(InputError, match="MatMul"):
        tcc.compile(windows(), target="cpu", shapes={"x": (2, 7)})


def test_what_no_shape_would_settle_is_one_too() -> None:
    made = windows()
    branch = next(a.g for a in made.graph.node[0].attribute if a.name == "else_branch")
    branch.node[0].op_type, branch.node[0].domain = "Mystery", "nowhere"
    made.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    with pytest.raises(InputError, match="Mystery"):
        tcc.compile(made, target="cpu", shapes={"x": (2, 3)})
    branch.node[0].op_type, branch.node[0].domain, branch.node[0].input[0] = "MatMul", "", "absent"
    with pytest.raises(InputError, match="absent"):
        tcc.compile(made, target="cpu", shapes={"x": (2, 3)})
