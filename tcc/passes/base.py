# SPDX-License-Identifier: Apache-2.0
"""What a pass is, and the registry of passes.

    @register_pass
    @dataclass(frozen=True)
    class DropIdentity(Pass):
        '''Replaces an identity by its operand.

        before: `%1 = graph.identity(%0)`, `%2 = graph.relu(%1)`; after: `%2 = graph.relu(%0)`.
        '''

        name = "drop-identity"
        max_ops: int = 16  # the option `max-ops`

        def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None: ...

The file lies in `tcc/passes/graph`, `lower` or `kernel`; every module there is imported when a pass is looked up, so
nothing else is edited.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tcc.errors import InputError
from tcc.ir.module import ModuleOp
from tcc.ir.resources import ResourceStore
from tcc.ir.rewriter import Decisions, Rewriter

FOLDERS = ("graph", "lower", "kernel")
"""The packages of `tcc.passes` that hold passes."""


@dataclass
class PassContext:
    """What passes may ask beside the module.

    `target` describes the hardware (None where the pipeline does not depend on it); `opt_level` is 0..3; `options` are
    the compile options; `decisions` gathers remarks, choices, aliases and tactics of the whole run.
    """

    target: Any = None
    opt_level: int = 1
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    decisions: Decisions = field(default_factory=Decisions)
    resources: ResourceStore = field(default_factory=ResourceStore)


@dataclass(frozen=True)
class Pass:
    """Base of passes: a frozen dataclass whose fields are its options (bool, int, float, str, `Literal` words, or
    tuples of one of them; each with a default) and whose docstring shows before → after."""

    name: ClassVar[str] = ""

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        """Change the module through the rewriter; leave a remark with the reason for each match declined."""
        raise NotImplementedError(f"the pass {self.name} has no run method")


@dataclass(frozen=True)
class PassOption:
    """An option of a pass: its kebab-case name, the dataclass field, its element type and default.

    `many` says the value is a tuple; `words` are the values allowed where the field is a `Literal`.
    """

    name: str
    field: str
    type: type
    many: bool
    optional: bool
    words: tuple[str, ...]
    default: Any

    @property
    def type_name(self) -> str:
        """How help texts and messages call the type: `int`, `list of str`, `a|b`."""
        word = "|".join(self.words) if self.words else self.type.__name__
        return f"list of {word}" if self.many else word


PASSES: dict[str, type[Pass]] = {}
"""Every registered pass by name; `load_passes` fills it."""

PassClass = TypeVar("PassClass", bound=type[Pass])
_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


def register_pass(cls: PassClass) -> PassClass:
    """Class decorator, outermost: make a pass known by its `name`; TypeError or ValueError if it is no proper one."""
    if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # pyright: ignore
        raise TypeError(f"{cls.__name__} is not a frozen dataclass")
    if not _KEBAB.match(cls.name):
        raise ValueError(f"{cls.__name__} has no kebab-case name: {cls.name!r}")
    if not cls.__doc__ or cls.__doc__.startswith(f"{cls.__name__}("):
        raise ValueError(f"the pass {cls.name} has no docstring that shows before and after")
    known = PASSES.get(cls.name)
    if known is not None and known.__module__ != cls.__module__:
        raise ValueError(f"two passes are named {cls.name}: in {known.__module__} and in {cls.__module__}")
    pass_options(cls)
    PASSES[cls.name] = cls
    return cls


def pass_options(cls: type[Pass]) -> dict[str, PassOption]:
    """The options of a pass by kebab-case name, in field order."""
    hints = get_type_hints(cls)
    out: dict[str, PassOption] = {}
    for f in dataclasses.fields(cls):
        if f.default is not dataclasses.MISSING:
            default = f.default
        elif f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        else:
            raise TypeError(f"the option {f.name} of {cls.__name__} needs a default")
        name = f.name.replace("_", "-")
        out[name] = _option(name, f.name, hints[f.name], default, cls)
    return out


def _option(name: str, attr: str, hint: Any, default: Any, cls: type[Pass]) -> PassOption:
    many = optional = False
    if get_origin(hint) in (Union, UnionType):
        optional = type(None) in get_args(hint)
        hint = next(a for a in get_args(hint) if a is not type(None))
    if get_origin(hint) is tuple:
        many, hint = True, get_args(hint)[0]
    words: tuple[str, ...] = ()
    if get_origin(hint) is Literal:
        words, hint = get_args(hint), str
    if hint not in (bool, int, float, str):
        raise TypeError(f"the option {attr} of {cls.__name__} has the type {hint}; use bool, int, float, str or tuples")
    return PassOption(name, attr, hint, many, optional, words, default)


_loaded = False


def load_passes() -> dict[str, type[Pass]]:
    """`PASSES` after importing every module of the pass packages (once a process)."""
    global _loaded
    if not _loaded:
        for folder in FOLDERS:
            package = importlib.import_module(f"tcc.passes.{folder}")
            for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                importlib.import_module(found.name)
        _loaded = True
    return PASSES


def lookup(name: str) -> type[Pass]:
    """The pass of that name; InputError that names near ones if there is none."""
    passes = load_passes()
    found = passes.get(name)
    if found is None:
        raise InputError(
            f"there is no pass {name}{did_you_mean(name, passes)}; `tcc-opt --list-passes` lists the {len(passes)}"
        )
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean a or b?)`, or nothing if no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
