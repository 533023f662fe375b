# SPDX-License-Identifier: Apache-2.0
"""Keys with their places as unsigned integers whose order is that of a top-k: the greater comes first.

The upper bits hold the key, made comparable (a float's sign turned into an offset, NaN above all numbers, the zeros
equal); the lower 32 the complement of the place, so that equal keys come in the order of their places. No two places
have the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.convert import cast
from tcc.codegen.llvm.emit.values import I32, I64, Int, Val, constant, vector
from tcc.ir.kernel import TopK
from tcc.ir.scalar import element
from tcc.ir.types import I32 as INT
from tcc.ir.types import I64 as LONG
from tcc.ir.types import U32, U64

PLACE_BITS = 32


class Packed:
    """Packs and unpacks for one top-k."""

    def __init__(self, e: Emitter, anchor: TopK) -> None:
        self.e = e
        self.largest = anchor.largest
        self.dtype = element(anchor.body.block.terminator.operands[0])
        self.key_bits = 64 if self.dtype.bits == 64 else 32
        self.bits = 64 if self.key_bits == 32 else 128
        self.type = ir.IntType(self.bits)

    @property
    def highest(self) -> Any:
        """Not below any packed key."""
        return constant(self.type, (1 << (self.key_bits + PLACE_BITS)) - 1)

    @property
    def lowest(self) -> Any:
        """Below every packed key: no place has the complement that its lower bits would need."""
        return constant(self.type, 0)

    def below(self, packed: Any) -> Any:
        """The integer before a packed key."""
        return self.e.b.sub(packed, constant(self.type, 1))

    def key(self, key: Val) -> Any:
        """The key as an unsigned integer in the order wanted, in every lane that it has."""
        e, b = self.e, self.e.b
        t = vector(ir.IntType(self.key_bits), key.lanes)
        if self.dtype.is_float:
            x = key.ir
            zero = constant(x.type, 0.0)
            x = b.select(b.fcmp_ordered("==", x, zero), zero, x)
            bits = b.bitcast(x, t)
            sign = constant(t, 1 << (self.key_bits - 1))
            mask = b.or_(b.ashr(bits, constant(t, self.key_bits - 1)), sign)
            out = b.xor(bits, mask)
            out = b.select(b.fcmp_unordered("uno", x, x), constant(t, (1 << self.key_bits) - 1), out)
        else:
            signed = self.dtype.kind == "int"
            wide = (LONG if signed else U64) if self.key_bits == 64 else (INT if signed else U32)
            out = cast(e, key, wide).ir
            if signed:
                out = b.xor(out, constant(t, 1 << (self.key_bits - 1)))
        return out if self.largest else b.not_(out)

    def key_of(self, packed: Any) -> Any:
        """The key in a packed one."""
        b = self.e.b
        return b.trunc(b.lshr(packed, constant(self.type, PLACE_BITS)), ir.IntType(self.key_bits))

    def pack(self, key: Val, place: Int) -> Any:
        """Key and place as one integer."""
        b = self.e.b
        upper = b.shl(b.zext(self.key(key), self.type), constant(self.type, PLACE_BITS))
        low = b.not_(b.trunc(self.e.i64(place), I32))
        return b.or_(upper, b.zext(low, self.type))

    def place(self, packed: Any) -> Any:
        """The place of a packed key, as i64."""
        b = self.e.b
        return b.zext(b.not_(b.trunc(packed, I32)), I64)
