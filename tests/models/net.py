# SPDX-License-Identifier: Apache-2.0
"""A way to write ONNX models with seeded weights in few lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper, shape_inference

from tests.random_graphs.gen import Array, Model


class Net:
    """A model under construction; every call of it adds a node."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.inputs: dict[str, Array] = {}
        self.held: dict[str, Array] = {}
        self.nodes: list[NodeProto] = []
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def __call__(self, op: str, *inputs: str, **attrs: Any) -> str:
        return self.many(op, inputs, 1, **attrs)[0]

    def many(self, op: str, inputs: Sequence[str], outputs: int, **attrs: Any) -> list[str]:
        names = [self.name(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, f"{op}_{self.count}/node", **attrs))
        return names

    # Values.

    def input(self, name: str, array: Any) -> str:
        self.inputs[name] = np.asarray(array)
        return name

    def const(self, array: Any) -> str:
        name = self.name("const")
        self.held[name] = np.asarray(array)
        return name

    def f(self, value: float) -> str:
        return self.const(np.float32(value))

    def i(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def weight(self, *shape: int, fan: int = 0) -> str:
        """Normal numbers of variance 1/fan."""
        return self.const(self.normal(*shape, scale=1 / math.sqrt(fan or 1)))

    # Layers.

    def conv(self, x: str, ci: int, co: int, k: int = 3, space: int = 2, bias: bool = True, **attrs: Any) -> str:
        """A convolution that keeps extents where strides are 1."""
        group, dilation = attrs.get("group", 1), attrs.get("dilations", [1])[0]
        w = self.weight(co, ci // group, *(k,) * space, fan=ci // group * k**space)
        if "pads" not in attrs and "auto_pad" not in attrs:
            attrs["pads"] = [dilation * (k - 1) // 2] * 2 * space
        return self("Conv", x, w, *([self.weight(co, fan=4)] if bias else []), kernel_shape=[k] * space, **attrs)

    def batch_norm(self, x: str, c: int) -> str:
        variance = self.const(self.normal(c) ** 2 + np.float32(0.5))
        scale = self.const(np.abs(self.normal(c, scale=0.3)) + np.float32(0.6))
        return self("BatchNormalization", x, scale, self.weight(c, fan=4), self.weight(c, fan=4), variance)

    def linear(self, x: str, k: int, n: int, bias: bool = True) -> str:
        y = self("MatMul", x, self.weight(k, n, fan=k))
        return self("Add", y, self.weight(n, fan=4)) if bias else y

    def layer_norm(self, x: str, w: int) -> str:
        scale = self.const(np.abs(self.normal(w, scale=0.3)) + np.float32(0.6))
        return self("LayerNormalization", x, scale, self.weight(w, fan=4), axis=-1)

    def attention(self, q: str, kv: str, w: int, heads: int, mask: str = "") -> str:
        """Multi-head attention on [n, t, w], with its projections; `mask` is added to the scores."""

        def split(x: str) -> str:
            return self("Transpose", self("Reshape", x, self.i(0, 0, heads, w // heads)), perm=[0, 2, 1, 3])

        a, b, c = split(self.linear(q, w, w)), split(self.linear(kv, w, w)), split(self.linear(kv, w, w))
        scores = self("Mul", self("MatMul", a, self("Transpose", b, perm=[0, 1, 3, 2])), self.f((w // heads) ** -0.5))
        if mask:
            scores = self("Add", scores, mask)
        y = self("Transpose", self("MatMul", self("Softmax", scores, axis=-1), c), perm=[0, 2, 1, 3])
        return self.linear(self("Reshape", y, self.i(0, 0, w)), w, w)

    def encoder_layer(self, x: str, w: int, heads: int, mask: str = "") -> str:
        h = self.layer_norm(x, w)
        x = self("Add", x, self.attention(h, h, w, heads, mask))
        y = self.linear(self.layer_norm(x, w), w, 2 * w)
        y = self("Mul", y, self("Sigmoid", self("Mul", y, self.f(1.702))))
        return self("Add", x, self.linear(y, 2 * w, w))

    def recurrent(
        self, kind: str, x: str, w: int, hidden: int, directions: int = 1, *rest: str, **attrs: Any
    ) -> list[str]:
        """All outputs of an LSTM, GRU or RNN on [t, n, w]."""
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
        held = [self.weight(directions, gates * hidden, k, fan=k) for k in (w, hidden)]
        bias = self.weight(directions, 2 * gates * hidden, fan=4)
        if directions == 2:
            attrs["direction"] = "bidirectional"
        return self.many(kind, [x, *held, bias, *rest], 3 if kind == "LSTM" else 2, hidden_size=hidden, **attrs)

    # Graphs.

    @contextmanager
    def body(self, inputs: Sequence[tuple[str, int, Sequence[int | str | None]]], outputs: list[str]) -> Any:
        """A graph for an attribute: nodes made inside go to it, and its outputs are what `outputs` holds at the end.

        `inputs`: (name, element type, shape)."""
        outer, self.nodes = self.nodes, []
        graph = GraphProto(name=self.name("body"))
        graph.input.extend(helper.make_tensor_value_info(*i) for i in inputs)
        yield graph
        graph.node.extend(self.nodes)
        graph.output.extend(onnx.ValueInfoProto(name=o) for o in outputs)
        self.nodes = outer

    def model(self, *outputs: str) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "model",
            [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
             for n, a in self.inputs.items()],
            [onnx.ValueInfoProto(name=o) for o in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.held.items()],
        )  # fmt: skip
        imports = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(graph, opset_imports=imports, ir_version=ir_version(self.opset))
        proto = shape_inference.infer_shapes(proto, data_prop=True)
        for o in proto.graph.output:  # ranks and extents are for the compiler to find out
            if not o.type.tensor_type.elem_type:
                raise ValueError(f"onnx does not infer the type of {o.name}")
            o.type.tensor_type.ClearField("shape")
        del proto.graph.value_info[:]
        return Model(proto, dict(self.inputs))


def ir_version(opset: int) -> int:
    return max(4, helper.find_min_ir_version_for([helper.make_opsetid("", opset)], True))
