# SPDX-License-Identifier: Apache-2.0
"""com.microsoft operators on weights of 2, 4 or 8 bits with a scale and zero point for each block of a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.compiler.frontend.contrib import INT, contrib_op, known_dim, refuse, takes
from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Node
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.expr import Dim, product
from tcc.ir.types import F32, I32, I64, U8

Array = np.ndarray[Any, Any]


def _bits(n: Node) -> int:
    bits = n.attr("bits", 4)
    if bits not in (2, 4, 8):
        raise InputError(f"its attribute bits is {bits}, and 2, 4 and 8 are supported")
    return bits


def unpacked(packed: Array, bits: int) -> Array:
    """[..., bytes] of u8 as [..., bytes · 8 / bits], the lowest bits of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    split = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return split.reshape(*packed.shape[:-1], -1)


@contrib_op("MatMulNBits")
def matmul_n_bits(n: Node) -> Value:
    """A [..., K] times weights [N, K] that are constants, which stay packed: a few rows are multiplied as the bytes are
    read, more of them by weights that a kernel unpacks first."""
    takes(n, K=INT, N=INT, bits=INT, block_size=INT, accuracy_level=INT, weight_prepacked=INT)
    refuse(n, "weights in the layout of one device", "weight_prepacked")
    a, rows, depth, block, bits = n.input(0), n.attr("N"), n.attr("K"), n.attr("block_size"), _bits(n)
    if min(rows, depth, block) < 1 or n.rank(a) < 1 or n.shape(a)[-1] != depth:
        raise InputError(f"A is {n.type(a)}, and its K is {depth}, its N {rows} and its block_size {block}")
    blocks = -(-depth // block)
    packed = n.const(1, "B")
    if packed.dtype != np.uint8:
        raise InputError(f"B is of {packed.dtype}, and packed u8 is needed")
    if packed.size != rows * blocks * (block * bits // 8):
        raise InputError(f"B has {packed.size} bytes, which is not {rows} rows of {blocks} blocks of {block} values")
    scales, zeros = _of_blocks(n, 2, "scales", rows, blocks, bits), _zeros(n, rows, blocks, bits)
    if n.optional(4) is None:
        weights = _Packed(n, packed.reshape(rows, blocks, -1), scales, zeros, bits, depth)
        lines = product(n.shape(a)[:-1])
        y = (weights.times if isinstance(lines, int) and lines <= FEW else weights.unpacked_times)(a)
    else:
        group = n.const(4, "g_idx").astype(np.int64)
        if group.shape != (depth,) or group.min() < 0 or group.max() >= blocks:
            raise InputError(f"its g_idx must be {depth} numbers of blocks below {blocks}")
        whole = unpacked(packed.reshape(rows, -1), bits).astype(np.float32)
        whole = (whole[:, :depth] - zeros[:, group]) * scales[:, group]
        y = n.op(graph.Matmul, a, n.constant(np.ascontiguousarray(whole.T, dtype=n.dtype(a).numpy)))
    bias = n.optional(5)
    return y if bias is None else n.op(graph.Add, y, bias)


FEW = 8
"""Rows of A up to which the weights are read once a row, packed."""


class _Packed:
    """Weights in bytes [blocks, block · bits / 8, N]: neighbouring columns are neighbours, and scales and zero points
    [blocks, N] are shared by the bytes of a block."""

    def __init__(self, n: Node, packed: Array, scales: Array, zeros: Array, bits: int, depth: int) -> None:
        """packed [N, blocks, bytes], scales and zeros [N, blocks]."""
        self.n, self.bits, self.depth = n, bits, depth
        self.f = Formula(n)
        self.each = 8 // bits
        self.rows, self.blocks, self.bytes = packed.shape
        self.packed = n.constant(np.ascontiguousarray(packed.transpose(1, 2, 0)))
        self.scales = n.constant(np.ascontiguousarray(scales.T).reshape(self.blocks, 1, self.rows))
        same = zeros.size > 0 and bool((zeros == zeros.flat[0]).all())
        points = zeros.flat[0] if same else np.ascontiguousarray(zeros.T).reshape(self.blocks, 1, self.rows)
        self.zeros = n.constant(points, F32)

    def part(self, i: int) -> Value:
        """The i-th number of every byte, less its zero point: f32 [blocks, bytes, N]."""
        n, x = self.n, self.packed
        if i:
            x = _kept(n.op(graph.ShiftRight, x, n.constant(i * self.bits, U8)))
        if self.bits < 8:
            x = _kept(n.op(graph.BitwiseAnd, x, n.constant((1 << self.bits) - 1, U8)))
        return self.f.sub(_kept(n.cast(x, F32)), self.zeros)

    def times(self, a: Value) -> Value:
        """A sum over the bytes for every row of a [..., K]."""
        n, f = self.n, self.f
        lead = n.shape(a)[:-1]
        lines = product(lead)
        wide = n.reshape(n.cast(a, F32), (lines, self.depth))
        whole = self.blocks * self.bytes * self.each
        if whole != self.depth:
            wide = n.op(graph.Pad, wide, before=(0, 0), after=(0, whole - self.depth))
        wide = n.reshape(wide, (lines, self.blocks, self.bytes, 1, self.each))
        total: Value | None = None
        for i in range(self.each):
            factor = n.reshape(f.part(wide, 4, i), (lines, self.blocks, self.bytes, 1))
            term = f.mul(factor, self.part(i))
            total = term if total is None else f.add(total, term)
        assert total is not None
        y = f.reduce(f.mul(total, self.scales), "sum", 1, 2)
        return n.cast(n.reshape(y, (*lead, self.rows)), n.dtype(a))

    def unpacked_times(self, a: Value) -> Value:
        """A product with all weights as floats."""
        n, f = self.n, self.f
        x = n.reshape(self.packed, (self.blocks, self.bytes, 1, self.rows))
        x = _kept(n.op(graph.ShiftRight, x, n.constant(np.arange(0, 8, self.bits).reshape(-1, 1), U8)))
        x = _kept(n.op(graph.BitwiseAnd, x, n.constant((1 << self.bits) - 1, U8)))
        zeros, scales = (
            v if not n.rank(v) else n.reshape(v, (self.blocks, 1, 1, self.rows)) for v in (self.zeros, self.scales)
        )
        whole = n.cast(f.mul(f.sub(_kept(n.cast(x, F32)), zeros), scales), n.dtype(a))
        whole = n.reshape(whole, (self.blocks * self.bytes * self.each, self.rows))
        if n.shape(whole)[0] != self.depth:
            whole = f.part(whole, 0, 0, self.depth)
        return n.op(graph.Matmul, a, whole)


def _kept(v: Value) -> Value:
    """The result of an op that is not folded, as its operand is a smaller form of it."""
    if v.defining_op is not None and not isinstance(v.defining_op, graph.Constant):
        v.defining_op.attrs["tcc.keep"] = True
    return v


def _of_blocks(n: Node, index: int, what: str, rows: int, blocks: int, bits: int) -> Array:
    """An operand with one number a block, packed if it is u8, as f32 [rows, blocks]."""
    given = n.const(index, what)
    if given.dtype == np.uint8:
        bytes_each = -(-blocks * bits // 8)
        if given.size != rows * bytes_each:
            raise InputError(f"its {what} have {given.size} bytes, and {rows} · {bytes_each} are needed")
        given = unpacked(given.reshape(rows, bytes_each), bits)[:, :blocks]
    if given.size != rows * blocks:
        raise InputError(f"its {what} are {given.size} numbers, and {rows} · {blocks} are needed")
    return given.reshape(rows, blocks).astype(np.float32)


def _zeros(n: Node, rows: int, blocks: int, bits: int) -> Array:
    """Zero points [rows, blocks]; the middle of the range where they are absent."""
    if n.optional(3) is None:
        return np.full((rows, blocks), 1 << bits - 1, np.float32)
    return _of_blocks(n, 3, "zero_points", rows, blocks, bits)


@contrib_op("GatherBlockQuantized")
def gather_block_quantized(n: Node) -> Value:
    """Rows of a quantized table: gathered as integers, then scaled; an index outside the table gives zeros."""
    takes(n, bits=INT, block_size=INT, gather_axis=INT, quantize_axis=INT)
    data, at, scales, zeros = n.input(0), n.input(1), n.input(2), n.optional(3)
    packed, bits, block = n.dtype(data) == U8, _bits(n), n.attr("block_size", 128)
    if not n.dtype(data).is_int:
        raise InputError(f"its data are {n.type(data)}, and integers are supported")
    rank = n.rank(data)
    gather, along = n.axis(n.attr("gather_axis", 0), rank), n.axis(n.attr("quantize_axis", 1), rank)
    if gather == along or block < 1 or n.rank(scales) != rank or (packed and (gather != 0 or along != rank - 1)):
        raise InputError(
            f"its data are {n.type(data)} and its scales {n.type(scales)}, which its gather_axis {gather}, "
            f"quantize_axis {along} and block_size {block} do not fit"
        )
    if zeros is not None and (n.rank(zeros) != rank or n.dtype(zeros) != n.dtype(data)):
        raise InputError(f"its zero_points are {n.type(zeros)}, and its data {n.type(data)}")
    extent = known_dim(n.shape(data)[gather], "the extent of its gather_axis")
    place = n.cast(at, I64)
    place = n.op(graph.Where, n.op(graph.Less, place, n.constant(0, I64)),
                 n.op(graph.Add, place, n.constant(extent, I64)), place)  # fmt: skip
    inside = n.op(graph.Clip, place, lo=0, hi=extent - 1)
    more = n.rank(at) - 1
    along += more if along > gather else 0

    def rows(x: Value, integers: bool) -> Value:
        got = n.op(graph.Gather, x, inside, axis=gather)
        if packed and integers and bits < 8:
            got = _split(n, got, bits)
        return n.cast(got, I32) if integers else n.cast(got, F32)

    values = rows(data, True)
    if zeros is not None:
        centre: Value | None = _repeated(n, rows(zeros, True), along, block, n.shape(values))
    else:
        centre = n.constant(1 << bits - 1, I32) if packed else None
    whole = values if centre is None else n.op(graph.Sub, values, centre)
    factor = _repeated(n, rows(scales, False), along, block, n.shape(values))
    y = n.op(graph.Mul, n.cast(whole, F32), factor)
    shape = (*[1] * gather, *n.shape(at), *[1] * (rank - 1 - gather))
    found = n.reshape(n.op(graph.Equal, inside, place), shape)
    return n.cast(n.op(graph.Where, found, y, n.like(0.0, y)), n.dtype(scales))


def _split(n: Node, x: Value, bits: int) -> Value:
    """[..., bytes] of u8 as [..., bytes · 8 / bits], like `unpacked`."""
    shape = n.shape(x)
    shifts = n.constant(np.arange(0, 8, bits), U8)
    wide = n.op(graph.ShiftRight, n.reshape(x, (*shape, 1)), shifts)
    low = n.op(graph.BitwiseAnd, wide, n.constant((1 << bits) - 1, U8))
    return n.reshape(low, (*shape[:-1], shape[-1] * (8 // bits)))


def _repeated(n: Node, x: Value, axis: int, block: int, shape: tuple[Dim, ...]) -> Value:
    """x with each number along the axis repeated for its block, cut to a shape."""
    have = n.shape(x)
    if have == shape and block == 1:
        return x
    wide = n.reshape(x, (*have[: axis + 1], 1, *have[axis + 1 :]))
    wide = n.op(graph.Expand, wide, shape=(*have[: axis + 1], block, *have[axis + 1 :]))
    flat = n.reshape(wide, (*have[:axis], have[axis] * block, *have[axis + 1 :]))
    if flat.type == graph.dense(shape, n.dtype(flat)):
        return flat
    return n.op(graph.Slice, flat, starts=(0,) * len(shape), sizes=shape, steps=(1,) * len(shape))
