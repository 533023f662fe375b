# SPDX-License-Identifier: Apache-2.0
"""Random ONNX graphs: valid models of opsets 11 to 26 with inputs whose values stay small, from a seed or from
hypothesis; checked against ONNX Runtime by `python -m tests.random_graphs`.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.random_graphs.choices import Choices, Drawn, Seeded
from tests.random_graphs.evaluate import info
from tests.random_graphs.gen import Gen, Model, Refused
from tests.random_graphs.steps import STEPS
from tests.random_graphs.steps.table import grow, menu, new, some_dtype, some_shape

__all__ = ["STEPS", "Model", "graphs", "random_graph", "seeded"]


def random_graph(choices: Choices, size: int = 14) -> Model:
    """A graph of up to about `size` nodes."""
    g = Gen(choices)
    for _ in range(g.pick([1, 1, 2, 3])):
        dtype = some_dtype(g, "ffffib")
        g.alive.append(g.input(g.numbers(dtype, some_shape(g, range(6)))))
    if g.chance(0.05):
        empty = [2, 0, 3][g.int(0, 2) :]
        g.alive.append(g.input(g.numbers("float32", empty)))
    while not g.nodes:
        grow(g, menu(g), g.int(1, size))
        if not g.nodes:
            g.alive.append(new(g, "float32", (2, 3)))
    return end(g)


def end(g: Gen) -> Model:
    """The graph with what nothing reads as outputs, and at times an input, a constant and inner values too."""
    read = {i for n in g.nodes for i in n.input} | {i for n in g.nodes for i in inner_names(n)}
    ends = [o for n in g.nodes for o in n.output if o not in read and o in g.values and n.op_type != "Constant"][-6:]
    made = [o for n in g.nodes for o in n.output if o in g.values and n.op_type != "Constant"]
    if g.chance(0.2) and made:
        ends.append(g.pick(made))
    if g.chance(0.1) and g.inputs:
        ends.append(g.pick(list(g.inputs)))
    if g.chance(0.05) and g.body.held:
        ends.append(g.pick(list(g.body.held)))
    outputs: list[str] = []
    for o in ends or made[-1:]:
        # An output is named once; a second use of a value, an input and a constant go through a node at times.
        if o in outputs or (o not in made and g.chance(0.5)):
            try:
                o = g("Identity", o)
            except Refused:  # the opset's Identity does not take the type
                continue
        outputs.append(o)
    outputs = outputs or made[-1:]
    imports = [helper.make_opsetid("", g.opset)]
    read |= {i for n in g.nodes for i in n.input} | set(outputs)
    graph = helper.make_graph(
        g.nodes,
        "random",
        [info(n, a) for n, a in g.inputs.items()],
        [info(o, g.values[o]) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in g.body.held.items() if n in read or g.chance(0.1)],
    )
    version = helper.find_min_ir_version_for(imports, True)
    return Model(helper.make_model(graph, opset_imports=imports, ir_version=version), dict(g.inputs))


def inner_names(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies of a node read, their own included."""
    out: set[str] = set()
    for a in node.attribute:
        if a.HasField("g"):
            out |= {o.name for o in a.g.output}
            for n in a.g.node:
                out |= set(n.input) | inner_names(n)
    return out


def seeded(seed: int, size: int = 14) -> Model:
    """The graph of a seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return random_graph(Seeded(seed), size)


@st.composite
def graphs(draw: Any, size: int = 10) -> Model:
    """Hypothesis' strategy of graphs with inputs: what it shrinks has fewer and simpler steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return random_graph(Drawn(draw), size)


def elements(model: Model) -> int:
    """Elements of the inputs."""
    return sum(math.prod(a.shape) for a in model.inputs.values())
