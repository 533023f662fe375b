# SPDX-License-Identifier: Apache-2.0
"""The emitter library: index expressions, accesses, regions, literals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.codegen.cuda.emit import Unit, build_access, c_index, emit_region, fits32, flatten, literal
from tcc.codegen.cuda.emit.index import rewrite
from tcc.codegen.cuda.emit.order import by_stride, mergeable
from tcc.ir import arith
from tcc.ir.attributes import IndexMap
from tcc.ir.expr import Sym, add, evaluate, floordiv, mod, mul, substitute
from tcc.ir.kernel import Index
from tcc.ir.kernel.build import dense, scalar_region
from tcc.ir.targets import target
from tcc.ir.types import BOOL, F16, F32, F64, I8, I32, I64, U32, U64, TensorType
from tests.codegen.cuda import builders

I, J = Sym("i"), Sym("j")
RANGES = {"i": (0, 23), "j": (0, 9)}


def test_index_text_is_32_bits_where_that_holds_every_value():
    assert c_index(I * 10 + J + 3, {"i": "x_i", "j": "x_j"}, RANGES) == "(x_i * 10 + x_j + 3)"
    assert fits32(I * 10**7, RANGES) and not fits32(I * 10**9, RANGES)
    assert c_index(I * 10**9, {"i": "x_i"}, RANGES) == "((long long)(x_i) * 1000000000ll)"


def test_division_is_unsigned_only_where_the_dividend_is_not_negative():
    assert c_index(floordiv(I, 7), {"i": "x"}, RANGES) == "(int)((unsigned)(x) / 7u)"
    assert c_index(floordiv(J - I, 7), {"i": "x", "j": "y"}, RANGES).startswith("tcc::floor_div(")


@given(st.data())
def test_rewriting_with_a_vector_split_keeps_the_value(data):
    width = data.draw(st.sampled_from([2, 4, 8]))
    e = data.draw(st.sampled_from([I, I + J * 24, I * 3 + 5, I + 8]))
    for _ in range(data.draw(st.integers(1, 3))):
        n = data.draw(st.sampled_from([2, 3, 4, 6, 8, 12, 16, 24]))
        e = data.draw(st.sampled_from([floordiv, mod]))(e, n) if data.draw(st.booleans()) else add(mul(e, n), I)
    q, r = Sym("q"), Sym("r")
    ranges = {**RANGES, "q": (0, 24 // width - 1), "r": (0, width - 1)}
    got = rewrite(e, {"i": add(mul(q, width), r)}, ranges)
    for qv, rv, jv in itertools.product(range(24 // width), range(width), range(10)):
        wanted = evaluate(e, {"i": qv * width + rv, "j": jv})
        assert evaluate(got, {"q": qv, "r": rv, "j": jv}) == wanted


def test_rewriting_takes_small_remainders_out_of_divisions():
    q, r = Sym("q"), Sym("r")
    ranges = {"q": (0, 99), "r": (0, 7)}
    assert rewrite(mod(I, 24), {"i": q * 8 + r}, ranges) == mod(q, 3) * 8 + r
    assert rewrite(floordiv(I, 24), {"i": q * 8 + r}, ranges) == floordiv(q, 3)


def test_flattened_dims_merge_back_where_memory_is_dense():
    env = flatten([("a", 3), ("b", 4), ("c", 5)], "f")
    ranges = {"f": (0, 59)}
    dense_offset = substitute(add(mul(Sym("a"), 20), add(mul(Sym("b"), 5), Sym("c"))), env, ranges)
    assert dense_offset == Sym("f")
    for f, (a, b, c) in enumerate(itertools.product(range(3), range(4), range(5))):
        assert [evaluate(env[d], {"f": f}) for d in "abc"] == [a, b, c]


def access(shape, results, fill=None, dtype=F16, strides=None, align=64, zero=(), ranges=None):
    t = TensorType(tuple(shape), dtype, strides, align)
    return build_access("p0", 0, t, IndexMap(tuple(results), fill, tuple(zero)), ranges or {"i": (0, 23), "j": (0, 9)})


def test_vectors_need_unit_stride_alignment_and_guards_that_do_not_split_them():
    assert access((10, 24), (J, I)).pattern("i", 8) == "vector"
    assert access((10, 24), (J, I)).pattern("j", 8) == "scalar"
    assert access((10,), (J,)).pattern("i", 8) == "broadcast"
    assert access((10, 24), (J, I), align=8).pattern("i", 8) == "scalar"
    assert access((10, 24), (J, I), align=8).pattern("i", 4) == "vector"
    assert access((10, 24), (J, I), strides=(25, 1)).pattern("i", 2) == "scalar"
    assert access((10, 24), (J - 1, I), fill=0.0).pattern("i", 8) == "vector"
    assert access((10, 24), (J, I - 8), fill=0.0).pattern("i", 8) == "scalar"
    assert access((10, 3, 8), (J, floordiv(I, 8), mod(I, 8))).pattern("i", 8) == "vector"
    assert access((10, 12), (J, floordiv(I, 2))).pattern("i", 2) == "broadcast"
    assert access((10, 24), (J, I), strides=(25, 1)).neighbours("i")


def test_guards_are_only_the_ones_that_can_fail():
    a = access((10, 24), (J - 1, I), fill=0.0)
    assert [(g.below, g.above) for g in a.guards] == [(True, False)]
    assert a.condition({"i": "x", "j": "y"}) == "(y - 1) >= 0"
    assert access((10, 24), (J, I)).condition({}) is None
    both = access((8, 24), (J - 1, I), fill=0.0)
    assert both.condition({"j": "y"}) == "(unsigned)((y - 1)) < 8u"
    holes = access((10, 24), (J, I), fill=0.0, zero=(mod(I, 2),))
    assert holes.condition({"i": "x"}) is not None and holes.pattern("i", 2) == "scalar"


def test_strides_and_order():
    a = access((24, 10), (I, J))
    assert (a.stride("i"), a.stride("j"), a.stride("k")) == (10, 1, 0)
    assert by_stride(a, ("j", "i")) == ("i", "j")
    assert mergeable([a], "i", "j", 10) and not mergeable([a], "j", "i", 24)


def test_literals():
    assert literal(0.1, F32) == "0.100000001f"
    assert literal(1, F32) == "1.0f"
    assert literal(-0.0, F32) == "(-0.0f)"
    assert literal(0.1, F64) == "0.1"
    assert literal(float("nan"), F16) == "tcc::nan32()"
    assert literal(float("-inf"), F64) == "(-tcc::inf64())"
    assert literal(1e300, F32) == "tcc::inf32()"
    assert literal(-(2**31), I32) == "(-2147483647 - 1)"
    assert literal(-(2**63), I64) == "(-9223372036854775807ll - 1)"
    assert literal(2**64 - 1, U64) == "18446744073709551615ull"
    assert literal(7, U32) == "7u"
    assert literal(-3, I8) == "-3"
    assert literal(1, BOOL) == "true"


def test_regions_become_device_functions():
    def body(b, a):
        v = b(arith.Add(a[0], b.cast(b(Index(dim="n")), F32)))
        return [b.cast(v, I8), b(arith.Max(v, a[0]))]

    made = emit_region(scalar_region([F32], body), "f")
    assert made.text.startswith(
        "__device__ __forceinline__ void f(signed char& r0, float& r1, const float a0, const long"
    )
    assert "tcc::cast<tcc::i8, tcc::f32>" in made.text and "tcc::arith_max<float>(" in made.text
    assert made.call(["x", "y"], ["z"], {"n": "n0"}) == "f(x, y, z, n0);"


def test_a_unit_names_buffers_and_drops_dims_of_one_point():
    problem = builders.matmul((1,), 5, 8, 16, F16, bias=True)
    unit = Unit(problem, target("sm_90"), "kernel")
    assert unit.operand(0).pointer == "p0" and unit.result(0).pointer == "r0"
    assert not unit.operand(0).uses("b0")
    assert [unit.operand(i).constant for i in range(3)] == [False, True, True]
    launch = unit.launch((1, 1, 1), 64)
    assert launch.pdl and launch.reads == (0, 1, 2) and launch.writes == (3,)
    assert not Unit(problem, target("sm_80"), "kernel").launch((1, 1, 1), 64).pdl
    assert "#define TCC_PDL" in unit.source("naive.cuh") and "cuda_bf16" not in unit.source("naive.cuh")


@pytest.mark.parametrize("fill", [0.0, 1.5])
def test_reads_out_of_range_give_the_fill(fill):
    a = access((10, 24), (J - 1, I), fill=fill, dtype=F32)
    assert a.read({"i": "x", "j": "y"}).endswith(f" : {literal(fill, F32)}")
    assert np.float32(fill) == np.float32(eval(literal(fill, F32).rstrip("f")))


def test_operands_of_packings_are_read_through_the_packed_map():
    problem = builders.conv(1, 8, 8, 16, 1, 1, 3, F16)
    unit = Unit(problem, target("sm_90"), "kernel")
    assert unit.operand(1).stride("g") == 9
    unit.replace_operand(1, dense((3, 3, 16), F16), IndexMap((Sym("ky"), Sym("kx"), Sym("g"))))
    assert unit.operand(1).stride("g") == 1 and unit.operand(1).pattern("g", 8) == "vector"
