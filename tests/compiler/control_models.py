# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models with control flow, each with inputs that take its different ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Feeds = dict[str, np.ndarray[Any, Any]]
Built = tuple[onnx.ModelProto, list[Feeds]]
MODELS: dict[str, Callable[[], Built]] = {}

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
n = helper.make_node


def built(function: Callable[[], Built]) -> Callable[[], Built]:
    """Decorator: adds a model to MODELS."""
    MODELS[function.__name__] = function
    return function


def value(name: str, shape: Sequence[int | str | None] | None = (), dtype: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def body(nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    weights: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(np.asarray(a), k) for k, a in (weights or {}).items()]
    made = helper.make_model(
        helper.make_graph(nodes, "control", inputs, outputs, held),
        opset_imports=[helper.make_opsetid("", opset)], ir_version=10,
    )  # fmt: skip
    onnx.checker.check_model(made)
    return made


def normal(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def head(*carried: ValueInfoProto) -> list[ValueInfoProto]:
    """The inputs of a loop's body."""
    return [value("i", (), INT), value("c", (), BOOL), *carried]


GO_ON = n("Identity", ["c"], ["go"])
GOING = value("go", (), BOOL)


@built
def counted() -> Built:
    """h ← tanh(h W + x), as often as an input says; every h is stacked and so is its sum."""
    inside = body(
        [
            GO_ON, n("MatMul", ["h", "W"], ["hw"]), n("Add", ["hw", "x"], ["hx"]), n("Tanh", ["hx"], ["hn"]),
            n("ReduceSum", ["hn"], ["sum"], keepdims=0),
        ],
        head(value("h", (2, 8))), [GOING, value("hn", (2, 8)), value("sum"), value("h", (2, 8))],
    )  # fmt: skip
    made = model(
        [n("Loop", ["n", "", "h0"], ["last", "sums", "before"], "loop", body=inside), n("Neg", ["last"], ["y"], "neg")],
        [value("n", (), INT), value("x", (2, 8)), value("h0", (2, 8))],
        [value("last", (2, 8)), value("sums", (None,)), value("before", (None, 2, 8)), value("y", (2, 8))],
        {"W": normal(0, 8, 8) / 3},
    )
    return made, [{"n": np.array(k), "x": normal(1, 2, 8), "h0": normal(2, 2, 8)} for k in (7, 0, 1)]


@built
def fixed() -> Built:
    """The same with a constant, large number of trips: nothing is read by the host, and the stack's extent is known."""
    inside = body(
        [GO_ON, n("MatMul", ["h", "W"], ["hw"]), n("Add", ["hw", "x"], ["hx"]), n("Tanh", ["hx"], ["hn"])],
        head(value("h", (2, 8))), [GOING, value("hn", (2, 8)), value("hn", (2, 8))],
    )  # fmt: skip
    inside.output[2].name = "row"
    inside.node.append(n("Mul", ["hn", "hn"], ["row"]))
    made = model(
        [
            n("Loop", ["n", "yes", "h0"], ["last", "rows"], "loop", body=inside),
            n("ReduceMean", ["rows"], ["mean"], "mean", axes=[0], keepdims=0),
        ],
        [value("x", (2, 8)), value("h0", (2, 8))], [value("last", (2, 8)), value("mean", (2, 8))],
        {"W": normal(0, 8, 8) / 3, "n": np.array(200), "yes": np.array(True)},
    )  # fmt: skip
    return made, [{"x": normal(1, 2, 8), "h0": normal(2, 2, 8)}]


@built
def early_exit() -> Built:
    """Doubles x until its sum reaches a limit, at most n times."""
    inside = body(
        [
            n("Add", ["h", "h"], ["hn"]), n("ReduceSum", ["hn"], ["sum"], keepdims=0),
            n("Less", ["sum", "limit"], ["go"]),
        ],
        head(value("h", (3,))), [GOING, value("hn", (3,)), value("sum")],
    )  # fmt: skip
    made = model(
        [n("Less", ["zero", "limit"], ["start"]), n("Loop", ["n", "start", "x"], ["y", "sums"], "grow", body=inside)],
        [value("x", (3,)), value("n", (), INT), value("limit")], [value("y", (3,)), value("sums", (None,))],
        {"zero": np.float32(0)},
    )  # fmt: skip
    x = np.array([1, 2, 3], np.float32)
    ways = ((100, 50), (2, 50), (0, 50), (100, 0), (100, 1))
    return made, [{"x": x, "n": np.array(k), "limit": np.array(top, np.float32)} for k, top in ways]


@built
def while_loop() -> Built:
    """Collatz steps until 1 is reached: integers, a condition that an input begins with, an If in the body."""
    half = body([n("Div", ["v", "two"], ["a"])], [], [value("a", (), INT)])
    triple = body([n("Mul", ["v", "three"], ["p"]), n("Add", ["p", "one"], ["b"])], [], [value("b", (), INT)])
    inside = body(
        [
            n("Mod", ["v", "two"], ["odd"]), n("Equal", ["odd", "zero"], ["even"]),
            n("If", ["even"], ["w"], "parity", then_branch=half, else_branch=triple),
            n("Add", ["k", "one"], ["kn"]), n("Greater", ["w", "one"], ["go"]),
        ],
        head(value("v", (), INT), value("k", (), INT)), [GOING, value("w", (), INT), value("kn", (), INT)],
    )  # fmt: skip
    made = model(
        [n("Loop", ["", "go_in", "v0", "zero"], ["v", "steps"], "collatz", body=inside)],
        [value("v0", (), INT), value("go_in", (), BOOL)], [value("v", (), INT), value("steps", (), INT)],
        {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "three": np.array(3)},
    )  # fmt: skip
    return made, [{"v0": np.array(v), "go_in": np.array(go)} for v, go in ((27, True), (2, True), (9, False))]


@built
def nested() -> Built:
    """A loop in a loop, with captures from both levels around, and an If that holds a loop."""
    innermost = body(
        [n("Identity", ["ct"], ["gt"]), n("Add", ["t", "x"], ["u"])],
        [value("it", (), INT), value("ct", (), BOOL), value("t", (4,))], [value("gt", (), BOOL), value("u", (4,))],
    )  # fmt: skip
    add = body([n("Loop", ["m", "", "s"], ["b2"], "innermost", body=innermost)], [], [value("b2", (4,))])
    keep = body([n("Mul", ["s", "quarter"], ["b1"])], [], [value("b1", (4,))])
    inner = helper.make_graph(
        [
            n("Identity", ["ci"], ["gi"]), n("Mul", ["r", "row"], ["r1"]), n("Sub", ["r1", "quarter"], ["r2"]),
            n("Add", ["r2", "s"], ["rn"]),
        ],
        "inner", [value("ii", (), INT), value("ci", (), BOOL), value("r", (4,))],
        [value("gi", (), BOOL), value("rn", (4,)), value("r1", (4,))],
    )  # fmt: skip
    outer = body(
        [
            GO_ON, n("Gather", ["table", "i"], ["row"]), n("Sin", ["s"], ["first"]),
            n("Loop", ["m", "", "first"], ["end", "ends"], "inner", body=inner),
            n("ReduceSum", ["end"], ["total"], keepdims=0), n("Greater", ["total", "quarter"], ["big"]),
            n("If", ["big"], ["s2"], "choice", then_branch=add, else_branch=keep), n("Tanh", ["s2"], ["sn"]),
            n("Shape", ["ends"], ["shape"]),
        ],
        head(value("s", (4,))), [GOING, value("sn", (4,)), value("end", (4,)), value("big", (), BOOL)],
    )  # fmt: skip
    made = model(
        [n("Loop", ["n", "", "x"], ["y", "ends", "bigs"], "outer", body=outer), n("Add", ["y", "x"], ["z"])],
        [value("x", (4,)), value("n", (), INT), value("m", (), INT)],
        [value("z", (4,)), value("ends", (None, 4)), value("bigs", (None,), BOOL)],
        {"table": normal(3, 9, 4), "quarter": np.float32(0.25)},
    )
    ways = ((9, 3), (1, 1), (4, 0), (0, 5), (6, 20))
    return made, [{"x": normal(i, 4), "n": np.array(k), "m": np.array(m)} for i, (k, m) in enumerate(ways)]


@built
def rotating() -> Built:
    """Variables that take over each other's values, one that stays, and one that is stacked as it came in."""
    inside = body(
        [
            GO_ON, n("Identity", ["b"], ["a2"]), n("Identity", ["d"], ["b2"]), n("Identity", ["a"], ["d2"]),
            n("Add", ["e", "a"], ["e2"]), n("Identity", ["f"], ["f2"]), n("Identity", ["e"], ["g2"]),
            n("Identity", ["g"], ["old"]),
        ],
        head(*(value(k, (3,)) for k in "abdefg")),
        [GOING, *(value(f"{k}2", (3,)) for k in "abdefg"), value("old", (3,))],
    )  # fmt: skip
    names = ["p", "q", "r", "s", "t", "u"]
    made = model(
        [n("Loop", ["n", "", "x", "y", "z", "x", "y", "z"], [*names, "olds"], "loop", body=inside)],
        [value("n", (), INT), *(value(k, (3,)) for k in "xyz")],
        [*(value(k, (3,)) for k in names), value("olds", (None, 3))],
    )
    return made, [{"n": np.array(k), **{v: normal(i, 3) for i, v in enumerate("xyz")}} for k in (0, 1, 2, 5)]


@built
def refined() -> Built:
    """Convolutions before, inside and after a loop: the layout that the captured features and the state have inside is
    that of the outside."""
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    inside = body(
        [
            n("Conv", ["s", "w1"], ["s1"], **conv), n("Add", ["s1", "feature"], ["s2"]), n("Relu", ["s2"], ["s3"]),
            n("Conv", ["s3", "w2"], ["sn"], **conv), n("ReduceMax", ["sn"], ["top"], keepdims=0),
            n("Less", ["top", "limit"], ["go"]),
        ],
        head(value("s", (1, 8, 6, 5))), [GOING, value("sn", (1, 8, 6, 5)), value("top")],
    )  # fmt: skip
    made = model(
        [
            n("Conv", ["x", "w0"], ["f0"], "stem", **conv), n("Relu", ["f0"], ["feature"], "act"),
            n("Conv", ["feature", "w2"], ["s0"], "start", **conv),
            n("Loop", ["n", "yes", "s0"], ["s", "tops"], "refine", body=inside),
            n("Conv", ["s", "w1"], ["e0"], "end", **conv), n("Add", ["e0", "feature"], ["y"], "skip"),
        ],
        [value("x", (1, 3, 6, 5)), value("n", (), INT), value("limit")],
        [value("y", (1, 8, 6, 5)), value("tops", (None,))],
        {
            "w0": normal(0, 8, 3, 3, 3) / 5, "w1": normal(1, 8, 8, 3, 3) / 9, "w2": normal(2, 8, 8, 3, 3) / 9,
            "yes": np.array(True),
        },
    )  # fmt: skip
    ways = ((3, 100), (50, 1.5), (0, 1))
    return made, [{"x": normal(9, 1, 3, 6, 5), "n": np.array(k), "limit": np.array(top, np.float32)} for k, top in ways]


def lstm_cell(x: str, h: str, c: str) -> list[NodeProto]:
    """Nodes that compute hn and cn from a step's input and the states."""
    return [
        n("MatMul", [x, "W"], ["xw"]), n("MatMul", [h, "R"], ["hr"]), n("Add", ["xw", "hr"], ["z0"]),
        n("Add", ["z0", "B"], ["z"]), n("Split", ["z"], ["zi", "zo", "zf", "zc"], axis=1),
        *(n("Sigmoid", [f"z{k}"], [f"gate_{k}"]) for k in "iof"), n("Tanh", ["zc"], ["gate_c"]),
        n("Mul", ["gate_f", c], ["fc"]), n("Mul", ["gate_i", "gate_c"], ["ic"]), n("Add", ["fc", "ic"], ["cn"]),
        n("Tanh", ["cn"], ["tc"]), n("Mul", ["gate_o", "tc"], ["hn"]),
    ]  # fmt: skip


LSTM_WEIGHTS = {"W": normal(0, 5, 24) / 2, "R": normal(1, 6, 24) / 2, "B": normal(2, 24)}


@built
def lstm_in_loop() -> Built:
    """An LSTM cell over as many steps as the input has, each read at the iteration's number."""
    inside = body(
        [GO_ON, n("Gather", ["x", "i"], ["step"]), *lstm_cell("step", "h", "c0"), n("Identity", ["hn"], ["out"])],
        head(value("h", (2, 6)), value("c0", (2, 6))),
        [GOING, value("hn", (2, 6)), value("cn", (2, 6)), value("out", (2, 6))],
    )  # fmt: skip
    made = model(
        [
            n("Shape", ["x"], ["shape"]), n("Gather", ["shape", "zero"], ["steps"]),
            n("Loop", ["steps", "", "h_in", "c_in"], ["h_out", "c_out", "all"], "lstm", body=inside),
            n("Softmax", ["all"], ["y"], axis=-1),
        ],
        [value("x", (70, 2, 5)), value("h_in", (2, 6)), value("c_in", (2, 6))],
        [value("h_out", (2, 6)), value("c_out", (2, 6)), value("y", (70, 2, 6))],
        {**LSTM_WEIGHTS, "zero": np.array(0)},
    )  # fmt: skip
    return made, [{"x": normal(5, 70, 2, 5), "h_in": normal(6, 2, 6), "c_in": normal(7, 2, 6)}]


def scanned(steps: int) -> Built:
    """An LSTM cell in a Scan over the second axis backwards, with a second scanned input forwards."""
    inside = body(
        [*lstm_cell("step", "h", "c0"), n("Add", ["hn", "more"], ["out"]), n("ReduceSum", ["out"], ["s"], keepdims=0)],
        [value("h", (2, 6)), value("c0", (2, 6)), value("step", (2, 5)), value("more", (6,))],
        [value("hn", (2, 6)), value("cn", (2, 6)), value("out", (2, 6)), value("s")],
    )  # fmt: skip
    made = model(
        [
            n(
                "Scan", ["h_in", "c_in", "x", "extra"], ["h_out", "c_out", "all", "sums"], "scan", body=inside,
                num_scan_inputs=2, scan_input_axes=[1, -1], scan_input_directions=[1, 0], scan_output_axes=[-1, 0],
                scan_output_directions=[0, 1],
            ),
        ],
        [value("x", (2, steps, 5)), value("extra", (6, steps)), value("h_in", (2, 6)), value("c_in", (2, 6))],
        [value("h_out", (2, 6)), value("c_out", (2, 6)), value("all", (2, 6, steps)), value("sums", (steps,))],
        LSTM_WEIGHTS,
    )  # fmt: skip
    feeds = {"x": normal(5, 2, steps, 5), "extra": normal(4, 6, steps), "h_in": normal(6, 2, 6)}
    return made, [{**feeds, "c_in": normal(7, 2, 6)}]


@built
def short_scan() -> Built:
    """Few steps, which are written out."""
    return scanned(4)


@built
def long_scan() -> Built:
    """Many steps, which are a loop."""
    return scanned(90)


@built
def batched_scan() -> Built:
    """Opset 8: a batch dim before the scanned one."""
    inside = body(
        [n("Add", ["s", "v"], ["sn"]), n("Mul", ["sn", "v"], ["row"])], [value("s", (3,)), value("v", (3,))],
        [value("sn", (3,)), value("row", (3,))],
    )  # fmt: skip
    made = model(
        [n("Scan", ["", "s0", "x"], ["last", "rows"], "scan", body=inside, num_scan_inputs=1, directions=[1])],
        [value("s0", (2, 3)), value("x", (2, 150, 3))], [value("last", (2, 3)), value("rows", (2, 150, 3))], opset=8,
    )  # fmt: skip
    return made, [{"s0": normal(0, 2, 3), "x": normal(1, 2, 150, 3)}]


@built
def never() -> Built:
    """Loops that are known to make no trip, around a loop that is not."""
    double = body([GO_ON, n("Add", ["h", "h"], ["hn"]), n("Neg", ["hn"], ["row"])], head(value("h", (2, 3))),
                  [GOING, value("hn", (2, 3)), value("row", (2, 3))])  # fmt: skip
    made = model(
        [
            n("Loop", ["n", "no", "x"], ["a", "as"], "refused", body=double),
            n("Loop", ["zero", "", "a"], ["b", "bs"], "empty", body=double),
            n("Loop", ["n", "", "b"], ["y", "ys"], "real", body=double),
            n("Concat", ["as", "bs"], ["both"], axis=0),
        ],
        [value("x", (2, 3)), value("n", (), INT)],
        [value("y", (2, 3)), value("ys", (None, 2, 3)), value("both", (0, 2, 3))],
        {"no": np.array(False), "zero": np.array(0)},
    )
    return made, [{"x": normal(0, 2, 3), "n": np.array(2)}]


@built
def passed_through() -> Built:
    """Results that are outputs twice, states that stay or are never read, and a branch that gives what it captures."""
    given = body(
        [n("Identity", ["x"], ["t"]), n("Identity", ["h1"], ["u"])], [], [value("t", (2, 2)), value("u", (2, 2))]
    )
    other = body(
        [n("Neg", ["x"], ["t2"]), n("Identity", ["x"], ["u2"])], [], [value("t2", (2, 2)), value("u2", (2, 2))]
    )
    inside = body(
        [
            GO_ON, n("If", ["pick"], ["p", "q"], "pick", then_branch=given, else_branch=other),
            n("Add", ["p", "q"], ["h2"]), n("Identity", ["stay"], ["stay2"]), n("Add", ["waste", "p"], ["waste2"]),
        ],
        head(value("h1", (2, 2)), value("stay", (2, 2)), value("waste", (2, 2))),
        [GOING, value("h2", (2, 2)), value("stay2", (2, 2)), value("waste2", (2, 2))],
    )  # fmt: skip
    made = model(
        [
            n("Loop", ["n", "", "x", "x", "x"], ["h", "stays", "wasted"], "loop", body=inside),
            n("Identity", ["h"], ["again"]),
        ],
        [value("x", (2, 2)), value("n", (), INT), value("pick", (), BOOL)],
        [value("h", (2, 2)), value("again", (2, 2)), value("stays", (2, 2))],
    )  # fmt: skip
    ways = ((3, True), (2, False), (0, True))
    return made, [{"x": normal(0, 2, 2), "n": np.array(k), "pick": np.array(p)} for k, p in ways]
