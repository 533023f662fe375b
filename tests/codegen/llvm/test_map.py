# SPDX-License-Identifier: Apache-2.0
"""`llvm.map`: every kind of access along the vectors, every config, every level of x86-64."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, load_templates, rows_of
from tcc.ir import arith, math
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.expr import Sym, floordiv, mod
from tcc.ir.kernel import Index
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, BOOL, F16, F32, F64, I8, I32, I64, U8, ScalarType, TensorType
from tests.codegen.llvm import problems
from tests.codegen.llvm.harness import V2, V3, V4, check, random, widest

MAP = "llvm.map"
LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
h, i, j, k = (Sym(n) for n in "hijk")

load_templates("cpu")


def values(func, rng):
    return [random(rng, t) for t in func.arg_types]


def add(b, a):
    out = a[0]
    for x in a[1:]:
        out = b(arith.Add(out, x))
    return out


def plan(func, t=None):
    from tcc.codegen.llvm.templates.map import make_plan

    return make_plan(func, t or widest())


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [F32, F16, BF16, F64, I8, I32, I64, U8], ids=str)
@pytest.mark.parametrize("shape", [(3, 37), (2, 5, 64)], ids=str)
def test_dense_and_broadcast(rng, t, dtype, shape):
    names = [Sym(n) for n in "hij"[: len(shape)]]
    f = problems.mapping(
        {n.name: s for n, s in zip(names, shape, strict=True)},
        [
            (dense(shape, dtype), IndexMap(tuple(names))),
            (dense(shape[-1:], dtype), IndexMap((names[-1],))),
            (dense(shape[:1], dtype), IndexMap((names[0],))),
            (dense((), dtype), IndexMap(())),
        ],
        add,
        [(dense(shape, dtype), IndexMap(tuple(names)))],
    )
    check(f, values(f, rng), MAP, t=t)


def test_dense_dims_become_one_loop():
    f = problems.mapping({"h": 3, "i": 4, "j": 5}, [(dense((3, 4, 5), F32), IndexMap((h, i, j)))], add)
    assert list(plan(f).nest.parallel.values()) == [60]
    reshaped = problems.mapping({"h": 3, "i": 4, "j": 5}, [(dense((12, 5), F32), IndexMap((h * 4 + i, j)))], add)
    assert list(plan(reshaped).nest.parallel.values()) == [60]


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [F32, F16, I8, BOOL], ids=str)
@pytest.mark.parametrize("shape", [(2, 32, 48), (1, 33, 50), (3, 17, 100), (2, 3, 40), (2, 40, 3)], ids=str)
def test_transpose(rng, t, dtype, shape):
    f = problems.mapping(
        {"h": shape[0], "i": shape[1], "j": shape[2]},
        [(dense((shape[0], shape[2], shape[1]), dtype), IndexMap((h, j, i)))],
        add,
        [(dense(shape, dtype), IndexMap((h, i, j)))],
    )
    check(f, values(f, rng), MAP, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_every_config_of_a_transpose_and_of_a_broadcast(rng, t):
    turned = problems.mapping(
        {"h": 2, "i": 35, "j": 41},
        [
            (dense((41, 35, 2), F32), IndexMap((j, i, h))),
            (dense((2, 41, 35), F32), IndexMap((h, j, i))),
            (dense((41,), F32), IndexMap((j,))),
            (dense((35,), F32), IndexMap((i,))),
        ],
        add,
    )
    spread = problems.mapping(
        {"h": 2, "i": 19, "j": 91},
        [(dense((2, 91), F32), IndexMap((h, j))), (dense((2, 19, 91), F32), IndexMap((h, i, j)))],
        add,
    )
    for f in (turned, spread):
        arrays = values(f, rng)
        columns, dropped = TEMPLATES[MAP].legal_columns(f, t)
        assert not dropped
        for config in rows_of(columns):
            check(f, arrays, MAP, config, t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("step", [-1, 2, 3, 4, 5, -2])
def test_strides(rng, t, step):
    length = 70
    start = 0 if step > 0 else -step * (length - 1)
    f = problems.mapping(
        {"i": 3, "j": length},
        [
            (dense((3, abs(step) * (length - 1) + 1), F32), IndexMap((i, j * step + start))),
            (TensorType((3, length), F16, (400, abs(step)), 2), IndexMap((i, j))),
        ],
        lambda b, a: b(arith.Add(a[0], b.cast(a[1], F32))),
        [(TensorType((3, length), F32, (600, abs(step)), 4), IndexMap((i, j)))],
    )
    check(f, values(f, rng), MAP, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_padding_on_every_side(rng, t):
    f = problems.mapping(
        {"h": 4, "i": 9, "j": 45},
        [(dense((2, 5, 37), F32), IndexMap((h - 1, i - 2, j - 3), -1.5))],
        add,
    )
    check(f, values(f, rng), MAP, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_dilated_reads_and_halves(rng, t):
    f = problems.mapping(
        {"i": 6, "j": 50},
        [
            (dense((3, 17), F32), IndexMap((floordiv(i, 2), floordiv(j, 3)), 0.0, (mod(i, 2), mod(j, 3)))),
            (dense((3, 25), F32), IndexMap((floordiv(i, 2), floordiv(j, 2)))),
        ],
        add,
    )
    check(f, values(f, rng), MAP, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_gather_of_rows_and_of_elements(rng, t):
    f = problems.mapping(
        {"i": 7, "j": 40},
        [
            (dense((7,), I64), IndexMap((i,))),
            (dense((11, 40), F32), IndexMap((Sym("$0"), j))),
            (dense((7, 40), I32), IndexMap((i, j))),
            (dense((7, 90), F32), IndexMap((i, Sym("$2")), 9.0)),
        ],
        lambda b, a: b(arith.Add(a[1], a[3])),
    )
    arrays = values(f, rng)
    arrays[0], arrays[2] = rng.integers(0, 11, 7), rng.integers(-5, 95, (7, 40)).astype(np.int32)
    check(f, arrays, MAP, t=t)


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
def test_concatenation_by_coordinates(rng, t):
    def body(b, a):
        at = b(Index(dim="j", result_types=[ScalarType(I64)]))
        first = b(arith.Cmp(at, problems.const(b, 21, I64), predicate="lt"))
        return b(arith.Select(first, a[0], a[1]))

    f = problems.mapping(
        {"i": 5, "j": 53},
        [(dense((5, 21), F32), IndexMap((i, j), 0.0)), (dense((5, 32), F32), IndexMap((i, j - 21), 0.0))],
        body,
    )
    check(f, values(f, rng), MAP, t=t)


def test_merged_dims_still_know_their_coordinates(rng):
    def body(b, a):
        row, column = (b(Index(dim=n, result_types=[ScalarType(I64)])) for n in "ij")
        return b(arith.Add(b.cast(b(arith.Sub(row, column)), F32), a[0]))

    f = problems.mapping({"i": 30, "j": 3}, [(dense((30, 3), F32), IndexMap((i, j)))], body)
    check(f, values(f, rng), MAP)


def test_short_rows_share_vectors(rng):
    f = problems.mapping(
        {"i": 50, "j": 3},
        [(dense((50, 3), F32), IndexMap((i, j))), (dense((3,), F32), IndexMap((j,)))],
        add,
    )
    assert list(plan(f).nest.parallel.values()) == [150]
    check(f, values(f, rng), MAP)


def test_several_results_of_several_types(rng):
    f = problems.mapping(
        {"i": 5, "j": 67},
        [(dense((5, 67), F32), IndexMap((i, j))), (dense((5, 67), I8), IndexMap((i, j)))],
        lambda b, a: [
            b(arith.Cmp(a[0], b.cast(a[1], F32), predicate="gt")),
            b.cast(b(arith.Mul(a[0], problems.const(b, 50.0))), U8),
            b.cast(a[0], BF16),
        ],
        [
            (dense((5, 67), BOOL), IndexMap((i, j))),
            (TensorType((5, 67), U8, (100, 1), 1), IndexMap((i, j))),
            (dense((67, 5), BF16), IndexMap((j, i))),
        ],
    )
    check(f, values(f, rng), MAP)


@pytest.mark.parametrize("shape", [(), (1,), (0, 4), (4, 0), (1, 1, 5)], ids=str)
def test_tiny_and_empty(rng, shape):
    names = [Sym(n) for n in "hij"[: len(shape)]]
    f = problems.mapping(
        {n.name: s for n, s in zip(names, shape, strict=True)}, [(dense(shape, F32), IndexMap(tuple(names)))], add
    )
    check(f, values(f, rng), MAP)


@pytest.mark.parametrize("seed", range(40))
def test_random_maps(seed):
    """Random domains, permuted and broadcast operands, padded and strided, random regions."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    names = [f"d{n}" for n in range(count)]
    sizes = {n: int(rng.choice([1, 2, 3, 5, 8, 16, 17, 33])) for n in names}
    ins = []
    for _ in range(int(rng.integers(1, 4))):
        chosen = [n for n in rng.permutation(names) if rng.random() < 0.8]
        results, shape, guarded = [], [], bool(rng.random() < 0.3)
        for n in chosen:
            shift, step = int(rng.integers(0, 3)), int(rng.choice([1, 1, 1, 2]))
            if guarded:
                results.append(Sym(n) * step - shift)
                shape.append(max(1, (sizes[n] - 1) * step + 1 - int(rng.integers(0, 4))))
            else:
                results.append(Sym(n) * step + shift)
                shape.append((sizes[n] - 1) * step + 1 + shift)
        ins.append((dense(shape, F32), IndexMap(tuple(results), 0.5 if guarded else None)))
    order = [str(n) for n in rng.permutation(names)]
    padding = int(rng.choice([0, 3]))
    shape = [sizes[n] for n in order]
    strides, step = [], 1
    for s in reversed(shape):
        strides.insert(0, step)
        step *= s + padding
    out = TensorType(tuple(shape), F32, tuple(strides) if padding else None, 4 if padding else 64)

    def body(b, a):
        value = a[0]
        for x in [*a[1:], a[0]]:
            op = [arith.Add, arith.Sub, arith.Max, arith.Min][int(rng.integers(4))]
            value = b(op(value, x))
        return b([math.Abs, math.Tanh, math.Sigmoid, arith.Neg][int(rng.integers(4))](value))

    f = problems.mapping(sizes, ins, body, [(out, IndexMap(tuple(Sym(n) for n in order)))])
    arrays = [random(rng, t) for t in f.arg_types]
    t = LEVELS[int(rng.integers(len(LEVELS)))]
    configs = rows_of(TEMPLATES[MAP].legal_columns(f, t)[0])
    check(f, arrays, MAP, configs[int(rng.integers(len(configs)))], t, workers=int(rng.integers(1, 4)))


def test_default_is_in_the_space():
    d = Domain((("i", 10),))
    assert d.names == ("i",)
    for f in (
        problems.mapping({"i": 300, "j": 300}, [(dense((300, 300), F32), IndexMap((j, i)))], add),
        problems.mapping({"i": 3}, [(dense((3,), F32), IndexMap((i,)))], add),
    ):
        for t in LEVELS:
            assert TEMPLATES[MAP].why_illegal(f, TEMPLATES[MAP].default(f, t), t) is None
            columns, _ = TEMPLATES[MAP].legal_columns(f, t)
            assert np.all(TEMPLATES[MAP].cost(f, columns, t) > 0)
