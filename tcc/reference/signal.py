# SPDX-License-Identifier: Apache-2.0
"""Signal processing: discrete Fourier transforms, window functions, mel weights.

Complex tensors are real ones whose last dim holds (real, imaginary).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, ieee, narrow, one_axis, scalar, widen


def _complex(x: Array) -> Array:
    if x.shape[-1] == 1:
        return x[..., 0]
    if x.shape[-1] == 2:
        return x[..., 0] + 1j * x[..., 1]
    raise ValueError(f"the last dim of shape {list(x.shape)} must be 1 (real) or 2 (complex).")


def _pair(z: Array) -> Array:
    return np.stack([np.real(z), np.imag(z)], axis=-1)


@ieee
def dft(x: Array, dft_length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Array:
    """The discrete Fourier transform of [.., 1] or [.., 2] along `axis` (default -2). ONNX DFT.

    onesided gives bins 0 .. n / 2 of a real signal, or with `inverse` the real signal [.., 1] of such bins. The signal
    is cut or zero-padded to dft_length. Raises ValueError for a onesided forward transform of a complex signal.
    """
    wide = widen(x)
    at = -2 if axis is None else int(scalar(axis))
    at = one_axis(at, wide.ndim)
    if at == wide.ndim - 1:
        raise ValueError("DFT cannot run over the last dim, which holds real and imaginary parts.")
    z = _complex(wide)
    length = None if dft_length is None else int(scalar(dft_length))
    if onesided and inverse:
        y = np.fft.irfft(z, n=length, axis=at)[..., None]
    elif onesided:
        if np.iscomplexobj(z):
            raise ValueError("a onesided DFT needs a real signal.")
        y = _pair(np.fft.rfft(z, n=length, axis=at))
    else:
        y = _pair((np.fft.ifft if inverse else np.fft.fft)(z, n=length, axis=at))
    return narrow(y, np.asarray(x).dtype)


@ieee
def stft(
    signal: Array, frame_step: Any, window: Array | None = None, frame_length: Any = None, *, onesided: int = 1
) -> Array:
    """DFTs of windowed frames of signal [b, n, 1 or 2]: [b, frames, bins, 2]. ONNX STFT.

    frame_length defaults to the window's, else to the signal's; onesided keeps frame_length // 2 + 1 bins.
    """
    wide = widen(signal)
    z = _complex(wide)
    step = int(scalar(frame_step))
    if frame_length is not None:
        length = int(scalar(frame_length))
    else:
        length = z.shape[1] if window is None else np.shape(window)[0]
    if window is not None and np.shape(window)[0] != length:
        raise ValueError(f"a window of {np.shape(window)[0]} does not fit frames of {length}.")
    frames = sliding_window_view(z, length, axis=1)[:, ::step]
    if window is not None:
        frames = frames * widen(window)
    if onesided:
        if np.iscomplexobj(frames):
            raise ValueError("a onesided STFT needs a real signal.")
        return narrow(_pair(np.fft.rfft(frames, axis=-1)), np.asarray(signal).dtype)
    return narrow(_pair(np.fft.fft(frames, axis=-1)), np.asarray(signal).dtype)


def _window(size: Any, periodic: int, dtype: DTypeLike, weights: tuple[float, ...]) -> Array:
    count = int(scalar(size))
    span = count if periodic else count - 1
    angle = 2 * math.pi * np.arange(count) / max(span, 1)
    total = np.zeros(count)
    for i, w in enumerate(weights):
        total += w * np.cos(i * angle) * (1 if i % 2 == 0 else -1)
    return total.astype(dtype)


def hann_window(size: Any, *, output_datatype: DTypeLike = np.float32, periodic: int = 1) -> Array:
    """Hann window of `size` samples. ONNX HannWindow."""
    return _window(size, periodic, output_datatype, (0.5, 0.5))


def hamming_window(size: Any, *, output_datatype: DTypeLike = np.float32, periodic: int = 1) -> Array:
    """Hamming window of `size` samples, with the coefficients 25/46 and 21/46. ONNX HammingWindow."""
    return _window(size, periodic, output_datatype, (25 / 46, 21 / 46))


def blackman_window(size: Any, *, output_datatype: DTypeLike = np.float32, periodic: int = 1) -> Array:
    """Blackman window of `size` samples. ONNX BlackmanWindow."""
    return _window(size, periodic, output_datatype, (0.42, 0.5, 0.08))


def mel_weight_matrix(
    num_mel_bins: Any,
    dft_length: Any,
    sample_rate: Any,
    lower_edge_hertz: Any,
    upper_edge_hertz: Any,
    *,
    output_datatype: DTypeLike = np.float32,
) -> Array:
    """Triangular mel filters over the bins of a real DFT: [dft_length // 2 + 1, num_mel_bins]. ONNX MelWeightMatrix."""
    bins, length, rate = int(scalar(num_mel_bins)), int(scalar(dft_length)), int(scalar(sample_rate))
    low, high = (2595 * math.log10(1 + float(scalar(v)) / 700) for v in (lower_edge_hertz, upper_edge_hertz))
    rows = length // 2 + 1
    edges = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    hertz = 700 * (10 ** (edges / 2595) - 1)
    edges = np.floor((length + 1) * hertz / rate).astype(np.int64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    row = np.arange(rows)[:, None]
    # An edge that coincides with the centre leaves a step there, and the centre itself always weighs 1.
    rise = np.where(centre > left, (row - left) / np.maximum(centre - left, 1), 1.0)
    fall = (right - row) / np.maximum(right - centre, 1)
    result = np.where((row >= left) & (row <= centre), rise, np.where((row > centre) & (row < right), fall, 0.0))
    return result.astype(output_datatype)
