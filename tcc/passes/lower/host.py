# SPDX-License-Identifier: Apache-2.0
"""Graph ops that run on the host: the function of `tcc.reference` that does each, and why there is no kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tcc.ir.graph import Host
from tcc.ir.graph.base import GraphOp
from tcc.ir.graph.host_ops import reason_of


@dataclass(frozen=True)
class HostCallSpec:
    """A call of `tcc.reference.<function>` with keyword `arguments`; `given[i]` False: input i is absent."""

    function: str
    reason: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    given: tuple[bool, ...] | None = None


def _host(op: GraphOp) -> HostCallSpec:
    assert isinstance(op, Host)
    return HostCallSpec(op.function, reason_of(op.function), dict(op.attributes), tuple(map(bool, op.given)))


SPECS: dict[str, Callable[[GraphOp], HostCallSpec]] = {
    "graph.host": _host,
}
