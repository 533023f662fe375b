# SPDX-License-Identifier: Apache-2.0
"""More models with control flow: values that grow, extents that data decide in and around loops, collections."""

from __future__ import annotations

import numpy as np
import onnx

from tests.compiler.control_models import (
    BOOL,
    FLOAT,
    GO_ON,
    GOING,
    INT,
    MODELS,
    Built,
    body,
    built,
    head,
    model,
    n,
    normal,
    value,
)

__all__ = ["MODELS"]


@built
def growing() -> Built:
    """A tensor that every iteration appends a row to, and a second that grows alike; the condition ends it."""
    inside = body(
        [
            n("Slice", ["rows", "minus1", "end", "axis0"], ["tail"]), n("MatMul", ["tail", "W"], ["t0"]),
            n("ReduceMean", ["rows"], ["mean"], axes=[0], keepdims=1), n("Add", ["t0", "mean"], ["t1"]),
            n("Tanh", ["t1"], ["t2"]), n("Concat", ["rows", "t2"], ["rows2"], axis=0),
            n("Neg", ["t2"], ["t3"]), n("Concat", ["others", "t3"], ["others2"], axis=0),
            n("Add", ["rows2", "others2"], ["both"]), n("ReduceMax", ["both"], ["top"], keepdims=0),
            n("Less", ["top", "limit"], ["go"]),
        ],
        head(value("rows", ("a", 4)), value("others", ("b", 4))),
        [GOING, value("rows2", ("a2", 4)), value("others2", ("b2", 4)), value("top")],
    )  # fmt: skip
    made = model(
        [
            n("Loop", ["n", "yes", "x", "x"], ["all", "negated", "tops"], "grow", body=inside),
            n("Softmax", ["all"], ["y"], "after", axis=-1), n("Shape", ["all"], ["shape"], "shape"),
        ],
        [value("x", (2, 4)), value("n", (), INT), value("limit")],
        [
            value("all", ("l", 4)), value("negated", ("l", 4)), value("tops", ("t",)), value("y", ("l", 4)),
            value("shape", (2,), INT),
        ],
        {
            "W": normal(0, 4, 4), "yes": np.array(True), "minus1": np.array([-1]), "end": np.array([2**31]),
            "axis0": np.array([0]),
        },
    )  # fmt: skip
    ways = ((9, 100), (0, 100), (1, 100), (300, 100), (50, -100))
    return made, [{"x": normal(1, 2, 4), "n": np.array(k), "limit": np.array(top, np.float32)} for k, top in ways]


@built
def chosen_rows() -> Built:
    """What is stacked has an extent that data decide, and a state takes it over."""
    inside = body(
        [
            n("NonZero", ["mask"], ["where"]), n("Transpose", ["where"], ["at"], perm=[1, 0]),
            n("GatherND", ["x", "at"], ["picked"]), n("ReduceSum", ["picked"], ["s"], keepdims=0),
            n("Add", ["total", "s"], ["total2"]), n("Add", ["picked", "total2"], ["state2"]), GO_ON,
        ],
        head(value("total"), value("state", ("k",))),
        [GOING, value("total2"), value("state2", ("k2",)), value("picked", ("k3",))],
    )  # fmt: skip
    made = model(
        [
            n("Loop", ["n", "", "zero", "x"], ["total", "state", "rows"], "loop", body=inside),
            n("Mul", ["rows", "rows"], ["y"], "after"),
        ],
        [value("x", (6,)), value("mask", (6,), BOOL), value("n", (), INT)],
        [value("total"), value("state", ("k",)), value("y", ("n", "k"))], {"zero": np.float32(0)},
    )  # fmt: skip
    mask = np.array([1, 0, 0, 1, 1, 0], bool)
    return made, [{"x": normal(1, 6), "mask": mask, "n": np.array(k)} for k in (3, 1)]


