# SPDX-License-Identifier: Apache-2.0
"""Text to IR: the inverse of `tcc.ir.printer`, for tcc's own form and for the generic one.

The text is read into a tree by the grammar `ir.lark`; ops are then built from the declared fields of their classes.
Every error is an IRError that begins with `file:line:column`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from tcc.ir.attributes import Attribute
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.declare import OPS, IRError
from tcc.ir.dialects import load_all
from tcc.ir.module import ModuleOp
from tcc.ir.parser_text import (
    error_offset,
    expected,
    found,
    grammar_text,
    named_dtype,
    parse_dense,
    parse_special,
    parse_tensor_type,
)
from tcc.ir.resources import ResourceStore
from tcc.ir.types import STRING, MapType, OptionalType, ScalarType, SequenceType, Type

_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


def unquote(text: str) -> str:
    """The string that a quoted one means: the inverse of `printer.quote`."""
    inner = text[1:-1]
    if "\\" not in inner:
        return inner

    def escape(match: re.Match[bytes]) -> bytes:
        what = match[1]
        return bytes.fromhex(what.decode()) if len(what) == 2 else _LETTERS.get(what, what)

    raw = _ESCAPE.sub(escape, inner.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


@dataclass(slots=True)
class _Op:
    """An op as read: `name` is the token, which knows its place."""

    results: list[Any]
    name: Any
    operands: list[Any]
    attrs: dict[str, Attribute]
    regions: list[_Region]
    ins: list[Type]
    outs: list[Type]
    loc: tuple[str, ...]


@dataclass(slots=True)
class _Block:
    label: Any
    args: list[tuple[Any, Type]]
    ops: list[_Op]


@dataclass(slots=True)
class _Region:
    blocks: list[_Block]


class _At(Exception):
    """A message and the token it is about."""

    def __init__(self, token: Any, message: str) -> None:
        super().__init__(message)
        self.token = token


@cache
def _parser() -> Any:
    from lark import Lark

    return Lark(grammar_text(), parser="lalr", start="module", transformer=_transformer())


def _transformer() -> Any:
    from lark import Transformer

    def at(token: Any, build: Any, *args: Any) -> Any:
        try:
            return build(*args)
        except IRError as e:
            raise _At(token, str(e)) from None

    class Tag(list[Any]):
        """Children of a rule, told apart from others by the rule's name."""

        def __init__(self, rule: str, items: Sequence[Any]) -> None:
            super().__init__(items)
            self.rule = rule

    class Build(Transformer[Any, Any]):
        """Lark's callbacks: one method a rule, given the children's values."""

        def module(self, c: list[Any]) -> list[_Op]:
            return c

        def results(self, c: list[Any]) -> Tag:
            return Tag("results", c)

        def name(self, c: list[Any]) -> Any:
            token = c[0]
            return token.update(value=unquote(token)) if token[0] == '"' else token

        def operands(self, c: list[Any]) -> Tag:
            return Tag("operands", c)

        def types(self, c: list[Any]) -> Tag:
            return Tag("types", c)

        def regions(self, c: list[Any]) -> Tag:
            return Tag("regions", c)

        def outs(self, c: list[Any]) -> Tag:
            return Tag("outs", c[0] if c and isinstance(c[0], Tag) else c)

        def loc(self, c: list[Any]) -> Tag:
            return Tag("loc", c[0])

        def strings(self, c: list[Any]) -> list[str]:
            return [unquote(s) for s in c]

        def op(self, c: list[Any]) -> _Op:
            out = _Op([], None, [], {}, [], [], [], ())
            for item in c:
                if isinstance(item, Tag):
                    if item.rule == "results":
                        out.results = item
                    elif item.rule == "operands":
                        out.operands = item
                    elif item.rule == "types":
                        out.ins = item
                    elif item.rule == "outs":
                        out.outs = item
                    elif item.rule == "regions":
                        out.regions = item
                    else:
                        out.loc = tuple(item)
                elif isinstance(item, dict):
                    out.attrs = item
                else:
                    out.name = item
            return out

        def region(self, c: list[Any]) -> _Region:
            blocks: list[_Block] = []
            for item in c:
                if isinstance(item, _Block):
                    blocks.append(item)
                else:
                    if not blocks:
                        blocks.append(_Block(None, [], []))
                    blocks[0].ops.append(item)
            return _Region(blocks)

        def block(self, c: list[Any]) -> _Block:
            args = cast("list[tuple[Any, Type]]", [x for x in c[1:] if isinstance(x, tuple)])
            return _Block(c[0], args, [x for x in c[1:] if isinstance(x, _Op)])

        def argument(self, c: list[Any]) -> tuple[Any, Type]:
            return c[0], c[1]

        def type_token(self, c: list[Any]) -> Type:
            return at(c[0], parse_tensor_type, str(c[0]))

        def type_scalar(self, c: list[Any]) -> Type:
            return ScalarType(at(c[0], named_dtype, str(c[0])))

        def type_string(self, c: list[Any]) -> Type:
            return ScalarType(STRING)

        def type_sequence(self, c: list[Any]) -> Type:
            return SequenceType(c[0], None if c[1] is None else int(c[1]))

        def type_optional(self, c: list[Any]) -> Type:
            return OptionalType(c[0], None if c[1] is None else int(c[1]))

        def type_map(self, c: list[Any]) -> Type:
            key, value = c
            if not isinstance(key, ScalarType) or not isinstance(value, ScalarType):
                raise IRError(f"a map is of two element types, not {key} and {value}")
            return MapType(key, value)

        def dict(self, c: list[Any]) -> dict[str, Attribute]:
            out: dict[str, Attribute] = {}
            for key, value in c:
                if key in out:
                    raise _At(key, f"the attribute {key} is given twice")
                out[key] = value
            return {str(k): v for k, v in out.items()}

        def entry(self, c: list[Any]) -> tuple[Any, Attribute]:
            return c[0], c[1]

        def key(self, c: list[Any]) -> Any:
            return c[0].update(value=unquote(c[0])) if c[0][0] == '"' else c[0]

        def value(self, c: list[Any]) -> Attribute:
            return c[0]

        def int(self, c: list[Any]) -> Attribute:
            return int(c[0])

        def float(self, c: list[Any]) -> Attribute:
            return float(c[0])

        def float_bits(self, c: list[Any]) -> Attribute:
            return struct.unpack("<d", struct.pack("<Q", int(c[0], 16)))[0]

        def string(self, c: list[Any]) -> Attribute:
            return unquote(c[0])

        def word(self, c: list[Any]) -> Attribute:
            text = str(c[0])
            if text in ("true", "false"):
                return text == "true"
            if text in ("none", "unit"):
                return None
            return at(c[0], named_dtype, text)

        def special(self, c: list[Any]) -> Attribute:
            kind, _, text = str(c[0]).partition("<")
            return at(c[0], parse_special, kind, text[:-1])

        def dense(self, c: list[Any]) -> Attribute:
            return at(c[0], parse_dense, str(c[0])[6:-1])

        def generic_special(self, c: list[Any]) -> Attribute:
            return at(c[0], parse_special, str(c[0]), unquote(c[1]))

        def array(self, c: list[Any]) -> Attribute:
            return tuple(c)

        def dtype_string(self, c: list[Any]) -> Attribute:
            return STRING

        def scalar(self, c: list[Any]) -> Attribute:
            return c[0]

    return Build()


