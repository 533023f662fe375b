# SPDX-License-Identifier: Apache-2.0
"""`llvm.attention`: layouts, masks, tails of every extent, every config."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, candidates, load_templates, rows_of
from tcc.ir.types import BF16, F16, F32, F64
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import V2, V3, V4, check, random, run, widest

ATTENTION = "llvm.attention"
LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
load_templates("cpu")


def values(func, rng):
    return [random(rng, t) for t in func.arg_types]


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("layout", ["bhmd", "bmhd", "packed"])
@pytest.mark.parametrize("mask", ["none", "causal", "additive", "bool"])
def test_layouts_and_masks(rng, t, layout, mask):
    f = problems.attention(2, 3, 37, 37 if layout == "packed" else 53, 32, 32, layout, mask)
    check(f, values(f, rng), ATTENTION, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("m", "n", "k", "d"), [(1, 70, 64, 64), (33, 1, 16, 16), (64, 64, 80, 80), (17, 29, 20, 36), (5, 5, 3, 7)], ids=str
)
def test_extents(rng, t, m, n, k, d):
    f = problems.attention(1, 2, m, n, k, d)
    check(f, values(f, rng), ATTENTION, t=t)


def odd_shapes():
    return problems.attention(1, 1, 35, 101, 16, 20), problems.attention(1, 2, 50, 61, 19, 16, "bmhd", "causal")


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_some_configs_at_two_odd_shapes(rng, t):
    for f in odd_shapes():
        arrays = values(f, rng)
        columns, dropped = TEMPLATES[ATTENTION].legal_columns(f, t)
        assert dropped
        for config in rows_of(columns)[:: 11 if t is V4 else 7]:
            check(f, arrays, ATTENTION, config, t)


@pytest.mark.slow
@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_every_second_config_at_two_odd_shapes(rng, t):
    """At the one shape those that the other leaves out."""
    for first, f in enumerate(odd_shapes()):
        arrays = values(f, rng)
        for config in rows_of(TEMPLATES[ATTENTION].legal_columns(f, t)[0])[first::2]:
            check(f, arrays, ATTENTION, config, t)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_narrow_types(rng, dtype):
    f = problems.attention(1, 2, 21, 33, 32, 32, dtype=dtype)
    for t in LEVELS:
        check(f, values(f, rng), ATTENTION, t=t)


def test_rows_without_keys_give_zeros(rng):
    f = problems.attention(2, 1, 19, 70, 16, 16, "bhmd", "bool")
    arrays = values(f, rng)
    arrays[3][0] = False
    arrays[3][1, :50] = False  # the first block of keys is masked, the next is not
    for t in LEVELS:
        for keys in (48, 96):
            config = {"vectors": 1, "rows": 6, "keys": keys}
            check(f, arrays, ATTENTION, config, t)
            assert not run(f, arrays, ATTENTION, config, t)[0][0].any()


def test_large_scores_do_not_overflow(rng):
    f = problems.attention(1, 1, 20, 150, 16, 16)
    arrays = values(f, rng)
    arrays[0] *= 30
    arrays[1] *= 30
    check(f, arrays, ATTENTION, {"vectors": 1, "rows": 8, "keys": 48})


def test_a_value_that_is_not_a_number_reaches_its_row_only(rng):
    f = problems.attention(1, 1, 20, 30, 16, 16)
    arrays = values(f, rng)
    arrays[0][0, 0, 3, 5] = np.nan
    (got,) = run(f, arrays, ATTENTION)
    assert np.isnan(got[0, 0, 3]).all()
    assert not np.isnan(np.delete(got[0, 0], 3, 0)).any()


def test_refusals():
    f = problems.attention(1, 1, 5, 5, 8, 8, dtype=F64)
    assert {t.name for t, why in candidates(f, widest()) if why is None} >= {"llvm.naive"}


def test_default_is_legal_and_the_space_is_wide():
    for f in (problems.attention(1, 12, 197, 197, 64, 64), problems.attention(1, 1, 1, 9, 32, 32, dtype=F32)):
        for t in LEVELS:
            assert TEMPLATES[ATTENTION].why_illegal(f, TEMPLATES[ATTENTION].default(f, t), t) is None
            columns, _ = TEMPLATES[ATTENTION].legal_columns(f, t)
            assert np.all(TEMPLATES[ATTENTION].cost(f, columns, t) > 0)
