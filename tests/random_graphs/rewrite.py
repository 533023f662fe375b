# SPDX-License-Identifier: Apache-2.0
"""Rewrites of models for the oracle: 16-bit floats emulated in f32, and roundings made at random.

`widened` lets one runtime answer for every float type: each value of a 16-bit type is computed in f32 and rounded to
its type. `noisy` is Monte Carlo arithmetic (Parker 1997): every result of an inexact op, and every operand of an op
that adds many numbers up, is multiplied by 1 + e with a random e of a few roundings. How far the outputs move then says
how well they are determined, in place of a tolerance that somebody guessed.
"""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

STEP = {
    TensorProto.FLOAT: 2.0**-20, TensorProto.DOUBLE: 2.0**-48, TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}  # fmt: skip
"""The size of the noise: a few roundings of the type."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EXACT = _words("""
    Identity Cast CastLike Constant ConstantOfShape Reshape Flatten Squeeze Unsqueeze Transpose Slice Concat Split Pad
    Gather GatherElements GatherND Tile Expand DepthToSpace SpaceToDepth Trilu ReverseSequence CenterCropPad Where Abs
    Neg Relu Max Min Clip Sign Floor Ceil Round ReduceMax ReduceMin MaxPool GlobalMaxPool Dropout Shape Size Range
    EyeLike OneHot TopK Hardmax Compress Upsample QuantizeLinear If Loop Scan ThresholdedRelu MaxUnpool TensorScatter
""")
"""Ops whose float results need no rounding. ScatterElements and ScatterND may add, so they are not among them."""

SUMS = _words("""
    MatMul Gemm Conv ConvTranspose Einsum ReduceSum ReduceMean ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum
    ReduceLogSumExp ReduceProd AveragePool GlobalAveragePool LpPool GlobalLpPool CumSum CumProd BatchNormalization
    InstanceNormalization GroupNormalization LayerNormalization RMSNormalization LRN MeanVarianceNormalization
    LpNormalization Softmax LogSoftmax Attention GridSample RoiAlign Resize QuantizeLinear DynamicQuantizeLinear LSTM
    GRU RNN Sum Mean Det RotaryEmbedding
""")
"""Ops whose operands get noise of their own: the size of their results does not bound the error."""

FIRST_ONLY = frozenset(("Resize", "QuantizeLinear", "RoiAlign"))


def widened(model: ModelProto) -> ModelProto:
    """The model with every 16-bit float computed in f32 and rounded; the model itself if it has none."""
    if not _narrow(model.graph):
        return model
    out = ModelProto()
    out.CopyFrom(shape_inference.infer_shapes(model))
    types: dict[str, int] = {}
    _widen(out.graph, types)
    return out


def _narrow(graph: GraphProto) -> bool:
    tensors = [*graph.initializer, *(a.t for n in graph.node for a in n.attribute if a.HasField("t"))]
    if any(t.data_type in NARROW for t in tensors):
        return True
    if any(i.type.tensor_type.elem_type in NARROW for i in (*graph.input, *graph.output, *graph.value_info)):
        return True
    if any(a.name in ("to", "dtype") and a.i in NARROW for n in graph.node for a in n.attribute):
        return True
    return any(_narrow(a.g) for n in graph.node for a in n.attribute if a.HasField("g"))


def element_types(graph: GraphProto, types: dict[str, int]) -> None:
    """Add the element types of a graph's values to `types`."""
    for i in (*graph.input, *graph.output, *graph.value_info):
        if i.type.tensor_type.elem_type:
            types[i.name] = i.type.tensor_type.elem_type
    types.update((t.name, t.data_type) for t in graph.initializer)


