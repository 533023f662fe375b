# SPDX-License-Identifier: Apache-2.0
"""Pipelines as text: `canonicalize,fuse{max-ops=16 anchors=[conv,matmul]},lower-to-kernel`.

Passes are separated by commas, options by blanks; a bool option may stand without `=true`. Options at their default
are not printed, so `print_pipeline(parse_pipeline(t))` is the shortest text of the same pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from tcc.errors import InputError
from tcc.ir.parser_text import error_offset
from tcc.passes.base import Pass, PassOption, did_you_mean, lookup, pass_options

GRAMMAR = r"""
start: (pass ("," pass)*)?
pass: NAME ["{" option* "}"]
option: NAME ["=" (word | list)]
word: NAME | WORD | STRING
list: "[" (word ("," word)*)? "]"
NAME.2: /[A-Za-z][A-Za-z0-9-]*(?=[\s,{}=\]]|$)/
WORD: /[^\s,{}=\[\]"]+/
STRING: /"(\\.|[^"\\])*"/
%ignore /\s+/
"""
_WORD = re.compile(r'[^\s,{}=\[\]"]+\Z')


@cache
def _parser() -> Any:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", maybe_placeholders=True)


def parse_pipeline(text: str) -> list[Pass]:
    """The passes that a pipeline text names; InputError says which pass, option or place is wrong."""
    import lark

    try:
        tree = _parser().parse(text)
    except lark.exceptions.UnexpectedInput as e:
        at = error_offset(e, len(text))
        raise InputError(
            f"the pipeline is not readable at character {at + 1} ({text[at : at + 20]!r}); "
            "write passes as `name,name{option=value option=value}`"
        ) from None
    return [_build(node) for node in tree.children]


def _build(node: Any) -> Pass:
    name, *given = node.children
    cls = lookup(str(name))
    known = pass_options(cls)
    values: dict[str, Any] = {}
    for option in given:
        if option is None:
            continue
        key, value = str(option.children[0]), option.children[1]
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"the pass {cls.name} has no option {key}{did_you_mean(key, known)}; {has}")
        if known[key].field in values:
            raise InputError(f"the option {key} of {cls.name} is given twice")
        values[known[key].field] = _value(cls.name, known[key], value)
    return cls(**values)


def _value(name: str, option: PassOption, node: Any) -> Any:
    if node is not None and node.data == "list":
        if not option.many:
            raise InputError(f"the option {option.name} of {name} takes one {option.type_name}, not a list")
        return tuple(_scalar(name, option, _word(w)) for w in node.children)
    if node is None:
        if option.type is bool and not option.many:
            return True
        raise InputError(f"the option {option.name} of {name} needs a value: {option.name}={option.type_name}")
    text = _word(node)
    if option.many:
        return (_scalar(name, option, text),)
    if option.optional and text == "none":
        return None
    return _scalar(name, option, text)


def _word(node: Any) -> str:
    token = node.children[0]
    return str(json.loads(token)) if token.type == "STRING" else str(token)


def _scalar(name: str, option: PassOption, text: str) -> Any:
    wanted = InputError(f"the option {option.name} of {name} must be {option.type_name}, not {text}")
    if option.words:
        if text not in option.words:
            raise wanted
        return text
    if option.type is bool:
        if text not in ("true", "false"):
            raise wanted
        return text == "true"
    try:
        return option.type(text)
    except ValueError:
        raise wanted from None


def print_pass(p: Pass) -> str:
    """The text of one pass with the options that differ from their defaults."""
    options = pass_options(type(p)).values()
    values = [(o, getattr(p, o.field)) for o in options]
    shown = [f"{o.name}={option_text(o, value)}" for o, value in values if value != o.default]
    return f"{p.name}{{{' '.join(shown)}}}" if shown else p.name


def option_text(option: PassOption, value: Any) -> str:
    """The text of an option's value: `16`, `true`, `[conv,matmul]`."""
    if option.many:
        return f"[{','.join(_text(v) for v in cast('tuple[Any, ...]', value))}]"
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, float) else str(value)
    return text if _WORD.match(text) else json.dumps(text)


def print_pipeline(passes: Sequence[Pass]) -> str:
    """The text of a pipeline; `parse_pipeline` reads it back to equal passes."""
    return ",".join(print_pass(p) for p in passes)
