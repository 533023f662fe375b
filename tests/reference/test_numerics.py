# SPDX-License-Identifier: Apache-2.0
"""The rules on types and edges that the conformance data does not pin down."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tcc import reference as ref

BF16 = np.dtype(ml_dtypes.bfloat16)
SMALL = [np.dtype(np.float16), BF16]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


CALLS: dict[str, Any] = {
    "conv": lambda t: ref.conv(t(2, 4, 6, 5), t(6, 2, 3, 3), t(6), pads=[1, 1, 1, 1], group=2),
    "depthwise": lambda t: ref.conv(t(1, 4, 6, 5), t(8, 1, 3, 2), t(8), strides=[2, 1], group=4),
    "conv_transpose": lambda t: ref.conv_transpose(t(1, 4, 5, 3), t(4, 3, 3, 3), t(3), strides=[2, 2]),
    "deform_conv": lambda t: ref.deform_conv(t(1, 2, 5, 5), t(3, 2, 2, 2), t(1, 8, 4, 4)),
    "matmul": lambda t: ref.matmul(t(3, 70), t(70, 5)),
    "gemm": lambda t: ref.gemm(t(70, 3), t(5, 70), t(5), transA=1, transB=1, alpha=0.7, beta=1.3),
    "einsum": lambda t: ref.einsum(t(3, 40), t(40, 5), equation="ij,jk->ki"),
    "average_pool": lambda t: ref.average_pool(t(1, 2, 7, 7), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "lp_pool": lambda t: ref.lp_pool(t(1, 2, 7, 7), kernel_shape=[3, 3], p=3),
    "global_average_pool": lambda t: ref.global_average_pool(t(2, 3, 9, 9)),
    "batch_normalization": lambda t: ref.batch_normalization(t(2, 3, 4), t(3), t(3), t(3), ref.abs(t(3))),
    "layer_normalization": lambda t: ref.layer_normalization(t(4, 33), t(33), t(33))[0],
    "group_normalization": lambda t: ref.group_normalization(t(2, 4, 5), t(4), t(4), num_groups=2),
    "rms_normalization": lambda t: ref.rms_normalization(t(4, 33), t(33)),
    "lrn": lambda t: ref.lrn(t(2, 7, 3), size=4, alpha=0.1),
    "softmax": lambda t: ref.softmax(t(4, 33)),
    "log_softmax": lambda t: ref.log_softmax(t(4, 33), axis=0),
    "reduce_sum": lambda t: ref.reduce_sum(t(4, 99), [1]),
    "reduce_log_sum_exp": lambda t: ref.reduce_log_sum_exp(t(4, 99), [1]),
    "cum_sum": lambda t: ref.cum_sum(t(4, 50), 1),
    "resize": lambda t: ref.resize(t(1, 1, 5, 7), scales=[1, 1, 1.7, 0.6], mode="cubic", antialias=1),
    "gelu": lambda t: ref.gelu(t(50)),
    "mish": lambda t: ref.mish(t(50)),
    "erf": lambda t: ref.erf(t(50)),
    "attention": lambda t: ref.attention(t(1, 4, 6, 8), t(1, 2, 9, 8), t(1, 2, 9, 8), is_causal=1)[0],
    "lstm": lambda t: ref.lstm(t(4, 2, 3), t(1, 20, 3), t(1, 20, 5), t(1, 40))[0],
    "grid_sample": lambda t: ref.grid_sample(t(1, 2, 5, 5), t(1, 4, 4, 2)),
    "sum": lambda t: ref.sum(t(9), t(9), t(9)),
}


@pytest.mark.parametrize("name", CALLS)
def test_float64_is_float64_all_the_way(name: str) -> None:
    seeds = iter(range(9))
    exact = CALLS[name](lambda *s: values(*s, seed=next(seeds)))
    assert exact.dtype == np.float64
    seeds = iter(range(9))
    # Inputs that float32 holds exactly: the float64 result must carry more than float32 does.
    rounded = CALLS[name](lambda *s: values(*s, seed=next(seeds)).astype(np.float32).astype(np.float64))
    seeds = iter(range(9))
    single = CALLS[name](lambda *s: values(*s, seed=next(seeds)).astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, rounded, rtol=1e-4, atol=1e-5)
    assert np.any(rounded != single.astype(np.float64))


@pytest.mark.parametrize("dtype", SMALL, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_small_floats_round_once(name: str, dtype: np.dtype[Any]) -> None:
    seeds = iter(range(9))
    small = CALLS[name](lambda *s: values(*s, seed=next(seeds)).astype(dtype))
    seeds = iter(range(9))
    wide = CALLS[name](lambda *s: values(*s, seed=next(seeds)).astype(dtype).astype(np.float32))
    assert small.dtype == dtype
    assert np.array_equal(small, wide.astype(dtype), equal_nan=True)


def test_integer_division_truncates() -> None:
    a, b = np.array([7, -7, 7, -7, -8, 5], np.int32), np.array([2, 2, -2, -2, 2, 0], np.int32)
    assert ref.div(a, b).tolist() == [3, -3, -3, 3, -4, 0]
    assert ref.div(a, b).dtype == np.int32
    assert ref.div(np.array([200], np.uint8), np.array([3], np.uint8)).tolist() == [66]


def test_mod() -> None:
    a, b = np.array([7, -7, 7, -7], np.int8), np.array([3, 3, -3, -3], np.int8)
    assert ref.mod(a, b).tolist() == [1, 2, -2, -1]
    assert ref.mod(a, b, fmod=1).tolist() == [1, -1, 1, -1]
    x, y = np.array([0.0, -0.0, 1.0, -1.0, np.inf, 1.0]), np.array([-2.0, 2.0, np.inf, np.inf, 2.0, 0.0])
    result = ref.mod(x, y)
    assert np.signbit(result[:2]).tolist() == [True, False]
    np.testing.assert_array_equal(result, [-0.0, 0.0, 1.0, np.inf, np.nan, np.nan])


def test_pow_of_integers() -> None:
    base = np.array([2, -1, -1, 1, 3, 0], np.int32)
    assert ref.pow(base, np.array([10, -3, -2, -5, -1, 0], np.int64)).tolist() == [1024, -1, 1, 1, 0, 1]
    assert ref.pow(np.array([3], np.uint64), np.array([40], np.int64)).tolist() == [3**40]
    assert ref.pow(np.array([9], np.int32), np.array([0.5], np.float32)).tolist() == [3]
    assert ref.pow(np.array([2.0], np.float32), np.array([-2], np.int32)).dtype == np.float32


def test_nan_propagates() -> None:
    nan = np.array([np.nan, 1.0], np.float32)
    one = np.ones(2, np.float32)
    for result in (ref.max(nan, one), ref.min(one, nan), ref.clip(nan, np.float32(0), np.float32(2)), ref.relu(nan)):
        assert np.isnan(result[0])
        assert result[1] == 1
    assert np.isnan(ref.reduce_max(nan))
    pooled, index = ref.max_pool(np.array([[[1, np.nan, 3, np.nan]]], np.float32), kernel_shape=[4])
    assert np.isnan(pooled).all()
    assert index.tolist() == [[[1]]]


def test_clip_bounds_crossed() -> None:
    x = np.array([-5, 0, 5], np.int8)
    assert ref.clip(x, np.int8(3), np.int8(1)).tolist() == [1, 1, 1]
    assert ref.clip(x, None, np.int8(1)).tolist() == [-5, 0, 1]


def test_round_half_to_even() -> None:
    assert ref.round(np.array([0.5, 1.5, 2.5, -2.5, 3.5])).tolist() == [0, 2, 2, -2, 4]


def test_cast_float_to_integer_saturates() -> None:
    x = np.array([1e30, -1e30, np.nan, 2.9, -2.9, 255.5], np.float32)
    assert ref.cast(x, to=np.uint8).tolist() == [255, 0, 0, 2, 0, 255]
    assert ref.cast(x, to=np.int64).tolist() == [2**63 - 1, -(2**63), 0, 2, -2, 255]
    assert ref.cast(x, to=np.uint64).tolist() == [2**64 - 1, 0, 0, 2, 0, 255]
    assert ref.cast(x, to=bool).all()


def test_cast_integer_to_integer_wraps() -> None:
    assert ref.cast(np.array([200, -200, 70000], np.int32), to=np.int8).tolist() == [-56, 56, 112]
    assert ref.cast(np.array([2**63 - 1], np.int64), to=np.uint64).tolist() == [2**63 - 1]


def test_cast_e8m0_rounding() -> None:
    x = np.array([1.0, 1.25, 1.5, 1.75, 3.0, 0.0, np.inf, np.nan], np.float32)
    e8m0 = ml_dtypes.float8_e8m0fnu

    def powers(**kw: Any) -> list[float]:
        return ref.cast(x, to=e8m0, **kw).astype(np.float64).tolist()

    assert powers(round_mode="up")[:6] == [1, 2, 2, 2, 4, 2.0**-127]
    assert powers(round_mode="down")[:5] == [1, 1, 1, 1, 2]
    assert powers(round_mode="nearest")[:5] == [1, 1, 2, 2, 4]
    assert powers()[6] == 2.0**127
    assert np.isnan(powers()[7])
    assert np.isnan(powers(saturate=0, round_mode="nearest")[5:]).all()


def test_cast_strings() -> None:
    x = np.array(["3.14", "1E3", "-INF", "nan", "9007199254740993"], object)
    result = ref.cast(x, to=np.float32)
    np.testing.assert_array_equal(result, np.array([3.14, 1000, -np.inf, np.nan, 2**53], np.float32))
    assert ref.cast(x[4:], to=np.int64).tolist() == [2**53 + 1]
    text = ref.cast(np.array([3.14, np.inf, -np.inf, np.nan], np.float32), to=object)
    assert text.tolist() == ["3.14", "INF", "-INF", "NaN"]


def test_erf_is_accurate() -> None:
    x = np.linspace(-6.5, 6.5, 2001)
    assert np.max(np.abs(ref.erf(x) - [math.erf(v) for v in x])) <= 2.3e-16
    assert ref.erf(np.array([1e-300])).tolist() == [math.erf(1e-300)]


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_bit_shift(direction: str, dtype: type) -> None:
    info = np.iinfo(dtype)
    xs = [int(info.min), int(info.max), 1, 100, int(info.min) // 2]
    amounts = [0, 1, info.bits - 1, info.bits, 120] + ([-1] if info.min < 0 else [])
    x, y = np.array(xs, dtype)[:, None], np.array(amounts, dtype)

    def exact(v: int, n: int) -> int:
        if not 0 <= n < info.bits:
            return -1 if direction == "RIGHT" and v < 0 else 0
        shifted = v >> n if direction == "RIGHT" else v << n
        return int(np.array(shifted % 2**info.bits, np.uint64).astype(dtype))

    assert ref.bit_shift(x, y, direction=direction).tolist() == [[exact(v, n) for n in amounts] for v in xs]


def test_empty_tensors() -> None:
    none = np.zeros((0, 3), np.float32)
    assert ref.softmax(none).shape == (0, 3)
    assert ref.reduce_sum(none, [0]).tolist() == [[0, 0, 0]]
    assert ref.reduce_max(none, [0], keepdims=0).tolist() == [-np.inf] * 3
    assert ref.reduce_min(np.zeros((0,), np.int8)).tolist() == [127]
    assert ref.reduce_prod(none, [0]).tolist() == [[1, 1, 1]]
    assert np.isneginf(ref.reduce_log_sum_exp(none, [0])).all()
    assert np.isnan(ref.reduce_mean(none, [0])).all()
    assert ref.matmul(np.zeros((2, 0)), np.zeros((0, 3))).tolist() == [[0.0] * 3] * 2
    assert ref.matmul(np.zeros((2, 0), np.int8), np.zeros((0, 3), np.int8)).dtype == np.int8
    assert ref.concat(none, np.ones((1, 3), np.float32), axis=0).shape == (1, 3)
    assert ref.conv(np.zeros((0, 2, 5, 5), np.float32), np.zeros((3, 2, 3, 3), np.float32)).shape == (0, 3, 3, 3)
    assert ref.slice(none, [0], [9], [0], [-1]).shape == (0, 3)
    assert ref.non_zero(none).shape == (2, 0)
    assert ref.gather(none, np.zeros((0,), np.int64), axis=1).shape == (0, 0)
    assert ref.non_max_suppression(np.zeros((1, 0, 4), np.float32), np.zeros((1, 2, 0), np.float32), 3).shape == (0, 3)


def test_rank_zero() -> None:
    x = np.array(3.0, np.float32)
    for result in (
        ref.add(x, x),
        ref.exp(x),
        ref.reduce_sum(x),
        ref.cast(x, to=np.int32),
        ref.relu(x),
        ref.where(x > 1, x, x),
    ):
        assert isinstance(result, np.ndarray)
        assert result.shape == ()
    assert ref.reduce_sum(x, np.zeros(0, np.int64), noop_with_empty_axes=1) == 3
    assert ref.unsqueeze(x, [0, 1]).shape == (1, 1)
    assert ref.gather(np.arange(4), np.array(-1)).shape == ()
    assert ref.reshape(x, [1, 1]).shape == (1, 1)


def test_integer_matmul_is_exact() -> None:
    rng = np.random.default_rng(0)
    big = rng.integers(-(2**40), 2**40, (3, 50))
    other = rng.integers(-(2**20), 2**20, (50, 4))
    expected = [[sum(int(a) * int(b) for a, b in zip(r, c, strict=True)) for c in other.T] for r in big]
    assert ref.matmul(big, other).tolist() == expected
    a = np.full((1, 200000), 255, np.uint8)
    wrapped = ref.matmul_integer(a, a.T)
    assert wrapped.tolist() == [[(255 * 255 * 200000 + 2**31) % 2**32 - 2**31]]
    assert ref.matmul(np.full((1, 9), 100, np.int8), np.full((9, 1), 100, np.int8)).tolist() == [
        [np.int32(90000).astype(np.int8)]
    ]


def test_lrn_of_even_size() -> None:
    x = values(1, 6, 2)
    size, expected = 4, np.empty_like(x)
    for c in range(6):
        low, high = max(0, c - (size - 1) // 2), min(5, c + math.ceil((size - 1) / 2))
        total = np.square(x[:, low : high + 1]).sum(axis=1)
        expected[:, c] = x[:, c] / (2 + 0.5 / size * total) ** 0.6
    np.testing.assert_allclose(ref.lrn(x, size=size, alpha=0.5, beta=0.6, bias=2.0), expected, rtol=1e-12)


def test_conv_transpose_is_the_adjoint_of_conv() -> None:
    x, w = values(2, 6, 9, 8), values(4, 3, 3, 2, seed=1)
    attributes: dict[str, Any] = {"strides": [2, 3], "pads": [1, 0, 2, 1], "dilations": [2, 1], "group": 2}
    y = ref.conv(x, w, **attributes)
    g = values(*y.shape, seed=2)
    extra = [9 - ref.conv_transpose(g, w, **attributes).shape[2], 8 - ref.conv_transpose(g, w, **attributes).shape[3]]
    back = ref.conv_transpose(g, w, output_padding=extra, **attributes)
    assert np.sum(y * g) == pytest.approx(np.sum(x * back), rel=1e-12)


def test_max_pool_indices_point_at_the_maxima() -> None:
    x = values(2, 3, 5, 6, 4)
    for order in (0, 1):
        y, index = ref.max_pool(
            x, kernel_shape=[2, 3, 2], strides=[1, 2, 2], pads=[1, 1, 0, 0, 1, 1], ceil_mode=1, storage_order=order
        )
        flat = x if order == 0 else x.transpose(0, 1, 4, 3, 2)
        assert np.array_equal(flat.reshape(-1)[index], y)


def test_resize_ratios_are_exact() -> None:
    # Float rounding of 7 / 5 must not move a sample off its pixel.
    for out in range(1, 40):
        x = np.arange(7.0).reshape(1, 1, 7)
        y = ref.resize(x, sizes=[1, 1, out], coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        assert y.reshape(-1).tolist() == [7 * i // out for i in range(out)]


@pytest.mark.parametrize("window", [1, 2, 7, 64])
def test_stft_agrees_with_dft(window: int) -> None:
    x = values(2, 64, 1)
    frames = ref.stft(x, 3, None, window)
    assert frames.shape == (2, (64 - window) // 3 + 1, window // 2 + 1, 2)
    one = ref.dft(x[:, 3 : 3 + window], axis=1, onesided=1) if window < 64 else ref.dft(x, axis=1, onesided=1)
    np.testing.assert_allclose(frames[:, 1 if window < 64 else 0], one, atol=1e-12)


BAD: dict[str, tuple[Any, str]] = {
    "axis": (lambda: ref.softmax(np.zeros((2, 3)), axis=2), "axis 2 is outside"),
    "reshape": (lambda: ref.reshape(np.zeros(6), [4, -1]), "cannot be reshaped"),
    "gather": (lambda: ref.gather(np.zeros(3), np.array([3])), "index 3 is outside"),
    "split": (lambda: ref.split(np.zeros(3), [1, 1]), "does not add up to 3"),
    "conv": (lambda: ref.conv(np.zeros((1, 3, 4, 4)), np.zeros((2, 2, 3, 3))), "X has 3 channels"),
    "kernel": (lambda: ref.conv(np.zeros((1, 2, 2, 4)), np.zeros((2, 2, 3, 3))), "does not fit"),
    "group": (lambda: ref.conv(np.zeros((1, 4, 4, 4)), np.zeros((3, 2, 3, 3)), group=2), "group 2 does not divide"),
    "pads": (lambda: ref.pad(np.zeros((2, 2)), [1, 1]), "4 are needed"),
    "mode": (lambda: ref.pad(np.zeros(2), [1, 1], mode="mirror"), "'mirror'"),
    "resize": (lambda: ref.resize(np.zeros((2, 2))), "exactly one of scales and sizes"),
    "top_k": (lambda: ref.top_k(np.zeros(3), 4), "k 4 is outside"),
    "heads": (lambda: ref.attention(np.zeros((1, 3, 2, 4)), *[np.zeros((1, 2, 2, 4))] * 2), "not a multiple"),
    "einsum": (lambda: ref.einsum(np.zeros((2, 3)), np.zeros((2, 3)), equation="ij,jk->ik"), "."),
    "lstm": (lambda: ref.lstm(np.zeros((2, 1, 3)), np.zeros((1, 5, 3)), np.zeros((1, 20, 5))), "W of shape"),
    "shift": (lambda: ref.bit_shift(np.zeros(1, int), np.zeros(1, int), direction="UP"), "'UP'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_value_error(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message.replace(".", r"\.") if message != "." else "."):
        call()


def test_inputs_are_left_alone() -> None:
    data, index, update = np.zeros((3, 4)), np.array([[1], [2]]), np.ones((2, 4))
    ref.scatter_nd(data, index, update, reduction="add")
    ref.scatter_elements(data, np.zeros((1, 4), np.int64), np.ones((1, 4)))
    ref.tensor_scatter(data[None], np.ones((1, 1, 4)))
    assert not data.any()
