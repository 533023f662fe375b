# SPDX-License-Identifier: Apache-2.0
"""Steps that move elements: views, slices, pads, joins and splits."""

from __future__ import annotations

import math

import numpy as np

from tests.random_graphs.gen import Gen, Refused
from tests.random_graphs.steps.pointwise import activation
from tests.random_graphs.steps.table import axis_of, new, step


def factored(g: Gen, count: int) -> list[int]:
    """Extents with this product."""
    out: list[int] = []
    while count > 1 and len(out) < 4:
        divisors = [d for d in range(1, count + 1) if count % d == 0 and d <= 64]
        d = g.pick(divisors)
        out.append(d)
        count //= d
    return [*out, count] if count != 1 or not out or g.chance(0.2) else out


@step("fib", weight=5)
def reshape(g: Gen, x: str) -> str:
    s = g.shape(x)
    how = g.pick(["any", "flatten", "merge", "zero"])
    if how == "flatten" and s:
        return g("Flatten", x, axis=g.int(0, len(s)) if g.opset < 11 else g.int(-len(s), len(s)))
    if how == "merge" and len(s) > 1 and math.prod(s):
        a = g.int(0, len(s) - 2)
        return g("Reshape", x, g.i(*s[:a], -1, *s[a + 2 :]))
    if how == "zero" and s:
        return g("Reshape", x, g.i(0, -1) if math.prod(s) and len(s) > 1 else g.i(*[0] * len(s)))
    if not math.prod(s):
        return g("Reshape", x, g.i(1, *s), allowzero=1) if g.opset >= 14 else g("Reshape", x, g.i(*s, 1))
    to = factored(g, math.prod(s))
    if to and g.chance(0.3):
        to[g.int(0, len(to) - 1)] = -1
    return g("Reshape", x, g.i(*to))


@step("fib", range(1, 6), weight=4)
def transpose(g: Gen, x: str) -> str:
    rank = len(g.shape(x))
    perm = g.permutation(rank) if g.chance(0.8) else list(range(rank))[::-1]
    y = g("Transpose", x, perm=perm) if g.chance(0.9) else g("Transpose", x)
    if g.kind(x) == "f" and g.chance(0.4):
        y = g("Transpose", activation(g, y), perm=[int(i) for i in np.argsort(perm)])
    return y


@step("fib", weight=2)
def squeeze(g: Gen, x: str) -> str:
    s = g.shape(x)
    ones = [a for a, d in enumerate(s) if d == 1]
    if ones and g.chance(0.5):
        axes = g.subset(ones, 1)
        return g.squeeze(x, [a - len(s) if g.chance(0.3) else a for a in axes])
    rank = len(s) + g.int(1, 2)
    if rank > 6:
        raise Refused("a rank of 7")
    axes = sorted(g.permutation(rank)[: rank - len(s)])
    return g.squeeze(x, [a - rank if g.chance(0.3) else a for a in axes], "Unsqueeze")


@step("fib", range(1, 6), weight=4)
def slices(g: Gen, x: str) -> str:
    s = g.shape(x)
    axes = g.subset(range(len(s)), 1)
    starts, ends, steps = [], [], []
    for a in axes:
        d = s[a]
        first = g.int(0, max(0, d - 1))
        last = g.int(first, d) if g.chance(0.15) else g.int(min(first + 1, d), d)
        by = g.pick([1, 1, 1, 2, 3])
        if g.chance(0.2):
            starts.append(g.pick([last - 1, -1, d + 3]))
            ends.append(first - 1 - d if g.chance(0.5) or first == 0 else first - 1)
            steps.append(-by)
        else:
            starts.append(first - d if g.chance(0.3) else first)
            ends.append(g.pick([2**62, d + 1, d]) if last == d else last - d if g.chance(0.3) else last)
            steps.append(by)
    rows = [starts, ends, axes, *([steps] if any(v != 1 for v in steps) or g.chance(0.3) else [])]
    if g.chance(0.3):
        operands = [np.minimum(np.array(v, np.int64), 2**31 - 1).astype(np.int32) for v in rows]
    else:
        operands = [np.array(v, np.int64) for v in rows]
    if len(axes) == len(s) and all(v == 1 for v in steps) and g.chance(0.4):
        operands = operands[:2]
    return g("Slice", x, *(g.const(o) for o in operands))


@step("fib", range(1, 6), weight=3)
def join(g: Gen, x: str) -> str:
    s = g.shape(x)
    a = axis_of(g, x) % len(s)
    fits = [
        v for v in g.alive
        if g.dtype(v) == g.dtype(x) and len(g.shape(v)) == len(s)
        and all(i == a or g.shape(v)[i] == d for i, d in enumerate(s))
    ]  # fmt: skip
    parts = [x]
    for _ in range(g.pick([1, 1, 2, 3, 0])):
        if fits and g.chance(0.7):
            parts.append(g.pick(fits))
        else:
            parts.append(new(g, g.dtype(x), tuple(g.int(1, 3) if i == a else d for i, d in enumerate(s))))
    parts = [parts[i] for i in g.permutation(len(parts))]
    return g("Concat", *parts, axis=g.pick([a, a - len(s)]))


@step("fib", range(1, 6), weight=3)
def cut(g: Gen, x: str) -> str:
    s = g.shape(x)
    axis = axis_of(g, x)
    extent = s[axis]
    if extent < 2:
        raise Refused("nothing to split")
    if extent % 2 == 0 and g.chance(0.3):
        parts = g.many("Split", [x], 2, axis=axis, **({"num_outputs": 2} if g.opset >= 18 else {}))
    elif g.opset >= 18 and g.chance(0.2):
        count = g.int(2, min(4, extent))
        parts = g.many("Split", [x], count, axis=axis, num_outputs=count)
    else:
        marks = sorted({g.int(1, extent - 1) for _ in range(g.pick([1, 1, 2]))})
        parts = g.split(x, axis, np.diff([0, *marks, extent]).tolist())
    if g.kind(x) == "f" and g.chance(0.3):
        parts[0] = activation(g, parts[0])
    g.alive.extend(parts[1:])
    if g.chance(0.4):
        return g("Concat", *[parts[i] for i in g.permutation(len(parts))], axis=axis)
    return parts[0]


