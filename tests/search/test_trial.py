# SPDX-License-Identifier: Apache-2.0
"""Trials: data that fits the problem, engines that share their native part, an oracle at blocks of points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tcc.compiler.search import trial as trials
from tcc.compiler.search.bench import Bench
from tcc.compiler.search.enumerate import enumerate_problem, neighbours, shortlist
from tcc.compiler.search.trial import build_trial, index_limits, make_case, span
from tcc.compiler.targets import host_cpu
from tcc.ir import arith
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.expr import Dim, Sym
from tcc.ir.kernel import Conv, Func, Map, MatMul
from tcc.ir.kernel.build import cast_region, dense, dims, func, identity_map, identity_region, scalar_region
from tcc.ir.kernel.evaluate import evaluate
from tcc.ir.types import F32, I64, TensorType


def gather(index: Dim, rows: int, fill: float | None = None) -> Func:
    """y[i, j] = table[index, j], where the index may mention the other operand, `$0`."""
    d = Domain((("i", 8), ("j", 5)))
    i, j = dims("i", "j")
    return func(
        "f",
        [dense((8,), I64), dense((rows, 5), F32)],
        lambda args: Map(
            args,
            domain=d,
            maps=(IndexMap((i,)), IndexMap((index, j), fill)),
            out_maps=(identity_map(d),),
            regions=[scalar_region([I64, F32], lambda b, a: a[1])],
            result_types=[dense((8, 5), F32)],
        ),
    )


def matmul(m: int, n: int, k: int, const: bool = True, strides: tuple[int, int] | None = None) -> Func:
    """x @ w, the result in rows of a wider matrix where `strides` says so."""
    sm, sn, sk = dims("m", "n", "k")
    out = TensorType((m, n), F32, strides, 4 if strides else 64)
    return func(
        "f",
        [dense((m, k), F32), dense((k, n), F32)],
        lambda args: MatMul(
            [args[0]],
            [args[1]],
            [],
            domain=Domain((("m", m), ("n", n)), (("k", k),)),
            maps=(IndexMap((sm, sk)), IndexMap((sk, sn))),
            out_maps=(IndexMap((sm, sn)),),
            acc=F32,
            regions=[identity_region(F32), identity_region(F32), identity_region(F32)],
            result_types=[out],
        ),
        (False, const),
    )


def grouped(groups: int) -> Func:
    """A 3 × 3 convolution of 24 channels in groups, stride 2, padded."""
    n, oy, ox, g, co, ky, kx, ci = dims("n", "oy", "ox", "g", "co", "ky", "kx", "ci")
    c = 24 // groups
    d = Domain((("n", 2), ("oy", 5), ("ox", 5), ("g", groups), ("co", c)), (("ky", 3), ("kx", 3), ("ci", c)))
    return func(
        "f",
        [dense((2, 9, 9, 24), F32), dense((24, 3, 3, c), F32)],
        lambda args: Conv(
            [args[0]],
            [args[1]],
            [],
            domain=d,
            maps=(
                IndexMap((n, oy * 2 + ky - 1, ox * 2 + kx - 1, g * c + ci), 0.0),
                IndexMap((g * c + co, ky, kx, ci)),
            ),
            out_maps=(IndexMap((n, oy, ox, g * c + co)),),
            acc=F32,
            regions=[cast_region(F32, F32), cast_region(F32, F32), identity_region(F32)],
            result_types=[dense((2, 5, 5, 24), F32)],
        ),
        (False, True),
    )


@pytest.mark.parametrize(
    ("index", "rows", "fill", "limit"),
    [
        (Sym("$0"), 7, None, 7),
        (Sym("$0") * 2 + 1, 15, None, 7),
        (Sym("$0") + Sym("i"), 15, None, 7),
        (Sym("$0") * 3, 7, 0.0, 7),
    ],
)
def test_indices_stay_in_range(index: Dim, rows: int, fill: float | None, limit: int) -> None:
    f = gather(index, rows, fill)
    assert index_limits(f) == {0: limit}
    case = make_case(f)
    assert case.operands[0].min() >= 0 and case.operands[0].max() < limit


def test_sums_keep_their_size() -> None:
    case = make_case(matmul(16, 16, 4096))
    assert 0.5 < np.std(case.expected[0].value) < 2


def test_spans() -> None:
    assert span(dense((2, 3), F32)) == 6
    assert span(TensorType((2, 3), F32, (10, 1))) == 13
    assert span(dense((0, 3), F32)) == 0


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run on one thread: on a busy machine, threads that meet wait for its other work."""
    monkeypatch.setenv("TCC_NUM_THREADS", "1")


