# SPDX-License-Identifier: Apache-2.0
"""A graph under construction: every node is checked by onnx's inference and computed by onnx.reference as it is added,
so that values stay finite and small, and a step that does not fit is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from tests.random_graphs.choices import Array, Choices, Random
from tests.random_graphs.evaluate import compute, type_of

LIMIT = 20_000
"""The most elements of a tensor."""

LARGEST = {"float16": 200.0, "bfloat16": 200.0}
"""The largest magnitude of floats of a type, 2000 unless listed: results stay comparable and casts to integers fit."""

WINDOWS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool")

FLOATS = ("float32", "float16", "float64", "bfloat16")


def dtype_named(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name) if name == "bfloat16" else name)


@dataclass
class Model:
    """A model and inputs for it."""

    proto: onnx.ModelProto
    inputs: dict[str, Array]


class Refused(Exception):
    """A step that does not fit its operands."""


@dataclass
class Body:
    """What one graph holds: the main graph, or a body inside a node."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    held: dict[str, Array] = field(default_factory=dict)
    """Initialisers."""
    alive: list[str] = field(default_factory=list)
    """Values that steps take as operands, those of outer graphs included."""


class Gen(Random):
    """A graph under construction."""

    def __init__(self, choices: Choices, opset: int | None = None) -> None:
        super().__init__(choices)
        self.opset = self.pick(range(11, 27)) if opset is None else opset
        self.bodies = [Body()]
        self.inputs: dict[str, Array] = {}
        self.values: dict[str, Array] = {}
        self.consts: set[str] = set()
        self.varying: set[str] = set()
        """Values of loop bodies: their arrays are those of the first iteration."""
        self.deciding: set[str] = set()
        """Inputs that decide shapes."""
        self.asks = self.chance(0.12)
        """Whether operands that decide shapes are inputs at times."""
        self.free = False
        """Whether data may decide extents."""
        self.count = 0

    # The graph that is being written to.

    @property
    def body(self) -> Body:
        return self.bodies[-1]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return self.body.nodes

    @property
    def alive(self) -> list[str]:
        return self.body.alive

    @property
    def depth(self) -> int:
        """How many nodes with bodies this graph is inside of."""
        return len(self.bodies) - 1

    @contextmanager
    def inside(self) -> Any:
        """A new body, which sees the values of the graphs around it."""
        self.bodies.append(Body(alive=list(self.alive)))
        try:
            yield self.body
        finally:
            self.bodies.pop()

    # Values.

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        return self.values[name].dtype

    def kind(self, name: str) -> str:
        """f, i or b: float, integer, bool."""
        d = self.dtype(name)
        return "b" if d.kind == "b" else "i" if d.kind in "iu" else "f"

    def like(self, x: str) -> list[str]:
        """Values that steps may take of x's shape and type."""
        return [v for v in self.alive if self.shape(v) == self.shape(x) and self.dtype(v) == self.dtype(x)]

    def fresh(self, stem: str = "v") -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def input(self, array: Any) -> str:
        """A graph input with this value."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.values[name] = np.asarray(array)
        return name

    def const(self, array: Any) -> str:
        """An initialiser, or at times a Constant; equal ones are often one."""
        array = np.asarray(array)
        for name, held in self.body.held.items():
            if held.dtype == array.dtype and held.shape == array.shape and np.array_equal(held, array):
                return name
        name = self.fresh("c")
        self.values[name] = array
        self.consts.add(name)
        if self.chance(0.12):
            self.nodes.append(
                helper.make_node("Constant", [], [name], f"Constant_{name}", value=numpy_helper.from_array(array, name))
            )
        else:
            self.body.held[name] = array
        return name

    def weights(self, *shape: int, scale: float = 1.0, like: str | None = None) -> str:
        """A constant of normal numbers, of the type of `like`."""
        return self.const(self.normal(*shape, scale=scale).astype(np.float32 if like is None else self.dtype(like)))

    def f(self, value: float, like: str | None = None) -> str:
        """A scalar constant of the type of `like`, or f32."""
        return self.const(np.asarray(value, np.float32 if like is None else self.dtype(like)))

    def i(self, *values: int) -> str:
        """A vector of int64, which decides shapes: a constant, or at times an input."""
        if self.asks and not self.depth and len(self.inputs) < 6 and self.chance(0.3):
            name = self.input(np.array(values, np.int64))
            self.deciding.add(name)
            return name
        return self.const(np.array(values, np.int64))

    @contextmanager
    def freed(self) -> Any:
        """What is made inside may have extents that data decide; steps outside do not expect them."""
        before, self.free = self.free, True
        alive = list(self.alive)
        try:
            yield
        finally:
            self.free = before
            kept = [v for v in self.alive if v in alive or self.free]
            self.body.alive[:] = kept

    # Nodes.

    def many(self, op: str, inputs: Sequence[str], outputs: int = 1, domain: str = "", **attrs: Any) -> list[str]:
        """The outputs of a new node; Refused if it does not fit."""
        names = [self.fresh() for _ in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{op}_{names[0]}", domain=domain, **attrs)
        types = self._inferred(node)
        found = self._computed(node)
        whole = all(0 not in self.shape(i) for i in inputs if i)
        for n, array in zip(names, found, strict=True):
            if 0 in array.shape and whole and op in WINDOWS:
                raise Refused(f"{op}: a window that fits nowhere")
            if n in types:
                free = self.free or any(i in self.deciding for i in inputs)
                check_type(op, array, types[n].tensor_type, free)
            tame(op, array)
            self.values[n] = array
        if any(i in self.varying for i in inputs):
            self.varying.update(names)
        self.nodes.append(node)
        return names

    def __call__(self, op: str, *inputs: str, **attrs: Any) -> str:
        return self.many(op, inputs, **attrs)[0]

    def _inferred(self, node: onnx.NodeProto) -> dict[str, onnx.TypeProto]:
        try:
            schema = defs.get_schema(node.op_type, self.opset, node.domain)
        except defs.SchemaError:
            raise Refused(node.op_type) from None
        if schema.deprecated:
            raise Refused(node.op_type)
        given = {n: self.values[n] for n in node.input if n}
        types = {n: helper.make_tensor_type_proto(type_of(a), a.shape) for n, a in given.items()}
        data = {n: numpy_helper.from_array(a, n) for n, a in given.items() if n in self.consts}
        imports = [helper.make_opsetid("", self.opset)]
        try:
            return shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
        except (RuntimeError, ValueError, shape_inference.InferenceError, onnx.checker.ValidationError):
            raise Refused(node.op_type) from None

    def _computed(self, node: onnx.NodeProto) -> list[Array]:
        try:
            return compute(node, self.values, self.opset)
        except Exception as e:  # whatever the runtimes stumble over is left out
            raise Refused(f"{node.op_type}: {e}") from None

    def put(self, node: onnx.NodeProto, found: Sequence[Array], inside: set[str]) -> list[str]:
        """Add a node that has bodies, whose results are known. `inside`: values that the bodies take from here."""
        for n, array in zip(node.output, found, strict=True):
            tame(node.op_type, array)
            self.values[n] = array
        if any(i in self.varying for i in (*node.input, *inside)):
            self.varying.update(node.output)
        self.nodes.append(node)
        return list(node.output)

    @contextmanager
    def attempt(self) -> Any:
        """What is made inside is taken back if it is Refused, which passes on."""
        body = self.body
        nodes, alive, held = len(body.nodes), list(body.alive), set(body.held)
        inputs = len(self.inputs)
        try:
            yield
        except Refused:
            del body.nodes[nodes:]
            body.alive[:] = alive
            body.held = {n: a for n, a in body.held.items() if n in held}
            for n in list(self.inputs)[inputs:]:
                del self.inputs[n]
            raise

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


def check_type(op: str, array: Array, wanted: onnx.TypeProto.Tensor, free: bool = False) -> None:
    """Refused if the reference and the inference differ, or the extents hang on the data and are not free to."""
    if type_of(array) != wanted.elem_type or not (wanted.HasField("shape") or free):
        raise Refused(op)
    if not wanted.HasField("shape"):
        return
    if len(wanted.shape.dim) != array.ndim:
        raise Refused(op)
    for d, extent in zip(wanted.shape.dim, array.shape, strict=True):
        if d.dim_value != extent if d.HasField("dim_value") else not free:
            raise Refused(op)


def tame(op: str, array: Array) -> None:
    """Refused for values that are too many, too large or not finite."""
    if array.size > LIMIT:
        raise Refused(op)
    if array.dtype.kind in "biu" or array.size == 0:
        return
    largest = np.abs(array.astype(np.float64)).max()
    if not largest <= LARGEST.get(array.dtype.name, 2000.0):
        raise Refused(op)


Step = Callable[[Gen, str], "str | None"]