Scope = dict[str, Value]


class _Builder:
    """Builds ops from the tree; scopes map names to values, innermost last."""

    def __init__(self, scope: Scope, store: ResourceStore) -> None:
        self.scopes: list[Scope] = [scope]
        self.store = store

    def lookup(self, token: Any) -> Value:
        for scope in reversed(self.scopes):
            value = scope.get(token)
            if value is not None:
                return value
        raise _At(token, f"the value {token} is not defined before this use, or not visible in this region")

    def define(self, token: Any, value: Value) -> None:
        if token in self.scopes[-1]:
            raise _At(token, f"the value {token} is defined twice")
        self.scopes[-1][token] = value
        hint = str(token)[1:]
        value.hint = None if hint.isdigit() else hint

    def op(self, node: _Op) -> Op:
        name = str(node.name)
        cls = OPS.get(name)
        if cls is None:
            raise _At(node.name, f"there is no op {name}{_near(name)}")
        operands = [self.lookup(token) for token in node.operands]
        if len(node.ins) != len(operands):
            raise _At(node.name, f"{name} has {len(operands)} operands and {len(node.ins)} operand types")
        for token, value, type in zip(node.operands, operands, node.ins, strict=True):
            if value.type is not type and value.type != type:
                raise _At(token, f"{token} is a {value.type}, but {name} names it a {type}")
        if node.results and len(node.results) != len(node.outs):
            raise _At(node.name, f"{name} has {len(node.results)} result names and {len(node.outs)} result types")
        attrs = {k: self.store.add(v) if isinstance(v, np.ndarray) else v for k, v in node.attrs.items()}
        try:
            if cls.spec.needs_segments:
                segments = _segments(name, attrs.pop("operandSegmentSizes", None), len(operands))
            else:
                segments = cls.spec.derive_segments(name, len(operands))
            checked = cls.spec.check_attrs(name, attrs)
        except IRError as e:
            raise _At(node.name, str(e)) from None
        regions = self.regions(node, getattr(cls, "isolated", False))
        op = cls.create(operands, segments, regions, checked, node.outs, node.loc)
        for token, result in zip(node.results, op.results, strict=False):
            self.define(token, result)
        return op

    def regions(self, node: _Op, isolated: bool) -> list[Region]:
        if not node.regions:
            return []
        outer = self.scopes
        if isolated:
            self.scopes = []
        out: list[Region] = []
        for tree in node.regions:
            self.scopes.append({})
            out.append(self.region(tree))
            self.scopes.pop()
        self.scopes = outer
        return out

    def region(self, tree: _Region) -> Region:
        region = Region()
        labels: set[str] = set()
        for node in tree.blocks:
            if node.label is not None and node.label in labels:
                raise _At(node.label, f"the block {node.label} is defined twice")
            labels.add(str(node.label))
            block = region.add_block(Block([type for _, type in node.args]))
            for (token, _), arg in zip(node.args, block.args, strict=True):
                self.define(token, arg)
        for node, block in zip(tree.blocks, region.blocks, strict=True):
            for op in node.ops:
                block.insert_before(self.op(op), None)
        return region