@step("fi", range(1, 6), weight=3)
def pad(g: Gen, x: str) -> str:
    s = g.shape(x)
    if g.kind(x) == "i" and g.opset < 13:
        raise Refused("only floats")
    mode = g.pick(["constant", "constant", "edge", "reflect", "wrap"])
    most = [2 if mode == "constant" else min(2, d - (mode == "reflect")) for d in s]
    if min(most) < 0:
        raise Refused("nothing to repeat")
    before, after = ([g.int(0, m) if g.chance(0.5) else 0 for m in most] for _ in range(2))
    if mode == "constant" and g.chance(0.2):
        before = [-1 if d > 2 and g.chance(0.5) else b for d, b in zip(s, before, strict=True)]
    values = [g.const(np.asarray(g.pick([0, 1.5, -2]), np.float64).astype(g.dtype(x)))] if mode == "constant" else []
    if g.opset >= 18 and g.chance(0.3):
        axes = g.subset(range(len(s)), 1)
        pads = g.i(*(before[a] for a in axes), *(after[a] for a in axes))
        return g("Pad", x, pads, *(values or [""]), g.i(*axes), mode=mode)
    return g("Pad", x, g.i(*before, *after), *(values if g.chance(0.7) else []), mode=mode)


@step("fib", weight=3)
def expand(g: Gen, x: str) -> str:
    s = g.shape(x)
    if s and g.chance(0.5):
        return g("Tile", x, g.i(*[g.pick([1, 1, 2, 3]) for _ in s]))
    to = [g.int(1, 3) if d == 1 else g.pick([d, d, 1]) for d in s]
    if len(s) < 5 and g.chance(0.4):
        to = [g.int(1, 3), *to]
    return g("Expand", x, g.i(*to))


@step("f", range(4, 5))
def depth_space(g: Gen, x: str) -> str:
    if not any(d % 2 for d in g.shape(x)[2:]) and g.chance(0.7):
        return g("SpaceToDepth", x, blocksize=2)
    if g.shape(x)[1] % 4:
        raise Refused("channels that are no multiple of 4")
    return g("DepthToSpace", x, blocksize=2, mode=g.pick(["DCR", "CRD"]))


@step("fib", range(2, 6))
def triangle(g: Gen, x: str) -> str:
    k = [g.const(np.int64(g.int(-2, 2)))] if g.chance(0.6) else []
    return g("Trilu", x, *k, upper=g.pick([0, 1]))


@step("fib", range(2, 6), weight=1)
def reversed_rows(g: Gen, x: str) -> str:
    time, batch = g.pick([(0, 1), (1, 0)])
    lengths = g.numbers(np.int64, (g.shape(x)[batch],), 1, max(1, g.shape(x)[time]))
    return g("ReverseSequence", x, g.const(lengths), batch_axis=batch, time_axis=time)


@step("fib", range(1, 6), weight=1)
def centred(g: Gen, x: str) -> str:
    s = g.shape(x)
    axes = g.subset(range(len(s)), 1)
    return g("CenterCropPad", x, g.i(*[max(1, s[a] + g.int(-2, 2)) for a in axes]), axes=axes)


@step("f", range(4, 5), weight=3)
def resize(g: Gen, x: str) -> str:
    s = g.shape(x)
    mode = g.pick(["nearest", "nearest", "linear", "linear", "cubic"])
    # onnx.reference's pytorch_half_pixel of one pixel is not what ONNX says.
    places = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"][: 4 if min(s[2:]) > 4 else 3]
    attrs = {"mode": mode, "coordinate_transformation_mode": g.pick(places)}
    if mode == "nearest":
        attrs["nearest_mode"] = g.pick(["floor", "round_prefer_floor", "ceil", "round_prefer_ceil"])
    if mode == "cubic" and g.chance(0.3):
        attrs["cubic_coeff_a"] = -0.5
    if mode == "cubic" and g.chance(0.2):
        attrs["exclude_outside"] = 1
    roi = [g.const(np.zeros(0, np.float32))] if g.opset < 13 else [""]
    if g.opset >= 18 and mode != "nearest" and g.chance(0.3):
        attrs["antialias"] = 1
    if g.opset >= 18 and g.chance(0.3):
        if g.chance(0.5):
            scales = g.const(np.array(g.pick([[2, 1.5], [0.5, 0.75]]), np.float32))
            return g("Resize", x, *roi, scales, axes=[2, 3], **attrs)
        policy = g.pick(["stretch", "not_larger", "not_smaller"])
        return g("Resize", x, *roi, "", g.i(*(max(1, d + g.int(-2, 5)) for d in s[2:])), axes=[2, 3],
                 keep_aspect_ratio_policy=policy, **attrs)  # fmt: skip
    if g.chance(0.5):
        scales = g.const(np.array([1, 1, *(g.pick([2, 1.5, 0.5, 3]) for _ in range(2))], np.float32))
        return g("Resize", x, *roi, scales, **attrs)
    sizes = [*s[:2], *(max(1, d + g.int(-3, 6)) for d in s[2:])]
    empty = [""] if g.opset >= 13 else [g.const(np.zeros(0, np.float32))]
    return g("Resize", x, *roi, *empty, g.i(*sizes), **attrs)
