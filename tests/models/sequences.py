# SPDX-License-Identifier: Apache-2.0
"""Models of speech, text and other sequences."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.models.net import Net
from tests.random_graphs.gen import Model

F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def crnn() -> Model:
    """Text in pictures: convolutions, columns as steps of two bidirectional LSTMs, a class a step."""
    g = Net(16, 21)
    x = g.input("image", g.normal(2, 1, 16, 33))
    for ci, co, pool in ((1, 6, [2, 2]), (6, 8, [2, 2]), (8, 10, [2, 1])):
        x = g("Relu", g.batch_norm(g.conv(x, ci, co, bias=False), co))
        x = g("MaxPool", x, kernel_shape=pool, strides=pool)
    x = g("Conv", x, g.weight(12, 10, 2, 2, fan=40), g.weight(12))
    x = g("Transpose", g("Squeeze", x, g.i(2)), perm=[2, 0, 1])
    for w in (12, 10):
        y, _, _ = g.recurrent("LSTM", x, w, 5, 2)
        x = g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), g.i(0, 0, -1))
    out = g("LogSoftmax", g.linear(x, 10, 7), axis=2)
    return g.model(out, g("ArgMax", out, axis=2, keepdims=0))


def speech(rate: int = 16000) -> Model:
    """A voice detector: an If on the sampling rate picks the front end, LSTM states come in and go out."""
    g = Net(16, 22)
    sound = g.input("input", g.normal(1, 128))
    state = g.input("state", g.normal(2, 1, 8, scale=0.5))
    sr = g.input("sr", np.array(rate, np.int64))
    ends: list[str] = []
    bodies = []
    for k, stride in ((16, 8), (8, 4)):
        ends = []
        with g.body([], ends) as graph:
            x = g("Pad", g("Unsqueeze", sound, g.i(1)), g.i(0, 0, k // 2, 0, 0, k // 2), mode="reflect")
            spectrum = g("Conv", x, g.weight(10, 1, k, fan=k), strides=[stride])
            real, imaginary = g.many("Split", [spectrum, g.i(5, 5)], 2, axis=1)
            y = g("Sqrt", g("Add", g("Add", g("Mul", real, real), g("Mul", imaginary, imaginary)), g.f(1e-4)))
            y = g("Relu", g.conv(y, 5, 8, 3, 1))
            if stride == 4:
                y = g("AveragePool", y, kernel_shape=[2], strides=[2])
            frames = g("Slice", y, g.i(0), g.i(16), g.i(2))
            ends.append(frames)
        bodies.append(graph)
    x = g("If", g("Equal", sr, g.const(np.int64(16000))), then_branch=bodies[0], else_branch=bodies[1])
    x = g("Transpose", x, perm=[2, 0, 1])
    h, c = (g("Squeeze", s, g.i(0)) for s in g.many("Split", [state, g.i(1, 1)], 2, axis=0))
    h, c = (g("Unsqueeze", s, g.i(0)) for s in (h, c))
    y, h, c = g.recurrent("LSTM", x, 8, 8, 1, "", h, c)
    last = g("Squeeze", g("Gather", y, g.const(np.int64(-1)), axis=0), g.i(0))
    voice = g("Sigmoid", g.linear(g("Relu", last), 8, 1))
    return g.model(voice, g("Concat", h, c, axis=0))


def speech_8k() -> Model:
    """The other branch of `speech`."""
    return speech(8000)


def tagger() -> Model:
    """Words and letters embedded, a bidirectional GRU over texts of different lengths, a tag a word."""
    g = Net(14, 23)
    words = g.input("words", g.rng.integers(0, 30, (3, 9)).astype(np.int64))
    letters = g.input("letters", g.rng.integers(0, 12, (3, 9, 5)).astype(np.int32))
    lengths = g.input("lengths", np.array([9, 4, 1], np.int32))
    spelled = g("ReduceMax", g("Gather", g.weight(12, 4), letters), axes=[2], keepdims=0)
    x = g("Concat", g("Gather", g.weight(30, 8), words), spelled, axis=-1)
    x = g("Transpose", x, perm=[1, 0, 2])
    y, last = g.recurrent("GRU", x, 12, 6, 2, lengths, linear_before_reset=1)
    y = g("Reshape", g("Transpose", y, perm=[2, 0, 1, 3]), g.i(3, 9, 12))
    scores = g("Softmax", g.linear(y, 12, 5), axis=-1)
    return g.model(scores, g("ArgMax", scores, axis=-1), last)


def wavenet() -> Model:
    """Dilated causal convolutions with gates, residuals and skips."""
    g = Net(11, 24)
    x = g.conv(g.input("sound", g.normal(2, 1, 37)), 1, 6, 1, 1)
    skips = []
    for dilation in (1, 2, 4, 8):
        h = g("Pad", x, g.i(0, 0, dilation, 0, 0, 0))
        h = g("Conv", h, g.weight(12, 6, 2, fan=12), g.weight(12), dilations=[dilation])
        a, b = g.many("Split", [h], 2, axis=1)
        h = g("Mul", g("Tanh", a), g("Sigmoid", b))
        skips.append(g.conv(h, 6, 5, 1, 1))
        x = g("Add", g.conv(h, 6, 6, 1, 1), x)
    y = g("Relu", g("Sum", *skips))
    return g.model(g("Softmax", g.conv(y, 5, 9, 1, 1), axis=1) if g.opset >= 13 else g.conv(y, 5, 9, 1, 1), x)


def experts() -> Model:
    """A mixture of experts: the two best of four, by masks, and by weights that are gathered."""
    g = Net(18, 25)
    w, count = 10, 4
    x = g("Reshape", g.input("tokens", g.normal(2, 5, w)), g.i(-1, w))
    gate = g.linear(x, w, count, bias=False)
    best, at = g.many("TopK", [gate, g.i(2)], 2, axis=-1)
    share = g("Softmax", best, axis=-1)
    total = ""
    for e in range(count):
        chosen = g("Equal", at, g.const(np.int64(e)))
        mine = g("ReduceSum", g("Where", chosen, share, g.f(0.0)), g.i(1), keepdims=1)
        y = g("Mul", g.linear(g("Relu", g.linear(x, w, 16)), 16, w), mine)
        total = g("Add", total, y) if total else y
    first = g("Squeeze", g("Slice", at, g.i(0), g.i(1), g.i(1)), g.i(1))
    matrices = g("Gather", g.weight(count, w, w, fan=w), first, axis=0)
    gathered = g("Squeeze", g("MatMul", g("Unsqueeze", x, g.i(1)), matrices), g.i(1))
    spread = g(
        "ReduceMean", g("OneHot", first, g.const(np.int64(count)), g.const(np.array([0, 1], np.float32))), g.i(0)
    )
    return g.model(g("Add", g("Add", x, total), gathered), at, spread)


def einsums() -> Model:
    """Attention and low-rank products written as einsums."""
    g = Net(15, 26)
    n, t, h, d = 2, 6, 3, 4
    x = g.input("x", g.normal(n, t, h * d))
    q, k, v = (g("Einsum", x, g.weight(h * d, h, d, fan=h * d), equation="btw,whd->bhtd") for _ in range(3))
    scores = g("Mul", g("Einsum", q, k, equation="bhid,bhjd->bhij"), g.f(d**-0.5))
    y = g("Einsum", g("Softmax", scores, axis=-1), v, equation="bhij,bhjd->bihd")
    y = g("Einsum", y, g.weight(h, d, h * d, fan=h * d), equation="bihd,hdw->biw")
    low = g("Einsum", x, g.weight(12, 3, fan=12), g.weight(3, 12, fan=3), equation="btw,wr,ru->btu")
    gram = g("Einsum", y, y, equation="btw,bsw->bts")
    return g.model(g("Add", y, low), g("Einsum", gram, equation="btt->bt"), g("Einsum", x, equation="btw->w"))


def decoder() -> Model:
    """A causal language model: mask from the shape of what came in, tied embeddings, the best words to come."""
    g = Net(17, 27)
    w, words = 12, 23
    ids = g.input("ids", g.rng.integers(0, words, (2, 7)).astype(np.int64))
    table = g.weight(words, w)
    length = g("Gather", g("Shape", ids), g.const(np.int64(1)))
    x = g("Add", g("Gather", table, ids), g("Slice", g.weight(20, w), g.i(0), g("Unsqueeze", length, g.i(0)), g.i(0)))
    steps = g("Range", g.const(np.int64(0)), length, g.const(np.int64(1)))
    later = g("Less", g("Unsqueeze", steps, g.i(1)), g("Unsqueeze", steps, g.i(0)))
    mask = g("Where", later, g.f(-1e9), g.f(0.0))
    for _ in range(2):
        x = g.encoder_layer(x, w, 3, mask)
    logits = g("MatMul", g.layer_norm(x, w), g("Transpose", table, perm=[1, 0]))
    last = g("Gather", logits, g.const(np.int64(-1)), axis=1)
    values, at = g.many("TopK", [g("LogSoftmax", last, axis=-1), g.i(4)], 2)
    return g.model(logits, values, at)


def state_space() -> Model:
    """A selective state space layer: a Scan over time of h ← a·h + b·x, with a gate, both ways."""
    g = Net(19, 28)
    t, n, w, s = 8, 2, 6, 4
    x = g.input("x", g.normal(n, t, w))
    delta = g("Softplus", g.linear(x, w, w))
    a = g("Exp", g("Mul", g("Unsqueeze", delta, g.i(3)), g.const(-np.abs(g.normal(w, s)) - np.float32(0.1))))
    b = g("Mul", g("Unsqueeze", g("Mul", delta, x), g.i(3)), g("Unsqueeze", g.linear(x, w, s), g.i(2)))
    outputs = []
    for back in (0, 1):
        ends: list[str] = []
        with g.body([(f"h{back}", F, [n, w, s]), (f"a{back}", F, [n, w, s]), (f"b{back}", F, [n, w, s])], ends) as step:
            h = g("Add", g("Mul", f"h{back}", f"a{back}"), f"b{back}")
            ends += [h, g("Identity", h)]
        start = g.const(np.zeros((n, w, s), np.float32))
        how = {"num_scan_inputs": 2, "scan_input_axes": [1, 1], "scan_output_axes": [1]}
        how |= {"scan_input_directions": [back] * 2, "scan_output_directions": [back]}
        _, rows = g.many("Scan", [start, a, b], 2, body=step, **how)
        outputs.append(g("ReduceSum", g("Mul", rows, g("Unsqueeze", g.linear(x, w, s), g.i(2))), g.i(3), keepdims=0))
    y = g("Mul", g("Add", *outputs), g("Sigmoid", g.linear(x, w, w)))
    return g.model(y)


def translator(steps: int | None = 5) -> Model:
    """An encoder, and a Loop that decodes greedily: a GRU cell in matmuls, attention to what was encoded, the best word
    fed back. Without `steps` it goes on until the word 0 comes, at most 12 times."""
    g = Net(17, 29)
    w, words, t = 8, 11, 6
    ids = g.input("ids", g.rng.integers(0, words, (2, t)).astype(np.int64))
    x = g.encoder_layer(g("Add", g("Gather", g.weight(words, w), ids), g.weight(t, w, fan=4)), w, 2)
    h = g("Tanh", g.linear(g("ReduceMean", x, axes=[1], keepdims=0), w, w))
    table = g.weight(words, w)
    keys = g("Transpose", g.linear(x, w, w), perm=[0, 2, 1])
    ends: list[str] = []
    names = [("at", I, []), ("going", B, []), ("word", I, [2]), ("h", F, [2, w])]
    with g.body(names, ends) as body:
        embedded = g("Gather", table, "word")
        weights = g("Softmax", g("MatMul", g("Unsqueeze", "h", g.i(1)), keys), axis=-1)
        seen = g("Squeeze", g("MatMul", weights, x), g.i(1))
        both = g("Concat", embedded, seen, axis=1)
        update, reset = (g("Sigmoid", g("Add", g.linear(both, 2 * w, w), g.linear("h", w, w))) for _ in range(2))
        new = g("Tanh", g("Add", g.linear(both, 2 * w, w), g("Mul", reset, g.linear("h", w, w))))
        h_next = g("Add", g("Mul", update, "h"), g("Mul", g("Sub", g.f(1.0), update), new))
        logits = g.linear(h_next, w, words)
        word = g("ArgMax", logits, axis=1, keepdims=0)
        if steps is None:
            going = g("Greater", g("ReduceMax", word, keepdims=0), g.const(np.int64(0)))
        else:
            going = g("Identity", "going")
        ends += [going, word, h_next, g("Identity", word), g("Softmax", logits, axis=-1)]
    most = g.const(np.array(12 if steps is None else steps, np.int64))
    start = g.const(np.array([1, 2], np.int64))
    _, h, text, probabilities = g.many("Loop", [most, g.const(np.array(True)), start, h], 4, body=body)
    return g.model(g("Transpose", text, perm=[1, 0]), probabilities, h)


def translator_until_the_end() -> Model:
    """`translator` with a number of steps that data decides."""
    return translator(None)


def graph_net() -> Model:
    """Messages along edges, added up at nodes by scatters, and a readout a graph."""
    g = Net(18, 30)
    nodes, edges, w = 9, 20, 6
    x = g.input("nodes", g.normal(nodes, w))
    ends = g.input("edges", g.rng.integers(0, nodes, (2, edges)).astype(np.int64))
    graph_of = g.input("graph", np.array([0, 0, 0, 0, 1, 1, 1, 2, 2], np.int64))
    source, target = (g("Gather", ends, g.const(np.int64(i)), axis=0) for i in (0, 1))
    for _ in range(2):
        message = g("Relu", g.linear(g("Concat", *(g("Gather", x, e) for e in (source, target)), axis=1), 2 * w, w))
        zeros = g.const(np.zeros((nodes, w), np.float32))
        total = g("ScatterND", zeros, g("Unsqueeze", target, g.i(1)), message, reduction="add")
        wide = g("Expand", g("Unsqueeze", target, g.i(1)), g.i(edges, w))
        largest = g("ScatterElements", zeros, wide, message, axis=0, reduction="max")
        x = g("Add", x, g("Tanh", g.linear(g("Concat", total, largest, axis=1), 2 * w, w)))
    pooled = g("ScatterND", g.const(np.zeros((3, w), np.float32)), g("Unsqueeze", graph_of, g.i(1)), x, reduction="add")
    return g.model(x, g.linear(pooled, w, 2))


def recommender() -> Model:
    """Embedding bags, pairwise products of features, and dense numbers through logs."""
    g = Net(13, 31)
    n, w = 4, 5
    dense = g.input("dense", np.abs(g.normal(n, 3)))
    bags = g.input("bags", g.rng.integers(0, 15, (n, 3, 4)).astype(np.int64))
    mask = g("Cast", g("Not", g("Equal", bags, g.const(np.int64(0)))), to=F)
    sparse = g(
        "ReduceSum", g("Mul", g("Gather", g.weight(15, w), bags), g("Unsqueeze", mask, g.i(3))), g.i(2), keepdims=0
    )
    bottom = g("Relu", g.linear(g("Log", g("Add", dense, g.f(1.0))), 3, w))
    features = g("Concat", g("Unsqueeze", bottom, g.i(1)), sparse, axis=1)
    products = g("MatMul", features, g("Transpose", features, perm=[0, 2, 1]))
    pairs = np.array([(i, j) for i in range(4) for j in range(i)])
    at = g.const(np.stack([np.stack([np.full(len(pairs), b), *pairs.T], 1) for b in range(n)]))
    top = g("Concat", bottom, g("GatherND", products, at), axis=1)
    return g.model(g("Sigmoid", g.linear(g("Relu", g.linear(top, w + 6, 8)), 8, 1)))


def spectral() -> Model:
    """A mel front end: frames by a gather, a Fourier transform as a product, logs, and a convolution over time."""
    g = Net(17, 32)
    sound = g.input("sound", g.normal(1, 120))
    frames = (np.arange(14)[:, None] * 8 + np.arange(16)).astype(np.int64)
    x = g("Mul", g("Gather", sound, g.const(frames), axis=1), g.const(np.hanning(16).astype(np.float32)))
    angle = 2 * np.pi * np.outer(np.arange(16), np.arange(9)) / 16
    real, imaginary = (g("MatMul", x, g.const(f(angle).astype(np.float32))) for f in (np.cos, np.sin))
    power = g("Add", g("Pow", real, g.f(2.0)), g("Pow", imaginary, g.f(2.0)))
    mel = g("MatMul", power, g.const(np.abs(g.normal(9, 6))))
    x = g("Log", g("Max", mel, g.f(1e-3)))
    mean = g("ReduceMean", x, axes=[1], keepdims=1)
    x = g("Transpose", g("Sub", x, mean), perm=[0, 2, 1])
    y = g("Conv", x, g.weight(8, 6, 3, fan=18), g.weight(8), auto_pad="SAME_UPPER", strides=[2])
    return g.model(g("CumSum", g("Erf", y), g.const(np.int64(2))), g("GlobalMaxPool", y))


def newest() -> Model:
    """The newest opset that onnx has an IR version for: its Attention, RotaryEmbedding, RMSNormalization and Swish."""
    g = Net(max(v for (domain, v) in helper.OP_SET_ID_VERSION_MAP if domain == "ai.onnx"), 33)
    n, t, w, heads = 2, 6, 16, 4
    x = g.input("x", g.normal(n, t, w))
    d = w // heads
    angle = np.arange(t)[:, None] / 100 ** (np.arange(d // 2) / (d // 2))
    cos, sin = (g.const(np.broadcast_to(f(angle), (n, t, d // 2)).astype(np.float32).copy()) for f in (np.cos, np.sin))
    h = g("RMSNormalization", x, g.weight(w), axis=-1)
    q, k = (g("RotaryEmbedding", g.linear(h, w, w), cos, sin, num_heads=heads) for _ in range(2))
    y = g("Attention", q, k, g.linear(h, w, w), q_num_heads=heads, kv_num_heads=heads, is_causal=1)
    x = g("Add", x, g.linear(y, w, w))
    y = g("Mul", g("Swish", g.linear(x, w, 20)), g.linear(x, w, 20))
    return g.model(g("Add", x, g.linear(y, 20, w)), g("CumProd", g("Sigmoid", x), g.const(np.int64(1))))


MODELS = {f.__name__: f for f in (
    crnn, speech, speech_8k, tagger, wavenet, experts, einsums, decoder, state_space, translator,
    translator_until_the_end, graph_net, recommender, spectral, newest,
)}  # fmt: skip
