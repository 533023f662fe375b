# SPDX-License-Identifier: Apache-2.0
"""Reading and resizing pictures with numpy and the standard library alone."""

import struct
import zlib
from pathlib import Path

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # PNG colour type: grey, RGB, grey and alpha, RGB and alpha


def read_png(path: Path) -> np.ndarray:
    """The picture as uint8 RGB, height × width × 3 (alpha is dropped).

    Source: the PNG specification (W3C), 8 bits a sample, not interlaced. Raises ValueError for any other kind.
    """
    data = path.read_bytes()
    if not data.startswith(SIGNATURE):
        raise ValueError(f"{path} is no PNG file")
    position, body = len(SIGNATURE), b""
    width = height = depth = colour = interlace = 0
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, chunk = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunk)
        elif kind == b"IDAT":
            body += chunk
        position += 12 + length
    if depth != 8 or colour not in CHANNELS or interlace:
        raise ValueError(f"{path}: only 8-bit grey or RGB pictures that are not interlaced can be read")
    channels = CHANNELS[colour]
    pixels = _unfilter(np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * channels), channels)
    pixels = pixels.reshape(height, width, channels)
    return np.repeat(pixels[:, :, :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(pixels[:, :, :3])


def _unfilter(rows: np.ndarray, step: int) -> np.ndarray:
    """Undo the PNG filters: `rows` holds each line's filter type and then its bytes; `step` is the bytes of a pixel."""
    height, width = rows.shape[0], rows.shape[1] - 1
    out = np.zeros((height + 1, width + step), np.uint8)  # a line above and a pixel to the left, both zero
    for line in range(height):
        kind, current, above = rows[line, 0], rows[line, 1:], out[line, step:]
        if kind == 0:
            out[line + 1, step:] = current
        elif kind == 1:  # Sub: a running sum along each channel, modulo 256
            sums = np.cumsum(current.reshape(-1, step), axis=0, dtype=np.uint8)
            out[line + 1, step:] = sums.reshape(-1)
        elif kind == 2:  # Up
            out[line + 1, step:] = current + above
        else:  # Average and Paeth depend on the pixel just decoded
            _sequential(int(kind), current.tolist(), out, line, step)
    return out[1:, step:]


def _sequential(kind: int, current: list[int], out: np.ndarray, line: int, step: int) -> None:
    above, decoded = out[line].tolist(), [0] * step
    for index, value in enumerate(current):
        left, up, corner = decoded[index], above[index + step], above[index]
        if kind == 3:
            predicted = (left + up) // 2
        else:
            distances = (abs(up - corner), abs(left - corner), abs(left + up - 2 * corner))
            predicted = (left, up, corner)[distances.index(min(distances))]
        decoded.append((value + predicted) & 255)
    out[line + 1] = decoded


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """`picture` (height × width × channels) resampled bilinearly between pixel centres, as float32."""

    def axis(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centre = np.clip((np.arange(target) + 0.5) * (size / target) - 0.5, 0, size - 1)
        low = np.floor(centre).astype(int)
        return low, np.minimum(low + 1, size - 1), (centre - low).astype(np.float32)

    source = picture.astype(np.float32)
    top, bottom, down = axis(source.shape[0], height)
    left, right, across = axis(source.shape[1], width)
    down, across = down[:, None, None], across[None, :, None]
    rows = source[top] * (1 - down) + source[bottom] * down
    return rows[:, left] * (1 - across) + rows[:, right] * across


def network_input(picture: np.ndarray) -> np.ndarray:
    """A float32 batch of one, channels first, with 0..255 mapped to -1..1."""
    return np.ascontiguousarray(((picture.astype(np.float32) / 255.0 - 0.5) / 0.5).transpose(2, 0, 1)[None])
