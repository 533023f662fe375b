# SPDX-License-Identifier: Apache-2.0
"""com.microsoft Tokenizer, with which converted text pipelines begin: a call of the host."""

from __future__ import annotations

import re

from tcc.compiler.frontend.contrib import INT, STRING, STRINGS, contrib_op, need_rank, takes
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.sequence import host_value
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import STRING as TEXT


@contrib_op("Tokenizer")
def tokenizer(n: Node) -> Value:
    """x [c] or [n, c] of strings → their tokens along a new last dim."""
    takes(n, mark=INT, mincharnum=INT, pad_value=STRING, separators=STRINGS, tokenexp=STRING)
    x = n.input(0)
    need_rank(n, x, "x", 1, 2)
    pattern, separators = n.attr("tokenexp", ""), list(n.attr("separators", []))
    if bool(pattern) == bool(separators):
        raise InputError("it needs either tokenexp or separators, not both")
    for text in (pattern, *separators):
        try:
            re.compile(text)
        except re.error as e:
            raise InputError(f"its pattern {text!r} is no regular expression that Python takes: {e}") from None
    result = graph.dense((*n.shape(x), n.importer.names.fresh(n.loc)), TEXT)
    return host_value(
        n.importer, "tokenizer", [x], result, "strings are cut into tokens", mark=n.attr("mark", 0),
        mincharnum=n.attr("mincharnum", 1), pad_value=n.attr("pad_value", ""), separators=tuple(separators),
        tokenexp=pattern,
    )  # fmt: skip
