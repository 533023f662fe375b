# SPDX-License-Identifier: Apache-2.0
"""The seeded filler: weights for an ONNX graph that has none, or has them all equal.

What a weight is drawn from follows from what the graph does with it (`roles`):

| role | drawn from |
|---|---|
| matrix (convolutions, matrix products) | He-normal, 0 ± gain × √(2 / fan-in) |
| scale, variance (norms, layer scales) | uniform in [0.5, 1.5] |
| bias, mean | magnitude uniform in [0.05, 0.25], either sign: never zero |
| slope (PRelu) | uniform in [0.1, 0.4] |
| table (embeddings, position codes, class tokens) | normal, 0 ± gain |

The gain is 1 unless given. `benchmarks/models/gains.json`, made by `benchmarks.calibrate`, holds for each model of
the zoo the gains with which every product has an output near unit size, so that no deep network overflows (float16
included) or goes quiet. The numbers depend on the seed and the initialiser's name only, never on the order of
weights.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.weightless import unpack, weight_names

GAINS = Path(__file__).resolve().parent / "models" / "gains.json"

MATRIX, SCALE, VARIANCE, BIAS, MEAN, SLOPE, TABLE = "matrix", "scale", "variance", "bias", "mean", "slope", "table"
# The roles that a weight's place among a node's inputs gives it. Of several uses the first role in this order wins.
PRIORITY = (MATRIX, VARIANCE, SCALE, MEAN, BIAS, SLOPE, TABLE)
NORMS = {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"}
PASSES = {"Identity", "Cast", "Dropout", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Flatten"}


@dataclass(frozen=True)
class Role:
    """What a weight is for, and, for a matrix, how many products are summed into one output."""

    kind: str
    fan_in: int = 0


@dataclass(frozen=True)
class Weight:
    """A weight to be filled: its element type and dims."""

    dtype: int  # an onnx.TensorProto.DataType
    dims: tuple[int, ...]


def weights(model: onnx.ModelProto) -> dict[str, Weight]:
    """The weights of `model` by name: those a weightless model lists; else every float tensor of two elements or more
    that is an initialiser or a ConstantOfShape of a constant shape (the light models of the onnx package)."""
    names = weight_names(model)
    if names is not None:
        inputs = {value.name: value.type.tensor_type for value in model.graph.input}
        return {
            name: Weight(inputs[name].elem_type, tuple(dim.dim_value for dim in inputs[name].shape.dim))
            for name in names
        }
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {
        name: Weight(tensor.data_type, tuple(tensor.dims))
        for name, tensor in initialisers.items()
        if tensor.data_type in floats and np.prod(tensor.dims) > 1
    }
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in initialisers:
            value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
            dtype = value.data_type if value is not None else TensorProto.FLOAT
            if dtype in floats:
                shape = numpy_helper.to_array(initialisers[node.input[0]])
                found[node.output[0]] = Weight(dtype, tuple(int(dim) for dim in shape))
    return found


def roles(model: onnx.ModelProto) -> dict[str, Role]:
    """The role of each weight, found by following it through transposes, casts and the like to its uses.

    Raises ValueError, naming the weight, where no use says what it is.
    """
    consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            consumers.setdefault(name, []).append((node, position))
    shapes = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64}
    found: dict[str, Role] = {}
    for name, weight in weights(model).items():
        uses: list[Role] = []
        seen: list[str] = []
        pending: list[tuple[str, tuple[int, ...] | None]] = [(name, weight.dims)]
        while pending:
            value, dims = pending.pop()
            for node, position in consumers.get(value, []):
                seen.append(node.op_type)
                if node.op_type in PASSES and position == 0:
                    pending.append((node.output[0], _through(node, dims, shapes)))
                    continue
                use = _use(node, position, dims)
                if use is not None:
                    uses.append(use)
        if not uses:
            raise ValueError(
                f"the role of the weight {name!r} is unknown: it is used by {sorted(set(seen)) or 'nothing'}"
            )
        found[name] = min(uses, key=lambda use: PRIORITY.index(use.kind))
    return found


def _attribute(node: onnx.NodeProto, name: str, default: int | list[int]) -> int | list[int]:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _through(
    node: onnx.NodeProto, dims: tuple[int, ...] | None, shapes: Mapping[str, TensorProto]
) -> tuple[int, ...] | None:
    """The dims of a weight after a node that only moves it; None where they are not known (and seldom matter)."""
    if dims is None or node.op_type in {"Identity", "Cast", "Dropout"}:
        return dims
    if node.op_type == "Transpose":
        order = _attribute(node, "perm", list(range(len(dims)))[::-1])
        assert isinstance(order, list)
        return tuple(dims[axis] for axis in order)
    if node.op_type == "Reshape" and node.input[1] in shapes:
        target = numpy_helper.to_array(shapes[node.input[1]]).tolist()
        target = [dims[axis] if size == 0 else size for axis, size in enumerate(target)]
        known = int(np.prod([size for size in target if size != -1]))
        return tuple(int(np.prod(dims)) // known if size == -1 else size for size in target)
    return None


def _use(node: onnx.NodeProto, position: int, dims: tuple[int, ...] | None) -> Role | None:
    """The role of input `position` of `node`, or None where the node says nothing."""
    kind = node.op_type
    if kind in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        if position == 2:
            return Role(BIAS)
        if dims is None:
            raise ValueError(
                f"the weight of {kind} {node.name or node.output[0]!r} is reshaped on its way: fan-in unknown"
            )
        if kind == "Conv":
            return Role(MATRIX, int(np.prod(dims[1:])))
        if kind == "ConvTranspose":
            group = _attribute(node, "group", 1)
            strides = _attribute(node, "strides", [1])
            assert isinstance(group, int) and isinstance(strides, list)
            return Role(MATRIX, max(1, dims[0] // group * int(np.prod(dims[2:])) // int(np.prod(strides))))
        if kind == "Gemm":
            summed = 1 if _attribute(node, ("transA", "transB")[position], 0) else 0
            return Role(MATRIX, dims[summed if position == 1 else 1 - summed])
        return Role(MATRIX, dims[-1] if position == 0 or len(dims) == 1 else dims[-2])
    if kind == "BatchNormalization":
        return Role((TABLE, SCALE, BIAS, MEAN, VARIANCE)[position])
    if kind in NORMS:
        return Role((TABLE, SCALE, BIAS)[position])
    if kind == "Mul":
        return Role(SCALE)
    if kind in {"Add", "Sub", "Sum"}:
        # What is added with a batch or token axis of its own (position codes) is as large as what it is added to.
        return Role(TABLE) if dims is not None and sum(dim > 1 for dim in dims) > 1 else Role(BIAS)
    if kind == "PRelu":
        return Role(SLOPE)
    if kind in {"Gather", "GatherND", "Concat"}:
        return Role(TABLE)
    return None


def array(name: str, weight: Weight, role: Role, seed: int = 0, gain: float = 1.0) -> np.ndarray:
    """The values of one weight: a function of its name, dims, role, gain and the seed."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    shape = weight.dims
    if role.kind in (MATRIX, TABLE):
        deviation = gain * (np.sqrt(2.0 / role.fan_in) if role.kind == MATRIX else 1.0)
        values = rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(deviation)
    elif role.kind in (SCALE, VARIANCE):
        values = rng.uniform(0.5, 1.5, shape)
    elif role.kind == SLOPE:
        values = rng.uniform(0.1, 0.4, shape)
    else:
        values = rng.uniform(0.05, 0.25, shape) * rng.choice([-1.0, 1.0], shape)
    return np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(weight.dtype), copy=False)


