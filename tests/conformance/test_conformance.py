# SPDX-License-Identifier: Apache-2.0
"""A sample of ONNX's backend tests through `tcc.backend` on the CPU; `python -m tests.conformance.report` runs all."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tcc
import tcc.backend
from tcc.errors import InputError
from tests.conformance.suite import Case, attempt, cases, skips
from tests.conformance.without_kernel import WITHOUT_KERNEL

# Cases that once failed stand beside every twelfth.
ONCE_FAILED = (
    "test_bitshift_right_int8_shift_ge_width", "test_bitshift_left_int32_negative_shift", "test_cast_FLOAT16_to_INT4",
    "test_cast_e8m0_FLOAT_to_FLOAT8E8M0", "test_cast_no_saturate_FLOAT_to_FLOAT8E5M2", "test_nonzero_example",
    "test_nonmaxsuppression_two_batches", "test_unique_sorted_with_axis_3d", "test_stft", "test_lstm_batchwise",
    "test_reshape_zero_and_negative_dim", "test_squeeze", "test_operator_index",
)  # fmt: skip


@pytest.mark.parametrize("opt_level", [0, 1])
def test_a_sample_gives_the_stored_outputs(opt_level: int) -> None:
    chosen = dict.fromkeys([*list(cases())[opt_level :: 24 if opt_level else 48], *ONCE_FAILED])
    found = [attempt(cases()[n], opt_level=opt_level) for n in chosen]
    bad = [f"{o.name}: {o.verdict}: {o.message}" for o in found if o.verdict not in ("pass", "refused", "idle")]
    assert not bad, "\n".join(bad)
    assert sum(o.verdict == "pass" for o in found) > 0.9 * len(found)


def test_the_cases_are_all_but_ten_that_cannot_be_reproduced() -> None:
    kinds = Counter(c.kind for c in cases().values())
    assert len(skips()) <= 10 and all(skips().values())
    assert not set(skips()) & set(cases())
    assert kinds["node"] + len(skips()) == 1884
    assert kinds.total() - kinds["node"] == 149


def test_numeric_work_without_a_kernel_is_seen() -> None:
    right = cases()["test_relu"]
    (inputs, outputs) = right.data[0]
    twice = [helper.make_node("Relu", ["x"], ["y"])]
    still = Case("still", "node", small(twice, {"x": (TensorProto.FLOAT, [0, 2])}), [], 1e-3, 1e-6)
    still.data = [([np.zeros((0, 2), np.float32)], [np.zeros((0, 2), np.float32)])]
    assert attempt(still).verdict == "pass"  # there is nothing to compute
    unique = cases()["test_unique_sorted_without_axis"]
    assert attempt(unique).launches == 0 and attempt(unique).verdict == "pass"
    assert "Unique" in WITHOUT_KERNEL and "Relu" not in WITHOUT_KERNEL
    assert attempt(Case("r", "node", right.model, [(inputs, outputs)], 1e-3, 1e-6)).launches == 1


def test_a_wrong_output_is_seen() -> None:
    right = cases()["test_relu"]
    (inputs, (y,)) = right.data[0]
    wrong = Case(right.name, right.kind, right.model, [(inputs, [np.where(y > 1, y + 0.1, y)])], 1e-3, 1e-6)
    assert attempt(right).verdict == "pass"
    assert attempt(wrong).verdict == "wrong"


def small(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[int | str]]]) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_prepare_waits_for_shapes_and_small_values() -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    rep = tcc.backend.prepare(small(nodes, {"x": (TensorProto.FLOAT, ["n", 3]), "axes": (TensorProto.INT64, [1])}))
    for n, axis in ((2, 0), (2, 1), (5, 0)):
        x = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
        (y,) = rep.run([x, np.array([axis])])
        np.testing.assert_array_equal(y, x.sum(axis))


def test_run_node_and_devices() -> None:
    x = np.array([[-1, 2]], np.float32)
    (y,) = tcc.backend.run_node(helper.make_node("Relu", ["x"], ["y"]), [x])
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert tcc.backend.supports_device("CPU")
    assert not tcc.backend.supports_device("TPU")
    with pytest.raises(InputError, match="TPU"):
        tcc.backend.prepare(small([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [2])}), "TPU")


def test_the_backend_says_what_it_cannot_do() -> None:
    odd = small([helper.make_node("Frobnicate", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [2, 2])})
    assert not tcc.backend.is_compatible(odd)
    with pytest.raises(InputError, match="Frobnicate"):
        tcc.backend.prepare(odd)
    fine = small([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [2, 2])})
    assert tcc.backend.is_compatible(fine)
    with pytest.raises(InputError, match="2 inputs are given"):
        tcc.backend.prepare(fine).run([np.zeros((2, 2), np.float32)] * 2)


def test_extents_that_data_decide() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Transpose", ["i"], ["y"])]
    engine = tcc.compile(small(nodes, {"x": (TensorProto.FLOAT, [3, 4])}), target="cpu")
    for seed in range(3):
        x = np.random.default_rng(seed).integers(0, 2, (3, 4)).astype(np.float32)
        np.testing.assert_array_equal(engine(x)["y"], np.transpose(np.nonzero(x)))
