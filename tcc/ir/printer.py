# SPDX-License-Identifier: Apache-2.0
"""IR to text: tcc's own uniform syntax, and MLIR's generic form (`generic=True`).

Own:     `%0 = graph.relu(%x) {k = 1} : (tensor<4xf32>) -> tensor<4xf32> loc("Relu_3")`
Generic: `%0 = "graph.relu"(%x) {k = 1 : i64} : (tensor<4xf32>) -> tensor<4xf32> loc(fused["Relu_3"])`
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any, cast

from tcc.ir.attributes import Attribute, Domain, IndexMap, Resource
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.expr import Expr, to_text
from tcc.ir.types import DType, ScalarType, Type

_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*\Z")
_HINT = re.compile(r"[^A-Za-z0-9_]")


def quote(text: str) -> str:
    """A double-quoted string with the escapes of MLIR (two hex digits for bytes outside printable ASCII)."""
    out: list[str] = []
    for byte in text.encode("utf-8", "surrogateescape"):
        c = chr(byte)
        if c in '"\\':
            out.append("\\" + c)
        elif 0x20 <= byte < 0x7F:
            out.append(c)
        else:
            out.append(f"\\{byte:02X}")
    return '"' + "".join(out) + '"'


def print_float(value: float, generic: bool) -> str:
    """A float that reads back to the same bits; infinities and NaN as their f64 bits in hex."""
    if math.isfinite(value):
        text = repr(value)
        if "e" in text:
            mantissa, exponent = text.split("e")
            text = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"
    else:
        text = f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    return f"{text} : f64" if generic or not math.isfinite(value) else text


def print_attr(value: Attribute, generic: bool = False) -> str:
    """The text of an attribute value."""
    if value is None:
        return "unit" if generic else "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value} : i64" if generic else str(value)
    if isinstance(value, float):
        return print_float(value, generic)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, ScalarType):
        return f'#tcc.scalar<"{value}">' if generic else f"scalar<{value}>"
    if isinstance(value, DType | Type):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(print_attr(v, generic) for v in cast("tuple[Any, ...]", value)) + "]"
    if isinstance(value, dict):
        return print_dict(cast("dict[str, Any]", value), generic)
    word, text = _special(value)
    return f"#tcc.{word}<{quote(text)}>" if generic else f"{word}<{text}>"


def _special(value: Attribute) -> tuple[str, str]:
    if isinstance(value, IndexMap):
        return "map", value.text()
    if isinstance(value, Domain):
        return "domain", value.text()
    if isinstance(value, Resource):
        return "resource", value.text()
    if isinstance(value, Expr):
        return "expr", to_text(value)
    raise TypeError(f"{type(value).__name__} is not an attribute")


def print_dict(entries: dict[str, Any], generic: bool = False) -> str:
    """`{key = value, …}` in the dict's order."""
    shown = [f"{k if _IDENT.match(k) else quote(k)} = {print_attr(v, generic)}" for k, v in entries.items()]
    return "{" + ", ".join(shown) + "}"


class Printer:
    """Prints ops, numbering values as it meets them."""

    def __init__(self, generic: bool = False, locations: bool = True) -> None:
        self.generic = generic
        self.locations = locations
        self.names: dict[Value, str] = {}
        self._used: set[str] = set()
        self._next = 0
        self._lines: list[str] = []

    def name(self, value: Value) -> str:
        """`%name`: the hint where it is free, else a number."""
        known = self.names.get(value)
        if known is not None:
            return known
        hint = _HINT.sub("_", value.hint) if value.hint else ""
        if hint and not hint[0].isdigit() and hint not in self._used:
            text = hint
        else:
            while str(self._next) in self._used:
                self._next += 1
            text = str(self._next)
            self._next += 1
        self._used.add(text)
        self.names[value] = "%" + text
        return "%" + text

    def attributes(self, op: Op) -> dict[str, Any]:
        """What is printed: attributes that differ from their default, in declaration order, then the undeclared ones;
        and the operand segments where needed."""
        declared = op.spec.attrs
        out: dict[str, Any] = {}
        for k, attr in declared.items():
            if k in op.attrs and (attr.required or not _same(op.attrs[k], attr.default)):
                out[k] = op.attrs[k]
        out.update((k, v) for k, v in op.attrs.items() if k not in declared)
        if op.spec.needs_segments:
            out["operandSegmentSizes"] = op.segments
        return out

    def op(self, op: Op, indent: int = 0) -> None:
        pad = "  " * indent
        head = ", ".join(self.name(r) for r in op.results)
        args = ", ".join(self.name(v) for v in op.operands)
        name = f'"{op.name}"' if self.generic else op.name
        line = f"{pad}{head + ' = ' if head else ''}{name}({args})"
        attrs = self.attributes(op)
        if self.generic:
            line = self._regions(line, op, indent)
            line += f" {print_dict(attrs, True)}" if attrs else ""
        else:
            line += f" {print_dict(attrs)}" if attrs else ""
            line = self._regions(line, op, indent)
        ins = ", ".join(str(v.type) for v in op.operands)
        outs = ", ".join(str(r.type) for r in op.results)
        line += f" : ({ins}) -> {outs if len(op.results) == 1 else f'({outs})'}"
        if self.locations and op.loc:
            names = ", ".join(quote(n) for n in op.loc)
            line += f" loc(fused[{names}])" if self.generic else f" loc({names})"
        self._lines.append(line)

    def _regions(self, line: str, op: Op, indent: int) -> str:
        if not op.regions:
            return line
        # Names inside an isolated op are its own: what is printed before it does not change how it prints.
        kept = (set(self._used), self._next) if getattr(type(op), "isolated", False) else None
        line += " ("
        for i, r in enumerate(op.regions):
            line += ("" if i == 0 else ", ") + "{"
            self._lines.append(line)
            self._region(r, indent)
            line = "  " * indent + "}"
        if kept is not None:
            self._used, self._next = kept
        return line + ")"

    def _region(self, region: Region, indent: int) -> None:
        for i, block in enumerate(region.blocks):
            self._block(block, i, indent)

    def _block(self, block: Block, number: int, indent: int) -> None:
        args = ", ".join(f"{self.name(a)}: {a.type}" for a in block.args)
        label = f"^bb{number}"
        self._lines.append(f"{'  ' * indent}{label}{f'({args})' if args else ''}:")
        for op in block.ops:
            self.op(op, indent + 1)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and type(a) is type(b) and repr(a) == repr(b)


def print_op(op: Op, generic: bool = False, locations: bool = True) -> str:
    """The text of an op and everything inside it, ending in a newline."""
    p = Printer(generic, locations)
    p.op(op)
    return p.text()
