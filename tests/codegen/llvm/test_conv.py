# SPDX-License-Identifier: Apache-2.0
"""`llvm.conv` and `llvm.depthwise`: windows, layouts, types, epilogues and configs against the oracle."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, load_templates
from tcc.ir import arith
from tcc.ir.attributes import IndexMap
from tcc.ir.kernel.build import dense
from tcc.ir.types import BF16, F16, F32, F64, I8, I32, TensorType
from tests.codegen.llvm import contractions as c
from tests.codegen.llvm.contractions import conv
from tests.codegen.llvm.harness import V2, V3, V4, check, random, widest
from tests.codegen.llvm.problems import const

CONV, DEPTHWISE = "llvm.conv", "llvm.depthwise"
runs = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
n_, oy, ox, g, co, ci = c.dims("n", "oy", "ox", "g", "co", "ci")


def arrays(f, seed=0):
    rng = np.random.default_rng(seed)
    return [random(rng, t) for t in f.arg_types]


def check_some(f, name, count, t=None, seed=0):
    t = t or widest()
    data = arrays(f, seed)
    for config in c.configs(f, name, t, count, seed):
        check(f, data, name, config, t)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"pads": (0, 0)},
        {"stride": (2, 2), "batch": 2},
        {"stride": (1, 2), "dilation": (2, 1), "pads": (2, 0)},
        {"kernel": (1, 1), "pads": (0, 0), "batch": 2},
        {"kernel": (1, 1), "pads": (0, 0), "stride": (2, 2)},
        {"kernel": (7, 8), "pads": (0, 0)},
        {"kernel": (1, 5), "pads": (0, 2), "size": (1, 20)},
        {"kernel": (7, 7), "pads": (3, 3), "stride": (2, 2), "size": (15, 13), "ci": 3},
        {"kernel": (4, 4), "pads": (0, 0), "stride": (4, 4), "size": (12, 16), "ci": 3, "co": 40},
        {"groups": 2, "ci": 6, "co": 20},
        {"groups": 4, "ci": 4, "co": 8},
        {"ci": 1, "co": 1},
    ],
    ids=str,
)
def test_forms(form, constant):
    check_some(conv(**form, constant=constant), CONV, 4)


@pytest.mark.parametrize(
    "form", [{}, {"stride": (2, 2), "ci": 3}, {"kernel": (1, 1), "pads": (0, 0), "ci": 33}], ids=str
)
def test_channels_first(form):
    check_some(conv(**form, layout="nchw"), CONV, 4)


def test_three_spatial_dims():
    three = {"kernel": (3, 2, 3), "stride": (1, 1, 2), "dilation": (1, 1, 1), "pads": (1, 0, 1)}
    check_some(conv((5, 4, 6), ci=4, co=17, **three), CONV, 4)


@pytest.mark.parametrize("t", runs, ids=lambda t: t.name)
@pytest.mark.parametrize(
    "form", [{"size": (5, 6), "ci": 6, "co": 21}, {"stride": (2, 2), "size": (9, 7), "ci": 4, "co": 33}], ids=str
)
def test_many_configs(form, t):
    check_some(conv(**form, extra=[(dense((form["co"],), F32), IndexMap((g * form["co"] + co,)))]), CONV, 20, t)


@pytest.mark.parametrize("dtype", [F16, BF16, F64])
@pytest.mark.parametrize("name", [CONV, DEPTHWISE])
def test_float_types(dtype, name):
    channels = {"ci": 18, "co": 18, "groups": 18} if name == DEPTHWISE else {}
    check_some(conv(dtype=dtype, acc=F64 if dtype is F64 else F32, **channels), name, 3)


@pytest.mark.parametrize("name", [CONV, DEPTHWISE])
def test_integers(name):
    channels = {"ci": 18, "co": 18, "groups": 18} if name == DEPTHWISE else {}
    f = conv(dtype=I8, acc=I32, fill=0, out=dense((1, 7, 8, 18), I32), **channels)
    check_some(f, name, 3)


def test_padding_that_is_not_zero():
    check_some(conv(fill=1.5), CONV, 4)


def test_prologue_with_a_scale_per_channel():
    """What squeeze-and-excite leaves: x·s(n, c), 0 outside."""
    f = conv(
        scales=[(dense((2, 5), F32), IndexMap((n_, g * 5 + ci)))],
        lhs_body=lambda b, a: b(arith.Mul(a[0], a[1])),
        batch=2,
    )
    check_some(f, CONV, 4)


def _residual(b, a):
    return b(arith.Max(b(arith.Add(b(arith.Add(a[0], a[1])), a[2])), const(b, 0.0)))


@pytest.mark.parametrize("name", [CONV, DEPTHWISE])
def test_residual_into_a_slice_of_a_buffer(name):
    channels = {"ci": 20, "co": 20, "groups": 20} if name == DEPTHWISE else {"co": 20}
    group = 1 if name == DEPTHWISE else 20
    channel = g * group + co
    f = conv(
        **channels,
        batch=2,
        extra=[
            (dense((20,), F32), IndexMap((channel,))),
            (TensorType((2, 7, 8, 20), F32, (7 * 8 * 25, 8 * 25, 25, 1), 4), IndexMap((n_, oy, ox, channel))),
        ],
        epilogue=_residual,
        out=TensorType((2, 7, 8, 20), F32, (7 * 8 * 31, 8 * 31, 31, 1), 16),
    )
    check_some(f, name, 5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", [CONV, DEPTHWISE])
def test_random(seed, name):
    rng = np.random.default_rng(seed)

    def pick(low, high):
        return int(rng.integers(low, high + 1))

    channels = pick(3, 40)
    deep = name == DEPTHWISE
    width = channels if deep else pick(1, 40)
    kernel, pads = (pick(1, 4), pick(1, 5)), (pick(0, 2), pick(0, 2))
    group = 1 if deep else width
    size = (pick(5, 11), pick(5, 17))
    f = conv(
        size,
        channels,
        width,
        kernel,
        (pick(1, 2), pick(1, 2)),
        (1, 1),
        pads,
        channels if deep else 1,
        pick(1, 2),
        extra=[(dense((width,), F32), IndexMap((g * group + co,)))],
        epilogue=c.random_body(seed),
    )
    check_some(f, name, 3, seed=seed)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"kernel": (5, 5), "pads": (2, 2), "size": (7, 7)},
        {"stride": (2, 2), "batch": 2, "size": (9, 11)},
        {"stride": (1, 3), "dilation": (2, 2), "pads": (2, 1)},
        {"kernel": (1, 1), "pads": (0, 0)},
        {"kernel": (7, 1), "pads": (3, 0)},
        {"kernel": (7, 8), "pads": (0, 0)},
        {"kernel": (9, 9), "pads": (4, 4), "size": (3, 5)},
    ],
    ids=str,
)
def test_depthwise(form, constant):
    check_some(conv(**form, ci=21, co=21, groups=21, constant=constant), DEPTHWISE, 5)


@pytest.mark.parametrize("t", runs, ids=lambda t: t.name)
@pytest.mark.parametrize("form", [{"size": (5, 9)}, {"stride": (2, 2), "size": (8, 15)}], ids=str)
def test_depthwise_many_configs(form, t):
    check_some(conv(**form, ci=37, co=37, groups=37), DEPTHWISE, 20, t)


def test_depthwise_also_fits_the_general_template():
    check_some(conv(ci=7, co=7, groups=7), CONV, 3)
    check_some(conv(ci=7, co=14, groups=7), CONV, 3)


def test_there_are_many_configs():
    load_templates("cpu")
    for name, f in (
        (CONV, conv((14, 14), 64, 64)),
        (CONV, conv((56, 56), 64, 256, (1, 1), pads=(0, 0))),
        (DEPTHWISE, conv((14, 14), 64, 64, groups=64)),
    ):
        columns, _ = TEMPLATES[name].legal_columns(f, V4)
        assert len(next(iter(columns.values()))) >= 30


def test_refusals():
    load_templates("cpu")
    d = TEMPLATES[DEPTHWISE]
    assert "more than one channel" in (d.accepts(conv(), V4) or "")
    assert "not 0" in (d.accepts(conv(ci=4, co=4, groups=4, fill=1.0), V4) or "")
    assert "innermost" in (d.accepts(conv(ci=4, co=4, groups=4, layout="nchw"), V4) or "")
    assert "accumulates in" in (TEMPLATES[CONV].accepts(conv(acc=F16), V4) or "")
