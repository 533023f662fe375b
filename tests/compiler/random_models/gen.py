# SPDX-License-Identifier: Apache-2.0
"""A graph under construction: every node's types come from onnx's inference as it is added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

Array = np.ndarray[Any, Any]
LIMIT = 60_000
"""The most elements of a tensor."""


@dataclass
class Model:
    """A model and inputs for it."""

    proto: onnx.ModelProto
    inputs: dict[str, Array]


class Refused(Exception):
    """A step that does not fit its operands."""


class Gen:
    """A graph under construction."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = self.pick([11, 13, 17, 18, 20])
        self.nodes: list[onnx.NodeProto] = []
        self.held: dict[str, Array] = {}
        self.types: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.inputs: dict[str, Array] = {}
        self.alive: list[str] = []
        self.count = 0

    # Choices.

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def ints(self, low: int, high: int, count: int) -> list[int]:
        """`count` integers in [low, high]."""
        return [int(i) for i in self.rng.integers(low, high + 1, count)]

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    # Values.

    def shape(self, name: str) -> tuple[int, ...]:
        return self.types[name][1]

    def input(self, array: Array) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = array
        self.types[name] = (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        return name

    def const(self, array: Any) -> str:
        array = np.asarray(array)
        for name, held in self.held.items():
            if held.dtype == array.dtype and np.array_equal(held, array):
                return name
        name = f"c{len(self.held)}"
        self.held[name] = array
        self.types[name] = (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        return name

    def f(self, value: float) -> str:
        return self.const(np.float32(value))

    def i(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def many(self, op: str, inputs: Sequence[str], outputs: int = 1, **attrs: Any) -> list[str]:
        """The outputs of a new node; Refused if it does not fit."""
        names = [f"v{self.count + k}" for k in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{op}_{self.count}", **attrs)
        try:
            schema = defs.get_schema(op, self.opset)
        except defs.SchemaError:
            raise Refused(op) from None
        types = {n: helper.make_tensor_type_proto(*self.types[n]) for n in inputs if n}
        data = {n: numpy_helper.from_array(self.held[n], n) for n in inputs if n in self.held}
        imports = [helper.make_opsetid("", self.opset)]
        try:
            found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
        except (RuntimeError, ValueError, shape_inference.InferenceError):
            raise Refused(op) from None
        for n in names:
            t = found[n].tensor_type
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in t.shape.dim)
            if not t.HasField("shape") or min(shape, default=1) < 1 or np.prod(shape) > LIMIT:
                raise Refused(op)
            self.types[n] = (t.elem_type, shape)
        self.nodes.append(node)
        self.count += outputs
        return names

    def __call__(self, op: str, *inputs: str, **attrs: Any) -> str:
        return self.many(op, inputs, **attrs)[0]

    # What changed between opsets.

    def reduce(self, kind: str, x: str, axes: Sequence[int], keepdims: int) -> str:
        by_input = self.opset >= (13 if kind == "Sum" else 18)
        if by_input:
            return self(f"Reduce{kind}", x, self.i(*axes), keepdims=keepdims)
        return self(f"Reduce{kind}", x, axes=list(axes), keepdims=keepdims)

    def squeeze(self, x: str, axes: Sequence[int], op: str = "Squeeze") -> str:
        if self.opset >= 13:
            return self(op, x, self.i(*axes))
        return self(op, x, axes=list(axes))

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if self.opset >= 13:
            return self.many("Split", [x, self.i(*sizes)], len(sizes), axis=axis)
        return self.many("Split", [x], len(sizes), axis=axis, split=list(sizes))

    # The end.

    def finish(self, outputs: Sequence[str]) -> Model:
        value = helper.make_tensor_value_info
        made = {o for n in self.nodes for o in n.output}
        ends: list[str] = []
        for o in outputs:
            # An output is named once; a second use of a value, an input and a constant go through a node at times.
            if o in ends or (o not in made and self.chance(0.5)):
                o = self("Identity", o)
            ends.append(o)
        graph = helper.make_graph(
            self.nodes,
            "random",
            [value(n, *self.types[n]) for n in self.inputs],
            [value(o, *self.types[o]) for o in ends],
            [numpy_helper.from_array(a, n) for n, a in self.held.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return Model(proto, self.inputs)


Step = Callable[[Gen, str], "str | None"]
