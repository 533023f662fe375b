# SPDX-License-Identifier: Apache-2.0
"""Activation functions, pointwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc import reference as _ref
from tcc.ir.declare import FLOAT, Attr, Operand, Result, one_of, register
from tcc.ir.graph.base import NUMBER, Array, broadcast, dense, present, same_dtype
from tcc.ir.graph.pointwise import Pointwise, Unary, check_domain
from tcc.ir.types import Type


@register
class Relu(Unary):
    """max(x, 0). ONNX Relu."""

    name = "graph.relu"
    compute = staticmethod(_ref.relu)


@register
class Sigmoid(Unary):
    """1 / (1 + e⁻ˣ). ONNX Sigmoid."""

    name = "graph.sigmoid"
    domain = "float"
    compute = staticmethod(_ref.sigmoid)


@register
class LeakyRelu(Unary):
    """x where x >= 0, else alpha·x. ONNX LeakyRelu."""

    name = "graph.leaky_relu"
    domain = "float"
    alpha = Attr(FLOAT, 0.01)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.leaky_relu(present(arrays[0]), alpha=self.alpha),)


@register
class Elu(Unary):
    """x where x >= 0, else alpha·(eˣ - 1). ONNX Elu."""

    name = "graph.elu"
    domain = "float"
    alpha = Attr(FLOAT, 1.0)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.elu(present(arrays[0]), alpha=self.alpha),)


@register
class Selu(Unary):
    """gamma·x where x > 0, else gamma·alpha·(eˣ - 1). ONNX Selu."""

    name = "graph.selu"
    domain = "float"
    alpha = Attr(FLOAT, 1.6732631921768188)
    gamma = Attr(FLOAT, 1.0507010221481323)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.selu(present(arrays[0]), alpha=self.alpha, gamma=self.gamma),)


@register
class Celu(Unary):
    """max(0, x) + min(0, alpha·(e^(x/alpha) - 1)). ONNX Celu."""

    name = "graph.celu"
    domain = "float"
    alpha = Attr(FLOAT, 1.0)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.celu(present(arrays[0]), alpha=self.alpha),)


@register
class HardSigmoid(Unary):
    """max(0, min(1, alpha·x + beta)). ONNX HardSigmoid."""

    name = "graph.hard_sigmoid"
    domain = "float"
    alpha = Attr(FLOAT, 0.2)
    beta = Attr(FLOAT, 0.5)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.hard_sigmoid(present(arrays[0]), alpha=self.alpha, beta=self.beta),)


@register
class HardSwish(Unary):
    """x · max(0, min(1, x/6 + 0.5)). ONNX HardSwish."""

    name = "graph.hard_swish"
    domain = "float"
    compute = staticmethod(_ref.hard_swish)


@register
class Softplus(Unary):
    """log(1 + eˣ). ONNX Softplus."""

    name = "graph.softplus"
    domain = "float"
    compute = staticmethod(_ref.softplus)


@register
class Softsign(Unary):
    """x / (1 + |x|). ONNX Softsign."""

    name = "graph.softsign"
    domain = "float"
    compute = staticmethod(_ref.softsign)


@register
class Mish(Unary):
    """x · tanh(softplus(x)). ONNX Mish."""

    name = "graph.mish"
    domain = "float"
    compute = staticmethod(_ref.mish)


@register
class Swish(Unary):
    """x · sigmoid(alpha·x). ONNX Swish."""

    name = "graph.swish"
    domain = "float"
    alpha = Attr(FLOAT, 1.0)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.swish(present(arrays[0]), alpha=self.alpha),)


@register
class ThresholdedRelu(Unary):
    """x where x > alpha, else 0. ONNX ThresholdedRelu."""

    name = "graph.thresholded_relu"
    domain = "float"
    alpha = Attr(FLOAT, 1.0)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.thresholded_relu(present(arrays[0]), alpha=self.alpha),)


@register
class Gelu(Unary):
    """x·Φ(x): exact by erf, or by the tanh approximation. ONNX Gelu."""

    name = "graph.gelu"
    domain = "float"
    approximate = Attr(one_of("none", "tanh"), "none")

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.gelu(present(arrays[0]), approximate=self.approximate),)


@register
class Shrink(Unary):
    """x + bias where x < -lambd, x - bias where x > lambd, else 0. ONNX Shrink."""

    name = "graph.shrink"
    bias = Attr(FLOAT, 0.0)
    lambd = Attr(FLOAT, 0.5)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.shrink(present(arrays[0]), bias=self.bias, lambd=self.lambd),)


@register
class Clip(Unary):
    """x clamped to [lo, hi]; a bound that is absent (none) does not bind; NaN stays. ONNX Clip, constant bounds."""

    name = "graph.clip"
    lo = Attr(NUMBER, None)
    hi = Attr(NUMBER, None)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        bounds: list[int | float | None] = [self.lo, self.hi]
        lo, hi = (None if b is None else np.asarray(b, x.dtype) for b in bounds)
        return (_ref.clip(x, lo, hi),)


@register
class Prelu(Pointwise):
    """x where x >= 0, else slope·x; the slope broadcasts to x. ONNX PRelu."""

    name = "graph.prelu"
    x = Operand()
    slope = Operand()
    y = Result()

    def infer(self) -> Sequence[Type]:
        x, slope = self.operand_type(0), self.operand_type(1)
        dtype = same_dtype(self, x, slope)
        check_domain(self, "number", dtype.kind)
        return (dense(broadcast(self, (x.shape, slope.shape)), dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.prelu(present(arrays[0]), present(arrays[1])),)
