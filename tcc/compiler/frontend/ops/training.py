# SPDX-License-Identifier: Apache-2.0
"""ai.onnx.preview.training: optimizer steps as arithmetic, and gradients of what was imported before the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tcc.compiler.frontend.gradients import cone, gradients
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value

TRAINING = "ai.onnx.preview.training"


class _Step:
    """Arithmetic on values and numbers, for formulas that read as the operator's text."""

    def __init__(self, n: Node) -> None:
        self.n = n

    def _op(self, cls: Any, a: Value | float, b: Value | float) -> Value:
        x = a if isinstance(a, Value) else self.n.like(a, b)  # type: ignore[arg-type]
        y = b if isinstance(b, Value) else self.n.like(b, x)
        return self.n.op(cls, x, y)

    def add(self, a: Value | float, b: Value | float) -> Value:
        return self._op(graph.Add, a, b)

    def sub(self, a: Value | float, b: Value | float) -> Value:
        return self._op(graph.Sub, a, b)

    def mul(self, a: Value | float, b: Value | float) -> Value:
        return self._op(graph.Mul, a, b)

    def div(self, a: Value | float, b: Value | float) -> Value:
        return self._op(graph.Div, a, b)

    def power(self, base: float, exponent: Value) -> Value:
        return self._op(graph.Pow, base, exponent)

    def root(self, a: Value) -> Value:
        return self.n.op(graph.Sqrt, a)

    def if_positive(self, t: Value, yes: Value, no: Value) -> Value:
        return self.n.op(graph.Where, self.n.op(graph.Greater, t, self.n.like(0, t)), yes, no)

    def number(self, index: int, like: Value) -> Value:
        """An operand of one element (R or T) as a 0-D value in the type of another."""
        v = self.n.input(index)
        if self.n.type(v).size != 1:
            raise InputError(f"its input {index} is {self.n.type(v)}, and one number is needed")
        return self.n.cast(self.n.reshape(v, ()), self.n.dtype(like))


def _steps(n: Node, groups: int, step: Callable[..., tuple[Value, ...]]) -> list[Value]:
    """R, T, then `groups` lists of as many tensors: the results of `step` of each, list by list."""
    count, rest = divmod(len(n.values) - 2, groups)
    if rest or count < 1:
        raise InputError(f"it has {len(n.values) - 2} tensors, and {groups} for each optimized one are needed")
    rows = [step(*(n.input(2 + g * count + i) for g in range(groups))) for i in range(count)]
    return [row[k] for k in range(len(rows[0])) for row in rows]


@onnx_op("Adagrad", domain=TRAINING)
def adagrad(n: Node) -> list[Value]:
    s, decay, norm = _Step(n), n.attr("decay_factor", 0.0), n.attr("norm_coefficient", 0.0)

    def step(x: Value, g: Value, h: Value) -> tuple[Value, ...]:
        rate = s.div(s.number(0, x), s.add(s.mul(s.number(1, x), decay), 1.0))
        g = s.add(s.mul(x, norm), g)
        h = s.add(h, s.mul(g, g))
        return s.sub(x, s.div(s.mul(rate, g), s.add(s.root(h), n.attr("epsilon", 0.0)))), h

    return _steps(n, 3, step)


@onnx_op("Adam", domain=TRAINING)
def adam(n: Node) -> list[Value]:
    s, alpha, beta = _Step(n), n.attr("alpha", 0.9), n.attr("beta", 0.999)
    before, after = n.attr("norm_coefficient", 0.0), n.attr("norm_coefficient_post", 0.0)

    def step(x: Value, g: Value, v: Value, h: Value) -> tuple[Value, ...]:
        rate, t = s.number(0, x), s.number(1, x)
        g = s.add(s.mul(x, before), g)
        v = s.add(s.mul(v, alpha), s.mul(g, 1 - alpha))
        h = s.add(s.mul(h, beta), s.mul(s.mul(g, g), 1 - beta))
        scale = s.div(s.root(s.sub(1.0, s.power(beta, t))), s.sub(1.0, s.power(alpha, t)))
        rate = s.if_positive(t, s.mul(rate, scale), rate)
        x = s.sub(x, s.div(s.mul(rate, v), s.add(s.root(h), n.attr("epsilon", 0.0))))
        return s.mul(x, 1 - after), v, h

    return _steps(n, 4, step)


@onnx_op("Momentum", domain=TRAINING)
def momentum(n: Node) -> list[Value]:
    s, alpha, beta, norm = _Step(n), n.attr("alpha"), n.attr("beta"), n.attr("norm_coefficient")
    mode = n.attr("mode")
    if mode not in ("standard", "nesterov"):
        raise InputError(f"its mode is {mode}, and standard and nesterov are the choices")

    def step(x: Value, g: Value, v: Value) -> tuple[Value, ...]:
        rate, t = s.number(0, x), s.number(1, x)
        g = s.add(s.mul(x, norm), g)
        v = s.add(s.mul(v, alpha), s.mul(g, s.if_positive(t, n.like(beta, x), n.like(1, x))))
        direction = v if mode == "standard" else s.add(g, s.mul(v, alpha))
        return s.sub(x, s.mul(rate, direction)), v

    return _steps(n, 3, step)


@onnx_op("Gradient", domain=TRAINING)
def gradient(n: Node) -> list[Value]:
    """dy/dx of each x in `xs`, at the values that the node is given for the tensors named in xs and zs.

    Where these are other values than the ones of those names, y is computed anew from them.
    """
    names = [*n.attr("xs"), *n.attr("zs", [])]
    if len(names) != len(n.values):
        raise InputError(f"it is given {len(n.values)} values for the {len(names)} tensors of xs and zs")
    scope = n.importer.scope
    try:
        named, y = [scope.find(name) for name in names], scope.find(n.attr("y"))
    except KeyError as e:
        raise InputError(f"it names {e.args[0]}, which nothing before the node computes") from None
    given = n.inputs
    if any(a is not b for a, b in zip(named, given, strict=True)):
        mapping: dict[Value, Value] = dict(zip(named, given, strict=True))
        for op in cone(y, named):
            n.builder.block.append(op.clone(mapping))
        y = mapping.get(y, y)
    return gradients(n, y, given[: len(n.attr("xs"))])
