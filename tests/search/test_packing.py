# SPDX-License-Identifier: Apache-2.0
"""Packing constants: the strided copy gives what gathering by index gives."""

import numpy as np
import pytest

from tcc.compiler.phases import pack_constants
from tcc.compiler.phases.pack_constants import pack_values
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.expr import floordiv, mod
from tcc.ir.kernel.build import dims
from tcc.ir.types import BF16, F16, F32, DType

a, b, c = dims("a", "b", "c")
CASES = {
    "panels": (IndexMap((b, a * 8 + c), 0.0), (5, 13, 8), True),
    "panels of a transposed constant": (IndexMap((a * 8 + c, b), 0.0), (2, 37, 8), True),
    "exact": (IndexMap((b, a * 4 + c)), (9, 13, 4), True),
    "turned round": (IndexMap((12 - b, 36 - a * 4 - c)), (9, 13, 4), True),
    "before the start": (IndexMap((b - 2, a * 8 + c - 3), 7.0), (6, 17, 8), True),
    "a diagonal": (IndexMap((b, b + a)), (20, 13, 3), True),
    "split and joined": (IndexMap((mod(a * 8 + c, 13), floordiv(a * 8 + c, 13) + b)), (4, 9, 8), False),
    "with a condition": (IndexMap((b, a * 4 + c), 0.0, (mod(c, 2),)), (9, 13, 4), False),
}


@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_both_ways_agree(name: str, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    access, extents, strided = CASES[name]
    array = np.random.default_rng(0).standard_normal((13, 37)).astype(np.float32)
    domain = Domain(tuple(zip("abc", extents, strict=True)))
    fast = pack_values(array, domain, access, dtype)
    used = pack_constants._affine_view(array, domain.parallel_names, extents, access)  # pyright: ignore
    assert (used is not None) == strided
    monkeypatch.setattr(pack_constants, "_affine_view", lambda *_: None)
    slow = pack_values(array, domain, access, dtype)
    assert fast.shape == slow.shape == extents
    assert fast.dtype == slow.dtype == dtype.numpy
    assert np.array_equal(fast, slow)
    assert fast.flags.c_contiguous