def _segments(name: str, given: Attribute, count: int) -> tuple[int, ...]:
    sizes = cast("tuple[Any, ...]", given) if isinstance(given, tuple) else ()
    if not sizes or not all(isinstance(s, int) and s >= 0 for s in sizes) or sum(sizes) != count:
        raise IRError(f"{name} needs operandSegmentSizes, one count for each operand field, {count} in all")
    return sizes


def _near(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, OPS, n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _read(text: str, source: str) -> list[_Op]:
    import lark

    parser = _parser()
    try:
        return parser.parse(text)
    except lark.exceptions.UnexpectedInput as e:
        at = error_offset(e, len(text.rstrip()))
        raise IRError(f"{_place(source, text, at)}: found {found(text, at)}, expected {expected(parser, e)}") from None
    except _At as e:
        raise IRError(f"{_place(source, text, e.token.start_pos)}: {e}") from None


def _place(source: str, text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f"{source}:{line}:{at - (text.rfind(chr(10), 0, at) + 1) + 1}"


def _build(text: str, source: str, scope: Scope, store: ResourceStore) -> list[Op]:
    load_all()
    tree = _read(text, source)
    builder = _Builder(scope, store)
    try:
        return [builder.op(node) for node in tree]
    except _At as e:
        raise IRError(f"{_place(source, text, e.token.start_pos)}: {e}") from None


def parse(text: str, source: str = "<text>", resources: ResourceStore | None = None) -> ModuleOp:
    """The module of a text; ops without a module around them get one. Not verified: call `verify`.

    `source` names the text in messages; `resources` becomes the module's store of constants. IRError begins with
    `source:line:column` and says what was found and what was expected.
    """
    store = ResourceStore() if resources is None else resources
    ops = _build(text, source, {}, store)
    if len(ops) == 1 and isinstance(ops[0], ModuleOp):
        module = ops[0]
    else:
        block = Block()
        for op in ops:
            if isinstance(op, ModuleOp):
                raise IRError(f"{source}: a module is not the only op of the text")
            block.append(op)
        module = ModuleOp(regions=[Region(block)], result_types=[])
    module.resources = store
    return module


def parse_block(
    text: str,
    args: Mapping[str, Type] | None = None,
    source: str = "<text>",
    resources: ResourceStore | None = None,
) -> Block:
    """A detached block with the ops of a text; `args` are its arguments, usable in the text as `%name`."""
    store = ResourceStore() if resources is None else resources
    names = dict(args or {})
    block = Block(list(names.values()), list(names))
    for op in _build(text, source, {f"%{arg.hint}": arg for arg in block.args}, store):
        block.append(op)
    return block


def parse_op(text: str, args: Mapping[str, Type] | None = None, source: str = "<text>") -> Op:
    """The one op of a text, in a block with the arguments `args`; IRError if there is not exactly one."""
    block = parse_block(text, args, source)
    if block.first is None or block.first is not block.last:
        raise IRError(f"{source}: the text holds {sum(1 for _ in block.ops)} ops, not one")
    return block.first
