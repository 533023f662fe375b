# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan: bodies are small random graphs, nested up to two deep, that use values from outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.random_graphs.evaluate import compute, info, type_of
from tests.random_graphs.gen import Array, Body, Gen, Refused
from tests.random_graphs.steps.table import axis_of, grow, menu, step

DEPTH = 2
"""How deep bodies nest."""


def of_type(g: Gen, y: str, dtype: Any, shape: tuple[int, ...]) -> str:
    """A value of this type that depends on y."""
    dtype = np.dtype(dtype)
    if g.dtype(y) != dtype:
        if g.kind(y) == "f" and dtype.kind in "iu":
            y = g("Clip", y, g.f(0.0, y), g.f(50.0, y))
        y = g("Cast", y, to=type_of(np.zeros(0, dtype)))
    if g.shape(y) == shape:
        return y
    if math.prod(g.shape(y)) == math.prod(shape) and math.prod(shape):
        return g("Reshape", y, g.i(*shape))
    if dtype.kind == "b" or 0 in g.shape(y):
        return g.const(np.zeros(shape, dtype))
    one = g("Cast", y, to=TensorProto.FLOAT)
    for _ in g.shape(y)[:1]:
        one = g.reduce("Max", one, list(range(len(g.shape(y)))), 0)
    return g("Expand", g("Cast", one, to=type_of(np.zeros(0, dtype))), g.i(*shape))


def result(g: Gen, body: Body, y: str) -> str:
    """y, as something that the body itself makes."""
    made = {o for n in body.nodes for o in n.output}
    return y if y in made else g("Identity", y)


def graph(g: Gen, body: Body, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]) -> onnx.GraphProto:
    # A value is named once among the outputs.
    names: list[str] = []
    for o in outputs:
        names.append(g("Identity", o) if o in names else o)
    return helper.make_graph(
        body.nodes, g.fresh("body"), list(inputs), [info(o, g.values[o]) for o in names],
        [numpy_helper.from_array(a, n) for n, a in body.held.items()],
    )  # fmt: skip


def taken(graphs: Sequence[onnx.GraphProto]) -> set[str]:
    """Names that bodies take from outside."""
    out: set[str] = set()
    for b in graphs:
        own = {i.name for i in (*b.input, *b.initializer)} | {o for n in b.node for o in n.output}
        inner = [a.g for n in b.node for a in n.attribute if a.HasField("g")]
        out |= ({i for n in b.node for i in n.input if i} | {o.name for o in b.output} | taken(inner)) - own
    return out


def finish(g: Gen, node: onnx.NodeProto) -> list[str]:
    """Compute a node with bodies and add it."""
    inside = taken([a.g for a in node.attribute if a.HasField("g")])
    try:
        found = compute(node, g.values, g.opset)
    except Exception as e:
        raise Refused(f"{node.op_type}: {e}") from None
    taken_in = [g.values[i] for i in node.input if i]
    if g.opset < 16 and any(a.dtype.name == "bfloat16" for a in (*taken_in, *found)):
        raise Refused(f"{node.op_type} takes no bfloat16 before opset 16")
    return g.put(node, found, inside)


def deeper(g: Gen) -> None:
    if g.depth >= DEPTH:
        raise Refused("deep enough")


@step("fib", weight=4)
def conditional(g: Gen, x: str) -> str:
    """An If; its condition is mostly a value that is known at run time only."""
    deeper(g)
    if g.chance(0.15):
        condition = g.const(np.array(g.chance(0.5)))
    else:
        y = g("Cast", x, to=TensorProto.FLOAT)
        y = g.reduce(g.pick(["Mean", "Max"]), y, list(range(len(g.shape(x)))), 0) if g.shape(x) else y
        condition = g(g.pick(["Greater", "Less"]), y, g.f(g.pick([0.0, 0.5, 1.0])))
    count = g.pick([1, 1, 2])
    wanted: list[Array] = []
    bodies: list[onnx.GraphProto] = []
    found: list[list[Array]] = []
    for _ in range(2):
        with g.inside() as body:
            g.alive.append(x)
            grow(g, menu(g), g.int(1, 4))
            ends = [g.pick([x, *g.alive[-4:]]) for _ in range(count)]
            if wanted:
                ends = [of_type(g, e, w.dtype, w.shape) for e, w in zip(ends, wanted, strict=True)]
            ends = [result(g, body, e) for e in ends]
            wanted = wanted or [g.values[e] for e in ends]
            bodies.append(graph(g, body, [], ends))
            found.append([g.values[o.name] for o in bodies[-1].output])
    names = [g.fresh() for _ in range(count)]
    node = helper.make_node("If", [condition], names, f"If_{names[0]}", then_branch=bodies[0], else_branch=bodies[1])
    outputs = finish(g, node)
    g.alive.extend(outputs[1:])
    return outputs[0]


