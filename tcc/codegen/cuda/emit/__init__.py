# SPDX-License-Identifier: Apache-2.0
"""Emitter library of the CUDA templates.

`Unit` builds a translation unit; `Access` tells how an operand may be read; `emit_region` and `inline_region` turn
scalar regions into C++; `c_index` does so with index expressions.
"""

from tcc.codegen.cuda.emit.access import Access, Guard, build_access
from tcc.codegen.cuda.emit.dtypes import codec, literal, register
from tcc.codegen.cuda.emit.index import c_index, fits32
from tcc.codegen.cuda.emit.scalar import RegionFunction, emit_region, inline_region, region_indices
from tcc.codegen.cuda.emit.unit import Unit, flatten, function, loop, template_text

__all__ = [
    "Access",
    "Guard",
    "RegionFunction",
    "Unit",
    "build_access",
    "c_index",
    "codec",
    "emit_region",
    "fits32",
    "flatten",
    "function",
    "inline_region",
    "literal",
    "loop",
    "region_indices",
    "register",
    "template_text",
]