@built
def translator() -> Built:
    """An encoder, and a decoder that picks the likeliest token again and again until the end token comes: keys and
    values of all tokens so far grow with them."""
    width, vocabulary = 8, 11
    encoder = [
        n("Gather", ["table", "source"], ["s0"], "embed"), n("MatMul", ["s0", "We"], ["s1"], "encode"),
        n("Tanh", ["s1"], ["memory"], "encoded"), n("Transpose", ["memory"], ["memory_t"], "turned", perm=[1, 0]),
    ]  # fmt: skip
    inside = body(
        [
            n("Slice", ["tokens", "minus1", "end", "axis0"], ["last"]), n("Gather", ["table", "last"], ["e"]),
            n("MatMul", ["e", "Wk"], ["k1"]), n("MatMul", ["e", "Wv"], ["v1"]), n("MatMul", ["e", "Wq"], ["q"]),
            n("Concat", ["keys", "k1"], ["keys2"], axis=0), n("Concat", ["values", "v1"], ["values2"], axis=0),
            n("Transpose", ["keys2"], ["keys_t"], perm=[1, 0]), n("MatMul", ["q", "keys_t"], ["scores"]),
            n("Softmax", ["scores"], ["p"], axis=-1), n("MatMul", ["p", "values2"], ["own"]),
            n("MatMul", ["own", "memory_t"], ["cross"]), n("Softmax", ["cross"], ["cp"], axis=-1),
            n("MatMul", ["cp", "memory"], ["seen"]), n("Add", ["own", "seen"], ["h"]),
            n("MatMul", ["h", "Wo"], ["logits"]), n("ArgMax", ["logits"], ["token"], axis=-1, keepdims=0),
            n("Concat", ["tokens", "token"], ["tokens2"], axis=0), n("Equal", ["token", "stop"], ["at_stop"]),
            n("Squeeze", ["at_stop", "axis0"], ["stopped"]), n("Not", ["stopped"], ["go"]),
        ],
        head(value("tokens", ("t",), INT), value("keys", ("t0", width)), value("values", ("t1", width))),
        [
            GOING, value("tokens2", ("t2",), INT), value("keys2", ("t3", width)), value("values2", ("t4", width)),
            value("logits", (1, vocabulary)),
        ],
    )  # fmt: skip
    made = model(
        [
            *encoder,
            n("Loop", ["most", "yes", "begin", "none", "none"], ["tokens", "keys", "values", "logits"], "decode",
              body=inside),
        ],
        [value("source", (5,), INT), value("most", (), INT)],
        [value("tokens", ("t",), INT), value("logits", ("s", 1, vocabulary))],
        {
            "table": normal(0, vocabulary, width), "We": normal(1, width, width), "Wk": normal(2, width, width),
            "Wv": normal(3, width, width), "Wq": normal(4, width, width), "Wo": normal(5, width, vocabulary),
            "yes": np.array(True), "begin": np.array([1]), "none": np.zeros((0, width), np.float32),
            "minus1": np.array([-1]), "end": np.array([2**31]), "axis0": np.array([0]), "stop": np.array(2),
        },
    )  # fmt: skip
    feeds = [np.random.default_rng(i).integers(0, vocabulary, 5) for i in range(4)]
    return made, [{"source": s, "most": np.array(k)} for s, k in zip(feeds, (20, 20, 7, 0), strict=True)]


def collecting(trips: int | None) -> onnx.ModelProto:
    """Appends what is above the iteration's number, of which there is less and less."""
    inside = body(
        [
            n("Cast", ["i"], ["level"], to=FLOAT), n("Greater", ["x", "level"], ["mask"]),
            n("NonZero", ["mask"], ["where"]), n("Squeeze", ["where", "axis0"], ["at"]),
            n("Gather", ["x", "at"], ["picked"]), n("Concat", ["all", "picked"], ["all2"], axis=0),
            n("Shape", ["picked"], ["size"]), GO_ON,
        ],
        head(value("all", ("k",))), [GOING, value("all2", ("k2",)), value("size", (1,), INT)],
    )  # fmt: skip
    constants = {"axis0": np.array([0]), **({} if trips is None else {"n": np.array(trips)})}
    return model(
        [n("Loop", ["n", "", "x"], ["y", "sizes"], "collect", body=inside), n("Add", ["y", "y"], ["z"])],
        [value("x", (8,)), *([value("n", (), INT)] if trips is None else [])],
        [value("z", ("m",)), value("sizes", ("t", 1), INT)], constants,
    )  # fmt: skip


