# SPDX-License-Identifier: Apache-2.0
"""The table of ONNX operators that have a handler: filled by the decorator, found by importing every file of `ops`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tcc.ir.core import Value

if TYPE_CHECKING:
    from tcc.compiler.frontend.node import Node

Outputs = Value | Sequence[Value | None]
Handler = Callable[["Node"], Outputs]
F = TypeVar("F", bound=Callable[..., Any])

_HANDLERS: dict[tuple[str, str], Handler] = {}


def onnx_op(*names: str, domain: str = "") -> Callable[[F], F]:
    """Decorator: the function imports nodes of these operators; it takes a `Node` and returns its output values."""

    def add(function: F) -> F:
        for name in names:
            if (domain, name) in _HANDLERS:
                raise ValueError(f"{domain}::{name} has two handlers")
            _HANDLERS[domain, name] = function
        return function

    return add


@cache
def handlers() -> dict[tuple[str, str], Handler]:
    """Handler by (domain, operator); domain "" is ai.onnx."""
    from tcc.compiler.frontend import ops

    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"{ops.__name__}.{module.name}")
    return _HANDLERS
