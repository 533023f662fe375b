# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers that both targets' templates are tried on: graph ops, lowered as the compiler does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Block
from tcc.ir.kernel import Func
from tcc.ir.types import F16, F32, F64, I8, I16, I32, I64, DType, TensorType
from tcc.passes.lower.group import LOWERINGS, Group
from tcc.passes.lower.to_kernel import wrap

Array = np.ndarray[Any, Any]
OPS: dict[str, Any] = {"lstm": graph.Lstm, "gru": graph.Gru, "rnn": graph.Rnn}
DEFAULTS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}
NAMES = tuple(graph.RECURRENT_ACTIVATIONS)


@dataclass(frozen=True)
class Layer:
    """What is to be built. `variant`: input_forget or linear_before_reset; `given`: initial states; `extra`: peepholes
    or the bias of the third gate; `lengths`: their element type. Steps and batch may be symbols; no `values` are
    made then."""

    kind: str
    steps: Any
    batch: Any
    hidden: int
    dtype: DType = F32
    reverse: bool = False
    variant: bool = False
    given: bool = False
    extra: bool = False
    lengths: DType | None = None
    clip: float | None = None
    activations: tuple[str, ...] = ()
    const: bool = True
    quantized: DType | None = None
    """The type of the weights of a layer whose state is quantized."""

    def types(self) -> dict[str, TensorType]:
        """The operands, in the order of the arguments."""
        t, b, h, d = self.steps, self.batch, self.hidden, self.dtype
        gates = OPS[self.kind].gates
        out = {"x": TensorType((t, b, gates * h), d), "r": TensorType((gates * h, h), d)}
        if self.given:
            out["h"] = TensorType((b, h), d)
        if self.lengths is not None:
            out["lengths"] = TensorType((b,), self.lengths)
        if self.kind == "lstm" and self.given:
            out["c"] = TensorType((b, h), d)
        if self.kind == "lstm" and self.extra:
            out["p"] = TensorType((3 * h,), d)
        if self.kind == "gru" and self.extra and self.variant:
            out["rb"] = TensorType((h,), d)
        if self.quantized is not None:
            out["r"] = TensorType((gates * h, h), self.quantized)
            out["scale"] = TensorType((gates * h,) if self.extra else (), d)
        return out

    def op(self) -> graph.GraphOp:
        """The graph op, on arguments of a block of its own."""
        types = self.types()
        block = Block(list(types.values()))
        value: dict[str, Any] = dict(zip(types, block.args, strict=True))
        further = {"lstm": ("c", "p"), "gru": ("rb",), "rnn": ()}[self.kind]
        names = self.activations or DEFAULTS[self.kind]
        attrs: dict[str, Any] = {
            "activations": names, "clip": self.clip, "reverse": self.reverse,
            "alpha": [0.3 if n == "hardsigmoid" else 0.8 for n in names],
            "beta": [0.4 if n == "hardsigmoid" else 0.6 for n in names],
        }  # fmt: skip
        if self.kind == "lstm":
            attrs["input_forget"] = self.variant
        if self.kind == "gru":
            attrs["linear_before_reset"] = self.variant
        kind = OPS[self.kind]
        if self.quantized is not None:
            kind, further = graph.QuantizedLstm, (*further, "scale")
        return kind(*(value.get(n) for n in ("x", "r", "h", "lengths", *further)), **attrs)

    def func(self) -> Func:
        """The kernel. Its arguments may come in another order than those of `types`; see `arrays`."""
        return self.made()[0]

    def made(self) -> tuple[Func, list[str]]:
        op = self.op()
        made = LOWERINGS[op.name](Group(wrap(op)))
        names = dict(zip(op.operands, self.types_of(op), strict=True))
        order = [names[v] for v in made.operands]
        if self.const:
            made.func.attrs["const"] = tuple(n == "r" for n in order)
        made.func.attrs["sym_name"] = "f"
        return made.func, order

    def types_of(self, op: graph.GraphOp) -> list[str]:
        """The names of an op's operands."""
        return [list(self.types())[v.index] for v in op.operands]  # type: ignore[attr-defined]

    def values(self, rng: np.random.Generator) -> dict[str, Array]:
        """Random operands by name, weights scaled so that no state runs away."""
        out: dict[str, Array] = {}
        for name, t in self.types().items():
            if name == "lengths":
                values = rng.integers(0, self.steps + 1, self.batch)
                if self.batch > 1:
                    values[:2] = self.steps, 0
                out[name] = values.astype(t.dtype.numpy)
                continue
            if t.dtype.is_int:
                out[name] = rng.integers(-127, 128, t.static_shape).astype(t.dtype.numpy)
                continue
            if name == "scale":
                out[name] = (rng.uniform(0.5, 2, t.static_shape) / 127 / np.sqrt(self.hidden)).astype(t.dtype.numpy)
                continue
            scale = 1.0 / max(1.0, np.sqrt(self.hidden)) if name == "r" else 1.0
            out[name] = (rng.standard_normal(t.static_shape) * scale).astype(np.float32).astype(t.dtype.numpy)
        return out

    def arrays(self, rng: np.random.Generator) -> list[Array]:
        """Random operands in the order of the kernel's arguments."""
        values = self.values(rng)
        return [values[n] for n in self.made()[1]]


