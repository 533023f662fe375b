# SPDX-License-Identifier: Apache-2.0
"""Ops that move elements without computing: their result is the operand read through an index map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc import reference as _ref
from tcc.ir.declare import DIMS, DTYPE, INT, INTS, Attr, Operand, OptionalOperand, Result, Variadic, one_of, register
from tcc.ir.expr import Dim, mul, product
from tcc.ir.graph.base import (
    NUMBER,
    Array,
    GraphOp,
    check_axis,
    check_dims,
    check_equal_dim,
    check_length,
    dense,
    dims_text,
    known_different,
    optional,
    present,
    same_dtype,
    static_ints,
)
from tcc.ir.types import Type


class Index(GraphOp):
    """Base of index ops."""

    category = "index"


@register
class Transpose(Index):
    """Dim i of the result is dim perm[i] of x. ONNX Transpose."""

    name = "graph.transpose"
    x = Operand()
    perm = Attr(INTS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        if sorted(self.perm) != list(range(t.rank)):
            raise self.fail(f"perm {list(self.perm)} is no permutation of the {t.rank} dims")
        return (dense((t.shape[p] for p in self.perm), t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.transpose(present(arrays[0]), self.perm),)


@register
class Reshape(Index):
    """The elements of x, in row-major order, in another shape. ONNX Reshape, Flatten, Squeeze, Unsqueeze."""

    name = "graph.reshape"
    x = Operand()
    shape: Attr[tuple[Dim, ...]] = Attr(DIMS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_dims(self, self.shape, "shape")
        if known_different(t.size, product(self.shape)):
            raise self.fail(f"{dims_text(t.shape)} does not reshape to {dims_text(self.shape)}: the sizes differ")
        return (dense(self.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (present(arrays[0]).reshape(static_ints(self, self.shape)),)


@register
class Expand(Index):
    """x broadcast to `shape`, its dims aligned at the end. ONNX Expand (with the broadcast shape)."""

    name = "graph.expand"
    x = Operand()
    shape: Attr[tuple[Dim, ...]] = Attr(DIMS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_dims(self, self.shape, "shape")
        if t.rank > len(self.shape):
            raise self.fail(f"{dims_text(t.shape)} does not expand to {dims_text(self.shape)}")
        for have, want in zip(reversed(t.shape), reversed(self.shape), strict=False):
            if have != 1 and known_different(have, want):
                raise self.fail(f"{dims_text(t.shape)} does not expand to {dims_text(self.shape)}")
        return (dense(self.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.broadcast_to(present(arrays[0]), static_ints(self, self.shape)),)


@register
class Slice(Index):
    """Element i of result dim d is element starts[d] + i·steps[d] of x; `sizes` are the result's extents.

    Every dim is named; starts are in range and steps not 0, negative steps walk down. ONNX Slice, Split.
    """

    name = "graph.slice"
    x = Operand()
    starts: Attr[tuple[Dim, ...]] = Attr(DIMS)
    sizes: Attr[tuple[Dim, ...]] = Attr(DIMS)
    steps = Attr(INTS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        for what, values in (("starts", self.starts), ("sizes", self.sizes), ("steps", self.steps)):
            check_length(self, values, t.rank, what)
        check_dims(self, self.sizes, "sizes")
        for d, (extent, start, size, step) in enumerate(zip(t.shape, self.starts, self.sizes, self.steps, strict=True)):
            if step == 0:
                raise self.fail(f"the step of dim {d} is 0")
            last = start + (size - 1) * step if not isinstance(size, int) or size > 0 else 0
            for at in (start, last) if not isinstance(size, int) or size > 0 else ():
                if isinstance(at, int) and (at < 0 or (isinstance(extent, int) and at >= extent)):
                    raise self.fail(f"dim {d} of extent {extent} has no element {at}")
        return (dense(self.sizes, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        index: list[slice] = []
        for start, size, step in zip(
            static_ints(self, self.starts), static_ints(self, self.sizes), self.steps, strict=True
        ):
            stop = start + size * step
            index.append(slice(start, stop if stop >= 0 else None, step) if size else slice(0, 0))
        return (x[tuple(index)],)


@register
class Concat(Index):
    """The operands one after the other along `axis`. ONNX Concat."""

    name = "graph.concat"
    xs = Variadic()
    axis = Attr(INT)
    y = Result()

    def infer(self) -> Sequence[Type]:
        if not self.operands:
            raise self.fail("it needs at least one operand")
        types = [self.operand_type(i) for i in range(len(self.operands))]
        dtype = same_dtype(self, *types)
        shape = list(types[0].shape)
        check_axis(self, self.axis, len(shape))
        for t in types[1:]:
            if t.rank != len(shape):
                raise self.fail(f"operands of rank {len(shape)} and {t.rank} do not concatenate")
            for d in range(len(shape)):
                if d == self.axis:
                    shape[d] = shape[d] + t.shape[d]
                else:
                    shape[d] = check_equal_dim(self, shape[d], t.shape[d], f"the extents of dim {d}")
        return (dense(shape, dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.concatenate([present(a) for a in arrays], self.axis),)


@register
class Pad(Index):
    """before[d] elements added at the start of dim d and after[d] at its end; negative numbers crop.

    `constant` fills with `value`, or with the 0-D operand where the value is not constant. ONNX Pad.
    """

    name = "graph.pad"
    x = Operand()
    fill = OptionalOperand()
    before = Attr(INTS)
    after = Attr(INTS)
    mode = Attr(one_of("constant", "edge", "reflect", "wrap"), "constant")
    value = Attr(NUMBER, 0)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_length(self, self.before, t.rank, "before")
        check_length(self, self.after, t.rank, "after")
        shape: list[Dim] = [n + b + a for n, b, a in zip(t.shape, self.before, self.after, strict=True)]
        check_dims(self, shape, "the padded shape")
        return (dense(shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        fill = optional(arrays, 1)
        value = np.asarray(self.value if fill is None else fill, x.dtype)
        return (_ref.pad(x, (*self.before, *self.after), value, mode=self.mode),)


@register
class BitCast(GraphOp):
    """The bits of x read as elements of another type of the same width. ONNX BitCast."""

    name = "graph.bit_cast"
    category = "irregular"
    x = Operand()
    to = Attr(DTYPE)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        if t.dtype.bits != self.to.bits:
            raise self.fail(f"{t.dtype} and {self.to} differ in width")
        return (dense(t.shape, self.to),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.bit_cast(present(arrays[0]), to=self.to.numpy),)


@register
class Tile(Index):
    """Dim d of x repeated repeats[d] times. ONNX Tile."""

    name = "graph.tile"
    x = Operand()
    repeats = Attr(INTS)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_length(self, self.repeats, t.rank, "repeats")
        check_dims(self, self.repeats, "repeats")
        return (dense((mul(n, r) for n, r in zip(t.shape, self.repeats, strict=True)), t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.tile(present(arrays[0]), self.repeats),)


@register
class Gather(Index):
    """Slices of x along `axis` at integer indices of any shape; negative ones count from the end.

    Shape: x[:axis] + indices + x[axis + 1:]. ONNX Gather.
    """

    name = "graph.gather"
    x = Operand()
    indices = Operand()
    axis = Attr(INT, 0)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t, i = self.operand_type(0), self.operand_type(1)
        check_axis(self, self.axis, t.rank)
        if not i.dtype.is_int:
            raise self.fail(f"indices must be integers, not {i.dtype}")
        return (dense((*t.shape[: self.axis], *i.shape, *t.shape[self.axis + 1 :]), t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.gather(present(arrays[0]), present(arrays[1]), axis=self.axis),)


@register
class GatherElements(Index):
    """Element p of the result is x at p with its `axis` index replaced by indices[p]. ONNX GatherElements."""

    name = "graph.gather_elements"
    x = Operand()
    indices = Operand()
    axis = Attr(INT, 0)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t, i = self.operand_type(0), self.operand_type(1)
        check_axis(self, self.axis, t.rank)
        if i.rank != t.rank or not i.dtype.is_int:
            raise self.fail(f"indices must be integers of rank {t.rank}, not {i}")
        return (dense(i.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.gather_elements(present(arrays[0]), present(arrays[1]), axis=self.axis),)


@register
class GatherNd(Index):
    """Slices of x at index tuples: the last dim of `indices` [batch…, …, k] indexes the k dims of x after the first
    `batch_dims`. Shape: indices[:-1] + x[batch_dims + k:]. ONNX GatherND."""

    name = "graph.gather_nd"
    x = Operand()
    indices = Operand()
    batch_dims = Attr(INT, 0)
    y = Result()

    def infer(self) -> Sequence[Type]:
        t, i = self.operand_type(0), self.operand_type(1)
        if not i.dtype.is_int or i.rank == 0 or not isinstance(i.shape[-1], int):
            raise self.fail(f"indices must be integers with a known last extent, not {i}")
        depth = self.batch_dims + i.shape[-1]
        if self.batch_dims < 0 or depth > t.rank or self.batch_dims >= i.rank:
            raise self.fail(f"index tuples of {i.shape[-1]} do not fit {t} with batch_dims {self.batch_dims}")
        return (dense((*i.shape[:-1], *t.shape[depth:]), t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (_ref.gather_nd(present(arrays[0]), present(arrays[1]), batch_dims=self.batch_dims),)


@register
class Trilu(Index):
    """The upper or lower triangle of the last two dims, the k-th diagonal included; 0 elsewhere. ONNX Trilu."""

    name = "graph.trilu"
    x = Operand()
    k = Attr(INT, 0)
    part = Attr(one_of("upper", "lower"), "upper")
    y = Result()

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        if t.rank < 2:
            raise self.fail(f"it takes matrices, not {t}")
        return (dense(t.shape, t.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = present(arrays[0])
        return ((np.triu if self.part == "upper" else np.tril)(x, self.k),)
