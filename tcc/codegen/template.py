# SPDX-License-Identifier: Apache-2.0
"""The contract between the tuner and everything that can turn a problem into code.

A template is a class with `matches` (anchor classes), `needs` (target features), a `space`, named constraints, a
default config, a cost model, packings of constants, and `emit`. The tuner sees only this; it is the same for CUDA, LLVM
and libraries. Importing a module of `tcc.codegen.cuda.templates` or `.llvm.templates` registers its templates.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numpy as np

from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.expr import Dim, substitute
from tcc.ir.kernel import Anchor, Func
from tcc.ir.kernel.problem import kernel_key
from tcc.ir.targets import Target
from tcc.ir.types import DType

Config = dict[str, Any]
"""One point of a space: parameter → int, str or bool."""
Columns = dict[str, np.ndarray[Any, Any]]
"""Many configs as columns of equal length."""


class Space:
    """The cartesian product of named parameters; the last one varies fastest."""

    def __init__(self, **parameters: Sequence[Any]) -> None:
        self.parameters: dict[str, list[Any]] = {k: list(v) for k, v in parameters.items()}

    def columns(self) -> Columns:
        """Every point, as columns."""
        places = np.indices([len(v) for v in self.parameters.values()])
        return {name: np.array(v)[at.ravel()] for (name, v), at in zip(self.parameters.items(), places, strict=True)}

    @property
    def size(self) -> int:
        return int(np.prod([len(v) for v in self.parameters.values()], dtype=np.int64))


@dataclass(frozen=True)
class Constraint:
    """A named rule of a space: `holds(columns, problem, target)` gives a boolean per config (or one for all); `reason`
    is the sentence shown for a config that it drops."""

    name: str
    holds: Callable[[Columns, Func, Target], Any]
    reason: str


@dataclass(frozen=True)
class BufferParam:
    """A kernel parameter: the address of a buffer. `buffer` counts operands, then results, then workspaces."""

    buffer: int
    offset: Dim = 0


@dataclass(frozen=True)
class ScalarParam:
    """A kernel parameter passed by value; `dtype` is i32, i64 or f32."""

    value: Dim | float
    dtype: str = "i32"


@dataclass(frozen=True)
class TensorMapParam:
    """A CUDA tensor map (cuTensorMapEncodeTiled), encoded when buffers are bound. Innermost dim first; `strides` in
    bytes, for all dims but the innermost."""

    buffer: int
    dtype: str
    dims: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    box: tuple[int, ...]
    swizzle: str = "none"
    element_strides: tuple[int, ...] = ()
    offset: Dim = 0


Param = BufferParam | ScalarParam | TensorMapParam


@dataclass(frozen=True)
class Launch:
    """One kernel launch as plain data. CUDA: grid, block, cluster, shared bytes. CPU: `tasks`, which workers share.

    `waves` (CPU): the tasks are done in so many equal waves, in order; no task of a wave begins before all of the wave
    before are done. `heavy` (CPU): a single task is long, so that several such launches are worth different workers.
    Every block of a `pdl` launch executes griddepcontrol.wait and touches only constants before it.
    """

    entry: str
    params: tuple[Param, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    grid: tuple[Dim, Dim, Dim] = (1, 1, 1)
    block: tuple[int, int, int] = (1, 1, 1)
    cluster: tuple[int, int, int] | None = None
    shared: int = 0
    tasks: Dim = 1
    waves: int = 1
    heavy: bool = False
    pdl: bool = False
    cooperative: bool = False

    def bound(self, env: Mapping[str, Dim]) -> Launch:
        """The launch with the kernel's symbols replaced by what they stand for."""

        def param(p: Param) -> Param:
            if isinstance(p, BufferParam):
                return replace(p, offset=substitute(p.offset, env))
            if isinstance(p, ScalarParam):
                return p if isinstance(p.value, float) else replace(p, value=substitute(p.value, env))
            dims, strides = (tuple(substitute(d, env) for d in ds) for ds in (p.dims, p.strides))
            return replace(p, offset=substitute(p.offset, env), dims=dims, strides=strides)

        if not env:
            return self
        x, y, z = (substitute(g, env) for g in self.grid)
        params = tuple(param(p) for p in self.params)
        return replace(self, params=params, grid=(x, y, z), tasks=substitute(self.tasks, env))


@dataclass(frozen=True)
class Workspace:
    """Scratch memory of one kernel call. `zeroed`: it must be zero before the first launch."""

    bytes: Dim
    zeroed: bool = False


@dataclass(frozen=True)
class Packing:
    """The layout a template wants a constant operand in: `packed[d…] = constant[map(d…)]` (`fill` where out of range)
    over `domain` (parallel dims only), rounded to `dtype`."""

    operand: int
    domain: Domain
    map: IndexMap
    dtype: DType

    @property
    def shape(self) -> tuple[Dim, ...]:
        return tuple(e for _, e in self.domain.parallel)


