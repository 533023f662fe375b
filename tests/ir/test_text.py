# SPDX-License-Identifier: Apache-2.0
"""Text of the small things reads back: expressions, types, maps, domains, attribute values, strings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.ir import expr
from tcc.ir.attributes import Domain, IndexMap, Resource
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Sym, evaluate, to_text
from tcc.ir.module import module
from tcc.ir.parser import parse
from tcc.ir.parser_text import parse_dense, parse_domain, parse_expr, parse_map, parse_tensor_type
from tcc.ir.printer import print_attr, print_op
from tcc.ir.types import DTYPES, STRING, OptionalType, ScalarType, SequenceType, TensorType

NAMES = ("i", "j", "n", "seq_len", "$0", "$1")
RANGES = {"i": (0, 15), "j": (0, 6)}


def _divided(make):
    return lambda a, b, known: make(a, b, RANGES if known else None)


def dims() -> st.SearchStrategy[Dim]:
    """Expressions as passes build them, with and without known ranges."""
    leaves = st.one_of(st.integers(-40, 40), st.sampled_from(NAMES).map(Sym))
    positive = st.integers(1, 12)

    def grown(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        return st.one_of(
            st.builds(expr.add, inner, inner),
            st.builds(expr.mul, inner, inner),
            st.builds(_divided(expr.floordiv), inner, positive, st.booleans()),
            st.builds(_divided(expr.mod), inner, positive, st.booleans()),
            st.builds(_divided(expr.minimum), inner, inner, st.booleans()),
            st.builds(_divided(expr.maximum), inner, inner, st.booleans()),
            st.builds(expr.floordiv, inner, st.sampled_from(NAMES).map(Sym)),
        )

    return st.recursive(leaves, grown, max_leaves=8)


DIMS = dims()  # one strategy: building it anew for each use is what would take the time


@given(DIMS)
def test_expression_reads_back(e: Dim):
    assert parse_expr(to_text(e)) == e


@given(DIMS)
def test_normal_form_is_stable(e: Dim):
    assert expr.substitute(e, {}) == e


@given(DIMS, st.tuples(*[st.integers(1, 50) for _ in NAMES]))
def test_text_means_the_same_number(e: Dim, numbers: tuple[int, ...]):
    env = dict(zip(NAMES, numbers, strict=True))
    env["i"], env["j"] = env["i"] % 16, env["j"] % 7  # where RANGES says they are
    try:
        value = evaluate(e, env)
    except ZeroDivisionError:
        return
    text = to_text(e).replace("floordiv", "//").replace("mod", "%").replace("$", "s")
    assert eval(text, {"min": min, "max": max}, {k.replace("$", "s"): v for k, v in env.items()}) == value


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("n*2 + n", "n*3"),
        ("2*(n + 1) - 2", "n*2"),
        ("n floordiv 4*4 + n mod 4", "n"),
        ("-n + 3", "3 - n"),
        ("((n + 7) floordiv 8)*8 + 0", "(n + 7) floordiv 8*8"),
        ("max(n, 3) - max(3, n)", "0"),
        ("7 floordiv 2", "3"),
    ],
)
def test_expressions_have_one_normal_form(text: str, same: str):
    assert parse_expr(text) == parse_expr(same)


def shapes(rank: int | None = None, dims: st.SearchStrategy[Dim] = DIMS) -> st.SearchStrategy[tuple[Dim, ...]]:
    size = {"min_size": 0, "max_size": 4} if rank is None else {"min_size": rank, "max_size": rank}
    return st.lists(st.one_of(st.integers(0, 4096), dims), **size).map(tuple)


EXTENTS = DIMS.map(lambda d: abs(d) if isinstance(d, int) else d)  # of a tensor: no number below 0


@st.composite
def tensor_types(draw: st.DrawFn) -> TensorType:
    shape = draw(shapes(dims=EXTENTS))
    strides = draw(st.none() | shapes(len(shape)))
    return TensorType(shape, draw(st.sampled_from(DTYPES)), strides, draw(st.sampled_from([4, 16, 64, 256])))


@given(tensor_types())
def test_tensor_type_reads_back(t: TensorType):
    assert parse_tensor_type(str(t)) == t


numbers = st.integers(-(1 << 62), 1 << 62) | st.floats(allow_nan=False)
maps = st.builds(IndexMap, shapes(), st.none() | numbers, shapes())
extents = st.lists(st.sampled_from(["i", "j", "k", "co", "$0"]), unique=True, max_size=4)


@given(maps)
def test_map_reads_back(m: IndexMap):
    again = parse_map(m.text())
    assert again == m
    assert type(again.fill) is type(m.fill)


@given(extents, st.integers(0, 4), st.data())
def test_domain_reads_back(names: list[str], split: int, data: st.DataObject):
    pairs = [(n, data.draw(DIMS)) for n in names]
    d = Domain(tuple(pairs[:split]), tuple(pairs[split:]))
    assert parse_domain(d.text()) == d


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(), st.text(), maps,
        st.sampled_from(DTYPES), tensor_types(), st.sampled_from(DTYPES).map(ScalarType),
        st.sampled_from(DTYPES).map(ScalarType).map(SequenceType),
        st.builds(SequenceType, tensor_types(), st.none() | st.integers(0, 9)),
        st.builds(OptionalType, tensor_types(), st.none() | st.just(0)), st.binary(min_size=32, max_size=32).map(
            lambda b: Resource(b.hex())), DIMS,
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def known(value: object) -> bool:
    """Whether a value equals what it is read back as: no NaN (which equals nothing)."""
    if isinstance(value, tuple):
        return all(map(known, value))
    if isinstance(value, dict):
        return all(map(known, value.values()))
    return not (isinstance(value, float) and math.isnan(value))


@given(values)
def test_attribute_reads_back(value: object):
    m = module(meta=value)
    text = print_op(m)
    again = parse(text)
    assert print_op(again) == text
    generic = print_op(m, generic=True)
    assert print_op(parse(generic), generic=True) == generic
    if known(value):
        assert again.meta == value
        assert repr(again.meta) == repr(value)


def test_nan_keeps_its_bits():
    text = print_attr(math.nan)
    assert text == "0x7FF8000000000000 : f64"
    assert math.isnan(parse(f"builtin.module() {{meta = {text}}} ({{ ^a: }}) : () -> ()").meta)


@given(st.text())
def test_strings_and_locations_read_back(text: str):
    m = module(target=text)
    m.loc = (text, "b")
    assert parse(print_op(m)).loc == (text, "b")
    assert parse(print_op(m, generic=True)).target == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(n", "the expression `(n` is not readable at character 3: found the end of the text, expected"),
        ("n floordiv 0", "divides by 0"),
        ("n +* 2", "at character 4: found `* 2`"),
        ("n n", "found `n`, expected"),
    ],
)
def test_bad_expressions(text: str, message: str):
    with pytest.raises(IRError, match=r".") as e:
        parse_expr(text)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensor<?xf32>", "1 dims `?` and 0 in dims"),
        ("tensor<2x3xf33>", "there is no element type f33"),
        ('tensor<2xf32, #tcc.enc<"strides=[1, 1]">>', "1 dims and 2 strides"),
        ('tensor<2xf32, #tcc.enc<"align=x">>', "expected an integer"),
        ("tensor<2x3>", "is not readable"),
    ],
)
def test_bad_types(text: str, message: str):
    with pytest.raises(IRError) as e:
        parse_tensor_type(text)
    assert message in str(e.value)


def test_dense_writes_constants_out():
    assert parse_dense("2x2xf32: 1, -2.5, inf, 0").tolist() == [[1.0, -2.5], [math.inf, 0.0]]
    assert parse_dense("3xi64: 7").tolist() == [7, 7, 7]
    assert parse_dense("i1: true").shape == ()
    assert (parse_dense("4x4xf16: random 1") == parse_dense("4x4xf16: random 1")).all()
    assert parse_dense("0x3xf32: 1").shape == (0, 3)
    for bad in ("2xf32: 1, 2, 3", "?xf32: 1", "2xf32", "2xi8: a, b", "2xf99: 1, 2"):
        with pytest.raises(IRError):
            parse_dense(bad)


def test_string_tensors_have_a_type():
    assert str(parse_tensor_type("tensor<4x!tcc.string>")) == "tensor<4x!tcc.string>"
    assert parse_tensor_type("tensor<!tcc.string>").dtype is STRING
