# SPDX-License-Identifier: Apache-2.0
"""Models of pictures."""

from __future__ import annotations

import numpy as np

from tests.models.net import Net
from tests.random_graphs.gen import Model


def picture(net: Net, *shape: int) -> str:
    return net.input("image", net.normal(*shape))


def detector() -> Model:
    """One-stage: two scales of boxes, NonMaxSuppression, and the boxes and scores of what is left."""
    g = Net(17, 1)
    x = g("LeakyRelu", g.batch_norm(g.conv(picture(g, 1, 3, 32, 32), 3, 8, strides=[2, 2], bias=False), 8), alpha=0.1)
    a = g("LeakyRelu", g.conv(x, 8, 16, strides=[2, 2]), alpha=0.1)
    b = g("LeakyRelu", g.conv(a, 16, 16, strides=[2, 2]), alpha=0.1)
    up = g("Resize", b, "", g.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
           coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    a = g.conv(g("Concat", a, up, axis=1), 32, 16)
    boxes, scores = [], []
    for level, (y, stride) in enumerate(((a, 4.0), (b, 8.0))):
        cells = int(32 / stride)
        out = g("Transpose", g.conv(y, 16, 7, 1), perm=[0, 2, 3, 1])
        out = g("Reshape", out, g.i(1, cells * cells, 7))
        centre, size, score = g.many("Split", [out, g.i(2, 2, 3)], 3, axis=2)
        grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(1, -1, 2)
        centre = g("Mul", g("Add", g("Sigmoid", centre), g.const(grid.astype(np.float32))), g.f(stride))
        size = g("Mul", g("Exp", g("Mul", size, g.f(0.5))), g.f(stride * (level + 1)))
        half = g("Div", size, g.f(2.0))
        boxes.append(g("Concat", g("Sub", centre, half), g("Add", centre, half), axis=2))
        scores.append(g("Sigmoid", score))
    box = g("Concat", *boxes, axis=1)
    score = g("Transpose", g("Concat", *scores, axis=1), perm=[0, 2, 1])
    limits = g.i(5), g.const(np.array([0.5], np.float32)), g.const(np.array([0.55], np.float32))
    kept = g("NonMaxSuppression", box, score, *limits)
    rows = g("Gather", kept, g.const(np.int64(2)), axis=1)
    found = g("Gather", g("Squeeze", box, g.i(0)), rows, axis=0)
    return g.model(kept, found, g("GatherND", score, kept))


def unet() -> Model:
    """Down by pools, up by transposed convolutions and resizes, with what was there before joined in."""
    g = Net(18, 2)
    x = picture(g, 2, 2, 20, 28)
    widths, skips = [6, 9, 12], []
    c = 2
    for w in widths:
        for _ in range(2):
            x = g("Relu", g.batch_norm(g.conv(x, c, w, bias=False), w))
            c = w
        skips.append(x)
        x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = g("Relu", g.conv(x, c, 16, dilations=[2, 2]))
    c = 16
    for k, (w, skip) in enumerate(zip(widths[::-1], skips[::-1], strict=True)):
        if k == 1:
            x = g("ConvTranspose", x, g.weight(c, w, 2, 2, fan=c), g.weight(w), strides=[2, 2], kernel_shape=[2, 2])
        else:
            x = g.conv(g("Resize", x, "", "", g("Shape", skip, start=2), axes=[2, 3], mode="linear"), c, w, 1)
        x = g("Relu", g.conv(g("Concat", x, skip, axis=1), 2 * w, w))
        c = w
    return g.model(g("Sigmoid", g.conv(x, c, 1, 1)), g("ArgMax", g.conv(x, c, 4, 1), axis=1, keepdims=0))


def generator() -> Model:
    """Noise to a picture, as a GAN's generator does it."""
    g = Net(14, 3)
    z = g.input("z", g.normal(3, 10))
    x = g("Reshape", g("Gemm", z, g.weight(10, 12 * 16, fan=10), g.weight(192)), g.i(-1, 12, 4, 4))
    for ci, co in ((12, 8), (8, 6)):
        x = g("Relu", g.batch_norm(x, ci))
        x = g("ConvTranspose", x, g.weight(ci, co, 4, 4, fan=4 * ci), strides=[2, 2], pads=[1, 1, 1, 1])
    x = g("InstanceNormalization", x, g.const(np.ones(6, np.float32)), g.weight(6, fan=4))
    x = g("ConvTranspose", g("LeakyRelu", x, alpha=0.2), g.weight(6, 3, 3, 3, fan=54), pads=[1, 1, 1, 1],
          output_padding=[1, 0], strides=[2, 1])  # fmt: skip
    return g.model(g("Tanh", x))


def mobilenet() -> Model:
    """Depthwise convolutions, squeeze-and-excite, hard swish."""
    g = Net(14, 4)
    x = g("HardSwish", g.conv(picture(g, 1, 3, 33, 31), 3, 8, strides=[2, 2]))
    c = 8
    for co, k, stride, se in ((8, 3, 1, True), (12, 5, 2, False), (12, 5, 1, True)):
        y = g("Clip", g.batch_norm(g.conv(x, c, 3 * c, 1, bias=False), 3 * c), g.f(0.0), g.f(6.0))
        y = g("Relu", g.batch_norm(g.conv(y, 3 * c, 3 * c, k, group=3 * c, strides=[stride] * 2, bias=False), 3 * c))
        if se:
            s = g("ReduceMean", y, axes=[2, 3], keepdims=1) if stride == 1 else g("GlobalAveragePool", y)
            s = g("HardSigmoid", g.conv(g("Relu", g.conv(s, 3 * c, c, 1)), c, 3 * c, 1))
            y = g("Mul", s, y)
        y = g.batch_norm(g.conv(y, 3 * c, co, 1, bias=False), co)
        x = g("Add", x, y) if c == co and stride == 1 else y
        c = co
    x = g("Flatten", g("GlobalAveragePool", x))
    return g.model(g("Softmax", g("Gemm", x, g.weight(7, c, fan=c), g.weight(7), transB=1), axis=1))


def volume() -> Model:
    """Convolutions and pools in three dimensions."""
    g = Net(15, 5)
    x = picture(g, 1, 2, 7, 9, 8)
    x = g("Relu", g.batch_norm(g.conv(x, 2, 6, 3, 3, bias=False), 6))
    x = g("MaxPool", x, kernel_shape=[1, 2, 2], strides=[1, 2, 2])
    x = g("Relu", g.conv(x, 6, 6, 3, 3, group=3, strides=[2, 1, 1]))
    x = g("Add", x, g.conv(g("Elu", g.conv(x, 6, 4, 1, 3)), 4, 6, 3, 3))
    y = g("AveragePool", x, kernel_shape=[2, 2, 2], pads=[0, 0, 0, 1, 0, 0], count_include_pad=1)
    up = g("ConvTranspose", y, g.weight(6, 2, 2, 2, 2, fan=6), strides=[2, 2, 2])
    logits = g("Gemm", g("Flatten", g("GlobalMaxPool", x)), g.weight(6, 5, fan=6))
    return g.model(up, g("LogSoftmax", logits, axis=-1))


def normed() -> Model:
    """Group norms, instance norms, weights that are standardised in the graph, and a style that scales."""
    g = Net(21, 6)
    x = g.conv(picture(g, 2, 3, 12, 13), 3, 8)
    w = g.weight(8, 8, 3, 3, fan=72)
    centred = g("Sub", w, g("ReduceMean", w, g.i(1, 2, 3), keepdims=1))
    deviation = g("Sqrt", g("Add", g("ReduceMean", g("Mul", centred, centred), g.i(1, 2, 3), keepdims=1), g.f(1e-3)))
    y = g("Conv", x, g("Mul", g("Div", centred, deviation), g.f(72**-0.5)), pads=[1, 1, 1, 1])
    y = g("GroupNormalization", y, g.weight(8), g.weight(8), num_groups=4, epsilon=1e-3)
    x = g("Add", x, g("Mish", y))
    style = g.input("style", g.normal(2, 5))
    scale, shift = g.many("Split", [g.linear(style, 5, 16)], 2, axis=1, num_outputs=2)
    ones, zeros = g.const(np.ones(8, np.float32)), g.const(np.zeros(8, np.float32))
    y = g("InstanceNormalization", x, ones, zeros, epsilon=1e-3)
    scale, shift = (g("Unsqueeze", s, g.i(2, 3)) for s in (scale, shift))
    y = g("Add", g("Mul", y, g("Add", scale, g.f(1.0))), shift)
    return g.model(g("LpNormalization", y, axis=1, p=2), g("MeanVarianceNormalization", y, axes=[0, 2, 3]))


def detection_transformer() -> Model:
    """Patches to tokens, an encoder, learned queries that look at it, classes and boxes."""
    g = Net(17, 7)
    w, heads = 16, 4
    patches = g.conv(picture(g, 1, 3, 24, 16), 3, w, 4, strides=[4, 4], pads=[0, 0, 0, 0])
    x = g("Transpose", g("Reshape", patches, g.i(0, w, -1)), perm=[0, 2, 1])
    x = g("Concat", g("Expand", g.weight(1, 1, w), g.i(1, 1, w)), x, axis=1)
    x = g("Add", x, g.weight(1, 25, w, fan=4))
    for _ in range(2):
        x = g.encoder_layer(x, w, heads)
    q = g.weight(1, 6, w)
    q = g("Add", q, g.attention(g.layer_norm(q, w), x, w, heads))
    q = g("Add", q, g.linear(g("Relu", g.linear(q, w, 2 * w)), 2 * w, w))
    label = g("Softmax", g.linear(q, w, 5), axis=-1)
    first = g("Gather", x, g.const(np.int64(0)), axis=1)
    top, at = g.many("TopK", [g("ReduceMax", label, axes=[2], keepdims=0), g.i(3)], 2, axis=1)
    return g.model(label, g("Sigmoid", g.linear(q, w, 4)), g.linear(first, w, 3), top, at)


def transformer_of_space() -> Model:
    """A picture turned by what a small net says (GridSample), then pixels shuffled up."""
    g = Net(20, 8)
    x = picture(g, 2, 4, 9, 11)
    small = g("Flatten", g("AveragePool", x, kernel_shape=[5, 5], strides=[4, 4], pads=[1, 1, 1, 1]))
    start = g.const(np.array([1, 0, 0, 0, 1, 0], np.float32))
    theta = g("Tanh", g("Gemm", small, g.weight(4 * 2 * 3, 6, fan=100), start))
    grid = g("AffineGrid", g("Reshape", theta, g.i(2, 2, 3)), g.i(2, 4, 8, 7), align_corners=1)
    y = g("GridSample", x, grid, mode="linear", padding_mode="border", align_corners=1)
    y = g("DepthToSpace", g.conv(y, 4, 12), blocksize=2, mode="CRD")
    return g.model(y, g("Resize", y, "", g.const(np.array([1, 1, 1.5, 0.75], np.float32)), mode="cubic"))


def opset9() -> Model:
    """A residual net as exporters wrote it at opset 9: old Upsample, Softmax, Slice, Clip and Dropout."""
    g = Net(9, 9)
    x = g("Relu", g.batch_norm(g.conv(picture(g, 2, 3, 15, 17), 3, 8, strides=[2, 2], bias=False), 8))
    y = g("Clip", g.batch_norm(g.conv(x, 8, 8, bias=False), 8), min=0.0, max=6.0)
    x = g("Add", x, g.conv(y, 8, 8))
    x = g("Dropout", g("Upsample", x, g.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest"), ratio=0.4)
    x = g("Slice", x, axes=[2, 3], starts=[1, 0], ends=[-1, 12])
    x = g("Pad", x, mode="reflect", pads=[0, 0, 1, 2, 0, 0, 0, 1])
    a, b = g.many("Split", [x], 2, axis=1, split=[3, 5])
    x = g("Concat", b, g("PRelu", a, g.weight(3, 1, 1, fan=9)), axis=1)
    shape = g("Shape", x)
    batch = g("Unsqueeze", g("Gather", shape, g.const(np.int64(0))), axes=[0])
    flat = g("Reshape", g("ReduceMean", x, axes=[2, 3], keepdims=1), g("Concat", batch, g.i(-1), axis=0))
    values, at = g.many("TopK", [x], 2, axis=3, k=2)
    logits = g("Gemm", flat, g.weight(8, 6, fan=8), g.weight(6), alpha=0.5)
    return g.model(g("Softmax", logits), g("ReduceMax", values, axes=[3], keepdims=0), at)


MODELS = {f.__name__: f for f in (
    detector, unet, generator, mobilenet, volume, normed, detection_transformer, transformer_of_space, opset9,
)}  # fmt: skip
