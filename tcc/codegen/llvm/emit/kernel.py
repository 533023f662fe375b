# SPDX-License-Identifier: Apache-2.0
"""From a problem to a kernel function: its buffers, its accesses and the `Emitted` that describes the launch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tcc.codegen.llvm.emit.access import Access, Address, scalar_expr
from tcc.codegen.llvm.emit.builder import Emitter
from tcc.codegen.llvm.emit.values import Int
from tcc.codegen.template import BufferParam, Config, Emitted, Launch, ScalarParam, Workspace, entry_name
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Dim, Sym
from tcc.ir.kernel import Func
from tcc.ir.targets import Target
from tcc.ir.types import TensorType


@dataclass(frozen=True)
class Body:
    """What a template needs inside a kernel function: an access per operand and per result of the anchor, the
    addresses of the workspaces, this call's tasks, and the values of the kernel's symbols."""

    operands: list[Access]
    results: list[Access]
    workspaces: list[Any]
    first: Any
    last: Any
    symbols: dict[str, Any] = field(default_factory=dict[str, Any])


class KernelEmitter(Emitter):
    """An emitter for one problem under one config."""

    def __init__(self, problem: Func, template: str, config: Config, target: Target) -> None:
        super().__init__(target)
        self.problem = problem
        self.anchor = problem.anchor
        self.entry = entry_name(problem, template, config)
        self.workspaces: list[Workspace] = []
        self.launches: list[Launch] = []
        args = list(problem.body.block.args)
        self.argument_of = [args.index(v) for v in self.anchor.operands]  # pyright: ignore[reportArgumentType]
        returned = list(problem.body.block.terminator.operands)
        self.result_of = [returned.index(r) for r in self.anchor.results]
        self.arguments = len(args)
        self.returned = len(returned)
        self.ranges = self.anchor.domain.ranges
        self.symbols: dict[str, Any] = {}

    def workspace(self, nbytes: int, zeroed: bool = False) -> int:
        """Ask for scratch memory; its index among `Body.workspaces`. Before any `launch`."""
        self.workspaces.append(Workspace(nbytes, zeroed))
        return len(self.workspaces) - 1

    @contextmanager
    def launch(
        self,
        tasks: Dim,
        operands: Sequence[Address] | None = None,
        results: Sequence[Address] | None = None,
        writes: Sequence[int] | None = None,
        scratch_written: Sequence[int] = (),
        scratch_read: Sequence[int] = (),
        waves: int = 1,
        heavy: bool = False,
    ) -> Iterator[Body]:
        """One kernel function with its launch of `tasks` tasks in `waves` waves, long ones if they are
        `heavy`.

        `operands`, `results`: their addresses, if not as the anchor's maps say. `writes`: the results it writes
        (None: all). `scratch_…`: the workspaces it writes and reads. Every launch reads all operands.
        """
        suffix = "" if not self.launches else f"_{len(self.launches)}"
        count = self.arguments + self.returned + len(self.workspaces)
        written = range(len(self.anchor.results)) if writes is None else writes
        first_scratch = self.arguments + self.returned
        sources = operand_addresses(self.problem) if operands is None else operands
        targets = result_addresses(self.problem) if results is None else results
        names = self.problem.symbols
        with self.kernel(self.entry + suffix, count, len(names)) as (pointers, numbers, first, last):
            self.symbols = dict(zip(names, numbers, strict=True))
            yield Body(
                [Access(pointers[at], a) for at, a in zip(self.argument_of, sources, strict=True)],
                [Access(pointers[self.arguments + at], a) for at, a in zip(self.result_of, targets, strict=True)],
                pointers[first_scratch:],
                first,
                last,
                self.symbols,
            )
        self.launches.append(
            Launch(
                entry=self.entry + suffix,
                params=(*(BufferParam(i) for i in range(count)), *(ScalarParam(Sym(s), "i64") for s in names)),
                reads=(*sorted(set(self.argument_of)), *(first_scratch + i for i in scratch_read)),
                writes=(
                    *(self.arguments + self.result_of[i] for i in written),
                    *(first_scratch + i for i in scratch_written),
                ),
                tasks=tasks,
                waves=waves,
                heavy=heavy,
            )
        )

    def of(self, extent: Dim) -> Int:
        """An extent in the kernel function that is being made."""
        return scalar_expr(self, extent, self.symbols, self.ranges)

    def emitted(self, **derived: Any) -> Emitted:
        """The finished kernel; `derived` is what the schedule prints with it."""
        tasks = tuple(launch.tasks for launch in self.launches)
        return Emitted(
            language="llvm",
            source=self.text(),
            launches=tuple(self.launches),
            workspaces=tuple(self.workspaces),
            derived={**derived, "tasks": tasks[0] if len(tasks) == 1 else tasks},
        )


def extents(problem: Func) -> dict[str, int]:
    """The extents of all dims of the problem's anchor; they must be integers."""
    domain = problem.anchor.domain
    return {name: domain.int_extent(name) for name in domain.names}


def refuse_symbols(problem: Func) -> str | None:
    """The sentence why a problem whose extents are arguments cannot be done, or None."""
    return "extents are arguments, and it takes numbers only" if problem.symbols else None


def operand_addresses(
    problem: Func, replaced: Mapping[int, tuple[TensorType, IndexMap]] | None = None
) -> list[Address]:
    """The address of each operand of the anchor; `replaced`: type and map of those that arrive packed."""
    anchor = problem.anchor
    out: list[Address] = []
    for i, (value, access) in enumerate(zip(anchor.operands, anchor.maps, strict=True)):
        type, access = (replaced or {}).get(i, (value.type, access))
        assert isinstance(type, TensorType)
        out.append(Address.of(type, access, anchor.domain.ranges))
    return out


def result_addresses(problem: Func) -> list[Address]:
    """The address of each result of the anchor."""
    anchor = problem.anchor
    out: list[Address] = []
    for value, access in zip(anchor.results, anchor.out_maps, strict=True):
        assert isinstance(value.type, TensorType)
        out.append(Address.of(value.type, access, anchor.domain.ranges))
    return out
