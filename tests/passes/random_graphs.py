# SPDX-License-Identifier: Apache-2.0
"""Small random graphs: whatever a pass does to one, its outputs stay what they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.graph.base import dense, tensor_type
from tcc.ir.module import ModuleOp, module
from tcc.ir.types import BOOL, F32, I64, dtype_of

Array = np.ndarray[Any, Any]


class Build:
    """Appends ops to a function."""

    def __init__(self, block: Block, program: ModuleOp) -> None:
        self.block = block
        self.program = program
        self.count = 0

    def __call__(self, cls: type[Op], /, *operands: Value | Sequence[Value] | None, **attrs: Any) -> Value:
        self.count += 1
        op = cls(*operands, loc=(f"{cls.name.removeprefix('graph.')}_{self.count}",), **attrs)
        return self.block.append(op).results[0]

    def constant(self, array: Any) -> Value:
        array = np.asarray(array)
        value = self.program.resources.add(array)
        made = graph.Constant(value=value, result_types=[dense(array.shape, dtype_of(array))])
        return self.block.append(made).y


def program(
    inputs: Sequence[tuple[int, ...]], body: Callable[[Build, list[Value]], Sequence[Value]], dtype: Any = F32
) -> ModuleOp:
    """A module whose `main` takes f32 tensors x0, x1, … and returns what `body` gives as y0, y1, …"""
    made = module()
    names = [f"x{i}" for i in range(len(inputs))]
    function = graph.func("main", [dense(s, dtype) for s in inputs], names)
    made.block.append(function)
    values = list(body(Build(function.block, made), list(function.block.args)))
    graph.finish(function, values, [f"y{i}" for i in range(len(values))])
    return made


def feeds(program: ModuleOp, seed: int = 0) -> dict[str, Array]:
    """Normal numbers for every input."""
    rng = np.random.default_rng(seed)
    function = graph.main_function(program)
    out: dict[str, Array] = {}
    for name, arg in zip(function.arg_names, function.block.args, strict=True):
        t = tensor_type(arg)
        values = rng.standard_normal(t.static_shape) if t.dtype.is_float else rng.integers(0, 3, t.static_shape)
        out[name] = np.asarray(values).astype(t.dtype.numpy)
    return out


_UNARY = (graph.Relu, graph.Sigmoid, graph.Tanh, graph.Neg, graph.Abs, graph.HardSwish, graph.Gelu, graph.Exp)
_BINARY = (graph.Add, graph.Sub, graph.Mul, graph.Max, graph.Min)
_LIMIT = 3000


class _Random:
    def __init__(self, build: Build, values: list[Value], seed: int) -> None:
        self.b = build
        self.values = values
        self.rng = np.random.default_rng(seed)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def array(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(np.float32)

    def step(self) -> Value | None:
        """One more op on a value, a recent one more often; None where it does not apply."""
        recent = self.values[-4:] if self.rng.random() < 0.7 else self.values
        x = self.pick(recent)
        name = self.pick([n for n in dir(self) if n.startswith("op_")])
        return getattr(self, name)(x, tensor_type(x).static_shape)

    def op_unary(self, x: Value, s: tuple[int, ...]) -> Value:
        y = self.b(self.pick(_UNARY), x)
        return self.b(graph.Clip, y, lo=-20.0, hi=20.0) if isinstance(y.owner, graph.Exp) else y

    def op_sigmoid_gate(self, x: Value, s: tuple[int, ...]) -> Value:
        return self.b(graph.Mul, x, self.b(graph.Sigmoid, x))

    def op_binary(self, x: Value, s: tuple[int, ...]) -> Value | None:
        same = [v for v in self.values if tensor_type(v).shape == s]
        return self.b(self.pick(_BINARY), x, self.pick(same))

    def op_constant(self, x: Value, s: tuple[int, ...]) -> Value:
        kept = tuple(d if self.rng.random() < 0.5 else 1 for d in s)
        c = self.array(*kept) if self.rng.random() < 0.7 else np.float32(self.pick([0.0, 1.0, 2.0, 0.5, -1.5]))
        a, b = x, self.b.constant(c)
        if self.rng.random() < 0.3:
            a, b = b, a
        return self.b(self.pick(_BINARY), a, b)

    def op_broadcast(self, x: Value, s: tuple[int, ...]) -> Value | None:
        fits = [
            v for v in self.values
            if tensor_type(v).rank <= len(s)
            and all(a in (1, b) for a, b in zip(tensor_type(v).static_shape[::-1], s[::-1], strict=False))
        ]  # fmt: skip
        return self.b(self.pick(_BINARY), x, self.pick(fits)) if fits else None

    def op_transpose(self, x: Value, s: tuple[int, ...]) -> Value | None:
        return self.b(graph.Transpose, x, perm=tuple(map(int, self.rng.permutation(len(s))))) if s else None

    def op_reshape(self, x: Value, s: tuple[int, ...]) -> Value:
        shape = list(s)
        if len(shape) >= 2 and self.rng.random() < 0.5:
            i = int(self.rng.integers(len(shape) - 1))
            shape[i : i + 2] = [shape[i] * shape[i + 1]]
        else:
            for i, d in enumerate(shape):
                if d % 2 == 0 and len(shape) < 5:
                    shape[i : i + 1] = [2, d // 2]
                    break
            else:
                shape.insert(int(self.rng.integers(len(shape) + 1)), 1)
        return self.b(graph.Reshape, x, shape=tuple(shape))

    def op_slice(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s:
            return None
        d = int(self.rng.integers(len(s)))
        if s[d] < 2:
            return None
        size = int(self.rng.integers(1, s[d]))
        start = int(self.rng.integers(s[d] - size + 1))
        step = -1 if self.rng.random() < 0.2 else 1
        start = start + size - 1 if step < 0 else start
        return self.b(
            graph.Slice, x, starts=tuple(start if i == d else 0 for i in range(len(s))),
            sizes=tuple(size if i == d else n for i, n in enumerate(s)),
            steps=tuple(step if i == d else 1 for i in range(len(s))),
        )  # fmt: skip

    def op_concat(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s:
            return None
        same = [v for v in self.values if tensor_type(v).shape == s]
        return self.b(graph.Concat, [x, self.pick(same), self.pick(same)][: int(self.rng.integers(2, 4))],
                      axis=int(self.rng.integers(len(s))))  # fmt: skip

    def op_pad(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s:
            return None
        before, after = (tuple(map(int, self.rng.integers(0, 2, len(s)))) for _ in range(2))
        mode = self.pick(["constant", "constant", "edge"])
        return self.b(graph.Pad, x, None, before=before, after=after, mode=mode, value=self.pick([0.0, 1.5]))

    def op_expand(self, x: Value, s: tuple[int, ...]) -> Value:
        return self.b(graph.Expand, x, shape=(2, *(3 if d == 1 else d for d in s)))

    def op_gather(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s:
            return None
        d = int(self.rng.integers(len(s)))
        shape = self.pick([(), (2,), (3,), (2, 2)])
        return self.b(graph.Gather, x, self.b.constant(self.rng.integers(-s[d], s[d], shape)), axis=d)

    def op_gather_by_data(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s or s[0] < 2:
            return None
        at = self.b(graph.Cast, self.b(graph.Clip, self.b(graph.Abs, x), lo=0.0, hi=float(s[0] - 1)), to=I64)
        return self.b(graph.GatherElements, x, at, axis=0)

    def op_reduce(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s:
            return None
        axes = tuple(i for i in range(len(s)) if self.rng.random() < 0.5) or (len(s) - 1,)
        kind = self.pick(["sum", "mean", "max", "min"])
        return self.b(graph.Reduce, x, kind=kind, axes=axes, keepdims=bool(self.rng.random() < 0.6))

    def op_argmax(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s:
            return None
        y = self.b(graph.ArgReduce, x, kind="max", axis=len(s) - 1, last=bool(self.rng.random() < 0.5))
        return self.b(graph.Cast, y, to=F32)

    def op_softmax(self, x: Value, s: tuple[int, ...]) -> Value | None:
        return self.b(graph.Softmax, x, axis=int(self.rng.integers(len(s)))) if s else None

    def op_layer_norm(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if not s or s[-1] < 2:
            return None
        scale, bias = (self.b.constant(self.array(s[-1])) for _ in range(2))
        return self.b(graph.LayerNorm, x, scale, bias, axis=len(s) - 1)

    def op_matmul(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if len(s) < 2:
            return None
        if self.rng.random() < 0.6:
            return self.b(graph.Matmul, x, self.b.constant(self.array(s[-1], self.pick([3, 4]))))
        perm = (*range(len(s) - 2), len(s) - 1, len(s) - 2)
        y = self.b(graph.Matmul, x, self.b(graph.Transpose, x, perm=perm))
        return self.b(graph.Mul, y, self.b.constant(np.float32(0.25)))

    def op_conv(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if len(s) != 4 or min(s[2:]) < 2:
            return None
        group = self.pick([1, s[1], 2 if s[1] % 2 == 0 else 1])
        co = group * self.pick([1, 2])
        k = self.pick([1, 2])
        bias = self.b.constant(self.array(co)) if self.rng.random() < 0.5 else None
        y = self.b(
            graph.Conv, x, self.b.constant(self.array(co, s[1] // group, k, k)), bias, strides=(self.pick([1, 2]),) * 2,
            pads=tuple(map(int, self.rng.integers(0, 2, 4))), dilations=(1, 1), group=group,
        )  # fmt: skip
        if self.rng.random() < 0.5:
            scale, shift, mean = (self.b.constant(self.array(co)) for _ in range(3))
            variance = self.b.constant(np.abs(self.array(co)) + 0.5)
            y = self.b(graph.BatchNorm, y, scale, shift, mean, variance)
        return y

    def op_pool(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if len(s) != 4 or min(s[2:]) < 2:
            return None
        cls = self.pick([graph.MaxPool, graph.AveragePool])
        return self.b(cls, x, kernel=(2, 2), strides=(self.pick([1, 2]),) * 2, pads=(0, 1, 1, 0), dilations=(1, 1),
                      ceil_mode=bool(self.rng.random() < 0.3))  # fmt: skip

    def op_resize(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if len(s) != 4:
            return None
        sizes = (s[2] + 1, s[3] * 2)
        if self.rng.random() < 0.5:
            return self.b(graph.ResizeNearest, x, axes=(2, 3), sizes=sizes, coordinate_mode="asymmetric")
        return self.b(graph.Resize, x, axes=(2, 3), sizes=sizes, mode="linear")

    def op_attention(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if len(s) != 3 or s[2] % 2:
            return None
        heads = (s[0], s[1], 2, s[2] // 2)
        q, k, v = (
            self.b(graph.Transpose, self.b(graph.Reshape, self.b(graph.Matmul, x, self.b.constant(
                self.array(s[2], s[2]))), shape=heads), perm=(0, 2, 1, 3))
            for _ in range(3)
        )  # fmt: skip
        y = self.b(graph.Attention, q, k, v, None, scale=0.5)
        y = self.b(graph.Reshape, self.b(graph.Transpose, y, perm=(0, 2, 1, 3)), shape=s)
        return self.b(graph.Add, y, x)

    def op_where(self, x: Value, s: tuple[int, ...]) -> Value:
        zero = self.b.constant(np.float32(0))
        return self.b(graph.Where, self.b(graph.Less, x, zero), self.b(graph.Mul, x, x), x)

    def op_if(self, x: Value, s: tuple[int, ...]) -> Value:
        """A branch by a value of the data, both sides using values from outside."""
        total = self.b(graph.Reduce, x, kind="sum", axes=tuple(range(len(s))), keepdims=False)
        condition = self.b(graph.Less, total, self.b.constant(np.float32(0)))
        assert tensor_type(condition).dtype is BOOL
        regions: list[Region] = []
        for scale in (2.0, 3.0):
            block = Block()
            inner = Build(block, self.b.program)
            y = inner(graph.Mul, inner(graph.Tanh, x), inner.constant(np.float32(scale)))
            block.append(graph.Yield([y]))
            regions.append(Region(block))
        return self.b.block.append(graph.If(condition, regions=regions)).results[0]


def random_program(seed: int, steps: int = 16) -> ModuleOp:
    """A graph of about `steps` random ops on two or three small inputs, with one to three outputs."""
    rng = np.random.default_rng(seed)
    shapes = [(2, 4, 6), (1, 4, 5, 6), (2, 3, 4, 4), (6,), (4, 6), (1, 2, 4, 8)]
    inputs = [shapes[int(i)] for i in rng.permutation(len(shapes))[: int(rng.integers(1, 4))]]

    def body(build: Build, values: list[Value]) -> list[Value]:
        at = _Random(build, values, seed)
        tries = 0
        while build.count < steps and tries < 20 * steps:
            tries += 1
            y = at.step()
            if y is not None and np.prod(tensor_type(y).static_shape) <= _LIMIT:
                values.append(y)
        unused = [v for v in values[len(inputs) :] if v.use_count == 0] or values[-1:]
        inner = [v for v in values[len(inputs) :] if v not in unused and rng.random() < 0.1]
        return [*inner[:2], *unused[-6:]]

    return program(inputs, body)


class _Network:
    """Blocks of convolutional networks on [1, c, h, w]."""

    def __init__(self, b: Build, seed: int) -> None:
        self.b = b
        self.rng = np.random.default_rng(seed)

    def array(self, *shape: int) -> Array:
        return (self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)

    def conv(self, x: Value, co: int, k: int = 1, stride: int = 1, group: int = 1) -> Value:
        ci = tensor_type(x).static_shape[1]
        return self.b(
            graph.Conv, x, self.b.constant(self.array(co, ci // group, k, k)), None, strides=(stride,) * 2,
            pads=(k // 2,) * 4, dilations=(1, 1), group=group,
        )  # fmt: skip

    def norm(self, x: Value) -> Value:
        c = tensor_type(x).static_shape[1]
        params = [self.b.constant(np.abs(self.array(c)) + 0.5) for _ in range(4)]
        return self.b(graph.BatchNorm, x, *params)

    def act(self, x: Value) -> Value:
        which = int(self.rng.integers(4))
        if which == 0:
            return self.b(graph.Mul, x, self.b(graph.Sigmoid, x))
        if which == 1:
            return self.b(graph.HardSwish, x)
        return self.b(graph.Relu, x)

    def block_plain(self, x: Value, s: tuple[int, ...]) -> Value:
        return self.act(self.norm(self.conv(x, 2 * int(self.rng.integers(1, 5)), 3, int(self.rng.integers(1, 3)))))

    def block_residual(self, x: Value, s: tuple[int, ...]) -> Value:
        y = self.norm(self.conv(self.act(self.norm(self.conv(x, 4))), s[1], 3))
        return self.act(self.b(graph.Add, y, x))

    def block_preactivated(self, x: Value, s: tuple[int, ...]) -> Value:
        y = self.conv(self.b(graph.Relu, self.norm(x)), s[1], 3)
        return self.b(graph.Add, x, y)

    def block_excited(self, x: Value, s: tuple[int, ...]) -> Value:
        y = self.act(self.norm(self.conv(x, s[1], 3, group=s[1])))
        gate = self.b(graph.Reduce, y, kind="mean", axes=(2, 3))
        gate = self.b(graph.HardSigmoid, self.conv(self.b(graph.Relu, self.conv(gate, 2)), s[1]))
        return self.conv(self.b(graph.Mul, y, gate), s[1])

    def block_dense(self, x: Value, s: tuple[int, ...]) -> Value:
        y = self.conv(self.b(graph.Relu, self.norm(x)), 2, 3)
        x = self.b(graph.Concat, [x, y], axis=1)
        y = self.conv(self.b(graph.Relu, self.norm(x)), 2, 3)
        return self.b(graph.Concat, [x, y], axis=1)

    def block_shuffled(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if s[1] % 2:
            return None
        y = self.b(graph.Reshape, self.act(self.conv(x, s[1], group=2)), shape=(1, 2, s[1] // 2, *s[2:]))
        y = self.b(graph.Reshape, self.b(graph.Transpose, y, perm=(0, 2, 1, 3, 4)), shape=s)
        return self.conv(y, s[1], 3, group=s[1])

    def block_split(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if s[1] % 2:
            return None
        half = s[1] // 2
        left, right = (
            self.b(graph.Slice, x, starts=(0, i * half, 0, 0), sizes=(1, half, *s[2:]), steps=(1,) * 4)
            for i in range(2)
        )  # fmt: skip
        return self.b(graph.Concat, [left, self.act(self.norm(self.conv(right, half)))], axis=1)

    def block_pool(self, x: Value, s: tuple[int, ...]) -> Value | None:
        if min(s[2:]) < 3:
            return None
        cls = graph.MaxPool if self.rng.random() < 0.5 else graph.AveragePool
        return self.b(cls, x, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1))

    def block_pyramid(self, x: Value, s: tuple[int, ...]) -> Value:
        small = self.conv(self.conv(x, 4, 3, 2), s[1])
        up = self.b(graph.ResizeNearest, small, axes=(2, 3), sizes=s[2:], coordinate_mode="asymmetric",
                    nearest_mode="floor")  # fmt: skip
        return self.b(graph.Add, self.conv(x, s[1]), up)

    def block_permuted(self, x: Value, s: tuple[int, ...]) -> Value:
        """ConvNeXt: a norm and a product on the channels, last in the model's own order."""
        y = self.b(graph.Transpose, self.conv(x, s[1], 3, group=s[1]), perm=(0, 2, 3, 1))
        y = self.b(graph.LayerNorm, y, None, None, axis=3)
        y = self.b(graph.Matmul, y, self.b.constant(self.array(s[1], s[1])))
        y = self.b(graph.Transpose, self.b(graph.Gelu, y), perm=(0, 3, 1, 2))
        return self.b(graph.Add, self.b(graph.Mul, y, self.b.constant(self.array(s[1], 1, 1))), x)

    def block_attending(self, x: Value, s: tuple[int, ...]) -> Value | None:
        """Attention over the points of a picture, with one weight for q, k and v."""
        c, n = s[1], s[2] * s[3]
        if c % 2:
            return None
        t = self.b(graph.Transpose, self.b(graph.Reshape, x, shape=(1, c, n)), perm=(0, 2, 1))
        t = self.b(graph.LayerNorm, t, None, None, axis=2)
        qkv = self.b(graph.Matmul, t, self.b.constant(self.array(c, 3 * c)))
        qkv = self.b(graph.Transpose, self.b(graph.Reshape, qkv, shape=(1, n, 3, 2, c // 2)), perm=(2, 0, 3, 1, 4))
        q, k, v = (
            self.b(graph.Reshape, self.b(graph.Slice, qkv, starts=(i, 0, 0, 0, 0), sizes=(1, 1, 2, n, c // 2),
                                         steps=(1,) * 5), shape=(1, 2, n, c // 2))
            for i in range(3)
        )  # fmt: skip
        scores = self.b(graph.Matmul, q, self.b(graph.Transpose, k, perm=(0, 1, 3, 2)))
        w = self.b(graph.Softmax, self.b(graph.Mul, scores, self.b.constant(np.float32(0.5))), axis=3)
        y = self.b(graph.Transpose, self.b(graph.Matmul, w, v), perm=(0, 2, 1, 3))
        y = self.b(graph.Matmul, self.b(graph.Reshape, y, shape=(1, n, c)), self.b.constant(self.array(c, c)))
        y = self.b(graph.Add, y, self.b(graph.Transpose, self.b(graph.Reshape, x, shape=(1, c, n)), perm=(0, 2, 1)))
        return self.b(graph.Reshape, self.b(graph.Transpose, y, perm=(0, 2, 1)), shape=s)


def random_network(seed: int, blocks: int = 4) -> ModuleOp:
    """A small convolutional network of random blocks; its outputs are class scores and the last tensor but one."""
    rng = np.random.default_rng(seed)

    def body(b: Build, values: list[Value]) -> list[Value]:
        at = _Network(b, seed)
        x = at.block_plain(values[0], tensor_type(values[0]).static_shape)
        names = [n for n in dir(at) if n.startswith("block_")]
        seen = [x]
        while len(seen) <= blocks:
            y = getattr(at, names[int(rng.integers(len(names)))])(x, tensor_type(x).static_shape)
            if y is not None and np.prod(tensor_type(y).static_shape) <= _LIMIT:
                seen.append(y)
                x = y
        c = tensor_type(x).static_shape[1]
        mean = b(graph.Reshape, b(graph.Reduce, x, kind="mean", axes=(2, 3)), shape=(1, c))
        logits = b(graph.Add, b(graph.Matmul, mean, b.constant(at.array(c, 5))), b.constant(at.array(5)))
        return [b(graph.Softmax, logits, axis=1), seen[-2]]

    return program([(1, 3, 7, 6)], body)
