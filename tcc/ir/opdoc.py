# SPDX-License-Identifier: Apache-2.0
"""Writes the op reference, `spec/ops.md`, from the declarations: `python -m tcc.ir.opdoc [--check] [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

from tcc.ir.core import Op
from tcc.ir.declare import OPS
from tcc.ir.dialects import load_all
from tcc.ir.files import write_file
from tcc.ir.printer import print_attr

HEAD = """\
# The op reference

Made from the op declarations by `python -m tcc.ir.opdoc`; do not edit. [ir.md](ir.md) explains the text form.

How to read a signature: `%x` is one operand, `%x?` an optional one, `%x...` any number; `{name: kind = default}` are
the attributes, those without a default must be given; `(body)` are regions. Ops with more than one optional or
variadic operand field carry `operandSegmentSizes`, one count for each field.
"""

DIALECTS = {
    "builtin": "What holds a program.",
    "graph": "Tensors in SSA form, independent of hardware: ONNX made regular.",
    "kernel": "Kernels over named iteration domains, and the host function that launches them.",
    "arith": "Arithmetic, comparison, selection and casts on scalars, in the regions of kernels.",
    "math": "Elementary functions on scalars, in the regions of kernels.",
}


def signature(cls: type[Op]) -> str:
    """`%y = graph.softmax(%x) {axis: int = -1}`: every declared field of an op."""
    mark = {"one": "", "optional": "?", "variadic": "..."}
    spec = cls.spec
    ins = ", ".join(f"%{f.attr_name}{mark[f.kind]}" for f in spec.operands)
    outs = ", ".join(f"%{r.attr_name.rstrip('_')}{'...' if r.variadic else ''}" for r in spec.results)
    attrs = ", ".join(
        f"{name}: {a.kind.name}" + ("" if a.required else f" = {print_attr(a.default)}")
        for name, a in spec.attrs.items()
    )
    regions = ", ".join(f"{r.attr_name}{'...' if r.variadic else ''}" for r in spec.regions)
    text = f"{outs} = " if outs else ""
    text += f"{cls.name}({ins})"
    text += f" {{{attrs}}}" if attrs else ""
    return text + (f" ({regions})" if regions else "")


def traits(cls: type[Op]) -> Iterator[str]:
    """What is true of an op beside its fields, in words."""
    category = getattr(cls, "category", None)
    if category is not None:
        yield f"category `{category}`"
    if getattr(cls, "terminator", False):
        yield "ends its block"
    if getattr(cls, "isolated", False):
        yield "its regions see no values from outside"
    if getattr(cls, "terminated_by", None):
        yield f"its regions end in `{getattr(cls, 'terminated_by')}`"  # noqa: B009
    if not getattr(cls, "pure", True):
        yield "has effects"


def entry(cls: type[Op]) -> str:
    """The section of one op."""
    lines = [f"### {cls.name}", "", "```", *_wrap(signature(cls)), "```", ""]
    if cls.__doc__:
        lines += [cleandoc(cls.__doc__), ""]
    said = list(traits(cls))
    if said:
        lines += [f"*{'; '.join(said)}.*", ""]
    return "\n".join(lines)


def _wrap(text: str, width: int = 112) -> list[str]:
    """A signature in lines, broken after commas."""
    lines: list[str] = []
    line = ""
    for piece in text.split(", "):
        if line and len(line) + 2 + len(piece) > width:
            lines.append(line + ",")
            line = "    " + piece
        else:
            line = f"{line}, {piece}" if line else piece
    return [*lines, line]


def reference() -> str:
    """The whole page."""
    load_all()
    declared: dict[str, list[type[Op]]] = {name: [] for name in DIALECTS}
    for name, cls in OPS.items():
        if cls.__module__.startswith("tcc."):
            declared[name.split(".")[0]].append(cls)
    parts = [HEAD]
    for name, classes in declared.items():
        parts.append(f"## Dialect `{name}`\n\n{DIALECTS[name]}\n")
        parts += [entry(cls) for cls in sorted(classes, key=lambda c: c.name)]
    return "\n".join(parts).rstrip() + "\n"


def main(argv: Sequence[str]) -> int:
    """Write the page, or with `--check` say whether the file is current."""
    files: list[Any] = [a for a in argv if a != "--check"]
    path = Path(files[0] if files else "spec/ops.md")
    text = reference()
    if "--check" not in argv:
        write_file(path, text)
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path} is not what the declarations say; run python -m tcc.ir.opdoc", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
