# SPDX-License-Identifier: Apache-2.0
"""The module: a complete program at any level, with what is needed to go on compiling it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcc.ir.core import Block, Op, Region
from tcc.ir.declare import ANY, DICT, STR, Attr, IRError, RegionField, register
from tcc.ir.resources import ResourceStore


@register
class ModuleOp(Op):
    """A program: functions, the target, the options it is compiled with, and the pipeline still to run.

    `resources` holds the constants that the text names; it is no part of the text.
    """

    name = "builtin.module"
    target = Attr(STR, "")
    options = Attr(DICT, {})
    pipeline = Attr(STR, "")
    meta = Attr(ANY, None)
    body = RegionField()
    __slots__ = ("_resources",)

    @property
    def resources(self) -> ResourceStore:
        if not hasattr(self, "_resources"):
            self._resources = ResourceStore()
        return self._resources

    @resources.setter
    def resources(self, store: ResourceStore) -> None:
        self._resources = store

    @property
    def block(self) -> Block:
        return self.body.block

    @property
    def ops(self) -> Iterator[Op]:
        return self.body.block.ops

    def functions(self) -> dict[str, Op]:
        """Top-level ops that have a `sym_name`, by that name."""
        return {str(op.attrs["sym_name"]): op for op in self.ops if "sym_name" in op.attrs}

    def verify(self) -> None:
        seen: set[str] = set()
        for op in self.ops:
            symbol = op.attrs.get("sym_name")
            if symbol in seen:
                raise IRError(f"two functions are named @{symbol}")
            if symbol is not None:
                seen.add(symbol)


def module(target: str = "", **attrs: Any) -> ModuleOp:
    """An empty module."""
    return ModuleOp(regions=[Region(Block())], result_types=[], target=target, **attrs)