def values(model: onnx.ModelProto, seed: int = 0, gains: Mapping[str, float] | None = None) -> dict[str, np.ndarray]:
    """Every weight's values by name."""
    gains = gains or {}
    kinds = roles(model)
    return {
        name: array(name, weight, kinds[name], seed, gains.get(name, 1.0)) for name, weight in weights(model).items()
    }


def fill(model: onnx.ModelProto, seed: int = 0, gains: Mapping[str, float] | None = None) -> onnx.ModelProto:
    """A whole model: `model` (left as it is) with every weight an initialiser drawn from its role's distribution.

    ConstantOfShape nodes that made weights are gone; integer tensors and scalars stay as they are.
    """
    filled = values(model, seed, gains)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    unpack(out)
    graph = out.graph
    made = [node for node in graph.node if not (node.op_type == "ConstantOfShape" and node.output[0] in filled)]
    used = {name for node in made for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name not in filled and tensor.name in used]
    named = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in filled and value.name not in named]
    whole = helper.make_graph(
        made,
        graph.name,
        inputs,
        list(graph.output),
        [*kept, *(numpy_helper.from_array(value, name) for name, value in filled.items())],
        value_info=list(graph.value_info),
    )
    # From IR version 4 on an initialiser need not be an input too.
    result = helper.make_model(whole, opset_imports=list(model.opset_import), ir_version=max(model.ir_version, 8))
    result.functions.extend(model.functions)
    result.producer_name = "benchmarks.filler"
    return result


def gains(name: str) -> dict[str, float]:
    """The committed gains of the zoo's model `name`, by weight. Raises KeyError if it has none."""
    return json.loads(GAINS.read_text())[name]
