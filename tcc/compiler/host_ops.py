# SPDX-License-Identifier: Apache-2.0
"""Writes the list of host ops, `spec/host-ops.md`: `python -m tcc.compiler.host_ops [--check] [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from tcc.compiler.frontend.host import host_function
from tcc.compiler.frontend.registry import handlers
from tcc.ir.files import write_file
from tcc.ir.graph.host_ops import COMPUTED, HOST_OPS, STRING_MOVES

PAGE = Path(__file__).resolve().parents[2] / "spec" / "host-ops.md"

HEAD = """\
# Host ops

Made by `python -m tcc.compiler.host_ops`; do not edit.

Operators without a kernel are calls of `tcc.reference` on the host, on every target the same ones. Each use is
reported when the model is compiled, with the node's name and the reason (`Engine.report`, and the remarks of `tcc`);
the values that a call takes and gives cross between the device and the host there. What can be resolved while
compiling is: a sequence whose length is known, for one, is no host op.
"""


def host_op_types() -> list[str]:
    """The operators that are host ops."""
    return sorted({op for ops, _ in HOST_OPS.values() for op in ops})


def deciding() -> list[str]:
    """Operators with kernels that ask for the content of an operand, and can be called on the host without it."""
    found = [op for (domain, op), h in handlers().items() if host_function(op, domain) and _asks(h, set())]
    return sorted(set(found) - set(host_op_types()))


def page() -> str:
    """The text of the page."""
    rows = sorted((op, function, reason) for function, (ops, reason) in HOST_OPS.items() for op in ops)
    lines = [HEAD, f"## The {len(host_op_types())} host ops", "", "| operator | function | reason |", "|---|---|---|"]
    lines += [f"| {op} | `{function}` | {reason} |" for op, function, reason in rows]
    lines += [
        "", "Beside them `sequence_items` takes the tensors out of an input that is a sequence of known length, and "
        "`refuse` stands in a branch that the shapes of the inputs do not allow: a call that takes it is an error.", "",
        "## Strings", "", "For tensors of strings, and only for them, these move and compare on the host too: "
        + ", ".join(sorted(STRING_MOVES.values())) + ", and what becomes these (Squeeze, Split, Flatten, …).", "",
        "## Operands that decide", "",
        "These have kernels. On the host they run only where " + COMPUTED + " (axes, sizes, pads, k, depth and the "
        "like; one that comes from an input of the model is read before the model is compiled for it): "
        + ", ".join(deciding()) + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _asks(function: Callable[..., Any], seen: set[Any]) -> bool:
    """Whether the code of a handler, or what it calls in its module, reads the content of an operand."""
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    for code in _codes(function.__code__):
        if {"const", "dims", "ints"} & set(code.co_names):
            return True
        called = [function.__globals__.get(name) for name in code.co_names]
        if any(
            _asks(f, seen) for f in called
            if isinstance(f, FunctionType) and f.__module__.startswith("tcc.compiler.frontend.ops")
        ):  # fmt: skip
            return True
    return False


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if --check finds another text than the one that would be written."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    check = "--check" in arguments
    files = [a for a in arguments if a != "--check"]
    path = Path(files[0]) if files else PAGE
    if not check:
        write_file(path, page().encode())
        return 0
    if path.exists() and path.read_text() == page():
        return 0
    print(f"{path} is not what the tables say; run python -m tcc.compiler.host_ops", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
