# SPDX-License-Identifier: Apache-2.0
"""Graph ops that run on the host: the function of `tcc.reference` that does each, and why there is no kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tcc.ir.graph import ArgReduce, Host
from tcc.ir.graph.base import GraphOp


@dataclass(frozen=True)
class HostCallSpec:
    """A call of `tcc.reference.<function>` with keyword `arguments`; `given[i]` False: input i is absent."""

    function: str
    reason: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    given: tuple[bool, ...] | None = None


_NO_KERNEL = "tcc has no kernel for it yet"


def _attrs(op: GraphOp, *names: str) -> dict[str, Any]:
    return {n: int(op.attrs[n]) if isinstance(op.attrs[n], bool) else op.attrs[n] for n in names}


def _host(op: GraphOp) -> HostCallSpec:
    assert isinstance(op, Host)
    return HostCallSpec(
        op.function, "its outputs or types need the host", dict(op.attributes), tuple(map(bool, op.given))
    )


def _arg(op: GraphOp) -> HostCallSpec:
    assert isinstance(op, ArgReduce)
    options = {"axis": op.axis, "keepdims": int(op.keepdims), "select_last_index": int(op.last)}
    return HostCallSpec("arg_max" if op.kind == "max" else "arg_min", _NO_KERNEL, options)


def _max_pool(op: GraphOp) -> HostCallSpec:
    options = _attrs(op, "strides", "pads", "dilations", "ceil_mode", "storage_order")
    return HostCallSpec("max_pool", _NO_KERNEL, {"kernel_shape": op.attrs["kernel"], **options})


SPECS: dict[str, Callable[[GraphOp], HostCallSpec]] = {
    "graph.host": _host,
    "graph.arg_reduce": _arg,
    "graph.max_pool_indices": _max_pool,
}
