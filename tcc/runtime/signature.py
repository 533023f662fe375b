# SPDX-License-Identifier: Apache-2.0
"""An engine's inputs and outputs: checking a call's values against them, and binding symbols from their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcc.errors import InputError
from tcc.runtime.container import EngineData
from tcc.runtime.executor import Value, show_shape
from tcc.runtime.expr import Expr, evaluate, is_constant, show
from tcc.runtime.host_values import is_host, show_type


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, element type and shape, whose dims are integers or expressions over symbols.

    `type` is that of one that lives on the host (strings, a sequence, an optional), as the engine file has it.
    """

    name: str
    dtype: str
    shape: tuple[Expr, ...]
    type: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        if self.type is not None:
            return f"{self.name}: {show_type(self.type)}"
        return f"{self.name}: {self.dtype}[{','.join(show(d) for d in self.shape)}]"


class Signature:
    """The inputs and outputs of an engine."""

    def __init__(self, data: EngineData) -> None:
        self.inputs = tuple(_spec(entry) for entry in data.inputs)
        self.outputs = tuple(_spec(entry) for entry in data.outputs)
        self._symbols = [symbol for symbol in data.symbols if symbol["input"] is not None]
        self._wanted = [(spec.dtype, _constant(spec.shape)) for spec in self.inputs]
        self._outputs = [_constant(spec.shape) for spec in self.outputs]

    def check(self, values: Sequence[Value]) -> dict[str, int]:
        """The symbols' values for these inputs; raises InputError naming what is given and what is wanted."""
        fixed = True
        for value, (dtype, shape), spec in zip(values, self._wanted, self.inputs, strict=True):
            if spec.type is not None:
                continue  # `accept` has checked it
            if value.dtype != dtype:
                raise InputError(f"the input '{spec.name}' is {value.dtype} and the engine takes {dtype}")
            if value.shape != shape:
                if shape is not None or len(value.shape) != len(spec.shape):
                    raise _wrong_shape(spec, value)
                fixed = False
        if fixed and not self._symbols:
            return {}
        symbols = self._bind(values)
        for value, spec in zip(values, self.inputs, strict=True):
            if spec.type is None and tuple(evaluate(d, symbols) for d in spec.shape) != value.shape:
                raise _wrong_shape(spec, value, symbols)
        return symbols

    def output_shape(self, index: int, symbols: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of an output, with the symbols bound."""
        fixed = self._outputs[index]
        return fixed if fixed is not None else tuple(evaluate(d, symbols) for d in self.outputs[index].shape)

    def _bind(self, values: Sequence[Value]) -> dict[str, int]:
        symbols: dict[str, int] = {}
        for symbol in self._symbols:
            name, extent = symbol["name"], values[symbol["input"]].shape[symbol["axis"]]
            low, high, divisor = symbol.get("min", 0), symbol.get("max"), symbol.get("divisor", 1)
            if extent < low or (high is not None and extent > high) or extent % divisor:
                limits = f"at least {low}" if high is None else f"from {low} to {high}"
                multiple = f" and a multiple of {divisor}" if divisor > 1 else ""
                raise InputError(
                    f"axis {symbol['axis']} of the input '{self.inputs[symbol['input']].name}' ({name}) is {extent} "
                    f"and the engine takes {limits}{multiple}: compile one for this shape"
                )
            symbols[name] = extent
        return symbols


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    if is_host(entry):
        kinds = ("dtype", "shape", "sequence", "optional", "map", "length")
        return TensorSpec(entry["name"], entry.get("dtype", ""), (), {k: entry[k] for k in kinds if k in entry})
    return TensorSpec(entry["name"], entry["dtype"], tuple(entry["shape"]))


def _constant(shape: tuple[Expr, ...]) -> tuple[int, ...] | None:
    if not all(is_constant(d) for d in shape):
        return None
    return tuple(evaluate(d, {}) for d in shape)


def _wrong_shape(spec: TensorSpec, value: Value, symbols: Mapping[str, int] | None = None) -> InputError:
    wanted = show_shape([show(d) for d in spec.shape])
    bound = ", ".join(f"{name} = {extent}" for name, extent in (symbols or {}).items())
    return InputError(
        f"the input '{spec.name}' has the shape {show_shape(value.shape)} and the engine takes {wanted}"
        f"{f' with {bound}' if bound else ''}: compile one for this shape, or change the input"
    )
