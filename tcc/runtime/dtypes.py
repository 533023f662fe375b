# SPDX-License-Identifier: Apache-2.0
"""Names of element types in an engine file, and their numpy types."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np

from tcc.errors import FailureError

NUMPY: dict[str, np.dtype] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "f8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "f8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "f8e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "f4e2m1": np.dtype(ml_dtypes.float4_e2m1fn),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "i4": np.dtype(ml_dtypes.int4),
    "i2": np.dtype(ml_dtypes.int2),
    "u64": np.dtype(np.uint64),
    "u32": np.dtype(np.uint32),
    "u16": np.dtype(np.uint16),
    "u8": np.dtype(np.uint8),
    "u4": np.dtype(ml_dtypes.uint4),
    "u2": np.dtype(ml_dtypes.uint2),
    "bool": np.dtype(np.bool_),
    "c64": np.dtype(np.complex64),
    "c128": np.dtype(np.complex128),
    "str": np.dtype(object),
}

_NAMES = {dtype: name for name, dtype in NUMPY.items()}


def numpy_dtype(name: str) -> np.dtype:
    """The numpy type called `name` in an engine file; raises FailureError for a name that the format lacks."""
    try:
        return NUMPY[name]
    except KeyError:
        raise FailureError(f"the engine uses the element type '{name}', which this runtime does not know") from None


@functools.cache
def dtype_name(dtype: np.dtype) -> str:
    """The engine file's name of a numpy type, or numpy's own name where the format has none."""
    return _NAMES.get(dtype, str(dtype))
