# SPDX-License-Identifier: Apache-2.0
"""What keeps a model from being imported: every problem at once, and which of them go away with shapes or values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tcc.errors import InputError

_LISTED = 200


class NeedsValue(InputError):
    """A value decides a shape or an attribute, and it is computed from these graph inputs alone."""

    def __init__(self, message: str, inputs: Sequence[str]) -> None:
        super().__init__(message)
        self.inputs = tuple(inputs)


class Unsupported(InputError):
    """What tcc does not take whatever the shapes are: an operator, an attribute's type, a name that nothing defines."""


@dataclass(frozen=True)
class Problem:
    """One sentence. `inputs`: graph inputs whose values would settle it. `open`: it may be settled by binding free
    dims, as an extent that the node sees has no number yet. `shapes`: other shapes may settle it."""

    text: str
    inputs: tuple[str, ...] = ()
    open: bool = False
    shapes: bool = field(default=False, compare=False)


class ImportFailure(InputError):
    """A model that cannot be imported, with all its problems in node order: one sentence where there is one problem,
    else a numbered report."""

    def __init__(self, problems: Iterable[Problem], way_out: str = "") -> None:
        self.problems = tuple(problems)
        self.way_out = way_out
        super().__init__(_report(self.problems, way_out))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Graph inputs whose values are needed, each once."""
        return tuple(dict.fromkeys(name for p in self.problems for name in p.inputs))

    @property
    def settled(self) -> tuple[Problem, ...]:
        """The problems that neither values nor shapes would make go away."""
        return tuple(p for p in self.problems if not p.inputs and not p.open)


def again(error: Exception, text: str) -> InputError:
    """An error of the same kind with a fuller sentence."""
    if isinstance(error, NeedsValue):
        return NeedsValue(text, error.inputs)
    return Unsupported(text) if isinstance(error, Unsupported) else InputError(text)


def problem_of(error: Exception, open: bool = False) -> Problem:
    """The problem that an error stands for."""
    inputs = error.inputs if isinstance(error, NeedsValue) else ()
    shapes = not isinstance(error, Unsupported | NeedsValue)
    return Problem(str(error), inputs, open and not isinstance(error, Unsupported), shapes)


def _report(problems: Sequence[Problem], way_out: str) -> str:
    tail = f"; {way_out}" if way_out else ""
    if len(problems) == 1:
        return f"{problems[0].text}{tail}"
    lines = [f"the model has {len(problems)} things that tcc cannot import{tail}:"]
    lines += [f"  {i}. {p.text}" for i, p in enumerate(problems[:_LISTED], 1)]
    if len(problems) > _LISTED:
        lines.append(f"  and {len(problems) - _LISTED} more")
    return "\n".join(lines)
