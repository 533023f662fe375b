# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on integers that the free dims decide: object arrays of ints and expressions in place of numbers.

Shape arithmetic of a model (Shape → Gather → Mul → Concat → Reshape) is followed through these arrays, so shapes stay
expressions. What has no expression gives None, and the value is then computed at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tcc.ir import graph
from tcc.ir.core import Op
from tcc.ir.expr import Expr, floordiv, maximum, minimum, mod

Array = np.ndarray[Any, Any]


class _Extents(dict[str, tuple[int, int]]):
    """Bounds of free dims: none is negative, and none reaches the 10⁹ that exporters write for "to the end"."""

    def get(self, key: str, default: Any = None) -> tuple[int, int]:
        return (0, 10**9 - 1)

    def __bool__(self) -> bool:
        """It says something of every symbol, though it lists none."""
        return True


EXTENTS = _Extents()


def is_symbolic(array: Array) -> bool:
    """Whether the array holds expressions (strings are object arrays too)."""
    return array.dtype == object and any(isinstance(v, Expr) for v in array.flat)


def settle(array: Array) -> Array:
    """An object array as int64 if all its entries are numbers; strings and expressions stay."""
    if array.dtype != object or not all(isinstance(v, int) and not isinstance(v, bool) for v in array.flat):
        return array
    return array.astype(np.int64)


def _binary(f: Callable[[Any, Any], Any]) -> Callable[[Op, list[Array]], Array | None]:
    def run(op: Op, arrays: list[Array]) -> Array | None:
        a, b = np.broadcast_arrays(arrays[0], arrays[1])
        out = np.empty(a.shape, object)
        for i in np.ndindex(a.shape):
            value = f(_plain(a[i]), _plain(b[i]))
            if value is None:
                return None
            out[i] = value
        return out

    return run


def _plain(v: Any) -> Any:
    if isinstance(v, Expr | int):
        return v
    number = v.item() if hasattr(v, "item") else v
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _int_only(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: f(a, b) if isinstance(a, int | Expr) and isinstance(b, int | Expr) else None


def _divide(a: Any, b: Any) -> Any:
    # Extents are not negative, so truncation is floor; a negative divisor is left to run time.
    return floordiv(a, b) if not isinstance(b, int) or b > 0 else None


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, Expr) or isinstance(b, Expr):
        if a == b:
            return True
        # An extent is never negative: the -1 that exporters compare with cannot be met.
        if (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0):
            return False
        return None
    return a == b


def _structural(op: Op, arrays: list[Array]) -> Array | None:
    assert isinstance(op, graph.GraphOp)
    return op.evaluate(*arrays)[0]


def _gather(op: Op, arrays: list[Array]) -> Array | None:
    if is_symbolic(arrays[1]):
        return None
    assert isinstance(op, graph.Gather)
    return np.take(arrays[0], arrays[1], axis=op.axis)


def _cast(op: Op, arrays: list[Array]) -> Array | None:
    assert isinstance(op, graph.Cast)
    return arrays[0] if op.to.is_int or op.to.is_float else None


def _where(op: Op, arrays: list[Array]) -> Array | None:
    if arrays[0].dtype == object:
        return None
    return np.where(*arrays)


def _reduce(op: Op, arrays: list[Array]) -> Array | None:
    assert isinstance(op, graph.Reduce)
    function = {"sum": np.add, "prod": np.multiply}.get(op.kind)
    if function is None:
        return None
    out = function.reduce(arrays[0], axis=op.axes, keepdims=op.keepdims)
    return np.asarray(out, object)


_RULES: dict[str, Callable[[Op, list[Array]], Array | None]] = {
    "graph.add": _binary(_int_only(lambda a, b: a + b)),
    "graph.sub": _binary(_int_only(lambda a, b: a - b)),
    "graph.mul": _binary(_int_only(lambda a, b: a * b)),
    "graph.div": _binary(_int_only(_divide)),
    "graph.mod": _binary(_int_only(lambda a, b: mod(a, b) if not isinstance(b, int) or b > 0 else None)),
    "graph.min": _binary(_int_only(lambda a, b: minimum(a, b, EXTENTS))),
    "graph.max": _binary(_int_only(lambda a, b: maximum(a, b, EXTENTS))),
    "graph.equal": _binary(_equal),
    "graph.where": _where,
    "graph.cast": _cast,
    # What stands for an extent is an integer, also where the model keeps it as a float.
    "graph.floor": lambda op, arrays: arrays[0],
    "graph.ceil": lambda op, arrays: arrays[0],
    "graph.round": lambda op, arrays: arrays[0],
    "graph.gather": _gather,
    "graph.reshape": _structural,
    "graph.slice": _structural,
    "graph.concat": _structural,
    "graph.transpose": _structural,
    "graph.expand": _structural,
    "graph.reduce": _reduce,
}


def evaluate_symbolic(op: Op, arrays: list[Array]) -> Array | None:
    """The op's only result on arrays some of which hold expressions; None if it has no such form.

    Divisions of floats that stand for extents are refused, as they do not round like integers.
    """
    rule = _RULES.get(op.name)
    if rule is None:
        return None
    if op.name == "graph.div" and graph.tensor_type(op.operands[0]).dtype.is_float:
        return None
    out = rule(op, arrays)
    if out is None:
        return None
    if op.name == "graph.equal":
        return out.astype(bool)
    return settle(np.asarray(out))
