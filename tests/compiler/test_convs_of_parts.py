# SPDX-License-Identifier: Apache-2.0
"""Padded convolutions that read a part of a tensor (a half of the channels, as in YOLOv8; a crop): where it lies if its
padding is the padding of the whole, else from a copy; never by a test at every element."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import tcc
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tests.compiler.control_models import model, n, normal, value
from tests.compiler.test_control_flow import right

CHANNELS = ([0, 8, 0, 0], [1, 24, 15, 13])
PARTS = {
    "channels": CHANNELS,
    "rows": ([0, 0, 3, 0], [1, 32, 12, 13]),
    "both": ([0, 4, 0, 2], [1, 20, 15, 11]),
    "one row": ([0, 0, 7, 0], [1, 32, 8, 13]),
}


def part_then_conv(part: tuple[list[int], list[int]]) -> onnx.ModelProto:
    begin, end = part
    channels = end[1] - begin[1]
    return model(
        [
            n("Conv", ["x", "P"], ["p"]),
            n("Relu", ["p"], ["a"]),
            n("Slice", ["a", "begin", "end"], ["s"], "part"),
            n("Conv", ["s", "W"], ["c"], "conv", pads=[1, 1, 1, 1]),
            n("Relu", ["c"], ["r"]),
            n("Add", ["r", "s"], ["y"]),
            n("ReduceMean", ["a"], ["mean"], axes=[2, 3]),
        ],
        [value("x", (1, 3, 15, 13))],
        [value("y", (1, *(e - b for b, e in zip(begin, end, strict=True)))[1:]), value("mean", (1, 32, 1, 1))],
        {
            "P": normal(0, 32, 3, 1, 1),
            "W": normal(1, channels, channels, 3, 3) / 9,
            "begin": np.array(begin),
            "end": np.array(end),
        },
    )


@pytest.mark.parametrize("target", ["cpu", "sm_86"])
@pytest.mark.parametrize("name", PARTS)
def test_no_naive_convolution(name: str, target: str) -> None:
    kernels = compile_model(part_then_conv(PARTS[name]), Options(target=target)).kernels
    assert not [k for k in kernels.values() if "naive" in k["template"]]


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("name", PARTS)
def test_right(name: str, level: int) -> None:
    made = part_then_conv(PARTS[name])
    engine: Any = tcc.compile(made, target="cpu", opt_level=level, random_seed=5 if level == 3 else None)
    given = {"x": normal(2, 1, 3, 15, 13)}
    for name_, want in right(made, given).items():
        np.testing.assert_allclose(engine(given)[name_], want, rtol=1e-4, atol=1e-4)


def test_a_factor_that_the_epilogue_adds_is_read_from_memory() -> None:
    made = model(
        [
            n("Sub", ["x", "z"], ["s"]), n("Relu", ["s"], ["a"]), n("Conv", ["a", "W"], ["c"], pads=[1, 1, 1, 1]),
            n("Add", ["c", "a"], ["y"]),
        ],
        [value("x", (1, 16, 9, 9)), value("z", (1, 16, 9, 9))], [value("y", (1, 16, 9, 9))],
        {"W": normal(1, 16, 16, 3, 3) / 9},
    )  # fmt: skip
    engine: Any = tcc.compile(made, target="cpu")
    assert not [k for k in engine.kernels.values() if "naive" in k["template"]]
    given = {"x": normal(2, 1, 16, 9, 9), "z": normal(3, 1, 16, 9, 9)}
    np.testing.assert_allclose(engine(given)["y"], right(made, given)["y"], rtol=1e-4, atol=1e-4)
