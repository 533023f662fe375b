# SPDX-License-Identifier: Apache-2.0
"""Constants named by their content: stores, folders, and what happens when one is missing or altered."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tcc.ir.attributes import Resource
from tcc.ir.declare import IRError
from tcc.ir.resources import ResourceStore

ARRAYS = [
    np.zeros((0, 3), np.float32),
    np.array(3.5, np.float16),
    np.arange(6.0).reshape(2, 3),
    np.arange(6.0).reshape(2, 3).T,
    np.ones((2, 2), ml_dtypes.bfloat16),
    np.array([-8, 7], ml_dtypes.int4),
    np.array([True, False]),
    np.array(["a", "é", ""], object),
    np.array(-1, np.int64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_saved_constants_load_alike(array: np.ndarray, tmp_path: Path):
    store = ResourceStore()
    name = store.add(array)
    store.save(name, tmp_path)
    other = ResourceStore((tmp_path,))
    assert name in other
    loaded = other.get(name)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert np.array_equal(loaded, array)
    assert ResourceStore().add(loaded) == name


def test_equal_content_has_one_name_and_type_and_shape_are_content():
    store = ResourceStore()
    a = np.arange(6, dtype=np.int32)
    assert store.add(a) == store.add(a.copy())
    assert len({store.add(x) for x in (a, a.reshape(2, 3), a.astype(np.int64), a.view(np.float32))}) == 4


def test_missing_is_an_error_never_zeros(tmp_path: Path):
    missing = Resource("0" * 64)
    store = ResourceStore((tmp_path,))
    assert missing not in store
    with pytest.raises(IRError, match=r"the constant 0000000000000000… is in neither"):
        store.get(missing)


def test_altered_is_an_error(tmp_path: Path):
    store = ResourceStore()
    name = store.add(np.arange(4.0))
    store.save(name, tmp_path)
    np.save(tmp_path / f"{name.sha256}.npy", np.zeros(4))
    with pytest.raises(IRError, match="does not hold the constant that its name says"):
        ResourceStore((tmp_path,)).get(name)
    (tmp_path / f"{name.sha256}.npy").write_bytes(b"\x93NUMPY garbage")
    with pytest.raises(IRError, match="not a constant that tcc wrote"):
        ResourceStore((tmp_path,)).get(name)


def test_sources_are_asked_last(tmp_path: Path):
    array = np.arange(3.0)
    name = ResourceStore().add(array)
    store = ResourceStore((tmp_path,))
    asked: list[str] = []

    def source(sha256: str):
        asked.append(sha256)
        return array if sha256 == name.sha256 else None

    store.sources.append(source)
    assert store.get(name) is array
    assert store.get(name) is array
    assert asked == [name.sha256]


def test_arrays_in_a_store_are_read_only():
    store = ResourceStore()
    kept = store.get(store.add(np.arange(3.0)))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1
