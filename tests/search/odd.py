# SPDX-License-Identifier: Apache-2.0
"""A template whose kernels misbehave in every way that the search must survive, and a problem for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from tcc.codegen import template as registry
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, load_templates
from tcc.compiler import emitted
from tcc.compiler.search.choose import Problem
from tcc.compiler.search.enumerate import enumerate_problem
from tcc.compiler.targets import host_cpu
from tcc.ir import arith
from tcc.ir.attributes import Domain
from tcc.ir.kernel import Func, Map
from tcc.ir.kernel.build import dense, func, identity_map, scalar_region
from tcc.ir.kernel.problem import problem_key
from tcc.ir.module import ModuleOp, module
from tcc.ir.targets import Target
from tcc.ir.types import F32

ROWS, COLUMNS = 32, 256
_CALL = '  call void @"INNER"(ptr %args, i64 %first, i64 %last)'
_OUT = "  %slot = getelementptr i64, ptr %args, i64 1\n  %out = load ptr, ptr %slot"
# What the wrapper does around a call of the plain kernel.
_BODIES = {
    "wrong": f"{_CALL}\n{_OUT}\n  store float 0.0, ptr %out\n  ret void",
    "outside": f"{_CALL}\n{_OUT}\n  %far = getelementptr float, ptr %out, i64 {ROWS * COLUMNS + 2}\n"
    "  store float 0.0, ptr %far\n  ret void",
    "fickle": f"{_CALL}\n{_OUT}\n  %n = load i32, ptr @state\n  %m = add i32 %n, 1\n  store i32 %m, ptr @state\n"
    "  %x = load float, ptr %out\n  %b = bitcast float %x to i32\n  %c = add i32 %b, %m\n"
    "  %y = bitcast i32 %c to float\n  store float %y, ptr %out\n  ret void",
    "unwritten": "  ret void",
    "crash": "  call void @llvm.trap()\n  unreachable",
    "hang": "  br label %loop\nloop:\n  store volatile i32 1, ptr @state\n  br label %loop",
    "broken": "  this is no IR",
}


class Odd(Template):
    """`mode` a and b are right, and as slow as `times` says; every other mode goes wrong in its way."""

    name = "llvm.odd"
    kind = "cpu"
    matches = (Map,)
    space = Space(mode=["a", "b", "raises", *_BODIES], level=[0, 1])
    legal = (Constraint("level", lambda c, p, t: (c["level"] == 0) | (c["mode"] == "a"), "only a has a second level"),)
    times = {"a": 1, "b": 1}
    costs = {"a": 1e-6, "b": 2e-6}

    def default(self, problem: Func, target: Target) -> Config | None:
        return {"mode": "a", "level": 0}

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        return np.array([self.costs.get(str(m), 3e-6) for m in configs["mode"]]) + 1e-7 * configs["level"]

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        mode = config["mode"]
        if mode == "raises":
            raise KeyError("a mistake in a template")
        naive = registry.TEMPLATES["llvm.naive"].emit(problem, {"chunk": 4096}, target)
        (launch,) = naive.launches
        entry, inner = entry_name(problem, self.name, config), f"{launch.entry}_inner"
        plain = naive.source.replace(f'define void @"{launch.entry}"', f'define internal void @"{inner}"')
        body = _BODIES.get(mode)
        if body is None:
            body = (
                f"  br label %loop\nloop:\n  %i = phi i64 [0, %entry], [%next, %loop]\n{_CALL}\n"
                f"  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, {self.times[mode]}\n"
                "  br i1 %more, label %loop, label %done\ndone:\n  ret void"
            )
        source = (
            f"{plain.replace('nounwind', 'noinline nounwind', 1)}\n@state = internal global i32 0\n"
            f"declare void @llvm.trap()\n"
            f'define void @"{entry}"(ptr %args, i64 %first, i64 %last) {{\nentry:\n'
            f"{body.replace('INNER', inner)}\n}}\n"
        )
        return replace(naive, source=source, launches=(replace(launch, entry=entry),))


_serial = itertools.count()


@contextmanager
def registered(a: int = 1, b: int = 1) -> Iterator[type[Odd]]:
    """The template, registered while the block runs; its kernels a and b take so many times as long. Its source hash is
    new every time, as if somebody had edited its file."""
    load_templates("cpu")
    stamp = f"odd{next(_serial):013d}"

    class Stamped(Odd):
        times = {"a": a, "b": b}

        @classmethod
        def source_hash(cls) -> str:
            return stamp

    registry.template(Stamped)
    load_templates.cache_clear()
    emitted._CACHE.clear()  # pyright: ignore[reportPrivateUsage]
    try:
        yield Stamped
    finally:
        del registry.TEMPLATES[Odd.name]
        load_templates.cache_clear()
        emitted._CACHE.clear()  # pyright: ignore[reportPrivateUsage]


def doubling() -> Func:
    """y = x + x over a matrix."""
    d = Domain((("i", ROWS), ("j", COLUMNS)))
    t = dense((ROWS, COLUMNS), F32)
    return func(
        "k0",
        [t],
        lambda args: Map(
            args,
            domain=d,
            maps=(identity_map(d),),
            out_maps=(identity_map(d),),
            regions=[scalar_region([F32], lambda b, a: b(arith.Add(a[0], a[0])))],
            result_types=[t],
        ),
    )


def problem_of(f: Func, modes: Sequence[str] | None = None) -> Problem:
    """The problem with the candidates of the odd template alone, of these modes."""
    p = Problem(problem_key(f), f, [f.sym_name], ("node",), 1, enumerate_problem(f, host_cpu()))
    (space,) = (s for s in p.listing.spaces if s.template.name == Odd.name)
    if modes is not None:
        keep = np.isin(space.columns["mode"], list(modes))
        space.columns = {k: v[keep] for k, v in space.columns.items()}
        space.costs = space.costs[keep]
    p.listing.spaces = [space]
    return p


def module_of(f: Func) -> ModuleOp:
    """A module with one kernel."""
    m = module("cpu")
    m.block.append(f)
    return m
