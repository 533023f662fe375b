# SPDX-License-Identifier: Apache-2.0
"""Symbols of a graph function under other names."""

from __future__ import annotations

from collections.abc import Mapping

from tcc.ir.core import Op
from tcc.ir.expr import Sym
from tcc.ir.graph import Bind
from tcc.ir.kernel.symbols import substitute_attribute, substitute_type


def rename_symbols(function: Op, names: Mapping[str, str]) -> None:
    """Give symbols other names (old → new) in all types and attributes of a function."""
    env = {old: Sym(new) for old, new in names.items()}
    for op in function.walk():
        for v in op.results:
            v.type = substitute_type(v.type, env)
        for region in op.regions:
            for block in region.blocks:
                for a in block.args:
                    a.type = substitute_type(a.type, env)
        for key, value in list(op.attrs.items()):
            op.attrs[key] = substitute_attribute(value, env)
        if isinstance(op, Bind):
            op.attrs["symbols"] = tuple(names.get(s, s) for s in op.symbols)
