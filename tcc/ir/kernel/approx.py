# SPDX-License-Identifier: Apache-2.0
"""Values with an error bound: float64 arithmetic that also says how far a kernel may honestly be from it.

A value is (exact, allowance). Errors go through an op by trying its operands at the ends of their intervals, which
needs no rule per op and also covers comparisons that flip; then the op's own rounding is added. First order, as in
Higham, Accuracy and Stability of Numerical Algorithms, ch. 3, with √K for sums of K terms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.ir.core import Region, Value
from tcc.ir.kernel.func import Index, Yield
from tcc.ir.scalar import ScalarOp, element
from tcc.ir.types import DType

Array = np.ndarray[Any, Any]

_MANTISSA = {"f64": 52, "f32": 23, "f16": 10, "bf16": 7, "f8e4m3fn": 3, "f8e4m3fnuz": 3, "f8e5m2": 2, "f8e5m2fnuz": 2}
_MIN_NORMAL = {"f64": -1022, "f32": -126, "f16": -14, "bf16": -126}


@dataclass(frozen=True)
class Approx:
    """`exact` (float64, an integer type or bool) and how far off a kernel may be; `error` None means not at all.
    A boolean's error is 1 where it may be the other one."""

    exact: Array
    error: Array | None = None


def ulp(value: Array, dtype: DType) -> Array:
    """The unit in the last place of `dtype` at |value|; float64 array."""
    bits = _MANTISSA.get(dtype.name, 2)
    _, exponent = np.frexp(np.where(np.isfinite(value), value, 1.0))
    exponent = np.maximum(exponent - 1, _MIN_NORMAL.get(dtype.name, -6))
    return np.ldexp(1.0, exponent - bits)


def rounding(dtype: DType) -> float:
    """Unit roundoff of an element type; 0 for integers."""
    return 2.0 ** -(_MANTISSA.get(dtype.name, 2) + 1) if dtype.is_float else 0.0


def apply(f: Callable[..., Array], args: Sequence[Approx], dtype: DType, ulps: float) -> Approx:
    """f on values with errors; the result is rounded to `dtype` with `ulps` units of its own error."""
    exact = f(*(a.exact for a in args))
    error: Array | None = None
    uncertain = [i for i, a in enumerate(args) if a.error is not None]
    if uncertain:
        error = np.zeros(np.shape(exact))
        for signs in itertools.product((-1, 1), repeat=len(uncertain)):
            moved = [a.exact for a in args]
            for i, sign in zip(uncertain, signs, strict=True):
                moved[i] = _move(args[i], sign)
            other = f(*moved)
            if exact.dtype == np.bool_:
                error = np.maximum(error, (other != exact).astype(np.float64))
            else:
                with np.errstate(invalid="ignore"):
                    error = np.fmax(error, np.abs(other.astype(np.float64) - exact))
    if dtype.is_float and ulps > 0:
        own = ulps * ulp(exact, dtype)
        error = own if error is None else error + own
    return Approx(exact, error)


def _move(a: Approx, sign: int) -> Array:
    assert a.error is not None
    if a.exact.dtype == np.bool_:
        return a.exact ^ (a.error > 0) if sign > 0 else a.exact
    if a.exact.dtype.kind == "f":
        return a.exact + sign * a.error
    return (a.exact + sign * np.ceil(a.error)).astype(a.exact.dtype)


def run_region(region: Region, args: Sequence[Approx], indices: dict[str, Array]) -> list[Approx]:
    """A scalar region on arrays of points; `indices` gives the coordinate along each domain dim."""
    env: dict[Value, Approx] = dict(zip(region.block.args, args, strict=True))
    for op in region.block.ops:
        if isinstance(op, Yield):
            return [env[v] for v in op.operands]
        if isinstance(op, Index):
            env[op.y] = Approx(np.asarray(indices[op.dim], np.int64))
            continue
        assert isinstance(op, ScalarOp), f"{op.name} in a scalar region"
        d = element(op.results[0])
        exact_literal = op.name == "arith.constant"
        ulps = 0.0 if exact_literal else op.ulps
        env[op.results[0]] = apply(op.evaluate, [env[v] for v in op.operands], d, ulps)
    raise AssertionError("a region without kernel.yield")
