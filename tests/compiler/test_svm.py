# SPDX-License-Identifier: Apache-2.0
"""Support vector machines against ONNX Runtime: kernels, numbers of classes, probabilities, labels, transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import tcc
from tcc.compiler.driver import compile_model
from tcc.compiler.options import Options
from tcc.errors import InputError

FEATURES, ROWS = 5, 23
KERNELS = {
    "LINEAR": (0.0, 0.0, 0.0), "POLY": (0.3, 0.5, 3.0), "RBF": (0.2, 0.0, 0.0), "SIGMOID": (0.1, -0.2, 0.0),
}  # fmt: skip


def made(op: str, outputs: dict[str, int], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], list(outputs), "svm", domain="ai.onnx.ml", **attributes)
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "svm", [x], infos), opset_imports=opsets, ir_version=8)


def classifier(
    kernel: str, classes: int, probable: bool = False, transform: str = "NONE", strings: bool = False,
    positive: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    rng = np.random.default_rng(classes)
    of_class = [3 + i for i in range(classes)]
    count, pairs = sum(of_class), classes * (classes - 1) // 2
    coefficients = rng.standard_normal((classes - 1, count)).astype(np.float32)
    more: dict[str, Any] = {}
    if probable:
        more = {"prob_a": rng.uniform(-2, -1, pairs).tolist(), "prob_b": rng.uniform(-0.3, 0.3, pairs).tolist()}
    labels: dict[str, Any] = {"classlabels_ints": [7 * i - 3 for i in range(classes)]}
    if strings:
        labels = {"classlabels_strings": [f"größe {i}" for i in range(classes)]}
    return made(
        "SVMClassifier", {"label": TensorProto.STRING if strings else TensorProto.INT64, "scores": TensorProto.FLOAT},
        kernel_type=kernel, kernel_params=KERNELS[kernel], vectors_per_class=of_class, post_transform=transform,
        support_vectors=rng.standard_normal(count * FEATURES).tolist(), rho=rng.standard_normal(pairs).tolist(),
        coefficients=(np.abs(coefficients) if positive else coefficients).reshape(-1).tolist(), **labels, **more,
    )  # fmt: skip


def check(model: onnx.ModelProto, level: int = 1) -> dict[str, Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine: Any = tcc.compile(model, target="cpu", opt_level=level)
    out: dict[str, Any] = {}
    for rows in (ROWS, 1):
        x = np.random.default_rng(rows).standard_normal((rows, FEATURES)).astype(np.float32)
        got = engine({"x": x})
        for info, want in zip(session.get_outputs(), session.run(None, {"x": x}), strict=True):
            want = np.asarray(want)
            assert got[info.name].shape == want.shape
            if want.dtype.kind == "f":
                np.testing.assert_allclose(got[info.name], want, rtol=2e-4, atol=2e-5)
            else:
                assert got[info.name].tolist() == want.tolist()
            out.setdefault(info.name, want)
    return out


@pytest.mark.parametrize("probable", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_classifiers(kernel: str, classes: int, probable: bool) -> None:
    out = check(classifier(kernel, classes, probable))
    assert len(set(out["label"].tolist())) > 1 or kernel == "RBF"


# Of one score, ONNX Runtime makes 1 - score and score where the standard has a softmax of -score and score.
@pytest.mark.parametrize(
    ("classes", "transform"), [(2, "LOGISTIC"), (3, "LOGISTIC"), (3, "SOFTMAX"), (3, "SOFTMAX_ZERO")]
)
def test_transforms(classes: int, transform: str) -> None:
    check(classifier("RBF", classes, transform=transform))


@pytest.mark.parametrize("classes", [2, 3])
def test_string_labels_and_positive_coefficients(classes: int) -> None:
    check(classifier("LINEAR", classes, probable=True, strings=True), level=0)
    check(classifier("LINEAR", classes, positive=True))


def test_linear_classifiers_have_no_vectors() -> None:
    classes = 3
    rng = np.random.default_rng(classes)
    model = made(
        "SVMClassifier", {"label": TensorProto.INT64, "scores": TensorProto.FLOAT}, kernel_type="LINEAR",
        kernel_params=[0.0, 0.0, 0.0], coefficients=rng.standard_normal(classes * FEATURES).tolist(),
        rho=rng.standard_normal(classes).tolist(), classlabels_ints=list(range(classes)), post_transform="NONE",
    )  # fmt: skip
    none = helper.make_attribute("support_vectors", [], attr_type=onnx.AttributeProto.FLOATS)
    model.graph.node[0].attribute.append(none)
    check(model)


@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize(("kernel", "supports"), [("LINEAR", 0), *((k, 9) for k in KERNELS)])
def test_regressors(kernel: str, supports: int, one_class: int) -> None:
    rng = np.random.default_rng(supports)
    vectors = {"support_vectors": rng.standard_normal(supports * FEATURES).tolist()} if supports else {}
    check(
        made(
            "SVMRegressor", {"y": TensorProto.FLOAT}, kernel_type=kernel, kernel_params=KERNELS[kernel], rho=[0.2],
            coefficients=rng.standard_normal(supports or FEATURES).tolist(), n_supports=supports, one_class=one_class,
            post_transform="NONE", **vectors,
        )
    )  # fmt: skip


def test_on_a_gpu_too() -> None:
    options = Options(target="sm_86", shapes={"x": (ROWS, FEATURES)})
    assert compile_model(classifier("RBF", 3, probable=True), options).kernels


def test_numbers_that_do_not_fit() -> None:
    model = classifier("RBF", 3)
    coefficients = next(a for a in model.graph.node[0].attribute if a.name == "coefficients")
    del coefficients.floats[-1]
    with pytest.raises(InputError, match=r'"svm".*coefficients'):
        tcc.compile(model, target="cpu", shapes={"x": (ROWS, FEATURES)})