LAYERS = [
    Layer("lstm", 5, 2, 19),
    Layer("lstm", 3, 1, 64, reverse=True, given=True, extra=True),
    Layer("lstm", 4, 7, 33, lengths=I32, reverse=True, extra=True, given=True, clip=0.7),
    Layer("lstm", 4, 3, 9, variant=True, lengths=I64, activations=("hardsigmoid", "softsign", "scaledtanh")),
    Layer("lstm", 3, 2, 21, F16, given=True, lengths=I32),
    Layer("lstm", 3, 2, 10, F64, extra=True),
    Layer("gru", 5, 3, 17),
    Layer("gru", 4, 5, 40, reverse=True, lengths=I32, given=True, clip=1.5),
    Layer("gru", 4, 2, 23, variant=True, extra=True, reverse=True, lengths=I64),
    Layer("gru", 3, 4, 12, F64, given=True),
    Layer("gru", 3, 4, 35, F16, variant=True, extra=True),
    Layer("rnn", 6, 2, 31, given=True, lengths=I32),
    Layer("rnn", 3, 9, 18, F16, reverse=True),
    *(Layer("rnn", 3, 2, 11, activations=(n,), clip=1.0 if i % 2 else None) for i, n in enumerate(NAMES)),
    Layer("lstm", 1, 1, 1),
    Layer("gru", 1, 1, 1, given=True),
    Layer("lstm", 0, 2, 5, given=True),
    Layer("gru", 3, 0, 5),
    Layer("lstm", 6, 3, 19, quantized=I8),
    Layer("lstm", 4, 5, 64, quantized=I16, given=True, extra=True, clip=0.8),
    Layer("lstm", 5, 4, 33, quantized=I8, lengths=I32, extra=True, given=True),
    Layer("lstm", 3, 1, 6, quantized=I8, variant=True, lengths=I64),
    Layer("lstm", 1, 1, 1, quantized=I8),
    Layer("lstm", 0, 2, 5, quantized=I8, given=True),
    Layer("lstm", 2, 0, 5, quantized=I8),
]
"""Odd shapes, every option, and extents of 0 and 1."""

DYNAMIC = [replace(layer, const=False) for layer in (*(LAYERS[i] for i in (1, 6, 8, 11)), LAYERS[-5])]
"""Weights that are no constants."""


def name_of(layer: Layer) -> str:
    """What a test calls a layer."""
    parts = [layer.kind, f"{layer.steps}x{layer.batch}x{layer.hidden}", str(layer.dtype)]
    parts += [n for n in ("reverse", "variant", "given", "extra") if getattr(layer, n)]
    parts += ["lengths"] if layer.lengths else []
    parts += [f"quantized-{layer.quantized}"] if layer.quantized else []
    return "-".join([*parts, *layer.activations, *([] if layer.const else ["weights"])])
