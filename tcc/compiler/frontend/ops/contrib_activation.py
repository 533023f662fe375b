# SPDX-License-Identifier: Apache-2.0
"""com.microsoft activation functions, with the bias that is added before them."""

from __future__ import annotations

from collections.abc import Callable

from tcc.compiler.frontend.contrib import FLOAT, contrib_op, known_dim, parts, takes
from tcc.compiler.frontend.node import Node
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value

_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",), "Elu": ("alpha",), "Selu": ("alpha", "gamma"),
    "HardSigmoid": ("alpha", "beta"), "Softplus": (), "Softsign": (), "ThresholdedRelu": ("alpha",), "Gelu": (),
}  # fmt: skip
"""Functions that fused operators name, and the parameters each takes."""


def activate(n: Node, x: Value, name: str, parameters: dict[str, float]) -> Value:
    """A function named by an attribute, with the parameters that the node gives; the others have ONNX's defaults."""
    if name == "Clip":
        return n.op(graph.Clip, x, lo=parameters.get("min"), hi=parameters.get("max"))
    if name == "HardSwish":
        return n.op(graph.HardSwish, x)
    if name not in _FUNCTIONS:
        known = ", ".join(sorted((*_FUNCTIONS, "Clip", "HardSwish")))
        raise InputError(f"its activation is {name}, and tcc has {known}")
    return n.op(getattr(graph, name), x, **{p: parameters[p] for p in _FUNCTIONS[name] if p in parameters})


def _biased(n: Node, x: Value, bias: Value | None) -> Value:
    return x if bias is None else n.op(graph.Add, x, bias)


def _gelu(approximate: str, needs_bias: bool = False) -> Callable[[Node], Value]:
    def handler(n: Node) -> Value:
        takes(n)
        bias = n.input(1) if needs_bias else n.optional(1)
        return n.op(graph.Gelu, _biased(n, n.input(0), bias), approximate=approximate)

    return handler


contrib_op("Gelu")(_gelu("none"))
contrib_op("BiasGelu")(_gelu("none", needs_bias=True))
contrib_op("FastGelu")(_gelu("tanh"))


@contrib_op("QuickGelu")
def quick_gelu(n: Node) -> Value:
    """x · sigmoid(alpha · x)."""
    takes(n, alpha=FLOAT)
    return n.op(graph.Swish, n.input(0), alpha=n.attr("alpha", 1.702))


@contrib_op("BiasSplitGelu")
def bias_split_gelu(n: Node) -> Value:
    """Left half · gelu(right half) of x + bias."""
    takes(n)
    x = _biased(n, n.input(0), n.input(1))
    axis = n.rank(x) - 1
    width = known_dim(n.shape(x)[axis], "its last dim") if axis >= 0 else 0
    if width < 2 or width % 2:
        raise InputError(f"x is {n.type(x)}, which does not split into two halves")
    left, right = parts(n, x, axis, (width // 2, width // 2))
    return n.op(graph.Mul, left, n.op(graph.Gelu, right))


@contrib_op("BiasAdd")
def bias_add(n: Node) -> Value:
    """x + bias + skip."""
    takes(n)
    return n.op(graph.Add, n.op(graph.Add, n.input(0), n.input(1)), n.input(2))