def _wide(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in NARROW:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _widen(graph: GraphProto, types: dict[str, int]) -> None:
    element_types(graph, types)
    for t in graph.initializer:
        t.CopyFrom(_wide(t))
    for i in (*graph.input, *graph.output):
        if i.type.tensor_type.elem_type in NARROW:
            i.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    nodes = list(graph.node)
    del graph.node[:]
    for n in nodes:
        for a in n.attribute:
            if a.type == AttributeProto.GRAPH:
                _widen(a.g, dict(types))
            elif a.type == AttributeProto.TENSOR:
                a.t.CopyFrom(_wide(a.t))
            elif a.name in ("to", "dtype") and a.i in NARROW:
                a.i = TensorProto.FLOAT
        to = {o: types[o] for o in n.output if types.get(o) in NARROW}
        if n.op_type == "CastLike" and n.output[0] in to:
            n.op_type = "Cast"
            del n.input[1:]
            n.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        n.output[:] = [f"{o}/wide" if o in to else o for o in n.output]
        graph.node.append(n)
        for o, t in to.items():
            graph.node.append(helper.make_node("Cast", [f"{o}/wide"], [f"{o}/narrow"], to=t))
            graph.node.append(helper.make_node("Cast", [f"{o}/narrow"], [o], to=TensorProto.FLOAT))


def noisy(model: ModelProto, seed: int) -> ModelProto:
    """The model with random roundings; one with 16-bit floats is to be widened first."""
    out = ModelProto()
    out.CopyFrom(shape_inference.infer_shapes(model))
    _Noise(seed).graph(out.graph, {})
    return out


class _Noise:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.made = 0

    def times(self, x: str, y: str, kind: int, size: float) -> list[NodeProto]:
        """Nodes that give x · (1 + size · sin(a · x + b)) as y: as good as random, but equal values stay equal."""
        self.made += 1
        r = f"{y}/noise{self.made}"
        out: list[NodeProto] = []

        def scalar(what: str, value: float) -> str:
            t = helper.make_tensor("value", kind, [], [value])
            out.append(helper.make_node("Constant", [], [f"{r}/{what}"], value=t))
            return f"{r}/{what}"

        def apply(op: str, *inputs: str, to: str = "") -> str:
            name = to or f"{r}/{op.lower()}{len(out)}"
            out.append(helper.make_node(op, list(inputs), [name]))
            return name

        bounded = apply("Min", apply("Max", x, scalar("low", -1e4)), scalar("high", 1e4))
        angle = apply("Add", apply("Mul", bounded, scalar("a", 7919.0 + self.seed)), scalar("b", 0.37 * self.made))
        change = apply("Mul", apply("Sin", angle), scalar("size", size))
        apply("Mul", x, apply("Add", change, scalar("one", 1.0)), to=y)
        return out

    def graph(self, graph: GraphProto, outer: dict[str, int]) -> None:
        types = dict(outer)
        element_types(graph, types)
        del graph.value_info[:]
        nodes = list(graph.node)
        del graph.node[:]
        # A 16-bit value is rounded where `widened` casts it down: the noise of its type comes before that.
        down = {
            n.input[0]: next(a.i for a in n.attribute if a.name == "to")
            for n in nodes if n.op_type == "Cast" and n.output[0].endswith("/narrow")
        }  # fmt: skip
        for n in nodes:
            for a in n.attribute:
                if a.type == AttributeProto.GRAPH:
                    self.graph(a.g, types)
            if n.op_type in SUMS:
                for k, x in enumerate(n.input[:1] if n.op_type in FIRST_ONLY else n.input):
                    if types.get(x) in (TensorProto.FLOAT, TensorProto.DOUBLE):
                        n.input[k] = f"{x}/operand{self.made}"
                        graph.node.extend(self.times(x, n.input[k], types[x], STEP[types[x]]))
            inexact = [
                o for o in n.output
                if types.get(o) in (TensorProto.FLOAT, TensorProto.DOUBLE) and n.op_type not in EXACT
            ]  # fmt: skip
            names = list(n.output)
            n.output[:] = [f"{o}/exact" if o in inexact else o for o in names]
            graph.node.append(n)
            for o in inexact:
                graph.node.extend(self.times(f"{o}/exact", o, types[o], STEP[down.get(o, types[o])]))
