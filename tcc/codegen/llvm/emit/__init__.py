# SPDX-License-Identifier: Apache-2.0
"""Emitting LLVM IR: the builder, values, conversions, memory, regions and index maps that CPU templates share."""

from tcc.codegen.llvm.emit.access import Access, Address, Point, indices, load_all, scalar_expr
from tcc.codegen.llvm.emit.builder import Emitter, Var
from tcc.codegen.llvm.emit.convert import cast, literal, spread
from tcc.codegen.llvm.emit.kernel import (
    Body,
    KernelEmitter,
    extents,
    operand_addresses,
    refuse_symbols,
    result_addresses,
)
from tcc.codegen.llvm.emit.memory import (
    address,
    gather,
    load,
    load_masked,
    scatter,
    store,
    store_masked,
)
from tcc.codegen.llvm.emit.nest import Nest, by_stride, collapse, complexity, merge, nest_of
from tcc.codegen.llvm.emit.reducing import Reduction, arranged, invariant, vector_dim
from tcc.codegen.llvm.emit.region import combine, emit_region, identity
from tcc.codegen.llvm.emit.values import F32, F64, I1, I8, I16, I32, I64, PTR, Int, Val, constant, vector
from tcc.codegen.llvm.emit.vectors import tail, transpose, vector_loop

__all__ = [
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "Access",
    "Address",
    "Body",
    "Emitter",
    "Int",
    "KernelEmitter",
    "Nest",
    "Point",
    "Reduction",
    "Val",
    "Var",
    "address",
    "arranged",
    "by_stride",
    "cast",
    "collapse",
    "combine",
    "complexity",
    "constant",
    "emit_region",
    "extents",
    "gather",
    "identity",
    "indices",
    "invariant",
    "literal",
    "load",
    "load_all",
    "load_masked",
    "merge",
    "nest_of",
    "operand_addresses",
    "refuse_symbols",
    "result_addresses",
    "scalar_expr",
    "scatter",
    "spread",
    "store",
    "store_masked",
    "tail",
    "transpose",
    "vector",
    "vector_dim",
    "vector_loop",
]