COLLECTED = np.array([0.5, 1.5, 5, -3, 2.5, 2.2, 0.1, 40], np.float32)


@built
def collecting_written_out() -> Built:
    """An op of the body gives another extent in every iteration, and the iterations are written out."""
    return collecting(3), [{"x": COLLECTED}, {"x": -COLLECTED}, {"x": COLLECTED[::-1].copy()}]


@built
def collecting_in_a_loop() -> Built:
    return collecting(None), [{"x": COLLECTED, "n": np.array(k)} for k in (7, 0, 1)]


@built
def scan_of_chosen_rows() -> Built:
    """A Scan, backwards, over as many rows as data choose."""
    inside = body(
        [n("Mul", ["s", "half"], ["s1"]), n("Add", ["s1", "row"], ["sn"]), n("Tanh", ["sn"], ["out"])],
        [value("s", (3,)), value("row", (3,))], [value("sn", (3,)), value("out", (3,))],
    )  # fmt: skip
    made = model(
        [
            n("NonZero", ["mask"], ["where"]), n("Squeeze", ["where", "axis0"], ["at"]),
            n("Gather", ["x", "at"], ["rows"]),
            n("Scan", ["s0", "rows"], ["last", "all"], "scan", body=inside, num_scan_inputs=1,
              scan_input_directions=[1], scan_output_directions=[1], scan_output_axes=[1]),
            n("Neg", ["all"], ["y"], "after"),
        ],
        [value("x", (7, 3)), value("mask", (7,), BOOL), value("s0", (3,))], [value("last", (3,)), value("y", (3, "k"))],
        {"half": np.float32(0.5), "axis0": np.array([0])},
    )  # fmt: skip
    masks = ([1, 0, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0])
    return made, [{"x": normal(0, 7, 3), "s0": normal(1, 3), "mask": np.array(m, bool)} for m in masks]


@built
def one_element_conditions() -> Built:
    """A trip count and conditions with a dim of 1, and the largest number of trips that there is beside them."""
    inside = body(
        [n("Add", ["s", "x"], ["sn"]), n("Less", ["sn", "limit"], ["less"]), n("Identity", ["less"], ["go"])],
        [value("i", (), INT), value("c", (1,), BOOL), value("s", (1,))], [value("go", (1,), BOOL), value("sn", (1,))],
    )  # fmt: skip
    made = model(
        [
            n("Loop", ["k", "yes", "x"], ["y"], "counted", body=inside),
            n("Loop", ["forever", "yes", "x"], ["z"], "ended", body=inside),
        ],
        [value("x", (1,)), value("k", (1,), INT)], [value("y", (1,)), value("z", (1,))],
        {"yes": np.array([True]), "limit": np.array([7.5], np.float32), "forever": np.array(2**63 - 1)},
    )  # fmt: skip
    return made, [{"x": np.array([1.5], np.float32), "k": np.array([k])} for k in (100, 2)]


@built
def shrinking() -> Built:
    """A state that loses an element in every iteration, until one is left."""
    inside = body(
        [
            n("Slice", ["s", "one", "end", "axis0"], ["sn"]), n("Shape", ["sn"], ["shape"]),
            n("Gather", ["shape", "first"], ["length"]), n("Greater", ["length", "least"], ["go"]),
            n("ReduceSum", ["sn"], ["sum"], keepdims=0),
        ],
        head(value("s", ("k",))), [GOING, value("sn", ("k2",)), value("sum")],
    )  # fmt: skip
    made = model(
        [n("Loop", ["forever", "yes", "x"], ["y", "sums"], "shrink", body=inside)],
        [value("x", (40,))], [value("y", ("q",)), value("sums", ("r",))],
        {
            "forever": np.array(2**63 - 1), "yes": np.array(True), "one": np.array([1]), "end": np.array([2**31]),
            "axis0": np.array([0]), "first": np.array(0), "least": np.array(1),
        },
    )  # fmt: skip
    return made, [{"x": normal(0, 40)}]
