# SPDX-License-Identifier: Apache-2.0
"""Dtype rules shared by every op: where to accumulate, when to round, how axes and shapes are read.

Small floats (float16, bfloat16, the 8- and 4-bit floats) are computed in float32 and rounded once at the end; float32
and float64 are computed as they are, so running an op on float64 inputs gives the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Ints: TypeAlias = Sequence[int] | Array

P = ParamSpec("P")
R = TypeVar("R")

FLOAT8 = tuple(
    np.dtype(t)
    for t in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz)
)
FLOAT8_E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
FLOAT4 = np.dtype(ml_dtypes.float4_e2m1fn)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SMALL_FLOATS = frozenset((np.dtype(np.float16), BFLOAT16, FLOAT8_E8M0, FLOAT4, *FLOAT8))
SMALL_INTS = frozenset(np.dtype(t) for t in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2))


def is_float(dtype: DTypeLike) -> bool:
    """Whether `dtype` is a real floating-point type, the small ones of ml_dtypes included."""
    dtype = np.dtype(dtype)
    return dtype.kind == "f" or dtype in SMALL_FLOATS


def is_integer(dtype: DTypeLike) -> bool:
    """Whether `dtype` is an integer type, the 2- and 4-bit ones of ml_dtypes included; bool is not."""
    dtype = np.dtype(dtype)
    return dtype.kind in "iu" or dtype in SMALL_INTS


def int_bounds(dtype: DTypeLike) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    info = ml_dtypes.iinfo(np.dtype(dtype))
    return int(info.min), int(info.max)


def lowest(dtype: DTypeLike) -> Any:
    """The identity of max: -inf, the least integer, or False."""
    return _extreme(np.dtype(dtype), low=True)


def highest(dtype: DTypeLike) -> Any:
    """The identity of min: +inf, the greatest integer, or True."""
    return _extreme(np.dtype(dtype), low=False)


def _extreme(dtype: np.dtype[Any], *, low: bool) -> Any:
    if dtype.kind == "b":
        return not low
    if is_float(dtype):
        return -np.inf if low else np.inf
    return int_bounds(dtype)[0 if low else 1]


def wide_type(dtype: DTypeLike) -> np.dtype[Any]:
    """The type an op computes in: float32 for small floats, int32 for 2- and 4-bit integers, else `dtype` itself."""
    dtype = np.dtype(dtype)
    if dtype in SMALL_FLOATS:
        return np.dtype(np.float32)
    if dtype in SMALL_INTS:
        return np.dtype(np.int32)
    return dtype


def widen(x: ArrayLike) -> Array:
    """`x` in the type it is computed in; exact."""
    array = np.asarray(x)
    return array.astype(wide_type(array.dtype), copy=False)


def narrow(y: ArrayLike, dtype: DTypeLike) -> Array:
    """`y` rounded to nearest even into `dtype`; integers wrap."""
    return np.asarray(y).astype(dtype, copy=False)


def ieee(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: infinities and NaNs arise silently, as ONNX operators produce them."""
    return np.errstate(all="ignore")(function)


def one_axis(axis: Any, rank: int, name: str = "axis") -> int:
    """`axis` as a number in [0, rank). Raises ValueError outside [-rank, rank)."""
    value = int(np.asarray(axis).reshape(()) if np.ndim(axis) == 0 else np.asarray(axis).reshape(-1)[0])
    if not -rank <= value < rank:
        raise ValueError(f"{name} {value} is outside [{-rank}, {rank - 1}] of a tensor of rank {rank}.")
    return value % rank


def many_axes(axes: Any, rank: int) -> tuple[int, ...]:
    """`axes` (any int sequence or array) as numbers in [0, rank), in the order given; repeats are refused."""
    result = tuple(one_axis(a, rank) for a in ints(axes))
    if len(set(result)) != len(result):
        raise ValueError(f"axes {ints(axes)} name an axis twice for a tensor of rank {rank}.")
    return result


def ints(values: Iterable[Any] | ArrayLike) -> tuple[int, ...]:
    """A sequence or 0-D/1-D array as a tuple of Python ints."""
    return tuple(int(v) for v in np.asarray(values).reshape(-1))


def scalar(value: Any) -> Any:
    """The Python value of a one-element array, or the value itself."""
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"a single value is needed, got a tensor of shape {list(array.shape)}.")
    return array.reshape(-1)[0].item()


def per_axis(values: Ints | None, rank: int, default: int, name: str) -> tuple[int, ...]:
    """One int an axis, `default` where the attribute is absent. Raises ValueError on a wrong count."""
    if values is None:
        return (default,) * rank
    result = ints(values)
    if len(result) != rank:
        raise ValueError(f"{name} {list(result)} has {len(result)} values and the spatial rank is {rank}.")
    return result


def split_pads(pads: Ints | None, rank: int) -> tuple[tuple[int, int], ...]:
    """ONNX pads [b0, b1, .., e0, e1, ..] as (begin, end) an axis; zeros when absent."""
    if pads is None:
        return ((0, 0),) * rank
    flat = ints(pads)
    if len(flat) != 2 * rank:
        raise ValueError(f"pads {list(flat)} has {len(flat)} values and {2 * rank} are needed.")
    return tuple(zip(flat[:rank], flat[rank:], strict=True))
