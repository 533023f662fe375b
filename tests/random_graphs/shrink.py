# SPDX-License-Identifier: Apache-2.0
"""The smallest part of a failing model that still fails: nodes are cut off at the end, and values become inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx
from onnx import NodeProto

from tests.random_graphs.evaluate import every_value, info
from tests.random_graphs.gen import Array, Model
from tests.random_graphs.steps.control import taken

Fails = Callable[[Model], bool]


def reads(node: NodeProto) -> set[str]:
    """The names a node takes, those of its bodies included."""
    return {i for i in node.input if i} | taken([a.g for a in node.attribute if a.HasField("g")])


def part(model: Model, values: dict[str, Array], nodes: Iterable[NodeProto], outputs: Iterable[str]) -> Model:
    """The model of those of `nodes` that `outputs` need; what others made is an input."""
    wanted = set(outputs)
    kept: list[NodeProto] = []
    for n in reversed(list(nodes)):
        if wanted & set(n.output):
            kept.append(n)
            wanted |= reads(n)
    made = {o for n in kept for o in n.output}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    held = {t.name for t in proto.graph.initializer}
    inputs = [n for n in values if n in wanted and n not in made and n not in held]

    kept_nodes = [NodeProto.FromString(n.SerializeToString()) for n in kept[::-1]]
    tensors = [t for t in proto.graph.initializer if t.name in wanted]
    held_tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors]
    del proto.graph.node[:], proto.graph.input[:], proto.graph.output[:], proto.graph.initializer[:]
    del proto.graph.value_info[:]
    proto.graph.node.extend(kept_nodes)
    proto.graph.initializer.extend(held_tensors)
    proto.graph.input.extend(info(n, values[n]) for n in inputs)
    proto.graph.output.extend(info(n, values[n]) for n in outputs)
    return Model(proto, {n: values[n] for n in inputs})


def shrunk(model: Model, fails: Fails) -> Model:
    """A part of `model`, which fails, that fails too and of which no node can be left out."""
    values = every_value(model.proto, model.inputs)
    nodes = list(model.proto.graph.node)
    best = model
    outputs = [o.name for o in model.proto.graph.output]
    # The first value that is wrong, if one alone is.
    for n in nodes:
        ends = [o for o in n.output if o in values]
        if n.op_type == "Constant" or not ends:
            continue
        tried = part(model, values, nodes, ends)
        if fails(tried):
            best, outputs = tried, ends
            break
    else:
        for o in outputs:
            tried = part(model, values, nodes, [o])
            if fails(tried):
                best, outputs = tried, [o]
                break
    kept = list(best.proto.graph.node)
    # Nodes that come first become inputs, many at a time while that works.
    step = max(1, len(kept) // 2)
    while step:
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + step :]
            if any(set(outputs) & set(n.output) for n in kept[at : at + step]):
                at += step
                continue
            tried = part(best, values, fewer, outputs)
            if len(tried.proto.graph.node) < len(kept) and fails(tried):
                best, kept = tried, list(tried.proto.graph.node)
            else:
                at += step
        step //= 2
    return best