def statuses(f: Func, count: int = 6) -> tuple[list[str], list[bytes]]:
    """What becomes of the first candidates of a problem, and their engines."""
    target, case = host_cpu(), make_case(f)
    found: list[str] = []
    engines: list[bytes] = []
    with Bench() as bench:
        bench.start_problem(case, 1 << 20)
        for number, c in enumerate(shortlist(enumerate_problem(f, target), count)):
            t = build_trial(case, c, target)
            engines.append(t.engine)
            v = bench.trial(number, t)
            found.append(v.status if v.status == "ok" else f"{c.label}: {v.message}")
        samples, failed = bench.time(range(len(found)), 3)
        assert not failed
        assert all(len(s) == 3 and min(s) > 0 for s in samples.values())
    return found, engines


@pytest.mark.parametrize("const", [True, False])
@pytest.mark.parametrize("strides", [None, (50, 1)])
def test_candidates_pass_with_and_without_packing_and_strides(
    const: bool, strides: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: dict[str, bytes] = {}
    monkeypatch.setattr(trials, "_natives", compiled)
    found, engines = statuses(matmul(33, 47, 29, const, strides))
    assert set(found) == {"ok"} and len(found) >= 4
    assert len(compiled) < len(set(engines)), "candidates share their native part"


def test_gathers_pass() -> None:
    found, _ = statuses(gather(Sym("$0") + 1, 9))
    assert set(found) == {"ok"}


@pytest.mark.parametrize(
    "f", [matmul(33, 47, 130), grouped(1), grouped(2), grouped(24)], ids=["matmul", "1", "2", "24"]
)
@pytest.mark.parametrize("points", [10, 300, 1500])
def test_the_oracle_is_the_same_at_blocks_of_points(f: Func, points: int) -> None:
    operands: Sequence[np.ndarray] = make_case(f).operands
    whole, part = evaluate(f, operands)[0], evaluate(f, operands, points, seed=3)[0]
    shape = f.result_types[0].static_shape
    value, allowance = np.full(shape, np.nan), np.full(shape, np.nan)
    value[whole.index], allowance[whole.index] = whole.value, whole.allowance
    assert not np.isnan(value).any()
    np.testing.assert_allclose(part.value, value[part.index], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(part.allowance, allowance[part.index], rtol=1e-6)
    assert min(points, value.size) / 4 <= len(part.value) <= max(points, 64) + 64


def test_shortlists_have_defaults_and_variety() -> None:
    listing = enumerate_problem(matmul(128, 768, 768), host_cpu())
    found = shortlist(listing, 12)
    assert len({c.key for c in found}) == len(found) == 12
    assert {c.key for c in listing.defaults} <= {c.key for c in found}
    assert min(c.cost for c in found) == listing.best.cost
    parameters = [k for k in found[0].config if len({c.config[k] for c in found if k in c.config}) > 1]
    assert len(parameters) >= 3
    rest = shortlist(listing, 12, {c.key for c in found[:5]})
    assert {c.key for c in rest} == {c.key for c in found[5:]}
    near = neighbours(listing, found[0], 5, {c.key for c in found})
    assert near
    for c in near:
        assert sum(c.config[k] != v for k, v in found[0].config.items()) == 1
        assert c.key not in {f.key for f in found}


def test_scalar_extremes_are_no_surprise() -> None:
    d = Domain((("i", 64),))
    f = func(
        "f",
        [dense((64,), F32), dense((64,), F32)],
        lambda args: Map(
            args,
            domain=d,
            maps=(identity_map(d), identity_map(d)),
            out_maps=(identity_map(d),),
            regions=[scalar_region([F32, F32], lambda b, a: b(arith.Div(a[0], b(arith.Sub(a[1], a[1])))))],
            result_types=[dense((64,), F32)],
        ),
    )
    assert set(statuses(f)[0]) == {"ok"}
