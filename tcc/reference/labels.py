# SPDX-License-Identifier: Apache-2.0
"""Tables from labels to labels, as ai.onnx.ml has them: strings or numbers to strings or numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.reference._numeric import Array

_NAN = object()


def zip_map(x: Array, labels: Array) -> list[dict[Any, Any]]:
    """For each row of x (one, if x is a vector) a dict from labels to its values, as Python objects. ai.onnx.ml ZipMap.

    Raises ValueError where rows and labels differ in length.
    """
    rows = np.atleast_2d(np.asarray(x))
    keys = np.asarray(labels).reshape(-1).tolist()
    if rows.ndim != 2 or rows.shape[1] != len(keys):
        raise ValueError(f"rows of shape {rows.shape[1:]} have {len(keys)} labels.")
    return [dict(zip(keys, row, strict=True)) for row in rows.tolist()]


def label_encoder(x: Array, keys: Array, values: Array, default: Array) -> Array:
    """The value at the first key that equals each element, `default` [1] where none does; NaN equals NaN.

    ai.onnx.ml LabelEncoder, CategoryMapper. Raises ValueError where keys and values differ in number.
    """
    x, keys, values = np.asarray(x), np.asarray(keys).reshape(-1), np.asarray(values).reshape(-1)
    if keys.size != values.size:
        raise ValueError(f"{keys.size} keys have {values.size} values.")
    at: dict[Any, int] = {}
    for i, k in enumerate(keys.tolist()):
        at.setdefault(_key(k), i)
    table = np.concatenate([values, np.asarray(default, values.dtype).reshape(1)])
    places = [at.get(_key(v), values.size) for v in x.reshape(-1).tolist()]
    return table[np.asarray(places, np.int64)].reshape(x.shape)


def _key(value: Any) -> Any:
    return _NAN if isinstance(value, float) and value != value else value
