# SPDX-License-Identifier: Apache-2.0
"""Weights quantized by blocks against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tcc
from tcc.compiler.frontend import load_onnx
from tcc.compiler.frontend.ops.contrib_blocks import unpacked
from tcc.errors import InputError
from tcc.ir.parser import parse
from tcc.ir.printer import print_op
from tests.compiler.contrib.peers import F16, F32, Array, check, normal, rng, single

Operands = list[tuple[str, Array] | None]


def product(
    bits: int, block: int, depth: int, rows: int, zeros: str | None = None, order: bool = False, bias: bool = False,
    dtype: Any = np.float32,
) -> tuple[Operands, dict[str, int]]:  # fmt: skip
    r, blocks = rng(4), -(-depth // block)
    points: Array | None = None
    if zeros == "packed":
        points = r.integers(0, 256, rows * -(-blocks * bits // 8)).astype(np.uint8)
    elif zeros == "plain":
        points = r.uniform(0, 1 << bits, (rows, blocks)).astype(dtype)
    operands: Operands = [
        ("a", normal(0, 2, 3, depth, dtype=dtype)),
        ("b", r.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8)),
        ("scales", r.uniform(0.01, 0.1, rows * blocks).astype(dtype)),
        None if points is None else ("zeros", points),
        ("order", r.permutation(np.arange(depth) // block).astype(np.int32)) if order else None,
        ("bias", normal(5, rows, dtype=dtype)) if bias else None,
    ]
    while operands[-1] is None:
        operands.pop()
    return operands, {"bits": bits, "block_size": block, "K": depth, "N": rows}


HELD = ("b", "scales", "zeros", "order", "bias")


SHAPES = [(4, 32, 64, 7), (4, 16, 67, 5), (8, 32, 96, 8), (8, 16, 35, 3)]


@pytest.mark.parametrize(
    ("bits", "block", "depth", "rows", "zeros"),
    [(*s, z) for s in SHAPES for z in (None, "packed", "plain") if (s[0], z) != (8, "plain")],
)
def test_products(bits: int, block: int, depth: int, rows: int, zeros: str | None) -> None:
    operands, attributes = product(bits, block, depth, rows, zeros)
    check("MatMulNBits", operands, [F32], HELD, **attributes)


def test_product_with_a_bias() -> None:
    operands, attributes = product(4, 16, 48, 6, "packed", bias=True)
    check("MatMulNBits", operands, [F32], HELD, **attributes)


@pytest.mark.parametrize("zeros", [None, "plain"])
def test_product_with_blocks_out_of_order(zeros: str | None) -> None:
    """Not with packed zero points, which ONNX Runtime leaves out then."""
    operands, attributes = product(4, 16, 64, 6, zeros, order=True)
    check("MatMulNBits", operands, [F32], HELD, **attributes)


def test_products_of_halves() -> None:
    operands, attributes = product(4, 32, 64, 8, dtype=np.float16)
    check("MatMulNBits", operands, [F16], HELD, tolerance=1e-2, **attributes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_many_rows(bits: int, dtype: Any) -> None:
    """More rows than are multiplied from the bytes: a kernel unpacks the weights."""
    operands, attributes = product(bits, 16, 67, 9, "packed", dtype=dtype)
    operands[0] = ("a", normal(0, 5, 4, 67, dtype=dtype))
    if bits == 2:  # which ONNX Runtime does not take with zero points
        operands[3:] = []
    check("MatMulNBits", operands, [F32 if dtype == np.float32 else F16], HELD, tolerance=1e-2, **attributes)


@pytest.mark.parametrize("rows", [1, 40])
def test_weights_stay_packed(rows: int) -> None:
    depth, width = 512, 1024
    operands, attributes = product(4, 32, depth, width, "packed")
    operands[0] = ("a", normal(0, rows, depth))
    model, given = single("MatMulNBits", operands, [F32], HELD, **attributes)
    engine = tcc.compile(model, target="cpu", opt_level=1)
    assert engine.weight_bytes < 1.6 * depth * width / 2
    module = load_onnx(model).module
    assert "tcc.keep" in print_op(module)
    assert print_op(parse(print_op(module), resources=module.resources)) == print_op(module)
    scales, packed = (dict(o for o in operands if o)[k] for k in ("scales", "b"))
    points = unpacked(dict(o for o in operands if o)["zeros"].reshape(width, -1), 4).astype(np.float64)
    wide = unpacked(packed, 4).astype(np.float64) - points[:, :, None]
    wide = (wide * scales.reshape(width, -1, 1)).reshape(width, depth)
    wanted = given["a"] @ wide.T
    np.testing.assert_allclose(engine(given)["y0"], wanted, atol=1e-4 * np.abs(wanted).max())


TABLES: dict[str, tuple[Any, dict[str, int]]] = {
    "8 bits": (np.uint8, {"bits": 8}),
    "4 bits, packed": (np.uint8, {"bits": 4}),
    "i4": (ml_dtypes.int4, {"bits": 4}),
    "u4": (ml_dtypes.uint4, {"bits": 4}),
}


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_gathered_rows(name: str, zeros: bool) -> None:
    kind, attributes = TABLES[name]
    r = rng(2)
    each = 2 if name == "4 bits, packed" else 1
    low, high = (0, 256) if kind == np.uint8 else (-8, 8) if kind == ml_dtypes.int4 else (0, 16)
    data = r.integers(low, high, (11, 64 // each)).astype(kind)
    operands: Operands = [
        ("data", data),
        ("i", np.array([[3, -1, 0], [10, 2, 2]], np.int64)),
        ("scales", r.uniform(0.01, 0.1, (11, 4)).astype(np.float32)),
        ("zeros", r.integers(low, high, (11, 4 // each)).astype(kind)) if zeros else None,
    ]
    check(
        "GatherBlockQuantized",
        [o for o in operands if o],
        [F32],
        ("data", "scales", "zeros"),
        block_size=16,
        **attributes,
    )


def test_another_axis_is_gathered() -> None:
    r = rng(2)
    operands: Operands = [
        ("data", r.integers(-8, 8, (33, 6, 2)).astype(ml_dtypes.int4)),
        ("i", np.array([1, 5], np.int32)),
        ("scales", r.uniform(0.01, 0.1, (3, 6, 2)).astype(np.float32)),
    ]
    check(
        "GatherBlockQuantized", operands, [F32], ("data", "scales"), block_size=16, gather_axis=1, quantize_axis=0
    )  # fmt: skip


def test_what_does_not_fit_is_refused() -> None:
    operands, attributes = product(4, 32, 64, 7)
    for words, changed in (
        ("its attribute bits is 5", {"bits": 5}),
        ("its K is 60", {"K": 60}),
        ("B has 224 bytes, which is not 9 rows", {"N": 9}),
        ("its attribute weight_prepacked is 1", {"weight_prepacked": 1}),
    ):
        with pytest.raises(InputError, match=words):
            load_onnx(single("MatMulNBits", operands, [F32], HELD, **{**attributes, **changed})[0])
    with pytest.raises(InputError, match=r"its input 1 \(B\) must be known"):
        load_onnx(single("MatMulNBits", operands, [F32], ("scales",), **attributes)[0])
