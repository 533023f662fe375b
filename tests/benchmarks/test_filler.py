# SPDX-License-Identifier: Apache-2.0
"""The filler gives every weight a value that matters, the same every time."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from benchmarks import filler, zoo
from benchmarks.filler import BIAS, MATRIX, MEAN, SCALE, TABLE, VARIANCE, Role, Weight

LIKE_OTHERS = ("light_vgg19", "light_zfnet512", "vit_base_patch16_224")
"""Large models of the layers of light_bvlc_alexnet and bert_base."""

SAMPLE = 12  # weights redrawn per model, one run each


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feedable(name: str, weights: dict[str, np.ndarray]) -> ort.InferenceSession:
    """A session of the zoo's model `name` whose weights are inputs, so that they can differ from run to run."""
    model = zoo.load(name)
    kept = [
        TensorProto.FromString(each.SerializeToString()) for each in model.graph.initializer if each.name not in weights
    ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for weight, value in weights.items():
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(helper.make_tensor_value_info(weight, dtype, value.shape))
    return session(model)


def change(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """The largest change of any output, relative to that output's largest value."""
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(before, after, strict=True))


def sampled(name: str, roles: dict[str, Role], rng: np.random.Generator) -> list[str]:
    """One weight of each role, the first and the last of all, and others drawn at random."""
    order = list(roles)
    by_role = [
        str(rng.choice([each for each in order if roles[each].kind == kind]))
        for kind in {r.kind for r in roles.values()}
    ]
    drawn = [str(each) for each in rng.permutation(order)]
    picked = list(dict.fromkeys([order[0], order[-1], *sorted(by_role), *drawn]))
    return [each for each in picked if not each.endswith("key.bias")][:SAMPLE]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.filled_models() if name not in (*zoo.MORE, *LIKE_OTHERS)])
def test_every_weight_matters(name: str, rng: np.random.Generator):
    bare, gains, values = zoo.weightless(name), filler.gains(name), zoo.weights(name)
    roles, weights = filler.roles(bare), filler.weights(bare)
    running, inputs = feedable(name, values), zoo.inputs(name)
    before = running.run(None, {**inputs, **values})
    assert all(np.isfinite(output).all() and np.std(output) > 0 for output in before)
    unseen = {}
    for weight in sampled(name, roles, rng):
        other = filler.array(weight, weights[weight], roles[weight], seed=1, gain=gains.get(weight, 1.0))
        moved = change(before, running.run(None, {**inputs, **values, weight: other}))
        # ONNX Runtime's own differences are near 2e-6; the least seen of any weight of the zoo is 1e-4.
        if not moved > 5e-5:
            unseen[weight] = moved
    assert not unseen


@pytest.mark.slow
def test_a_key_bias_is_the_one_weight_that_cannot_matter():
    # It adds one number to all scores of a query, which the softmax takes away again; so it is exempt above.
    values = zoo.weights("bert_base")
    running, inputs = feedable("bert_base", values), zoo.inputs("bert_base")
    before = running.run(None, {**inputs, **values})
    key = "bert.encoder.layer.5.attention.self.key.bias"
    assert change(before, running.run(None, {**inputs, **values, key: values[key] + 1.0})) < 5e-5


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", "mobilenetv3_large_100", "efficientnet_b0"])
def test_the_input_matters(name: str):
    running = session(zoo.load(name))
    first, again, other = (running.run(None, zoo.inputs(name, seed)) for seed in (0, 0, 1))
    assert change(first, again) == 0
    assert change(first, other) > 1e-2


def test_the_same_seed_gives_the_same_model():
    one, two, other = (zoo.load("light_squeezenet", seed) for seed in (0, 0, 1))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    assert one.SerializeToString(deterministic=True) != other.SerializeToString(deterministic=True)


def test_light_models_lose_their_constants_and_keep_their_shapes():
    bare, model = zoo.weightless("light_bvlc_alexnet"), zoo.load("light_bvlc_alexnet")
    assert not [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    assert [value.name for value in model.graph.input] == ["data_0"]
    targets = {each.name: each for each in bare.graph.initializer if each.name == "OC2_DUMMY_1"}
    assert next(each for each in model.graph.initializer if each.name == "OC2_DUMMY_1") == targets["OC2_DUMMY_1"]
    onnx.checker.check_model(model, full_check=True)


def draw(role: Role, dims: tuple[int, ...] = (64, 400)) -> np.ndarray:
    return filler.array("w", Weight(TensorProto.FLOAT, dims), role)


def test_distributions():
    matrix = draw(Role(MATRIX, 400))
    assert matrix.dtype == np.float32
    assert matrix.std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)
    for kind in (SCALE, VARIANCE):
        assert 0.5 <= draw(Role(kind)).min() < 0.51 and 1.49 < draw(Role(kind)).max() <= 1.5
    for kind in (BIAS, MEAN):
        values = draw(Role(kind))
        assert np.abs(values).min() >= 0.05 and np.abs(values).max() <= 0.25
        assert 0.45 < (values > 0).mean() < 0.55
    assert draw(Role(TABLE)).std() == pytest.approx(1, rel=0.02)
    assert np.array_equal(draw(Role(MATRIX, 400)), matrix)
    half = filler.array("w", Weight(TensorProto.FLOAT16, (8,)), Role(BIAS))
    assert half.dtype == np.float16


def test_roles_follow_the_graph():
    shapes = {
        "kernel": (8, 3, 5, 5), "bias": (8,), "gamma": (8,), "beta": (8,), "mean": (8,), "var": (8,), "after": (8,),
        "dense": (10, 8), "left": (4, 10), "table": (7, 10), "rows": (10, 6),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("Unsqueeze", ["after"], ["wide"], axes=[1, 2]),
        helper.make_node("Mul", ["n", "wide"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Transpose", ["dense"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["f", "turned"], ["d"]),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Add", ["d", "e"], ["s"]),
        helper.make_node("Gemm", ["left", "s"], ["g"], transB=1),
        helper.make_node("Gemm", ["s", "rows"], ["h"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()]
    graph = helper.make_graph(nodes, "g", values, [helper.make_value_info("h", onnx.TypeProto())])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"tcc.weights": str(list(shapes)).replace("'", '"')})
    assert filler.roles(model) == {
        "kernel": Role(MATRIX, 75), "bias": Role(BIAS), "gamma": Role(SCALE), "beta": Role(BIAS), "mean": Role(MEAN),
        "var": Role(VARIANCE), "after": Role(SCALE), "dense": Role(MATRIX, 8), "left": Role(MATRIX, 10),
        "table": Role(TABLE), "rows": Role(MATRIX, 10),
    }  # fmt: skip


def test_a_weight_without_a_role_is_an_error():
    nodes = [helper.make_node("Relu", ["w"], ["y"])]
    values = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])]
    model = helper.make_model(helper.make_graph(nodes, "g", values, [helper.make_value_info("y", onnx.TypeProto())]))
    helper.set_model_props(model, {"tcc.weights": '["w"]'})
    with pytest.raises(ValueError, match=r"role of the weight 'w' is unknown: it is used by \['Relu'\]"):
        filler.roles(model)
