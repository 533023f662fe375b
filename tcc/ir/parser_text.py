# SPDX-License-Identifier: Apache-2.0
"""Text to the small immutable things: expressions, types, index maps, domains. Kept by their text: few recur often."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib import resources
from typing import Any, cast

import numpy as np

from tcc.ir.attributes import Attribute, Domain, IndexMap, Resource
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Sym, add, floordiv, maximum, minimum, mod, mul
from tcc.ir.resources import Array
from tcc.ir.types import STRING, DType, ScalarType, TensorType, dtype

STARTS = ["module", "type_text", "map_text", "domain_text", "expr_text"]

_SAID = {
    "VALUE": "a value (%name)",
    "LABEL": "a block label (^name)",
    "IDENT": "a word",
    "SYMBOL": "a symbol",
    "STRING": "a string",
    "INT": "an integer",
    "UINT": "an integer",
    "FLOAT": "a float",
    "UFLOAT": "a float",
    "HEX": "a hexadecimal float",
    "TENSOR": "a tensor type",
    "DENSE": "dense<…>",
    "SPECIAL": "map<…>, domain<…>, expr<…> or resource<…>",
    "STRINGTYPE": "!tcc.string",
    "ENC": "#tcc.enc",
    "SHAPE": "dims",
    "SIGN": "-",
    "$END": "the end",
}


@cache
def grammar_text() -> str:
    """The grammar file."""
    return (resources.files("tcc.ir") / "ir.lark").read_text(encoding="utf-8")


@cache
def small_parser() -> Any:
    """The lark parser of the `_text` start symbols."""
    from lark import Lark

    return Lark(grammar_text(), parser="lalr", start=STARTS[1:], transformer=_transformer())


def expected(parser: Any, error: Any) -> str:
    """What lark would have taken instead, in the words of the language reference."""
    exact: set[str] | None = getattr(error, "accepts", None)  # `expected` also has what merged states would take
    names: list[str] = sorted(exact or getattr(error, "expected", None) or error.allowed or ())
    patterns = {t.name: t.pattern for t in parser.terminals}
    said: list[str] = []
    for name in names:
        if name in _SAID:
            said.append(_SAID[name])
        elif name in patterns and patterns[name].type == "str":
            said.append(f"`{patterns[name].value}`")
    said = list(dict.fromkeys(said))
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def error_offset(error: Any, end: int) -> int:
    """Where lark stopped; `end` if it wanted more text."""
    token = getattr(error, "token", None)
    return end if token is not None and token.type == "$END" else int(error.pos_in_stream or 0)


def found(text: str, at: int) -> str:
    """The offending text at an offset: a token or so of it, quoted."""
    rest = text[at : at + 40].split("\n")[0].strip()
    return f"`{rest[:24]}`" if rest else ("the end of the line" if at < len(text.rstrip()) else "the end of the text")


def _parse(text: str, start: str, what: str) -> Any:
    import lark

    parser = small_parser()
    try:
        return parser.parse(text, start=start)
    except lark.exceptions.UnexpectedInput as e:
        at = error_offset(e, len(text))
        raise IRError(
            f"{what} `{text}` is not readable at character {at + 1}: found {found(text, at)}, "
            f"expected {expected(parser, e)}"
        ) from None


@lru_cache(maxsize=65536)
def parse_expr(text: str) -> Dim:
    """An integer expression over symbols, in normal form: `(n + 3) floordiv 4`. IRError if it is not one."""
    return _parse(text, "expr_text", "the expression")


@lru_cache(maxsize=65536)
def parse_tensor_type(text: str) -> TensorType:
    """`tensor<?x3xf32, #tcc.enc<"dims=[n] strides=[3, 1] align=16">>`. IRError if it is not one."""
    return _parse(text, "type_text", "the type")


@lru_cache(maxsize=65536)
def parse_map(text: str) -> IndexMap:
    """What `IndexMap.text` prints. IRError if it is not one."""
    return _parse(text, "map_text", "the index map")


@lru_cache(maxsize=65536)
def parse_domain(text: str) -> Domain:
    """What `Domain.text` prints. IRError if it is not one."""
    return _parse(text, "domain_text", "the domain")


def parse_special(kind: str, text: str) -> Attribute:
    """`kind<text>`: an index map, domain, expression or resource. IRError if it is not one."""
    if kind == "map":
        return parse_map(text)
    if kind == "domain":
        return parse_domain(text)
    if kind == "expr":
        return parse_expr(text)
    if kind == "resource":
        digest = text.strip()
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise IRError(f"a resource is named by 64 hex digits of a sha256, not `{text}`")
        return Resource(digest)
    if kind == "scalar":
        return ScalarType(named_dtype(text))
    raise IRError(f"there is no attribute {kind}<…>; there are map, domain, expr and resource")


def parse_dense(text: str) -> Array:
    """`2x3xf32: 1, 2, 3, 4, 5, 6`, one value for all elements (`64xf16: 0.5`), or `random SEED` (standard normal
    values): a constant written out, for people. It becomes a resource. IRError if it is not one."""
    shape_text, colon, values = text.partition(":")
    *dims, element = shape_text.strip().split("x")
    kind = named_dtype(element)
    if not colon or not all(d.isdecimal() for d in dims):
        raise IRError(f"dense<…> holds a static shape, a colon and values, like 2xf32: 1.0, 2.0; not `{text[:40]}`")
    shape = tuple(int(d) for d in dims)
    words = values.replace(",", " ").split()
    if len(words) == 2 and words[0] == "random" and words[1].isdecimal():
        return np.random.default_rng(int(words[1])).standard_normal(shape).astype(kind.numpy)
    count = math.prod(shape)
    if len(words) not in (1, count):
        raise IRError(f"dense<{shape_text}: …> needs {count} values or one, not {len(words)}")
    try:
        read = [_number(w, kind) for w in words]
    except ValueError as e:
        raise IRError(f"dense<…> holds what is no number: {e}") from None
    flat = np.array(read if len(read) == count else read * count, dtype=np.float64 if kind.is_float else np.int64)
    return flat.astype(kind.numpy).reshape(shape)


def _number(word: str, kind: DType) -> float | int:
    if word in ("true", "false"):
        return int(word == "true")
    return float(word) if kind.is_float else int(word)


def named_dtype(name: str) -> DType:
    """The element type of that name; IRError if there is none."""
    try:
        return dtype(name)
    except KeyError:
        raise IRError(f"there is no element type {name}; there are f32, f16, bf16, i64, i32, i8, ui8, i1, …") from None


def _transformer() -> Any:
    from lark import Transformer

    class Build(Transformer[Any, Any]):
        """Lark's callbacks: one method a rule, given the children's values."""

        def number(self, c: list[Any]) -> Dim:
            return int(c[0])

        def symbol(self, c: list[Any]) -> Dim:
            return Sym(str(c[0]))

        def neg(self, c: list[Any]) -> Dim:
            return mul(c[0], -1)

        def add(self, c: list[Any]) -> Dim:
            return add(c[0], c[1])

        def sub(self, c: list[Any]) -> Dim:
            return add(c[0], mul(c[1], -1))

        def mul(self, c: list[Any]) -> Dim:
            return mul(c[0], c[1])

        def floordiv(self, c: list[Any]) -> Dim:
            return floordiv(c[0], _divisor(c[1]))

        def mod(self, c: list[Any]) -> Dim:
            return mod(c[0], _divisor(c[1]))

        def minimum(self, c: list[Any]) -> Dim:
            return minimum(c[0], c[1])

        def maximum(self, c: list[Any]) -> Dim:
            return maximum(c[0], c[1])

        def expr_text(self, c: list[Any]) -> Dim:
            return c[0]

        def exprs(self, c: list[Any]) -> tuple[Dim, ...]:
            return tuple(c)

        def dims(self, c: list[Any]) -> tuple[str, Any]:
            return "dims", c[0] if c else ()

        def strides(self, c: list[Any]) -> tuple[str, Any]:
            return "strides", c[0] if c else ()

        def align(self, c: list[Any]) -> tuple[str, Any]:
            return "align", int(c[0])

        def type_text(self, c: list[Any]) -> TensorType:
            tokens = [x for x in c if not isinstance(x, tuple)]
            encoding: dict[str, Any] = dict(cast("list[tuple[str, Any]]", [x for x in c if isinstance(x, tuple)]))
            dims = str(tokens.pop(0)).split("x")[:-1] if tokens[0].type == "SHAPE" else []
            element = STRING if tokens[0].type == "STRINGTYPE" else named_dtype(str(tokens[0]))
            free = list(encoding.get("dims", ()))
            if dims.count("?") != len(free):
                raise IRError(f"a tensor type has {dims.count('?')} dims `?` and {len(free)} in dims=[…]")
            shape = tuple(free.pop(0) if d == "?" else int(d) for d in dims)
            strides = encoding.get("strides")
            if strides is not None and len(strides) != len(shape):
                raise IRError(f"a tensor type has {len(shape)} dims and {len(strides)} strides")
            return TensorType(shape, element, strides, encoding.get("align", 64))

        def zero(self, c: list[Any]) -> tuple[str, Any]:
            return "zero", c[0] if c else ()

        def fill(self, c: list[Any]) -> tuple[str, Any]:
            text = "".join(c)
            if c[-1].type == "UINT":
                return "fill", int(text)
            if c[-1].type == "SYMBOL" and c[-1] not in ("inf", "nan"):
                raise IRError(f"an index map's `else` takes a number, inf or nan, not {text}")
            return "fill", float(text)

        def map_text(self, c: list[Any]) -> IndexMap:
            more: dict[str, Any] = {}
            results: tuple[Dim, ...] = ()
            for x in c:
                if len(x) == 2 and isinstance(x[0], str):
                    more[x[0]] = x[1]
                else:
                    results = x
            return IndexMap(results, more.get("fill"), more.get("zero", ()))

        def extent(self, c: list[Any]) -> tuple[str, Dim]:
            return str(c[0]), c[1]

        def extents(self, c: list[Any]) -> tuple[tuple[str, Dim], ...]:
            return tuple(c)

        def domain_text(self, c: list[Any]) -> Domain:
            parallel, reduce = c
            names = [n for n, _ in (*(parallel or ()), *(reduce or ()))]
            for name in names:
                if names.count(name) > 1:
                    raise IRError(f"the domain names {name} twice")
            return Domain(parallel or (), reduce or ())

    return Build()


def _divisor(e: Dim) -> Dim:
    if e == 0:
        raise IRError("an expression divides by 0")
    return e
