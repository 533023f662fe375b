# SPDX-License-Identifier: Apache-2.0
"""Windows of convolutions and pools: strides, dilations and explicit pads from ONNX attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.compiler.frontend.node import Node
from tcc.errors import InputError
from tcc.ir.core import Value


@dataclass(frozen=True)
class Window:
    """Explicit window attributes; `pads` are the begins, then the ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def window(n: Node, x: Value, kernel: Sequence[int]) -> Window:
    """The window over the spatial dims of x with auto_pad resolved. SAME_UPPER and SAME_LOWER make ceil(in / stride)
    outputs, the odd element of padding going to the end or the start."""
    rank = n.rank(x) - 2
    if rank < 1 or len(kernel) != rank:
        raise InputError(f"x is {n.type(x)}, which a window of {list(kernel)} does not fit")
    strides, dilations = n.attr("strides", [1] * rank), n.attr("dilations", [1] * rank)
    pads = n.attr("pads", [0] * 2 * rank)
    for name, values, count in (("strides", strides, rank), ("dilations", dilations, rank), ("pads", pads, 2 * rank)):
        if len(values) != count:
            raise InputError(f"its {name} {values} have {len(values)} entries and {count} are needed")
    if min(strides) < 1 or min(dilations) < 1 or min(kernel) < 1:
        raise InputError(f"its kernel {list(kernel)}, strides {strides} and dilations {dilations} must be at least 1")
    auto = n.attr("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * rank
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0] * 2 * rank
        for i in range(rank):
            total = _same_padding(n, x, i, kernel[i], strides[i], dilations[i])
            small = total // 2
            pads[i], pads[rank + i] = (total - small, small) if auto == "SAME_LOWER" else (small, total - small)
    elif auto != "NOTSET":
        raise InputError(f"its auto_pad is {auto}, which ONNX does not have")
    return Window(tuple(kernel), tuple(strides), tuple(pads), tuple(dilations))


def _same_padding(n: Node, x: Value, i: int, kernel: int, stride: int, dilation: int) -> int:
    extent = n.shape(x)[2 + i]
    span = dilation * (kernel - 1) + 1
    if stride == 1:
        return span - 1
    if not isinstance(extent, int):
        raise InputError(f"its auto_pad needs the free dim {extent} bound")
    return max(0, (-(-extent // stride) - 1) * stride + span - extent)
