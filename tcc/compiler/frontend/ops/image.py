# SPDX-License-Identifier: Apache-2.0
"""ONNX ImageDecoder: a call of the host, which gives a tensor whose height and width are the file's."""

from __future__ import annotations

from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import host_value
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import U8


@onnx_op("ImageDecoder")
def image_decoder(n: Node) -> Value:
    form = n.attr("pixel_format", "RGB")
    if form not in ("RGB", "BGR", "Grayscale"):
        raise InputError(f"its pixel_format is {form}, and RGB, BGR and Grayscale are the choices")
    height, width = (n.importer.names.fresh(f"{n.loc}_{what}") for what in ("height", "width"))
    result = graph.dense((height, width, 1 if form == "Grayscale" else 3), U8)
    reason = "it decodes an image file"
    return host_value(n.importer, "image_decoder", [n.input(0)], result, reason, pixel_format=form)
