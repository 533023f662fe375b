# SPDX-License-Identifier: Apache-2.0
"""Dialect `kernel`: anchors over index domains, the functions that hold them, and the host function."""

from tcc.ir.kernel.anchors import Anchor, Attention, Contraction, Conv, Map, MatMul, Pool, Reduce, Rows
from tcc.ir.kernel.anchors_irregular import Scan, Scatter, TopK
from tcc.ir.kernel.control import If, Loop
from tcc.ir.kernel.func import (
    Assemble,
    BindOp,
    Constant,
    Func,
    Host,
    HostCall,
    Index,
    LaunchOp,
    Pack,
    Return,
    ViewOp,
    Yield,
)
from tcc.ir.kernel.ragged import Ragged
from tcc.ir.kernel.recurrence import Recurrence

__all__ = [
    "Anchor",
    "Assemble",
    "Attention",
    "BindOp",
    "Constant",
    "Contraction",
    "Conv",
    "Func",
    "Host",
    "HostCall",
    "If",
    "Index",
    "LaunchOp",
    "Loop",
    "Map",
    "MatMul",
    "Pack",
    "Pool",
    "Ragged",
    "Recurrence",
    "Reduce",
    "Return",
    "Rows",
    "Scan",
    "Scatter",
    "TopK",
    "ViewOp",
    "Yield",
]
