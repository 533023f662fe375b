# SPDX-License-Identifier: Apache-2.0
"""Loads and stores of V elements: contiguous, strided, gathered, masked."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tcc.codegen.llvm.emit.builder import Emitter, type_suffix
from tcc.codegen.llvm.emit.convert import from_storage, to_storage
from tcc.codegen.llvm.emit.values import I1, I32, PTR, VOID, Int, Val, constant, lanes_of, storage_type, vector
from tcc.ir.types import DType


def address(e: Emitter, pointer: Any, offset: Int, dtype: DType) -> Any:
    """The address of an element; a vector of offsets gives a vector of addresses."""
    if isinstance(offset, int) and offset == 0:
        return pointer
    return e.b.gep(pointer, [e.i64(offset)], source_etype=storage_type(dtype))


def _address_vector(e: Emitter, pointer: Any, offsets: Any, dtype: DType) -> Any:
    at = e.b.gep(pointer, [offsets], source_etype=storage_type(dtype))
    at.type = vector(PTR, lanes_of(offsets.type))
    return at


def load(e: Emitter, pointer: Any, dtype: DType, lanes: int = 1, align: int | None = None) -> Val:
    """`lanes` consecutive elements."""
    return from_storage(e, load_raw(e, pointer, dtype, lanes, align), dtype)


def load_raw(e: Emitter, pointer: Any, dtype: DType, lanes: int = 1, align: int | None = None) -> Any:
    """`lanes` consecutive elements as they lie in memory."""
    return e.b.load(pointer, typ=vector(storage_type(dtype), lanes), align=align or dtype.bytes)


def load_masked(e: Emitter, pointer: Any, dtype: DType, lanes: int, mask: Any, fill: Val | None = None) -> Val:
    """Consecutive elements where the mask is set, else `fill` (0)."""
    t = vector(storage_type(dtype), lanes)
    other = constant(t, 0) if fill is None else e.splat(to_storage(e, fill), lanes)
    if lanes == 1:
        with e.either(mask) as (then, otherwise):
            with then:
                raw = e.b.load(pointer, typ=t, align=dtype.bytes)
                here = e.b.block
            with otherwise:
                there = e.b.block
        phi = e.b.phi(t)
        phi.add_incoming(raw, here)
        phi.add_incoming(other, there)
        return from_storage(e, phi, dtype)
    name = f"llvm.masked.load.{type_suffix(t)}.p0"
    return from_storage(e, e.call(name, t, [pointer, I32(dtype.bytes), mask, other]), dtype)


def gather(e: Emitter, pointer: Any, offsets: Any, dtype: DType, mask: Any = None, fill: Val | None = None) -> Val:
    """The elements at a vector of offsets (in elements), where the mask is set, else `fill` (0)."""
    lanes = lanes_of(offsets.type)
    t = vector(storage_type(dtype), lanes)
    other = constant(t, 0) if fill is None else e.splat(to_storage(e, fill), lanes)
    if mask is None or isinstance(mask, bool):
        mask = constant(vector(I1, lanes), True if mask is None else mask)
    at = _address_vector(e, pointer, offsets, dtype)
    name = f"llvm.masked.gather.{type_suffix(t)}.v{lanes}p0"
    return from_storage(e, e.call(name, t, [at, I32(dtype.bytes), mask, other]), dtype)


def store(e: Emitter, value: Val, pointer: Any, align: int | None = None) -> None:
    """A value's lanes to consecutive elements."""
    e.b.store(to_storage(e, value), pointer, align=align or value.dtype.bytes)


def store_masked(e: Emitter, value: Val, pointer: Any, mask: Any) -> None:
    """The lanes where the mask is set to consecutive elements."""
    raw = to_storage(e, value)
    lanes = lanes_of(raw.type)
    if lanes == 1:
        with e.when(mask):
            e.b.store(raw, pointer, align=value.dtype.bytes)
        return
    if value.dtype.bytes < 4:
        mask = _opaque(e, mask)
    e.call(f"llvm.masked.store.{type_suffix(raw.type)}.p0", VOID, [raw, pointer, I32(value.dtype.bytes), mask])


def _opaque(e: Emitter, mask: Any) -> Any:
    """The mask, hidden from constant folding: LLVM 22 turns the masked store of a truncated vector whose mask is a
    constant of one lane into a store of the wide element, which overwrites its neighbour."""
    lanes = lanes_of(mask.type)
    bits = ir.IntType(lanes)
    wide = ir.IntType(max(32, lanes))
    number = e.b.bitcast(mask, bits)
    number = number if lanes == wide.width else e.b.zext(number, wide)
    hidden = e.b.asm(ir.FunctionType(wide, [wide]), "", "=r,0", [number], False)
    return e.b.bitcast(hidden if lanes == wide.width else e.b.trunc(hidden, bits), mask.type)


def scatter(e: Emitter, value: Val, pointer: Any, offsets: Any, mask: Any = None) -> None:
    """Lanes to the elements at a vector of offsets."""
    raw = to_storage(e, value)
    lanes = lanes_of(raw.type)
    at = _address_vector(e, pointer, offsets, value.dtype)
    mask = constant(vector(I1, lanes), True) if mask is None else mask
    name = f"llvm.masked.scatter.{type_suffix(raw.type)}.v{lanes}p0"
    e.call(name, VOID, [raw, at, I32(value.dtype.bytes), mask])
