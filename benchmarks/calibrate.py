# SPDX-License-Identifier: Apache-2.0
"""Find the filler's gains: `python -m benchmarks.calibrate [NAME...]` rewrites their part of
benchmarks/models/gains.json.

A network is run once, node by node, on one input. Where a convolution or matrix product has a weight, that weight's
gain is set so that the product's root mean square is 1 (before the bias), rounded to three digits, and the run goes
on with the weight so scaled. Products that decide the answer (no other product, and no tanh, between them and an
output) get 3, which spreads the answers; queries, keys and values get 1.6, so that attention prefers a few tokens
and does not blend all of them into one. Norms, residual sums and gates then see what they see in a trained network:
numbers of order one.
"""

import argparse
import json
import os
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from benchmarks import filler, zoo

PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
DECIDING = 3.0
ATTENDING = 1.6
TIED = 0.25  # the deviation of a table that is a matrix too (an output layer that shares the embedding)


def run_node(
    node: onnx.NodeProto, env: dict[str, np.ndarray], opsets: list[onnx.OperatorSetIdProto]
) -> list[np.ndarray]:
    """What one node computes."""
    names = list(dict.fromkeys(name for name in node.input if name))
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(env[name].dtype), env[name].shape)
        for name in names
    ]
    outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name]
    model = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {name: env[name] for name in names})]


def deciding(graph: onnx.GraphProto) -> set[str]:
    """The outputs of products between which and a graph output there is neither a product nor a tanh."""
    producer = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    pending, seen = [value.name for value in graph.output], set()
    while pending:
        name = pending.pop()
        node = producer.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in PRODUCTS:
            found.add(name)
        elif node.op_type in {
            "Softmax",
            "Reshape",
            "Add",
            "Relu",
            "GlobalAveragePool",
            "Squeeze",
            "Flatten",
            "Dropout",
        }:
            pending.extend(node.input)
    return found


def attended(graph: onnx.GraphProto) -> set[str]:
    """The outputs of products that reach a product of two computed values (queries, keys and values) unchanged."""
    producer = {name: node for node in graph.node for name in node.output}
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in filler.PASSES and node.input[0] in constant:
            constant.add(node.output[0])
    found: set[str] = set()
    pending = [
        name
        for node in graph.node
        if node.op_type == "MatMul" and not constant & set(node.input)
        for name in node.input
    ]
    moving = {"Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Gather", "Add", "Mul"}
    while pending:
        node = producer.get(pending.pop())
        if node is None:
            continue
        if node.op_type in PRODUCTS:
            found |= set(node.output) if constant & set(node.input) else set()
        elif node.op_type in moving:
            pending.extend(name for name in node.input if name not in constant)
    return found


def calibrate(name: str) -> dict[str, float]:
    """The gains of model `name`, by weight."""
    bare = zoo.weightless(name)
    kinds = filler.roles(bare)
    gains = {weight: 1.0 for weight, role in kinds.items() if role.kind == filler.MATRIX}
    tables = {node.input[0] for node in bare.graph.node if node.op_type == "Gather"} & set(gains)
    for weight in tables:
        gains[weight] = float(f"{TIED / np.sqrt(2.0 / kinds[weight].fan_in):.3g}")
    model = filler.fill(bare, 0, gains)
    env = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    # Where a value is a weight that was only moved, the weight; so that what scales one scales the other.
    origin = {weight: weight for weight in kinds}
    env.update(zoo.inputs(name, 0))
    last, attending = deciding(model.graph), attended(model.graph)
    set_already = set(tables)
    for node in model.graph.node:
        if node.op_type in filler.PASSES and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        operand = next((value for value in node.input[:2] if origin.get(value) in gains), None)
        if node.op_type in PRODUCTS and operand is not None and origin[operand] not in set_already:
            bare_node = onnx.NodeProto()
            bare_node.CopyFrom(node)
            if node.op_type == "Gemm":  # whose third input was not optional before opset 11
                kept = [attribute for attribute in node.attribute if attribute.name != "beta"]
                del bare_node.attribute[:]
                bare_node.attribute.extend([*kept, helper.make_attribute("beta", 0.0)])
            else:
                del bare_node.input[2:]
            (product,) = run_node(bare_node, env, list(model.opset_import))
            size = float(np.sqrt(np.mean(np.square(product, dtype=np.float64))))
            target = DECIDING if node.output[0] in last else ATTENDING if node.output[0] in attending else 1.0
            gain = float(f"{target / size:.3g}")
            gains[origin[operand]] = gain
            set_already.add(origin[operand])
            env[operand] = env[operand] * np.float32(gain)
        outputs = [output for output in node.output if output]
        env.update(zip(outputs, run_node(node, env, list(model.opset_import))))
    for value in model.graph.output:
        result = env[value.name]
        if result.dtype == np.float32 and not (np.isfinite(result).all() and np.ptp(result) > 0):
            raise ValueError(f"{name}: output {value.name} is constant or not finite after calibration")
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: every model the filler fills)")
    options = parser.parse_args()
    stored = json.loads(filler.GAINS.read_text()) if filler.GAINS.exists() else {}
    for name in options.names or zoo.filled_models():
        start = time.perf_counter()
        stored[name] = calibrate(name)
        part = filler.GAINS.with_suffix(".part")
        part.write_text(json.dumps(dict(sorted(stored.items())), indent=0) + "\n")
        os.replace(part, filler.GAINS)
        spread = list(stored[name].values())
        print(f"{name}: {len(spread)} gains, {min(spread)} to {max(spread)}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
