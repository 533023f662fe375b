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
        return unused[-6:]

    return program(inputs, body)
