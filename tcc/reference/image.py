# SPDX-License-Identifier: Apache-2.0
"""Decoding of images, by Pillow where it is installed."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from tcc.reference._numeric import Array

PIXEL_FORMATS = ("RGB", "BGR", "Grayscale")


def image_decoder(encoded_stream: Array, *, pixel_format: str = "RGB") -> Array:
    """The pixels, u8 [height, width, 3] or [height, width, 1], of a file given as u8 bytes. ONNX ImageDecoder.

    Reads what the installed Pillow reads: BMP, JPEG, JPEG 2000, PNG, PNM, TIFF, WebP. Raises ImportError, with the way
    out, where Pillow is missing, and ValueError for bytes that are no such file.
    """
    if pixel_format not in PIXEL_FORMATS:
        raise ValueError(f"pixel_format '{pixel_format}' is none of {', '.join(PIXEL_FORMATS)}.")
    try:
        pillow: Any = importlib.import_module("PIL.Image")
    except ImportError:
        raise ImportError("ImageDecoder needs Pillow; install it with pip install 'tcc[images]'") from None
    try:
        image = pillow.open(io.BytesIO(np.ascontiguousarray(encoded_stream, np.uint8).tobytes()))
        pixels = np.asarray(image.convert("L" if pixel_format == "Grayscale" else "RGB"))
    except (OSError, ValueError, SyntaxError) as e:  # Pillow raises all three for damaged files
        raise ValueError(f"the bytes are no image that Pillow reads: {e}.") from None
    if pixel_format == "Grayscale":
        return pixels[:, :, None]
    return np.ascontiguousarray(pixels[:, :, ::-1]) if pixel_format == "BGR" else pixels