def carried_on(g: Gen, body: Body, start: str) -> str:
    """What a body carries to the next iteration in place of `start`: of its type, and not growing."""
    y = of_type(g, g.pick(g.alive[-4:]), g.dtype(start), g.shape(start))
    if g.kind(y) == "f":
        if g.chance(0.5):
            y = g("Add", y, start)
        y = g("Tanh", y) if g.chance(0.6) else g("Clip", y, g.f(-3.0, y), g.f(3.0, y))
    elif g.kind(y) == "i":
        y = g("Cast", g("Mod", y, g.const(np.asarray(11, g.dtype(y)))), to=type_of(g.values[y]))
    return result(g, body, y)


def argument(g: Gen, array: Array) -> str:
    """An input of a loop's body, with its value in the first iteration."""
    name = g.fresh("a")
    g.values[name] = array
    g.varying.add(name)
    return name


@step("fib", weight=3)
def loop(g: Gen, x: str) -> str:
    """A Loop of a few iterations, with carried and scanned values. The number of iterations is known, an input,
    computed, or hangs on what is carried; then nothing takes the scanned values, whose extents are not known.
    """
    deeper(g)
    trips = g.pick([2, 3, 1, 4, 2, 0])
    kind = g.pick(["known", "known", "input", "computed", "condition"])
    if kind in ("input", "computed") and g.depth:
        kind = "known"
    states = [x, *([g.pick(g.alive)] if g.alive and g.chance(0.4) else [])]
    with g.inside() as body:
        counter = argument(g, np.array(0, np.int64))
        going = argument(g, np.array(True))
        held = [argument(g, g.values[s]) for s in states]
        g.alive.extend(held)
        if g.chance(0.5):
            g.alive.append(counter)
        grow(g, menu(g), g.int(1, 4))
        made = [o for n in body.nodes for o in n.output]
        after = [carried_on(g, body, h) for h in held]
        rows = [result(g, body, g.pick(made or held)) for _ in range(g.pick([0, 1, 1, 2] if trips else [0]))]
        inputs = [info(n, g.values[n]) for n in (counter, going, *held)]
        if kind == "condition":
            sign = g("Cast", g.pick(after), to=TensorProto.FLOAT)
            sign = g.reduce("Max", sign, list(range(len(g.shape(sign)))), 0) if g.shape(sign) else sign
            on = g(g.pick(["Greater", "Less"]), sign, g.f(g.pick([0.0, 0.5, 1.0])))
        else:
            on = g("Identity", going)
        bodies = graph(g, body, inputs, [on, *after, *rows])
    names = [g.fresh() for _ in range(len(states) + len(rows))]
    most = np.array(trips, np.int64)
    count = g.input(most) if kind == "input" else g.const(most)
    if kind == "computed":
        number = g("Cast", g("Cast", x, to=TensorProto.FLOAT), to=TensorProto.INT64)
        number = g.reduce("Max", number, list(range(len(g.shape(x)))), 0) if g.shape(x) else number
        count = g("Min", g("Max", number, g.const(np.int64(0))), count)
    first = g.const(np.array(True)) if g.chance(0.5) or kind == "condition" else ""
    outputs = finish(g, helper.make_node("Loop", [count, first, *states], names, f"Loop_{names[0]}", body=bodies))
    g.alive.extend(outputs[1:] if kind == "known" else outputs[1 : len(states)])
    return outputs[0]


@step("fi", range(1, 5), weight=2)
def scan(g: Gen, x: str) -> str:
    """A Scan along an axis of x."""
    deeper(g)
    axis = axis_of(g, x) % len(g.shape(x))
    if not 0 < g.shape(x)[axis] <= 9:
        raise Refused("too long")
    backward = g.pick([0, 0, 1])
    row = np.take(g.values[x], -1 if backward else 0, axis)
    states = [g.pick(g.alive)] if g.alive and g.chance(0.8) else []
    with g.inside() as body:
        held = [argument(g, g.values[s]) for s in states]
        part = argument(g, row)
        g.alive.extend([*held, part])
        grow(g, menu(g), g.int(1, 4))
        made = [o for n in body.nodes for o in n.output]
        after = [carried_on(g, body, h) for h in held]
        rows = [result(g, body, g.pick(made or [part])) for _ in range(g.pick([1, 1, 2]))]
        bodies = graph(g, body, [info(n, g.values[n]) for n in (*held, part)], [*after, *rows])
    names = [g.fresh() for _ in range(len(states) + len(rows))]
    node = helper.make_node(
        "Scan", [*states, x], names, f"Scan_{names[0]}", body=bodies, num_scan_inputs=1, scan_input_axes=[axis],
        scan_input_directions=[backward], scan_output_directions=[g.pick([0, 1]) for _ in rows],
        scan_output_axes=[g.int(0, min(1, len(g.shape(r)))) for r in rows],
    )  # fmt: skip
    outputs = finish(g, node)
    g.alive.extend(outputs[1:])
    return outputs[0]
