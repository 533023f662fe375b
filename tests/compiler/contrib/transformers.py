# SPDX-License-Identifier: Apache-2.0
"""Small transformers as exporters and ONNX Runtime's fusions write them: decoders with a cache, a BERT encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.compiler.contrib.peers import MS, Array, normal, rng

WIDTH, HEADS, GROUPS, LAYERS, WORDS, ROWS = 64, 4, 2, 2, 50, 32
DEPTH = WIDTH // HEADS
HIDDEN = 96


class Builder:
    """Nodes and weights of a graph; every method gives the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self._seed = 0

    def op(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: object) -> str:
        made = list(outputs) or [f"{kind}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, made, f"{kind}_{len(self.nodes)}", **attributes))
        return made[0]

    def ms(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: object) -> str:
        return self.op(kind, *inputs, outputs=outputs, domain=MS, **attributes)

    def held(self, array: object, dtype: type | None = None) -> str:
        name = f"held_{len(self.weights)}"
        self.weights[name] = np.asarray(array) if dtype is None else np.asarray(array, dtype)
        return name

    def weight(self, *shape: int) -> str:
        self._seed += 1
        return self.held(normal(self._seed, *shape) / shape[0] ** 0.5)

    def scale(self, width: int) -> str:
        self._seed += 1
        return self.held(rng(self._seed).uniform(0.5, 1.5, width).astype(np.float32))

    def model(self, inputs: dict[str, tuple[int, Sequence[int | str]]], outputs: Sequence[str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "transformer",
            [helper.make_tensor_value_info(k, t, s) for k, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs],
            [numpy_helper.from_array(v, k) for k, v in self.weights.items()],
        )
        imports = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def decoder(
    attention: str, batch: int | str, new: int | str, past: int | str, total: int | str, four_bits: bool = False
) -> onnx.ModelProto:
    """A LLaMA-like decoder: input_ids [batch, new], attention_mask [batch, total] and a cache for each layer in, the
    logits and the longer caches out. `attention` is `group` (GroupQueryAttention with its rotary positions), `multi`
    (RotaryEmbedding and MultiHeadAttention) or `plain` (ONNX operators only)."""
    b = Builder()
    integers, floats = TensorProto.INT64, TensorProto.FLOAT
    inputs = {"input_ids": (integers, (batch, new)), "attention_mask": (integers, (batch, total))}
    angles = np.arange(ROWS)[:, None] / 100.0 ** (np.arange(DEPTH // 2) * 2 / DEPTH)
    tables = b.held(np.cos(angles).astype(np.float32)), b.held(np.sin(angles).astype(np.float32))
    ends = b.op("ReduceSum", "attention_mask", b.held([1], np.int64), keepdims=0)
    groups = GROUPS if attention == "group" else HEADS
    extents = b.op("Shape", "attention_mask"), b.op("Shape", "input_ids")
    last, count = (b.op("Gather", e, b.held(1, np.int64), axis=0) for e in extents)
    shared: list[str] = []
    if attention == "group":
        lengths = b.op("Cast", b.op("Sub", ends, b.held([1], np.int64)), to=TensorProto.INT32)
        shared = [lengths, b.op("Cast", last, to=TensorProto.INT32)]
    else:
        places = b.op("Sub", b.op("CumSum", "attention_mask", b.held(1, np.int64)), b.held(1, np.int64))
        row = b.op("Unsqueeze", b.op("Sub", last, count), b.held([0], np.int64))
        far = b.op("Unsqueeze", last, b.held([0], np.int64))
        one = b.held([1], np.int64)
        places = b.op("Clip", b.op("Slice", places, row, far, one), b.held(0, np.int64))
        shared = [places, _bias(b, places, last)]
    x = b.op("Gather", b.weight(WORDS, WIDTH), "input_ids", axis=0)
    skip = ""
    presents: list[str] = []
    for i in range(LAYERS):
        cache = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        made = [f"present.{i}.key", f"present.{i}.value"]
        presents += made
        inputs |= dict.fromkeys(cache, (floats, (batch, groups, past, DEPTH)))
        y, x = _norm(b, x, skip)
        y = _ATTENTIONS[attention](b, y, cache, made, tables, shared, four_bits)
        skip = _product(b, y, WIDTH, WIDTH, four_bits)
        y, x = _norm(b, x, skip)
        gate = _product(b, y, WIDTH, HIDDEN, four_bits)
        gate = b.op("Mul", gate, b.op("Sigmoid", gate))
        skip = _product(b, b.op("Mul", gate, _product(b, y, WIDTH, HIDDEN, four_bits)), HIDDEN, WIDTH, four_bits)
    y, _ = _norm(b, x, skip)
    b.op("MatMul", y, b.weight(WIDTH, WORDS), outputs=["logits"])
    return b.model(inputs, ["logits", *presents])


def _norm(b: Builder, x: str, skip: str) -> tuple[str, str]:
    """The norm of x + skip, and that sum."""
    if not skip:
        return b.op("SimplifiedLayerNormalization", x, b.scale(WIDTH), epsilon=1e-5, axis=-1, stash_type=1), x
    total = f"sum_{len(b.nodes)}"
    y = b.ms(
        "SkipSimplifiedLayerNormalization", x, skip, b.scale(WIDTH), outputs=[f"{total}_norm", "", "", total],
        epsilon=1e-5,
    )  # fmt: skip
    return y, total


def _product(b: Builder, x: str, depth: int, width: int, four_bits: bool) -> str:
    if not four_bits:
        return b.op("MatMul", x, b.weight(depth, width))
    blocks = depth // 32
    r = rng(len(b.nodes))
    packed = b.held(r.integers(0, 256, (width, blocks, 16)).astype(np.uint8))
    scales = b.held(r.uniform(0.01, 0.03, width * blocks).astype(np.float32))
    zeros = b.held(r.integers(0, 256, width * -(-blocks // 2)).astype(np.uint8))
    return b.ms("MatMulNBits", x, packed, scales, zeros, K=depth, N=width, bits=4, block_size=32)


def _group(
    b: Builder, y: str, cache: list[str], made: list[str], tables: tuple[str, str], shared: list[str], four_bits: bool
) -> str:
    packed = _product(b, y, WIDTH, (HEADS + 2 * GROUPS) * DEPTH, four_bits)
    return b.ms(
        "GroupQueryAttention", packed, "", "", *cache, *shared, *tables, outputs=[f"attended_{len(b.nodes)}", *made],
        num_heads=HEADS, kv_num_heads=GROUPS, do_rotary=1, scale=float(DEPTH**-0.5),
    )  # fmt: skip


def _multi(
    b: Builder, y: str, cache: list[str], made: list[str], tables: tuple[str, str], shared: list[str], four_bits: bool
) -> str:
    q, k, v = (_product(b, y, WIDTH, WIDTH, four_bits) for _ in range(3))
    q, k = (b.ms("RotaryEmbedding", x, shared[0], *tables) for x in (q, k))
    return b.ms(
        "MultiHeadAttention", q, k, v, "", "", shared[1], *cache, outputs=[f"attended_{len(b.nodes)}", *made],
        num_heads=HEADS,
    )  # fmt: skip


def _bias(b: Builder, places: str, last: str) -> str:
    """[batch, 1, new, total]: a large negative number where a key is padding or lies ahead."""
    start, step = b.held(0, np.int64), b.held(1, np.int64)
    columns = b.op("Range", start, last, step)
    seen = b.op("LessOrEqual", columns, b.op("Unsqueeze", places, b.held([1, 3], np.int64)))
    mask = b.op("Cast", b.op("Unsqueeze", "attention_mask", b.held([1, 2], np.int64)), to=TensorProto.BOOL)
    return b.op("Where", b.op("And", seen, mask), b.held(0.0, np.float32), b.held(-3e38, np.float32))


def _plain(
    b: Builder, y: str, cache: list[str], made: list[str], tables: tuple[str, str], shared: list[str], four_bits: bool
) -> str:
    def heads(x: str) -> str:
        x = b.op("Reshape", x, b.held([0, 0, HEADS, DEPTH], np.int64))
        return b.op("Transpose", x, perm=[0, 2, 1, 3])

    def half(x: str, start: int) -> str:
        ends = [start], [start + DEPTH // 2], [3]
        return b.op("Slice", x, *(b.held(e, np.int64) for e in ends))

    cosine, sine = (
        b.op("Unsqueeze", b.op("Concat", *[b.op("Gather", t, shared[0], axis=0)] * 2, axis=-1), b.held([1], np.int64))
        for t in tables
    )

    def turned(x: str) -> str:
        other = b.op("Concat", b.op("Neg", half(x, DEPTH // 2)), half(x, 0), axis=-1)
        return b.op("Add", b.op("Mul", x, cosine), b.op("Mul", other, sine))

    q, k, v = (heads(_product(b, y, WIDTH, WIDTH, four_bits)) for _ in range(3))
    k = b.op("Concat", cache[0], turned(k), outputs=[made[0]], axis=2)
    v = b.op("Concat", cache[1], v, outputs=[made[1]], axis=2)
    score = b.op("MatMul", turned(q), b.op("Transpose", k, perm=[0, 1, 3, 2]))
    score = b.op("Add", b.op("Mul", score, b.held(DEPTH**-0.5, np.float32)), shared[1])
    out = b.op("Transpose", b.op("MatMul", b.op("Softmax", score, axis=-1), v), perm=[0, 2, 1, 3])
    return b.op("Reshape", out, b.held([0, 0, WIDTH], np.int64))


_ATTENTIONS = {"group": _group, "multi": _multi, "plain": _plain}


def encoder(batch: int, length: int, raw_mask: bool, fast: bool = False) -> onnx.ModelProto:
    """A BERT encoder as ONNX Runtime's fusions leave it; the mask is the number of words of each row, or raw."""
    b = Builder()
    ids = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), (TensorProto.INT32, (batch, length)))
    words, places, kinds = b.weight(WORDS, WIDTH), b.weight(ROWS, WIDTH), b.weight(2, WIDTH)
    x = b.ms(
        "EmbedLayerNormalization", "input_ids", "token_type_ids", words, places, kinds, b.scale(WIDTH), b.weight(WIDTH),
        *([] if raw_mask else ["attention_mask"]), outputs=["embedded", "words_of_row"], epsilon=1e-12,
    )  # fmt: skip
    mask = "attention_mask" if raw_mask else "words_of_row"
    for _ in range(LAYERS):
        y = b.ms("Attention", x, b.weight(WIDTH, 3 * WIDTH), b.weight(3 * WIDTH), mask, num_heads=HEADS)
        y = b.op("MatMul", y, b.weight(WIDTH, WIDTH))
        x = b.ms(
            "SkipLayerNormalization", y, x, b.scale(WIDTH), b.weight(WIDTH), b.weight(WIDTH), epsilon=1e-12
        )  # fmt: skip
        y = b.op("MatMul", x, b.weight(WIDTH, HIDDEN))
        y = b.ms("FastGelu" if fast else "BiasGelu", y, b.weight(HIDDEN))
        y = b.op("MatMul", y, b.weight(HIDDEN, WIDTH))
        x = b.ms(
            "SkipLayerNormalization", y, x, b.scale(WIDTH), b.weight(WIDTH), b.weight(WIDTH), epsilon=1e-12
        )  # fmt: skip
    first = b.op("Squeeze", b.op("Slice", x, *(b.held([v], np.int64) for v in (0, 1, 1))), b.held([1], np.int64))
    b.op("Tanh", b.op("Gemm", first, b.weight(WIDTH, WIDTH), b.weight(WIDTH)), outputs=["pooled"])
    b.op("Identity", x, outputs=["hidden"])
    return b.model(ids, ["hidden", "pooled"])