@dataclass(frozen=True)
class Emitted:
    """Source and launches of one kernel. `language`: "cuda" (one CUDA C++ translation unit), "llvm" (one textual
    module) or "library". `options`: compiler options beyond the target's (`arch`: e.g. sm_90a)."""

    language: str
    source: str
    launches: tuple[Launch, ...]
    workspaces: tuple[Workspace, ...] = ()
    derived: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Template:
    """Base of templates. Subclass, set the class variables, decorate with `@template`."""

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    matches: ClassVar[tuple[type[Anchor], ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset()
    space: ClassVar[Space] = Space()
    legal: ClassVar[Sequence[Constraint]] = ()

    def accepts(self, problem: Func, target: Target) -> str | None:
        """None if some config can do this problem, else the sentence why not. `matches` and `needs` are checked
        before."""
        return None

    def space_for(self, problem: Func, target: Target) -> Space:
        """The space for this problem; override where it depends on extents."""
        return self.space

    def default(self, problem: Func, target: Target) -> Config | None:
        """The no-search answer: legal, and never slow by a factor. None: leave it to another template."""
        raise NotImplementedError

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        """Estimated seconds per config: ranks, and decides only where nothing may be timed."""
        raise NotImplementedError

    def pack(self, problem: Func, config: Config, target: Target) -> Sequence[Packing]:
        """Packings of constant operands; `emit` then receives the packed buffer in the operand's place."""
        return ()

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        """Source, workspaces and launches. Entries are named with `entry_name`."""
        raise NotImplementedError

    # Derived.

    @classmethod
    def source_hash(cls) -> str:
        """sha256 of the files the template is made of: its module's folder's `.py` and `.cuh` (records carry it)."""
        return _folder_hash(str(Path(inspect.getfile(cls)).parent))

    def legal_columns(self, problem: Func, target: Target) -> tuple[Columns, list[tuple[str, int]]]:
        """(the legal configs, (reason, how many configs it dropped) for each constraint that dropped any)."""
        columns = self.space_for(problem, target).columns()
        count = len(next(iter(columns.values()))) if columns else 1
        if not columns:
            return {}, []
        keep = np.ones(count, bool)
        dropped: list[tuple[str, int]] = []
        for rule in self.legal:
            holds = np.broadcast_to(np.asarray(rule.holds(columns, problem, target), bool), (count,))
            gone = int((keep & ~holds).sum())
            if gone:
                dropped.append((rule.reason, gone))
            keep &= holds
        return {k: v[keep] for k, v in columns.items()}, dropped

    def why_illegal(self, problem: Func, config: Config, target: Target) -> str | None:
        """The sentence why a config (from a tactics file, say) is not legal here, or None."""
        parameters = self.space_for(problem, target).parameters
        if set(config) != set(parameters):
            return (
                f"{self.name} takes the parameters {', '.join(parameters) or 'none'}, not {', '.join(config) or 'none'}"
            )
        for key, value in config.items():
            if value not in parameters[key]:
                return f"{self.name}: {key} is one of {', '.join(map(str, parameters[key]))}, not {value}"
        columns = {k: np.array([v]) for k, v in config.items()}
        for rule in self.legal:
            if not np.all(rule.holds(columns, problem, target)):
                return f"{self.name}: {rule.reason}"
        return None


def rows_of(columns: Columns) -> list[Config]:
    """Columns as a list of configs of Python values; one empty config for no columns."""
    if not columns:
        return [{}]
    count = len(next(iter(columns.values())))
    return [{k: v[i].item() for k, v in columns.items()} for i in range(count)]


def entry_name(problem: Func, template: str, config: Config) -> str:
    """The native name of a kernel: `tcc_` and 24 hex digits of problem, literals, template and config."""
    scheduled = problem.clone()
    assert isinstance(scheduled, Func)
    scheduled.attrs.update(template=template, config=dict(config))
    return f"tcc_{kernel_key(scheduled)[:24]}"


TEMPLATES: dict[str, Template] = {}
TemplateClass = TypeVar("TemplateClass", bound=type[Template])


def template(cls: TemplateClass) -> TemplateClass:
    """Class decorator: register one instance under the template's name."""
    if cls.name in TEMPLATES:
        raise ValueError(f"the template {cls.name} is registered twice")
    TEMPLATES[cls.name] = cast(Template, cls())
    return cls


@cache
def load_templates(kind: str) -> tuple[Template, ...]:
    """All templates of "cpu" or "cuda", by name; imports every module of their package."""
    package = importlib.import_module({"cpu": "tcc.codegen.llvm.templates", "cuda": "tcc.codegen.cuda.templates"}[kind])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return tuple(t for _, t in sorted(TEMPLATES.items()) if t.kind == kind)


def candidates(problem: Func, target: Target) -> list[tuple[Template, str | None]]:
    """Every template of the target's kind that matches the problem's anchor, with why it is not usable (or None)."""
    anchors = problem.anchors()
    if len(anchors) != 1:
        return []
    out: list[tuple[Template, str | None]] = []
    for t in load_templates(target.kind):
        if not isinstance(anchors[0], t.matches):
            continue
        missing = t.needs - target.features
        out.append((t, f"{t.name} needs {', '.join(sorted(missing))}" if missing else t.accepts(problem, target)))
    return out


@cache
def _folder_hash(folder: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in (".py", ".cuh"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
